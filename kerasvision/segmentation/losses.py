"""Losses of segmentation, in `keras.ops`: class maps and logits -> one value an image; the averaging is the task's.

All take `classes`, int [B, H, W] with 255 for void, and `logits`, float32 [B, H, W, K], and give [B]. Void pixels count
nowhere; an image of nothing else has the loss 0.
"""

from collections.abc import Callable
from typing import Any

from keras import ops

from kerasvision.class_maps import VOID

_TINY = 1e-7


def crossentropy(
    classes: Any, logits: Any, *, class_weights: Any = None, label_smoothing: float = 0.0, pixel_weights: Any = None
) -> Any:
    """Softmax cross-entropy, the mean over the pixels.

    Args:
        classes: int [B, H, W].
        logits: float32 [B, H, W, K].
        class_weights: factor for the pixels of each class, [K]. It is the number of pixels that is divided by, not the
            sum of their weights: an image of rare classes alone weighs more.
        label_smoothing: epsilon in y * (1 - epsilon) + epsilon / K (Szegedy et al., 2016, arXiv:1512.00567).
        pixel_weights: factor for each pixel, [B, H, W], such as `kerasvision.class_maps.border_weights`.

    Returns:
        [B].
    """
    known, index = _known(classes)
    values = ops.sparse_categorical_crossentropy(index, logits, from_logits=True)
    if label_smoothing:
        uniform = ops.logsumexp(logits, axis=-1) - ops.mean(logits, axis=-1)
        values = values * (1 - label_smoothing) + uniform * label_smoothing
    return _pixel_mean(values, known, index, class_weights, pixel_weights)


def focal(
    classes: Any, logits: Any, *, gamma: float = 2.0, class_weights: Any = None, pixel_weights: Any = None
) -> Any:
    """Cross-entropy times (1 - p)^gamma, p the probability of the true class (Lin et al., 2017, arXiv:1708.02002).

    Args:
        classes: int [B, H, W].
        logits: float32 [B, H, W, K].
        gamma: 0 is plain cross-entropy; the larger, the less count pixels that are right already.
        class_weights: alpha of the paper, [K], as in `crossentropy`.
        pixel_weights: as in `crossentropy`.

    Returns:
        [B].
    """
    known, index = _known(classes)
    values = ops.sparse_categorical_crossentropy(index, logits, from_logits=True)
    # The slope of a power below 1 has no bound at 0.
    doubt = ops.maximum(1 - ops.exp(-values), _TINY)
    return _pixel_mean(doubt**gamma * values, known, index, class_weights, pixel_weights)


def dice(classes: Any, logits: Any, *, squared: bool = False, class_weights: Any = None, smooth: float = 1.0) -> Any:
    """1 - 2 |A B| / (|A| + |B|) of probabilities, the mean over the classes that occur in the image.

    Args:
        classes: int [B, H, W].
        logits: float32 [B, H, W, K].
        squared: squares in the denominator (V-Net: Milletari et al., 2016, arXiv:1606.04797).
        class_weights: weights of that mean, [K].
        smooth: what is added to the intersection and to half of the denominator, in pixels.

    Returns:
        [B].
    """
    truth, chance = _soft(classes, logits)
    hits = ops.sum(truth * chance, axis=(1, 2))  # [B, K]
    present = ops.sum(truth, axis=(1, 2))
    claimed = ops.sum(chance * chance if squared else chance, axis=(1, 2))
    return _class_mean(1 - (hits + smooth) / ((present + claimed) / 2 + smooth), present, class_weights)


def tversky(
    classes: Any,
    logits: Any,
    *,
    alpha: float = 0.3,
    beta: float = 0.7,
    class_weights: Any = None,
    smooth: float = 1.0,
) -> Any:
    """1 - TP / (TP + alpha FP + beta FN) of probabilities, the mean over the classes that occur in the image.

    Salehi et al., 2017, arXiv:1706.05721. With alpha = beta = 0.5 it is `dice`, with 1 and 1 the soft Jaccard loss.

    Args:
        classes: int [B, H, W].
        logits: float32 [B, H, W, K].
        alpha: of false positives.
        beta: of false negatives.
        class_weights: weights of the mean over the classes, [K].
        smooth: what is added above and below, in pixels.

    Returns:
        [B].
    """
    indices, present = _tversky_indices(classes, logits, alpha, beta, smooth)
    return _class_mean(1 - indices, present, class_weights)


def focal_tversky(
    classes: Any,
    logits: Any,
    *,
    gamma: float = 4 / 3,
    alpha: float = 0.3,
    beta: float = 0.7,
    class_weights: Any = None,
    smooth: float = 1.0,
) -> Any:
    """Tversky losses of the classes to the power of 1 / gamma, and their mean (Abraham & Khan, 2019, arXiv:1810.07842).

    Args:
        classes: int [B, H, W].
        logits: float32 [B, H, W, K].
        gamma: 1 is plain `tversky`; above, classes that are nearly right count more.
        alpha: of false positives.
        beta: of false negatives.
        class_weights: weights of the mean over the classes, [K].
        smooth: what is added above and below, in pixels.

    Returns:
        [B].
    """
    indices, present = _tversky_indices(classes, logits, alpha, beta, smooth)
    return _class_mean(ops.maximum(1 - indices, _TINY) ** (1 / gamma), present, class_weights)


