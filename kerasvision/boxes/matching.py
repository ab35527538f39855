"""Which object each anchor answers for, in `keras.ops`, for whole batches of padded objects.

Objects that are not `valid`, or have no area or a side that is NaN or infinite, match nothing. Crowds match nothing
either; anchors that lie in one count neither as object nor as background. No gradient passes through a match.
"""

from typing import Any, Literal, NamedTuple

import numpy as np
from keras import ops

from kerasvision.boxes.arrays import gather_rows
from kerasvision.boxes.formats import box_areas, split, to_center
from kerasvision.boxes.overlap import pairwise, shared_area, size_iou

CROWD_SHARE = 0.5
# Overlaps that differ by less are equal.
_TIE = 1e-5
_TINY = 1e-30


class Match(NamedTuple):
    """What each anchor is for.

    Args:
        index: of the anchor's object, int32 [B, A] in 0..M-1; without meaning where the anchor is not positive.
        positive: the anchor answers for its object, bool [B, A].
        ignored: it is neither object nor background, bool [B, A]; never where it is positive.
        quality: float32 [B, A] in 0..1, 0 where it is not positive; the IoU with the object, or the wanted score.
    """

    index: Any
    positive: Any
    ignored: Any
    quality: Any


def match_overlaps(
    anchors: Any,
    boxes: Any,
    valid: Any,
    crowd: Any = None,
    *,
    positive: float = 0.5,
    negative: float = 0.4,
    keep_best: Literal["no", "one", "ties"] = "ties",
) -> Match:
    """By the IoU of anchors with objects, as in Faster R-CNN (.7, .3), RetinaNet (.5, .4) and SSD (.5, .5, "one").

    An anchor goes to the object it overlaps most; one that is kept as the best of an object goes to that object.

    Args:
        anchors: xyxy [A, 4], or [B, A, 4] such as proposals.
        boxes: xyxy [B, M, 4].
        valid: bool [B, M].
        crowd: bool [B, M]; no object is one where None.
        positive: anchors with at least this IoU are positive.
        negative: those below are background, those between are ignored.
        keep_best: objects below `positive` with every anchor have no anchor ("no"), their best one ("one"), or all
            that overlap as much as the best one ("ties", Ren et al., 2015, arXiv:1506.01497).

    Returns:
        The match; quality is the IoU.

    Raises:
        ValueError: thresholds not in order, or no such `keep_best`.
    """
    if not 0 <= negative <= positive <= 1:
        raise ValueError(f"Expected 0 <= negative <= positive <= 1, got {negative} and {positive}.")
    if keep_best not in ("no", "one", "ties"):
        raise ValueError(f'keep_best must be "no", "one" or "ties", got {keep_best!r}.')
    anchors = ops.stop_gradient(ops.cast(anchors, "float32"))
    boxes, wanted, crowds = _objects(boxes, valid, crowd)
    # [B, M, A]
    overlap, crowded = _overlaps(boxes, wanted, crowds, anchors)
    rank = overlap
    if keep_best != "no":
        best, place = _first_best(overlap, axis=2)
        if keep_best == "one":
            kept = ops.equal(ops.arange(overlap.shape[2], dtype="int32"), place)
        else:
            kept = overlap >= best - _TIE
        # Kept ones stand above all others: an IoU is at most 1.
        rank = ops.where(ops.logical_and(kept, best > 0), overlap + 2.0, overlap)
    best, index = _first_best(rank, axis=1)
    best, index = best[:, 0], index[:, 0]
    chosen = ops.logical_and(best >= positive, best > 0)
    doubtful = ops.logical_or(ops.logical_and(best >= negative, best > 0), crowded)
    return _match(index, chosen, doubtful, ops.where(best >= 2.0, best - 2.0, best))


