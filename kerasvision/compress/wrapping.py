"""A twin whose kernels TFMOT's wrappers change while it trains, and the way back to a Keras 3 model."""

import abc
from collections.abc import Callable, Collection, Mapping
from typing import Any

import numpy as np
import tf_keras

from kerasvision.compress.bridge import build_twin
from kerasvision.compress.graph import Node, read_graph, rebuild
from kerasvision.compress.twin_model import TwinModel
from kerasvision.errors import UnknownNameError, closest
from kerasvision.task import TaskModel

# Depthwise kernels and normalization stay as they are: few numbers, much damage. TFMOT holds the same.
KERNELS: Mapping[type[tf_keras.layers.Layer], str] = {
    tf_keras.layers.Conv2D: "kernel",
    tf_keras.layers.Conv2DTranspose: "kernel",
    tf_keras.layers.Dense: "kernel",
    tf_keras.layers.SeparableConv2D: "pointwise_kernel",
}


class WrappedModel(TwinModel, abc.ABC):
    """A twin with a TFMOT wrapper around each layer whose kernel is to change.

    Args:
        model: the Keras 3 model.
        wrap: the wrapper around a layer.
        skip: names of layers left as they are; None for those next to the image and to the outputs.
        kinds: classes of the layers that are wrapped.
    """

    def __init__(
        self,
        model: TaskModel,
        wrap: Callable[[tf_keras.layers.Layer], tf_keras.layers.Wrapper],
        skip: Collection[str] | None,
        kinds: Collection[type[tf_keras.layers.Layer]] = tuple(KERNELS),
    ) -> None:
        twin = build_twin(model.net)
        nodes = read_graph(twin)
        wrappers: dict[str, tf_keras.layers.Wrapper] = {}
        left = _ends(nodes) if skip is None else _known(skip, nodes)

        def apply(node: Node, args: tuple[Any, ...], kwargs: dict[str, Any]) -> Any:
            layer = node.layer
            if type(layer) not in kinds or layer.name in left:
                return layer(*args, **kwargs)
            if layer.name not in wrappers:
                wrappers[layer.name] = wrap(layer)
            return wrappers[layer.name](*args, **kwargs)

        image = tf_keras.Input(twin.inputs[0].shape[1:], name="normalized")
        net = tf_keras.Model(image, rebuild(twin, nodes, image, apply), name=twin.name)
        if not wrappers:
            raise ValueError(
                f"{model.name} has no kernel to change: it has none of {', '.join(kind.__name__ for kind in kinds)} "
                f"beside the layers left out ({', '.join(sorted(left)) or 'none'}). Leave out fewer: skip=()."
            )
        super().__init__(model, net)
        self.changed = tuple(wrappers)

    @abc.abstractmethod
    def weights_of(self, wrapper: tf_keras.layers.Wrapper) -> list[np.ndarray]:
        """Weights of a wrapped layer as the net uses them, in the layer's own order."""

    def strip(self) -> TaskModel:
        """The Keras 3 model with the weights of this one, ready to train, save, quantize and export."""
        model = TaskModel.from_config(self.source_config)
        for layer in self.net.layers:
            if layer.weights:
                wrapped = isinstance(layer, tf_keras.layers.Wrapper)
                target = model.get_layer(layer.layer.name if wrapped else layer.name)
                target.set_weights(self.weights_of(layer) if wrapped else layer.get_weights())
                target.trainable = layer.trainable
        model.fit_data = self.fit_data
        return model


def _ends(nodes: list[Node]) -> set[str]:
    """Layers with kernels that have no other such layer between them and the image, or them and an output."""
    first = {id(node) for node in nodes if node.call.is_input}
    for node in nodes:
        if node.inputs and all(id(giver) in first and not _has_kernel(giver) for giver in node.inputs):
            first.add(id(node))
    last: set[int] = set()
    for node in reversed(nodes):
        if all(id(reader) in last and not _has_kernel(reader) for reader in node.readers):
            last.add(id(node))
    return {node.layer.name for node in nodes if _has_kernel(node) and id(node) in first | last}


def _has_kernel(node: Node) -> bool:
    return type(node.layer) in KERNELS


def _known(skip: Collection[str], nodes: list[Node]) -> set[str]:
    names = {node.layer.name for node in nodes}
    for name in skip:
        if name not in names:
            raise UnknownNameError(f'There is no layer "{name}" to leave as it is.{closest(name, names)}')
    return set(skip)
