"""Targets, loss, decode and metrics of image classification."""

from collections.abc import Sequence
from typing import Any, Literal

import keras
from keras import ops

from kerasvision.classification import losses
from kerasvision.registry import register_task
from kerasvision.task import Meter, Task, Tensors

# These need to know how many images each class has, and are for one label an image.
COUNTING = ("class_balanced", "ldam")


@register_task
class ClassificationTask(Task):
    """One label for each image (softmax), or any number of them (independent sigmoids).

    Args:
        num_classes: number of classes K; may be left out where `labels` is given.
        labels: class names in the order of the outputs; "0".."K-1" when None.
        multi_label: False: targets {"label": int [B]}; True: targets {"labels": 0/1 [B, K]}.
        label_smoothing: epsilon in y * (1 - epsilon) + epsilon / K (Szegedy et al., 2016, arXiv:1512.00567);
            with several labels, epsilon / 2 instead of epsilon / K.
        loss: "crossentropy"; "focal" with gamma 2 and alpha 0.25 (Lin et al., 2017, arXiv:1708.02002); or, for classes
            of unequal size and one label, "class_balanced" or "ldam" (see `kerasvision.classification.losses`).
        class_counts: training images of each class, [K], for "class_balanced" and "ldam".
        beta: of the effective number of images, whose inverse weighs the classes of these two.
        reweight: of "ldam": weigh the classes too; `losses.DeferredReweighting` switches it on while training.

    Raises:
        ValueError: no classes, contradictory counts, an unknown loss, or one without the counts it needs.
    """

    name = "classification"

    def __init__(
        self,
        num_classes: int | None = None,
        labels: Sequence[str] | None = None,
        multi_label: bool = False,
        label_smoothing: float = 0.0,
        loss: Literal["crossentropy", "focal", "class_balanced", "ldam"] = "crossentropy",
        class_counts: Sequence[int] | None = None,
        beta: float = losses.BETA,
        reweight: bool = False,
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
        if loss not in ("crossentropy", "focal", *COUNTING):
            raise ValueError(f'loss must be "class_balanced", "ldam", "crossentropy" or "focal", got {loss!r}.')
        if loss in COUNTING and multi_label:
            raise ValueError(f'loss="{loss}" is for one label an image, but multi_label is true. Take "focal".')
        if reweight and loss != "ldam":
            raise ValueError(f'reweight is for loss="ldam", got loss="{loss}".')
        counted = 0 if class_counts is None else len(class_counts)
        if counted != len(labels) * (loss in COUNTING):
            needed = f"the {len(labels)} numbers of training images" if loss in COUNTING else "no class_counts"
            raise ValueError(f'loss="{loss}" expects {needed}, got class_counts={class_counts}.')
        self.labels = tuple(str(label) for label in labels)
        self.multi_label = multi_label
        self.label_smoothing = label_smoothing
        self.loss_name = loss
        self.loss_names = (loss,)
        self.class_counts = None if class_counts is None else tuple(int(count) for count in class_counts)
        self.beta = beta
        self.reweight = reweight
        if self.class_counts is not None:
            self._weights = losses.class_balanced_weights(self.class_counts, beta)  # [K]
            self._margins = losses.ldam_margins(self.class_counts)  # [K]
        self.monitor_names = ("accuracy",)
        self.primary_metric = "mAP" if multi_label else "accuracy"

    def loss(self, targets: Tensors, outputs: Tensors, sample_weight: Any = None) -> Tensors:
        """The loss on logits.

        Args:
            targets: {"label": int [B]} or {"labels": 0/1 [B, K]}; "label_weights", float [B, K], beside "label" are the
                wanted probabilities of an image that is mixed from several.
            outputs: {"logits": [B, K]}.
            sample_weight: [B], or None.

        Returns:
            {loss name: scalar}.
        """
        logits = ops.cast(outputs["logits"], "float32")
        if self.multi_label:
            values = self._of_labels(ops.cast(targets["labels"], "float32"), logits)
        elif "label_weights" in targets:
            values = self._of_one_label(ops.cast(targets["label_weights"], "float32"), logits)
        else:
            label = ops.cast(targets["label"], "int32")
            values = self._of_one_label(ops.one_hot(label, len(self.labels), dtype="float32"), logits)
        if sample_weight is not None:
            values = values * ops.cast(sample_weight, "float32")
        return {self.loss_name: ops.mean(values)}

    def _of_labels(self, wanted: Any, logits: Any) -> Any:
        common: dict[str, Any] = {"from_logits": True, "label_smoothing": self.label_smoothing}
        if self.loss_name == "focal":
            return keras.losses.binary_focal_crossentropy(wanted, logits, apply_class_balancing=True, **common)
        return keras.losses.binary_crossentropy(wanted, logits, **common)

    def _of_one_label(self, wanted: Any, logits: Any) -> Any:
        smoothing = self.label_smoothing
        if self.loss_name == "class_balanced":
            return losses.class_balanced(wanted, logits, self._weights, smoothing)
        if self.loss_name == "ldam":
            values = losses.ldam(wanted, logits, self._margins, label_smoothing=smoothing)
            return values * ops.sum(wanted * self._weights, axis=-1) if self.reweight else values
        function = keras.losses.categorical_crossentropy
        if self.loss_name == "focal":
            function = keras.losses.categorical_focal_crossentropy
        return function(wanted, logits, from_logits=True, label_smoothing=smoothing)

    def monitors(self, targets: Tensors, outputs: Tensors) -> Tensors:
        """Share of right labels in the batch; with several labels, of right yes/no decisions."""
        logits = outputs["logits"]
        if self.multi_label:
            right = ops.equal(logits > 0, ops.cast(targets["labels"], "float32") > 0.5)
        else:
            right = ops.equal(ops.cast(ops.argmax(logits, axis=-1), "int32"), ops.cast(targets["label"], "int32"))
        return {"accuracy": ops.mean(ops.cast(right, "float32"))}

    def decode(self, outputs: Tensors) -> Tensors:
        """{"logits": [B, K]} -> {"scores": [B, K]} in 0..1; rows sum to 1 unless several labels are allowed."""
        logits = outputs["logits"]
        return {"scores": ops.sigmoid(logits) if self.multi_label else ops.softmax(logits, axis=-1)}

    def meter(self) -> Meter:
        """Accuracy, top-5, macro F1, AUC and log loss; with several labels mAP, and F1 per class and overall.

        Targets are {"label": [B]} or {"labels": [B, K]}, predictions {"scores": [B, K]}. Values lie in 0..1. Figures
        that the data cannot give (the AUC of an absent class) are left out.
        """
        from kerasvision.classification.metrics import ClassificationMeter

        return ClassificationMeter(self.multi_label)

    def get_config(self) -> dict[str, Any]:
        """The constructor's arguments."""
        return {
            "labels": list(self.labels),
            "multi_label": self.multi_label,
            "label_smoothing": self.label_smoothing,
            "loss": self.loss_name,
            "class_counts": None if self.class_counts is None else list(self.class_counts),
            "beta": self.beta,
            "reweight": self.reweight,
        }
