"""The convolutions of residual, inception and Darknet nets: no bias, and padded alike on all sides."""

from typing import Any

import keras
from keras import layers

LEAKY_SLOPE = 0.1  # Of Darknet.


def conv(x: Any, filters: int, kernel_size: int, stride: int, name: str) -> Any:
    """Convolution without bias, padded by half a kernel on every side, as Caffe, Darknet and PyTorch do.

    With a stride, Keras's own "same" would pad less at the top and the left, and foreign weights would see images
    moved by a pixel.

    Args:
        x: [B, H, W, C].
        filters: output channels.
        kernel_size: odd.
        stride: a divisor of H and W.
        name: prefix of the layers' names.

    Returns:
        [B, H/stride, W/stride, filters].
    """
    if stride > 1 and kernel_size > 1:
        x = layers.ZeroPadding2D(kernel_size // 2, name=f"{name}_pad")(x)
    # Suits ReLU (He et al., 2015, arXiv:1502.01852).
    initializer = keras.initializers.VarianceScaling(2.0, "fan_out", "untruncated_normal")
    return layers.Conv2D(
        filters,
        kernel_size,
        stride,
        padding="same" if stride == 1 else "valid",
        use_bias=False,
        kernel_initializer=initializer,
        name=f"{name}_conv",
    )(x)


def batch_norm(x: Any, name: str) -> Any:
    """Batch normalization (Ioffe & Szegedy, 2015, arXiv:1502.03167) with PyTorch's constants."""
    return layers.BatchNormalization(momentum=0.9, epsilon=1e-5, name=f"{name}_bn")(x)


def conv_bn(x: Any, filters: int, kernel_size: int, stride: int, name: str) -> Any:
    """`conv`, then `batch_norm`: [B, H, W, C] -> [B, H/stride, W/stride, filters]."""
    return batch_norm(conv(x, filters, kernel_size, stride, name), name)


def conv_bn_leaky(x: Any, filters: int, kernel_size: int, stride: int, name: str) -> Any:
    """`conv_bn`, then Darknet's leaky ReLU of slope 0.1: [B, H, W, C] -> [B, H/stride, W/stride, filters]."""
    return layers.LeakyReLU(LEAKY_SLOPE, name=f"{name}_leaky")(conv_bn(x, filters, kernel_size, stride, name))
