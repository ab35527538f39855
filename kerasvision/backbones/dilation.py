"""Backbones that keep their resolution: holes in the kernels in the place of the last strides.

The "a trous" algorithm of DeepLab (Chen et al., 2015, arXiv:1412.7062; 2017, arXiv:1706.05587). Weights keep their
shapes and their meaning: every second place of the larger map is the map of the net with its stride.
"""

import itertools
from collections.abc import Iterator, Sequence
from typing import Any, NamedTuple

import keras
from keras import layers

from kerasvision.backbones.applications import graft, same_layer, transplant
from kerasvision.layers.pyramid import select_levels
from kerasvision.registry import build_backbone

STRIDES = (8, 16, 32)
# The end of the last stage but one, and of the last: every backbone has to have them.
LEVELS = ("P4", "P5")
CONVOLUTIONS = (layers.Conv2D, layers.DepthwiseConv2D, layers.SeparableConv2D)
POOLINGS = (layers.MaxPooling2D, layers.AveragePooling2D)


class _Place(NamedTuple):
    """Where a tensor stands: its stride, pixels between its neighbours of the net with strides, and which stage."""

    stride: int = 1
    rate: int = 1
    in_last_stage: bool = False


def dilated_backbone(
    name: str,
    x: Any,
    output_stride: int,
    *,
    weights: str | None = None,
    multi_grid: Sequence[int] = (1,),
    **arguments: Any,
) -> dict[str, Any]:
    """The features of a registered backbone, none of them coarser than the output stride.

    A stride that would lead beyond it becomes 1, and the windows of all convolutions behind it get holes.

    Args:
        name: of a backbone with the levels P4 and P5.
        x: normalized image, [B, H, W, C].
        output_stride: 8, 16 or 32.
        weights: a name the backbone knows, or None for fresh ones.
        multi_grid: factors on the rates of the last stage's convolutions with windows, from the first one on, and
            again from the first factor when there are more convolutions.
        **arguments: of the backbone's builder.

    Returns:
        As `build_backbone` does; at output stride 8, P4 and P5 are [B, H/8, W/8, _].

    Raises:
        ValueError: another output stride, factors below 1, a backbone without these levels, or one with a window that
            can have no holes.
    """
    if output_stride not in STRIDES:
        raise ValueError(f"output_stride must be 8, 16 or 32, got {output_stride!r}.")
    if not multi_grid or any(not isinstance(factor, int) or factor < 1 for factor in multi_grid):
        raise ValueError(f"multi_grid must be factors of at least 1, such as (1, 2, 4), got {multi_grid!r}.")
    # Its own strides and weights first; then every layer is made again on our tensor.
    image = keras.Input(x.shape[1:])
    features = build_backbone(name, image, weights=weights, **arguments)
    net = keras.Model(image, features)
    last_stage = select_levels(features, LEVELS)["P4"]
    changes = _changes(net, last_stage, output_stride, multi_grid, name)

    def replace(operation: Any, operand: Any, label: str) -> Any:
        if label not in changes:
            return None
        change = changes[label]
        if change is None:
            return operand
        return graft(same_layer(operation, label, **change), operand, operation.get_weights())

    made = transplant(net, x, replace=replace)
    return {level: made[feature._keras_history.operation.name] for level, feature in features.items()}


def _changes(
    net: keras.Model, last_stage: Any, output_stride: int, multi_grid: Sequence[int], backbone: str
) -> dict[str, dict[str, Any] | None]:
    """Layer name -> its arguments that change; None for padding that goes into the convolution behind it."""
    places: dict[int, _Place] = {}
    paddings: dict[int, str] = {}
    changes: dict[str, dict[str, Any] | None] = {}
    factors = itertools.cycle(multi_grid)
    for node in _nodes(net):
        operation, result = node.operation, node.outputs[0]
        place = max((places[id(operand)] for operand in node.input_tensors), default=_Place())
        if isinstance(operation, layers.ZeroPadding2D):
            paddings[id(result)] = operation.name
        reads = isinstance(operation, CONVOLUTIONS + POOLINGS)
        stride = place.stride * (operation.strides[0] if reads else 1)
        rate = place.rate
        if place.in_last_stage and isinstance(operation, CONVOLUTIONS) and set(operation.kernel_size) != {1}:
            rate *= next(factors)
        if reads and (stride > output_stride or rate > 1):
            change = _change(operation, rate, backbone)
            if padding := paddings.get(id(node.input_tensors[0])):
                changes[padding] = None
                change["padding"] = "same"
            changes[operation.name] = change
        if stride > output_stride:
            place = place._replace(rate=place.rate * stride // place.stride)
        else:
            place = place._replace(stride=stride)
        places[id(result)] = place._replace(in_last_stage=place.in_last_stage or result is last_stage)
    return changes


def _nodes(net: keras.Model) -> Iterator[Any]:
    """Keras's records of all calls, in order of execution."""
    for depth in sorted(net._nodes_by_depth, reverse=True):
        yield from net._nodes_by_depth[depth]


def _change(operation: Any, rate: int, backbone: str) -> dict[str, Any]:
    """Arguments of a convolution or a pooling that is to have no stride, and holes in its window."""
    if isinstance(operation, CONVOLUTIONS):
        windows = zip(operation.dilation_rate, operation.kernel_size, strict=True)
        return {"strides": (1, 1), "dilation_rate": tuple(rate * own if size > 1 else own for own, size in windows)}
    if rate > 1 and set(operation.pool_size) != {1}:
        raise ValueError(
            f'"{backbone}" cannot have this output stride: the window of its pooling "{operation.name}" can have no '
            "holes. Take a larger output_stride, or a backbone whose strides stand in convolutions, such as resnet50."
        )
    # Windows side by side lose nothing at the border; neither shall those that now overlap.
    tiles = operation.pool_size == operation.strides
    return {"strides": (1, 1), "padding": "same" if tiles else operation.padding}
