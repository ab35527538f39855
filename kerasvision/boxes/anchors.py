"""Anchor boxes from the boxes of a data set: k-means under 1 - IoU."""

import dataclasses

import numpy as np

from kerasvision.boxes.overlap import size_iou

ROUNDS = 300
# More boxes than this change an anchor by less than a pixel; a seeded sample of them is as good.
SAMPLE = 50_000
_CHUNK = 100_000


@dataclasses.dataclass(frozen=True)
class AnchorFit:
    """How well anchors cover a set of boxes.

    Args:
        mean_iou: mean over the boxes of the IoU with their best anchor, 0..1.
        recall: share of the boxes whose best IoU is at least 0.5.
    """

    mean_iou: float
    recall: float


def fit_anchors(sizes: np.ndarray, count: int, seed: int = 0) -> np.ndarray:
    """K-means of box sizes under the distance 1 - IoU (Redmon & Farhadi, 2017, arXiv:1612.08242).

    A centre is the median of its boxes: it is pulled less by a few huge boxes than the mean. The centres are
    started as k-means++ does (Arthur & Vassilvitskii, 2007); the best of all rounds is kept.

    Args:
        sizes: [N, 2] width and height, positive, in any unit.
        count: number of anchors.
        seed: of the start; the same seed gives the same anchors.

    Returns:
        float64 [count, 2], sorted by area; fewer rows where there are fewer different sizes.

    Raises:
        ValueError: no sizes, sizes that are not positive and finite, or a count below 1.
    """
    sizes = np.asarray(sizes, np.float64)
    if sizes.ndim != 2 or sizes.shape[1] != 2 or not len(sizes):
        raise ValueError(f"Expected at least one size as [N, 2], got the shape {list(sizes.shape)}.")
    if not (np.isfinite(sizes).all() and (sizes > 0).all()):
        raise ValueError("Expected finite sizes above 0; leave out degenerate boxes.")
    if count < 1:
        raise ValueError(f"Expected a count of at least 1, got {count}.")
    rng = np.random.default_rng(seed)
    if len(sizes) > SAMPLE:
        sizes = sizes[rng.choice(len(sizes), SAMPLE, replace=False)]
    different = np.unique(sizes, axis=0)
    if len(different) <= count:
        return _by_area(different)
    anchors = _spread_start(sizes, count, rng)
    best, best_fit, last = anchors, -1.0, None
    for _ in range(ROUNDS):
        overlaps = size_iou(sizes, anchors)
        nearest = overlaps.argmax(axis=1)
        fit = float(overlaps[np.arange(len(sizes)), nearest].mean())
        if fit > best_fit:
            best, best_fit = anchors, fit
        if last is not None and (nearest == last).all():
            break
        last = nearest
        members = [sizes[nearest == index] for index in range(count)]
        anchors = np.stack([np.median(m, axis=0) if len(m) else a for m, a in zip(members, anchors, strict=True)])
    return _by_area(best)


def measure_anchors(sizes: np.ndarray, anchors: np.ndarray) -> AnchorFit:
    """How well anchors cover box sizes.

    Args:
        sizes: [N, 2] width and height, N >= 1.
        anchors: [K, 2].

    Returns:
        Mean best IoU and recall at IoU 0.5.
    """
    parts = [sizes[start : start + _CHUNK] for start in range(0, len(sizes), _CHUNK)]
    best = np.concatenate([size_iou(part, anchors).max(axis=1) for part in parts])
    return AnchorFit(float(best.mean()), float((best >= 0.5).mean()))


def _spread_start(sizes: np.ndarray, count: int, rng: np.random.Generator) -> np.ndarray:
    """Sizes far from one another: each is drawn with a chance that grows with its distance from those before."""
    chosen = [sizes[rng.integers(len(sizes))]]
    distance = 1 - size_iou(sizes, chosen[0][None])[:, 0]
    while len(chosen) < count:
        chances = distance**2
        total = chances.sum()
        index = rng.choice(len(sizes), p=chances / total) if total > 0 else rng.integers(len(sizes))
        chosen.append(sizes[index])
        distance = np.minimum(distance, 1 - size_iou(sizes, chosen[-1][None])[:, 0])
    return np.stack(chosen)


def _by_area(anchors: np.ndarray) -> np.ndarray:
    return anchors[np.lexsort((anchors[:, 0], anchors.prod(axis=1)))]
