"""Examples with everything an example can have."""

import cv2
import numpy as np

from kerasvision.masks import PackedMasks


def photograph(height=48, width=64, channels=3, seed=0):
    """Smooth pixels with some texture, uint8 [H, W, C]."""
    rng = np.random.default_rng(seed)
    coarse = rng.integers(0, 256, (6, 8, channels)).astype(np.float32)
    image = cv2.resize(coarse, (width, height), interpolation=cv2.INTER_CUBIC).reshape(height, width, channels)
    return np.clip(image + rng.normal(0, 4, image.shape), 0, 255).astype(np.uint8)


def full_example(height=48, width=64, channels=3, objects=3, seed=0):
    """An image with a label, boxes, masks that fill their boxes, keypoints at box centres, and a segmentation."""
    rng = np.random.default_rng(seed)
    corners = np.sort(rng.random((objects, 2, 2)), axis=1) * (width - 4, height - 4)
    boxes = np.concatenate([np.floor(corners[:, 0]), np.floor(corners[:, 1]) + 4], axis=-1).astype(np.float32)
    masks = np.zeros((objects, height, width), np.uint8)
    segmentation = np.full((height, width), 255, np.uint8)
    for index, (x0, y0, x1, y1) in enumerate(boxes.astype(int)):
        masks[index, y0:y1, x0:x1] = 1
        segmentation[y0:y1, x0:x1] = index
    centers = (boxes[:, :2] + boxes[:, 2:]) / 2
    keypoints = np.concatenate([centers, np.full((objects, 1), 2)], axis=-1)[:, None].astype(np.float32)
    return {
        "image": photograph(height, width, channels, seed),
        "label": 1,
        "boxes": boxes,
        "classes": np.arange(objects, dtype=np.int32),
        "crowd": np.zeros(objects, bool),
        "masks": PackedMasks.pack(masks),
        "keypoints": keypoints,
        "segmentation": segmentation,
    }


def flat(example):
    """The arrays of an example, masks unpacked."""
    return {
        key: value.unpack() if isinstance(value, PackedMasks) else np.asarray(value) for key, value in example.items()
    }


def assert_same(first, second):
    first, second = flat(first), flat(second)
    assert first.keys() == second.keys()
    for key in first:
        np.testing.assert_array_equal(first[key], second[key], err_msg=key)


def check_sound(example):
    """What holds for every example, whatever was done to it."""
    height, width, channels = example["image"].shape
    assert example["image"].dtype == np.uint8 and channels in (1, 3)
    assert example["image"].flags.c_contiguous
    if "boxes" in example:
        boxes = example["boxes"]
        count = len(boxes)
        assert boxes.dtype == np.float32 and boxes.shape == (count, 4) and np.isfinite(boxes).all()
        assert (boxes >= 0).all() and (boxes <= (width, height, width, height)).all()
        assert (boxes[:, 2:] > boxes[:, :2]).all()
        assert len(example["classes"]) == len(example["crowd"]) == count
    if "masks" in example:
        assert example["masks"].size == (height, width) and len(example["masks"]) == count
    if "keypoints" in example:
        keypoints = example["keypoints"]
        assert len(keypoints) == count and np.isfinite(keypoints).all()
        seen = keypoints[keypoints[..., 2] > 0]
        assert (seen[:, :2] >= 0).all() and (seen[:, :2] <= (width, height)).all()
    if "segmentation" in example:
        assert example["segmentation"].shape == (height, width) and example["segmentation"].dtype == np.uint8
