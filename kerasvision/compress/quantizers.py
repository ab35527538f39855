"""How one tensor becomes a few bits: TFMOT quantizers for activations and weights, and a way to look inside.

Activations are asymmetric, per tensor; weights symmetric, per output channel (Jacob et al., 2018, arXiv:1712.05877).
"""

import contextlib
from collections.abc import Callable, Collection, Iterator
from typing import Any

import numpy as np
import tensorflow as tf
import tf_keras
from tensorflow_model_optimization.python.core.quantization.keras import quantizers

from kerasvision.compress.formats import grid
from kerasvision.compress.preserve import cluster_index, shared

# (tensor's name, float values, quantized values) -> values to go on with.
Observer = Callable[[str, Any, Any], Any]

_observers: list[Observer] = []


@contextlib.contextmanager
def observed(observer: Observer) -> Iterator[None]:
    """Let `observer` see, and replace, every value that is quantized while a net is traced in this context.

    Args:
        observer: called with the tensor's name ("LAYER/output", "LAYER/kernel"), its values before and after.
    """
    _observers.append(observer)
    try:
        yield
    finally:
        _observers.pop()


def _seen(name: str, values: Any, quantized: Any) -> Any:
    return _observers[-1](name, values, quantized) if _observers else quantized


class RangeGroup:
    """Tensors that must share one range, because some op hands values from one to another without arithmetic.

    Concatenation, padding and pooling have int8 kernels for one scale alone: with several the converter would
    rescale, which costs time and a rounding.
    """

    def __init__(self) -> None:
        self.members: list[dict[str, tf.Variable]] = []

    def limits(self) -> tuple[Any, Any]:
        """Lowest and highest value of all members."""
        low = tf.reduce_min(tf.stack([member["min_var"] for member in self.members]))
        high = tf.reduce_max(tf.stack([member["max_var"] for member in self.members]))
        # The converter leaves an empty range in float.
        return low, tf.maximum(high, low + 1e-6)


class RangeQuantizer(quantizers.Quantizer):
    """Fake quantization of an activation to the range its tensor, or its group, had in the batches seen.

    TFMOT's moving average starts at [-6, 6] and moves by a thousandth a step, so a short fine-tuning ends with ranges
    that were never seen. Here the n-th batch counts 9 / (n + 9) until the average is as slow as TFMOT's; under a
    distribution strategy every replica's range enters the average.

    Args:
        name: of the tensor, "LAYER/output".
        group: tensors with the same range; this tensor alone when None.
        cut: whether what lies below 0 is cut off, which a ReLU need not do then.
    """

    SLOWEST_DECAY = 0.999

    def __init__(self, name: str, group: RangeGroup | None = None, cut: bool = False) -> None:
        self.name = name
        self.group = group or RangeGroup()
        self.cut = cut
        self.variables: dict[str, tf.Variable] = {}

    def build(self, tensor_shape: Any, name: str, layer: Any) -> dict[str, tf.Variable]:
        """The range's two variables and the number of batches seen."""

        def scalar(suffix: str, value: float, aggregation: tf.VariableAggregation) -> tf.Variable:
            return layer.add_weight(
                name=f"{name}_{suffix}",
                shape=(),
                initializer=tf_keras.initializers.Constant(value),
                trainable=False,
                aggregation=aggregation,
            )

        mean, first = tf.VariableAggregation.MEAN, tf.VariableAggregation.ONLY_FIRST_REPLICA
        self.variables = {
            "min_var": scalar("min", -6.0, mean),
            "max_var": scalar("max", 6.0, mean),
            "batches": scalar("batches", 0.0, first),
        }
        self.group.members.append(self.variables)
        return self.variables

    def __call__(self, inputs: Any, training: bool, weights: dict[str, tf.Variable], **kwargs: Any) -> Any:
        """Fake-quantize; while training, move the range first."""
        values = tf.nn.relu(inputs) if self.cut else inputs
        if training:
            low, high, seen = weights["min_var"], weights["max_var"], weights["batches"]
            decay = tf.minimum(self.SLOWEST_DECAY, seen / (seen + 9.0))
            # Zero must be representable: padding and ReLU produce it.
            low.assign(decay * low + (1.0 - decay) * tf.minimum(tf.reduce_min(values), 0.0))
            high.assign(decay * high + (1.0 - decay) * tf.maximum(tf.reduce_max(values), 0.0))
            seen.assign_add(1.0)
        low, high = self.group.limits()
        # Not of the values that are cut: the file would have an op for that.
        quantized = tf.quantization.fake_quant_with_min_max_vars(inputs, low, high)
        return _seen(self.name, values, quantized)

    def set_range(self, low: float, high: float) -> None:
        """Use a range that was measured elsewhere."""
        self.variables["min_var"].assign(min(low, 0.0))
        self.variables["max_var"].assign(max(high, 0.0))
        self.variables["batches"].assign(1.0)

    def limits(self) -> tuple[float, float]:
        """Lowest and highest value that the 8 bits span."""
        low, high = self.group.limits()
        return float(low), float(high)

    def get_config(self) -> dict[str, Any]:
        """The tensor's name, and whether it is cut."""
        return {"name": self.name, "cut": self.cut}


