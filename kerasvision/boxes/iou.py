"""Intersection over union of boxes, in NumPy."""

import numpy as np


def pairwise_iou(first: np.ndarray, second: np.ndarray) -> np.ndarray:
    """Intersection over union of every box with every other (Jaccard, 1901).

    Args:
        first: [N, 4] xyxy; boxes with x1 <= x0 or y1 <= y0 are empty.
        second: [M, 4] xyxy.

    Returns:
        float64 [N, M] in 0..1; 0 where both boxes are empty.
    """
    first, second = np.asarray(first, np.float64), np.asarray(second, np.float64)
    # [N, M, 2]
    low = np.maximum(first[:, None, :2], second[None, :, :2])
    high = np.minimum(first[:, None, 2:], second[None, :, 2:])
    shared = np.maximum(high - low, 0).prod(axis=-1)
    return _ratio(shared, _areas(first)[:, None] + _areas(second)[None, :] - shared)


def size_iou(first: np.ndarray, second: np.ndarray) -> np.ndarray:
    """Intersection over union of boxes that share their centre: of their sizes alone.

    Args:
        first: [N, 2] width and height, not negative.
        second: [M, 2].

    Returns:
        float64 [N, M] in 0..1; 0 where both boxes are empty.
    """
    first, second = np.asarray(first, np.float64), np.asarray(second, np.float64)
    # Two [N, M] arrays are half the memory of one [N, M, 2] and its product.
    shared = np.minimum(first[:, None, 0], second[None, :, 0])
    shared *= np.minimum(first[:, None, 1], second[None, :, 1])
    return _ratio(shared, first.prod(axis=1)[:, None] + second.prod(axis=1)[None, :] - shared)


def _areas(boxes: np.ndarray) -> np.ndarray:
    return np.maximum(boxes[:, 2:] - boxes[:, :2], 0).prod(axis=1)


def _ratio(shared: np.ndarray, union: np.ndarray) -> np.ndarray:
    return np.divide(shared, union, out=np.zeros_like(shared), where=union > 0)
