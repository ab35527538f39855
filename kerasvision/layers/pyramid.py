"""Necks of detectors: what joins the feature maps of a backbone, top-down and bottom-up.

Every neck is a function {"P3": [B, H/8, W/8, C3], ...} -> {"P3": [B, H/8, W/8, filters], ...} of stock layers that
have int8 kernels. Pn has the stride 2**n; levels go from fine to coarse. Sizes need not be divisible by the strides.
"""

import itertools
from collections.abc import Mapping, Sequence
from typing import Any

from keras import layers

from kerasvision.errors import closest
from kerasvision.layers.convolution import conv_bn_leaky
from kerasvision.layers.shared_convolution import shared_convolution

LEVELS = ("P3", "P4", "P5")
EXTRA_LEVELS = ("c5", "p5", "pool")


def select_levels(features: Mapping[str, Any], levels: Sequence[str]) -> dict[str, Any]:
    """Some of a backbone's features.

    Args:
        features: level -> [B, H/s, W/s, C].
        levels: which of them, from fine to coarse.

    Raises:
        ValueError: the features lack one of the levels, or the levels do not follow one another.
    """
    numbers = [int(level[1:]) for level in levels if level in features]
    if len(numbers) < len(levels) or not levels:
        raise ValueError(
            f"Expected features of the levels {', '.join(levels)}; there are: {', '.join(features)}. Take a backbone "
            "that has them; where its arguments give the number of stages, ask for more."
        )
    if any(after != before + 1 for before, after in itertools.pairwise(numbers)):
        raise ValueError(f"Expected levels that follow one another, from fine to coarse, got {', '.join(levels)}.")
    return {level: features[level] for level in levels}


def with_extra_levels(features: Mapping[str, Any], pyramid: Mapping[str, Any]) -> dict[str, Any]:
    """A backbone's features and the levels a pyramid has above them: the taps of a net, which name its stages."""
    return {**features, **{level: x for level, x in pyramid.items() if level not in features}}


def upsample_like(x: Any, finer: Any, name: str, *, factor: int = 2, interpolation: str = "nearest") -> Any:
    """A multiple of the size, then cut, or padded with zeros, at the bottom and the right.

    Args:
        x: [B, h, w, C].
        finer: [B, H, W, _]; H is about factor * h, and W factor * w.
        name: prefix of the layers' names.
        factor: of the size.
        interpolation: "nearest", which repeats, or "bilinear".

    Returns:
        [B, H, W, C].
    """
    x = layers.UpSampling2D(factor, interpolation=interpolation, name=f"{name}_up")(x)
    return cut_like(x, finer, name)


def cut_like(x: Any, finer: Any, name: str) -> Any:
    """Cut, or padded with zeros, at the bottom and the right: [B, h, w, C] and [B, H, W, _] -> [B, H, W, C]."""
    missing = [wanted - size for wanted, size in zip(finer.shape[1:3], x.shape[1:3], strict=True) if wanted and size]
    if any(count < 0 for count in missing):
        x = layers.Cropping2D([(0, max(-count, 0)) for count in missing], name=f"{name}_cut")(x)
    if any(count > 0 for count in missing):
        x = layers.ZeroPadding2D([(0, max(count, 0)) for count in missing], name=f"{name}_pad")(x)
    return x


