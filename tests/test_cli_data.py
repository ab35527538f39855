"""`kerasvision convert`: shards from a folder, and their check."""

import json

import numpy as np
import pytest
from click.testing import CliRunner

from kerasvision.cli import main
from kerasvision.data import load_data, save_split


def call(*arguments: object):
    return CliRunner().invoke(main, [str(argument) for argument in arguments])


def call_json(*arguments: object) -> dict:
    result = call(*arguments, "--json")
    assert result.exit_code == 0, result.stderr
    return json.loads(result.stdout)


@pytest.fixture
def images(image_folder):
    return image_folder({"cats": 12, "dogs": 12})


def test_convert_and_check(images, tmp_path):
    out = tmp_path / "shards"
    values = call_json("convert", images, "--out", out, "--shards", 3, "--test-fraction", 0.25)
    assert values["labels"] == ["cats", "dogs"] and values["fields"] == ["image", "key", "label"]
    assert {name: (found["examples"], found["shards"]) for name, found in values["splits"].items()} == {
        "train": (18, 3),
        "test": (6, 3),
    }
    data = load_data(images, validation_fraction=0, test_fraction=0.25)
    read = load_data(out, validation_fraction=0)
    for split in data.splits:
        assert [(e["key"], e["label"]) for e in data.splits[split]] == [
            (e["key"], e["label"]) for e in read.splits[split]
        ]
    assert call_json("convert", "--check", out)["splits"] == values["splits"]
    table = call("convert", "--check", out)
    assert f"{out} is sound: image, key, label" in table.stdout and "18" in table.stdout


def test_damage_is_an_exit_code_and_a_name(images, tmp_path):
    out = tmp_path / "shards"
    call_json("convert", images, "--out", out)
    file = out / "train-00000-of-00001.tfrecord"
    content = bytearray(file.read_bytes())
    content[-50] ^= 4
    file.write_bytes(content)
    result = call("convert", "--check", out)
    assert result.exit_code == 1
    assert "train-00000-of-00001.tfrecord: wrong checksum, record 23 is damaged" in result.stderr


def test_bad_images_stop_or_are_named(images, tmp_path):
    (images / "cats/bad.png").write_text("no image")
    stopped = call("convert", images, "--out", tmp_path / "shards")
    assert stopped.exit_code == 1 and "bad.png" in stopped.stderr and not (tmp_path / "shards").exists()
    result = call("convert", images, "--out", tmp_path / "shards", "--skip-bad-files")
    assert result.exit_code == 0 and "left out: " in result.stdout and "bad.png" in result.stdout


def test_a_saved_split_is_followed(images, tmp_path):
    save_split(load_data(images, validation_fraction=0.5, seed=9), tmp_path / "split.json")
    values = call_json("convert", images, "--out", tmp_path / "shards", "--split-file", tmp_path / "split.json")
    assert {name: found["examples"] for name, found in values["splits"].items()} == {"train": 12, "validation": 12}


@pytest.mark.parametrize(
    "arguments", [(), ("set",), ("--out", "x"), ("set", "--check", "x"), ("--check", "x", "--out", "y")]
)
def test_usage(arguments):
    result = call("convert", *arguments)
    assert result.exit_code == 2 and "DATA" in result.stderr


def test_a_folder_in_use_is_refused(images, tmp_path):
    (tmp_path / "out").mkdir()
    np.save(tmp_path / "out/mine.npy", 1)
    result = call("convert", images, "--out", tmp_path / "out")
    assert result.exit_code == 1 and "exists already" in result.stderr
    assert [path.name for path in (tmp_path / "out").iterdir()] == ["mine.npy"]
