"""From a feature map to one vector an image: the poolings a classifier may choose from."""

import itertools
from collections.abc import Callable
from typing import Any

import keras
from keras import layers, ops


def average_pooling(x: Any, name: str) -> Any:
    """Mean over all places: [B, H, W, C] -> [B, C]."""
    return layers.GlobalAveragePooling2D(name=name)(x)


def max_pooling(x: Any, name: str) -> Any:
    """Maximum over all places: [B, H, W, C] -> [B, C]."""
    return layers.GlobalMaxPooling2D(name=name)(x)


@keras.saving.register_keras_serializable("kerasvision")
class MixedPooling(layers.Layer):
    """a * max + (1 - a) * average over all places, [B, H, W, C] -> [B, C] (Lee et al., 2016, arXiv:1509.08985).

    The one proportion a is learned, as the sigmoid of a weight, so that it stays between 0 and 1; it starts at a half.
    """

    # Few values for each image: in float in an integer file, which names the layer.
    quantization = "island"

    def build(self, input_shape: Any) -> None:
        """One scalar."""
        self.logit = self.add_weight(name="logit", shape=(), initializer="zeros")

    def call(self, x: Any) -> Any:
        """[B, H, W, C] -> [B, C]."""
        share = ops.sigmoid(self.logit)
        return share * ops.max(x, axis=(1, 2)) + (1 - share) * ops.mean(x, axis=(1, 2))


def mixed_pooling(x: Any, name: str) -> Any:
    """A learned mixture of maximum and mean, see `MixedPooling`: [B, H, W, C] -> [B, C]."""
    return MixedPooling(name=name)(x)


@keras.saving.register_keras_serializable("kerasvision")
class GeneralizedMeanPooling(layers.Layer):
    """mean(x^p)^(1/p) over all places, [B, H, W, C] -> [B, C] (Radenovic et al., 2018, arXiv:1711.02512).

    p = 1 is the average, a large p tends to the maximum; p is learned. Values below 1e-6 count as 1e-6. Computed in
    float32 whatever the policy.

    Args:
        p: what the exponent starts at.
    """

    # Few values for each image: in float in an integer file, which names the layer.
    quantization = "island"

    LOWEST = 1e-6

    def __init__(self, p: float = 3.0, **kwargs: Any) -> None:
        super().__init__(**kwargs)
        self.p = p

    def build(self, input_shape: Any) -> None:
        """One scalar."""
        start = keras.initializers.Constant(self.p)
        self.exponent = self.add_weight(name="p", shape=(), initializer=start, autocast=False)

    def call(self, x: Any) -> Any:
        """[B, H, W, C] -> [B, C]."""
        # As log-mean-exp of p * log(x): no power overflows, and an int8 file divides by nothing that may round to zero.
        logs = ops.log(ops.maximum(ops.cast(x, "float32"), self.LOWEST))
        highest = ops.max(logs, axis=(1, 2), keepdims=True)  # [B, 1, 1, C]
        mean = ops.mean(ops.exp((logs - highest) * self.exponent), axis=(1, 2))
        pooled = ops.exp(ops.log(mean) / self.exponent + ops.squeeze(highest, (1, 2)))
        return ops.cast(pooled, self.compute_dtype)

    def get_config(self) -> dict[str, Any]:
        """The constructor's arguments."""
        return {**super().get_config(), "p": self.p}


def generalized_mean_pooling(x: Any, name: str) -> Any:
    """GeM with a learned exponent, see `GeneralizedMeanPooling`: [B, H, W, C] -> [B, C]."""
    return GeneralizedMeanPooling(name=name)(x)


PYRAMID = (1, 2, 4)


def pyramid_bins(length: int, number: int) -> list[tuple[int, int]]:
    """(start, end) of each bin along one axis: floor(i * length / n) to ceil((i + 1) * length / n).

    Args:
        length: places along the axis.
        number: n, of bins; they overlap where n does not divide the length.
    """
    return [(i * length // number, -(-(i + 1) * length // number)) for i in range(number)]


def spatial_pyramid_pooling(x: Any, name: str) -> Any:
    """Maximum in each bin of a 1x1, a 2x2 and a 4x4 grid (He et al., 2014, arXiv:1406.4729).

    Args:
        x: [B, H, W, C], H and W known.
        name: of the last layer, prefix of the others.

    Returns:
        [B, 21 * C]; grid by grid, bins row by row, C values each.
    """
    height, width = x.shape[1:3]
    parts = []
    for number in PYRAMID:
        rows, columns = pyramid_bins(height, number), pyramid_bins(width, number)
        row_window, column_window = _window(rows), _window(columns)
        label = f"{name}_{number}x{number}"
        if row_window and column_window:
            sizes, strides = zip(row_window, column_window, strict=True)
            pooled = layers.MaxPooling2D(sizes, strides, name=label)(x)  # [B, n, n, C]
            parts.append(layers.Flatten(name=f"{label}_flat")(pooled))
            continue
        for (i, (top, bottom)), (j, (left, right)) in itertools.product(enumerate(rows), enumerate(columns)):
            margins = ((top, height - bottom), (left, width - right))
            cropped = layers.Cropping2D(margins, name=f"{label}_row{i}_column{j}_crop")(x)
            parts.append(layers.GlobalMaxPooling2D(name=f"{label}_row{i}_column{j}")(cropped))  # [B, C]
    return layers.Concatenate(name=name)(parts)


def _window(bins: list[tuple[int, int]]) -> tuple[int, int] | None:
    """(size, stride) of the one sliding window that gives these bins, where there is one."""
    sizes = {end - start for start, end in bins}
    strides = {after[0] - before[0] for before, after in itertools.pairwise(bins)} or {1}
    return (sizes.pop(), strides.pop()) if len(sizes) == len(strides) == 1 and strides != {0} else None


POOLING: dict[str, Callable[[Any, str], Any]] = {
    "avg": average_pooling,
    "max": max_pooling,
    "mixed": mixed_pooling,
    "gem": generalized_mean_pooling,
    "spp": spatial_pyramid_pooling,
}
