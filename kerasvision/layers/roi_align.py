"""Features of boxes: RoIAlign over the levels of a pyramid, and the RoI max pooling it replaced.

Both are made of gathers and products of static shapes, so that they run on every backend and in a .tflite file of
builtin ops. No gradient goes to the boxes.
"""

import itertools
import math
from collections.abc import Sequence
from typing import Any

import keras
import numpy as np
from keras import layers, ops

CANONICAL_STRIDE = 16  # 2**k0


def assign_levels(boxes: Any, strides: Sequence[int], canonical_size: float = 224.0) -> Any:
    """The level of a pyramid that a box takes its features from (Lin et al., 2017, arXiv:1612.03144, equation 1).

    floor(k0 + log2(sqrt(w * h) / 224)), cut to the levels there are, by comparisons, so that no rounding of a
    logarithm decides.

    Args:
        boxes: [..., 4] xyxy in pixels of the image.
        strides: of the levels from fine to coarse, each twice the one before.
        canonical_size: side in pixels of the smallest square box of the level of stride 16.

    Returns:
        int32 [...], index into `strides`.
    """
    area = ops.maximum(boxes[..., 2] - boxes[..., 0], 0) * ops.maximum(boxes[..., 3] - boxes[..., 1], 0)
    # Counted in float32: TFLite's converter fails on an index that is a single comparison.
    level = ops.zeros_like(area, dtype="float32")
    for stride in strides[1:]:
        smallest = (canonical_size * stride / CANONICAL_STRIDE) ** 2
        level = level + ops.cast(area >= smallest, "float32")
    return ops.cast(level, "int32")


@keras.saving.register_keras_serializable("kerasvision")
class RoIAlign(layers.Layer):
    """Features of boxes by bilinear sampling (He et al., 2017, arXiv:1703.06870), each box from one level.

    Each box has size x size bins, and each bin is the mean of ratio x ratio samples. A sample more than one place
    outside of the map counts as 0. Half a pixel is subtracted from the corners, as Detectron2 does with aligned=True:
    the value of a place stands at its centre.

    Args:
        strides: of the feature maps, from fine to coarse.
        size: bins along each side.
        ratio: samples along each side of a bin.
        canonical_size: of `assign_levels`; 224 suits images of about 800 pixels, smaller ones take less.
        **kwargs: of `keras.layers.Layer`.
    """

    # Where to sample needs more than 8 bits: in float in an integer file, which names the layer. All of it, because in
    # 8 bits the levels would get the range of one of them.
    quantization = "float"

    def __init__(
        self, strides: Sequence[int], size: int = 7, ratio: int = 2, canonical_size: float = 224.0, **kwargs: Any
    ) -> None:
        super().__init__(**kwargs)
        # Coordinates stay in float32 under a half precision policy.
        self.autocast = False
        self.strides = _check_strides(strides)
        self.size = size
        self.ratio = ratio
        self.canonical_size = canonical_size

    def call(self, features: Sequence[Any], boxes: Any) -> Any:
        """Features from where the boxes are.

        Args:
            features: of each stride, [B, H/s, W/s, C], H and W known.
            boxes: [B, N, 4] xyxy in pixels of the image; empty ones are sampled at a point.

        Returns:
            [B, N, size, size, C].
        """
        sizes = _map_sizes(features, self.strides)
        boxes = ops.stop_gradient(ops.cast(boxes, "float32"))
        level = assign_levels(boxes, self.strides, self.canonical_size)  # [B, N]
        stride = ops.cast(ops.take(ops.array(self.strides, "int32"), level), "float32")[..., None]
        edges = boxes / stride - 0.5  # [B, N, 4] in places of its level.
        height, width = (ops.take(ops.array(sides, "int32"), level) for sides in zip(*sizes, strict=True))  # [B, N]
        y, y_weight = self._samples(edges[..., 1], edges[..., 3], height)
        x, x_weight = self._samples(edges[..., 0], edges[..., 2], width)
        table, first = _flatten(features, sizes, level)  # [B * P, C], [B, N]
        place = first[..., None, None] + y[..., :, None] * width[..., None, None] + x[..., None, :]  # [B, N, 2S, 2S]
        count, channels, corners = boxes.shape[1], table.shape[-1], 2 * self.size * self.ratio
        values = ops.take(table, ops.reshape(place, (-1, corners, corners)), axis=0)  # [B * N, 2S, 2S, C]
        # Rows first, columns then: each bin is a product of matrices.
        y_weight = ops.cast(ops.reshape(y_weight, (-1, self.size, corners)), values.dtype)
        x_weight = ops.cast(ops.reshape(x_weight, (-1, 1, self.size, corners)), values.dtype)
        rows = ops.matmul(y_weight, ops.reshape(values, (-1, corners, corners * channels)))
        bins = ops.matmul(x_weight, ops.reshape(rows, (-1, self.size, corners, channels)))  # [B * N, size, size, C]
        return ops.reshape(bins, (-1, count, self.size, self.size, channels))

    def _samples(self, low: Any, high: Any, length: Any) -> tuple[Any, Any]:
        """The places beside each of the S = size * ratio samples along one axis, and their weights in each bin.

        Args:
            low: [B, N] edge of the box, in places.
            high: [B, N].
            length: int32 [B, N], of the axis.

        Returns:
            int32 [B, N, 2S], those before the samples and those after them, and float32 [B, N, size, 2S].
        """
        samples = self.size * self.ratio
        share = (ops.arange(samples, dtype="float32") + 0.5) / samples
        at = low[..., None] + share * (high - low)[..., None]  # [B, N, S]
        last = length[..., None] - 1
        end = ops.cast(last, "float32")
        inside = ops.cast((at >= -1) & (at <= end + 1), "float32")
        at = ops.minimum(ops.maximum(at, 0.0), end)
        # Cut as integers too: what is not a number would point anywhere.
        before = ops.minimum(ops.maximum(ops.cast(ops.floor(at), "int32"), 0), last)
        after = ops.minimum(before + 1, last)
        fraction = at - ops.cast(before, "float32")
        weight = ops.concatenate([(1 - fraction) * inside, fraction * inside], axis=-1)  # [B, N, 2S]
        mean = np.tile(np.repeat(np.eye(self.size, dtype="float32"), self.ratio, axis=1) / self.ratio, 2)  # [size, 2S]
        return ops.concatenate([before, after], axis=-1), weight[..., None, :] * mean

    def get_config(self) -> dict[str, Any]:
        """The constructor's arguments."""
        return {
            **super().get_config(),
            "strides": list(self.strides),
            "size": self.size,
            "ratio": self.ratio,
            "canonical_size": self.canonical_size,
        }


