"""The one way into every format: preprocessing, net and decode as a SavedModel with a named, static signature."""

import contextlib
import math
import re
import sys
from collections.abc import Callable, Iterator, Mapping
from pathlib import Path
from typing import Any

import keras
import numpy as np
import tensorflow as tf
from keras import ops

from kerasvision.choices import choices_of, net_of_choices
from kerasvision.errors import ExportError
from kerasvision.export.engines import SIGNATURE, TensorSpec
from kerasvision.export.job import Job
from kerasvision.export.metadata import EXTRA_ASSETS, FACTS, LABELS, facts_text, labels_text, model_metadata
from kerasvision.task import Task, TaskModel

PIXELS_AT_ONCE = 16
Graph = Callable[..., dict[str, Any]]


def is_quantized(model: Any) -> bool:
    """Whether this is a QuantizedModel; asks without loading TFMOT."""
    module = sys.modules.get("kerasvision.compress.qat")
    return module is not None and isinstance(model, module.QuantizedModel)


def in_float32(model: TaskModel) -> TaskModel:
    """The model itself, or a float32 copy of one that was built under a mixed precision policy."""
    if all(layer.compute_dtype in (None, "float32") for layer in model.layers):
        return model
    policy = keras.config.dtype_policy()
    keras.config.set_dtype_policy("float32")
    try:
        copy = TaskModel.from_config(model.get_config())
    finally:
        keras.config.set_dtype_policy(policy)
    copy.set_weights(model.get_weights())
    copy.fit_data = model.fit_data
    return copy


def net_graph(model: Any) -> Graph:
    """Raw pixels, float32 [B, H, W, C] -> raw outputs; for a QuantizedModel fake-quantized."""
    return lambda image: model(image, training=False)


def graph_of_choices(model: Any) -> Graph:
    """Raw pixels and the choices that a net has made, by name -> its other raw outputs; see `kerasvision.choices`."""
    names, net = choices_of(model.net), net_of_choices(model.net)
    normalized = model.normalized if is_quantized(model) else model.get_layer("preprocessing")
    return lambda image, **choices: net([normalized(image), *(choices[name] for name in names)], training=False)


def decode_graph(task: Task) -> Graph:
    """Raw outputs, by name -> decoded outputs in float32, which readers of files expect; `Task.indices` in uint8."""
    return lambda **outputs: {
        name: ops.cast(values, "uint8" if name in task.indices else "float32")
        for name, values in task.decode(outputs).items()
    }


def float_graph(model: Any) -> Graph:
    """Raw pixels, float32 [B, H, W, C] -> decoded outputs; for a QuantizedModel fake-quantized."""
    net, decode = net_graph(model), decode_graph(model.task)
    return lambda image: decode(**net(image))


def integer_net_graph(model: Any) -> Graph:
    """The graph that an integer file's net is converted from, of a QuantizedModel: image -> raw outputs.

    Where a uint8 tensor can carry the preprocessing in its scale and zero point (`input_quantization`), it starts at
    the normalized image; else at raw pixels, with a depthwise convolution of one factor and one addend for
    each channel: per-channel int8 factors are exact there, which those of an int8 multiplication are not.
    """
    if model.input_quantization is not None:
        return lambda image: model.net(image, training=False)
    height, width = model.image_size
    # Several pixels side by side fill a vector register, which the channels of one do not.
    side = math.gcd(height * width, PIXELS_AT_ONCE)
    channels = model.channels
    scale = np.broadcast_to(np.float32(model.preprocessing.scale), channels)
    offset = np.broadcast_to(np.float32(model.preprocessing.offset), channels)
    factors, addends = np.tile(scale, side), np.tile(offset, side)  # [side * C]
    addends = addends * unequal(len(addends))

    def net(image: Any) -> dict[str, Any]:
        pixels = tf.reshape(tf.quantization.fake_quant_with_min_max_args(image, 0.0, 255.0), [1, -1, 1, len(factors)])
        weights = tf.quantization.fake_quant_with_min_max_vars_per_channel(
            factors[None, None], -factors, factors, narrow_range=True
        )
        weights = tf.reshape(weights, [1, 1, len(factors), 1])
        normalized = tf.nn.depthwise_conv2d(pixels, weights, [1, 1, 1, 1], "VALID", name="preprocessing")
        normalized = tf.reshape(tf.nn.bias_add(normalized, addends), [1, height, width, channels])
        return model.net(normalized, training=False)

    return net


