"""Objects from class maps, by a class for the borders between them or by watershed; and how well they were found."""

import cv2
import numpy as np

from kerasvision.class_maps import VOID, components
from kerasvision.masks import PackedMasks

# Overlaps of the 2018 Data Science Bowl.
THRESHOLDS = tuple(np.arange(10) * 0.05 + 0.5)
_CROSS = cv2.getStructuringElement(cv2.MORPH_CROSS, (3, 3))
_SQUARE = np.ones((3, 3), np.uint8)


def find_objects(
    classes: np.ndarray,
    *,
    border: int | None = None,
    neck: float | None = None,
    probabilities: np.ndarray | None = None,
    min_area: int = 1,
    background: int = 0,
) -> np.ndarray:
    """Objects of a class map, each of one class.

    Objects are the connected pixels of a class, without those of the border; then they take back the border pixels that
    are nearest. Borders that enclose nothing, as those of the smallest objects do, are objects of their own.

    Args:
        classes: int [H, W], class indices; 255 is void.
        border: class of the pixels between objects; None where there is none.
        neck: objects are split where they are narrow, by a watershed on the distance to their outline: where that is so
            many pixels shorter than in the middle of the smaller part, such as 0.75. None splits nothing.
        probabilities: float [H, W, K]: the border goes to the objects from where they are likely to where they are not,
            not simply to the nearest.
        min_area: pixels that an object has at least.
        background: the class that holds no object.

    Returns:
        int32 [H, W]: 1..N, 0 where there is no object.
    """
    classes = np.where(classes == VOID, background, classes)
    foreground = classes != background
    inside = classes if border is None else np.where(classes == border, background, classes)
    # Two insides that touch at a corner lie on both sides of a thin border.
    labels = components(inside, background, connectivity=8 if border is None else 4)
    if neck is not None:
        away = cv2.distanceTransform((labels > 0).astype(np.uint8), cv2.DIST_L2, cv2.DIST_MASK_PRECISE)
        whole = labels > 0
        labels = _with_rest(grow(components(peaks(away, neck).astype(np.uint8)), whole, away), whole)
    if border is not None:
        likely = None if probabilities is None else 1 - probabilities[..., background] - probabilities[..., border]
        labels = _with_rest(grow(labels, foreground, likely), foreground)
    return without_small(labels, min_area)


def _with_rest(labels: np.ndarray, region: np.ndarray) -> np.ndarray:
    """Labels and, as objects of their own, the connected pixels of the region that have none."""
    rest = components((region & (labels == 0)).astype(np.uint8))
    return np.where(rest > 0, rest + labels.max(initial=0), labels)


def grow(seeds: np.ndarray, region: np.ndarray, height: np.ndarray | None = None, levels: int = 32) -> np.ndarray:
    """Watershed: labels spread over a region, pixel by pixel at the same pace, and stop where they meet.

    Args:
        seeds: int [H, W], 0 where there is no label.
        region: bool [H, W], where labels may spread to.
        height: float [H, W]: higher pixels are taken first (Meyer's flooding, turned over); all at once where None.
        levels: number of heights that are told apart.

    Returns:
        int32 [H, W]; 0 outside of the region and where no seed reaches.
    """
    labels = seeds.astype(np.float32)
    parts = [region]
    if height is not None and region.any():
        parts = [
            region & (height >= level) for level in np.linspace(height[region].max(), height[region].min(), levels)
        ]
    for part in parts:
        while True:
            reached = cv2.dilate(labels, _CROSS)
            new = part & (labels == 0) & (reached > 0)
            if not new.any():
                break
            labels[new] = reached[new]
    return labels.astype(np.int32)


def peaks(height: np.ndarray, depth: float) -> np.ndarray:
    """Tops of the hills from which every way to a higher one goes down by `depth` first (h-maxima).

    Args:
        height: float32 [H, W], 0 where there is no hill.
        depth: above 0, in units of the height.

    Returns:
        bool [H, W]; what lies less than `depth` below a top, and is connected with it, belongs to it.
    """
    cut = _reconstruct(np.maximum(height - depth, 0), height)
    return (cut > _reconstruct(np.maximum(cut - 1e-3, 0), cut)) & (height > 0)


def _reconstruct(low: np.ndarray, high: np.ndarray) -> np.ndarray:
    """Morphological reconstruction: `low` spreads as far as `high` lets it (Vincent, 1993)."""
    while True:
        spread = np.minimum(cv2.dilate(low, _SQUARE), high)
        if (spread == low).all():
            return low
        low = spread


def without_small(labels: np.ndarray, min_area: int) -> np.ndarray:
    """Labels of the objects with enough pixels, numbered from 1 without gaps: int32 [H, W]."""
    areas = np.bincount(labels.ravel())
    kept = areas >= max(min_area, 1)
    kept[0] = False
    return np.where(kept, np.cumsum(kept), 0)[labels].astype(np.int32)


def masks_of(labels: np.ndarray) -> PackedMasks:
    """The objects 1..N of a label map [H, W], one mask each; a number that does not occur has an empty one."""
    numbers = np.arange(1, labels.max(initial=0) + 1)
    return PackedMasks.pack(labels == numbers[:, None, None])


def object_overlaps(truth: np.ndarray, found: np.ndarray) -> np.ndarray:
    """IoU of each pair of objects of two label maps.

    Args:
        truth: int [H, W], 0 where there is no object; numbers may be missing.
        found: int [H, W], the same.

    Returns:
        float64 [T, P], by rising numbers.
    """
    rows, row = np.unique(np.append(0, truth), return_inverse=True)
    columns, column = np.unique(np.append(0, found), return_inverse=True)
    table = np.bincount(row[1:] * len(columns) + column[1:], minlength=len(rows) * len(columns))
    table = table.reshape(len(rows), len(columns))
    shared = table[1:, 1:]
    return shared / (table.sum(axis=1)[1:, None] + table.sum(axis=0)[None, 1:] - shared)


class ObjectMetrics:
    """How well objects were found, gathered image by image.

    An object is found where one of the prediction overlaps it by more than the threshold; above 0.5 no other one can.
    """

    def __init__(self) -> None:
        self._hits: list[np.ndarray] = []
        self._counts: list[tuple[int, int]] = []

    def add(self, truth: np.ndarray, found: np.ndarray) -> None:
        """Adds an image.

        Args:
            truth: int [H, W], number of the object at each pixel, 0 where there is none.
            found: int [H, W], the same.
        """
        overlaps = object_overlaps(truth, found)
        self._hits.append(np.array([np.count_nonzero(overlaps > threshold) for threshold in THRESHOLDS]))
        self._counts.append(overlaps.shape)

    def result(self) -> dict[str, float]:
        """The figures of all images so far.

        Returns:
            Over all objects, at an overlap of 0.5: "object_F1", "object_precision", "object_recall"; and "object_AP",
            the score of the 2018 Data Science Bowl: TP / (TP + FP + FN), the mean over the overlaps 0.5, 0.55, ...,
            0.95, then over the images that have an object or were given one. {} where none has.
        """
        hits = np.array(self._hits).reshape(-1, len(THRESHOLDS))
        truth, found = np.array(self._counts, np.int64).reshape(-1, 2).T
        either = truth + found
        if not either.sum():
            return {}
        scores = hits[either > 0] / (either[either > 0, None] - hits[either > 0])
        right = hits[:, 0].sum()
        return {
            "object_F1": float(2 * right / either.sum()),
            "object_precision": float(right / max(found.sum(), 1)),
            "object_recall": float(right / max(truth.sum(), 1)),
            "object_AP": float(scores.mean()),
        }