def match_best_size(
    anchors: Any,
    strides: Any,
    found: Any,
    boxes: Any,
    valid: Any,
    crowd: Any = None,
    *,
    ignore: float = 0.5,
) -> Match:
    """YOLOv3's rule: one anchor an object, the one of the most similar size in the cell of its center.

    Redmon & Farhadi, 2018, arXiv:1804.02767. Other anchors whose prediction overlaps an object well are ignored. Where
    two objects want the same anchor, the more similar one has it.

    Args:
        anchors: xyxy [A, 4] around the centers of their cells.
        strides: side of the cells, [A] in pixels.
        found: predicted xyxy [B, A, 4].
        boxes: xyxy [B, M, 4].
        valid: bool [B, M].
        crowd: bool [B, M]; no object is one where None.
        ignore: predictions with more IoU than this are not background.

    Returns:
        The match; quality is 1.
    """
    found = ops.stop_gradient(ops.cast(found, "float32"))
    boxes, wanted, crowds = _objects(boxes, valid, crowd)
    cells, objects = to_center(ops.cast(anchors, "float32")), to_center(boxes)
    half = ops.cast(strides, "float32") / 2
    # [B, M, A, 2] without its last axis: two arrays.
    across = objects[..., 0:1] - cells[:, 0]
    down = objects[..., 1:2] - cells[:, 1]
    inside = ops.logical_and(
        ops.logical_and(across >= -half, across < half), ops.logical_and(down >= -half, down < half)
    )
    inside = ops.logical_and(inside, wanted[..., None])
    similar = ops.where(inside, size_iou(objects[..., 2:], cells[:, 2:]), 0.0)
    best, place = _first_best(similar, axis=2)
    first = ops.equal(ops.arange(similar.shape[2], dtype="int32"), place)
    claims = ops.where(ops.logical_and(first, best > 0), similar, 0.0)
    claim, index = _first_best(claims, axis=1)
    chosen = claim[:, 0] > 0
    overlap, crowded = _overlaps(boxes, wanted, crowds, found)
    doubtful = ops.logical_or(ops.max(overlap, axis=1) > ignore, crowded)
    return _match(index[:, 0], chosen, doubtful, 1.0)


def match_aligned(
    centers: Any,
    strides: Any,
    scores: Any,
    found: Any,
    boxes: Any,
    classes: Any,
    valid: Any,
    crowd: Any = None,
    *,
    alpha: float = 0.5,
    beta: float = 6.0,
    top: int = 10,
) -> Match:
    """Task-aligned assignment: the anchors that classify and locate an object best (TOOD).

    Feng et al., 2021, arXiv:2108.07755.

    The alignment is score^alpha * IoU^beta. Of the centers inside an object, the `top` most aligned ones are
    positive; one that two objects want goes to that it overlaps most. Objects smaller than a cell of the finest level
    are taken as large as that cell, so that a center lies in them.

    Args:
        centers: [A, 2] in pixels.
        strides: [A] in pixels.
        scores: predicted, of each class in 0..1, [B, A, K].
        found: predicted xyxy [B, A, 4].
        boxes: xyxy [B, M, 4].
        classes: int [B, M].
        valid: bool [B, M].
        crowd: bool [B, M]; no object is one where None.
        alpha: 1 in the paper, 0.5 in today's detectors.
        beta: of the IoU.
        top: anchors an object; 13 in the paper, 10 in today's detectors.

    Returns:
        The match; quality is the wanted score: the alignment, scaled so that the best of an object has its best IoU.
    """
    scores = ops.stop_gradient(ops.cast(scores, "float32"))
    found = ops.stop_gradient(ops.cast(found, "float32"))
    centers, strides = ops.cast(centers, "float32"), ops.cast(strides, "float32")
    boxes, wanted, crowds = _objects(boxes, valid, crowd)
    near = _centers_inside(centers, boxes, ops.min(strides))
    # [B, M, A]; one product instead of a gather along the classes.
    score = ops.matmul(ops.one_hot(ops.cast(classes, "int32"), scores.shape[-1]), ops.transpose(scores, (0, 2, 1)))
    overlap = ops.where(near, _overlaps(boxes, wanted, None, found)[0], 0.0)
    aligned = ops.power(ops.maximum(score, 0.0), alpha) * ops.power(overlap, beta)
    least = ops.top_k(aligned, min(top, aligned.shape[2]))[0][..., -1:]
    chosen = ops.logical_and(aligned >= least, aligned > 0)
    # An object without an overlap at all keeps no anchor; one anchor keeps one object.
    claim, index = _first_best(ops.where(chosen, overlap, 0.0), axis=1)
    owner = ops.logical_and(ops.equal(ops.arange(overlap.shape[1], dtype="int32")[:, None], index), claim > 0)
    aligned, overlap = ops.where(owner, aligned, 0.0), ops.where(owner, overlap, 0.0)
    scale = ops.max(overlap, axis=2, keepdims=True) / ops.maximum(ops.max(aligned, axis=2, keepdims=True), _TINY)
    quality = ops.max(ops.minimum(aligned * scale, 1.0), axis=1)
    shared = 0.0 if crowds is None else pairwise(shared_area, boxes, _cells(centers, strides))
    crowded = _in_crowd(shared, crowds, strides * strides)
    return _match(index[:, 0], claim[:, 0] > 0, crowded, quality)


