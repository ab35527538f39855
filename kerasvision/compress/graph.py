"""A tf_keras functional model as a graph: who reads whom, in which order, and how to build it anew."""

import dataclasses
from collections.abc import Callable
from typing import Any

import tensorflow as tf
import tf_keras


@dataclasses.dataclass(eq=False)
class Node:
    """One call of a layer.

    Args:
        layer: what is called.
        inputs: the calls whose tensors it takes, in order.
        call: the functional model's own record of the call.
        function: what the layer applies to its result, None without.
        readers: the calls that take its tensor.
        is_output: whether the model hands its tensor out.
    """

    layer: tf_keras.layers.Layer
    inputs: list["Node"]
    call: Any
    function: Callable[..., Any] | None
    readers: list["Node"] = dataclasses.field(default_factory=list)
    is_output: bool = False

    @property
    def shape(self) -> tuple[int | None, ...]:
        """Of the tensor it gives."""
        return tuple(tf.nest.flatten(self.call.outputs)[0].shape)

    @property
    def activation(self) -> str:
        """Name of the function the layer applies to its result; "linear" without."""
        return getattr(self.function, "__name__", "linear")

    @property
    def only_reader(self) -> "Node | None":
        """The one call that takes this tensor; None where there are others, or the tensor is an output."""
        return self.readers[0] if len(self.readers) == 1 and not self.is_output else None


def read_graph(model: tf_keras.Model) -> list[Node]:
    """Every call of a layer, in order of execution; the input comes first."""
    outputs = {id(tensor) for tensor in model.outputs}
    nodes: dict[int, Node] = {}  # By the id of the tensor a call gives.
    for depth in sorted(model._nodes_by_depth, reverse=True):
        for call in model._nodes_by_depth[depth]:
            tensor = call.outputs if not isinstance(call.outputs, (list, tuple)) else call.outputs[0]
            before = [] if call.is_input else [nodes[id(given)] for given in call.keras_inputs]
            function = getattr(call.layer, "activation", None)
            node = Node(call.layer, before, call, function, is_output=id(tensor) in outputs)
            nodes[id(tensor)] = node
            for giver in before:
                giver.readers.append(node)
    return list(nodes.values())


def rebuild(
    model: tf_keras.Model, nodes: list[Node], image: Any, apply: Callable[[Node, tuple[Any, ...], dict[str, Any]], Any]
) -> Any:
    """Outputs of a model whose calls are replaced by others.

    Args:
        model: functional.
        nodes: its graph.
        image: tensor in the place of the input.
        apply: `(node, args, kwargs) -> tensor`, called for each call but the input.

    Returns:
        The outputs, in the model's own structure.
    """
    tensors = _Reusable()
    for node in nodes:
        if node.call.is_input:
            tensor = image
        else:
            args, kwargs = node.call.map_arguments(tensors)
            tensor = apply(node, args, kwargs)
        tensors[node.call.flat_output_ids[0]] = tensor
    return tf.nest.map_structure(lambda output: tensors.get(str(id(output))), model.output)


class _Reusable(dict[str, Any]):
    """Tensors by id, each in a list of its own, from which the record of a call takes it."""

    def __getitem__(self, key: str) -> list[Any]:
        return [super().__getitem__(key)]


def shift_input(model: tf_keras.Model, shift: float) -> tf_keras.Model | None:
    """A model that does to x what the given one does to x + shift, but for zero padding.

    Args:
        model: functional; its layers are used.
        shift: one number for all of the input.

    Returns:
        A model whose first convolutions have other biases, or None where something else reads the input.
    """
    nodes = read_graph(model)
    readers = [*nodes[0].readers]
    for node in readers:
        if isinstance(node.layer, tf_keras.layers.ZeroPadding2D):
            readers.extend(node.readers)
    first = [node for node in readers if not isinstance(node.layer, tf_keras.layers.ZeroPadding2D)]
    if nodes[0].is_output or any(type(node.layer) is not tf_keras.layers.Conv2D for node in first):
        return None
    biased = {id(node.layer): _with_bias(node, shift) for node in first}

    def apply(node: Node, args: tuple[Any, ...], kwargs: dict[str, Any]) -> Any:
        return biased.get(id(node.layer), node.layer)(*args, **kwargs)

    source = model.inputs[0]
    image = tf_keras.Input(source.shape[1:], name=nodes[0].layer.name)
    return tf_keras.Model(image, rebuild(model, nodes, image, apply), name=model.name)


def _with_bias(node: Node, shift: float) -> tf_keras.layers.Conv2D:
    kernel, *bias = node.layer.get_weights()
    layer = tf_keras.layers.Conv2D.from_config(
        {**node.layer.get_config(), "use_bias": True, "activation": node.function}
    )
    layer.build(node.inputs[0].shape)
    layer.set_weights([kernel, shift * kernel.sum(axis=(0, 1, 2)) + (bias[0] if bias else 0.0)])
    layer.trainable = node.layer.trainable
    return layer
