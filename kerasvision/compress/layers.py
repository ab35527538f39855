"""tf_keras layers that compute what their namesakes do, from ops with exact int8 kernels."""

import math
from typing import Any

import numpy as np
import tensorflow as tf
import tf_keras
from tensorflow_model_optimization.python.core.keras.utils import smart_cond
from tensorflow_model_optimization.python.core.quantization.keras.quantize_wrapper import QuantizeWrapperV2

from kerasvision.compress.quantizers import RangeQuantizer

# Weights of one variable at most. The range of an int8 weight has to be a constant, and TensorFlow's converter folds no
# operation on more than 2^30 bits; with the 64-bit number of its cluster a weight has 96.
LARGEST_PART = 11_000_000


class QuantizedLayer(QuantizeWrapperV2):
    """A layer with quantized weights. TFMOT's wrapper would go on training the kernels of a frozen layer."""

    @property
    def trainable_weights(self) -> list[Any]:
        """None of a frozen layer's."""
        return super().trainable_weights if self.layer.trainable else []

    @property
    def non_trainable_weights(self) -> list[Any]:
        """The rest, all of a frozen layer's."""
        frozen = [] if self.layer.trainable else self._trainable_weights
        return self._dedup_weights([*super().non_trainable_weights, *frozen])


def affine(x: Any, factor: Any, addend: Any, uniform: bool = False) -> Any:
    """x * factor + addend for each channel, as a depthwise 1x1 convolution.

    An int8 multiplication has one scale for all factors; a convolution has one for each channel, so that every
    factor is exact, and its addend has 32 bits.

    Args:
        x: [B, ..., C].
        factor: [C].
        addend: [C].
        uniform: whether all factors and all addends are equal, so that one scale in the file serves all.

    Returns:
        Of x's shape.
    """
    channels = x.shape[-1]
    # A factor next to zero would need more than 32 bits for the addend.
    limit = tf.maximum(tf.maximum(tf.abs(factor), 1e-2 * tf.abs(addend)), 1e-6)
    if uniform:
        kernel = tf.quantization.fake_quant_with_min_max_vars(factor, -limit[0], limit[0], narrow_range=True)
    else:
        kernel = tf.quantization.fake_quant_with_min_max_vars_per_channel(
            tf.reshape(factor, [1, 1, channels]), -limit, limit, narrow_range=True
        )
    image = x if x.shape.rank == 4 else tf.reshape(x, [-1, math.prod(x.shape[1:-1]), 1, channels])
    y = tf.nn.depthwise_conv2d(image, tf.reshape(kernel, [1, 1, channels, 1]), [1, 1, 1, 1], "VALID")
    y = tf.nn.bias_add(y, addend)
    return y if x.shape.rank == 4 else tf.reshape(y, [-1, *x.shape[1:]])


class Affine(tf_keras.layers.Layer):
    """x * factor + addend with constants: Rescaling, Normalization, the inside of a hard sigmoid.

    Args:
        factor: one number, or one for each channel.
        addend: the same.
    """

    def __init__(self, factor: Any, addend: Any, name: str) -> None:
        super().__init__(name=name, trainable=False)
        self._values = {"factor": factor, "addend": addend}
        self._uniform = np.ndim(factor) == np.ndim(addend) == 0

    def build(self, input_shape: Any) -> None:
        """Variables, because a constant would be folded with its own quantization, and that be lost."""
        for name, value in self._values.items():
            # The converter takes one scale for all channels of an addend whose values are all equal.
            unequal = 1 + 1e-6 * np.arange(input_shape[-1], dtype=np.float32)
            start = tf_keras.initializers.Constant(np.float32(value) * (1 if self._uniform else unequal))
            setattr(self, name, self.add_weight(name, input_shape[-1:], initializer=start, trainable=False))
        super().build(input_shape)

    def call(self, x: Any) -> Any:
        """[B, ..., C] -> the same shape."""
        return affine(x, tf.convert_to_tensor(self.factor), tf.convert_to_tensor(self.addend), self._uniform)


class AffineNormalization(tf_keras.layers.BatchNormalization):
    """Batch normalization that no convolution carries; outside of training one multiplication and one addition."""

    def call(self, inputs: Any, training: Any = None) -> Any:
        """[B, ..., C] -> the same shape."""
        training = self._get_training_value(training)

        def inference() -> Any:
            factor = tf.math.rsqrt(self.moving_variance + self.epsilon)
            factor = factor * self.gamma if self.scale else factor
            addend = -self.moving_mean * factor
            return affine(inputs, factor, addend + self.beta if self.center else addend)

        def batch_statistics() -> Any:
            return super(AffineNormalization, self).call(inputs, training=True)

        return smart_cond(training, batch_statistics, inference)


