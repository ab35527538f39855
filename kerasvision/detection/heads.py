"""Heads of detectors: from the maps of a neck to raw outputs, of stock layers that have int8 kernels.

Every head takes {"P3": [B, H/8, W/8, C], ...} from fine to coarse and returns a dict of tensors [B, A, values], where A
counts all boxes of all levels: level by level, row by row, column by column, then anchor by anchor of one place. What
stands for boxes and what stands for classes are separate tensors, so that in an int8 file each has its own scale.

"box_deltas" and the like are coded boxes, "class_logits" and "objectness_logits" are not yet squashed, and "box_bins"
are logits of distances. All are float32 whatever the policy.
"""

import math
from collections.abc import Mapping, Sequence
from typing import Any

import keras
from keras import layers

from kerasvision.layers.convolution import conv_bn_leaky
from kerasvision.layers.shared_convolution import shared_convolution

PRIOR = 0.01


def prior_bias(probability: float) -> keras.Initializer:
    """A bias whose sigmoid is this probability: -log((1 - p) / p) (Lin et al., 2017, arXiv:1708.02002).

    Without it, the many boxes with nothing inside would make the first steps diverge.

    Raises:
        ValueError: not between 0 and 1.
    """
    if not 0 < probability < 1:
        raise ValueError(f"prior must lie between 0 and 1, such as 0.01, got {probability}.")
    return keras.initializers.Constant(-math.log((1 - probability) / probability))


def join_levels(parts: Sequence[Any], values: int, name: str) -> Any:
    """The predictions of all levels in one tensor.

    Args:
        parts: of each level, [B, H, W, anchors * values].
        values: of one box.
        name: of the output.

    Returns:
        float32 [B, A, values].
    """
    rows = [layers.Reshape((-1, values), name=f"{name}_{index}")(part) for index, part in enumerate(parts)]
    # In float32, so that the loss and the decoding of a half precision net are exact.
    return layers.Concatenate(axis=1, name=name, dtype="float32")(rows)


def retinanet_head(
    features: Mapping[str, Any],
    classes: int,
    anchors: int = 9,
    filters: int = 256,
    depth: int = 4,
    *,
    separable: bool = False,
    normalized: bool = False,
    prior: float = PRIOR,
    name: str = "head",
) -> dict[str, Any]:
    """RetinaNet's head: two towers of 3x3 convolutions, shared by all levels (Lin et al., 2017, arXiv:1708.02002).

    Args:
        features: level -> [B, H/s, W/s, C], C the same everywhere.
        classes: K, without a background.
        anchors: of each place.
        filters: channels of the towers.
        depth: convolutions of each tower.
        separable: whether the convolutions are depthwise, then 1x1.
        normalized: whether a batch normalization stands behind every convolution of the towers; each level has its own
            (as in EfficientDet, Tan et al., 2020, arXiv:1911.09070).
        prior: probability of a class that a fresh net gives.
        name: prefix of the layers' names.

    Returns:
        "box_deltas" [B, A, 4] and "class_logits" [B, A, K].

    Raises:
        ValueError: levels of different channels, or a prior outside of 0..1.
    """
    _check_shared(features)
    outputs = {}
    for output, values, bias in (("box_deltas", 4, "zeros"), ("class_logits", classes, prior_bias(prior))):
        tower = [
            shared_convolution(
                filters,
                3,
                f"{name}_{output}_tower{index}",
                separable=separable,
                normalized=normalized,
                kernel_initializer=_small(),
            )
            for index in range(depth)
        ]
        last = shared_convolution(
            anchors * values,
            3,
            f"{name}_{output}",
            separable=separable,
            normalized=False,
            activation=None,
            kernel_initializer=_small(),
            bias_initializer=bias,
        )
        parts = []
        for level, x in features.items():
            for block in tower:
                x = block(x, level)
            parts.append(last(x, level))
        outputs[output] = join_levels(parts, values, output)
    return outputs


