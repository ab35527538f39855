"""TensorBoard logs: figures, learning rate, graph, pictures of inputs and predictions, confusion matrix, ranges.

`keras.callbacks.TensorBoard` (3.15) writes no graph for a subclass of `keras.Model`, and no pictures.
"""

import math
from pathlib import Path
from typing import Any

import keras
import numpy as np
import tensorflow as tf

from kerasvision.class_maps import VOID
from kerasvision.classification.metrics import confusion_matrix
from kerasvision.detections import Found
from kerasvision.draw import draw
from kerasvision.preprocessing import Preprocessing
from kerasvision.report import detector_facts
from kerasvision.training.callbacks import averaged_weights, learning_rate
from kerasvision.training.epoch_evaluation import EpochEvaluation, task_name
from kerasvision.training.evaluation import predict_all, samples_at
from kerasvision.training.figures import (
    confusion_figure,
    error_figure,
    image_grid,
    picture_grid,
    prediction_grid,
    recall_figure,
)

PICTURES = 16
# Of tasks whose pictures are larger; those of predictions stand beside the truth.
COMPARED = ("detection", "segmentation")
SCENES, PAIRS, SIDE = 8, 4, 400


class TensorBoard(keras.callbacks.Callback):
    """Writes the folders train/ and validation/, in which a figure has the same tag, so that its curves share a chart.

    Steps are epochs, counted from 1. A classifier has pictures of predictions and, in the end, a confusion matrix; a
    detector has pictures of predictions beside the truth, precision-recall curves and errors by their kind; a segmenter
    has class maps beside the truth and a confusion matrix of pixels.

    Args:
        directory: of the logs.
        train_data: data set of (images, targets), for a picture of the inputs as the net gets them.
        validation_data: data set of (images, targets), for pictures of predictions and the confusion matrix.
        histograms: also write the distribution of every weight after each epoch.
        evaluation: what measures a detector or segmenter, and stands before this callback; without it there are neither
            curves nor errors nor confusions, and a detector's pictures show what has a score of at least 0.5.
    """

    def __init__(
        self,
        directory: str | Path,
        *,
        train_data: Any = None,
        validation_data: Any = None,
        histograms: bool = False,
        evaluation: EpochEvaluation | None = None,
    ) -> None:
        super().__init__()
        self.directory = Path(directory)
        self.train_data = train_data
        self.validation_data = validation_data
        self.histograms = histograms
        self.evaluation = evaluation
        self._writers: dict[str, Any] = {}
        self._samples: Any = None

    def on_train_begin(self, logs: Any = None) -> None:
        """Write the graph and a picture of the inputs."""
        names = ("train", "validation")
        self._writers = {name: tf.summary.create_file_writer(str(self.directory / name)) for name in names}
        with self._writers["train"].as_default():
            if shape := _input_shape(self.model):
                spec = tf.TensorSpec((None, *shape), tf.float32, name="image")
                forward = tf.function(lambda image: self.model(image, training=False))
                tf.summary.graph(forward.get_concrete_function(spec).graph)
            if self.train_data is not None:
                images, targets = next(iter(self.train_data))[:2]
                scenes = task_name(self.model) in COMPARED
                picture = self._scenes(images, targets) if scenes else image_grid(np.asarray(images[:PICTURES]))
                tf.summary.image("inputs", picture[None], step=0)
        if self.validation_data is not None and task_name(self.model):
            count = PAIRS if task_name(self.model) in COMPARED else PICTURES
            self._samples = _spread_samples(self.validation_data, count)

    def on_epoch_end(self, epoch: int, logs: Any = None) -> None:
        """Write figures and pictures."""
        step = epoch + 1
        for name, value in (logs or {}).items():
            writer = self._writers["validation" if name.startswith("val_") else "train"]
            with writer.as_default():
                tf.summary.scalar(name.removeprefix("val_"), float(value), step=step)
        with self._writers["train"].as_default():
            tf.summary.scalar("learning_rate", learning_rate(self.model), step=step)
            if hasattr(self.model, "ranges"):
                _write_ranges(self.model.ranges(), step)
            if self.histograms:
                for layer in self.model.layers:
                    for weight in layer.weights:
                        tf.summary.histogram(
                            f"{layer.name}/{weight.name}", keras.ops.convert_to_numpy(weight), step=step
                        )
        latest = None if self.evaluation is None else self.evaluation.latest
        facts = None
        if latest is not None and task_name(self.model) == "detection":
            facts = detector_facts(latest.boxes)
        if self._samples is not None:
            self._write_predictions(step, facts)
        if latest is not None and task_name(self.model) == "segmentation":
            with self._writers["validation"].as_default():
                picture = confusion_figure(latest.confusion, self.model.task.labels, "pixels")
                tf.summary.image("confusion_matrix", picture[None], step=step)
        if facts is not None:
            ap50 = (logs or {}).get("val_AP50", math.nan)
            with self._writers["validation"].as_default():
                for name, draw_figure in (("precision_recall", recall_figure), ("errors", error_figure)):
                    picture = draw_figure(facts, f"Epoch {step}, AP50 {100 * ap50:.1f}")
                    tf.summary.image(name, picture[None], step=step)
        for writer in self._writers.values():
            writer.flush()

    def on_train_end(self, logs: Any = None) -> None:
        """Write the confusion matrix of the weights that are kept."""
        if self.validation_data is not None and self._scores_classes() and not self.model.task.multi_label:
            targets, predictions = predict_all(self.model, self.validation_data)
            matrix = confusion_matrix(targets["label"], predictions["scores"])
            with self._writers["validation"].as_default():
                picture = confusion_figure(matrix, self.model.task.labels)
                tf.summary.image("confusion_matrix", picture[None], step=self.params["epochs"])
        for writer in self._writers.values():
            writer.close()

    def _scores_classes(self) -> bool:
        return task_name(self.model) == "classification"

    def _write_predictions(self, step: int, facts: dict[str, Any] | None) -> None:
        images, targets = self._samples
        task = self.model.task
        with averaged_weights(self.model):
            if self._scores_classes():
                scores = task.decode(self.model(images, training=False))["scores"]
                picture = prediction_grid(images, np.asarray(scores), [_truth(each) for each in targets], task.labels)
            else:
                # Where nothing is right, no score is better than another.
                point = None if facts is None else facts["working_point"]
                picture = self._pairs(images, targets, 0.5 if point is None else point["score"])
        with self._writers["validation"].as_default():
            tf.summary.image("predictions", picture[None], step=step)

    def _scenes(self, images: Any, targets: dict[str, Any]) -> np.ndarray:
        """Images with what is in them."""
        pictures = [
            self._draw_truth(image, {name: values[index] for name, values in targets.items()})
            for index, image in enumerate(np.asarray(images[:SCENES]))
        ]
        return picture_grid(pictures)

    def _pairs(self, images: np.ndarray, targets: list[dict[str, np.ndarray]], score: float) -> np.ndarray:
        """Images with what is in them, each beside the same image with what was found."""
        if self.evaluation is not None and self.evaluation.measured is None:
            outputs = self.evaluation.predict(images)
        else:
            outputs = self.model.task.decode(self.model(images, training=False))
        size, pictures, titles = images.shape[1:3], [], []
        for index, (image, wanted) in enumerate(zip(images, targets, strict=True)):
            single = {name: np.asarray(values)[index] for name, values in outputs.items()}
            pictures.append(self._draw_truth(image, wanted))
            if "segmentation" in wanted:
                found_classes = np.asarray(single["classes"])
                pictures.append(draw(image, labels=self.model.task.labels, segmentation=found_classes, side=SIDE))
                titles += ["true", f"found, {_right(wanted['segmentation'], found_classes)}"]
                continue
            # The image is fitted already: nothing is to be undone.
            found = Found.from_outputs(single, size, size, Preprocessing()).above(score)
            pictures.append(
                draw(
                    image,
                    labels=self.model.task.labels,
                    boxes=found.boxes,
                    classes=found.classes,
                    scores=found.scores,
                    masks=found.pasted(),
                    side=SIDE,
                )
            )
            titles.append("true" if wanted["valid"].any() else "true: nothing")
            titles.append(f"found{'' if len(found) else ' nothing'} from a score of {score:.2g}")
        return picture_grid(pictures, titles, group=2)

    def _draw_truth(self, image: np.ndarray, targets: dict[str, Any]) -> Any:
        labels = self.model.task.labels
        if "segmentation" in targets:
            return draw(image, labels=labels, segmentation=np.asarray(targets["segmentation"]), side=SIDE)
        there = np.asarray(targets["valid"])
        parts = ("boxes", "classes", "crowd", "masks")
        objects: dict[str, Any] = {name: np.asarray(targets[name])[there] for name in parts if name in targets}
        return draw(image, labels=labels, side=SIDE, **objects)