@keras.saving.register_keras_serializable("kerasvision")
class RoIPooling(layers.Layer):
    """The maximum in each of size x size bins of whole places (Girshick, 2015, arXiv:1504.08083).

    Boxes are cut at the image's border, and a bin beyond it is 0. Edges are rounded to places, both ends belong to the
    box, and bins overlap by a place where the size does not divide it. The maximum over a bin is that over four windows
    whose sides are powers of two: they cover it, and every shape stays static.

    Args:
        stride: of the feature map.
        size: bins along each side.
        **kwargs: of `keras.layers.Layer`.
    """

    # Where the bins are needs more than 8 bits: in float in an integer file, which names the layer.
    quantization = "island"

    def __init__(self, stride: int, size: int = 7, **kwargs: Any) -> None:
        super().__init__(**kwargs)
        self.autocast = False
        self.stride = stride
        self.size = size

    def call(self, features: Any, boxes: Any) -> Any:
        """Features from where the boxes are.

        Args:
            features: [B, H/stride, W/stride, C], H and W known.
            boxes: [B, N, 4] xyxy in pixels of the image.

        Returns:
            [B, N, size, size, C].
        """
        [(height, width)] = _map_sizes([features], [self.stride])
        boxes = ops.stop_gradient(ops.cast(boxes, "float32"))
        rows = self._bins(boxes[..., 1], boxes[..., 3], height)
        columns = self._bins(boxes[..., 0], boxes[..., 2], width)
        windows = [
            (1 << i, 1 << j) for i, j in itertools.product(range(self._powers(height)), range(self._powers(width)))
        ]
        maxima = [ops.max_pool(features, window, (1, 1), "valid", data_format="channels_last") for window in windows]
        sizes = [(height - h + 1, width - w + 1) for h, w in windows]
        y_power, x_power = rows[2][..., :, None], columns[2][..., None, :]
        chosen = y_power * self._powers(width) + x_power  # [B, N, size, size]
        table, first = _flatten(maxima, sizes, chosen)  # [B * P, C], [B, N, size, size]
        row_length = ops.take(ops.array([w for _, w in sizes], "int32"), chosen)
        pooled: Any = None
        for y, x in itertools.product(rows[:2], columns[:2]):
            place = first + y[..., :, None] * row_length + x[..., None, :]
            values = ops.take(table, ops.reshape(place, (-1, self.size, self.size)), axis=0)  # [B * N, size, size, C]
            pooled = values if pooled is None else ops.maximum(pooled, values)
        inside = ops.reshape(rows[3][..., :, None] & columns[3][..., None, :], (-1, self.size, self.size, 1))
        pooled = ops.where(inside, pooled, ops.zeros_like(pooled))
        return ops.reshape(pooled, (-1, boxes.shape[1], self.size, self.size, table.shape[-1]))

    def _powers(self, length: int) -> int:
        """How many powers of two are needed: the largest is at most the longest bin of a box that fills the axis."""
        longest = min(length, math.ceil((length + 1) / self.size) + 1)
        return int(math.log2(longest)) + 1

    def _bins(self, low: Any, high: Any, length: int) -> tuple[Any, Any, Any, Any]:
        """The two windows that cover each bin along one axis.

        Args:
            low: [B, N] edge of the box in pixels.
            high: [B, N].
            length: of the axis in places.

        Returns:
            [B, N, size] each: where the first window starts, where the second does, their size as a power of two, and
            whether the bin has a place at all.
        """

        def place(edge: Any) -> Any:
            rounded = ops.floor(ops.minimum(ops.maximum(edge / self.stride, 0.0), float(length)) + 0.5)
            return ops.minimum(ops.maximum(ops.cast(rounded, "int32"), 0), length)[..., None]

        first, last = place(low), place(high)
        extent = ops.maximum(last - first + 1, 1)  # [B, N, 1]
        index = ops.arange(self.size, dtype="int32")
        start = first + (index * extent) // self.size
        inside = start < length
        start = ops.minimum(start, length - 1)
        end = ops.minimum(first - (-(index + 1) * extent) // self.size, length)
        count = ops.maximum(end - start, 1)
        power = ops.zeros_like(count, dtype="float32")  # See `assign_levels`.
        for exponent in range(1, self._powers(length)):
            power = power + ops.cast(count >= (1 << exponent), "float32")
        power = ops.cast(power, "int32")
        window = ops.take(ops.array([1 << i for i in range(self._powers(length))], "int32"), power)
        return start, start + count - window, power, inside

    def get_config(self) -> dict[str, Any]:
        """The constructor's arguments."""
        return {**super().get_config(), "stride": self.stride, "size": self.size}


def _flatten(maps: Sequence[Any], sizes: Sequence[tuple[int, int]], chosen: Any) -> tuple[Any, Any]:
    """All places of all maps of all images in one table.

    Args:
        maps: [B, h, w, C] each.
        sizes: (h, w) of each.
        chosen: int32 [B, ...], indices of maps.

    Returns:
        The table [B * P, C], P places of an image, and the row where each chosen map starts, int32 [B, ...].
    """
    channels = maps[0].shape[-1]
    rows = [ops.reshape(x, (-1, h * w, channels)) for x, (h, w) in zip(maps, sizes, strict=True)]
    *starts, places = itertools.accumulate((h * w for h, w in sizes), initial=0)
    image = ops.arange(ops.shape(chosen)[0], dtype="int32")
    image = ops.reshape(image, (-1, *[1] * (len(chosen.shape) - 1)))
    table = ops.reshape(ops.concatenate(rows, axis=1), (-1, channels))
    return table, image * places + ops.take(ops.array(starts, "int32"), chosen)


def _map_sizes(features: Sequence[Any], strides: Sequence[int]) -> list[tuple[int, int]]:
    if len(features) != len(strides):
        raise ValueError(
            f"Expected {len(strides)} feature maps, one for each stride {list(strides)}; got {len(features)}."
        )
    sizes = [(x.shape[1], x.shape[2]) for x in features]
    if any(side is None for pair in sizes for side in pair):
        raise ValueError(f"Expected feature maps of known height and width, got {sizes}. Give the net an input_shape.")
    return sizes


def _check_strides(strides: Sequence[int]) -> tuple[int, ...]:
    if not strides or any(after != 2 * before for before, after in itertools.pairwise(strides)):
        raise ValueError(f"Expected strides from fine to coarse, each twice the one before, got {list(strides)}.")
    return tuple(int(stride) for stride in strides)
