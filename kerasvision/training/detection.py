"""Average precision on a data set after each epoch of a detector's training."""

import math
from typing import Any

import keras
import tensorflow as tf

from kerasvision.detection.metrics import ALWAYS, MASKS, DetectionMeter
from kerasvision.detection.task import DetectionTask
from kerasvision.training.callbacks import averaged_weights


def measured_names(model: Any) -> tuple[str, ...]:
    """What `DetectionEvaluation` always adds to an epoch of this model; nothing for other tasks."""
    if not detects(model):
        return ()
    kinds = ("",) if model.task.mask_stride is None else ("", MASKS)
    return tuple(f"val_{kind}{name}" for kind in kinds for name in ALWAYS)


def detects(model: Any) -> bool:
    """Whether a model's task is to say what is where."""
    return isinstance(getattr(model, "task", None), DetectionTask)


class DetectionEvaluation(keras.callbacks.Callback):
    """Adds COCO's figures to the `logs` of an epoch, from where they reach `history`, TensorBoard and the best epoch.

    It stands before the callbacks that read them. Boxes give "val_AP", "val_AP50", "val_AP/<label>" and the others of
    `DetectionMetrics.result`; where the model gives masks and the data has them, masks "val_mask_AP" and so on. A model
    that finds nothing has 0. Where the data has no object, "val_AP", "val_AP50", "val_AP75" and the recalls are 0, too;
    classes and sizes that never occur are left out. In an epoch that is not measured all are NaN: never the best one.
    It does nothing for other tasks.
    `.latest` is the `DetectionMeter` of the epoch, or None where it was not measured.

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
        self.latest: DetectionMeter | None = None
        self._names: list[str] = []
        self._infer: Any = None

    def on_train_begin(self, logs: Any = None) -> None:
        """Forget what an earlier training has measured."""
        self._names, self._infer, self.latest = [], None, None

    def on_epoch_end(self, epoch: int, logs: Any = None) -> None:
        """Measure, where it is time to."""
        if not detects(self.model if self.measured is None else self.measured):
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

    def measure(self) -> DetectionMeter:
        """What the model is worth now, with the moving average of its weights where there is one."""
        model = self.model if self.measured is None else self.measured
        meter = model.task.meter()
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
