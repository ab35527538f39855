"""A net's graph without what inference does not need: the same outputs from fewer layers.

Batch normalization goes into the kernel and bias beside it (Jacob et al., 2018, arXiv:1712.05877, section 3.2), zero
padding into the convolutions behind it; identities and branches that only add zeros go. Which layers go depends on the
graph and on the names of the zero branches, never on other weights, so a saved model is rebuilt from these names.
"""

from collections.abc import Collection
from typing import Any, NamedTuple

import keras
import numpy as np
from keras import layers

from kerasvision.call_graph import Call, Graph
from kerasvision.task import TaskModel

IDENTITIES = (
    layers.AlphaDropout,
    layers.Dropout,
    layers.GaussianDropout,
    layers.GaussianNoise,
    layers.Identity,
    layers.SpatialDropout1D,
    layers.SpatialDropout2D,
    layers.SpatialDropout3D,
)
# Normalization behind them, and in front of them, goes into their weights.
TAKES_BEHIND = (layers.Conv2D, layers.Conv2DTranspose, layers.Dense, layers.DepthwiseConv2D, layers.SeparableConv2D)
TAKES_IN_FRONT = (layers.Conv2D, layers.Dense, layers.DepthwiseConv2D)
TAKES_PADDING = (layers.Conv2D, layers.DepthwiseConv2D, layers.SeparableConv2D)


class Step(NamedTuple):
    """One layer of a folded model.

    Args:
        name: of the layer.
        before: the tensor of the unfolded model that it gives.
        after: the same in the folded model.
    """

    name: str
    before: Any
    after: Any


class Folding(NamedTuple):
    """A folded model and what was done for it.

    Args:
        model: folded, in float32.
        steps: its layers in order of execution.
        identities: names of the layers that were dropped because they do nothing in inference.
        normalizations: of the batch normalizations that went into weights.
        paddings: of the zero paddings that went into convolutions.
    """

    model: TaskModel
    steps: list[Step]
    identities: tuple[str, ...]
    normalizations: tuple[str, ...]
    paddings: tuple[str, ...]


def fold_graph(model: TaskModel, dead: Collection[str]) -> Folding:
    """A model of the same outputs from fewer layers, with weights of its own.

    Args:
        model: not folded yet.
        dead: zero branches to drop, from `zero_branches`.
    """
    graph = Graph(model)
    identities = drop_identities(graph)
    drop_branches(graph, dead)
    normalizations = fold_normalization(graph)
    paddings = fold_padding(graph)
    folded, steps = _rebuild(graph, dead)
    return Folding(folded, steps, tuple(identities), tuple(normalizations), tuple(paddings))


def drop_identities(graph: Graph) -> list[str]:
    """Take out the layers that do nothing in inference.

    Returns:
        Their names.
    """
    dropped = [call for call in graph.calls if _is_identity(call)]
    for call in dropped:
        graph.take_out(call)
    return [call.name for call in dropped]


def _is_identity(call: Call) -> bool:
    if call.is_a(layers.Activation):
        return call.operation.activation is keras.activations.linear
    if call.is_a(layers.ZeroPadding2D):
        return not np.any(call.operation.padding)
    return call.is_a(*IDENTITIES)


def zero_branches(model: TaskModel) -> list[str]:
    """Names of the layers whose result is zero for every image and goes into an Add that can do without."""
    graph = Graph(model)
    drop_identities(graph)
    zeros: set[int] = set()
    found: list[str] = []
    for call in graph.calls:
        if _is_zero(graph, call, zeros):
            zeros |= {id(tensor) for tensor in call.outputs}
        if call.is_a(layers.Add):
            rest = {id(operand) for operand in _summands(graph, call, zeros)}
            givers = [graph.giver(tensor) for tensor in graph.inputs(call) if id(tensor) not in rest]
            found += [giver.name for giver in givers if giver and graph.is_called_once(giver)]
    return list(dict.fromkeys(found))


def _is_zero(graph: Graph, call: Call, zeros: Collection[int]) -> bool:
    operands = graph.inputs(call)
    known = [id(operand) in zeros for operand in operands]
    if call.is_a(layers.Multiply) and any(known):
        return True
    if not all(known) and not _ignores_its_input(call):
        return False
    image = {id(each): keras.ops.zeros([side or 1 for side in each.shape], each.dtype) for each in call.operands}
    arguments, keywords = call.arguments.fill_in(image)
    results = keras.tree.flatten(call.operation(*arguments, **keywords))
    return not any(np.any(keras.ops.convert_to_numpy(result)) for result in results)