def feature_pyramid(
    features: Mapping[str, Any],
    filters: int = 256,
    extra_levels: str | None = None,
    *,
    levels: Sequence[str] = LEVELS,
    separable: bool = False,
    normalized: bool = False,
    name: str = "fpn",
) -> dict[str, Any]:
    """Feature pyramid: each level plus what the coarser ones know (Lin et al., 2017, arXiv:1612.03144).

    Args:
        features: of a backbone, {"P3": [B, H/8, W/8, C3], ...}.
        filters: output channels of every level.
        extra_levels: what stands above the coarsest level, say P5. "c5" and "p5": two convolutions of stride 2, the
            first on the backbone's P5 as in RetinaNet (Lin et al., 2017, arXiv:1708.02002), or on the pyramid's P5
            as in torchvision. "pool": every second place of P5, for the RPN of Faster R-CNN. None: nothing.
        levels: of the backbone; P2 to P5 for Faster R-CNN.
        separable: whether its 3x3 convolutions are depthwise, then 1x1.
        normalized: whether a batch normalization stands behind every convolution.
        name: prefix of the layers' names.

    Returns:
        The levels and the extra ones, each [B, H/s, W/s, filters].

    Raises:
        ValueError: a level is missing, or an unknown `extra_levels`.
    """
    if extra_levels is not None and extra_levels not in EXTRA_LEVELS:
        raise ValueError(f'There are no extra_levels "{extra_levels}".{closest(extra_levels, EXTRA_LEVELS)}')
    chosen = select_levels(features, levels)

    def convolve(x: Any, kernel_size: int, label: str, stride: int = 1) -> Any:
        block = shared_convolution(
            filters,
            kernel_size,
            f"{name}_{label}",
            stride=stride,
            separable=separable and kernel_size > 1,
            normalized=normalized,
            activation=None,
            kernel_initializer="glorot_uniform",
        )
        return block(x)

    merged: dict[str, Any] = {}
    above = None
    for level in reversed(levels):
        x = convolve(chosen[level], 1, f"{level}_lateral")
        if above is not None:
            x = layers.Add(name=f"{name}_{level}_add")([x, upsample_like(above, x, f"{name}_{level}")])
        merged[level] = above = x
    pyramid = {level: convolve(merged[level], 3, f"{level}_smooth") for level in levels}
    top = levels[-1]
    first, second = (f"P{int(top[1:]) + step}" for step in (1, 2))
    if extra_levels == "pool":
        pyramid[first] = layers.MaxPooling2D(1, 2, name=f"{name}_{first}_pool")(pyramid[top])
    elif extra_levels is not None:
        source = chosen[top] if extra_levels == "c5" else pyramid[top]
        pyramid[first] = convolve(source, 3, first, 2)
        activated = layers.ReLU(name=f"{name}_{first}_relu")(pyramid[first])
        pyramid[second] = convolve(activated, 3, second, 2)
    return pyramid


