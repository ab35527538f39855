"""Files that are no usable images: all of them are found, named and explained, or skipped on request."""

import struct
import zlib
from pathlib import Path

import numpy as np
import pytest
from PIL import Image

from kerasvision.data import load_data, load_image
from kerasvision.data.inspect import BadFile, inspect_file
from kerasvision.errors import DataError


def write_huge_png(path: Path, side: int = 30_000) -> None:
    def chunk(kind: bytes, content: bytes) -> bytes:
        return struct.pack(">I", len(content)) + kind + content + struct.pack(">I", zlib.crc32(kind + content))

    header = chunk(b"IHDR", struct.pack(">IIBBBBB", side, side, 1, 0, 0, 0, 0))
    path.write_bytes(b"\x89PNG\r\n\x1a\n" + header + chunk(b"IDAT", zlib.compress(b"")) + chunk(b"IEND", b""))


def write_bad_files(folder: Path) -> dict[str, str]:
    """One file of each kind; name -> what the reason must say."""
    good = (folder / "000.png").read_bytes()
    Image.fromarray(np.zeros((64, 64, 3), np.uint8)).save(folder / "cut.jpg")
    (folder / "cut.jpg").write_bytes((folder / "cut.jpg").read_bytes()[:-200])
    (folder / "cut.png").write_bytes(good[: len(good) // 2])
    (folder / "header_only.png").write_bytes(good[:20])
    (folder / "empty.jpg").write_bytes(b"")
    (folder / "text.jpg").write_text("404 Not Found")
    (folder / "notes.txt").write_text("Zürich, bought in May")
    (folder / "sound.jpg").write_bytes(b"ID3\x03\x00\xff\xfe\x00" * 10)
    (folder / "vector.eps").write_text("%!PS-Adobe-3.0 EPSF-3.0\n%%BoundingBox: 0 0 10 10\n")
    write_huge_png(folder / "huge.png")
    write_huge_png(folder / "large.png", side=11_000)
    Image.fromarray(np.zeros((4, 4), np.float32)).save(folder / "float.tif")
    return {
        "cut.jpg": "truncated or damaged",
        "cut.png": "truncated or damaged",
        "header_only.png": "truncated or damaged",
        "empty.jpg": "empty file",
        "text.jpg": "its content is text, '404 Not Found'",
        "notes.txt": "its content is text",
        "sound.jpg": "begins with the bytes 49 44 33",
        "vector.eps": "not an image",
        "huge.png": "900,000,000 pixels, more than the limit of 100,000,000",
        "large.png": "11000 x 11000 pixels, more than the limit of 100,000,000",
        "float.tif": "no known range",
    }


def test_each_kind_is_explained(image_folder):
    folder = image_folder({"cats": 1}) / "cats"
    for name, reason in write_bad_files(folder).items():
        found = inspect_file(str(folder / name))
        assert isinstance(found, BadFile), name
        assert reason in found.reason
    assert "file not found" in str(inspect_file(str(folder / "nowhere.png")))
    assert "is a folder" in str(inspect_file(str(folder)))


def test_stop_lists_all_of_them(image_folder):
    root = image_folder({"cats": 4, "dogs": 4})
    bad = write_bad_files(root / "cats")
    with pytest.raises(DataError) as error:
        load_data(root)
    message = str(error.value)
    assert message.startswith(f"{len(bad)} of {len(bad) + 8} image files cannot be used")
    for name, reason in bad.items():
        assert f"{root / 'cats' / name}: " in message
        assert reason in message
    assert "on_bad_files='skip' (--skip-bad-files)" in message


def test_long_lists_are_cut(image_folder):
    root = image_folder({"cats": 4, "dogs": 4})
    for index in range(33):
        (root / "cats" / f"bad{index:02}.jpg").write_bytes(b"")
    with pytest.raises(DataError, match=r"33 of 41") as error:
        load_data(root)
    assert "... and 13 more" in str(error.value)
    assert str(error.value).count("empty file") == 20


def test_skip_leaves_them_out_and_says_so(image_folder):
    root = image_folder({"cats": 4, "dogs": 4})
    bad = write_bad_files(root / "cats")
    data = load_data(root, on_bad_files="skip")
    assert {Path(file.path).name for file in data.skipped} == bad.keys()
    assert sum(len(split) for split in data.splits.values()) == 8
    assert sum(len(images) for images, _ in data.batches("train", image_size=(8, 8))) == len(data.splits["train"])


def test_skipping_a_whole_class_is_an_error(image_folder):
    root = image_folder({"cats": 4, "dogs": 4, "cows": 1})
    (root / "cows" / "000.png").write_bytes(b"")
    with pytest.raises(DataError, match=r"1 of 3 classes .* have no training images:\n  cows"):
        load_data(root, on_bad_files="skip")


def test_skipping_a_whole_split_is_an_error(image_folder):
    root = image_folder({"train/cats": 2, "train/dogs": 2, "val/cats": 1})
    (root / "val/cats/000.png").write_bytes(b"")
    with pytest.raises(DataError, match="validation split .* no usable images"):
        load_data(root, on_bad_files="skip")


def test_wrong_suffix_is_only_a_warning(image_folder):
    root = image_folder({"cats": 2, "dogs": 2})
    (root / "cats/000.png").rename(root / "cats/000.jpg")
    with pytest.warns(UserWarning, match=r"1 image files have a suffix of another format(.|\n)*000.jpg: is PNG"):
        data = load_data(root)
    assert not data.skipped


def test_unknown_choice_of_on_bad_files(image_folder):
    with pytest.raises(DataError, match='"stop" or "skip", got \'ignore\''):
        load_data(image_folder({"a": 2, "b": 2}), on_bad_files="ignore")


def test_load_image_names_the_file(tmp_path):
    (tmp_path / "empty.jpg").touch()
    with pytest.raises(DataError, match=r"empty\.jpg: empty file"):
        load_image(tmp_path / "empty.jpg", (8, 8))
    with pytest.raises(DataError, match=r"nowhere\.jpg: file not found"):
        load_image(tmp_path / "nowhere.jpg", (8, 8))


def test_a_file_lost_after_the_check_is_named(image_folder):
    root = image_folder({"a": 4, "b": 4})
    data = load_data(root, validation_fraction=0)
    (root / "a/001.png").unlink()
    with pytest.raises(Exception, match=r"001\.png"):
        list(data.batches("train", image_size=(8, 8), cache=False))
