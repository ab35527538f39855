"""TFLite files: float32, float16, dynamic range, int8 by calibration, int8 from quantization-aware training."""

from pathlib import Path
from typing import Any

import numpy as np

from kerasvision.errors import ExportError
from kerasvision.export.engines import Engine, open_engine
from kerasvision.export.job import Job
from kerasvision.export.metadata import model_metadata
from kerasvision.export.process import converter
from kerasvision.export.rewrite import halve_constants, shorten_names
from kerasvision.export.saved_model import float_graph, integer_graph, is_quantized, write_graph
from kerasvision.export.tflite_metadata import pack_tflite


def write_tflite(job: Job) -> None:
    """Convert, check that the input is raw pixels, and pack labels and metadata.

    Raises:
        ExportError: the conversion failed.
    """
    pack_tflite(job.path, model_metadata(job.model, job.quantization, convert(job, job.path)))


def convert(job: Job, target: Path) -> dict[str, Any]:
    """Write a bare `.tflite` file.

    Returns:
        Its signature: {"inputs": {name: TensorSpec config}, "outputs": {...}}.
    """
    integer = is_quantized(job.model)
    graph = job.scratch / "graph"
    signature = write_graph(integer_graph(job.model) if integer else float_graph(job.model), job.model, graph)
    calibration = None
    if job.quantization == "int16x8" and job.calibration is not None:
        calibration = job.scratch / "calibration.npy"
        np.save(calibration, job.calibration)
    converter.call(
        f"The conversion of {job.model.name} to TFLite ({job.quantization})",
        "saved_model_to_tflite",
        job.waiting,
        saved_model=str(graph),
        target=str(target),
        quantization=job.quantization,
        calibration=calibration and str(calibration),
    )
    if not integer:
        return signature
    if job.model.islands:
        halve_constants(target)
    shorten_names(target, {layer.name.removeprefix("quant_") for layer in job.model.net.layers})
    engine = open_engine(target)
    _check_input(engine, job.model)
    return engine.signature


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