def _ignores_its_input(call: Call) -> bool:
    if call.is_a(*TAKES_BEHIND):
        values = call.operation.get_weights()
        return not all(np.any(kernel) for kernel in values[: len(values) - call.operation.use_bias])
    return call.is_a(layers.BatchNormalization) and not np.any(_line(call.operation)[0])


def _summands(graph: Graph, call: Call, zeros: Collection[int]) -> list[Any]:
    """Operands of an Add that are left without the zeros; all where the sum would lose its shape."""
    rest = [tensor for tensor in graph.inputs(call) if id(tensor) not in zeros]
    return rest if any(tensor.shape == call.outputs[0].shape for tensor in rest) else graph.inputs(call)


def drop_branches(graph: Graph, names: Collection[str]) -> None:
    """Take zero branches out of the sums they go into; a sum of one operand goes too.

    Args:
        graph: without identities.
        names: from `zero_branches`.
    """
    zeros = {id(tensor) for call in graph.calls if call.name in names for tensor in call.outputs}
    for call in list(graph.calls):
        if call.is_a(layers.Add):
            call.operands = _summands(graph, call, zeros)
            if len(call.operands) == 1:
                graph.take_out(call)
    graph.forget_unread()


def fold_normalization(graph: Graph) -> list[str]:
    """Take out batch normalization behind a layer that can take it in, and in front of one where that is exact.

    Returns:
        Names of the normalizations.
    """
    folded = []
    for call in [call for call in graph.calls if _is_over_channels(call)]:
        carrier = graph.giver(graph.inputs(call)[0])
        if carrier and _takes_behind(graph, carrier):
            carrier.behind.append(call.operation)
            carrier.gives = call.gives
            graph.take_out(call)
            folded.append(call.name)
    # From the end, because the last of several normalizations comes next to the kernel.
    for call in reversed([call for call in graph.calls if _is_over_channels(call)]):
        readers = graph.readers(call.outputs[0])
        if not graph.is_kept(call.outputs[0]) and all(_takes_in_front(graph, reader) for reader in readers):
            for reader in readers:
                reader.in_front.append(call.operation)
            graph.take_out(call)
            folded.append(call.name)
    return folded


def _is_over_channels(call: Call) -> bool:
    return call.is_a(layers.BatchNormalization) and call.operation.axis in (-1, len(call.outputs[0].shape) - 1)


def _takes_behind(graph: Graph, call: Call) -> bool:
    result = call.outputs[0]
    return (
        call.is_a(*TAKES_BEHIND)
        and call.operation.activation is keras.activations.linear
        and graph.is_called_once(call)
        and len(graph.readers(result)) == 1
        and not graph.is_kept(result)
        and _has_channels_last(call)
    )


def _takes_in_front(graph: Graph, call: Call) -> bool:
    """Not where the convolution pads: the zeros at the border are not normalized."""
    layer = call.operation
    if not call.is_a(*TAKES_IN_FRONT) or not graph.is_called_once(call) or not _has_channels_last(call):
        return False
    if call.is_a(layers.Dense):
        return True
    # A depthwise layer has its channels, not 1, as groups.
    grouped = call.is_a(layers.Conv2D) and layer.groups > 1
    return not grouped and (layer.padding == "valid" or set(layer.kernel_size) == {1})


def _has_channels_last(call: Call) -> bool:
    return getattr(call.operation, "data_format", "channels_last") == "channels_last"


def fold_padding(graph: Graph) -> list[str]:
    """Take out zero padding that is what padding="same" would be in all convolutions behind it.

    Returns:
        Names of the paddings.
    """
    folded = []
    for call in [call for call in graph.calls if call.is_a(layers.ZeroPadding2D) and _has_channels_last(call)]:
        readers = graph.readers(call.outputs[0])
        if not graph.is_kept(call.outputs[0]) and all(_pads_like(graph, call, reader) for reader in readers):
            for reader in readers:
                reader.changes["padding"] = "same"
            graph.take_out(call)
            folded.append(call.name)
    return folded


def _pads_like(graph: Graph, padding: Call, call: Call) -> bool:
    layer = call.operation
    if not call.is_a(*TAKES_PADDING) or not graph.is_called_once(call) or not _has_channels_last(call):
        return False
    sizes = padding.operands[0].shape[1:3]
    same = map(same_padding, sizes, layer.kernel_size, layer.strides, layer.dilation_rate)
    return layer.padding == "valid" and tuple(same) == tuple(map(tuple, padding.operation.padding))


