"""Targets, loss, decode and metrics of detection."""

from collections.abc import Sequence
from typing import Any, Literal

import numpy as np
from keras import ops

from kerasvision.boxes.nms import hard_nms, matrix_nms, soft_nms
from kerasvision.detection.method import Method
from kerasvision.detection.metrics import ALWAYS, MASKS, DetectionMeter
from kerasvision.registry import register_task
from kerasvision.task import Task, Tensors

Suppression = Literal["hard", "soft", "soft_linear", "matrix"]
SUPPRESSIONS = ("hard", "soft", "soft_linear", "matrix")


@register_task
class DetectionTask(Task):
    """What is where in an image: any number of boxes, each with a class.

    How boxes are coded and learned is the affair of a `Method`, which the net's builder binds. Suppression is the
    same for all of them, and can be changed at any time: `model.task.iou = 0.6`.

    Args:
        num_classes: number of classes K, without a background; may be left out where `labels` is given.
        labels: class names in the order of the outputs; "0".."K-1" when None.
        image_size: (H, W) in pixels of what the net sees; `create_model` fills it in.
        suppression: "hard", "soft" (Gaussian), "soft_linear" or "matrix", see `kerasvision.boxes.nms`.
        iou: of hard suppression and of the linear decay: overlap from which a detection gives way to a better one.
        sigma: of the Gaussian decay.
        least_score: detections below it are left out.
        detections: at most so many an image, D.
        candidates: pairs of box and class that are compared with one another, those of the highest scores.
        by_class: whether only detections of the same class give way to one another.

    Raises:
        ValueError: no classes, contradictory counts, or settings of the suppression that cannot be.
    """

    name = "detection"
    float_decode = True
    whole_image = True

    def __init__(
        self,
        num_classes: int | None = None,
        labels: Sequence[str] | None = None,
        image_size: Sequence[int] = (0, 0),
        *,
        suppression: Suppression = "hard",
        iou: float = 0.5,
        sigma: float = 0.5,
        least_score: float = 0.01,
        detections: int = 100,
        candidates: int = 300,
        by_class: bool = True,
    ) -> None:
        if labels is None and num_classes is None:
            raise ValueError("Give num_classes (an int) or labels (the class names).")
        if labels is None:
            labels = [str(index) for index in range(int(num_classes or 0))]
        if num_classes is not None and num_classes != len(labels):
            raise ValueError(f"num_classes is {num_classes} but {len(labels)} labels were given.")
        if not labels:
            raise ValueError("A detector needs at least one class, got none.")
        if suppression not in SUPPRESSIONS:
            raise ValueError(f"suppression must be one of {', '.join(SUPPRESSIONS)}, got {suppression!r}.")
        self.labels = tuple(str(label) for label in labels)
        self.image_size = (int(image_size[0]), int(image_size[1]))
        self.suppression: Suppression = suppression
        self.iou = iou
        self.sigma = sigma
        self.least_score = least_score
        self.detections = detections
        self.candidates = candidates
        self.by_class = by_class
        self.loss_names = ()
        self.monitor_names = ()
        self.primary_metric = "AP"
        self.measured_names = ALWAYS
        self._method: Method | None = None

    def bind(self, method: Method) -> None:
        """Take the method of the net that is being built."""
        self._method = method
        self.loss_names = method.loss_names
        self.mask_stride = method.mask_stride
        self.primary_metric = "AP" if method.mask_stride is None else f"{MASKS}AP"
        kinds = ("",) if method.mask_stride is None else ("", MASKS)
        self.measured_names = tuple(f"{kind}{name}" for kind in kinds for name in ALWAYS)

    @property
    def method(self) -> Method:
        """How the net learns, and what its raw outputs stand for.

        Raises:
            ValueError: the task belongs to no net.
        """
        if self._method is None:
            raise ValueError("This task belongs to no net yet. Take model.task of a model of create_model.")
        return self._method

    def loss(self, targets: Tensors, outputs: Tensors, sample_weight: Any = None) -> Tensors:
        """The method's losses, averaged over the images.

        Args:
            targets: as `Data.batches` yields them; "crowd" may be missing.
            outputs: raw outputs of the net.
            sample_weight: [B], or None.

        Returns:
            {loss name: scalar}.
        """
        outputs = {name: ops.cast(values, "float32") for name, values in outputs.items()}
        values = self.method.losses(_with_a_slot(targets), outputs)
        if sample_weight is not None:
            weight = ops.cast(sample_weight, "float32")
            values = {name: value * weight for name, value in values.items()}
        return {name: ops.mean(value) for name, value in values.items()}

    def monitors(self, targets: Tensors, outputs: Tensors) -> Tensors:
        """Nothing: average precision needs all images, see `kerasvision.training.detection`."""
        return {}

    def decode(self, outputs: Tensors) -> Tensors:
        """Raw outputs to detections.

        Args:
            outputs: raw outputs of the net.

        Returns:
            {"boxes": [B, D, 4] x0, y0, x1, y1 as shares of the image's width and height, in 0..1, "scores": [B, D] in
            0..1, "classes": int32 [B, D], "count": int32 [B]} by falling score, zeros behind the count; further ones
            of the method, such as "masks".
        """
        outputs = {name: ops.cast(values, "float32") for name, values in outputs.items()}
        found = self._suppress(*self.method.candidates(outputs))
        details = self.method.details(outputs, found)
        height, width = self.image_size
        sides = np.array([width, height, width, height], np.float32)
        return {
            "boxes": ops.clip(found["boxes"] / sides, 0.0, 1.0),
            **{name: found[name] for name in ("scores", "classes", "count")},
            **details,
        }

    def _suppress(self, boxes: Any, scores: Any) -> Tensors:
        common: dict[str, Any] = {
            name: getattr(self, name) for name in ("least_score", "detections", "candidates", "by_class")
        }
        if self.suppression == "hard":
            return hard_nms(boxes, scores, iou=self.iou, **common)
        if self.suppression == "matrix":
            return matrix_nms(boxes, scores, sigma=self.sigma, **common)
        decay: Any = "gaussian" if self.suppression == "soft" else "linear"
        return soft_nms(boxes, scores, decay=decay, iou=self.iou, sigma=self.sigma, **common)

    def meter(self) -> DetectionMeter:
        """COCO's figures of boxes, and of masks where there are any."""
        return DetectionMeter(self.labels, self.image_size, self.detections)

    def get_config(self) -> dict[str, Any]:
        """The constructor's arguments."""
        names = ("suppression", "iou", "sigma", "least_score", "detections", "candidates", "by_class")
        return {
            "labels": list(self.labels),
            "image_size": list(self.image_size),
            **{name: getattr(self, name) for name in names},
        }


def _with_a_slot(targets: Tensors) -> Tensors:
    """Targets padded to one slot where a batch has none: what is best among no objects has no answer."""
    if targets["boxes"].shape[1] != 0:
        return targets
    missing = {
        name: ops.pad(values, [[0, 1 if axis == 1 else 0] for axis in range(len(values.shape))])
        for name, values in targets.items()
        if len(values.shape) > 1 and values.shape[1] == 0
    }
    return {**targets, **missing}
