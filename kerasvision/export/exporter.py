"""`export`: from a model to a file that was run again and found to do the same."""

import dataclasses
import re
import tempfile
import time
from collections.abc import Callable, Collection, Iterable, Sequence
from pathlib import Path
from typing import Any

import keras
import numpy as np
import tensorflow as tf

from kerasvision.errors import ExportError, UnknownNameError, closest
from kerasvision.export import coverage, parity
from kerasvision.export.atomic import staged
from kerasvision.export.detections import Verdict, check_detector
from kerasvision.export.engines import Engine, open_engine
from kerasvision.export.explain import explain as explain_layers
from kerasvision.export.job import Job
from kerasvision.export.onnx import write_onnx
from kerasvision.export.process import converter
from kerasvision.export.report import ExportReport
from kerasvision.export.samples import batches_of, draw_samples, synthetic_images
from kerasvision.export.saved_model import float_graph, in_float32, is_quantized, write_saved_model
from kerasvision.export.tflite import write_tflite
from kerasvision.export.timing import size_of, time_engine, zip_size_of
from kerasvision.progress import progress
from kerasvision.task import Task, TaskModel

RUNS = 50
EXPLAINED = 8
# Files that compute what the model computes, up to rounding; the others are expected to differ.
EXACT = ("none", "int8", "qat")


@dataclasses.dataclass(frozen=True)
class Format:
    """A row of the table of formats.

    Args:
        filename: of the file.
        write: what writes it.
        integer: whether it takes and gives bytes.
        fixed_point: whether it computes in integers inside.
    """

    filename: str
    write: Callable[[Job], None]
    integer: bool = False
    fixed_point: bool = False


FORMATS = {
    ("saved_model", "none"): Format("model_saved_model", write_saved_model),
    ("saved_model", "qat"): Format("model_qat_saved_model", write_saved_model),
    ("tflite", "none"): Format("model_float32.tflite", write_tflite),
    ("tflite", "float16"): Format("model_float16.tflite", write_tflite),
    ("tflite", "dynamic"): Format("model_dynamic.tflite", write_tflite),
    ("tflite", "int8"): Format("model_int8_ptq.tflite", write_tflite, integer=True, fixed_point=True),
    ("tflite", "int16x8"): Format("model_int16x8.tflite", write_tflite, fixed_point=True),
    ("tflite", "qat"): Format("model_int8.tflite", write_tflite, integer=True, fixed_point=True),
    ("onnx", "none"): Format("model.onnx", write_onnx),
    ("onnx", "int8"): Format("model_int8_ptq.onnx", write_onnx, integer=True, fixed_point=True),
    ("onnx", "qat"): Format("model_int8.onnx", write_onnx, integer=True, fixed_point=True),
}


