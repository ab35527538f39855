"""Sets on another file system are listed, read and written about as local ones are."""

import json
from pathlib import Path

import fsspec
import numpy as np
import pytest
from PIL import Image

from kerasvision.data import load_data, load_image, write_shards
from kerasvision.data.mask_files import read_segmentation
from kerasvision.errors import DataError


@pytest.fixture
def upload():
    """Copies a folder into memory:// and gives its address."""
    files = fsspec.filesystem("memory")
    files.store.clear()

    def copy(folder: Path) -> str:
        for file in sorted(path for path in folder.rglob("*") if path.is_file()):
            files.pipe_file(f"/sets/{folder.name}/{file.relative_to(folder).as_posix()}", file.read_bytes())
        return f"memory://sets/{folder.name}"

    yield copy
    files.store.clear()


def assert_same(local, remote) -> None:
    assert local.labels == remote.labels and list(local.splits) == list(remote.splits)
    for split, examples in local.splits.items():
        for ours, theirs in zip(examples, remote.splits[split], strict=True):
            assert theirs["image"].startswith("memory://") and set(ours) == set(theirs)
            np.testing.assert_array_equal(load_image(ours["image"], (8, 8)), load_image(theirs["image"], (8, 8)))
            for name in set(ours) - {"image", "segmentation"}:
                np.testing.assert_array_equal(ours[name], theirs[name])
            if "segmentation" in ours:
                masks = [read_segmentation(example["segmentation"]) for example in (ours, theirs)]
                np.testing.assert_array_equal(*masks)


def test_class_folders(image_folder, upload):
    root = image_folder({"train/cats": 4, "train/dogs": 4, "test/cats/more": 2, "test/dogs": 1})
    (root / "train/cats/.hidden").touch()
    local, remote = load_data(root), load_data(upload(root))
    assert_same(local, remote)
    first = [
        np.concatenate([images for images, _ in data.batches("test", image_size=(8, 8))]) for data in (local, remote)
    ]
    np.testing.assert_array_equal(*first)


def test_csv(image_folder, upload):
    root = image_folder({"photos": 6})
    rows = "\n".join(f"photos/{index:03}.png,{'ab'[index % 2]}" for index in range(6))
    (root / "labels.csv").write_text(f"path,label\n{rows}\nphotos/../photos/000.png,a\n")
    address = upload(root)
    with pytest.raises(DataError, match="labels.csv:8: .* was listed before"):
        load_data(f"{address}/labels.csv")
    (root / "labels.csv").write_text(f"path,label\n{rows}\n")
    upload(root)
    assert_same(load_data(root / "labels.csv"), load_data(f"{address}/labels.csv"))


def test_coco(image_folder, upload):
    root = image_folder({"images": 4})
    content = {
        "images": [{"id": i, "file_name": f"{i:03}.png", "width": 12, "height": 16} for i in range(4)],
        "annotations": [
            {"id": i, "image_id": i % 3, "category_id": 7, "bbox": [1, 2, 3 + i, 4], "iscrowd": 0} for i in range(5)
        ],
        "categories": [{"id": 7, "name": "cat"}],
    }
    (root / "set.json").write_text(json.dumps(content))
    assert_same(load_data(root / "set.json"), load_data(f"{upload(root)}/set.json"))
    assert_same(load_data(root), load_data("memory://sets/images"))


def test_image_and_mask_folders(image_folder, upload):
    root = image_folder({"images": 4})
    (root / "masks").mkdir()
    for index in range(4):
        Image.fromarray(np.arange(16 * 12, dtype=np.uint8).reshape(16, 12) % (2 + index)).save(
            root / f"masks/{index:03}.png"
        )
    assert_same(load_data(root), load_data(upload(root)))


def test_shards_and_arrays(image_folder, upload, tmp_path):
    root = image_folder({"a": 4, "b": 4})
    write_shards(load_data(root, validation_fraction=0), tmp_path / "shards", shards=2)
    np.savez(tmp_path / "shards/set.npz", images=np.zeros((4, 4, 4), np.uint8), labels=[0, 1, 0, 1])
    address = upload(tmp_path / "shards")
    assert_same(load_data(tmp_path / "shards"), load_data(address, verify=True))
    assert load_data(f"{address}/set.npz").labels == ("0", "1")
    files = fsspec.filesystem("memory")
    name = "/sets/shards/train-00001-of-00002.tfrecord"
    content = files.cat_file(name)
    files.pipe_file(name, content[:-30] + b"\0" + content[-29:])
    with pytest.raises(DataError, match="train-00001-of-00002.tfrecord: wrong checksum"):
        load_data(address, verify=True)
    files.pipe_file(name, content[:-1])
    with pytest.raises(DataError, match=f"train-00001-of-00002.tfrecord: {len(content) - 1} bytes, expected"):
        load_data(address)


def test_bad_and_missing_files(image_folder, upload):
    root = image_folder({"a": 4, "b": 4})
    (root / "a/text.png").write_text("404 Not Found")
    (root / "list.csv").write_text("a/000.png,a\nb/000.png,b\nb/001.png,b\nb/nowhere.png,b\n")
    address = upload(root)
    data = load_data(address, on_bad_files="skip")
    (bad,) = [file for file in data.skipped if file.path.endswith("text.png")]
    assert bad.path == f"{address}/a/text.png" and "its content is text" in bad.reason
    with pytest.raises(
        DataError, match=r"memory://sets/images/b/nowhere.png: file not found \(named in .*list.csv:4\)"
    ):
        load_data(f"{address}/list.csv")
    with pytest.raises(
        DataError, match='Unknown data "memory://sets/elsewhere": no file or folder at memory://sets/elsewhere, and'
    ):
        load_data("memory://sets/elsewhere")
