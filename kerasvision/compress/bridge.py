"""Keras 3 functional model -> tf_keras functional model with the same layers, names and weights.

TFMOT knows tf_keras (Keras 2) alone. Both run the same TensorFlow ops, so a twin built layer by layer computes
the same numbers; `build_twin` proves it on random input before it hands the twin out.
"""

import inspect
from collections.abc import Callable
from typing import Any

import keras
import numpy as np
import tensorflow as tf
import tf_keras

from kerasvision.choices import choices_of, net_of_choices
from kerasvision.errors import BridgeError

# Largest difference between model and twin, as a share of the largest output.
TOLERANCE = 1e-5

_RENAMED = {"LeakyReLU": {"negative_slope": "alpha"}}


@tf.autograph.experimental.do_not_convert  # See `fake_quantize`.
def build_twin(model: keras.Model) -> tf_keras.Model:
    """The exact tf_keras twin of a functional model, always in float32.

    Nested models are flattened. Outputs keep their names, weights are copied, `trainable` too.

    Args:
        model: a functional Keras 3 model with one input. Stock layers get a twin of the same class; others, and bare
            operations on tensors, are adopted as they are.

    Returns:
        A tf_keras functional model.

    Raises:
        BridgeError: a layer cannot be rebuilt, or the twin's outputs differ.
    """
    twins: dict[int, tf_keras.layers.Layer] = {}

    def twin_of(operation: Any) -> Callable[..., Any]:
        if isinstance(operation, keras.Model):
            return lambda x, **_: operation._run_through_graph(x, operation_fn=twin_of)

        def call(*arguments: Any, **_: Any) -> Any:
            # Call arguments by name (training, mask) are left to tf_keras: the graph is the same in both modes.
            if id(operation) not in twins:
                twins[id(operation)] = _twin_layer(operation, arguments)
            tensors = [argument for argument in arguments if not isinstance(argument, (int, float))]
            return twins[id(operation)](*tensors)

        return call

    source = model.inputs[0]
    image = tf_keras.Input(source.shape[1:], name="normalized")
    outputs = model._run_through_graph([image], operation_fn=twin_of)
    twin = tf_keras.Model(image, outputs, name=model.name)
    for operation in model._flatten_layers(include_self=False, recursive=True):
        if id(operation) in twins and operation.weights:
            _copy_weights(operation, twins[id(operation)])
    _verify(model, twin, source.shape[1:])
    return twin


class Adopted(tf_keras.layers.Layer):
    """A Keras 3 operation without a twin in tf_keras, which runs as it is: both sides run TensorFlow.

    Args:
        operation: a layer, or a bare operation on tensors.
        arguments: of its call; numbers among them stay, tensors are replaced.
    """

    def __init__(self, operation: Any, arguments: tuple[Any, ...]) -> None:
        super().__init__(name=operation.name, trainable=getattr(operation, "trainable", True))
        # Behind a function, because tf_keras would track a layer's attributes.
        self._operation = lambda: operation
        self.constants = {i: value for i, value in enumerate(arguments) if isinstance(value, (int, float))}

    @property
    def kind(self) -> str:
        """Name of the operation's class."""
        return type(self._operation()).__name__

    @property
    def quantization(self) -> str | None:
        """What the operation says of itself.

        "output": its ops have int8 kernels. "values": it hands its input's values on. "island": it stays in float.
        "float": it stays in float whatever int8 kernels there are for parts of it, and hands its result out of the net
        in float, too.
        """
        return getattr(self._operation(), "quantization", None)

    @property
    def chooses(self) -> bool:
        """Whether the operation chooses among boxes, see `kerasvision.choices`."""
        return getattr(self._operation(), "chooses", False)

    def build(self, input_shape: Any) -> None:
        """A weight for each of the operation's."""
        self._twins = [
            self.add_weight(weight.name, tuple(weight.shape), trainable=weight.trainable, initializer="zeros")
            for weight in getattr(self._operation(), "weights", [])
        ]
        super().build(input_shape)

    def call(self, *tensors: Any, training: Any = None) -> Any:
        """The operation on these tensors, with this layer's weights."""
        operation, rest = self._operation(), iter(tensors)
        mode = {"training": training} if getattr(operation, "_call_has_training_arg", False) else {}
        arguments = [self.constants[i] if i in self.constants else next(rest) for i in range(self._count(tensors))]
        if not self._twins:
            return operation(*arguments, **mode)
        twin = {id(weight): twin for weight, twin in zip(operation.weights, self._twins, strict=True)}
        states = [
            [tf.convert_to_tensor(twin[id(weight)]) for weight in weights]
            for weights in (operation.trainable_variables, operation.non_trainable_variables)
        ]
        return operation.stateless_call(*states, *arguments, **mode)[0]

    def _count(self, tensors: tuple[Any, ...]) -> int:
        return len(tensors) + len(self.constants)