def rpn_head(
    features: Mapping[str, Any], anchors: int = 3, filters: int = 256, *, separable: bool = False, name: str = "rpn"
) -> dict[str, Any]:
    """Head of a region proposal network: one 3x3 convolution, then what is an object (Ren et al., 2015, 1506.01497).

    Args:
        features: level -> [B, H/s, W/s, C], C the same everywhere.
        anchors: of each place.
        filters: channels of the 3x3 convolution.
        separable: whether it is depthwise, then 1x1.
        name: prefix of the layers' and outputs' names.

    Returns:
        "rpn_deltas" [B, A, 4] and "rpn_logits" [B, A, 1].

    Raises:
        ValueError: levels of different channels.
    """
    _check_shared(features)
    tower = shared_convolution(
        filters, 3, f"{name}_tower", separable=separable, normalized=False, kernel_initializer=_small()
    )
    towers = [tower(x, level) for level, x in features.items()]
    outputs = {}
    for output, values in ((f"{name}_deltas", 4), (f"{name}_logits", 1)):
        last = shared_convolution(
            anchors * values, 1, output, normalized=False, activation=None, kernel_initializer=_small()
        )
        outputs[output] = join_levels([last(x) for x in towers], values, output)
    return outputs


def ssd_head(
    features: Mapping[str, Any],
    classes: int,
    anchors: Sequence[int] = (4, 6, 6, 6, 4, 4),
    *,
    separable: bool = False,
    prior: float | None = None,
    name: str = "head",
) -> dict[str, Any]:
    """SSD's predictors: two 3x3 convolutions on each level (Liu et al., 2016, arXiv:1512.02325).

    Args:
        features: level -> [B, H/s, W/s, C].
        classes: K, with the background where there is a softmax.
        anchors: of each place, for each level.
        separable: SSD-Lite: depthwise, then 1x1 (Sandler et al., 2018, arXiv:1801.04381).
        prior: probability of a class that a fresh net gives, for sigmoids; None for a softmax.
        name: prefix of the layers' names.

    Returns:
        "box_deltas" [B, A, 4] and "class_logits" [B, A, K].

    Raises:
        ValueError: another number of anchors than levels, or a prior outside of 0..1.
    """
    _check_anchors(features, anchors)
    outputs = {}
    for output, values, bias in (
        ("box_deltas", 4, "zeros"),
        ("class_logits", classes, "zeros" if prior is None else prior_bias(prior)),
    ):
        outputs[output] = _predict(
            features, anchors, values, output, name, kernel_size=3, separable=separable, bias=bias
        )
    return outputs


def yolo_head(
    features: Mapping[str, Any],
    classes: int,
    anchors: Sequence[int] = (3, 3, 3),
    coefficients: int = 0,
    *,
    prior: float = PRIOR,
    name: str = "head",
) -> dict[str, Any]:
    """YOLOv3's outputs: a 3x3 convolution, then 1x1 on each level (Redmon & Farhadi, 2018, arXiv:1804.02767).

    The one last convolution of the paper is three here, of the same weights together.

    Args:
        features: level -> [B, H/s, W/s, C]; the 3x3 convolution has 2C channels.
        classes: K.
        anchors: of each place, for each level.
        coefficients: of a mask, k, one for each prototype (Bolya et al., 2019, arXiv:1904.02689); 0 for no masks.
        prior: probability of an object that a fresh net gives.
        name: prefix of the layers' names.

    Returns:
        "box_deltas" [B, A, 4] (x, y, w, h), "objectness_logits" [B, A, 1] and "class_logits" [B, A, K]; for masks also
        "mask_coefficients" [B, A, k].

    Raises:
        ValueError: another number of anchors than levels, or a prior outside of 0..1.
    """
    _check_anchors(features, anchors)
    maps = {level: conv_bn_leaky(x, 2 * x.shape[-1], 3, 1, f"{name}_{level}") for level, x in features.items()}
    outputs = {}
    wanted: list[tuple[str, int, Any]] = [
        ("box_deltas", 4, "zeros"),
        ("objectness_logits", 1, prior_bias(prior)),
        ("class_logits", classes, "zeros"),
    ]
    if coefficients:
        wanted.append(("mask_coefficients", coefficients, "zeros"))
    for output, values, bias in wanted:
        outputs[output] = _predict(maps, anchors, values, output, name, bias=bias)
    return outputs


