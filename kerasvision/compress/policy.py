"""Each layer's quantization: a table from its class to what stands in its place in the fake-quantized net."""

import dataclasses
import math
from collections.abc import Callable, Collection
from typing import Any

import numpy as np
import tensorflow as tf
import tf_keras
from tensorflow_model_optimization.python.core.quantization.keras.quantize_config import QuantizeConfig
from tensorflow_model_optimization.python.core.quantization.keras.quantize_layer import QuantizeLayer
from tensorflow_model_optimization.python.core.quantization.keras.quantizers import Quantizer

from kerasvision.compress.biases import BiasRoom, quantizer_of
from kerasvision.compress.bridge import Adopted
from kerasvision.compress.graph import Node, read_graph, rebuild
from kerasvision.compress.layers import (
    Affine,
    AffineNormalization,
    ChannelDense,
    InFloat,
    QuantizedLayer,
    QuantizedPReLU,
)
from kerasvision.compress.plan import SAME_RANGE, SAME_VALUES, Plan, hands_values_on, is_clipping
from kerasvision.compress.quantizers import FixedQuantizer, RangeQuantizer, WeightQuantizer
from kerasvision.errors import QuantizationError
from kerasvision.folding import same_padding

layers: Any = tf_keras.layers

# The int8 kernels of these functions have a fixed output range (LiteRT 8-bit quantization specification).
UNIT = (0.0, 255 / 256)
SYMMETRIC = (-1.0, 127 / 128)
FIXED_RANGES = {"sigmoid": UNIT, "softmax": UNIT, "tanh": SYMMETRIC}
FREE_RANGES = {"relu", "relu6", "leaky_relu", "gelu"}
FUNCTIONS = {"linear", "silu", "hard_sigmoid", "hard_silu", *FIXED_RANGES, *FREE_RANGES}


class LayerConfig(QuantizeConfig):
    """What is quantized of one layer.

    Args:
        weights: attribute -> its quantizer.
        output: quantizer of the result, None where it goes on inside the same int8 op or keeps its values.
    """

    def __init__(self, weights: dict[str, Quantizer] | None = None, output: Quantizer | None = None) -> None:
        self.weights = weights or {}
        self.output = output

    def get_weights_and_quantizers(self, layer: Any) -> list[Any]:
        """Weights to quantize."""
        return [(getattr(layer, name), quantizer) for name, quantizer in self.weights.items()]

    def get_activations_and_quantizers(self, layer: Any) -> list[Any]:
        """None: functions inside layers are layers of their own here, or fused."""
        return []

    def set_quantize_weights(self, layer: Any, quantize_weights: list[Any]) -> None:
        """Put quantized weights into the layer."""
        for name, weight in zip(self.weights, quantize_weights, strict=True):
            setattr(layer, name, weight)

    def set_quantize_activations(self, layer: Any, quantize_activations: list[Any]) -> None:
        """Nothing to put back."""
        assert not quantize_activations

    def get_output_quantizers(self, layer: Any) -> list[Any]:
        """The result's."""
        return [] if self.output is None else [self.output]

    def get_config(self) -> dict[str, Any]:
        """Nothing: a quantized net is rebuilt from the model it came from."""
        return {}


@dataclasses.dataclass(frozen=True)
class FakeQuantized:
    """A net with fake quantization, and what is known about it.

    Args:
        net: functional model; the layer in the place of "conv" is named "quant_conv".
        quantizers: name of a tensor, such as "conv/kernel" or "relu/output" -> what quantizes it.
        units: name of a tensor -> the first of the layers that become one int8 op with it.
        islands: names of all layers in float.
    """

    net: tf_keras.Model
    quantizers: dict[str, Quantizer]
    units: dict[str, str]
    islands: tuple[str, ...]