def _twin_layer(operation: Any, arguments: tuple[Any, ...]) -> tf_keras.layers.Layer:
    kind = type(operation).__name__
    stock = isinstance(operation, keras.layers.Layer) and type(operation).__module__.startswith("keras.")
    twin_class = getattr(tf_keras.layers, kind, None) if stock else None
    if twin_class is None:
        return Adopted(operation, arguments)
    try:
        return twin_class.from_config(_twin_config(operation, twin_class))
    except (TypeError, ValueError) as error:
        raise BridgeError(f'Layer "{operation.name}" ({kind}) cannot be rebuilt in tf_keras: {error}') from error


def _twin_config(layer: keras.layers.Layer, twin_class: type[tf_keras.layers.Layer]) -> dict[str, Any]:
    """A Keras 3 layer's config in the words of tf_keras."""
    config = {key: _legacy(value) for key, value in layer.get_config().items()}
    config["dtype"] = "float32"
    if callable(getattr(layer, "activation", None)):
        # The same name is not always the same function: tf_keras has another hard_sigmoid, and no hard_silu.
        config["activation"] = layer.activation
    for new, old in _RENAMED.get(type(layer).__name__, {}).items():
        config[old] = config.pop(new)
    known = inspect.signature(twin_class.__init__).parameters
    defaults = {name: p.default for name, p in inspect.signature(type(layer).__init__).parameters.items()}
    defaults |= {"data_format": "channels_last", "rms_scaling": False}  # Read from **kwargs or from a global setting.
    for key in list(config):
        # What Keras 3 has added may be left out as long as it stands at its default.
        if key not in known and key in defaults and config[key] == defaults[key]:
            del config[key]
        # Weights are copied, so fresh ones need not be drawn; Keras 3's own initializers are unknown over there.
        elif key.endswith("_initializer"):
            config[key] = "zeros"
    return config


def _legacy(value: Any) -> Any:
    """Nested objects without the module path, which names Keras 3."""
    if isinstance(value, dict) and "class_name" in value and "config" in value:
        return {"class_name": value["class_name"], "config": _legacy(value["config"])}
    if isinstance(value, dict):
        return {key: _legacy(item) for key, item in value.items()}
    return value


def _copy_weights(layer: keras.layers.Layer, twin: tf_keras.layers.Layer) -> None:
    values = layer.get_weights()
    if [value.shape for value in values] != [tuple(weight.shape) for weight in twin.weights]:
        raise BridgeError(
            f'Layer "{layer.name}" ({type(layer).__name__}) has weights of shapes {[value.shape for value in values]}, '
            f"its tf_keras twin {[tuple(weight.shape) for weight in twin.weights]}."
        )
    twin.set_weights(values)


def _verify(model: keras.Model, twin: tf_keras.Model, shape: tuple[int, ...]) -> None:
    if any(layer.compute_dtype != "float32" for layer in model.layers):
        return  # The twin is exact in float32; a mixed-precision model rounds on its own.
    image = tf.constant(np.random.default_rng(0).normal(size=(2, *shape)).astype("float32"))
    received = twin(image, training=False)
    expected = net_of_choices(model)([image, *(received[name] for name in choices_of(model))], training=False)
    for name in expected:
        wanted = np.asarray(expected[name])
        difference = float(np.max(np.abs(wanted - np.asarray(received[name]))))
        if not difference <= TOLERANCE * max(1.0, float(np.max(np.abs(wanted)))):
            raise BridgeError(
                f'The tf_keras twin of "{model.name}" computes another "{name}": the largest difference is '
                f"{difference:.3g}, allowed is {TOLERANCE:g} of the largest value."
            )
