"""What is counted and checked of every registered net: multiply-accumulates, and weights to check it with."""

import math
from collections.abc import Iterator
from typing import Any

import keras
import numpy as np
from keras import layers

from kerasvision.registry import BACKBONE, get_entry, list_models
from kerasvision.task import TaskModel

PACKAGE = "kerasvision."


def own_backbones() -> list[str]:
    """Names of the backbones of this package, without those that somebody else has registered."""
    entries = [get_entry(name)[0] for name in list_models()]
    return [entry.name for entry in entries if entry.kind == BACKBONE and entry.builder.__module__.startswith(PACKAGE)]


def count_macs(model: keras.Model) -> int:
    """Multiply-accumulates of one image: convolutions, dense layers and products of tensors, as papers count them.

    What is done to every value by itself is not counted: normalization, activation, pooling, biases, factors.

    Args:
        model: flat, functional, with a static input shape.

    Raises:
        ValueError: a layer with a kernel that this function does not know.
    """
    return sum(_macs(operation, inputs, output) for operation, inputs, output in _calls(model))


def _calls(model: keras.Model) -> Iterator[tuple[Any, list[Any], Any]]:
    """Every call of an operation, with the tensors it takes and the one it gives."""
    for depth in sorted(model._nodes_by_depth):
        for node in model._nodes_by_depth[depth]:
            if not node.is_input:
                yield node.operation, node.input_tensors, node.output_tensors[0]


def _macs(layer: Any, inputs: list[Any], output: Any) -> int:
    if isinstance(layer, layers.SeparableConv2D):
        kernels = math.prod(layer.depthwise_kernel.shape) + math.prod(layer.pointwise_kernel.shape)
        return math.prod(output.shape[1:-1]) * kernels
    if isinstance(layer, layers.Conv2DTranspose):
        return math.prod(inputs[0].shape[1:-1]) * math.prod(layer.kernel.shape)
    if isinstance(layer, layers.Conv2D | layers.DepthwiseConv2D | layers.Dense):
        # A depthwise convolution and one in groups have the smaller kernel.
        return math.prod(output.shape[1:-1]) * math.prod(layer.kernel.shape)
    if isinstance(layer, layers.Dot):
        axis = layer.axes if isinstance(layer.axes, int) else layer.axes[0]
        return math.prod(output.shape[1:]) * inputs[0].shape[axis]
    unknown = [weight.path for weight in getattr(layer, "weights", []) if weight.name.endswith("kernel")]
    if unknown:
        raise ValueError(
            f"The multiply-accumulates of {unknown[0]} ({type(layer).__name__}) are not known: add a rule."
        )
    return 0


def enliven(model: TaskModel, images: np.ndarray, seed: int = 0) -> None:
    """Give a fresh net weights with which it computes something, layer by layer, as a trained one does.

    In a fresh net all values vanish or explode, because its batch normalizations do nothing; with batch statistics it
    becomes chaotic, and the rounding of an int8 file grows a hundredfold on its way (Yang et al., 2019,
    arXiv:1902.08129), unless most values lie where the activation functions are smooth.

    Args:
        model: a classifier. Its kernels become random (He et al., 2015, arXiv:1502.01852), its scales, shifts and
            biases random around what they were, but for the shifts of normalizations, which lie around 2; its batch
            statistics become those of the images, and its logits of the images get a variance of 1.
        images: pixels of 0..255, [N, H, W, C].
        seed: of the weights.
    """
    random = np.random.default_rng(seed)
    for weight in model.trainable_weights:
        weight.assign(_alive(weight.name, keras.ops.convert_to_numpy(weight), random))
    normalizations = [layer for layer in model.layers if isinstance(layer, layers.BatchNormalization)]
    momenta = [layer.momentum for layer in normalizations]
    for layer in normalizations:
        layer.momentum = 0.0
    model(images, training=True)
    for layer, momentum in zip(normalizations, momenta, strict=True):
        layer.momentum = momentum
    head = model.get_layer("logits")
    deviation = keras.ops.convert_to_numpy(model(images, training=False)["logits"]).std()
    head.set_weights([weight / deviation for weight in head.get_weights()])


def _alive(name: str, values: np.ndarray, random: np.random.Generator) -> np.ndarray:
    if values.size > 1 and np.ptp(values) == 0:
        if values.flat[0]:
            return random.uniform(0.5, 1.5, values.shape)
        return random.normal(2.0 if name == "beta" else 0.0, 0.1, values.shape)
    inputs = math.prod(values.shape[:2] if values.shape[-1] == 1 else values.shape[:-1])
    return random.standard_normal(values.shape, np.float32) * np.float32(math.sqrt(2 / max(1, inputs)))
