"""Targets, loss, decode and metrics of image classification."""

from collections.abc import Mapping, Sequence
from typing import Any, Literal

import keras
import numpy as np
from keras import ops

from kerasvision.registry import register_task
from kerasvision.task import Task, Tensors


@register_task
class ClassificationTask(Task):
    """One label for each image (softmax), or any number of them (independent sigmoids).

    Args:
        num_classes: number of classes K; may be left out where `labels` is given.
        labels: class names in the order of the outputs; "0".."K-1" when None.
        multi_label: False: targets {"label": int [B]}; True: targets {"labels": 0/1 [B, K]}.
        label_smoothing: epsilon in y * (1 - epsilon) + epsilon / K (Szegedy et al., 2016, arXiv:1512.00567);
            with several labels, epsilon / 2 instead of epsilon / K.
        loss: "crossentropy", or "focal" with gamma 2 and alpha 0.25 (Lin et al., 2017, arXiv:1708.02002).

    Raises:
        ValueError: no classes, contradictory counts, or an unknown loss.
    """

    name = "classification"

    def __init__(
        self,
        num_classes: int | None = None,
        labels: Sequence[str] | None = None,
        multi_label: bool = False,
        label_smoothing: float = 0.0,
        loss: Literal["crossentropy", "focal"] = "crossentropy",
    ) -> None:
        if labels is None and num_classes is None:
            raise ValueError("Give num_classes (an int) or labels (the class names).")
        if labels is None:
            labels = [str(index) for index in range(int(num_classes or 0))]
        if num_classes is not None and num_classes != len(labels):
            raise ValueError(f"num_classes is {num_classes} but {len(labels)} labels were given.")
        if len(labels) < (1 if multi_label else 2):
            raise ValueError(f"A classifier needs at least two classes, got {list(labels)}.")
        if not 0 <= label_smoothing < 1:
            raise ValueError(f"label_smoothing must lie in [0, 1), got {label_smoothing}.")
        if loss not in ("crossentropy", "focal"):
            raise ValueError(f'loss must be "crossentropy" or "focal", got {loss!r}.')
        self.labels = tuple(str(label) for label in labels)
        self.multi_label = multi_label
        self.label_smoothing = label_smoothing
        self.loss_name = loss
        self.loss_names = (loss,)
        self.monitor_names = ("accuracy",)
        self.primary_metric = "mAP" if multi_label else "accuracy"

    def loss(self, targets: Tensors, outputs: Tensors, sample_weight: Any = None) -> Tensors:
        """Cross-entropy or focal loss on logits.

        Args:
            targets: {"label": int [B]} or {"labels": 0/1 [B, K]}.
            outputs: {"logits": [B, K]}.
            sample_weight: [B], or None.

        Returns:
            {loss name: scalar}.
        """
        logits = ops.cast(outputs["logits"], "float32")
        if self.multi_label:
            wanted = ops.cast(targets["labels"], "float32")  # [B, K]
            if self.loss_name == "focal":
                values = keras.losses.binary_focal_crossentropy(
                    wanted, logits, apply_class_balancing=True, from_logits=True, label_smoothing=self.label_smoothing
                )
            else:
                values = keras.losses.binary_crossentropy(
                    wanted, logits, from_logits=True, label_smoothing=self.label_smoothing
                )
        else:
            wanted = ops.one_hot(ops.cast(targets["label"], "int32"), len(self.labels), dtype="float32")
            if self.loss_name == "focal":
                values = keras.losses.categorical_focal_crossentropy(
                    wanted, logits, from_logits=True, label_smoothing=self.label_smoothing
                )
            else:
                values = keras.losses.categorical_crossentropy(
                    wanted, logits, from_logits=True, label_smoothing=self.label_smoothing
                )
        if sample_weight is not None:
            values = values * ops.cast(sample_weight, "float32")
        return {self.loss_name: ops.mean(values)}

    def monitors(self, targets: Tensors, outputs: Tensors) -> Tensors:
        """Share of right labels in the batch; with several labels, of right yes/no decisions."""
        logits = outputs["logits"]
        if self.multi_label:
            right = ops.equal(logits > 0, ops.cast(targets["labels"], "bool"))
        else:
            right = ops.equal(ops.cast(ops.argmax(logits, axis=-1), "int32"), ops.cast(targets["label"], "int32"))
        return {"accuracy": ops.mean(ops.cast(right, "float32"))}

    def decode(self, outputs: Tensors) -> Tensors:
        """{"logits": [B, K]} -> {"scores": [B, K]} in 0..1; rows sum to 1 unless several labels are allowed."""
        logits = outputs["logits"]
        return {"scores": ops.sigmoid(logits) if self.multi_label else ops.softmax(logits, axis=-1)}

    def metrics(self, targets: Mapping[str, np.ndarray], predictions: Mapping[str, np.ndarray]) -> dict[str, float]:
        """Accuracy, top-5, macro F1, AUC and log loss; with several labels mAP, and F1 per class and overall.

        Args:
            targets: {"label": [N]} or {"labels": [N, K]}.
            predictions: {"scores": [N, K]}.

        Returns:
            name -> value in 0..1. Figures that the data cannot give (the AUC of an absent class) are left out.
        """
        from kerasvision.classification import metrics

        scores = np.asarray(predictions["scores"], np.float64)
        if self.multi_label:
            return metrics.multi_label(np.asarray(targets["labels"]), scores)
        return metrics.single_label(np.asarray(targets["label"]), scores)

    def get_config(self) -> dict[str, Any]:
        """The constructor's arguments."""
        return {
            "labels": list(self.labels),
            "multi_label": self.multi_label,
            "label_smoothing": self.label_smoothing,
            "loss": self.loss_name,
        }
