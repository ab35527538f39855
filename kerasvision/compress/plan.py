"""What becomes one int8 op, what keeps its range, what stays in float: decided over the whole graph."""

from collections.abc import Collection
from typing import Any

import tf_keras

from kerasvision.compress.bridge import Adopted
from kerasvision.compress.graph import Node
from kerasvision.compress.layers import part_widths
from kerasvision.compress.quantizers import RangeGroup
from kerasvision.errors import QuantizationError, closest

layers: Any = tf_keras.layers

CARRIERS = (layers.Conv2D, layers.DepthwiseConv2D, layers.SeparableConv2D, layers.Dense)
# Hands its input's values on, or a part of them.
SAME_VALUES = (
    layers.Cropping2D,
    layers.Dropout,
    layers.Flatten,
    layers.GlobalMaxPooling2D,
    layers.MaxPooling2D,
    layers.Permute,
    layers.Reshape,
    layers.SpatialDropout2D,
    layers.ZeroPadding2D,
)
# Has an int8 kernel for one range only, in and out.
SAME_RANGE = (
    layers.AveragePooling2D,
    layers.Concatenate,
    layers.Maximum,
    layers.Minimum,
    layers.UpSampling2D,
)
# Statistics over each example need more than 8 bits inside: in float on purpose, and named in the report.
FLOAT = (layers.LayerNormalization, layers.GroupNormalization, layers.UnitNormalization, layers.MultiHeadAttention)
_FUSABLE = (*CARRIERS, layers.BatchNormalization, layers.Add, layers.Subtract, layers.Multiply)


class Plan:
    """The decisions for one graph.

    Args:
        nodes: the graph, from `read_graph`.
        islands: names of layers that stay in float on purpose.

    Raises:
        QuantizationError: no layer of such a name.
    """

    def __init__(self, nodes: list[Node], islands: Collection[str]) -> None:
        self._calls: dict[int, list[Node]] = {}
        for node in nodes:
            self._calls.setdefault(id(node.layer), []).append(node)
        names = [node.layer.name for node in nodes]
        for name in islands:
            if name not in names:
                raise QuantizationError(f'There is no layer "{name}" to leave in float.{closest(name, names)}')
        self.islands = {*islands, *(node.layer.name for node in nodes if is_float(node.layer))}
        # What a float layer would take in goes with it.
        for node in nodes:
            if node.layer.name in self.islands and self.is_fused(node):
                self.islands.add(node.readers[0].layer.name)
        self._groups = self._group(nodes)

    def is_carried(self, node: Node) -> bool:
        """Whether a batch normalization becomes a part of the layer in front of it."""
        return all(
            len(call.inputs) == 1 and isinstance(call.inputs[0].layer, CARRIERS) and self.is_fused(call.inputs[0])
            for call in self._calls[id(node.layer)]
        )

    def is_fused(self, node: Node) -> bool:
        """Whether the layer and its only reader become one op, so that its own output never exists."""
        return all(self._goes_into_reader(call) for call in self._calls[id(node.layer)])

    def is_cut(self, node: Node) -> bool:
        """Whether a ReLU is no op of its own but the lower end of the 8 bits of the transposed convolution before it.

        That one's op takes no function in, and an int8 ReLU may take longer than all of a region's convolutions.
        """
        before = node.inputs[0] if len(node.inputs) == 1 else None
        return before is not None and isinstance(before.layer, layers.Conv2DTranspose) and self.is_fused(before)

    def normalization(self, node: Node) -> Any:
        """The batch normalization that becomes a part of the layer, None without."""
        reader = node.only_reader
        if reader is None or not isinstance(reader.layer, layers.BatchNormalization) or not self.is_carried(reader):
            return None
        return reader.layer

    def first_of_op(self, node: Node) -> Node:
        """The first of the layers that become one op with this one."""
        while len(node.inputs) == 1 and self.is_fused(node.inputs[0]):
            node = node.inputs[0]
        return node

    def stays_float(self, node: Node) -> bool:
        """Whether an island's result goes to other islands only, or out of a net that needs it in float."""
        names = {reader.layer.name for reader in node.readers}
        exact = isinstance(node.layer, Adopted) and node.layer.quantization == "float"
        return names <= self.islands and (exact or not node.is_output)

    def group(self, node: Node) -> RangeGroup:
        """The tensors that have one range with this one."""
        return self._groups[id(node)]

    def _goes_into_reader(self, node: Node) -> bool:
        reader = node.only_reader
        if reader is None or not isinstance(node.layer, _FUSABLE) or node.activation != "linear":
            return False
        if isinstance(node.layer, layers.Conv2DTranspose):
            return _is_own_range(reader)  # See `is_cut`; else its op takes nothing in.
        if isinstance(node.layer, layers.Dense) and len(part_widths(*node.layer.kernel.shape)) > 1:
            return False  # It ends in a concatenation, which takes nothing in either.
        if isinstance(reader.layer, layers.BatchNormalization):
            return isinstance(node.layer, CARRIERS) and reader.layer.axis in (-1, [len(node.shape) - 1])
        return is_clipping(reader)

    def _group(self, nodes: list[Node]) -> dict[int, RangeGroup]:
        parent = {id(node): id(node) for node in nodes}

        def find(key: int) -> int:
            while parent[key] != key:
                parent[key] = parent[parent[key]]
                key = parent[key]
            return key

        for node in nodes:
            tied = self._calls[id(node.layer)][:1]
            if hands_values_on(node.layer) or isinstance(node.layer, SAME_RANGE):
                tied = [*tied, *node.inputs]
            for other in tied:
                parent[find(id(other))] = find(id(node))
        groups: dict[int, RangeGroup] = {}
        return {id(node): groups.setdefault(find(id(node)), RangeGroup()) for node in nodes}


def _is_own_range(node: Node) -> bool:
    """Whether this is a ReLU whose 8 bits begin at 0, because no other tensor shares them."""
    shared = any(hands_values_on(reader.layer) or isinstance(reader.layer, SAME_RANGE) for reader in node.readers)
    return (
        is_clipping(node)
        and getattr(node.layer, "max_value", None) is None
        and node.activation != "relu6"
        and not shared
    )


def hands_values_on(layer: tf_keras.layers.Layer) -> bool:
    """Whether the layer gives its input's values, or a part of them."""
    return isinstance(layer, SAME_VALUES) or (isinstance(layer, Adopted) and layer.quantization == "values")


def is_float(layer: tf_keras.layers.Layer) -> bool:
    """Whether the layer is left in float without being asked."""
    return isinstance(layer, FLOAT) or (isinstance(layer, Adopted) and layer.quantization in ("island", "float"))


def is_clipping(node: Node) -> bool:
    """Whether this is a ReLU or ReLU6, which the op in front takes in."""
    layer = node.layer
    if isinstance(layer, layers.ReLU):
        return layer.max_value in (None, 6.0) and not layer.negative_slope and not layer.threshold
    return isinstance(layer, layers.Activation) and node.activation in ("relu", "relu6")
