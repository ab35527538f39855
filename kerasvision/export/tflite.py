"""TFLite files: float32, float16, dynamic range, int8 by calibration, int8 from quantization-aware training."""

import contextlib
from pathlib import Path
from typing import Any

import numpy as np

from kerasvision.choices import choices_of
from kerasvision.errors import ExportError
from kerasvision.export.engines import Engine, open_engine
from kerasvision.export.job import Job
from kerasvision.export.join import join_decode
from kerasvision.export.metadata import model_metadata
from kerasvision.export.process import converter
from kerasvision.export.rewrite import halve_constants, shorten_names
from kerasvision.export.saved_model import (
    Graph,
    decode_graph,
    image_shape,
    integer_net_graph,
    is_quantized,
    net_graph,
    output_layers,
    raw_shapes,
    unequal_biases,
    write_graph,
)
from kerasvision.export.tflite_metadata import pack_tflite


def write_tflite(job: Job) -> None:
    """Convert, check that the input is raw pixels, and pack labels and metadata.

    Raises:
        ExportError: the conversion failed.
    """
    pack_tflite(job.path, model_metadata(job.model, job.quantization, convert(job, job.path)))


def convert(job: Job, target: Path) -> dict[str, Any]:
    """Write a bare `.tflite` file.

    A task that decodes in float32 gets net and decoding from conversions of their own, joined: no quantization reaches
    into the decoding, whatever ops it is made of.

    Returns:
        Its signature: {"inputs": {name: TensorSpec config}, "outputs": {...}}.

    Raises:
        ExportError: the conversion failed, or 16-bit activations of a net that chooses boxes inside.
    """
    model = job.model
    if job.quantization == "int16x8" and (names := choices_of(model.net)):
        raise ExportError(
            f"{model.name} chooses boxes inside of its net ({', '.join(names)}), in float, and the converter leaves "
            'nothing in float for 16-bit activations. Take "int8", or train kerasvision.quantize(model) for "qat".'
        )
    integer, apart = is_quantized(model), model.task.float_decode
    net = integer_net_graph(model) if integer else net_graph(model)
    decode = decode_graph(model.task)
    file = job.scratch / "net.tflite" if apart else target
    graph = net if apart else lambda image: decode(**net(image))
    with unequal_biases(model) if integer else contextlib.nullcontext():
        signature = _run_converter(job, graph, image_shape(model), file, job.quantization)
    if integer:
        if model.islands:
            halve_constants(file)
        shorten_names(file, {layer.name.removeprefix("quant_") for layer in model.net.layers})
    if apart:
        behind = job.scratch / "decode.tflite"
        decoded = _run_converter(job, decode, raw_shapes(model), behind, "none")
        join_decode(file, behind, target, output_layers(model))
        signature = {"inputs": signature["inputs"], "outputs": decoded["outputs"]}
    if not integer:
        return signature
    engine = open_engine(target)
    _check_input(engine, model)
    return engine.signature


def _run_converter(
    job: Job, graph: Graph, inputs: dict[str, tuple[int, ...]], target: Path, quantization: str
) -> dict[str, Any]:
    folder, task = job.scratch / f"{target.stem}_graph", job.model.task
    signature = write_graph(graph, inputs, folder)
    calibration = None
    if quantization == "int16x8" and job.calibration is not None:
        calibration = job.scratch / "calibration.npy"
        np.save(calibration, job.calibration)
    converter.call(
        f"The conversion of {job.model.name} to TFLite ({job.quantization})",
        "saved_model_to_tflite",
        job.waiting,
        saved_model=str(folder),
        target=str(target),
        quantization=quantization,
        calibration=calibration and str(calibration),
        # Indices are bytes already: where they are all that is given, nothing is left to be made bytes.
        float_outputs=task.float_decode or signature["outputs"].keys() <= {*task.indices},
    )
    return signature


def _check_input(engine: Engine, model: Any) -> None:
    """Make sure that the bytes of the input are raw pixels.

    Raises:
        ExportError: scale or zero point stand for something else.
    """
    scale, zero_point = model.input_quantization or (1.0, 0)
    got = engine.input
    if got.dtype != "uint8" or got.scale is None or abs(got.scale / scale - 1) > 1e-4 or got.zero_point != zero_point:
        raise ExportError(
            f"The converted file does not take raw pixels: expected a uint8 input of scale {scale:.7g} and zero point "
            f"{zero_point}, got {got.dtype} of scale {got.scale} and zero point {got.zero_point}. "
            "A layer next to the input changed its range; please report it."
        )