class InFloat(tf_keras.layers.Layer):
    """In front of a layer that is to compute in float: a quantized tensor goes through float16, which holds its 8 bits.

    Else the converter would take int8 kernels, asked or not: those between two quantized tensors, those whose result
    has a range known beforehand (a sigmoid would get steps of 1/256), those that hand values on (a concatenation would
    cut all its tensors to the range of one).
    """

    def call(self, x: Any) -> Any:
        """Of the same shape. The gradient would be too small for float16: it passes by."""
        return tf.grad_pass_through(lambda values: tf.cast(tf.cast(values, tf.float16), tf.float32))(x)


class ChannelDense(tf_keras.layers.Dense):
    """Dense as a 1x1 convolution, whose int8 weights have a scale for each output channel.

    Its kernel is used when it was quantized, as [1, 1, C, units]: the converter loses the scales on a later reshape.
    A large kernel is several weights, "kernel_0" and so on, each of some output channels, because the converter can
    only quantize what it can fold: see `part_widths`.
    """

    def build(self, input_shape: Any) -> None:
        """The kernel's parts, and the bias."""
        channels = int(input_shape[-1])
        widths = part_widths(channels, self.units)
        self.parts = ("kernel",) if len(widths) == 1 else tuple(f"kernel_{i}" for i in range(len(widths)))
        for name, width in zip(self.parts, widths, strict=True):
            part = self.add_weight(
                name,
                (channels, width),
                initializer=self.kernel_initializer,
                regularizer=self.kernel_regularizer,
                constraint=self.kernel_constraint,
            )
            setattr(self, name, part)
        if self.use_bias:
            self.bias = self.add_weight(
                "bias",
                (self.units,),
                initializer=self.bias_initializer,
                regularizer=self.bias_regularizer,
                constraint=self.bias_constraint,
            )
        self.built = True

    def take_weights(self, kernel: np.ndarray, *bias: np.ndarray) -> None:
        """Use the weights of a Dense.

        Args:
            kernel: [C, units].
            *bias: [units], where there is one.
        """
        ends = np.cumsum([getattr(self, name).shape[-1] for name in self.parts])
        self.set_weights([*np.split(kernel, ends[:-1], axis=-1), *bias])

    def call(self, inputs: Any) -> Any:
        """[B, ..., C] -> [B, ..., units]."""
        inner = inputs.shape[1:-1]
        image = tf.reshape(inputs, [-1, math.prod(inner), 1, inputs.shape[-1]])
        kernels = [getattr(self, name) for name in self.parts]
        widths = [kernel.shape[-1] for kernel in kernels]
        biases = tf.split(self.bias, widths) if self.use_bias else [None] * len(kernels)
        results = [self._part(image, kernel, bias) for kernel, bias in zip(kernels, biases, strict=True)]
        y = results[0] if len(results) == 1 else tf.concat(results, axis=-1)
        return tf.reshape(y, [-1, *inner, self.units])

    def _part(self, image: Any, kernel: Any, bias: Any) -> Any:
        y = tf.nn.conv2d(image, tf.reshape(kernel, [1, 1, image.shape[-1], kernel.shape[-1]]), 1, "VALID")
        return self.activation(y if bias is None else tf.nn.bias_add(y, bias))


def part_widths(channels: int, units: int) -> list[int]:
    """Output channels of each part of a Dense layer's kernel: as few parts as fit `LARGEST_PART`, nearly equal.

    Args:
        channels: of its input.
        units: of its output.
    """
    parts = -(-units // max(LARGEST_PART // channels, 1))
    return [units // parts + (i < units % parts) for i in range(parts)]


class QuantizedPReLU(tf_keras.layers.PReLU):
    """max(x, 0) + alpha * min(x, 0) as max(x, 0) * (1 - alpha) + x * alpha, with alpha for each channel."""

    def build(self, input_shape: Any) -> None:
        """Alpha, and the ranges of the three terms."""
        super().build(input_shape)
        self.inner = {part: RangeQuantizer(f"{self.name}/{part}") for part in ("positive", "rest", "linear")}
        for name, quantizer in self.inner.items():
            quantizer.build(input_shape, name, self)

    def call(self, x: Any, training: Any = None) -> Any:
        """[B, ..., C] -> the same shape."""
        alpha = tf.reshape(self.alpha, [-1])
        zero = tf.zeros_like(alpha)
        positive = self._quantize("positive", tf.nn.relu(x), training)
        rest = self._quantize("rest", affine(positive, 1.0 - alpha, zero), training)
        return rest + self._quantize("linear", affine(x, alpha, zero), training)

    def _quantize(self, name: str, x: Any, training: Any) -> Any:
        quantizer = self.inner[name]
        return smart_cond(
            tf_keras.backend.learning_phase() if training is None else training,
            lambda: quantizer(x, True, quantizer.variables),
            lambda: quantizer(x, False, quantizer.variables),
        )
