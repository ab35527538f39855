"""NumPy arrays and .npz files as sources."""

import io
import itertools

import numpy as np
import pytest

from kerasvision.data import load_arrays, load_data
from kerasvision.errors import DataError
from kerasvision.masks import decode_masks

RNG = np.random.default_rng(0)
IMAGES = RNG.integers(0, 256, (20, 6, 5, 3), np.uint8)


def counts(data) -> dict[str, int]:
    return {split: len(examples) for split, examples in data.splits.items()}


@pytest.mark.parametrize(
    ("labels", "names", "expected"),
    [
        ([0, 1] * 10, None, ("0", "1")),
        (np.array([0, 1] * 10, np.uint8)[:, None], ["cat", "dog"], ("cat", "dog")),
        (["dog", "cat"] * 10, None, ("cat", "dog")),
        (["dog", "cat"] * 10, ["dog", "cat"], ("dog", "cat")),
        (np.array([0.0, 1.0] * 10), None, ("0", "1")),
    ],
)
def test_labels_of_many_kinds(labels, names, expected):
    data = load_arrays(IMAGES, labels, names=names, validation_fraction=0.2, seed=1)
    assert data.labels == expected and counts(data) == {"train": 16, "validation": 4}
    for example in itertools.chain(*data.splits.values()):
        index = int(example["key"].split("/")[1])
        wanted = np.asarray(labels).ravel()[index]
        assert example["label"] == (expected.index(wanted) if isinstance(wanted, str) else wanted)
        np.testing.assert_array_equal(example["image"], IMAGES[index])


def test_rows_of_zeros_and_ones_are_multi_label():
    rows = RNG.integers(0, 2, (20, 3))
    rows[0] = 0
    rows[1] = 1
    data = load_arrays(IMAGES, rows, names=["x", "y", "z"], validation_fraction=0)
    assert data.multi_label
    np.testing.assert_array_equal(data.targets("train")["labels"], rows)


def test_objects():
    boxes = [np.array([[0, 1, 3, 4]] * (index % 3), np.float32) for index in range(20)]
    classes = [np.arange(index % 3) for index in range(20)]
    masks = [np.ones((index % 3, 6, 5), np.uint8) for index in range(20)]
    keypoints = [np.full((index % 3, 2, 3), 2.0) for index in range(20)]
    data = load_arrays(
        IMAGES, boxes=boxes, classes=classes, masks=masks, keypoints=keypoints, names=["car", "van", "bus"],
        keypoint_names=["front", "back"], validation_fraction=0,
    )  # fmt: skip
    assert data.labels == ("car", "van", "bus") and data.keypoint_names == ("front", "back")
    for index, example in enumerate(data.splits["train"]):
        assert example["boxes"].shape == (index % 3, 4) and example["boxes"].dtype == np.float32
        assert example["classes"].dtype == np.int32 and example["crowd"].dtype == bool
        assert example["keypoints"].shape == (index % 3, 2, 3)
        np.testing.assert_array_equal(decode_masks(example["masks"], (6, 5)), masks[index])


def test_segmentation():
    masks = RNG.integers(0, 3, (20, 6, 5))
    masks[0, 0, 0] = 255
    data = load_arrays(IMAGES, segmentation=masks, validation_fraction=0)
    assert data.labels == ("0", "1", "2")
    for mask, example in zip(masks, data.splits["train"], strict=True):
        np.testing.assert_array_equal(example["segmentation"], mask)
        assert example["segmentation"].dtype == np.uint8


