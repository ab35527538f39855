"""Batches of images, boxes, masks, keypoints and segmentations: what a net is trained on."""

import cv2
import numpy as np
import pytest
from harness import photograph

from kerasvision.data import Data
from kerasvision.errors import DataError
from kerasvision.masks import encode_mask
from kerasvision.preprocessing import Preprocessing


def spots(count=12, height=40, width=60, folder=None):
    """Images with 0 to 3 bright squares: boxes, masks, keypoints; and a segmentation of the same."""
    rng = np.random.default_rng(0)
    examples = []
    for number in range(count):
        image = np.zeros((height, width + number, 3), np.uint8)
        boxes, masks, classes = [], [], []
        for index in range(number % 4):
            x, y = 4 + 18 * index, int(rng.integers(2, height - 14))
            image[y : y + 12, x : x + 12] = 255
            mask = np.zeros(image.shape[:2], np.uint8)
            mask[y : y + 12, x : x + 12] = 1
            boxes.append([x, y, x + 12, y + 12])
            masks.append(encode_mask(mask))
            classes.append(index)
        boxes = np.array(boxes, np.float32).reshape(-1, 4)
        centers = (boxes[:, :2] + boxes[:, 2:]) / 2
        name = image
        if folder is not None:
            name = str(folder / f"{number}.png")
            cv2.imwrite(name, image)
        examples.append(
            {
                "image": name,
                "boxes": boxes,
                "classes": np.array(classes, np.int32),
                "crowd": np.zeros(len(boxes), bool),
                "masks": masks,
                "keypoints": np.concatenate([centers, np.full((len(boxes), 1), 2)], -1)[:, None].astype(np.float32),
                "segmentation": (image[..., 0] > 0).astype(np.uint8),
            }
        )
    return Data(labels=("a", "b", "c"), splits={"train": examples}, keypoint_names=("center",))


def check_together(images, targets, tolerance=1.6):
    """Boxes, masks and keypoints of the valid objects lie on bright squares."""
    seen = 0
    for row, image in enumerate(images.numpy()):
        for index in np.flatnonzero(targets["valid"][row].numpy()):
            x0, y0, x1, y1 = targets["boxes"][row, index].numpy()
            mask = targets["masks"][row, index].numpy()
            assert mask.any()
            bright = (image[..., 0] > 100).astype(np.uint8)
            # Half a pixel of the edge may belong to either.
            assert not (mask & ~cv2.dilate(bright, np.ones((3, 3), np.uint8)) & 1).any()
            rows, columns = np.nonzero(mask)
            extent = columns.min(), rows.min(), columns.max() + 1, rows.max() + 1
            np.testing.assert_allclose((x0, y0, x1, y1), extent, atol=tolerance)
            x, y, visible = targets["keypoints"][row, index, 0].numpy()
            if visible == 2:  # Not covered by what was pasted.
                assert mask[max(int(y) - 1, 0) : int(y) + 2, max(int(x) - 1, 0) : int(x) + 2].any()
            seen += 1
        agrees = (image[..., 0] > 127) == (targets["segmentation"][row].numpy() == 1)
        assert agrees[targets["segmentation"][row].numpy() != 255].mean() > 0.97
    return seen


@pytest.mark.parametrize("cache", [True, False])
@pytest.mark.parametrize("files", [True, False])
@pytest.mark.parametrize("fit", ["stretch", "letterbox", "crop"])
def test_all_that_belongs_to_an_image_is_fitted_with_it(tmp_path, cache, files, fit):
    data = spots(folder=tmp_path if files else None)
    dataset = data.batches(
        "train", image_size=(56, 72), batch_size=5, preprocessing=Preprocessing(fit=fit), cache=cache
    )
    assert dataset.cardinality() == 3
    spec = dataset.element_spec[1]
    assert spec["boxes"].shape.as_list() == [None, 3, 4] and spec["masks"].shape.as_list() == [None, 3, 56, 72]
    seen = 0
    for images, targets in dataset:
        assert images.dtype == "float32" and images.shape[1:] == (56, 72, 3)
        assert (targets["boxes"].numpy()[~targets["valid"].numpy()] == 0).all()
        seen += check_together(images, targets)
    assert seen == 18 if fit != "crop" else 12 <= seen <= 18


AUGMENTED = {
    "moves": ["flip", {"name": "translate", "x": 0.2}, {"name": "rot90", "turns": [0, 2]}],
    "own size": ["ssd_crop", "expand", "flip"],
    "crop": [{"name": "resized_crop", "scale": [0.5, 1.0]}, "flip"],
    "mosaic": ["flip", "mosaic", {"name": "scale", "factor": [0.9, 1.1]}],
    "copy": ["copy_paste"],
}


@pytest.mark.parametrize("cache", [True, False])
@pytest.mark.parametrize("transforms", AUGMENTED.values(), ids=AUGMENTED)
def test_augmented_together_seeded_and_new_in_every_epoch(tmp_path, transforms, cache):
    data = spots(folder=tmp_path)

    def make(seed):
        return data.batches(
            "train", image_size=(48, 64), batch_size=4, augment=transforms, seed=seed, shuffle=True, cache=cache
        )

    def run(dataset):
        batches = list(dataset)
        assert sum(len(images) for images, _ in batches) == 12
        return batches

    dataset = make(1)
    first, second, again = run(dataset), run(dataset), run(make(1))
    assert sum(check_together(images, targets, tolerance=2.1) for images, targets in first + second) > 8
    for (images, targets), (same_images, same_targets) in zip(first, again, strict=True):
        np.testing.assert_array_equal(images, same_images)
        for key in targets:
            np.testing.assert_array_equal(targets[key], same_targets[key], err_msg=key)
    assert any((a.numpy() != b.numpy()).any() for (a, _), (b, _) in zip(first, second, strict=True))