def raw_shapes(model: Any) -> dict[str, tuple[int, ...]]:
    """Raw output -> its shape at batch 1."""
    return {name: (1, *tensor.shape[1:]) for name, tensor in model.net.output.items()}


def output_layers(model: Any) -> dict[str, str]:
    """Raw output -> name of the layer that gives it."""
    return {name: tensor._keras_history[0].name.removeprefix("quant_") for name, tensor in model.net.output.items()}


def unequal(count: int) -> np.ndarray:
    """Factors next to 1: the converter takes one scale for all channels of an addend whose values are all equal."""
    return 1 + 1e-6 * np.arange(count, dtype=np.float32)


@contextlib.contextmanager
def unequal_biases(model: Any) -> Iterator[None]:
    """Biases of a QuantizedModel that are all equal, such as the prior of a detector's classes, differ for a while."""
    biases = [weight for weight in model.net.weights if re.search(r"bias(:0)?$", weight.name)]
    values = [bias.numpy() for bias in biases]
    equal = [(bias, own) for bias, own in zip(biases, values, strict=True) if own.size and own[0] and np.ptp(own) == 0]
    try:
        for bias, own in equal:
            bias.assign(own * unequal(own.size))
        yield
    finally:
        for bias, own in equal:
            bias.assign(own)


def write_saved_model(job: Job) -> None:
    """Write the SavedModel that users get: raw pixels in, decoded outputs out, labels and metadata beside.

    Raises:
        ExportError: it could not be written.
    """
    signature = write_graph(float_graph(job.model), image_shape(job.model), job.path)
    facts = model_metadata(job.model, job.quantization, signature)
    assets = job.path / EXTRA_ASSETS
    assets.mkdir()
    (assets / FACTS).write_text(facts_text(facts), "utf-8")
    (assets / LABELS).write_text(labels_text(facts), "utf-8")


def image_shape(model: Any) -> dict[str, tuple[int, ...]]:
    """{"image": (1, H, W, C)}."""
    return {"image": (1, *model.image_size, model.channels)}


def write_graph(graph: Graph, inputs: Mapping[str, tuple[int, ...]], folder: Path) -> dict[str, Any]:
    """Trace a graph at batch 1 and save it with named inputs and outputs.

    Args:
        graph: what is saved; takes the inputs by name.
        inputs: name -> shape, all float32.
        folder: SavedModel folder to write.

    Returns:
        {"inputs": {name: TensorSpec config}, "outputs": {...}}.

    Raises:
        ExportError: it could not be written.
    """
    specs = {name: tf.TensorSpec(shape, tf.float32, name=name) for name, shape in inputs.items()}
    concrete = tf.function(graph, autograph=False).get_concrete_function(**specs)
    module = tf.Module()
    # Only what the graph reads is saved: no optimizer, no seeds of dropout layers.
    module.graph_variables = list(concrete.graph.variables)
    try:
        tf.saved_model.save(module, str(folder), signatures={SIGNATURE: concrete})
    except tf.errors.OpError as error:
        raise ExportError(f"TensorFlow could not write the SavedModel {folder.name}: {error.message}") from error
    outputs = {name: TensorSpec(tuple(out.shape), out.dtype.name) for name, out in concrete.structured_outputs.items()}
    return {
        "inputs": {name: TensorSpec(tuple(spec.shape), "float32").get_config() for name, spec in specs.items()},
        "outputs": {name: output.get_config() for name, output in outputs.items()},
    }
