"""A convolution that several levels of a pyramid may share, with a batch normalization for each of them."""

from collections.abc import Callable
from typing import Any

from keras import layers

from kerasvision.layers.convolution import batch_norm


def shared_convolution(
    filters: int,
    kernel_size: int,
    name: str,
    *,
    stride: int = 1,
    padding: str = "same",
    dilation: int = 1,
    separable: bool = False,
    normalized: bool = True,
    activation: str | None = "relu",
    kernel_initializer: Any = "he_normal",
    bias_initializer: Any = "zeros",
) -> Callable[..., Any]:
    """One convolution that several levels may share: one kernel, and a batch normalization for each level.

    A separable one is a depthwise convolution with its own batch normalization and ReLU6, then a 1x1 convolution.
    These are layers of their own, because no batch normalization folds into a SeparableConv2D, and without one the
    channels between the two would have ranges too different for one int8 scale.

    Args:
        filters: output channels.
        kernel_size: side of the window.
        name: prefix of the layers' names.
        stride: of the window.
        padding: "same" or "valid".
        dilation: pixels between two places that the window sees.
        separable: whether to split it into depthwise and 1x1.
        normalized: whether a batch normalization stands behind it; there is a bias where not.
        activation: a Keras name; None for none.
        kernel_initializer: of the kernel.
        bias_initializer: of the bias.

    Returns:
        `call(x, level="")`, [B, H, W, C] -> [B, H/stride, W/stride, filters]. The normalization of each level bears its
        name.
    """
    depthwise = None
    if separable:
        depthwise = layers.DepthwiseConv2D(
            kernel_size,
            stride,
            padding,
            dilation_rate=dilation,
            use_bias=False,
            depthwise_initializer="he_normal",
            name=f"{name}_depthwise",
        )
    convolve = layers.Conv2D(
        filters,
        1 if separable else kernel_size,
        1 if separable else stride,
        padding=padding,
        dilation_rate=1 if separable else dilation,
        use_bias=not normalized,
        kernel_initializer=kernel_initializer,
        bias_initializer=bias_initializer,
        name=f"{name}_conv",
    )

    def call(x: Any, level: str = "") -> Any:
        prefix = f"{name}_{level}" if level else name
        if depthwise is not None:
            x = batch_norm(depthwise(x), f"{prefix}_depthwise")
            x = layers.ReLU(6.0, name=f"{prefix}_depthwise_relu6")(x)
        x = convolve(x)
        if normalized:
            x = batch_norm(x, prefix)
        return x if activation is None else layers.Activation(activation, name=f"{prefix}_{activation}")(x)

    return call
