"""Non-maximum suppression of a fixed size, in `keras.ops`: hard, soft, matrix.

It runs in every exported file. `candidates` of the box-and-class pairs with the highest scores are compared with one
another; what is left are `detections` an image. Greedy suppression, hard and soft, is one loop over a matrix of what
each candidate leaves of the others: take the best candidate, multiply all scores with its row. The loop is unrolled:
`detections` times the same few small operations need no control flow and are exact for any boxes. In TFLite, 100
steps over 300 candidates take 0.2 ms, as long as a WHILE and half as long as multiplying with the whole matrix 16
times, which is exact for short chains of boxes only.
"""

from collections.abc import Callable
from typing import Any, Literal

from keras import ops

from kerasvision.boxes.arrays import flat_index, gather_rows
from kerasvision.boxes.formats import box_areas
from kerasvision.boxes.overlap import pairwise, shared_area

Tensors = dict[str, Any]

_FARTHEST = 1e6  # Coordinates of pixels; the square is a float32 with digits to spare.
_LEAST_AREA = 1e-12


def hard_nms(
    boxes: Any,
    scores: Any,
    *,
    iou: float = 0.5,
    least_score: float = 0.05,
    detections: int = 100,
    candidates: int = 300,
    by_class: bool = True,
) -> Tensors:
    """Greedy suppression: a detection removes those of lower score that overlap it more than `iou`.

    Args:
        boxes: xyxy [B, N, 4]; or a function of indices int32 [B, C] that gives [B, C, 4], so that only the boxes that
            are looked at need to be decoded.
        scores: of each class in 0..1, [B, N, K]; a box may be found as several classes.
        iou: overlap above which the lower score goes.
        least_score: pairs of box and class that do not exceed it are no detections.
        detections: D, an image.
        candidates: pairs of box and class that are looked at, those of the highest scores.
        by_class: detections of one class do not remove those of another.

    Returns:
        {"boxes": float32 [B, D, 4], "scores": float32 [B, D], "classes": int32 [B, D], "count": int32 [B], "index":
        int32 [B, D], which of the N each is}, by falling score, and zeros behind the count.

    Raises:
        ValueError: a threshold outside of 0..1, or fewer than one detection or candidate.
    """
    _require(iou, least_score, detections, candidates)
    return _greedy(
        _Candidates(boxes, scores, least_score, candidates, by_class),
        lambda overlap: ops.where(overlap > iou, 0.0, 1.0),
        detections,
    )


def soft_nms(
    boxes: Any,
    scores: Any,
    *,
    decay: Literal["gaussian", "linear"] = "gaussian",
    sigma: float = 0.5,
    iou: float = 0.3,
    least_score: float = 0.05,
    detections: int = 100,
    candidates: int = 300,
    by_class: bool = True,
) -> Tensors:
    """Greedy suppression that lowers scores instead of removing boxes (Bodla et al., 2017, arXiv:1704.04503).

    Args:
        boxes: xyxy [B, N, 4], or a function as of `hard_nms`.
        scores: of each class in 0..1, [B, N, K].
        decay: "gaussian": times exp(-IoU^2 / sigma); "linear": times 1 - IoU for overlaps above `iou`.
        sigma: of the Gaussian.
        iou: of the linear decay.
        least_score: pairs of box and class that do not exceed it, before or after, are no detections.
        detections: D, an image.
        candidates: pairs of box and class that are looked at.
        by_class: detections of one class do not lower those of another.

    Returns:
        As `hard_nms`; scores are the lowered ones.

    Raises:
        ValueError: as `hard_nms`; no such decay, or a sigma that is not above 0.
    """
    _require(iou, least_score, detections, candidates)
    _require_decay(decay, sigma)

    def left(overlap: Any) -> Any:
        if decay == "gaussian":
            return ops.exp(-overlap * overlap / sigma)
        return ops.where(overlap > iou, 1.0 - overlap, 1.0)

    return _greedy(_Candidates(boxes, scores, least_score, candidates, by_class), left, detections)


def matrix_nms(
    boxes: Any,
    scores: Any,
    *,
    decay: Literal["gaussian", "linear"] = "gaussian",
    sigma: float = 0.5,
    least_score: float = 0.05,
    detections: int = 100,
    candidates: int = 300,
    by_class: bool = True,
) -> Tensors:
    """Lowers all scores at once, without a loop (SOLOv2: Wang et al., 2020, arXiv:2003.10152).

    A candidate is lowered by the overlap with each better one, less by what that one has been lowered itself.

    Args:
        boxes: xyxy [B, N, 4], or a function as of `hard_nms`.
        scores: of each class in 0..1, [B, N, K].
        decay: "gaussian" or "linear".
        sigma: of the Gaussian exp(-IoU^2 / sigma).
        least_score: pairs of box and class that do not exceed it, before or after, are no detections.
        detections: D, an image.
        candidates: pairs of box and class that are looked at.
        by_class: detections of one class do not lower those of another.

    Returns:
        As `hard_nms`; scores are the lowered ones.

    Raises:
        ValueError: as `soft_nms`.
    """
    _require(0.5, least_score, detections, candidates)
    _require_decay(decay, sigma)
    found = _Candidates(boxes, scores, least_score, candidates, by_class)
    # [B, C, C]: row j, column i, for each j better than i.
    better = found.rank[:, :, None] < found.rank[:, None, :]
    overlap = ops.where(better, found.overlap(), 0.0)
    # [B, C, 1]: the largest overlap of j with one that is better than j.
    own = ops.max(overlap, axis=1)[:, :, None]
    if decay == "gaussian":
        left = ops.exp((own * own - overlap * overlap) / sigma)
    else:
        left = (1.0 - overlap) / ops.maximum(1.0 - own, 1e-6)
    left = ops.min(ops.where(better, left, 1.0), axis=1)
    scores, index = ops.top_k(found.scores * left, min(detections, found.count))
    return found.take(scores, index, detections)


