"""Attention plug-ins for residual nets: SE, ECA, CBAM, and the multi-head self-attention of BoTNet.

Each is a function x -> x of the same shape, made of stock layers that have int8 kernels; only the learned positions
of the self-attention need a layer of their own.
"""

import math
from collections.abc import Callable
from typing import Any

import keras
from keras import layers, ops

from kerasvision.errors import closest


def attend(x: Any, attention: str | None, name: str) -> Any:
    """What a residual block does to its branch right before the add.

    Args:
        x: the branch, [B, H, W, C].
        attention: a name of `ATTENTION`; nothing happens for None, nor for "mhsa", which replaces a convolution
            inside of the blocks of the last stage.
        name: prefix of the layers' names.

    Returns:
        [B, H, W, C].

    Raises:
        ValueError: no such attention; the message gives the closest names.
    """
    if attention is None or attention == "mhsa":
        return x
    if attention not in ATTENTION:
        raise ValueError(f'There is no attention "{attention}".{closest(attention, [*ATTENTION, "mhsa"])}')
    return ATTENTION[attention](x, name)


def _bottleneck(channels: int, ratio: int, name: str) -> tuple[layers.Conv2D, layers.Conv2D]:
    reduce = layers.Conv2D(max(1, channels // ratio), 1, activation="relu", name=f"{name}_reduce")
    return reduce, layers.Conv2D(channels, 1, name=f"{name}_expand")


def squeeze_excite(x: Any, name: str, ratio: int = 16) -> Any:
    """Squeeze-and-excitation: each channel times a gate that sees all channels (Hu et al., 2018, arXiv:1709.01507).

    Args:
        x: [B, H, W, C].
        name: prefix of the layers' names.
        ratio: C / hidden channels.

    Returns:
        [B, H, W, C].
    """
    name = f"{name}_se"
    reduce, expand = _bottleneck(x.shape[-1], ratio, name)
    gate = layers.GlobalAveragePooling2D(keepdims=True, name=f"{name}_squeeze")(x)  # [B, 1, 1, C]
    gate = layers.Activation("sigmoid", name=f"{name}_gate")(expand(reduce(gate)))
    return layers.Multiply(name=f"{name}_scale")([x, gate])


def eca_kernel_size(channels: int, gamma: float = 2, b: float = 1) -> int:
    """Channels that one ECA gate sees: |log2(C) / gamma + b / gamma|, cut to an integer, then up to an odd one."""
    size = int(abs((math.log2(channels) + b) / gamma))
    return size if size % 2 else size + 1


def efficient_channel(x: Any, name: str, gamma: float = 2, b: float = 1) -> Any:
    """ECA: each channel times a gate that sees its neighbour channels (Wang et al., 2020, arXiv:1910.03151).

    Args:
        x: [B, H, W, C].
        name: prefix of the layers' names.
        gamma: of `eca_kernel_size`.
        b: of `eca_kernel_size`.

    Returns:
        [B, H, W, C].
    """
    name = f"{name}_eca"
    channels = x.shape[-1]
    gate = layers.GlobalAveragePooling2D(name=f"{name}_squeeze")(x)  # [B, C]
    # A convolution along the channels; in two dimensions, because Conv1D has no int8 scheme.
    gate = layers.Reshape((1, channels, 1), name=f"{name}_line")(gate)
    size = eca_kernel_size(channels, gamma, b)
    gate = layers.Conv2D(1, (1, size), padding="same", use_bias=False, name=f"{name}_conv")(gate)
    gate = layers.Activation("sigmoid", name=f"{name}_gate")(gate)
    gate = layers.Reshape((1, 1, channels), name=f"{name}_channels")(gate)
    return layers.Multiply(name=f"{name}_scale")([x, gate])


def cbam(x: Any, name: str, ratio: int = 16, kernel_size: int = 7) -> Any:
    """CBAM: a gate for each channel, then a gate for each place (Woo et al., 2018, arXiv:1807.06521).

    Args:
        x: [B, H, W, C].
        name: prefix of the layers' names.
        ratio: C / hidden channels of the channel gate.
        kernel_size: of the spatial gate.

    Returns:
        [B, H, W, C].
    """
    return _spatial_gate(_channel_gate(x, f"{name}_cbam_channel", ratio), f"{name}_cbam_spatial", kernel_size)


def _channel_gate(x: Any, name: str, ratio: int) -> Any:
    reduce, expand = _bottleneck(x.shape[-1], ratio, name)
    average = layers.GlobalAveragePooling2D(keepdims=True, name=f"{name}_average")(x)  # [B, 1, 1, C]
    highest = layers.GlobalMaxPooling2D(keepdims=True, name=f"{name}_max")(x)
    gate = layers.Add(name=f"{name}_add")([expand(reduce(average)), expand(reduce(highest))])
    gate = layers.Activation("sigmoid", name=f"{name}_gate")(gate)
    return layers.Multiply(name=f"{name}_scale")([x, gate])


def _spatial_gate(x: Any, name: str, kernel_size: int) -> Any:
    height, width, channels = x.shape[1:]
    # Mean and max over channels, as poolings of the transposed map: stock layers with fast int8 kernels.
    planes = layers.Permute((3, 1, 2), name=f"{name}_planes")(x)  # [B, C, H, W]
    planes = layers.Reshape((channels, 1, height * width), name=f"{name}_flat")(planes)
    average = layers.GlobalAveragePooling2D(name=f"{name}_average")(planes)  # [B, H * W]
    highest = layers.GlobalMaxPooling2D(name=f"{name}_max")(planes)
    maps = [
        layers.Reshape((height, width, 1), name=f"{name}_average_map")(average),
        layers.Reshape((height, width, 1), name=f"{name}_max_map")(highest),
    ]
    gate = layers.Concatenate(name=f"{name}_concat")(maps)  # [B, H, W, 2]
    gate = layers.Conv2D(1, kernel_size, padding="same", use_bias=False, name=f"{name}_conv")(gate)
    # The authors' code normalizes here; the paper does not say so, but its number of parameters does.
    gate = layers.BatchNormalization(epsilon=1e-5, name=f"{name}_bn")(gate)
    gate = layers.Activation("sigmoid", name=f"{name}_gate")(gate)  # [B, H, W, 1]
    return layers.Multiply(name=f"{name}_scale")([x, gate])


@keras.saving.register_keras_serializable("kerasvision")
class PositionEncoding(layers.Layer):
    """Adds to each place of [B, H, W, C] what is learned for its row, [H, 1, C], and for its column, [1, W, C].

    Absolute positions, factorized, as BoTNet has them (Srinivas et al., 2021, arXiv:2101.11605).
    """

    # Few values for each image: in float in an integer file, which names the layer.
    quantization = "island"

    def build(self, input_shape: Any) -> None:
        """One vector for each row and each column."""
        _, height, width, channels = input_shape

        def weight(name: str, shape: tuple[int, int, int]) -> Any:
            # An initializer of its own for each: the same one would draw the same numbers again.
            initializer = keras.initializers.RandomNormal(stddev=channels**-0.5)
            return self.add_weight(name=name, shape=shape, initializer=initializer)

        self.row = weight("row", (height, 1, channels))
        self.column = weight("column", (1, width, channels))

    def call(self, x: Any) -> Any:
        """[B, H, W, C] -> [B, H, W, C]."""
        return x + ops.add(self.row, self.column)


def multi_head_self_attention(x: Any, name: str, heads: int = 4) -> Any:
    """Self-attention over all places of a feature map, as in BoTNet (Srinivas et al., 2021, arXiv:2101.11605).

    Each head is softmax(q (k + p)^T / sqrt(d)) v with d = C / heads (Vaswani et al., 2017, arXiv:1706.03762). The
    positions p are the absolute ones of the paper's comparison (its best are relative), and each head has its own.

    Args:
        x: [B, H, W, C].
        name: prefix of the layers' names.
        heads: a divisor of C.

    Returns:
        [B, H, W, C], the heads side by side.

    Raises:
        ValueError: C is not a multiple of `heads`.
    """
    channels = x.shape[-1]
    if channels % heads:
        raise ValueError(
            f'Attention "{name}": {channels} channels cannot be shared out to {heads} heads. '
            f"Give a number of heads that divides {channels}."
        )
    outputs = [_head(x, channels // heads, f"{name}_mhsa_head{index}") for index in range(heads)]
    return layers.Concatenate(name=f"{name}_mhsa_concat")(outputs) if heads > 1 else outputs[0]


def _head(x: Any, size: int, name: str) -> Any:
    height, width = x.shape[1:3]

    def project(role: str, variance: float = 1.0) -> Any:
        # Of fan_in, so that a head starts as it would in one wide convolution for all heads.
        initializer = keras.initializers.VarianceScaling(variance, "fan_in", "truncated_normal")
        return layers.Conv2D(size, 1, use_bias=False, kernel_initializer=initializer, name=f"{name}_{role}")(x)

    def flat(tensor: Any, role: str) -> Any:
        return layers.Reshape((height * width, size), name=f"{name}_{role}_flat")(tensor)

    # 1 / sqrt(d) stands in the query's first weights, as in T5 (Raffel et al., 2020, arXiv:1910.10683): no op for it.
    query = flat(project("query", 1 / size), "query")  # [B, H * W, d]
    key = flat(PositionEncoding(name=f"{name}_position")(project("key")), "key")
    value = flat(project("value"), "value")
    weights = layers.Dot(axes=2, name=f"{name}_scores")([query, key])  # [B, query places, key places]
    weights = layers.Softmax(name=f"{name}_weights")(weights)
    attended = layers.Dot(axes=(2, 1), name=f"{name}_sum")([weights, value])  # [B, H * W, d]
    return layers.Reshape((height, width, size), name=f"{name}_map")(attended)


ATTENTION: dict[str, Callable[[Any, str], Any]] = {"se": squeeze_excite, "eca": efficient_channel, "cbam": cbam}