def lovasz(classes: Any, logits: Any) -> Any:
    """Lovasz-softmax: the convex extension of 1 - IoU, the mean over the classes that occur in the image.

    Berman et al., 2018, arXiv:1705.08790. The pixels of each class are sorted by their error, so a step costs more than
    that of other losses.

    Args:
        classes: int [B, H, W].
        logits: float32 [B, H, W, K].

    Returns:
        [B].
    """
    truth, chance = _soft(classes, logits)
    known = ops.cast(ops.not_equal(classes, VOID), "float32")[..., None]
    # [B, K, H W]; void pixels have no error, and come among the last.
    truth, errors = _by_class(truth), _by_class(ops.abs(truth - chance))
    wrong = _by_class(known * ops.ones_like(chance)) - truth
    errors, order = ops.top_k(errors, errors.shape[-1])
    truth, wrong = ops.take_along_axis(truth, order, axis=-1), ops.take_along_axis(wrong, order, axis=-1)
    present = ops.sum(truth, axis=-1)  # [B, K]
    left = present[..., None] - ops.cumsum(truth, axis=-1)
    union = present[..., None] + ops.cumsum(wrong, axis=-1)
    jaccard = 1 - left / ops.maximum(union, 1.0)
    slopes = jaccard - ops.pad(jaccard[..., :-1], [[0, 0], [0, 0], [1, 0]])
    return _class_mean(ops.sum(errors * ops.stop_gradient(slopes), axis=-1), present)


def boundary(classes: Any, logits: Any, *, reach: int = 10) -> Any:
    """Wrong probability times its distance to the outline of the class, the mean over the pixels.

    Kervadec et al., 2019, arXiv:1812.07032: the integral of phi (s - g), phi being the signed distance to the outline
    (negative inside), s the probabilities, g the truth; the part with g alone, which the paper drops, makes 0 the best
    value. It is meant to be added to a loss of regions with a small weight. Distances end at `reach`, which makes them
    cheap enough to be computed from plain targets in every step; an absent class is `reach` away from everywhere.

    Args:
        classes: int [B, H, W].
        logits: float32 [B, H, W, K].
        reach: longest distance in pixels; the loss is in units of it.

    Returns:
        [B].
    """
    known, _ = _known(classes)
    truth, chance = _soft(classes, logits)
    away = _distances(truth, reach)
    others = ops.min(ops.where(truth > 0, float(reach), away), axis=-1, keepdims=True)
    # Outlines run between pixels: half a pixel from the nearest centre.
    phi = (ops.where(truth > 0, others, away) - 0.5) / reach
    return _pixel_mean(ops.sum(phi * ops.abs(truth - chance), axis=-1), known)


LOSSES: dict[str, Callable[..., Any]] = {
    each.__name__: each for each in (crossentropy, focal, dice, tversky, focal_tversky, lovasz, boundary)
}


def _known(classes: Any) -> tuple[Any, Any]:
    """Float32 [B, H, W], 0 where void; and int32 [B, H, W], the class, 0 where void."""
    classes = ops.cast(classes, "int32")
    void = ops.equal(classes, VOID)
    return 1 - ops.cast(void, "float32"), ops.where(void, 0, classes)


def _soft(classes: Any, logits: Any) -> tuple[Any, Any]:
    """Wanted and predicted probabilities [B, H, W, K], both 0 where void."""
    known, index = _known(classes)
    truth = ops.one_hot(index, logits.shape[-1], dtype="float32") * known[..., None]
    return truth, ops.softmax(logits, axis=-1) * known[..., None]


def _tversky_indices(classes: Any, logits: Any, alpha: float, beta: float, smooth: float) -> tuple[Any, Any]:
    """Index and number of pixels of each class, both [B, K]."""
    truth, chance = _soft(classes, logits)
    hits = ops.sum(truth * chance, axis=(1, 2))
    present = ops.sum(truth, axis=(1, 2))
    false = ops.sum(chance, axis=(1, 2)) - hits
    return (hits + smooth) / (hits + alpha * false + beta * (present - hits) + smooth), present


def _pixel_mean(
    values: Any, known: Any, index: Any = None, class_weights: Any = None, pixel_weights: Any = None
) -> Any:
    weights = known
    if class_weights is not None:
        weights = weights * ops.take(ops.convert_to_tensor(class_weights, "float32"), index, axis=0)
    if pixel_weights is not None:
        weights = weights * ops.cast(pixel_weights, "float32")
    return ops.sum(values * weights, axis=(1, 2)) / ops.maximum(ops.sum(known, axis=(1, 2)), 1.0)


def _class_mean(values: Any, present: Any, class_weights: Any = None) -> Any:
    """Mean of [B, K] over the classes that have pixels."""
    weights = ops.cast(present > 0, "float32")
    if class_weights is not None:
        weights = weights * ops.convert_to_tensor(class_weights, "float32")
    return ops.sum(values * weights, axis=-1) / ops.maximum(ops.sum(weights, axis=-1), _TINY)


def _by_class(values: Any) -> Any:
    """[B, H, W, K] -> [B, K, H W]."""
    _, height, width, classes = values.shape
    return ops.transpose(ops.reshape(values, (-1, height * width, classes)), (0, 2, 1))


def _distances(truth: Any, reach: int) -> Any:
    """Distance of each pixel to the nearest one of each class, at most `reach`: [B, H, W, K]."""
    squares = ops.where(truth > 0, 0.0, float(reach**2))
    for axis in (1, 2):
        side = truth.shape[axis]
        edges = [[reach, reach] if each == axis else [0, 0] for each in range(4)]
        padded = ops.pad(squares, edges, constant_values=float(reach**2))
        for shift in range(-reach, reach + 1):
            start = reach + shift
            moved = padded[:, start : start + side] if axis == 1 else padded[:, :, start : start + side]
            squares = ops.minimum(squares, moved + float(shift**2))
    return ops.sqrt(squares)