def gather_objects(values: Any, match: Match) -> Any:
    """What belongs to each anchor's object.

    Args:
        values: of the objects, [B, M] or [B, M, F].
        match: of B images.

    Returns:
        [B, A] or [B, A, F]; those of any object where the anchor is not positive.
    """
    if len(values.shape) == 2:
        return gather_rows(values[..., None], match.index)[..., 0]
    return gather_rows(values, match.index)


def _objects(boxes: Any, valid: Any, crowd: Any) -> tuple[Any, Any, Any]:
    """Finite boxes (zeros for others), which of them want an anchor, and which are crowds; None for none."""
    boxes = ops.stop_gradient(ops.cast(boxes, "float32"))
    x0, y0, x1, y1 = split(boxes)
    # False for NaN.
    real = ops.logical_and(ops.logical_and(x1 > x0, y1 > y0), ops.all(ops.isfinite(boxes), axis=-1))
    real = ops.logical_and(real, ops.cast(valid, "bool"))
    boxes = ops.where(real[..., None], boxes, 0.0)
    if crowd is None:
        return boxes, real, None
    crowd = ops.cast(crowd, "bool")
    return boxes, ops.logical_and(real, ops.logical_not(crowd)), ops.logical_and(real, crowd)


def _overlaps(boxes: Any, wanted: Any, crowds: Any, anchors: Any) -> tuple[Any, Any]:
    """IoU of wanted objects with anchors, [B, M, A], 0 for others; whether anchors lie in a crowd, [B, A].

    As few passes over [B, M, A] as can be: this is most of the work of a match, and has no gradient to protect.
    """
    shared = pairwise(shared_area, boxes, anchors)
    areas = box_areas(anchors)
    # An object that is not wanted has an endless area, and an IoU of 0.
    own = ops.where(wanted, box_areas(boxes), np.inf)[..., None]
    union = own - (shared - (areas if len(areas.shape) == 1 else areas[:, None]))
    return shared / ops.maximum(union, _TINY), _in_crowd(shared, crowds, areas)


def _in_crowd(shared: Any, crowds: Any, areas: Any) -> Any:
    """Whether at least half of an anchor lies in one crowd, [B, A]."""
    if crowds is None:
        return False
    largest = ops.max(ops.where(crowds[..., None], shared, 0.0), axis=1)
    return ops.logical_and(largest >= CROWD_SHARE * areas, areas > 0)


def _match(index: Any, chosen: Any, doubtful: Any, quality: Any) -> Match:
    ignored = ops.logical_and(doubtful, ops.logical_not(chosen))
    return Match(index, chosen, ignored, ops.where(chosen, quality, 0.0))


def _first_best(values: Any, axis: int) -> tuple[Any, Any]:
    """Largest value and its first index along an axis, both with that axis as 1."""
    count = values.shape[axis]
    best = ops.max(values, axis=axis, keepdims=True)
    shape = [1] * len(values.shape)
    shape[axis] = count
    places = ops.reshape(ops.arange(count, dtype="int32"), shape)
    # NaN equals nothing: the index stays within the rows.
    index = ops.min(ops.where(values >= best, places, count - 1), axis=axis, keepdims=True)
    return best, index


def _centers_inside(centers: Any, boxes: Any, least: Any) -> Any:
    """Whether centers [A, 2] lie in boxes [B, M, 4] of at least a side: bool [B, M, A]."""
    x, y, width, height = split(to_center(boxes))
    across = ops.abs(centers[:, 0] - x[..., None]) < (ops.maximum(width, least) / 2)[..., None]
    down = ops.abs(centers[:, 1] - y[..., None]) < (ops.maximum(height, least) / 2)[..., None]
    return ops.logical_and(across, down)


def _cells(centers: Any, strides: Any) -> Any:
    """xyxy [A, 4] of the cells around centers."""
    half = strides[:, None] / 2
    return ops.concatenate([centers - half, centers + half], axis=-1)
