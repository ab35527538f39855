"""Losses of class scores that several families of detectors share, in `keras.ops`."""

from typing import Any

from keras import ops


def class_targets(classes: Any, positive: Any, count: int) -> Any:
    """One-hot rows of the positives, rows of zeros for the others.

    Args:
        classes: of each anchor's object, int [B, A].
        positive: bool [B, A].
        count: number of classes K.

    Returns:
        float32 [B, A, K].
    """
    # Classes outside of 0..K-1 give a row of zeros.
    return ops.one_hot(ops.where(positive, ops.cast(classes, "int32"), -1), count, dtype="float32")


def sigmoid_cross_entropy(wanted: Any, logits: Any) -> Any:
    """-y log p - (1 - y) log(1 - p) with p = sigmoid(logits), for logits of any size: [...] and [...] -> [...]."""
    return ops.maximum(logits, 0.0) - logits * wanted + ops.log1p(ops.exp(-ops.abs(logits)))


def focal_loss(wanted: Any, logits: Any, alpha: float = 0.25, gamma: float = 2.0) -> Any:
    """Cross-entropy that leaves out what is easy (Lin et al., 2017, arXiv:1708.02002).

    Args:
        wanted: 0 or 1, [...].
        logits: [...].
        alpha: weight of what is wanted; 1 - alpha of the rest.
        gamma: 0 is plain cross-entropy.

    Returns:
        [...].
    """
    chance = ops.sigmoid(logits)
    missed = wanted * (1.0 - chance) + (1.0 - wanted) * chance
    weight = wanted * alpha + (1.0 - wanted) * (1.0 - alpha)
    return weight * ops.power(missed, gamma) * sigmoid_cross_entropy(wanted, logits)
