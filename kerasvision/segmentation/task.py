"""Targets, loss, decode and metrics of semantic segmentation."""

from collections.abc import Sequence
from typing import Any

import keras
from keras import ops

from kerasvision.registry import register_task
from kerasvision.segmentation.losses import crossentropy
from kerasvision.task import Meter, Task, Tensors

# Raw outputs whose names begin so learn as "logits" do, and predict nothing.
AUXILIARY = "auxiliary"


@register_task
class SegmentationTask(Task):
    """A class for every pixel.

    Args:
        num_classes: number of classes K; may be left out where `labels` is given.
        labels: class names in the order of the outputs; "0".."K-1" when None.
        image_size: (H, W) in pixels of what the net sees; `create_model` fills it in.
        auxiliary_weight: of the losses of auxiliary heads.
        probabilities: whether `decode` gives the probabilities of the classes too.

    Raises:
        ValueError: fewer than two classes, or contradictory counts.
    """

    name = "segmentation"
    whole_image = True

    def __init__(
        self,
        num_classes: int | None = None,
        labels: Sequence[str] | None = None,
        image_size: Sequence[int] = (0, 0),
        *,
        auxiliary_weight: float = 0.4,
        probabilities: bool = False,
    ) -> None:
        if labels is None and num_classes is None:
            raise ValueError("Give num_classes (an int) or labels (the class names).")
        if labels is None:
            labels = [str(index) for index in range(int(num_classes or 0))]
        if num_classes is not None and num_classes != len(labels):
            raise ValueError(f"num_classes is {num_classes} but {len(labels)} labels were given.")
        if not 2 <= len(labels) <= 255:
            raise ValueError(f"Segmentation needs 2 to 255 classes, got {len(labels)}.")
        self.labels = tuple(str(label) for label in labels)
        self.image_size = (int(image_size[0]), int(image_size[1]))
        self.auxiliary_weight = auxiliary_weight
        self.probabilities = probabilities
        self.loss_names = ("crossentropy",)
        self.monitor_names = ()
        self.primary_metric = "mIoU"

    def loss(self, targets: Tensors, outputs: Tensors, sample_weight: Any = None) -> Tensors:
        """The losses on logits, enlarged to the size of the targets.

        Args:
            targets: {"segmentation": int [B, H, W]}, 255 for void.
            outputs: {"logits": [B, h, w, K]}, and auxiliary ones.
            sample_weight: [B], or None.

        Returns:
            {loss name: scalar}.
        """
        classes = targets["segmentation"]
        total: Any = 0.0
        for name, logits in outputs.items():
            weight = self.auxiliary_weight if name.startswith(AUXILIARY) else 1.0
            total = total + weight * crossentropy(classes, resized(logits, classes.shape[1:3]))
        if sample_weight is not None:
            total = total * ops.cast(sample_weight, "float32")
        return {"crossentropy": ops.mean(total)}

    def monitors(self, targets: Tensors, outputs: Tensors) -> Tensors:
        """Nothing yet."""
        return {}

    def decode(self, outputs: Tensors) -> Tensors:
        """Raw outputs to a class map of the image's size.

        Args:
            outputs: {"logits": [B, h, w, K]}.

        Returns:
            {"classes": int32 [B, H, W]}, and "probabilities" [B, H, W, K] where the task is to give them.
        """
        logits = resized(outputs["logits"], self.image_size)
        found = {"classes": best_class(logits)}
        if self.probabilities:
            found["probabilities"] = ops.softmax(logits, axis=-1)
        return found

    def meter(self) -> Meter:
        """Overlaps of the classes."""
        raise NotImplementedError

    def get_config(self) -> dict[str, Any]:
        """The constructor's arguments."""
        return {
            "labels": list(self.labels),
            "image_size": list(self.image_size),
            "auxiliary_weight": self.auxiliary_weight,
            "probabilities": self.probabilities,
        }


def resized(logits: Any, size: Sequence[int]) -> Any:
    """Bilinear, between the centres of pixels: [B, h, w, K] -> float32 [B, H, W, K]."""
    logits = ops.cast(logits, "float32")
    if tuple(logits.shape[1:3]) == tuple(size):
        return logits
    return ops.image.resize(logits, tuple(size), interpolation="bilinear", data_format="channels_last")


def best_class(logits: Any) -> Any:
    """Index of the largest logit: [B, H, W, K] -> int32 [B, H, W]."""
    if keras.backend.backend() == "tensorflow" and not isinstance(logits, keras.KerasTensor):
        # TFLite has no operation for how `ops.argmax` orders 0.0 and -0.0.
        import tensorflow as tf

        return tf.argmax(logits, axis=-1, output_type=tf.int32)
    return ops.cast(ops.argmax(logits, axis=-1), "int32")
