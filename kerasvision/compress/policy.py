"""What each layer's quantization is: TFMOT's 8-bit scheme, with ranges that settle fast and agree on all replicas."""

from collections.abc import Collection
from typing import Any

import tensorflow as tf
import tf_keras
from tensorflow_model_optimization.python.core.quantization.keras import quantize as tfmot
from tensorflow_model_optimization.python.core.quantization.keras import quantizers
from tensorflow_model_optimization.python.core.quantization.keras.default_8bit import (
    default_8bit_quantize_layout_transform as layout,
)
from tensorflow_model_optimization.python.core.quantization.keras.default_8bit import (
    default_8bit_quantize_registry as registry,
)
from tensorflow_model_optimization.python.core.quantization.keras.default_8bit import (
    default_8bit_quantize_scheme as scheme,
)
from tensorflow_model_optimization.python.core.quantization.keras.quantize_config import QuantizeConfig

from kerasvision.errors import QuantizationError, closest

_BATCH_NORM_CARRIERS = (tf_keras.layers.Conv2D, tf_keras.layers.DepthwiseConv2D, tf_keras.layers.Dense)


class RangeQuantizer(quantizers.MovingAverageQuantizer):
    """Moving average of a tensor's range that starts at the first batch's range.

    TFMOT's own starts at [-6, 6] and moves by a thousandth a step, so a short fine-tuning ends with ranges that
    were never seen. Here the n-th batch counts 9 / (n + 9) until the average is as slow as TFMOT's; under a
    distribution strategy every replica's range enters the average.
    """

    SLOWEST_DECAY = 0.999

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
        return {
            "min_var": scalar("min", -6.0, mean),
            "max_var": scalar("max", 6.0, mean),
            "batches": scalar("batches", 0.0, first),
        }

    def __call__(self, inputs: Any, training: bool, weights: dict[str, tf.Variable], **kwargs: Any) -> Any:
        """Fake-quantize; while training, move the range first."""
        low, high = weights["min_var"], weights["max_var"]
        if training:
            seen = weights["batches"]
            decay = tf.minimum(self.SLOWEST_DECAY, seen / (seen + 9.0))
            # Zero must be representable: padding and ReLU produce it.
            batch_low = tf.minimum(tf.reduce_min(inputs), 0.0)
            batch_high = tf.maximum(tf.reduce_max(inputs), 0.0)
            new_low = decay * low + (1.0 - decay) * batch_low
            new_high = decay * high + (1.0 - decay) * batch_high
            low.assign(new_low)
            high.assign(new_high)
            seen.assign_add(1.0)
            low, high = new_low, new_high
        return tf.quantization.fake_quant_with_min_max_vars(inputs, low, high, num_bits=self.num_bits)


def _with_fast_range(quantizer: Any) -> Any:
    if type(quantizer) is quantizers.MovingAverageQuantizer:
        return RangeQuantizer(**quantizer.get_config())
    return quantizer


class FastRanges(QuantizeConfig):
    """A QuantizeConfig as TFMOT made it, with RangeQuantizer in the place of its moving averages."""

    def __init__(self, config: QuantizeConfig) -> None:
        self.config = config

    def get_weights_and_quantizers(self, layer: Any) -> list[Any]:
        """Weights to quantize."""
        return self.config.get_weights_and_quantizers(layer)

    def get_activations_and_quantizers(self, layer: Any) -> list[Any]:
        """Activations to quantize."""
        return [(fn, _with_fast_range(q)) for fn, q in self.config.get_activations_and_quantizers(layer)]

    def set_quantize_weights(self, layer: Any, quantize_weights: list[Any]) -> None:
        """Put quantized weights into the layer."""
        self.config.set_quantize_weights(layer, quantize_weights)

    def set_quantize_activations(self, layer: Any, quantize_activations: list[Any]) -> None:
        """Put quantized activations into the layer."""
        self.config.set_quantize_activations(layer, quantize_activations)

    def get_output_quantizers(self, layer: Any) -> list[Any]:
        """Quantizers of the layer's outputs."""
        return [_with_fast_range(quantizer) for quantizer in self.config.get_output_quantizers(layer)]

    def get_config(self) -> dict[str, Any]:
        """The inner config's."""
        return self.config.get_config()