def same_padding(size: int, kernel_size: int, stride: int = 1, dilation: int = 1) -> tuple[int, int]:
    """Zeros that padding="same" puts (before, after) one axis of a convolution's input.

    Args:
        size: of the input, in pixels.
        kernel_size: in pixels.
        stride: in pixels.
        dilation: pixels between two places that the kernel sees.
    """
    reach = (kernel_size - 1) * dilation + 1
    total = max((-(-size // stride) - 1) * stride + reach - size, 0)
    return total // 2, total - total // 2


def _rebuild(graph: Graph, dead: Collection[str]) -> tuple[TaskModel, list[Step]]:
    """A model of its own layers from what is left of a graph."""
    source = graph.model
    image = keras.Input(source.input_shape[1:], name="image")
    made = {id(source.inputs[0]): image}
    built: dict[int, Any] = {}
    for call in graph.calls:
        if id(call.operation) not in built:
            built[id(call.operation)] = _copy(call)
        tensors = {id(operand): made[id(graph.now(operand))] for operand in call.operands}
        if call.is_a(layers.Add):
            results = built[id(call.operation)]([tensors[id(operand)] for operand in call.operands])
        else:
            arguments, keywords = call.arguments.fill_in(tensors)
            results = built[id(call.operation)](*arguments, **keywords)
        made.update(zip(map(id, call.outputs), keras.tree.flatten(results), strict=True))
        if getattr(call.operation, "weights", None):
            built[id(call.operation)].set_weights(_weights(call))
    names = {id(tensor): call.name for call in graph.calls for tensor in call.outputs}
    taps = {tap: names.get(id(graph.now(tensor))) for tap, tensor in graph.taps.items()}
    model = TaskModel(
        image,
        {name: made[id(graph.now(tensor))] for name, tensor in source.output.items()},
        task=source.task,
        preprocessing=source.preprocessing,
        build={**source.get_config(), "folded": {"dead": list(dead)}},
        taps={tap: layer for tap, layer in taps.items() if layer is not None},
    )
    return model, [Step(call.name, call.gives, made[id(call.outputs[0])]) for call in graph.calls]


def _copy(call: Call) -> Any:
    operation = call.operation
    if isinstance(operation, keras.Model):
        return keras.models.clone_model(operation)
    config = {**operation.get_config(), **call.changes}
    if isinstance(operation, layers.Layer):
        config["dtype"] = "float32"
    if call.behind or call.in_front:
        config["use_bias"] = True
    return type(operation).from_config(config)


def _weights(call: Call) -> list[np.ndarray]:
    values = call.operation.get_weights()
    if not call.behind and not call.in_front:
        return values
    bias = np.float64(values.pop()) if call.operation.use_bias else 0.0
    *others, kernel = values
    kernel = np.float64(kernel)
    for normalization in call.in_front:
        factor, addend = _line(normalization)
        # The channels that come in are the last axis but one in all of TAKES_IN_FRONT.
        summed = {layers.Dense: 0, layers.DepthwiseConv2D: (0, 1)}.get(type(call.operation), (0, 1, 2))
        bias = bias + (kernel * addend[:, None]).sum(summed).ravel()
        kernel = kernel * factor[:, None]
    for normalization in call.behind:
        factor, addend = _line(normalization)
        bias = bias * factor + addend
        if type(call.operation) is layers.DepthwiseConv2D:
            kernel = kernel * factor.reshape(kernel.shape[2:])  # [h, w, C, multiplier]
        elif type(call.operation) is layers.Conv2DTranspose:
            kernel = kernel * factor[:, None]  # [h, w, filters, C]
        else:
            kernel = kernel * factor
    return [*others, np.float32(kernel), np.float32(bias)]


def _line(layer: layers.BatchNormalization) -> tuple[np.ndarray, np.ndarray]:
    """Factor and addend of each channel, in inference."""
    mean, variance, gamma, beta = (
        None if weight is None else np.float64(keras.ops.convert_to_numpy(weight))
        for weight in (layer.moving_mean, layer.moving_variance, layer.gamma, layer.beta)
    )
    factor = (1.0 if gamma is None else gamma) / np.sqrt(variance + layer.epsilon)
    return factor, (0.0 if beta is None else beta) - mean * factor
