"""Room for biases: an int8 op adds them in 32 bits, in steps of its input times its kernel."""

from typing import Any

import tensorflow as tf
import tf_keras

from kerasvision.compress.plan import hands_values_on
from kerasvision.compress.quantizers import RangeQuantizer

# Largest bias in its own steps. The sums of products have the rest of the 32 bits.
_LARGEST = 2**29


class BiasRoom:
    """Least range of each channel of a weight, so that the bias behind it fits.

    Training with weight decay leaves channels whose kernel is nothing, and whose bias is all they give. The steps of
    such a kernel would be so small that the bias does not fit into 32 bits: the sum would overflow, and the channel
    give noise. With larger steps the kernel is rounded to zero.

    Args:
        layer: whose weight it is; its bias counts.
        channels: of the layer's output, which this weight gives.
    """

    def __init__(self, layer: tf_keras.layers.Layer, channels: slice) -> None:
        self.layer = layer
        self.channels = channels
        self._calls: list[tuple[Any, tf_keras.layers.BatchNormalization | None]] = []

    def add(self, x: Any, normalization: tf_keras.layers.BatchNormalization | None) -> None:
        """Note a call of the layer.

        Args:
            x: its input, a tensor of the fake-quantized net.
            normalization: what becomes a part of the op, in this call.
        """
        quantizer = quantizer_of(x)
        if quantizer is not None:
            self._calls.append((quantizer, normalization))

    def __call__(self) -> Any:
        """[C], or 0 where the input of no call is quantized."""
        needed = [self._needed(*call) for call in self._calls]
        return tf.stop_gradient(tf.reduce_max(tf.stack(needed), axis=0)) if needed else 0.0

    def _needed(self, quantizer: Any, normalization: tf_keras.layers.BatchNormalization | None) -> Any:
        ranged = isinstance(quantizer, RangeQuantizer)
        low, high = quantizer.group.limits() if ranged else quantizer.limits()
        bias = self.layer.bias[self.channels] if self.layer.use_bias else tf.zeros(())
        if normalization is not None:
            factor = tf.math.rsqrt(normalization.moving_variance + normalization.epsilon)
            factor = factor * normalization.gamma if normalization.scale else factor
            shift = normalization.beta if normalization.center else 0.0
            bias = bias - normalization.moving_mean + tf.math.divide_no_nan(shift, factor)
        return tf.abs(bias) * (127 * 255 / _LARGEST) / (high - low)


def quantizer_of(tensor: Any) -> Any:
    """What has quantized a tensor of a fake-quantized net; None where nothing has."""
    layer, index, _ = tensor._keras_history
    while hands_values_on(layer):
        layer, index, _ = layer.inbound_nodes[index].keras_inputs[0]._keras_history
    return getattr(layer, "quantizer", None) or next(iter(getattr(layer, "_output_quantizers", [])), None)