class FixedQuantizer(quantizers.Quantizer):
    """Fake quantization to a range known beforehand: that of sigmoid, softmax, tanh, or of the pixels.

    The int8 kernels of those functions know one range only (LiteRT 8-bit quantization specification).

    Args:
        name: of the tensor, "LAYER/output".
        low: lowest value, at most 0.
        high: highest value.
    """

    def __init__(self, name: str, low: float, high: float) -> None:
        self.name = name
        self.low = low
        self.high = high

    def build(self, tensor_shape: Any, name: str, layer: Any) -> dict[str, tf.Variable]:
        """No variables."""
        return {}

    def __call__(self, inputs: Any, training: bool, weights: dict[str, tf.Variable], **kwargs: Any) -> Any:
        """Fake-quantize. What lies outside of the range is cut off, by the 8 bits as by the function they stand for."""
        quantized = tf.quantization.fake_quant_with_min_max_args(inputs, self.low, self.high)
        return _seen(self.name, tf.clip_by_value(inputs, self.low, self.high), quantized)

    def limits(self) -> tuple[float, float]:
        """Lowest and highest value that the 8 bits span."""
        return self.low, self.high

    def get_config(self) -> dict[str, Any]:
        """The tensor's name and range."""
        return {"name": self.name, "low": self.low, "high": self.high}


class WeightQuantizer(quantizers.Quantizer):
    """Fake quantization of a weight to the range it has at this moment: symmetric.

    Args:
        name: of the weight, "LAYER/kernel".
        channels: number of last axes that count the output channels: 1 for [..., C], 2 for a depthwise kernel
            [h, w, C, multiplier], 0 for one range for the whole tensor.
        number_format: name of its grid, from `formats.FORMATS`.
        preserve: of "sparsity" and "clusters", what the weight has now and must keep.
    """

    def __init__(
        self, name: str, channels: int = 1, number_format: str = "int8", preserve: Collection[str] = ()
    ) -> None:
        self.name = name
        self.channels = channels
        self.number_format = number_format
        self.grid = grid(number_format)
        self.preserve = tuple(preserve)
        # Of `preserve`, what the weight had when it was built.
        self.preserved: set[str] = set()
        # Gives the least range of each channel, [C].
        self.least: Callable[[], Any] | None = None

    def build(self, tensor_shape: Any, name: str, layer: Any) -> dict[str, tf.Variable]:
        """Where zeros and clusters are; they are saved with the weights."""
        kernel = getattr(layer.layer, self.name.rsplit("/", 1)[1]).numpy()
        variables = {}

        def keep(kind: str, values: np.ndarray) -> None:
            initializer = tf_keras.initializers.Constant(values)
            variables[kind] = layer.add_weight(
                f"{name}_{kind}", values.shape, values.dtype, initializer, trainable=False
            )

        if "sparsity" in self.preserve:
            keep("sparsity", (kernel != 0).astype(np.float32))
            self.preserved |= set() if kernel.all() else {"sparsity"}
        if "clusters" in self.preserve:
            keep("clusters", cluster_index(kernel))
            self.preserved |= set() if variables["clusters"].numpy().min() < 0 else {"clusters"}
        return variables

    def __call__(self, inputs: Any, training: bool, weights: dict[str, tf.Variable], **kwargs: Any) -> Any:
        """Fake-quantize."""
        values = tf.convert_to_tensor(inputs)
        one_range: Any = False
        if "clusters" in weights:
            values = shared(values, weights["clusters"])
            # A cluster's value has one code in all channels only where all have one scale.
            one_range = tf.reduce_min(weights["clusters"]) >= 0
        if "sparsity" in weights:
            values = values * weights["sparsity"]
        if values.shape.rank == 2:  # Dense is computed as a convolution: see ChannelDense.
            values = tf.reshape(values, [1, 1, *values.shape])
        return _seen(self.name, values, self.quantize(values, one_range))

    def quantize(self, values: Any, one_range: Any = False) -> Any:
        """The values on the format's grid.

        Args:
            values: of the weight's shape.
            one_range: whether all channels have the range of the largest.
        """
        shape = values.shape
        if self.channels == 2:
            values = tf.reshape(values, [*shape[:-2], shape[-2] * shape[-1]])
        limit = tf.reduce_max(tf.abs(tf.stop_gradient(values)), axis=list(range(values.shape.rank - 1)))
        limit = tf.maximum(limit, 1e-9 if self.least is None else tf.maximum(self.least(), 1e-9))  # [C]
        if one_range is not False:
            limit = tf.where(one_range, tf.reduce_max(limit), limit)
        if self.channels == 0:
            limit = tf.reduce_max(limit)
        if self.number_format != "int8":
            values, limit = self.grid.round(values, limit), self.grid.int8_limit(limit)
        eight_bits = (
            tf.quantization.fake_quant_with_min_max_vars_per_channel
            if self.channels
            else tf.quantization.fake_quant_with_min_max_vars
        )
        quantized = eight_bits(values, -limit, limit, narrow_range=True)
        return tf.reshape(quantized, shape) if self.channels == 2 else quantized

    def get_config(self) -> dict[str, Any]:
        """The constructor's arguments."""
        return {
            "name": self.name,
            "channels": self.channels,
            "number_format": self.number_format,
            "preserve": self.preserve,
        }
