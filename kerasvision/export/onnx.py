"""ONNX files: float by tf2onnx from the SavedModel, int8 from the int8 TFLite file (QDQ), which it matches."""

import importlib.util
from collections.abc import Iterable
from pathlib import Path
from typing import Any

from kerasvision.export.job import Job
from kerasvision.export.join import show_raw_outputs
from kerasvision.export.metadata import FACTS, LABELS, facts_text, labels_text, model_metadata
from kerasvision.export.process import converter
from kerasvision.export.saved_model import decode_graph, image_shape, net_graph, raw_shapes, write_graph
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
        folder = job.scratch / "graph"
        graph, decode = net_graph(job.model), decode_graph(job.model.task)

        def both(image: Any) -> dict[str, Any]:
            raw = graph(image)
            return {**decode(**raw), **raw}

        signature = write_graph(both, image_shape(job.model), folder)
        converter.call(what, "saved_model_to_onnx", job.waiting, saved_model=str(folder), target=str(job.path))
    else:
        tflite = job.scratch / "model.tflite"
        signature = convert(job, tflite)
        if job.model.task.float_decode:
            show_raw_outputs(tflite, tflite)
        converter.call(what, "tflite_to_onnx", job.waiting, tflite=str(tflite), target=str(job.path))
    for name in raw_shapes(job.model):
        signature["outputs"].pop(name, None)
    pack_onnx(job.path, model_metadata(job.model, job.quantization, signature))


def pack_onnx(path: Path, facts: dict[str, Any]) -> None:
    """Put kerasvision.json and labels.txt into the file's metadata_props, and leave its signature's outputs only.

    The raw outputs were outputs while it was converted: no optimization has taken their names.
    """
    import onnx

    model = onnx.load(str(path))
    outputs = [value for value in model.graph.output if value.name in facts["signature"]["outputs"]]
    del model.graph.output[:]
    model.graph.output.extend(outputs)
    onnx.helper.set_model_props(model, {FACTS: facts_text(facts), LABELS: labels_text(facts)})
    onnx.save(model, str(path))


def show_raw_outputs_of_onnx(path: Path, target: Path, names: Iterable[str]) -> None:
    """Write a file that gives the net's raw outputs beside the decoded ones; its nodes are the same.

    Args:
        path: of a file by `write_onnx`.
        target: file to write.
        names: of the raw outputs.
    """
    import onnx

    model = onnx.load(str(path))
    model.graph.output.extend(onnx.helper.make_empty_tensor_value_info(name) for name in names)
    onnx.save(model, str(target))
