"""Pruning: the smallest weights become zero while the model trains (Zhu & Gupta, 2017, arXiv:1710.01878)."""

from collections.abc import Collection
from typing import Any

import numpy as np
import tensorflow as tf
import tf_keras
from tensorflow_model_optimization.python.core.sparsity.keras.pruning_callbacks import UpdatePruningStep
from tensorflow_model_optimization.python.core.sparsity.keras.pruning_schedule import PolynomialDecay
from tensorflow_model_optimization.python.core.sparsity.keras.pruning_wrapper import PruneLowMagnitude

from kerasvision.compress.twin_model import check_source
from kerasvision.compress.wrapping import KERNELS, WrappedModel
from kerasvision.task import TaskModel

# Share of the fit's steps in which zeros are made; in the others the rest learns to do without.
RAMP = 0.5
# How often the zeros are chosen anew in that time, at most: each time all weights are sorted.
CHOICES = 32


def prune(
    model: TaskModel,
    sparsity: float | None = None,
    *,
    pattern: tuple[int, int] | None = None,
    skip: Collection[str] | None = None,
) -> "PrunedModel":
    """A model whose kernels become sparse while it trains.

    In the first half of `fit` the share of zeros in each kernel grows, the fastest at the start, and the smallest
    magnitudes are chosen anew; then it is kept. Depthwise kernels, biases and normalization are left as they are. The
    model itself is not changed.

    Args:
        model: a trained model.
        sparsity: share of zeros in each kernel, 0..1; a half when neither this nor a pattern is given.
        pattern: (2, 4) for two zeros in any four consecutive input channels, from the first step on, which
            some chips skip; transposed convolutions are left as they are then.
        skip: names of layers to leave as they are; None for those next to the image and to the outputs.

    Raises:
        ValueError: a sparsity or pattern that cannot be, or both; or no layer is left to prune.
        UnknownNameError: no layer of such a name.
        BridgeError: a layer has no twin in tf_keras.
    """
    check_source(model, "prune")
    if sparsity is not None and pattern is not None:
        raise ValueError(f"Give a sparsity ({sparsity:g}) or a pattern ({pattern}), not both: a pattern has its own.")
    sparsity = 0.5 if sparsity is None else sparsity
    if not 0.0 < sparsity < 1.0:
        raise ValueError(f"sparsity must be a share between 0 and 1, got {sparsity:g}.")
    if pattern is not None and not 0 < pattern[0] < pattern[1]:
        raise ValueError(f"pattern must be (zeros, of so many), such as (2, 4), got {pattern}.")
    return PrunedModel(model, sparsity, pattern, skip)


class PrunedModel(WrappedModel):
    """A twin that becomes sparse in its first `fit`; see `prune`.

    Args:
        model: the Keras 3 model.
        sparsity: share of zeros in each kernel.
        pattern: (zeros, of so many consecutive input channels), None for zeros anywhere.
        skip: names of layers left as they are; None for the first and the last.
    """

    def __init__(
        self, model: TaskModel, sparsity: float, pattern: tuple[int, int] | None, skip: Collection[str] | None
    ) -> None:
        schedule = PolynomialDecay(0.0, sparsity, begin_step=0, end_step=1, frequency=1)

        def wrap(layer: tf_keras.layers.Layer) -> PruneLowMagnitude:
            return PruneLowMagnitude(layer, schedule, sparsity_m_by_n=pattern)

        kinds = [kind for kind in KERNELS if pattern is None or kind is not tf_keras.layers.Conv2DTranspose]
        super().__init__(model, wrap, skip, kinds)
        self._schedule = lambda: schedule
        self._is_pruned = False

    def fit(self, x: Any = None, y: Any = None, **kwargs: Any) -> Any:
        """Train as `tf_keras.Model.fit` does. The first call makes the zeros, later ones keep them.

        Raises:
            ValueError: the number of steps cannot be told from the data.
        """
        if not self._is_pruned:
            steps = kwargs.get("epochs", 1) * (kwargs.get("steps_per_epoch") or _steps(x, kwargs.get("batch_size")))
            schedule = self._schedule()
            ramp = max(int(RAMP * steps), 1)
            schedule.frequency = -(-ramp // CHOICES)
            # Zeros are chosen at multiples of the frequency only, and the last time the sparsity must be whole.
            schedule.end_step = ramp // schedule.frequency * schedule.frequency
            self.train_function = None  # It may hold the schedule of a fit that was broken off.
        callbacks = [UpdatePruningStep(), *(kwargs.pop("callbacks", None) or ())]
        history = super().fit(x, y, callbacks=callbacks, **kwargs)
        self._is_pruned = True
        return history

    def weights_of(self, wrapper: PruneLowMagnitude) -> list[np.ndarray]:
        """The layer's weights, zero where they were pruned."""
        for weight, mask, _ in wrapper.pruning_vars:
            weight.assign(weight * mask)
        return wrapper.layer.get_weights()

    def strip(self) -> TaskModel:
        """The sparse Keras 3 model, ready to train, save, quantize and export.

        Raises:
            ValueError: the model was never trained, so it has no zeros.
        """
        if not self._is_pruned:
            raise ValueError("Zeros are made while the model trains: call fit first, for an epoch or more.")
        return super().strip()


def _steps(x: Any, batch_size: int | None) -> int:
    """Steps of one epoch."""
    if isinstance(x, (np.ndarray, tf.Tensor)):
        return -(-len(x) // (batch_size or 32))
    steps = int(x.cardinality()) if isinstance(x, tf.data.Dataset) else len(x) if hasattr(x, "__len__") else -1
    if steps < 1:
        raise ValueError("The data set does not tell its length, and pruning is planned over it: give steps_per_epoch.")
    return steps