def _input_shape(model: Any) -> tuple[int, ...] | None:
    """Shape of the only input, without the batch axis."""
    if hasattr(model, "image_size"):
        return (*model.image_size, model.channels)
    inputs: Any = getattr(model, "inputs", None) or ()
    return tuple(inputs[0].shape[1:]) if len(inputs) == 1 else None


def _write_ranges(ranges: dict[str, tuple[float, float]], step: int) -> None:
    for name, (low, high) in ranges.items():
        tf.summary.scalar(f"ranges/{name}/min", low, step=step)
        tf.summary.scalar(f"ranges/{name}/max", high, step=step)
    rows = [f"| {name} | {low:.4g} | {high:.4g} |" for name, (low, high) in ranges.items()]
    tf.summary.text("ranges", "\n".join(["| tensor | min | max |", "|---|---|---|", *rows]), step=step)


def _spread_samples(dataset: Any, count: int) -> tuple[np.ndarray, list[dict[str, np.ndarray]]]:
    """Images and targets, spread evenly: validation images are often sorted by class."""
    total = sum(int(tf.shape(images)[0]) for images, _ in dataset)
    return samples_at(dataset, np.linspace(0, total - 1, min(count, total)).round().astype(int).tolist())


def _right(truth: np.ndarray, found: np.ndarray) -> str:
    """How many of the pixels that count are right, in words."""
    known = (truth != VOID) & (found != VOID)
    return f"{100 * np.mean(truth[known] == found[known]):.1f} % of the pixels right" if known.any() else "all void"


def _truth(targets: dict[str, np.ndarray]) -> list[int]:
    if "label" in targets:
        return [int(targets["label"])]
    return [int(k) for k in np.flatnonzero(targets["labels"])]
