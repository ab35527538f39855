"""Sets known by name, and the table that recognises sources."""

import gzip
import zipfile
from collections import Counter

import numpy as np
import pytest
from PIL import Image

from kerasvision.data import FORMATS, load_data, named
from kerasvision.errors import DataError, UnknownNameError


def counts(data):
    return {split: len(examples) for split, examples in data.splits.items()}


def test_digits():
    data = load_data("digits")
    assert counts(data) == {"train": 1259, "test": 359, "validation": 179}
    assert data.labels == tuple("0123456789")
    image = data.splits["train"][0]["image"]
    assert image.shape == (8, 8) and image.dtype == np.uint8
    assert max(example["image"].max() for example in data.splits["train"]) == 255
    shares = Counter(example["label"] for example in data.splits["test"])
    assert min(shares.values()) >= 34
    # The split is part of the set: it does not move with the seed.
    again = load_data("digits", seed=7)
    assert all((a["image"] == b["image"]).all() for a, b in zip(data.splits["test"], again.splits["test"], strict=True))


def write_idx(path, array):
    header = bytes([0, 0, 8, array.ndim]) + b"".join(size.to_bytes(4, "big") for size in array.shape)
    path.write_bytes(gzip.compress(header + array.tobytes()))


def test_fashion_mnist_from_the_data_folder(tmp_path, monkeypatch):
    folder = tmp_path / "fashion_mnist"
    folder.mkdir()
    for part, count in (("train", 200), ("t10k", 20)):
        write_idx(folder / f"{part}-images-idx3-ubyte.gz", np.full((count, 28, 28), 7, np.uint8))
        write_idx(folder / f"{part}-labels-idx1-ubyte.gz", (np.arange(count) % 10).astype(np.uint8))
    monkeypatch.setattr(named, "FASHION_FOLDER", tmp_path / "nowhere")
    monkeypatch.setenv("KERASVISION_DATA", str(tmp_path))
    data = load_data("fashion_mnist")
    assert counts(data) == {"train": 180, "test": 20, "validation": 20}
    assert data.labels[0] == "T-shirt/top"


def test_fashion_mnist_of_debian():
    if not named.FASHION_FOLDER.is_dir():
        pytest.skip("Debian's package dataset-fashion-mnist is not installed")
    data = load_data("fashion_mnist")
    assert counts(data) == {"train": 54_000, "test": 10_000, "validation": 6_000}
    assert set(Counter(example["label"] for example in data.splits["validation"]).values()) == {600}


def test_fashion_mnist_without_files_or_network(tmp_path, monkeypatch):
    import keras

    def fail():
        raise Exception("URL fetch failure")

    monkeypatch.setattr(named, "FASHION_FOLDER", tmp_path / "nowhere")
    monkeypatch.delenv("KERASVISION_DATA", raising=False)
    monkeypatch.setattr(keras.datasets.fashion_mnist, "load_data", fail)
    with pytest.raises(DataError, match="URL fetch failure.*Install the package"):
        load_data("fashion_mnist")


@pytest.mark.parametrize(
    ("content", "message"),
    [
        (b"not gzip", "Cannot read"),
        (gzip.compress(b"\0\0\x0d\x01\0\0\0\x01\0", mtime=0), "not an IDX file"),
        (gzip.compress(b"\0\0\x08\x01\0\0\0\x05abc", mtime=0), "damaged"),
        (gzip.compress(b"\0\0\x08\x03\0\0", mtime=0), "damaged"),
        (gzip.compress(b"\0\0\x08\x01\0\0\0\x05abcde", mtime=0)[:-6], "Cannot read"),
        (gzip.compress(b"\0\0\x08\x01\0\0\0\x05abcde", mtime=0)[:10] + b"\xff" * 9, "Cannot read"),
    ],
)
def test_damaged_idx_files(tmp_path, content, message):
    path = tmp_path / "images.gz"
    path.write_bytes(content)
    with pytest.raises(DataError, match=f"{message}.*"):
        named.read_idx(path)


def test_cifar10_is_read_out_of_the_archive(tmp_path, monkeypatch):
    (tmp_path / "cifar10").mkdir()
    Image.fromarray(np.full((32, 32, 3), 99, np.uint8)).save(tmp_path / "a.png")
    content = (tmp_path / "a.png").read_bytes()
    with zipfile.ZipFile(tmp_path / "cifar10/train.zip", "w") as archive:
        for label in ("ship", "cat"):
            for index in range(20):
                archive.writestr(f"{label}/{index:04}.png", content)
    monkeypatch.setenv("KERASVISION_DATA", str(tmp_path))
    data = load_data("cifar10")
    assert counts(data) == {"train": 36, "validation": 4}
    assert data.labels == ("cat", "ship")
    assert (data.splits["train"][0]["image"] == 99).all()
    assert sorted(path.name for path in (tmp_path / "cifar10").iterdir()) == ["train.zip"]


