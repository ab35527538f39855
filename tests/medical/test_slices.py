"""Volumes with label volumes become a set of images and masks, whole volumes on one side."""

import json

import numpy as np
import pytest
from click.testing import CliRunner
from medical import make

import kerasvision as kv
from kerasvision.cli import main
from kerasvision.data.loading import Loader
from kerasvision.errors import DataError
from kerasvision.medical import Window, read_volume, write_slices

LABELS = ["background", "soft", "bone"]
WINDOW = Window(40, 400)
STEP = np.diag([-0.7, -0.9, 3, 1])


def classes_of(values):
    return np.digitize(WINDOW(values), [100, 200]).astype(np.uint8)


def write_pairs(root, names, shape=(4, 24, 30)):
    for seed, name in enumerate(names):
        values = make.body(shape, seed)
        values[0] = -1000
        stored = values.transpose(2, 1, 0)
        make.write_nifti(root / "volumes" / f"{name}.nii.gz", stored, STEP)
        make.write_nifti(root / "labels" / f"{name}.nii.gz", classes_of(stored).astype(np.float32), STEP)
    return root / "volumes", root / "labels"


def test_a_set_of_slices(tmp_path):
    names = [f"patient{number:02}_{visit}" for number in range(6) for visit in "ab"]
    volumes, labels = write_pairs(tmp_path, names)
    facts = write_slices(
        volumes,
        labels,
        tmp_path / "set",
        LABELS,
        window=WINDOW,
        validation_fraction=0.3,
        test_fraction=0.2,
        group_pattern=r"patient(\d+)",
    )
    assert json.loads((tmp_path / "set" / "volumes.json").read_text()) == json.loads(json.dumps(facts))
    assert facts["volumes"]["patient00_a"]["spacing_mm"] == pytest.approx((3, 0.9, 0.7))
    data = kv.load_data(tmp_path / "set")
    assert data.labels == tuple(LABELS)
    assert {split: len(examples) for split, examples in data.splits.items()} == {
        "train": 24,
        "validation": 16,
        "test": 8,
    }
    sides = {}
    for split, examples in data.splits.items():
        loader = Loader(examples, data.infos, 3, 1)
        for index, example in enumerate(examples):
            volume, number = example["key"].split("/")[-2:]
            assert facts["volumes"][volume]["split"] == split
            sides.setdefault(volume[:9], set()).add(split)
            source = read_volume(volumes / f"{volume}.nii.gz").values[int(number[:4])]
            loaded = loader(index)
            np.testing.assert_array_equal(loaded["image"][..., 0], WINDOW(source))
            np.testing.assert_array_equal(loaded["segmentation"], classes_of(source))
    # Both visits of a patient are on one side.
    assert len(sides) == 6 and all(len(found) == 1 for found in sides.values())


def test_names_windows_and_empty_slices(tmp_path):
    volumes, labels = write_pairs(tmp_path, [f"case{number}" for number in range(4)])
    for file in volumes.iterdir():
        file.rename(file.with_name(file.name.replace(".nii", "_0000.nii")))
    facts = write_slices(volumes, labels, tmp_path / "set", LABELS, empty=False)
    assert sorted(facts["volumes"]) == ["case0", "case1", "case2", "case3"]
    assert all(fact["slices"] == 3 for fact in facts["volumes"].values())
    assert not list((tmp_path / "set").rglob("0000.png")) and len(list((tmp_path / "set").rglob("0001.png"))) == 8
    used = facts["volumes"]["case2"]["window"]
    volume = read_volume(volumes / "case2_0000.nii.gz")
    assert Window(**used) == volume.windowed()
    sagittal = write_slices(volumes, labels, tmp_path / "sagittal", LABELS, plane="sagittal", window=WINDOW)
    assert sagittal["volumes"]["case0"]["slices"] == 30


def test_series_with_labels(tmp_path):
    for index in range(3):
        values = make.body((4, 24, 30), index)
        folder = make.write_series(tmp_path / "volumes" / f"ct{index}", values)
        affine = read_volume(folder).layout.affine
        make.write_nifti(tmp_path / "labels" / f"ct{index}.nii", classes_of(values).transpose(2, 1, 0), affine)
    facts = write_slices(tmp_path / "volumes", tmp_path / "labels", tmp_path / "set", LABELS)
    assert {name: fact["window"]["center"] for name, fact in facts["volumes"].items()} == dict.fromkeys(
        ("ct0", "ct1", "ct2"), 40
    )
    assert len(kv.load_data(tmp_path / "set").splits["train"]) == 8


def test_pairs_that_do_not_fit(tmp_path):
    volumes, labels = write_pairs(tmp_path, ["a", "b", "c"])

    def refused(expected, names=LABELS, **options):
        with pytest.raises(DataError, match=expected):
            write_slices(volumes, labels, tmp_path / "set", names, **options)
        assert not (tmp_path / "set").exists() and not list(tmp_path.glob(".set*"))

    refused("2 to 254 classes", names=["background"])
    refused("validation_fraction must be above 0", validation_fraction=0)
    refused(r"labels/a.nii.gz holds 2.0, of which there is no class. Expected 0..1", names=LABELS[:2])
    refused("is not found in 3 keys", group_pattern="patient")
    refused("validation split would be empty", group_pattern="")
    values = make.body((4, 24, 30)).transpose(2, 1, 0)
    moved = STEP.copy()
    moved[0, 3] = 4
    make.write_nifti(labels / "b.nii.gz", classes_of(values), moved)
    refused(r"volumes/b.nii.gz and its labels .*b.nii.gz lie in different places.*up to 4 mm")
    make.write_nifti(labels / "b.nii.gz", classes_of(values)[:, :-1], STEP)
    refused(r"b.nii.gz has 4 slices of 24 x 30 and its labels .*b.nii.gz 4 slices of 23 x 30")
    (labels / "b.nii.gz").unlink()
    refused(r"volumes/b.nii.gz has no labels .*labels/b.nii.gz")
    (volumes / "b.nii.gz").rename(volumes / "a_0001.nii.gz")
    refused(r"a.nii.gz and .*a_0001.nii.gz have the same labels")
    with pytest.raises(DataError, match="is no folder"):
        write_slices(volumes / "a.nii.gz", labels, tmp_path / "set", LABELS)
    (volumes / "a_0001.nii.gz").unlink()
    (tmp_path / "set").mkdir()
    (tmp_path / "set" / "x").touch()
    with pytest.raises(DataError, match="exists already"):
        write_slices(volumes, labels, tmp_path / "set", LABELS)


def test_slices_verb(tmp_path):
    volumes, labels = write_pairs(tmp_path, ["a", "b", "c", "d", "e"])
    arguments = ["slices", volumes, labels, "--out", tmp_path / "set", "--labels", "background, soft, bone"]
    result = CliRunner().invoke(
        main, [str(each) for each in (*arguments, "--window", 40, 400, "--skip-empty", "--json")]
    )
    assert result.exit_code == 0, result.stderr
    values = json.loads(result.stdout)
    assert values["labels"] == LABELS and values["volumes"]["a"]["window"]["center"] == 40
    assert sorted(fact["split"] for fact in values["volumes"].values()) == ["train"] * 4 + ["validation"]
    again = CliRunner().invoke(main, [str(each) for each in arguments])
    assert again.exit_code == 1 and "exists already" in again.stderr