def export(
    model: Any,
    directory: str | Path,
    *,
    format: str = "tflite",
    quantization: str | None = None,
    data: Any = None,
    samples: int = 64,
    calibration: int = 200,
    float_layers: int | Collection[str] = 0,
    threads: int = 2,
    benchmark: bool = True,
    metric_data: Any = None,
    explain: bool = False,
) -> ExportReport:
    """Write a model file, run it again, and compare it with the model.

    The file takes raw pixels of 0..255 ("image", [1, H, W, C]) and gives decoded outputs under their names;
    preprocessing, labels and signature travel inside. A file that fails a check is not kept.

    Args:
        model: from `create_model` or `quantize`.
        directory: where the file goes; its name follows from format and quantization.
        format: "tflite", "saved_model" or "onnx".
        quantization: "none", "float16", "dynamic", "int8" or "int16x8" (both by calibration; the second with 16-bit
            activations) for a model of `create_model`; "qat" for one of `quantize`. "qat" or "none" when None,
            whichever fits.
        data: data set of (images, targets) to take samples from; what `fit` was last given when None, and synthetic
            images where there is none.
        samples: number of images on which file and model are compared.
        calibration: number of images from which "int8" and "int16x8" take their ranges.
        float_layers: of "int8": how many layers stay in float, those whose quantization costs most (`sensitivity`), or
            the names of such layers. Their weights are stored as float16; the report names them.
        threads: CPU threads of the checks and the benchmark.
        benchmark: whether to measure the latency.
        metric_data: data set of (images, targets) on which the task's metrics of file and model are computed.
        explain: whether to compare every layer of an int8 `.tflite` file with the model it was made from.

    Raises:
        ExportError: the conversion failed, the file differs from the model, computes in float where it should not, or
            could not be written. Nothing is left behind then, and an older file of that name stays.
        UnknownNameError: no such format or quantization.
        QuantizationError: a quantized model that was never trained.
        ImportError: "onnx" without the extra of that name.
    """
    start = time.monotonic()
    row, quantization = _choose(model, format, quantization, float_layers)
    if explain and not (format == "tflite" and row.integer):
        raise ExportError(f'explain compares the layers of an int8 TFLite file, not of "{format}" "{quantization}".')
    if format != "saved_model":
        converter.start()
    given = model if is_quantized(model) else in_float32(model)
    images, source, calibration_images = _samples(given, quantization, data, samples, calibration)
    target = Path(directory) / row.filename

    with progress(f"Exporting {row.filename}", 5) as advance, staged(target) as path:
        model = _calibrated(given, calibration_images, float_layers) if quantization == "int8" else given
        advance(1)
        with tempfile.TemporaryDirectory(prefix="kerasvision-export-") as folder:
            scratch = Path(folder)
            row.write(Job(model, quantization, path, scratch, calibration_images, lambda: advance(0)))
            advance(1)
            islands = tuple(getattr(model, "islands", ()))
            ops, decode_ops, float_ops = _cover(path, row, model, islands) if format == "tflite" else ({}, {}, [])
            advance(1)
            engine = open_engine(path, threads)
            reference = _reference(model, rounded=row.integer)
            verdict = _compare(model, engine, row, images, reference, scratch, quantization in EXACT)
        metrics, reference_metrics = {}, {}
        if metric_data is not None:
            reference = reference if given is model else _reference(given, rounded=row.integer)
            runs = (engine.run, reference)
            metrics, reference_metrics = _measure(model.task, runs, batches_of(metric_data, _shape(given)))
        advance(1)
        layers = explain_layers(path, model, images[:EXPLAINED]) if explain else []
        latency = time_engine(engine, threads, RUNS) if benchmark else {}
        advance(1)
        size, zipped = size_of(path), zip_size_of(path)
        signature = engine.signature
    return ExportReport(
        path=target,
        format=format,
        quantization=quantization,
        signature=signature,
        size_bytes=size,
        zip_bytes=zipped,
        parameters=_parameters(model),
        labels=tuple(model.labels),
        samples=len(images),
        samples_source=source,
        parity=verdict.parity,
        detections=verdict.detections,
        metrics=metrics,
        reference_metrics=reference_metrics,
        latency=latency,
        ops=ops,
        decode_ops=decode_ops,
        float_ops=float_ops,
        islands=islands,
        layers=[dataclasses.asdict(layer) for layer in layers],
        seconds=time.monotonic() - start,
    )


def _choose(
    model: Any, format: str, quantization: str | None, float_layers: int | Collection[str]
) -> tuple[Format, str]:
    """The table's row, and the quantization's name."""
    if keras.backend.backend() != "tensorflow":
        raise ExportError(
            f"Export needs Keras's TensorFlow backend, this process runs on {keras.backend.backend()}. "
            "Save the model, and export it in a process with KERAS_BACKEND=tensorflow."
        )
    if not is_quantized(model) and not isinstance(model, TaskModel):
        raise TypeError(
            f"export expects a model of kerasvision.create_model or kerasvision.quantize, got {type(model).__name__}."
        )
    if isinstance(model, TaskModel):
        model.check_graph()
    names = {name for name, _ in FORMATS}
    if format not in names:
        raise UnknownNameError(f'There is no export format "{format}".{closest(format, names)}')
    quantization = quantization or ("qat" if is_quantized(model) else "none")
    known = [of for name, of in FORMATS if name == format]
    if quantization not in known:
        raise UnknownNameError(
            f'There is no quantization "{quantization}" for "{format}"; there is: {", ".join(known)}.'
        )
    if quantization == "qat" and not is_quantized(model):
        raise ExportError(
            'Quantization "qat" needs a model that was trained for it: quantized = kerasvision.quantize(model); '
            "quantized.compile('adam'); quantized.fit(train, epochs=2); then export that one."
        )
    if quantization != "qat" and is_quantized(model):
        raise ExportError(
            f'A quantized model exports as "qat" only, not as "{quantization}". Export the model it was made from.'
        )
    if float_layers and quantization != "int8":
        raise ExportError(
            f'float_layers is for quantization "int8", not for "{quantization}". For quantization-aware training, name '
            "them before it: kerasvision.quantize(model, islands=[...])."
        )
    if is_quantized(model):
        model.check_trained()
    return FORMATS[format, quantization], quantization


def _calibrated(model: TaskModel, images: Any, float_layers: int | Collection[str]) -> Any:
    """The model fake-quantized, with ranges from images."""
    from kerasvision.compress import quantize, sensitivity

    islands = float_layers
    if isinstance(islands, int):
        worst = sensitivity(model, images) if islands else []
        islands = [entry.layer for entry in worst[:islands]]
    quantized = quantize(model, islands=islands)
    quantized.calibrate(images)
    return quantized


