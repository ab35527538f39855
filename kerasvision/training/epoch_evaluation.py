"""Figures of whole data sets after each epoch of a training, for tasks whose batches do not tell them."""

import math
from typing import Any

import keras
import tensorflow as tf

from kerasvision.task import Meter
from kerasvision.training.callbacks import averaged_weights


def task_name(model: Any) -> str:
    """What a model is for, such as "detection"; "" where it has no task."""
    return getattr(getattr(model, "task", None), "name", "")


class EpochEvaluation(keras.callbacks.Callback):
    """Adds the figures of `Task.meter` to the `logs` of an epoch, from where they reach `history` and the best epoch.

    It stands before the callbacks that read them. Each figure is named "val_" and its name: a detector's "val_AP",
    "val_AP50", "val_AP/<label>" and, where model and data have masks, "val_mask_AP" and so on; a segmenter's
    "val_mIoU", "val_IoU/<label>" and the others. `Task.measured_names` are always there, unless the data has nothing
    that could be measured. In an epoch that is not measured all are NaN: never the best one. It does nothing for tasks
    whose batches tell all.
    `.latest` is the meter of the epoch, or None where it was not measured.

    Args:
        dataset: of (images, targets), as `Data.batches` yields them, not shuffled or augmented.
        model: TaskModel whose predictions are measured; the trained one when None.
        every: measures the first epoch of a training, the last, and every so many.

    Raises:
        ValueError: `every` is below 1.
    """

    def __init__(
        self,
        dataset: tf.data.Dataset,
        model: Any = None,
        *,
        every: int = 1,
    ) -> None:
        super().__init__()
        if every < 1:
            raise ValueError(f"every must be at least 1, got {every}.")
        self.dataset = dataset
        self.measured = model
        self.every = every
        self.latest: Any = None
        self._names: list[str] = []
        self._infer: Any = None

    def on_train_begin(self, logs: Any = None) -> None:
        """Forget what an earlier training has measured."""
        self._names, self._infer, self.latest = [], None, None

    def on_epoch_end(self, epoch: int, logs: Any = None) -> None:
        """Measure, where it is time to."""
        task = getattr(self.model if self.measured is None else self.measured, "task", None)
        if task is None or not task.measured_names:
            return
        last = epoch + 1 == self.params.get("epochs")
        logs = {} if logs is None else logs
        if self._names and not last and (epoch + 1) % self.every:
            logs.update(dict.fromkeys(self._names, math.nan))
            self.latest = None
            return
        self.latest = self.measure()
        figures = {f"val_{name}": value for name, value in self.latest.result().items()}
        self._names = list(figures)
        logs.update(figures)

    def measure(self) -> Any:
        """The meter of what the model is worth now, with the moving average of its weights where there is one."""
        model = self.model if self.measured is None else self.measured
        meter: Meter = model.task.meter()
        with averaged_weights(model):
            for images, targets in self.dataset:
                meter.update(targets, self.predict(images))
        return meter

    def predict(self, images: Any) -> dict[str, Any]:
        """Decoded predictions of images [B, H, W, C] of 0..255, with the weights as they are."""
        if self._infer is None:
            model = self.model if self.measured is None else self.measured
            spec = tf.TensorSpec((None, *model.image_size, model.channels), tf.float32)
            self._infer = tf.function(
                lambda images: model.task.decode(model(images, training=False)), input_signature=[spec]
            )
        return self._infer(tf.cast(images, tf.float32))