class _Candidates:
    """The pairs of box and class with the highest scores, by falling score.

    The C best pairs lie in the C boxes whose best class is highest, so two small searches find what one over all
    N * K pairs would.
    """

    def __init__(self, boxes: Any, scores: Any, least_score: float, candidates: int, by_class: bool) -> None:
        scores = ops.cast(scores, "float32")
        classes = scores.shape[-1]
        # Scores that are NaN become 0 as well.
        scores = ops.where(scores > least_score, scores, 0.0)
        rows = ops.top_k(ops.max(scores, axis=-1), min(candidates, scores.shape[1]))[1]
        near = gather_rows(scores, rows)
        self.count = min(candidates, near.shape[1] * classes)
        self.scores, pairs = ops.top_k(ops.reshape(near, (-1, near.shape[1] * classes)), self.count)
        pairs = ops.cast(pairs, "int32")
        place = ops.floor_divide(pairs, classes)
        self.classes = pairs - place * classes
        self.index = gather_rows(ops.cast(rows, "int32")[..., None], place)[..., 0]
        boxes = boxes(self.index) if callable(boxes) else gather_rows(boxes, self.index)
        boxes = ops.cast(boxes, "float32")
        # What is NaN or infinite is nowhere.
        self.boxes = ops.where(ops.abs(boxes) < _FARTHEST, boxes, 0.0)
        # 1..C in each image. From the scores, or a file would hold comparisons of ranks as constants of [C, C].
        self.rank = ops.cumsum(ops.cast(self.scores >= 0, "int32"), axis=1)
        self.least_score = least_score
        self.by_class = by_class and classes > 1

    def overlap(self) -> Any:
        """IoU of all candidates with one another, [B, C, C]; 0 for different classes that do not compete."""
        shared, areas = pairwise(shared_area, self.boxes, self.boxes), box_areas(self.boxes)
        # [B, C, C] is large, so no `ratio`: these boxes are finite, and where the union is 0, so is what is shared.
        overlap = shared / ops.maximum(areas[:, :, None] - shared - -areas[:, None, :], _LEAST_AREA)
        if not self.by_class:
            return overlap
        return ops.where(ops.equal(self.classes[:, :, None], self.classes[:, None, :]), overlap, 0.0)

    def take(self, scores: Any, index: Any, detections: int) -> Tensors:
        """The result, from the scores and indices [B, <= D] of candidates, by falling score."""
        real = scores > self.least_score
        boxes = ops.where(real[..., None], gather_rows(self.boxes, index), 0.0)
        classes, origin = (
            ops.where(real, gather_rows(values[..., None], index)[..., 0], 0) for values in (self.classes, self.index)
        )
        missing = [[0, 0], [0, detections - scores.shape[1]]]
        return {
            "boxes": ops.pad(boxes, [*missing, [0, 0]]),
            "scores": ops.pad(ops.where(real, scores, 0.0), missing),
            "classes": ops.pad(classes, missing),
            "count": ops.sum(ops.cast(real, "int32"), axis=-1),
            "index": ops.pad(origin, missing),
        }


def _greedy(found: _Candidates, left: Callable[[Any], Any], detections: int) -> Tensors:
    """Takes the best candidate again and again, and multiplies the scores of the others with what it leaves of them."""
    # A candidate leaves nothing of itself: it is taken once.
    others = ops.not_equal(found.rank[:, :, None], found.rank[:, None, :])
    keep = ops.where(others, left(found.overlap()), 0.0)
    table = ops.reshape(keep, (-1, found.count))
    # [B, 1]: minus the first row of each image.
    starts = -flat_index(ops.zeros_like(found.scores[:, :1]), found.count)
    scores, tops, places = found.scores, [], []
    for _ in range(min(detections, found.count)):
        # Not argmax: TFLite has no operation for how Keras orders 0.0 and -0.0 in it.
        top, place = ops.top_k(scores, 1)
        place = ops.cast(place, "int32")
        scores = scores * ops.take(table, (place - starts)[:, 0], axis=0)
        tops.append(top)
        places.append(place)
    return found.take(ops.concatenate(tops, axis=1), ops.concatenate(places, axis=1), detections)


def _require(iou: float, least_score: float, detections: int, candidates: int) -> None:
    for name, share in (("iou", iou), ("least_score", least_score)):
        if not 0 <= share <= 1:
            raise ValueError(f"{name} must lie in 0..1, got {share}.")
    for name, count in (("detections", detections), ("candidates", candidates)):
        if count < 1:
            raise ValueError(f"{name} must be at least 1, got {count}.")


def _require_decay(decay: str, sigma: float) -> None:
    if decay not in ("gaussian", "linear"):
        raise ValueError(f'decay must be "gaussian" or "linear", got {decay!r}.')
    if not sigma > 0:
        raise ValueError(f"sigma must be above 0, got {sigma}. Take 0.5.")