def _shape(model: Any) -> tuple[int, int, int]:
    return (*model.image_size, model.channels)


def _samples(
    model: Any, quantization: str, data: Any, samples: int, calibration: int
) -> tuple[np.ndarray, str, np.ndarray | None]:
    """Images to compare on, where they come from, and images to calibrate with."""
    if samples < 1 or calibration < 1:
        raise ValueError(f"samples and calibration must be at least 1, got {samples} and {calibration}.")
    data = model.fit_data if data is None else data
    calibrated = quantization in ("int8", "int16x8")
    if data is None:
        if calibrated:
            raise ExportError(
                f'Quantization "{quantization}" takes its ranges from real images, and there are none: '
                "pass data=..., a data set of (images, targets)."
            )
        return synthetic_images(samples, _shape(model)), "synthetic", None
    wanted = max(samples, calibration) if calibrated else samples
    images = draw_samples(data, wanted, _shape(model))
    return images[:samples], "data", images[:calibration] if calibrated else None


def _cover(
    path: Path, row: Format, model: Any, islands: tuple[str, ...]
) -> tuple[dict[str, int], dict[str, int], list[dict[str, str]]]:
    """Ops of a `.tflite` file, those of them that decode, and in an integer file the float ops of declared islands.

    Raises for others.
    """
    graph = coverage.read_graph(path)
    known = _layer_names(model)
    undeclared = coverage.float_ops(graph, known, islands) if row.fixed_point else []
    coverage.check_coverage(graph, undeclared, row.filename)
    declared = coverage.float_ops(graph, known) if row.fixed_point else []
    decode = coverage.op_histogram(coverage.decode_part(graph, known))
    return coverage.op_histogram(graph), decode, [dataclasses.asdict(op) for op in declared]


def _compare(
    model: Any,
    engine: Engine,
    row: Format,
    images: np.ndarray,
    reference: Callable[[np.ndarray], dict[str, np.ndarray]],
    scratch: Path,
    exact: bool,
) -> Verdict:
    """How far the file is from the model; raises where that is too far."""
    if model.task.float_decode:
        return check_detector(model, engine, images, scratch, row.filename, exact)
    indices = model.task.indices
    differences = parity.compare(engine.run(images), reference(images), engine.outputs_quantization, indices)
    carried = _carried_steps(model, images, engine) if row.integer and is_quantized(model) else {}
    parity.check_parity(differences, row.integer, row.filename, carried, exact=exact, indices=indices)
    return Verdict(differences, {})


def _layer_names(model: Any) -> set[str]:
    return {layer.name.removeprefix("quant_") for layer in (model.net if is_quantized(model) else model).layers}


def _reference(model: Any, rounded: bool) -> Callable[[np.ndarray], dict[str, np.ndarray]]:
    """What the model itself says; of whole pixels, where the file takes uint8."""
    function = tf.function(float_graph(model), autograph=False)

    def run(images: np.ndarray) -> dict[str, np.ndarray]:
        pixels = np.clip(np.rint(images), 0, 255) if rounded else images
        return parity.in_batches(function, pixels.astype(np.float32))

    return run


def _measure(task: Task, runs: Sequence[Callable[[np.ndarray], Any]], batches: Iterable[Any]) -> list[dict[str, float]]:
    """The task's figures of what each of the functions makes of the images."""
    meters = [task.meter() for _ in runs]
    empty = True
    for images, targets in batches:
        if not isinstance(targets, dict):
            raise ExportError(
                f"metric_data must give (images, targets) with a dict of targets, such as {{'label': ...}}, "
                f"got {type(targets).__name__}."
            )
        empty = False
        arrays = {name: np.asarray(value) for name, value in targets.items()}
        for meter, run in zip(meters, runs, strict=True):
            meter.update(arrays, run(images))
    if empty:
        raise ExportError("metric_data holds no images. Give a data set of (images, targets).")
    return [meter.result() for meter in meters]


def _carried_steps(model: Any, images: np.ndarray, engine: Engine) -> dict[str, float]:
    raw = parity.in_batches(tf.function(model.call, autograph=False), np.rint(images).astype(np.float32))
    task = model.task
    return parity.carried_steps(task.decode, raw, model.output_steps(), engine.outputs_quantization, task.indices)


def _parameters(model: Any) -> int:
    """Parameters of the net, without the ranges that fake quantization keeps."""
    if not is_quantized(model):
        return int(model.count_params())
    extra = re.compile(r"(_min|_max|_batches|optimizer_step)(:0)?$")
    return sum(int(np.prod(weight.shape)) for weight in model.net.weights if not extra.search(weight.name))