class IslandOutput(QuantizeConfig):
    """Leaves a layer's inside alone and quantizes what it hands on."""

    def get_weights_and_quantizers(self, layer: Any) -> list[Any]:
        """None."""
        return []

    def get_activations_and_quantizers(self, layer: Any) -> list[Any]:
        """None."""
        return []

    def set_quantize_weights(self, layer: Any, quantize_weights: list[Any]) -> None:
        """Nothing to put back."""

    def set_quantize_activations(self, layer: Any, quantize_activations: list[Any]) -> None:
        """Nothing to put back."""

    def get_output_quantizers(self, layer: Any) -> list[Any]:
        """One moving range, 8 bits, asymmetric."""
        return [RangeQuantizer(num_bits=8, per_axis=False, symmetric=False, narrow_range=False)]

    def get_config(self) -> dict[str, Any]:
        """Nothing to configure."""
        return {}


class _Registry(registry.Default8BitQuantizeRegistry):
    def get_quantize_config(self, layer: Any) -> QuantizeConfig:
        return FastRanges(super().get_quantize_config(layer))


class _Layout(layout.Default8BitQuantizeLayoutTransform):
    def apply(self, model: tf_keras.Model, layer_quantize_map: dict[str, Any]) -> Any:
        model, layer_quantize_map = super().apply(model, layer_quantize_map)
        for metadata in layer_quantize_map.values():
            if metadata.get("quantize_config") is not None:
                metadata["quantize_config"] = FastRanges(metadata["quantize_config"])
        return model, layer_quantize_map


class _Scheme(scheme.Default8BitQuantizeScheme):
    def get_layout_transformer(self) -> _Layout:
        return _Layout()

    def get_quantize_registry(self) -> _Registry:
        return _Registry()


def fake_quantize(twin: tf_keras.Model, islands: Collection[str] = ()) -> tf_keras.Model:
    """A copy of a tf_keras model with fake quantization on every weight and activation.

    Args:
        twin: functional model, float32.
        islands: names of layers that stay in float on purpose; what they hand on is quantized.

    Returns:
        A functional model whose layers are named "quant_" + their old name.

    Raises:
        QuantizationError: layers that TFMOT cannot quantize and nobody declared an island, or unknown islands.
    """
    names = [layer.name for layer in twin.layers]
    for name in islands:
        if name not in names:
            raise QuantizationError(f'There is no layer "{name}" to leave in float.{closest(name, names)}')
    known = _Registry()
    problems = [
        f"  {layer.name} ({type(layer).__name__})"
        for layer in twin.layers
        if layer.name not in islands and not _quantizable(layer, known)
    ]
    if problems:
        raise QuantizationError(
            "These layers cannot be quantized:\n" + "\n".join(problems) + "\nReplace them by layers that can, or keep "
            "them in float on purpose: quantize(model, islands=[...]); the report will name them."
        )

    def annotate(layer: tf_keras.layers.Layer) -> tf_keras.layers.Layer:
        if isinstance(layer, tf_keras.layers.InputLayer):
            return layer
        return tfmot.quantize_annotate_layer(layer, IslandOutput() if layer.name in islands else None)

    with tfmot.quantize_scope({"IslandOutput": IslandOutput}):
        annotated = tf_keras.models.clone_model(twin, clone_function=annotate)
        annotated.set_weights(twin.get_weights())
        return tfmot.quantize_apply(annotated, _Scheme())


def _quantizable(layer: tf_keras.layers.Layer, known: _Registry) -> bool:
    if isinstance(layer, tf_keras.layers.InputLayer):
        return True
    if isinstance(layer, tf_keras.layers.BatchNormalization):
        return _follows_its_convolution(layer)
    if isinstance(layer, tf_keras.layers.SeparableConv2D):
        return True
    return known.supports(layer)


def _follows_its_convolution(layer: tf_keras.layers.BatchNormalization) -> bool:
    """Whether TFMOT can treat the normalization as a part of the layer in front, which nobody else reads."""
    if len(layer.inbound_nodes) != 1:
        return False
    before = layer.inbound_nodes[0].inbound_layers
    return (
        isinstance(before, _BATCH_NORM_CARRIERS)
        and not isinstance(before, tf_keras.layers.Conv2DTranspose)
        and getattr(before.activation, "__name__", "linear") == "linear"
        and len(before.outbound_nodes) == 1
    )
