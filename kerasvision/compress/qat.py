"""Quantization-aware training: a fake-quantized twin that trains with the same task as the Keras 3 model."""

import json
from collections.abc import Collection
from typing import Any

import keras
import numpy as np
import tensorflow as tf
import tf_keras

from kerasvision.compress.bridge import build_twin
from kerasvision.compress.policy import fake_quantize
from kerasvision.errors import QuantizationError
from kerasvision.task import TaskModel


def quantize(model: TaskModel, islands: Collection[str] = ()) -> "QuantizedModel":
    """A model that trains as the int8 file will compute.

    Weights become int8, per channel and symmetric; activations int8, per tensor and asymmetric (Jacob et al.,
    2018, arXiv:1712.05877). The model itself is not changed. Fine-tune the result for an epoch or two at a low
    learning rate: its ranges start empty.

    Args:
        model: a trained model.
        islands: names of layers that stay in float on purpose.

    Raises:
        BridgeError: a layer has no twin in tf_keras.
        QuantizationError: a layer cannot be quantized and is not declared an island; all of them are listed.
    """
    if not isinstance(model, TaskModel):
        raise TypeError(f"quantize expects a model made by kerasvision.create_model, got {type(model).__name__}.")
    if keras.backend.backend() != "tensorflow":
        raise QuantizationError(
            f"Quantization-aware training needs Keras's TensorFlow backend, not {keras.backend.backend()}. "
            "Save the model, and quantize it in a process with KERAS_BACKEND=tensorflow."
        )
    return QuantizedModel(model, islands)