# AutoGraph would read the source of every layer's call, which takes longer than all the rest.
@tf.autograph.experimental.do_not_convert
def fake_quantize(
    twin: tf_keras.Model,
    input_range: tuple[float, float],
    islands: Collection[str] = (),
    weight_quantizer: Callable[[str, int], WeightQuantizer] = WeightQuantizer,
) -> FakeQuantized:
    """A model with fake quantization on every weight and activation, on the twin's own layers.

    Args:
        twin: functional model, float32; not to be used any more.
        input_range: lowest and highest value of the input.
        islands: names of layers that stay in float on purpose; what they hand to others is quantized.
        weight_quantizer: makes the quantizer of a weight from its name, "LAYER/kernel", and its `channels`.

    Raises:
        QuantizationError: layers without int8 kernels that nobody declared islands, or unknown islands.
    """
    nodes = read_graph(twin)
    plan = Plan(nodes, islands)
    problems = {
        f"  {node.layer.name} ({kind_of(node.layer)})"
        for node in nodes
        if node.layer.name not in plan.islands and not is_quantizable(node)
    }
    if problems:
        raise QuantizationError(
            "These layers cannot be quantized:\n" + "\n".join(sorted(problems)) + "\nReplace them by layers that can, "
            "or keep them in float on purpose: quantize(model, islands=[...]); the report will name them."
        )
    builder = _Builder(plan, weight_quantizer)
    source = twin.inputs[0]
    image = tf_keras.Input(source.shape[1:], name="normalized")
    start = builder.quantize(nodes[0], image, limits=(min(input_range[0], 0.0), max(input_range[1], 0.0)), name="input")
    net = tf_keras.Model(image, rebuild(twin, nodes, start, builder.apply), name=twin.name)
    return FakeQuantized(net, builder.quantizers, builder.units, tuple(sorted(plan.islands)))


def kind_of(layer: tf_keras.layers.Layer) -> str:
    """Name of the layer's class in the model it came from."""
    return layer.kind if isinstance(layer, Adopted) else type(layer).__name__


def is_quantizable(node: Node) -> bool:
    """Whether the table knows what to do."""
    layer = node.layer
    if isinstance(layer, Adopted):
        bare = layer.kind in ("Add", "Subtract", "Multiply")
        if layer.constants:
            return bare and not (layer.kind == "Subtract" and 0 in layer.constants)  # x - 1, not 1 - x.
        return bare or layer.quantization in ("output", "values")
    if isinstance(layer, layers.PReLU):
        return set(range(1, len(node.shape) - 1)) <= {*(layer.shared_axes or ())}
    if isinstance(layer, layers.ReLU):
        return is_clipping(node) or (layer.max_value is None and not layer.threshold)
    known = (*_RULES, *SAME_VALUES, layers.InputLayer)
    return isinstance(layer, known) and node.activation in FUNCTIONS


