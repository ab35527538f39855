"""What the tests of two-stage detectors share: a tiny net, greedy suppression in NumPy, torchvision's way to count."""

import keras
import numpy as np
from detection import contract

from kerasvision.boxes.overlap import pairwise_iou

TINY = {
    **contract.TINY,
    "labels": ["red", "blue"],
    "input_shape": (64, 64, 3),
    "levels": ["P2", "P3", "P4"],
    "anchor_size": 4.0,
    "filters": 32,
    "head_widths": [64],
    "proposals": 60,
    "candidates": 60,
    "canonical_size": 56.0,
}


def counted_by_torchvision(model):
    """Parameters without what torchvision does not count or does not have in the backbone.

    It freezes the batch normalizations, and its convolutions there have no biases.
    """
    backbone = [layer for layer in model.layers if layer.name.startswith(("conv1", "conv2", "conv3", "conv4", "conv5"))]
    normal = sum(layer.count_params() for layer in backbone if isinstance(layer, keras.layers.BatchNormalization))
    biases = sum(layer.bias.shape[0] for layer in backbone if isinstance(layer, keras.layers.Conv2D) and layer.use_bias)
    assert (normal, biases) == (2 * 53_120, 26_560)
    return model.count_params() - normal - biases


def greedy(boxes, iou, classes=None):
    overlap = pairwise_iou(boxes.astype(np.float64), boxes.astype(np.float64))
    if classes is not None:
        overlap = np.where(classes[:, None] == classes, overlap, 0)
    kept = np.zeros(len(boxes), bool)
    for index in range(len(boxes)):
        kept[index] = not (overlap[:index, index][kept[:index]] > iou).any()
    return kept


def crowded(random, count, objects=12, spread=0.08):
    """Boxes around some objects, as a net finds them."""
    centers, sizes = random.uniform(0, 200, (objects, 2)), random.uniform(10, 60, (objects, 2))
    own = random.integers(0, objects, count)
    centers = centers[own] + random.normal(0, spread, (count, 2)) * sizes[own]
    half = sizes[own] * np.exp(random.normal(0, spread, (count, 2))) / 2
    return np.concatenate([centers - half, centers + half], axis=-1).astype(np.float32)
