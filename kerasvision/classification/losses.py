"""Losses for classes of unequal size, in `keras.ops`, and how much each class weighs.

All take wanted probabilities and raw logits, and give one value an image; the averaging is the task's.
"""

from collections.abc import Sequence
from typing import Any

import keras
import numpy as np
from keras import ops

BETA = 0.999


def effective_number(counts: Sequence[int] | np.ndarray, beta: float = BETA) -> np.ndarray:
    """How many different images a class has, (1 - beta^n) / (1 - beta) (Cui et al., 2019, arXiv:1901.05555).

    Args:
        counts: images of each class, [K].
        beta: in [0, 1); 0 counts every class as one image, near 1 every image counts.

    Returns:
        float64 [K]; 0 for a class without images.

    Raises:
        ValueError: `beta` lies outside of [0, 1), or a count is negative.
    """
    values = np.asarray(counts, np.float64)
    if not 0 <= beta < 1:
        raise ValueError(f"beta must lie in [0, 1), got {beta}. Take 0.999, or 0.9999 for a large set.")
    if values.ndim != 1 or not np.isfinite(values).all() or (values < 0).any() or not values.any():
        raise ValueError(f"Expected the number of images of each class, not all of them 0, got {np.asarray(counts)}.")
    if beta == 0:
        return (values > 0).astype(np.float64)
    # expm1 keeps its digits where beta^n is nearly 1.
    return -np.expm1(values * np.log(beta)) / (1 - beta)


def class_balanced_weights(counts: Sequence[int] | np.ndarray, beta: float = BETA) -> np.ndarray:
    """1 / effective number for each class, scaled to a sum of K as in the paper (see `effective_number`).

    Args:
        counts: images of each class, [K].
        beta: of the effective number.

    Returns:
        float32 [K], its sum the number of classes that have images; 0 for the others.
    """
    numbers = effective_number(counts, beta)
    weights = np.divide(1.0, numbers, out=np.zeros_like(numbers), where=numbers > 0)
    return (weights * np.count_nonzero(weights) / weights.sum()).astype(np.float32)


def ldam_margins(counts: Sequence[int] | np.ndarray, largest: float = 0.5) -> np.ndarray:
    """Margins C / n^(1/4) of the label-distribution-aware margin loss (Cao et al., 2019, arXiv:1906.07413).

    Args:
        counts: images of each class, [K]; 0 counts as 1.
        largest: margin of the rarest class, which sets C.

    Returns:
        float32 [K].
    """
    margins = np.maximum(np.asarray(counts, np.float64), 1) ** -0.25
    return (margins * largest / margins.max()).astype(np.float32)


def class_balanced(wanted: Any, logits: Any, weights: Any, label_smoothing: float = 0.0) -> Any:
    """Cross-entropy times the weight of the wanted class (Cui et al., 2019, arXiv:1901.05555).

    Args:
        wanted: probabilities, float [B, K]; a mixture of classes has the mixture of their weights.
        logits: [B, K].
        weights: of `class_balanced_weights`, [K].
        label_smoothing: of the cross-entropy; the weights do not see it.

    Returns:
        [B].
    """
    values = keras.losses.categorical_crossentropy(wanted, logits, from_logits=True, label_smoothing=label_smoothing)
    return values * ops.sum(wanted * ops.convert_to_tensor(weights, "float32"), axis=-1)


def ldam(wanted: Any, logits: Any, margins: Any, scale: float = 30.0, label_smoothing: float = 0.0) -> Any:
    """Cross-entropy in which the wanted class must win by a margin, the larger the rarer it is (see `ldam_margins`).

    The paper multiplies the net's cosines by `scale` and margins with them. Here the logits are the product already,
    so that the softmax of the logits stays the net's prediction.

    Args:
        wanted: probabilities, float [B, K].
        logits: [B, K].
        margins: of `ldam_margins`, [K].
        scale: what the margins are multiplied by.
        label_smoothing: of the cross-entropy.

    Returns:
        [B].
    """
    behind = logits - scale * wanted * ops.convert_to_tensor(margins, "float32")
    return keras.losses.categorical_crossentropy(wanted, behind, from_logits=True, label_smoothing=label_smoothing)


class DeferredReweighting(keras.callbacks.Callback):
    """Switches the class weights of the "ldam" loss on after some epochs (Cao et al., 2019, arXiv:1906.07413).

    Until then the net learns features from images as they come; the paper starts at 0.8 of the epochs.

    Args:
        epoch: the first one with weights, counted from 0.

    Raises:
        ValueError: `epoch` is negative; in `fit`: the model's loss is not "ldam".
    """

    def __init__(self, epoch: int) -> None:
        super().__init__()
        if epoch < 0:
            raise ValueError(f"DeferredReweighting counts epochs from 0, got {epoch}.")
        self.epoch = epoch

    def on_epoch_begin(self, epoch: int, logs: dict[str, Any] | None = None) -> None:
        """The loss is compiled anew where the weights come or, in a new training, go."""
        task = self.model.task
        if task.loss_name != "ldam":
            raise ValueError(
                f'DeferredReweighting is for loss="ldam", but this model has loss="{task.loss_name}". '
                "Leave the callback out, or build the model with the other loss."
            )
        wanted = epoch >= self.epoch
        if task.reweight != wanted:
            task.reweight = wanted
            self.model.make_train_function(force=True)
            self.model.make_test_function(force=True)
