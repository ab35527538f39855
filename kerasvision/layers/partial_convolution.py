"""Partial convolution: sees only the pixels that are there (Liu et al., 2018, arXiv:1804.07723)."""

from typing import Any

import keras
from keras import layers, ops


@keras.saving.register_keras_serializable("kerasvision")
class PartialConv2D(layers.Layer):
    """Convolution of the observed pixels, times sum(1) / sum(M), the window's pixels for each one observed.

    Where a window sees nothing the result is 0. Pixels beyond the image's rim are not counted, neither as missing nor
    as observed, so that a mask of ones gives the plain convolution everywhere. What is observed after the layer is
    another tensor: a max pooling of the mask with the same window (see `partial_conv`).

    Args:
        filters: output channels.
        kernel_size: side of the window, or (height, width).
        strides: in both directions, or (down, right).
        padding: "same" or "valid".
        activation: name or function; none when None.
        use_bias: whether to add a bias where something was observed.
        kernel_initializer: of the kernel.
        **kwargs: of `keras.layers.Layer`.

    Raises:
        ValueError: in `build`: the mask does not fit the features.
    """

    # Its quotient has no int8 kernel: in float in an integer file, which names the layer.
    quantization = "island"

    def __init__(
        self,
        filters: int,
        kernel_size: int | tuple[int, int],
        strides: int | tuple[int, int] = 1,
        padding: str = "same",
        activation: Any = None,
        use_bias: bool = True,
        kernel_initializer: Any = "glorot_uniform",
        **kwargs: Any,
    ) -> None:
        super().__init__(**kwargs)
        if padding not in ("same", "valid"):
            raise ValueError(f'padding must be "same" or "valid", got {padding!r}.')
        self.filters = filters
        self.kernel_size = _pair(kernel_size)
        self.strides = _pair(strides)
        self.padding = padding
        self.activation = keras.activations.get(activation)
        self.use_bias = use_bias
        self.kernel_initializer = keras.initializers.get(kernel_initializer)

    def build(self, x_shape: Any, observed_shape: Any) -> None:
        """A kernel [h, w, C, filters] and a bias."""
        if tuple(observed_shape[1:]) not in ((*x_shape[1:3], 1), tuple(x_shape[1:])):
            raise ValueError(
                f"{self.name}: expected a mask [B, {x_shape[1]}, {x_shape[2]}, 1 or {x_shape[3]}] for "
                f"features of the shape {tuple(x_shape)}, got {tuple(observed_shape)}."
            )
        shape = (*self.kernel_size, x_shape[-1], self.filters)
        self.kernel = self.add_weight(name="kernel", shape=shape, initializer=self.kernel_initializer)
        if self.use_bias:
            self.bias = self.add_weight(name="bias", shape=(self.filters,), initializer="zeros")

    def call(self, x: Any, observed: Any) -> Any:
        """Features from what is observed.

        Args:
            x: [B, H, W, C]; what stands in pixels that are not observed does not count, as long as it is finite.
            observed: 1 where there is a value and 0 where it is missing, [B, H, W, 1] or [B, H, W, C].

        Returns:
            [B, H / strides, W / strides, filters].
        """
        observed = ops.cast(observed, x.dtype)
        window: dict[str, Any] = {"strides": self.strides, "padding": self.padding}
        sums = ops.conv(x * observed, self.kernel, data_format="channels_last", **window)
        # The observed share of each window inside of the image: pooling leaves padding out of its mean.
        mask = ops.mean(ops.cast(observed, "float32"), axis=-1, keepdims=True)
        share = ops.average_pool(mask, self.kernel_size, data_format="channels_last", **window)  # [B, H', W', 1]
        seen = share > 0
        scale = ops.where(seen, 1 / ops.where(seen, share, 1.0), 0.0)
        y = sums * ops.cast(scale, sums.dtype)
        if self.use_bias:
            y = y + self.bias * ops.cast(seen, y.dtype)
        return self.activation(y)

    def get_config(self) -> dict[str, Any]:
        """The constructor's arguments."""
        return {
            **super().get_config(),
            "filters": self.filters,
            "kernel_size": self.kernel_size,
            "strides": self.strides,
            "padding": self.padding,
            "activation": keras.activations.serialize(self.activation),
            "use_bias": self.use_bias,
            "kernel_initializer": keras.initializers.serialize(self.kernel_initializer),
        }


def partial_conv(
    x: Any,
    observed: Any,
    filters: int,
    kernel_size: int | tuple[int, int],
    strides: int | tuple[int, int] = 1,
    *,
    padding: str = "same",
    name: str,
    **arguments: Any,
) -> tuple[Any, Any]:
    """A partial convolution, and what is observed after it: every place whose window saw something.

    Args:
        x: [B, H, W, C].
        observed: 1 where there is a value and 0 where it is missing, [B, H, W, 1].
        filters: output channels.
        kernel_size: of the window.
        strides: of the window.
        padding: "same" or "valid".
        name: prefix of the layers' names.
        **arguments: of `PartialConv2D`.

    Returns:
        Features [B, H', W', filters] and the new mask [B, H', W', 1].
    """
    conv = PartialConv2D(filters, kernel_size, strides, padding, name=f"{name}_conv", **arguments)
    pool = layers.MaxPooling2D(_pair(kernel_size), _pair(strides), padding, name=f"{name}_mask")
    return conv(x, observed), pool(observed)


def _pair(size: int | tuple[int, int]) -> tuple[int, int]:
    return (size, size) if isinstance(size, int) else (size[0], size[1])