class QuantizedModel(tf_keras.Model):
    """Raw pixels -> fake-quantized net -> dict of raw outputs, with the task of the model it came from.

    Args:
        model: the Keras 3 model.
        islands: names of layers that stay in float on purpose.
    """

    def __init__(self, model: TaskModel, islands: Collection[str] = ()) -> None:
        super().__init__(name=f"{model.name}_int8")
        self.task = model.task
        self.preprocessing = model.preprocessing
        self.image_size = model.image_size
        self.channels = model.channels
        self.islands = tuple(islands)
        self.fit_data: Any = None
        self._model_config = json.dumps(model.get_config())
        self.net = fake_quantize(build_twin(model.net), islands)
        self._fix_input_range()
        names = ("loss", *model.task.loss_names, *model.task.monitor_names)
        self._trackers = [tf_keras.metrics.Mean(name=name) for name in names]
        self.build((None, *self.image_size, self.channels))

    @property
    def labels(self) -> tuple[str, ...]:
        """Class names, in the order of the outputs."""
        return self.task.labels

    @property
    def metrics(self) -> list[tf_keras.metrics.Metric]:
        """A running mean for the loss and for each named loss and monitor."""
        return self._trackers

    def call(self, images: Any, training: bool | None = None) -> dict[str, Any]:
        """Raw outputs.

        Args:
            images: pixels of 0..255, [B, H, W, C].
            training: whether ranges and batch statistics move.
        """
        scale = tf.constant(self.preprocessing.scale, tf.float32)
        offset = tf.constant(self.preprocessing.offset, tf.float32)
        return self.net(tf.cast(images, tf.float32) * scale + offset, training=training)

    def compile(self, optimizer: Any = "adam", *, learning_rate: Any = None, **kwargs: Any) -> None:
        """As `tf_keras.Model.compile`; the task brings the loss.

        Args:
            optimizer: a tf_keras optimizer or its name.
            learning_rate: a number or tf_keras schedule, when the optimizer is given by name.
            **kwargs: of `tf_keras.Model.compile`.
        """
        if isinstance(optimizer, str):
            config = {} if learning_rate is None else {"learning_rate": learning_rate}
            optimizer = tf_keras.optimizers.get({"class_name": optimizer, "config": config})
        super().compile(optimizer=optimizer, **kwargs)

    def fit(self, x: Any = None, y: Any = None, **kwargs: Any) -> Any:
        """Train as `tf_keras.Model.fit` does; remembers the data set, so that `export` can check files on it."""
        validation = kwargs.get("validation_data")
        self.fit_data = validation if validation is not None else (x if y is None else (x, y))
        return super().fit(x, y, **kwargs)

    def compute_loss(self, x: Any = None, y: Any = None, y_pred: Any = None, sample_weight: Any = None) -> Any:
        """The task's losses, the same function as in the Keras 3 model."""
        losses = self.task.loss(y, y_pred, sample_weight)
        total = tf.add_n([*losses.values(), *self.losses])
        shown = {"loss": total, **losses, **self.task.monitors(y, y_pred)}
        batch = tf.shape(next(iter(y_pred.values())))[0]
        for tracker in self._trackers:
            tracker.update_state(shown[tracker.name], sample_weight=batch)
        # tf_keras sums the gradients of the replicas.
        return total / tf.distribute.get_strategy().num_replicas_in_sync

    def compute_metrics(self, x: Any, y: Any, y_pred: Any, sample_weight: Any) -> dict[str, Any]:
        """Results of the running means, which `compute_loss` has moved."""
        return {tracker.name: tracker.result() for tracker in self._trackers}

    def get_config(self) -> dict[str, Any]:
        """The `create_model` call of the model it came from, and the islands."""
        return {"model": json.loads(self._model_config), "islands": list(self.islands)}

    @classmethod
    def from_config(cls, config: dict[str, Any], custom_objects: Any = None) -> "QuantizedModel":
        """Rebuild with fresh weights and ranges; `load_weights` brings back the trained ones."""
        return cls(TaskModel.from_config(config["model"]), config["islands"])

    def ranges(self) -> dict[str, tuple[float, float]]:
        """ "LAYER/output" and the like, or "input" -> (lowest, highest) value that the tensor's 8 bits span."""
        values = {weight.name.split(":")[0]: weight for weight in self.net.weights}
        found = {}
        for name, low in values.items():
            if name.endswith("_min") and low.shape.rank == 0:
                tensor = name.removesuffix("_min")
                shown = "input" if tensor.startswith("quantize_layer") else tensor.removeprefix("quant_")
                found[shown] = (float(low.numpy()), float(values[f"{tensor}_max"].numpy()))
        return found

    def output_steps(self) -> dict[str, float]:
        """Raw output -> what one step of its 8 bits is worth; an output of an island's inside has none."""
        ranges = self.ranges()
        steps = {}
        for name, tensor in self.net.output.items():
            layer = tensor._keras_history.layer.name.removeprefix("quant_")
            for kind in ("post_activation", "output"):
                if f"{layer}/{kind}" in ranges:
                    low, high = ranges[f"{layer}/{kind}"]
                    steps[name] = (high - low) / 255
        return steps

    def check_trained(self) -> None:
        """Make sure that every range was observed.

        Raises:
            QuantizationError: the model was never trained after `quantize`, so its ranges are made up.
        """
        idle = [w.name for w in self.net.weights if w.name.endswith("_batches:0") and float(w.numpy()) == 0]
        if idle:
            raise QuantizationError(
                f"The quantization ranges of {len(idle)} tensors were never observed (the first is {idle[0]}). "
                "Fine-tune first: quantized.compile('adam', learning_rate=1e-4); quantized.fit(train, epochs=1)."
            )

    def _fix_input_range(self) -> None:
        """Let the input's 8 bits be the pixels themselves, so that a uint8 tensor carries the preprocessing."""
        ends = [np.outer((0.0, 255.0), self.preprocessing.scale) + np.asarray(self.preprocessing.offset)]
        low, high = float(np.min(ends)), float(np.max(ends))
        layer = next(layer for layer in self.net.layers if type(layer).__name__ == "QuantizeLayer")
        layer.quantizer_vars["min_var"].assign(min(low, 0.0))
        layer.quantizer_vars["max_var"].assign(max(high, 0.0))
