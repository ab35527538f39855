"""Losses of boxes, in `keras.ops`: one value a box; which boxes count and how they are averaged is the caller's."""

from collections.abc import Callable
from typing import Any

from keras import ops

from kerasvision.boxes.arrays import gather_rows, ratio
from kerasvision.boxes.overlap import covered, giou, pairwise_iou

# Keeps log(1 - x) finite where boxes cover each other fully.
_NEARLY_ONE = 1.0 - 1e-6
_GOLDEN = 0.618034


def overlap_loss(wanted: Any, found: Any, measure: Callable[[Any, Any], Any] = giou) -> Any:
    """1 - overlap: the IoU, GIoU, DIoU or CIoU loss (Yu et al., 2016; see `kerasvision.boxes.overlap`).

    Args:
        wanted: xyxy [..., 4].
        found: xyxy [..., 4].
        measure: `iou`, which has no gradient for boxes that do not touch, `giou`, `diou` or `ciou`.

    Returns:
        [...] at least 0.
    """
    return 1.0 - measure(wanted, found)


def smooth_l1(wanted: Any, found: Any, beta: float = 1.0) -> Any:
    """Smooth L1: squares below `beta`, absolute differences above (Girshick, 2015, arXiv:1504.08083).

    Args:
        wanted: [..., F].
        found: [..., F].
        beta: in the units of the numbers; 1/9 in Faster R-CNN with a pyramid. 0 is L1.

    Returns:
        [...], the sum over the last axis.

    Raises:
        ValueError: `beta` is negative.
    """
    if beta < 0:
        raise ValueError(f"beta must be at least 0, got {beta}. Take 1.0, or 1/9 for the RPN's deltas.")
    distance = ops.abs(ops.cast(wanted, "float32") - ops.cast(found, "float32"))
    if beta > 0:
        distance = ops.where(distance < beta, 0.5 / beta * distance * distance, distance - 0.5 * beta)
    return ops.sum(distance, axis=-1)


def distribution_focal_loss(wanted: Any, logits: Any) -> Any:
    """Cross-entropy with the two bins around a distance, each weighed by how near it is.

    Li et al., 2020 (Generalized Focal Loss), arXiv:2006.04388.

    Args:
        wanted: distances in bins [..., 4]; those beyond the last bin are taken as the last bin.
        logits: [..., 4, R] over the distances 0..R-1.

    Returns:
        [...], the mean over the four sides.
    """
    logits = ops.cast(logits, "float32")
    bins = logits.shape[-1]
    wanted = ops.clip(ops.cast(wanted, "float32"), 0.0, bins - 1.0)
    # A tent around the distance: the bins to its left and right share 1, the others have 0.
    shares = ops.relu(1.0 - ops.abs(ops.arange(bins, dtype="float32") - wanted[..., None]))
    return ops.mean(-ops.sum(shares * ops.log_softmax(logits, axis=-1), axis=-1), axis=-1)


def repulsion_loss(
    found: Any,
    boxes: Any,
    valid: Any,
    index: Any,
    positive: Any,
    *,
    sigma_object: float = 0.9,
    sigma_box: float = 0.0,
    limit: int = 256,
) -> tuple[Any, Any]:
    """Pushes predictions away from objects and predictions that are not theirs (Wang et al., 2018, arXiv:1711.07752).

    RepGT is the mean over the positives of what they cover of the object they overlap most beside their own. RepBox
    is the mean over the overlapping pairs of positives of different objects. Both are 0.5 in the paper's total.

    Args:
        found: predicted xyxy [B, A, 4].
        boxes: objects, xyxy [B, M, 4].
        valid: bool [B, M].
        index: object of every prediction, int [B, A].
        positive: bool [B, A].
        sigma_object: where RepGT turns from -log(1 - x) into a line, in [0, 1). The paper finds 1, no line, best;
            that has no bound.
        sigma_box: the same of RepBox; the paper's 0 is a line.
        limit: at most so many positives an image, spread over all.

    Returns:
        (RepGT [B], RepBox [B]); 0 where there is nothing to push.

    Raises:
        ValueError: a sigma outside of [0, 1).
    """
    for name, sigma in (("sigma_object", sigma_object), ("sigma_box", sigma_box)):
        if not 0 <= sigma < 1:
            raise ValueError(f"{name} must lie in [0, 1), got {sigma}.")
    positive = ops.cast(positive, "float32")
    count, objects = positive.shape[1], boxes.shape[1]
    # Steps of the golden ratio spread over 0..1 evenly: the positives that are taken come from all levels.
    order = (ops.arange(count, dtype="float32") * _GOLDEN) % 1.0
    taken, rows = ops.top_k(positive * (1.0 + order), min(limit, count))
    taken = ops.cast(taken > 0, "float32")  # [B, P]
    index = gather_rows(ops.cast(index, "int32")[..., None], rows)[..., 0]
    # Slots without a prediction hold a box of their own: no gradient passes through them.
    found = ops.where(taken[..., None] > 0, gather_rows(ops.cast(found, "float32"), rows), 0.0)
    own = ops.one_hot(index, objects) > 0  # [B, P, M]
    boxes = ops.where(valid[..., None], ops.cast(boxes, "float32"), 0.0)

    # [B, P, M]
    overlap = ops.where(own, -1.0, ops.stop_gradient(pairwise_iou(found, boxes)))
    best = ops.max(overlap, axis=-1)
    nearest = ops.cast(ops.argmax(overlap, axis=-1), "int32")
    share = covered(found, gather_rows(boxes, nearest))
    near = taken * ops.cast(best > 0, "float32")
    of_objects = ratio(ops.sum(near * _smooth_log(share, sigma_object), axis=-1), ops.sum(taken, axis=-1))

    # [B, P, P]
    different = ops.cast(ops.not_equal(index[:, :, None], index[:, None, :]), "float32")
    pairs = different * taken[:, :, None] * taken[:, None, :]
    overlap = pairwise_iou(found, found)
    pairs = pairs * ops.cast(overlap > 0, "float32")
    of_boxes = ratio(ops.sum(pairs * _smooth_log(overlap, sigma_box), axis=(1, 2)), ops.sum(pairs, axis=(1, 2)))
    return of_objects, of_boxes


def _smooth_log(values: Any, sigma: float) -> Any:
    """-log(1 - x), and beyond sigma the line that continues it."""
    start = ops.log(1.0 - sigma)
    curve = -ops.log(1.0 - ops.clip(values, 0.0, min(sigma, _NEARLY_ONE)))
    return ops.where(values <= sigma, curve, (values - sigma) / (1.0 - sigma) - start)
