"""ONNX files: float by tf2onnx from the SavedModel, int8 from the int8 TFLite file (QDQ), which it matches."""

import importlib.util
from pathlib import Path
from typing import Any

from kerasvision.export.job import Job
from kerasvision.export.metadata import FACTS, LABELS, facts_text, labels_text, model_metadata
from kerasvision.export.process import converter
from kerasvision.export.saved_model import float_graph, write_graph
from kerasvision.export.tflite import convert


def write_onnx(job: Job) -> None:
    """Convert, and pack labels and metadata.

    Raises:
        ExportError: the conversion failed.
        ImportError: the extra "onnx" is missing.
    """
    missing = [name for name in ("tf2onnx", "onnx", "onnxruntime") if importlib.util.find_spec(name) is None]
    if missing:
        raise ImportError(f'Export to ONNX needs {" and ".join(missing)}: pip install "kerasvision[onnx]"')
    what = f"The conversion of {job.model.name} to ONNX ({job.quantization})"
    if job.quantization == "none":
        graph = job.scratch / "graph"
        signature = write_graph(float_graph(job.model), job.model, graph)
        converter.call(what, "saved_model_to_onnx", job.waiting, saved_model=str(graph), target=str(job.path))
    else:
        tflite = job.scratch / "model.tflite"
        signature = convert(job, tflite)
        converter.call(what, "tflite_to_onnx", job.waiting, tflite=str(tflite), target=str(job.path))
    pack_onnx(job.path, model_metadata(job.model, job.quantization, signature))


def pack_onnx(path: Path, facts: dict[str, Any]) -> None:
    """Put kerasvision.json and labels.txt into the file's metadata_props."""
    import onnx

    model = onnx.load(str(path))
    onnx.helper.set_model_props(model, {FACTS: facts_text(facts), LABELS: labels_text(facts)})
    onnx.save(model, str(path))