class _Builder:
    """Calls the layer that stands in each layer's place; one for all calls of a shared layer."""

    def __init__(self, plan: Plan, weight_quantizer: Callable[[str, int], WeightQuantizer]) -> None:
        self.plan = plan
        self.weight_quantizer = weight_quantizer
        self.quantizers: dict[str, Quantizer] = {}
        self.units: dict[str, str] = {}
        self._made: dict[tuple[int, str], Any] = {}
        self._floats: dict[int, Any] = {}  # By the id of an island's node.

    def apply(self, node: Node, args: tuple[Any, ...], kwargs: dict[str, Any]) -> Any:
        """The node's result in the fake-quantized net."""
        layer = node.layer
        if layer.name in self.plan.islands:
            if is_quantizable(node) or (isinstance(layer, Adopted) and layer.quantization == "float"):
                args, kwargs = self.in_float(node, args, kwargs)
            self._floats[id(node)] = result = layer(*args, **kwargs)
            return result if self.plan.stays_float(node) else self.quantize(node, result)
        if isinstance(layer, layers.ZeroPadding2D) and _is_left_to_readers(node):
            return args[0]
        if hands_values_on(layer):
            result = layer(*args)
            # The converter would leave the other readers in float: it does not see the range behind one of these.
            shared = len(node.readers) > 1 and any(isinstance(reader.layer, SAME_RANGE) for reader in node.readers)
            return self.quantize(node, result) if shared or node.is_output else result
        if isinstance(layer, Adopted):
            return _adopted(self, node, args)
        if self.plan.is_cut(node):
            return self.quantize(node, args[0])
        for kind, rule in _RULES.items():
            if isinstance(layer, kind):
                return rule(self, node, args[0])
        raise AssertionError(f"{layer.name} was found quantizable, but no rule fits it.")

    def wrap(self, node: Node, layer: Any, x: Any, channels: dict[str, int], part: str = "output") -> Any:
        """Call a layer with quantized weights.

        Args:
            node: what it stands for.
            layer: named after it.
            x: its input.
            channels: attribute of a weight -> `channels` of its quantizer.
            part: "output" where the result is the node's own, else a name for this step before it.
        """

        def make() -> QuantizedLayer:
            weights: dict[str, Quantizer] = {}
            start = 0
            for name, count in channels.items():
                quantizer = self.weight_quantizer(f"{node.layer.name}/{name}", count)
                if count:
                    stop = start + math.prod(getattr(layer, name).shape[-count:])
                    quantizer.least = BiasRoom(layer, slice(start, stop))
                    start = stop
                weights[name] = self.note(node, quantizer)
            output = None if part == "output" and self.plan.is_fused(node) else self._range(node, part)
            return QuantizedLayer(layer, LayerConfig(weights, output))

        wrapped = self.once(node, layer.name, make)
        for quantizer in wrapped.quantize_config.weights.values():
            if quantizer.least is not None:
                quantizer.least.add(x, self.plan.normalization(node) if part == "output" else None)
        return wrapped(x)

    def quantize(
        self, node: Node, x: Any, part: str = "output", limits: tuple[float, float] | None = None, name: str = ""
    ) -> Any:
        """Quantize a result.

        Args:
            node: what it is the result of.
            x: the result.
            part: "output" where it is the node's own, else a name for this step before it.
            limits: of the range where it is fixed; the tensor's or its group's own when None.
            name: of the layer the result comes from; the node's when "".
        """
        name = f"quant_{name or node.layer.name}"

        def make() -> QuantizeLayer:
            if limits is None:
                return QuantizeLayer(self._range(node, part), name=name)
            return QuantizeLayer(self.note(node, FixedQuantizer(f"{node.layer.name}/{part}", *limits)), name=name)

        return self.once(node, name, make)(x)

    def function(self, node: Node, x: Any, function: str, part: str = "output", name: str = "") -> Any:
        """An activation function of a quantized tensor; arguments as for `quantize`."""
        name = name or node.layer.name
        if function in ("silu", "hard_silu"):
            gate = {"silu": "sigmoid", "hard_silu": "hard_sigmoid"}[function]
            factors = [x, self.function(node, x, gate, "gate", f"{name}_gate")]
            product = self.once(node, name, lambda: layers.Multiply(name=name))
            return self.quantize(node, product(factors), part, name=name)
        if function == "hard_sigmoid":
            # clip(x / 6 + 1 / 2, 0, 1): the 8 bits end where the function does, and cut off what lies outside.
            line = self.once(node, name, lambda: Affine(1 / 6, 0.5, name=name))
            return self.quantize(node, line(x), part, (0.0, 1.0), name)
        call = node.function if node.activation == function else tf_keras.activations.get(function)
        y = self.once(node, name, lambda: layers.Activation(call, name=name))(x)
        return self.quantize(node, y, part, FIXED_RANGES.get(function), name)

    def with_function(self, node: Node, x: Any, layer: Any, channels: dict[str, int]) -> Any:
        """A layer with weights, and the function it applies to its result."""
        if node.activation in ("linear", "relu", "relu6"):
            return self.wrap(node, layer, x, channels)
        layer.activation = tf_keras.activations.linear
        y = self.wrap(node, layer, x, channels, "linear")
        return self.function(node, y, node.activation, name=f"{node.layer.name}_{node.activation}")

    def in_float(self, node: Node, args: tuple[Any, ...], kwargs: dict[str, Any]) -> Any:
        """A call's arguments for a layer that computes in float: from another island its result before quantization."""
        givers = iter(enumerate(node.inputs))

        def convert(value: Any) -> Any:
            if not tf_keras.backend.is_keras_tensor(value):
                return value
            index, giver = next(givers)
            if id(giver) in self._floats:
                return self._floats[id(giver)]
            name = f"quant_{node.layer.name}_{index}"
            return self.once(node, name, lambda: InFloat(name=name))(value)

        return tf.nest.map_structure(convert, (args, kwargs))

    def once(self, node: Node, name: str, make: Callable[[], Any]) -> Any:
        """A layer in the place of the node's, by name, or "*" and a word; the same for all calls of a shared layer."""
        key = (id(node.layer), name)
        if key not in self._made:
            self._made[key] = make()
        return self._made[key]

    def _range(self, node: Node, part: str) -> Quantizer:
        group = self.plan.group(node) if part == "output" else None
        return self.note(node, RangeQuantizer(f"{node.layer.name}/{part}", group, cut=self.plan.is_cut(node)))

    def note(self, node: Node, quantizer: Any) -> Quantizer:
        """Remember a quantizer and the op it belongs to."""
        self.quantizers[quantizer.name] = quantizer
        self.units[quantizer.name] = self.plan.first_of_op(node).layer.name
        return quantizer


