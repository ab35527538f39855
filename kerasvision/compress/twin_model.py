"""A tf_keras model with the task of the Keras 3 model it came from."""

import json
from typing import Any

import keras
import tensorflow as tf
import tf_keras

from kerasvision.errors import QuantizationError
from kerasvision.task import TaskModel


def check_source(model: Any, function: str) -> None:
    """Make sure that a twin can be built.

    Args:
        model: what was given.
        function: the name of the function it was given to.

    Raises:
        TypeError: not a model of `create_model`.
        QuantizationError: Keras runs on another backend than TensorFlow.
    """
    if not isinstance(model, TaskModel):
        raise TypeError(f"{function} expects a model made by kerasvision.create_model, got {type(model).__name__}.")
    if keras.backend.backend() != "tensorflow":
        raise QuantizationError(
            f"{function} needs Keras's TensorFlow backend, not {keras.backend.backend()}. "
            f"Save the model, and call {function} in a process with KERAS_BACKEND=tensorflow."
        )


class TwinModel(tf_keras.Model):
    """Raw pixels -> a tf_keras net -> dict of raw outputs; trains with the task's own losses.

    What TFMOT does to a net, it does to `net`.

    Args:
        model: the Keras 3 model.
        net: normalized image -> dict of raw outputs.
        shift: what the net adds to its input.
    """

    def __init__(self, model: TaskModel, net: tf_keras.Model, shift: float = 0.0) -> None:
        super().__init__(name=model.name)
        self.task = model.task
        self.preprocessing = model.preprocessing
        self.image_size = model.image_size
        self.channels = model.channels
        self.fit_data: Any = None
        self.net = net
        self._shift = shift
        self._source_config = json.dumps(model.get_config())
        names = ("loss", *model.task.loss_names, *model.task.monitor_names)
        self._trackers = [tf_keras.metrics.Mean(name=name) for name in names]
        # AutoGraph would read the source of every layer's call.
        tf.autograph.experimental.do_not_convert(self.build)((None, *self.image_size, self.channels))

    @property
    def labels(self) -> tuple[str, ...]:
        """Class names, in the order of the outputs."""
        return self.task.labels

    @property
    def source_config(self) -> dict[str, Any]:
        """The `create_model` call of the model it came from."""
        return json.loads(self._source_config)

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
        return self.net(self.normalized(images), training=training)

    def normalized(self, images: Any) -> Any:
        """What the net sees: [B, H, W, C] -> the same shape."""
        scale = tf.constant(self.preprocessing.scale, tf.float32)
        offset = tf.constant(self.preprocessing.offset, tf.float32)
        return tf.cast(images, tf.float32) * scale + (offset - self._shift)

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