def fast_spatial_pyramid_pooling(x: Any, filters: int, name: str, *, activation: str = "relu") -> Any:
    """SPPF: maxima over windows of 5, 9 and 13 beside the map itself, by three poolings in a row.

    After the spatial pyramid pooling of He et al. (2014, arXiv:1406.4729), in the form of Ultralytics' YOLOv5.

    Args:
        x: [B, H, W, C].
        filters: output channels.
        name: prefix of the layers' names.
        activation: a Keras name.

    Returns:
        [B, H, W, filters].
    """
    x = shared_convolution(max(1, x.shape[-1] // 2), 1, f"{name}_reduce", activation=activation)(x)
    parts = [x]
    for index in range(3):
        parts.append(layers.MaxPooling2D(5, 1, padding="same", name=f"{name}_pool{index}")(parts[-1]))
    x = layers.Concatenate(name=f"{name}_concat")(parts)
    return shared_convolution(filters, 1, f"{name}_expand", activation=activation)(x)


def path_aggregation(
    features: Mapping[str, Any],
    filters: int = 96,
    *,
    depth: int = 1,
    kernel_size: int = 5,
    levels: Sequence[str] = LEVELS,
    activation: str = "relu",
    name: str = "pan",
) -> dict[str, Any]:
    """Path aggregation: top-down, then bottom-up again (Liu et al., 2018, arXiv:1803.01534), light enough for phones.

    All maps have one width, maps are concatenated and mixed by a 1x1 convolution, and every larger window is
    depthwise, as in PP-PicoDet (Yu et al., 2021, arXiv:2111.00902). The coarsest level starts with an SPPF.

    Args:
        features: of a backbone, {"P3": [B, H/8, W/8, C3], ...}.
        filters: output channels of every level.
        depth: separable convolutions behind each concatenation.
        kernel_size: of their windows.
        levels: of the backbone.
        activation: a Keras name.
        name: prefix of the layers' names.

    Returns:
        The levels, each [B, H/s, W/s, filters].

    Raises:
        ValueError: a level is missing.
    """
    chosen = select_levels(features, levels)

    def fuse(parts: list[Any], label: str) -> Any:
        x = layers.Concatenate(name=f"{label}_concat")(parts)
        x = shared_convolution(filters, 1, f"{label}_mix", activation=activation)(x)
        for index in range(depth):
            block = shared_convolution(filters, kernel_size, f"{label}_{index}", separable=True, activation=activation)
            x = block(x)
        return x

    top = levels[-1]
    x = fast_spatial_pyramid_pooling(chosen[top], filters, f"{name}_{top}_sppf", activation=activation)
    down = {top: x}
    for level in reversed(levels[:-1]):
        lateral = shared_convolution(filters, 1, f"{name}_{level}_lateral", activation=activation)(chosen[level])
        label = f"{name}_{level}_down"
        down[level] = x = fuse([upsample_like(x, lateral, label), lateral], label)
    pyramid = {levels[0]: x}
    for level in levels[1:]:
        label = f"{name}_{level}_up"
        block = shared_convolution(
            filters, kernel_size, f"{label}_stride", stride=2, separable=True, activation=activation
        )
        pyramid[level] = x = fuse([block(x), down[level]], label)
    return pyramid


def yolo_neck(
    features: Mapping[str, Any],
    filters: Sequence[int] = (128, 256, 512),
    *,
    levels: Sequence[str] = LEVELS,
    name: str = "neck",
) -> dict[str, Any]:
    """YOLOv3's neck: five convolutions, then the way down by concatenation (Redmon & Farhadi, 2018, arXiv:1804.02767).

    Args:
        features: of a backbone, {"P3": [B, H/8, W/8, C3], ...}.
        filters: output channels of each level; the 3x3 convolutions have twice as many.
        levels: of the backbone.
        name: prefix of the layers' names.

    Returns:
        The levels, each [B, H/s, W/s, its filters].

    Raises:
        ValueError: a level is missing, or another number of filters than levels.
    """
    chosen = select_levels(features, levels)
    if len(filters) != len(levels):
        raise ValueError(f"Expected a number of filters for each of {', '.join(levels)}, got {tuple(filters)}.")
    pyramid: dict[str, Any] = {}
    above = None
    for level, width in reversed(list(zip(levels, filters, strict=True))):
        x, label = chosen[level], f"{name}_{level}"
        if above is not None:
            above = upsample_like(conv_bn_leaky(above, width, 1, 1, f"{label}_route"), x, label)
            x = layers.Concatenate(name=f"{label}_concat")([above, x])
        for index, (count, size) in enumerate([(width, 1), (2 * width, 3), (width, 1), (2 * width, 3), (width, 1)]):
            x = conv_bn_leaky(x, count, size, 1, f"{label}_{index}")
        pyramid[level] = above = x
    return {level: pyramid[level] for level in levels}


def downsampled_levels(
    features: Mapping[str, Any],
    filters: Sequence[int],
    *,
    levels: Sequence[str] = ("P4", "P5"),
    unpadded: int = 0,
    last_kernel_size: int = 3,
    separable: bool = False,
    normalized: bool = False,
    name: str = "extra",
) -> dict[str, Any]:
    """SSD's further levels: a 1x1 convolution to half the channels, a 3x3 of stride 2 (Liu et al., 2016, 1512.02325).

    Args:
        features: {"P4": [B, H/16, W/16, C4], ...}.
        filters: output channels of each further level; (512, 256, 256, 256) in SSD300, (512, 256, 256, 128) in the
            SSD-Lite of MobileNetV2 (Sandler et al., 2018, arXiv:1801.04381).
        levels: of the features, which are handed on as they are.
        unpadded: how many of the last ones shrink by leaving out the padding and not by a stride; 2 in SSD300.
        last_kernel_size: of the last convolution; 4 in SSD512.
        separable: whether the 3x3 convolutions are depthwise, then 1x1.
        normalized: whether a batch normalization stands behind every convolution.
        name: prefix of the layers' names.

    Returns:
        The levels, then the further ones.

    Raises:
        ValueError: a level is missing.
    """
    pyramid = select_levels(features, levels)
    x, top = pyramid[levels[-1]], int(levels[-1][1:])
    activation = "relu6" if separable else "relu"
    for index, count in enumerate(filters):
        label = f"{name}_P{top + 1 + index}"
        strided = index < len(filters) - unpadded
        x = shared_convolution(count // 2, 1, f"{label}_reduce", normalized=normalized, activation=activation)(x)
        block = shared_convolution(
            count,
            last_kernel_size if index == len(filters) - 1 else 3,
            label,
            stride=2 if strided else 1,
            padding="same" if strided else "valid",
            separable=separable,
            normalized=normalized,
            activation=activation,
        )
        pyramid[f"P{top + 1 + index}"] = x = block(x)
    return pyramid