def _is_left_to_readers(node: Node) -> bool:
    """Whether zero padding is what padding="same" of all convolutions behind it would be; they are told so then."""
    convolutions = [reader.layer for reader in node.readers]
    if node.is_output or not all(_pads_like(node, layer) for layer in convolutions):
        return False
    for layer in convolutions:
        layer.padding = "same"
    return True


def _pads_like(padding: Node, layer: tf_keras.layers.Layer) -> bool:
    if not isinstance(layer, (layers.Conv2D, layers.DepthwiseConv2D)) or isinstance(layer, layers.Conv2DTranspose):
        return False
    if layer.padding != "valid" or len(layer.inbound_nodes) != 1 or layer.data_format != "channels_last":
        return False
    for axis in range(2):
        size = padding.inputs[0].shape[1 + axis] or 0
        same = same_padding(size, layer.kernel_size[axis], layer.strides[axis], layer.dilation_rate[axis])
        if tuple(padding.layer.padding[axis]) != same:
            return False
    return True


def _in_place_of(node: Node, kind: type[tf_keras.layers.Layer], **changes: Any) -> Any:
    """A layer of another class with the same config and weights as the node's."""
    layer = node.layer
    twin = kind.from_config({**layer.get_config(), **changes})
    twin.build(node.inputs[0].shape)
    # Ranges come after them.
    tf_keras.backend.batch_set_value(list(zip(twin.weights, layer.get_weights(), strict=False)))
    twin.trainable = layer.trainable
    return twin


def _convolution(builder: _Builder, node: Node, x: Any) -> Any:
    return builder.with_function(node, x, node.layer, {"kernel": 1})


def _depthwise(builder: _Builder, node: Node, x: Any) -> Any:
    return builder.with_function(node, x, node.layer, {"depthwise_kernel": 2})


def _transposed(builder: _Builder, node: Node, x: Any) -> Any:
    # TensorFlow's converter cannot carry a scale for each channel through the transposition of this kernel.
    return builder.with_function(node, x, node.layer, {"kernel": 0})


def _separable(builder: _Builder, node: Node, x: Any) -> Any:
    layer = node.layer
    common = {"strides": layer.strides, "padding": layer.padding, "dilation_rate": layer.dilation_rate}

    def depthwise() -> Any:
        made = layers.DepthwiseConv2D(
            layer.kernel_size,
            depth_multiplier=layer.depth_multiplier,
            use_bias=False,
            name=f"{layer.name}_depthwise",
            **common,
        )
        made.build(node.inputs[0].shape)
        made.set_weights([layer.depthwise_kernel.numpy()])
        made.trainable = layer.trainable
        return made

    def pointwise() -> Any:
        made = layers.Conv2D(layer.filters, 1, activation=node.function, use_bias=layer.use_bias, name=layer.name)
        made.build((*node.inputs[0].shape[:3], layer.pointwise_kernel.shape[2]))
        made.set_weights([weight.numpy() for weight in layer.weights[1:]])
        made.trainable = layer.trainable
        return made

    inner = builder.once(node, "*depthwise", depthwise)
    x = builder.wrap(node, inner, x, {"depthwise_kernel": 2}, "depthwise")
    return builder.with_function(node, x, builder.once(node, "*pointwise", pointwise), {"kernel": 1})


def _dense(builder: _Builder, node: Node, x: Any) -> Any:
    def make() -> ChannelDense:
        dense = ChannelDense.from_config({**node.layer.get_config(), "activation": node.function})
        dense.build(node.inputs[0].shape)
        dense.take_weights(*node.layer.get_weights())
        dense.trainable = node.layer.trainable
        return dense

    dense = builder.once(node, "*dense", make)
    return builder.with_function(node, x, dense, dict.fromkeys(dense.parts, 1))