def test_groups_stay_together():
    data = load_arrays(IMAGES, [0, 1] * 10, groups=[f"day{index // 4}" for index in range(20)], split="group")
    groups = [{example["group"] for example in examples} for examples in data.splits.values()]
    assert counts(data) == {"train": 16, "validation": 4} and not groups[0] & groups[1]


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        ({"labels": [0, 1]}, "a label for each of 20 train images, got 2"),
        ({"labels": [0, -1] * 10}, "labels of 0 and more, got -1"),
        ({"labels": [0, 0.5] * 10}, "labels as class indices, got float64"),
        ({"labels": [0, 3] * 10, "names": ["a", "b"]}, "a name for each of 4 classes"),
        ({"labels": ["a", "b"] * 10, "names": ["a", "c"]}, "names lacks the labels b"),
        ({"labels": np.full((20, 3), 2)}, "zeros and ones, got other values"),
        ({"labels": np.zeros((20, 3, 3))}, r"\[N, K\] of zeros and ones, got \[20, 3, 3\]"),
        ({"labels": [0, 1] * 10, "boxes": [np.zeros((0, 4))] * 20, "classes": [[]] * 20}, "labels or boxes, got both"),
        ({"classes": [[]] * 20}, "classes belong to boxes"),
        ({"boxes": [np.zeros((0, 4))] * 20}, "Expected classes="),
        ({"boxes": [np.zeros((0, 4))] * 3, "classes": [[]] * 3}, "20 boxes, one for each image, got 3"),
        (
            {"boxes": [[[0, 0, 1, 1]]] * 20, "classes": [[]] * 20},
            "Image 0: expected classes for each of 1 boxes, got 0",
        ),
        ({"boxes": [[[1, 0, 1, 1]]] * 20, "classes": [[0]] * 20}, "Image 0: the box is 0 wide"),
        ({"boxes": [[[0, 0, 1]]] * 20, "classes": [[0]] * 20}, r"expected boxes \[M, 4\], got \[1, 3\]"),
        ({"boxes": [[[9, 9, 11, 11]]] * 20, "classes": [[0]] * 20}, "covers nothing of the image, 5 x 6"),
        ({"segmentation": np.zeros((20, 4, 4), int)}, r"image 0 is \[4, 4\]; expected the image's"),
        ({"segmentation": np.full((20, 6, 5), 300)}, "segmentation of image 0 holds 300"),
        ({"labels": [0, 1] * 10, "segmentation": np.zeros((20, 6, 5), int)}, "labels or a segmentation, got both"),
        ({"labels": [0, 1] * 10, "groups": ["a"]}, "20 groups, one for each image, got 1"),
    ],
)
def test_what_does_not_fit_is_explained(arguments, message):
    with pytest.raises(DataError, match=message):
        load_arrays(IMAGES, **arguments)


def test_pixels_of_another_range_are_refused():
    with pytest.raises(DataError, match="Image 0 of train holds values up to .*; multiply by 255"):
        load_arrays(IMAGES / 255.0, [0, 1] * 10)
    with pytest.raises(DataError, match="Image 0 of train: Pixels must lie in 0..255"):
        load_arrays(IMAGES.astype(float) * 10, [0, 1] * 10)


@pytest.mark.parametrize(
    "keys",
    [
        ("images", "labels"),
        ("x_train", "y_train", "x_test", "y_test"),
        ("train_images", "train_labels", "val_images", "val_labels", "test_images", "test_labels"),
    ],
)
def test_npz_files(tmp_path, keys):
    labels = np.array([0, 1] * 10, np.uint8)[:, None]
    np.savez(tmp_path / "set.npz", **{key: IMAGES if i % 2 == 0 else labels for i, key in enumerate(keys)})
    data = load_data(tmp_path / "set.npz", validation_fraction=0)
    expected = {2: {"train": 20}, 4: {"train": 20, "test": 20}, 6: {"train": 20, "validation": 20, "test": 20}}
    assert counts(data) == expected[len(keys)] and data.labels == ("0", "1")
    np.testing.assert_array_equal(data.splits["train"][3]["image"], IMAGES[3])


def test_npz_with_names_and_segmentation(tmp_path):
    masks = RNG.integers(0, 2, (20, 6, 5))
    np.savez_compressed(tmp_path / "set.npz", images=IMAGES, segmentation=masks, names=np.array(["sky", "road"]))
    data = load_data(tmp_path / "set.npz")
    assert data.labels == ("sky", "road") and "segmentation" in data.splits["train"][0]


def test_npz_files_that_cannot_be_used(tmp_path):
    file = tmp_path / "set.npz"
    np.savez(file, photos=IMAGES)
    with pytest.raises(DataError, match="holds photos; expected images and labels"):
        load_data(file)
    np.savez(file, images=IMAGES, labels=np.array([{}] * 20, object))
    with pytest.raises(DataError, match=r"Cannot read .*allow_pickle"):
        load_data(file)
    np.savez(file, images=IMAGES, labels=np.arange(3))
    with pytest.raises(DataError, match=r"set.npz: Expected a label for each of 20"):
        load_data(file)
    file.write_text("no archive")
    with pytest.raises(DataError, match="set.npz"):
        load_data(file)


def test_damaged_npz_files_are_errors(tmp_path):
    buffer = io.BytesIO()
    np.savez_compressed(buffer, images=IMAGES[:4], labels=np.array([0, 1, 0, 1]))
    content = buffer.getvalue()
    rng = np.random.default_rng(1)
    refused = 0
    for _ in range(60):
        damaged = bytearray(content[: rng.integers(1, len(content))] if rng.random() < 0.3 else content)
        for place in rng.integers(0, len(damaged), 3):
            damaged[place] ^= 1 << int(rng.integers(8))
        (tmp_path / "set.npz").write_bytes(bytes(damaged))
        try:
            load_data(tmp_path / "set.npz", validation_fraction=0)
        except DataError:
            refused += 1
    assert refused > 50
