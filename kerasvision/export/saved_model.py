"""The one way into every format: preprocessing, net and decode as a SavedModel with a named, static signature."""

import math
import sys
from collections.abc import Callable
from pathlib import Path
from typing import Any

import keras
import numpy as np
import tensorflow as tf

from kerasvision.errors import ExportError
from kerasvision.export.engines import SIGNATURE, TensorSpec
from kerasvision.export.job import Job
from kerasvision.export.metadata import EXTRA_ASSETS, FACTS, LABELS, facts_text, labels_text, model_metadata
from kerasvision.task import TaskModel

PIXELS_AT_ONCE = 16
Decode = Callable[[Any], dict[str, Any]]


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


def float_graph(model: Any) -> Decode:
    """Raw pixels, float32 [B, H, W, C] -> decoded outputs; for a QuantizedModel fake-quantized."""
    return lambda image: model.task.decode(model(image, training=False))


def integer_graph(model: Any) -> Decode:
    """The graph that an integer file is converted from, of a QuantizedModel.

    Where a uint8 tensor can carry the preprocessing in its scale and zero point (`input_quantization`), it starts at
    the normalized image; else at raw pixels, with a depthwise convolution of one factor and one addend for
    each channel: per-channel int8 factors are exact there, which those of an int8 multiplication are not.
    """
    if model.input_quantization is not None:
        return lambda image: model.task.decode(model.net(image, training=False))
    height, width = model.image_size
    # Several pixels side by side fill a vector register, which the channels of one do not.
    side = math.gcd(height * width, PIXELS_AT_ONCE)
    channels = model.channels
    scale = np.broadcast_to(np.float32(model.preprocessing.scale), channels)
    offset = np.broadcast_to(np.float32(model.preprocessing.offset), channels)
    factors, addends = np.tile(scale, side), np.tile(offset, side)  # [side * C]
    addends = addends * unequal(len(addends))

    def decode(image: Any) -> dict[str, Any]:
        pixels = tf.reshape(tf.quantization.fake_quant_with_min_max_args(image, 0.0, 255.0), [1, -1, 1, len(factors)])
        weights = tf.quantization.fake_quant_with_min_max_vars_per_channel(
            factors[None, None], -factors, factors, narrow_range=True
        )
        weights = tf.reshape(weights, [1, 1, len(factors), 1])
        normalized = tf.nn.depthwise_conv2d(pixels, weights, [1, 1, 1, 1], "VALID", name="preprocessing")
        normalized = tf.reshape(tf.nn.bias_add(normalized, addends), [1, height, width, channels])
        return model.task.decode(model.net(normalized, training=False))

    return decode


def unequal(count: int) -> np.ndarray:
    """Factors next to 1: the converter takes one scale for all channels of an addend whose values are all equal."""
    return 1 + 1e-6 * np.arange(count, dtype=np.float32)


def write_saved_model(job: Job) -> None:
    """Write the SavedModel that users get: raw pixels in, decoded outputs out, labels and metadata beside.

    Raises:
        ExportError: it could not be written.
    """
    signature = write_graph(float_graph(job.model), job.model, job.path)
    facts = model_metadata(job.model, job.quantization, signature)
    assets = job.path / EXTRA_ASSETS
    assets.mkdir()
    (assets / FACTS).write_text(facts_text(facts), "utf-8")
    (assets / LABELS).write_text(labels_text(facts), "utf-8")


def write_graph(decode: Decode, model: Any, folder: Path) -> dict[str, Any]:
    """Trace a graph at batch 1 and save it with the signature image -> decoded outputs.

    Args:
        decode: float32 [1, H, W, C] -> name -> tensor.
        model: TaskModel or QuantizedModel, for the input's shape.
        folder: SavedModel folder to write.

    Returns:
        {"inputs": {"image": TensorSpec config}, "outputs": {...}}.

    Raises:
        ExportError: it could not be written.
    """
    spec = tf.TensorSpec((1, *model.image_size, model.channels), tf.float32, name="image")
    concrete = tf.function(decode, input_signature=[spec], autograph=False).get_concrete_function()
    module = tf.Module()
    # Only what the graph reads is saved: no optimizer, no seeds of dropout layers.
    module.graph_variables = list(concrete.graph.variables)
    try:
        tf.saved_model.save(module, str(folder), signatures={SIGNATURE: concrete})
    except tf.errors.OpError as error:
        raise ExportError(f"TensorFlow could not write the SavedModel {folder.name}: {error.message}") from error
    outputs = {name: TensorSpec(tuple(out.shape), out.dtype.name) for name, out in concrete.structured_outputs.items()}
    return {
        "inputs": {"image": TensorSpec(tuple(spec.shape), spec.dtype.name).get_config()},
        "outputs": {name: output.get_config() for name, output in outputs.items()},
    }