def _batch_normalization(builder: _Builder, node: Node, x: Any) -> Any:
    layer = node.layer
    if builder.plan.is_carried(node):
        builder.once(node, "*scale", lambda: _keep_from_zero(layer))
    else:
        layer = builder.once(node, "*normalization", lambda: _in_place_of(node, AffineNormalization))
    return builder.wrap(node, layer, x, {})


def _keep_from_zero(layer: tf_keras.layers.BatchNormalization) -> bool:
    """A kernel of a scale next to zero has no int8 grid that its bias could be written on: the shift would be lost."""
    if layer.scale:
        gamma, beta = layer.gamma.numpy(), layer.beta.numpy() if layer.center else 0.0
        least = np.maximum(1e-6, 1e-4 * np.abs(beta))
        layer.gamma.assign(np.where(np.abs(gamma) < least, np.copysign(least, gamma), gamma))
    return True


def _activation(builder: _Builder, node: Node, x: Any) -> Any:
    return node.layer(x) if node.activation == "linear" else builder.function(node, x, node.activation)


def _softmax(builder: _Builder, node: Node, x: Any) -> Any:
    return builder.quantize(node, node.layer(x), limits=UNIT)


def _prelu(builder: _Builder, node: Node, x: Any) -> Any:
    layer = builder.once(node, "*prelu", lambda: _in_place_of(node, QuantizedPReLU))
    y = builder.wrap(node, layer, x, {})
    for quantizer in layer.inner.values():
        builder.note(node, quantizer)
    return y


def _affine(builder: _Builder, node: Node, x: Any, factor: Any, addend: Any) -> Any:
    layer = builder.once(node, "*affine", lambda: Affine(factor, addend, node.layer.name))
    return builder.quantize(node, layer(x))


def _rescaling(builder: _Builder, node: Node, x: Any) -> Any:
    return _affine(builder, node, x, node.layer.scale, node.layer.offset)


def _normalization(builder: _Builder, node: Node, x: Any) -> Any:
    factor = 1 / np.maximum(np.sqrt(np.ravel(node.layer.variance)), 1e-7)
    return _affine(builder, node, x, factor, -np.ravel(node.layer.mean) * factor)


def _adopted(builder: _Builder, node: Node, tensors: tuple[Any, ...]) -> Any:
    layer = node.layer
    if layer.constants:
        (number,) = layer.constants.values()
        factor, addend = {"Multiply": (number, 0.0), "Add": (1.0, number), "Subtract": (1.0, -number)}[layer.kind]
        return _affine(builder, node, tensors[0], factor, addend)
    return builder.quantize(node, layer(*tensors))


def _merge(builder: _Builder, node: Node, x: Any) -> Any:
    y = node.layer(x)
    return y if builder.plan.is_fused(node) else builder.quantize(node, y)


def _result(builder: _Builder, node: Node, x: Any) -> Any:
    before = quantizer_of(x) if isinstance(node.layer, SAME_RANGE) and len(node.inputs) == 1 else None
    # Behind a sigmoid it is the sigmoid's: else the file would rescale in between.
    limits = before.limits() if isinstance(before, FixedQuantizer) else None
    return builder.quantize(node, node.layer(x), limits=limits)


# The first class that fits decides, so subclasses stand before their bases.
_RULES: dict[type[tf_keras.layers.Layer], Callable[[_Builder, Node, Any], Any]] = {
    layers.SeparableConv2D: _separable,
    layers.Conv2DTranspose: _transposed,
    layers.DepthwiseConv2D: _depthwise,
    layers.Conv2D: _convolution,
    layers.Dense: _dense,
    layers.BatchNormalization: _batch_normalization,
    layers.Activation: _activation,
    layers.Softmax: _softmax,
    layers.PReLU: _prelu,
    layers.Rescaling: _rescaling,
    layers.Normalization: _normalization,
    layers.Add: _merge,
    layers.Subtract: _merge,
    layers.Multiply: _merge,
    **dict.fromkeys((layers.Dot, layers.ReLU, layers.LeakyReLU, layers.GlobalAveragePooling2D), _result),
    **dict.fromkeys(SAME_RANGE, _result),
}