@pytest.mark.parametrize("name", ["mixup", "cutmix"])
@pytest.mark.parametrize("multi_label", [False, True])
def test_mixed_labels(name, multi_label):
    examples = [
        {"image": np.full((8, 8, 3), 20 * i, np.uint8), **({"labels": [i % 3]} if multi_label else {"label": i % 3})}
        for i in range(9)
    ]
    data = Data(labels=("a", "b", "c"), splits={"train": examples}, multi_label=multi_label)
    (_, targets), *_ = data.batches("train", image_size=(8, 8), augment=[{"name": name, "alpha": 1.0}], batch_size=9)
    weights = targets["labels" if multi_label else "label_weights"].numpy()
    np.testing.assert_allclose(weights.sum(axis=1), 1, atol=1e-6)
    assert ((weights > 0.01).sum(axis=1) == 2).any()
    if not multi_label:
        np.testing.assert_array_equal(targets["label"], weights.argmax(axis=1))


def test_more_objects_than_wanted_leave_the_largest():
    example = spots().splits["train"][3]
    boxes = np.array([[0, 0, 5, 5], [0, 0, 30, 30], [2, 2, 20, 20]], np.float32)
    data = Data(labels=("a", "b", "c"), splits={"train": [{**example, "boxes": boxes}]})
    ((_, targets),) = data.batches("train", image_size=(40, 63), max_objects=2)
    np.testing.assert_array_equal(targets["boxes"][0], boxes[1:])
    np.testing.assert_array_equal(targets["classes"][0], [1, 2])


@pytest.mark.parametrize(("name", "images"), [("mosaic", 4), ("copy_paste", 2), ("mixup", 2)])
def test_there_is_room_for_the_objects_of_all_images_put_together(name, images):
    data = spots()
    for example in data.splits["train"]:
        del example["segmentation"]
    spec = data.batches("train", image_size=(40, 60), augment=[name, "flip"]).element_spec[1]
    assert spec["boxes"].shape.as_list() == [None, 3 * images, 4]


def test_masks_at_a_stride():
    data = spots()
    ((_, coarse),) = data.batches("train", image_size=(40, 60), batch_size=12, mask_stride=4)
    ((_, fine),) = data.batches("train", image_size=(40, 60), batch_size=12)
    np.testing.assert_array_equal(coarse["masks"], fine["masks"].numpy()[:, :, 2::4, 2::4])
    ((_, without),) = data.batches("train", image_size=(40, 60), batch_size=12, mask_stride=None)
    assert set(fine) - set(without) == {"masks"}
    np.testing.assert_array_equal(without["boxes"], fine["boxes"])


@pytest.mark.parametrize("rule", ["balanced", "over", "under"])
def test_sampling(rule):
    examples = [{"image": np.full((4, 4, 3), i, np.uint8), "label": int(i >= 18)} for i in range(20)]
    data = Data(labels=("many", "few"), splits={"train": examples})

    def labels(dataset):
        return np.concatenate([targets["label"].numpy() for _, targets in dataset])

    dataset = data.batches("train", image_size=(4, 4), batch_size=4, sampling=rule, seed=2)
    first, second = labels(dataset), labels(dataset)
    assert len(first) == len(second) and np.bincount(first).tolist() == np.bincount(second).tolist()
    assert abs((first == 1).mean() - 0.5) < 0.1
    assert dataset.cardinality().numpy() == -(-len(first) // 4)
    again = data.batches("train", image_size=(4, 4), batch_size=4, sampling=rule, seed=2)
    np.testing.assert_array_equal(labels(again), first)
    with pytest.raises(DataError, match="sampling"):
        spots().batches("train", image_size=(8, 8), sampling=rule)


def test_a_part_of_a_photograph_is_read_alone(tmp_path):
    """JPEG files are decoded only where the crop lies; the pixels are those of the whole."""
    examples = []
    for index in range(6):
        image = cv2.GaussianBlur(photograph(300, 400, seed=index), (0, 0), 3)
        cv2.imwrite(str(tmp_path / f"{index}.jpg"), image, [cv2.IMWRITE_JPEG_QUALITY, 98])
        examples.append({"image": str(tmp_path / f"{index}.jpg"), "label": 0})
    data = Data(labels=("a",), splits={"train": examples})
    options = {"image_size": (64, 64), "augment": ["resized_crop"], "seed": 4}
    parts = np.concatenate([images.numpy() for images, _ in data.batches("train", cache=False, **options)])
    wholes = np.concatenate([images.numpy() for images, _ in data.batches("train", cache=True, **options)])
    # Large parts are read at a half or a quarter, which filters otherwise.
    assert np.abs(parts - wholes).mean() < 2
    assert np.abs(parts[0] - parts[1]).mean() > 10
