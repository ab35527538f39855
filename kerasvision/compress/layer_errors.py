"""Which layers cost the accuracy: each is quantized alone, and the error of the outputs measured."""

import dataclasses
from typing import Any

import numpy as np
import tensorflow as tf

from kerasvision.choices import choices_of, net_of_choices
from kerasvision.compress.qat import quantize
from kerasvision.compress.quantizers import observed
from kerasvision.task import TaskModel


@dataclasses.dataclass(frozen=True)
class LayerError:
    """What the quantization of one layer does to the outputs.

    Args:
        layer: its name; a convolution's stands for the normalization and the ReLU behind it too.
        noise: mean squared error of the raw outputs, as a share of their variance; the sum over the outputs.
    """

    layer: str
    noise: float


def sensitivity(model: TaskModel, images: np.ndarray, batch_size: int = 32) -> list[LayerError]:
    """Quantize each layer alone, its weights and its results, by calibration.

    Args:
        model: from `create_model`.
        images: pixels of 0..255, [N, H, W, C], which set the ranges and are measured.
        batch_size: how many of them at once.

    Returns:
        Layers by the error they cause, the largest first.
    """
    quantized = quantize(model)
    quantized.calibrate(images)
    # Layers behind a choice among boxes are measured with the float model's choice.
    choices, net = choices_of(model), net_of_choices(quantized.net)
    units = quantized.units
    layers = sorted(set(units.values()) - {units["normalized/output"]})

    @tf.function(autograph=False)
    def run(batch: Any, given: Any, chosen: Any) -> Any:
        def switch(name: str, values: Any, fake: Any) -> Any:
            unit = units[name]
            return tf.where(tf.equal(chosen, layers.index(unit)), fake, values) if unit in layers else values

        with observed(switch):
            return net([quantized.normalized(batch), *given], training=False)

    batches = [tf.constant(images[i : i + batch_size], tf.float32) for i in range(0, len(images), batch_size)]
    boxes = [[model(batch, training=False)[name] for name in choices] for batch in batches]

    def outputs(chosen: int) -> dict[str, np.ndarray]:
        parts = [run(*inputs, tf.constant(chosen)) for inputs in zip(batches, boxes, strict=True)]
        return {name: np.concatenate([part[name] for part in parts]) for name in parts[0]}

    exact = outputs(-1)
    found = []
    for index, layer in enumerate(layers):
        error = outputs(index)
        noise = sum(float(np.mean((error[key] - exact[key]) ** 2) / (np.var(exact[key]) + 1e-12)) for key in exact)
        found.append(LayerError(layer, noise))
    return sorted(found, key=lambda entry: -entry.noise)
