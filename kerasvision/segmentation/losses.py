"""Losses of segmentation, in `keras.ops`: class maps and logits [B, H, W, K] -> one value an image."""

from typing import Any

from keras import ops

VOID = 255


def crossentropy(classes: Any, logits: Any) -> Any:
    """Softmax cross-entropy, the mean over the pixels that are not void; 0 where all are.

    Args:
        classes: int [B, H, W], 255 for void.
        logits: float32 [B, H, W, K].

    Returns:
        [B].
    """
    classes = ops.cast(classes, "int32")
    known = ops.cast(ops.not_equal(classes, VOID), "float32")
    index = ops.where(ops.equal(classes, VOID), 0, classes)
    values = ops.sparse_categorical_crossentropy(index, logits, from_logits=True) * known
    return ops.sum(values, axis=(1, 2)) / ops.maximum(ops.sum(known, axis=(1, 2)), 1.0)