def test_cifar10_that_is_missing_or_broken(tmp_path, monkeypatch):
    monkeypatch.delenv("KERASVISION_DATA", raising=False)
    with pytest.raises(DataError, match="KERASVISION_DATA is not set"):
        load_data("cifar10")
    monkeypatch.setenv("KERASVISION_DATA", str(tmp_path))
    with pytest.raises(DataError, match="not a folder"):
        load_data("cifar10")
    (tmp_path / "cifar10").mkdir()
    (tmp_path / "cifar10/train.zip").write_text("no zip")
    with pytest.raises(DataError, match=r"train\.zip: File is not a zip file"):
        load_data("cifar10")


def test_real_cifar10(real_data):
    data = load_data("cifar10", limit=50)
    assert counts(data) == {"train": 50, "validation": 50}
    assert set(Counter(example["label"] for example in data.splits["train"]).values()) == {5}


def test_imagenet_sample(real_data):
    data = load_data("imagenet_sample")
    assert len(data.labels) == 1000 and counts(data) == {"test": 500}
    assert data.labels[:3] == ("tench", "class 0001", "great white shark")
    assert data.splits["test"][1]["label"] == 2


def test_imagenet_sample_out_of_range(tmp_path, monkeypatch):
    (tmp_path / "imagenet_sample").mkdir()
    Image.new("RGB", (4, 4)).save(tmp_path / "imagenet_sample/1000_n01440764_tench.jpg")
    monkeypatch.setenv("KERASVISION_DATA", str(tmp_path))
    with pytest.raises(DataError, match="class 1000 is outside the range"):
        load_data("imagenet_sample")


def test_elpv_never_splits_a_block():
    pytest.importorskip("elpv_dataset")
    listing = named.load_elpv()
    blocks = {
        split: {(int(item.key[-8:-4]) - 1) // named.ELPV_BLOCK for item in items}
        for split, items in listing.splits.items()
    }
    assert sum(len(found) for found in blocks.values()) == 44 == len(set().union(*blocks.values()))
    assert sum(len(items) for items in listing.splits.values()) == 2624
    defective = sum(item.labels == ("defective",) for items in listing.splits.values() for item in items)
    assert defective == 715 + 106
    assert named.load_elpv().splits == listing.splits


def test_elpv_without_the_package(monkeypatch):
    monkeypatch.setattr("importlib.util.find_spec", lambda name: None)
    with pytest.raises(ImportError, match=r"kerasvision\[datasets\]"):
        load_data("elpv")
    with pytest.raises(ImportError, match=r"kerasvision\[datasets\]"):
        load_data("tfds:beans")


def test_unknown_source_says_what_was_looked_for(tmp_path):
    with pytest.raises(DataError, match=r'no file or folder at .*/digit, .* Did you mean "digits"\?'):
        load_data("digit")
    with pytest.raises(DataError, match=r"Expected a folder \(class folders, COCO.*\.csv, \.json"):
        load_data(tmp_path / "nowhere")
    (tmp_path / "data.bin").write_text("{}")
    with pytest.raises(DataError, match="is a file of no known kind"):
        load_data(tmp_path / "data.bin")
    with pytest.raises(DataError, match="No file or folder at"):
        load_data(tmp_path / "nowhere.csv", format="csv")


def test_format_overrides_the_recognition(image_folder):
    root = image_folder({"x": 2})
    (root / "list.txt").write_text("x/000.png,a\nx/001.png,b\n")
    assert load_data(root / "list.txt", format="csv", validation_fraction=0).labels == ("a", "b")
    with pytest.raises(UnknownNameError, match='Unknown data format "folders". Did you mean "folder"'):
        load_data(root, format="folders")


def test_a_folder_with_the_name_of_a_set_needs_a_path(image_folder, monkeypatch):
    root = image_folder({"digits/a": 2, "digits/b": 2})
    monkeypatch.chdir(root)
    assert load_data("./digits").labels == ("a", "b")
    assert len(load_data("digits").labels) == 10


def test_every_format_describes_itself():
    assert all(entry.description for entry in FORMATS.values())
