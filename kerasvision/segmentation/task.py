"""Targets, loss, decode and metrics of semantic segmentation."""

import copy
import functools
import inspect
from collections.abc import Callable, Mapping, Sequence
from typing import Any

import keras
from keras import ops

from kerasvision.class_maps import VOID
from kerasvision.errors import closest
from kerasvision.registry import register_task
from kerasvision.segmentation.losses import LOSSES
from kerasvision.segmentation.metrics import SegmentationMeter
from kerasvision.task import Task, Tensors

# Raw outputs whose names begin so learn as "logits" do, and predict nothing.
AUXILIARY = "auxiliary"
LOGITS = "logits"


@register_task
class SegmentationTask(Task):
    """A class for every pixel.

    Args:
        num_classes: number of classes K; may be left out where `labels` is given.
        labels: class names in the order of the outputs; "0".."K-1" when None.
        image_size: (H, W) in pixels of what the net sees; `create_model` fills it in.
        loss: a name of `kerasvision.segmentation.losses.LOSSES`; or several with their weights, {"crossentropy": 1,
            "dice": 0.5}; or with options of their own too, {"focal": {"weight": 0.5, "gamma": 3}}.
        class_weights: [K], or {label: weight} with 1 for those left out; for the losses that take them.
        label_smoothing: of "crossentropy".
        auxiliary_weight: of the losses of auxiliary heads.
        probabilities: whether `decode` gives the probabilities of the classes too.
        border: label of the pixels between objects, as `Data.with_class_maps` makes them: objects are measured too.
        min_area: pixels of what the net sees that an object has at least.
        neck: objects are split where they are narrow, see `find_objects`; in pixels of what the net sees.

    Raises:
        ValueError: fewer than two classes, contradictory counts, or settings of the losses that cannot be.
    """

    name = "segmentation"
    whole_image = True
    indices = ("classes",)

    def __init__(
        self,
        num_classes: int | None = None,
        labels: Sequence[str] | None = None,
        image_size: Sequence[int] = (0, 0),
        *,
        loss: str | Mapping[str, float | Mapping[str, Any]] = "crossentropy",
        class_weights: Sequence[float] | Mapping[str, float] | None = None,
        label_smoothing: float = 0.0,
        auxiliary_weight: float = 0.4,
        probabilities: bool = False,
        border: str | None = None,
        min_area: int = 1,
        neck: float | None = None,
    ) -> None:
        if labels is None and num_classes is None:
            raise ValueError("Give num_classes (an int) or labels (the class names).")
        if labels is None:
            labels = [str(index) for index in range(int(num_classes or 0))]
        if num_classes is not None and num_classes != len(labels):
            raise ValueError(f"num_classes is {num_classes} but {len(labels)} labels were given.")
        if not 2 <= len(labels) <= VOID:
            raise ValueError(f"Segmentation needs 2 to {VOID} classes, got {len(labels)}. Name the background as well.")
        if not 0 <= label_smoothing < 1:
            raise ValueError(f"label_smoothing must lie in [0, 1), got {label_smoothing}.")
        if auxiliary_weight < 0:
            raise ValueError(f"auxiliary_weight must not be negative, got {auxiliary_weight}.")
        if neck is not None and not neck > 0:
            raise ValueError(f"neck must be above 0, or None, got {neck}.")
        if border is not None and border not in labels[1:]:
            raise ValueError(f'border must be one of the labels behind the first, got "{border}"; they are {labels}.')
        self.labels = tuple(str(label) for label in labels)
        self.image_size = (int(image_size[0]), int(image_size[1]))
        self.class_weights = _weights_of(class_weights, self.labels)
        self.label_smoothing = label_smoothing
        self.auxiliary_weight = auxiliary_weight
        self.probabilities = probabilities
        self.border = border
        self.min_area = min_area
        self.neck = neck
        self._loss = loss if isinstance(loss, str) else {name: _plain(value) for name, value in loss.items()}
        common = {"class_weights": self.class_weights, "label_smoothing": label_smoothing or None}
        self._terms = _terms_of(loss, {key: value for key, value in common.items() if value is not None})
        self.loss_names = tuple(self._terms)
        self.monitor_names = ("pixel_accuracy", "batch_mIoU")
        self.primary_metric = "mIoU"
        objects = () if border is None else ("foreground_Dice", "object_F1", "object_AP")
        self.measured_names = ("mIoU", "Dice", *objects)
        self._margin = 0

    def bind(self, margin: int) -> None:
        """Take what the net that is being built leaves out: so many pixels at each edge of the image.

        A net of valid convolutions says nothing about them: no loss, and void among the classes.
        """
        self._margin = margin

    def with_probabilities(self) -> "SegmentationTask":
        """The task of the same net, whose `decode` gives probabilities too."""
        task = copy.copy(self)
        task.probabilities = True
        return task

    def loss(self, targets: Tensors, outputs: Tensors, sample_weight: Any = None) -> Tensors:
        """The losses on logits that are enlarged to the size of the targets, averaged over the images.

        Args:
            targets: {"segmentation": int [B, H, W]}, 255 for void; "pixel_weights", float [B, H, W], beside it are
                factors of "crossentropy" and "focal".
            outputs: {"logits": [B, h, w, K]}; those whose names begin with "auxiliary" have the same losses.
            sample_weight: [B], or None.

        Returns:
            {loss name: scalar}, times its weight.
        """
        classes, weights = self._inner(targets["segmentation"]), targets.get("pixel_weights")
        given = {} if weights is None else {"pixel_weights": self._inner(weights)}
        heads = [(1.0, outputs[LOGITS])]
        heads += [(self.auxiliary_weight, outputs[name]) for name in sorted(outputs) if name.startswith(AUXILIARY)]
        heads = [(weight, resized(logits, classes.shape[1:3])) for weight, logits in heads]
        values = {}
        for name, (factor, function) in self._terms.items():
            taken = given if "pixel_weights" in _options(LOSSES[name]) else {}
            value = sum(weight * factor * function(classes, logits, **taken) for weight, logits in heads)
            if sample_weight is not None:
                value = value * ops.cast(sample_weight, "float32")
            values[name] = ops.mean(value)
        return values

    def monitors(self, targets: Tensors, outputs: Tensors) -> Tensors:
        """Share of right pixels, and the mean IoU of the batch alone: that of a whole data set is another figure."""
        classes = ops.cast(self._inner(targets["segmentation"]), "int32")
        found = best_class(resized(outputs[LOGITS], classes.shape[1:3]))
        void, count = ops.equal(classes, VOID), len(self.labels)
        pairs = ops.where(void, 0, classes) * count + found
        known = 1 - ops.cast(void, "float32")
        sums = ops.segment_sum(ops.reshape(known, (-1,)), ops.reshape(pairs, (-1,)), num_segments=count * count)
        table = ops.reshape(sums, (count, count))
        hits = ops.diagonal(table)
        union = ops.sum(table, axis=0) + ops.sum(table, axis=1) - hits
        occurring = ops.sum(ops.cast(union > 0, "float32"))
        return {
            "pixel_accuracy": ops.sum(hits) / ops.maximum(ops.sum(table), 1.0),
            "batch_mIoU": ops.sum(hits / ops.maximum(union, 1.0)) / ops.maximum(occurring, 1.0),
        }

    def decode(self, outputs: Tensors) -> Tensors:
        """Raw outputs to a class map of the image's size.

        Args:
            outputs: {"logits": [B, h, w, K]}; others are not looked at.

        Returns:
            {"classes": int32 [B, H, W]}, and "probabilities" [B, H, W, K] where the task is to give them. Where the net
            says nothing, the class is 255 and the probabilities are 0.
        """
        margin = self._margin
        logits = resized(outputs[LOGITS], [side - 2 * margin for side in self.image_size])
        found = {"classes": best_class(logits)}
        if self.probabilities:
            found["probabilities"] = ops.softmax(logits, axis=-1)
        if not margin:
            return found
        edges = [[0, 0], [margin, margin], [margin, margin], [0, 0]]
        fills = {"classes": VOID, "probabilities": 0.0}
        return {
            name: ops.pad(values, edges[: len(values.shape)], constant_values=fills[name])
            for name, values in found.items()
        }

    def _inner(self, values: Any) -> Any:
        """The part of [B, H, W] that the net says something about."""
        margin = self._margin
        return values[:, margin:-margin, margin:-margin] if margin else values

    def meter(self) -> SegmentationMeter:
        """Overlaps, accuracies and outlines of the classes; with a border class, and "instances" among the targets,
        those of the objects too.
        """
        return SegmentationMeter(self.labels, border=self.border, min_area=self.min_area, neck=self.neck)

    def get_config(self) -> dict[str, Any]:
        """The constructor's arguments."""
        names = ("label_smoothing", "auxiliary_weight", "probabilities", "border", "min_area", "neck")
        return {
            "labels": list(self.labels),
            "image_size": list(self.image_size),
            "loss": self._loss,
            "class_weights": None if self.class_weights is None else list(self.class_weights),
            **{name: getattr(self, name) for name in names},
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


def _plain(value: Any) -> Any:
    return dict(value) if isinstance(value, Mapping) else value


def _options(function: Callable[..., Any]) -> list[str]:
    parameters = inspect.signature(function).parameters.values()
    return [each.name for each in parameters if each.kind is each.KEYWORD_ONLY]


def _weights_of(weights: Any, labels: Sequence[str]) -> tuple[float, ...] | None:
    if weights is None:
        return None
    if isinstance(weights, Mapping):
        for label in weights:
            if label not in labels:
                raise ValueError(f'class_weights names "{label}", which is no label.{closest(label, labels)}')
        weights = [weights.get(label, 1.0) for label in labels]
    values = tuple(float(weight) for weight in weights)
    if len(values) != len(labels) or any(not 0 <= value < float("inf") for value in values) or not any(values):
        raise ValueError(f"class_weights must be {len(labels)} numbers from 0, one for each class, got {weights}.")
    return values


def _terms_of(loss: Any, common: dict[str, Any]) -> dict[str, tuple[float, Callable[..., Any]]]:
    """Loss name -> its weight, and the function with its options."""
    given: dict[str, Any] = {loss: 1.0} if isinstance(loss, str) else dict(loss)
    if not given:
        raise ValueError(f"loss must name one loss or more of {', '.join(LOSSES)}, got none.")
    terms: dict[str, tuple[float, Callable[..., Any]]] = {}
    used: set[str] = set()
    for name, value in given.items():
        if name not in LOSSES:
            raise ValueError(f'There is no loss "{name}"; known are {", ".join(LOSSES)}.{closest(name, LOSSES)}')
        options = dict(value) if isinstance(value, Mapping) else {"weight": value}
        weight = float(options.pop("weight", 1.0))
        if not 0 <= weight < float("inf"):
            raise ValueError(f'The weight of the loss "{name}" must be a number from 0, got {weight}.')
        known = [option for option in _options(LOSSES[name]) if option not in ("pixel_weights", *common)]
        for option in options:
            if option not in known:
                raise ValueError(f'The loss "{name}" has no option "{option}".{closest(option, known)}')
        shared = {key: each for key, each in common.items() if key in _options(LOSSES[name])}
        used |= set(shared)
        terms[name] = weight, functools.partial(LOSSES[name], **options, **shared)
    if idle := [key for key in common if key not in used]:
        takers = [name for name, function in LOSSES.items() if idle[0] in _options(function)]
        raise ValueError(f"{idle[0]} is for the losses {', '.join(takers)}, got loss={loss!r}.")
    return terms