def decoupled_head(
    features: Mapping[str, Any],
    classes: int,
    bins: int = 16,
    *,
    depth: int = 2,
    box_filters: int | None = None,
    class_filters: int | None = None,
    separable: bool = False,
    activation: str = "relu",
    prior: float = PRIOR,
    name: str = "head",
) -> dict[str, Any]:
    """Head of an anchor-free detector: a branch for boxes and one for classes, on each level.

    The distance from a place to each side of its box is a distribution over bins (Li et al., 2020, arXiv:2006.04388).
    Widths are those of Ultralytics' YOLOv8.

    Args:
        features: level -> [B, H/s, W/s, C].
        classes: K.
        bins: of each distance, 0 to bins - 1 strides.
        depth: 3x3 convolutions of each branch.
        box_filters: their channels in the branch for boxes; max(16, C / 4, 4 * bins) of the finest level when None.
        class_filters: their channels in the branch for classes; max(C, min(K, 100)) of the finest level when None.
        separable: whether the 3x3 convolutions are depthwise, then 1x1.
        activation: a Keras name.
        prior: probability of a class that a fresh net gives.
        name: prefix of the layers' names.

    Returns:
        "box_bins" [B, A, 4 * bins] (left, top, right, bottom) and "class_logits" [B, A, K].

    Raises:
        ValueError: a prior outside of 0..1.
    """
    finest = next(iter(features.values())).shape[-1]
    box_filters = box_filters or max(16, finest // 4, 4 * bins)
    class_filters = class_filters or max(finest, min(classes, 100))
    outputs = {}
    for output, values, filters, bias in (
        ("box_bins", 4 * bins, box_filters, "zeros"),
        ("class_logits", classes, class_filters, prior_bias(prior)),
    ):
        branch = {}
        for level, x in features.items():
            for index in range(depth):
                label = f"{name}_{level}_{output}_{index}"
                x = shared_convolution(filters, 3, label, separable=separable, activation=activation)(x)
            branch[level] = x
        outputs[output] = _predict(branch, [1] * len(branch), values, output, name, bias=bias)
    return outputs


def _predict(
    maps: Mapping[str, Any],
    anchors: Sequence[int],
    values: int,
    output: str,
    name: str,
    *,
    kernel_size: int = 1,
    separable: bool = False,
    bias: Any = "zeros",
) -> Any:
    """A last convolution for each level, joined: float32 [B, A, values]."""
    parts = []
    for (level, x), count in zip(maps.items(), anchors, strict=True):
        last = shared_convolution(
            count * values,
            kernel_size,
            f"{name}_{level}_{output}",
            separable=separable,
            normalized=False,
            activation=None,
            kernel_initializer="glorot_uniform",
            bias_initializer=bias,
        )
        parts.append(last(x))
    return join_levels(parts, values, output)


def _small() -> keras.Initializer:
    return keras.initializers.RandomNormal(stddev=0.01)


def _check_shared(features: Mapping[str, Any]) -> None:
    channels = {level: x.shape[-1] for level, x in features.items()}
    if len(set(channels.values())) != 1:
        raise ValueError(
            f"A head shared by all levels needs maps of equal channels, got {channels}. Put a neck in front of it, "
            "such as kerasvision.layers.pyramid.feature_pyramid."
        )


def _check_anchors(features: Mapping[str, Any], anchors: Sequence[int]) -> None:
    if len(anchors) != len(features):
        raise ValueError(f"Expected a number of anchors for each of {', '.join(features)}, got {tuple(anchors)}.")
