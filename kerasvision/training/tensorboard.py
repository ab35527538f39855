"""TensorBoard logs: figures, learning rate, graph, pictures of inputs and predictions, confusion matrix, ranges.

`keras.callbacks.TensorBoard` (3.15) writes no graph for a subclass of `keras.Model`, and no pictures.
"""

from pathlib import Path
from typing import Any

import keras
import numpy as np
import tensorflow as tf

from kerasvision.classification.metrics import confusion_matrix
from kerasvision.training.callbacks import averaged_weights, learning_rate
from kerasvision.training.evaluation import predict_all
from kerasvision.training.figures import confusion_figure, image_grid, prediction_grid

PICTURES = 16


class TensorBoard(keras.callbacks.Callback):
    """Writes the folders train/ and validation/, in which a figure has the same tag, so that its curves share a chart.

    Steps are epochs, counted from 1. Pictures of predictions and the confusion matrix are written for tasks whose
    predictions are scores of classes.

    Args:
        directory: of the logs.
        train_data: data set of (images, targets), for a picture of the inputs as the net gets them.
        validation_data: data set of (images, targets), for pictures of predictions and the confusion matrix.
        histograms: also write the distribution of every weight after each epoch.
    """

    def __init__(
        self, directory: str | Path, *, train_data: Any = None, validation_data: Any = None, histograms: bool = False
    ) -> None:
        super().__init__()
        self.directory = Path(directory)
        self.train_data = train_data
        self.validation_data = validation_data
        self.histograms = histograms
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
                images = next(iter(self.train_data))[0][:PICTURES]
                tf.summary.image("inputs", image_grid(np.asarray(images))[None], step=0)
        if self.validation_data is not None and self._scores_classes():
            self._samples = _spread_samples(self.validation_data, PICTURES)

    def on_epoch_end(self, epoch: int, logs: Any = None) -> None:
        """Write figures and a picture of predictions."""
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
        if self._samples is not None:
            self._write_predictions(step)
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
        return getattr(getattr(self.model, "task", None), "name", None) == "classification"

    def _write_predictions(self, step: int) -> None:
        images, truths = self._samples
        with averaged_weights(self.model):
            scores = self.model.task.decode(self.model(images, training=False))["scores"]
        picture = prediction_grid(images, np.asarray(scores), truths, self.model.task.labels)
        with self._writers["validation"].as_default():
            tf.summary.image("predictions", picture[None], step=step)


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


def _spread_samples(dataset: Any, count: int) -> tuple[np.ndarray, list[list[int]]]:
    """Images and true labels, spread evenly: validation images are often sorted by class."""
    total = sum(int(tf.shape(images)[0]) for images, _ in dataset)
    wanted = set(np.linspace(0, total - 1, min(count, total)).round().astype(int).tolist())
    images, truths, start = [], [], 0
    for batch, targets in dataset:
        for index in sorted(wanted & set(range(start, start + len(batch)))):
            images.append(np.asarray(batch[index - start]))
            truths.append(_truth(targets, index - start))
        start += len(batch)
    return np.stack(images), truths


def _truth(targets: dict[str, Any], index: int) -> list[int]:
    if "label" in targets:
        return [int(targets["label"][index])]
    return [int(k) for k in np.flatnonzero(np.asarray(targets["labels"][index]))]
