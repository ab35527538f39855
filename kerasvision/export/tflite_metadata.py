"""Standard TFLite metadata: what TFLite Task Library, MediaPipe and Android Studio read from a `.tflite` file.

Format: https://ai.google.dev/edge/litert/conversion/tensorflow/metadata, schema `metadata_schema.fbs`: a
flatbuffer "M001" in a buffer of the model, and the files it names in a zip archive behind the model.
"""

import zipfile
from collections.abc import Collection
from pathlib import Path
from typing import Any

import flatbuffers
import numpy as np
from ai_edge_litert import schema_py_generated as schema

from kerasvision.export.metadata import FACTS, LABELS, facts_text, labels_text
from kerasvision.export.rewrite import read_model, write_model

BUFFER = "TFLITE_METADATA"
IDENTIFIER = b"M001"
MIN_PARSER_VERSION = "1.0.0"

# Enum values of the schema.
_FEATURE_PROPERTIES, _IMAGE_PROPERTIES, _BOX_PROPERTIES = 1, 2, 3
_RGB, _GRAYSCALE = 1, 2
_NORMALIZATION_OPTIONS = 1
_DESCRIPTIONS, _TENSOR_AXIS_LABELS, _TENSOR_VALUE_LABELS = 1, 2, 3
_BOUNDARIES, _RATIO = 1, 0
# What readers call a detector's outputs.
_DETECTIONS = {"boxes": "location", "classes": "category", "scores": "score", "count": "number of detections"}
_ABOUT = {
    "boxes": "Left, top, right, bottom of each detection, as shares of the image's width and height.",
    "classes": "Which label each detection has, counted from 0.",
    "scores": "Score of each detection in 0..1, falling.",
    "count": "Number of detections; what stands behind them is 0.",
}


class _Builder(flatbuffers.Builder):
    """Builder that writes tables from {slot: value}."""

    def table(self, offsets: dict[int, int], *numbers: tuple[str, int, int]) -> int:
        """A table of slot -> offset of another object, and (type name, slot, value)."""
        slots = [*offsets, *(slot for _, slot, _ in numbers)]
        self.StartObject(max(slots, default=-1) + 1)
        for slot, offset in offsets.items():
            self.PrependUOffsetTRelativeSlot(slot, offset, 0)
        for kind, slot, value in numbers:
            getattr(self, f"Prepend{kind}Slot")(slot, value, 0)
        return self.EndObject()

    def offsets(self, items: list[int]) -> int:
        """A vector of tables."""
        self.StartVector(4, len(items), 4)
        for item in reversed(items):
            self.PrependUOffsetTRelative(item)
        return self.EndVector()

    def floats(self, *values: float) -> int:
        """A vector of float32."""
        self.StartVector(4, len(values), 4)
        for value in reversed(values):
            self.PrependFloat32(value)
        return self.EndVector()


def pack_tflite(path: Path, facts: dict[str, Any]) -> None:
    """Write the standard metadata, labels.txt and kerasvision.json into a `.tflite` file.

    Args:
        path: the file, rewritten in place.
        facts: `model_metadata` with its signature.
    """
    model = read_model(path)
    buffer = schema.BufferT()
    buffer.data = np.frombuffer(describe(facts, *_tensor_names(model)), np.uint8)
    model.buffers.append(buffer)
    entry = schema.MetadataT()
    entry.name, entry.buffer = BUFFER, len(model.buffers) - 1
    model.metadata = [*(model.metadata or []), entry]
    write_model(path, model)
    # Stored, not deflated, because readers map the labels into memory; a fixed date keeps the file reproducible.
    with zipfile.ZipFile(path, "a", zipfile.ZIP_STORED) as archive:
        for name, text in ((LABELS, labels_text(facts)), (FACTS, facts_text(facts))):
            archive.writestr(zipfile.ZipInfo(name), text)


def _tensor_names(model: Any) -> tuple[list[str], list[str]]:
    """Signature names of the graph's inputs and outputs, in the graph's order."""
    graph, signature = model.subgraphs[0], model.signatureDefs[0]
    names = {item.tensorIndex: item.name.decode() for item in (*signature.inputs, *signature.outputs)}
    return [names[index] for index in graph.inputs], [names[index] for index in graph.outputs]


def is_detector(outputs: Collection[str]) -> bool:
    """Whether outputs of these names are detections."""
    return set(_DETECTIONS) <= set(outputs)


def describe(facts: dict[str, Any], inputs: list[str], outputs: list[str]) -> bytes:
    """The metadata flatbuffer.

    Args:
        facts: `model_metadata` with its signature.
        inputs: names of the graph's inputs, in its order.
        outputs: names of the graph's outputs, in its order.
    """
    builder = _Builder(1024)
    signature = facts["signature"]
    input_tables = builder.offsets([_image(builder, name, facts, signature["inputs"][name]) for name in inputs])
    output = _detection_output if is_detector(outputs) else _output
    output_tables = builder.offsets([output(builder, name, facts, signature["outputs"][name]) for name in outputs])
    files = builder.offsets([_file(builder, FACTS, "Task, preprocessing, labels, signature", _DESCRIPTIONS)])
    parts = {2: input_tables, 3: output_tables, 4: files}
    if is_detector(outputs):
        names = builder.offsets([builder.CreateString(_DETECTIONS[name]) for name in ("boxes", "classes", "scores")])
        group = builder.table({0: builder.CreateString("detection_result"), 1: names})
        parts[8] = builder.offsets([group])
    graph = builder.table(parts)
    name = builder.CreateString(facts["name"])
    text = builder.CreateString(
        f"{facts['task']['name']} model by kerasvision {facts['kerasvision']}, quantization: {facts['quantization']}. "
        "Takes raw pixels of 0..255, the preprocessing is inside."
    )
    version = builder.CreateString("v1")
    parser = builder.CreateString(MIN_PARSER_VERSION)
    graphs = builder.offsets([graph])
    root = builder.table({0: name, 1: text, 2: version, 3: graphs, 7: parser})
    builder.Finish(root, file_identifier=IDENTIFIER)
    return bytes(builder.Output())


def _image(builder: _Builder, name: str, facts: dict[str, Any], spec: dict[str, Any]) -> int:
    height, width = facts["image_size"]
    size = builder.table({}, ("Uint32", 0, width), ("Uint32", 1, height))
    color = _RGB if facts["channels"] == 3 else _GRAYSCALE
    properties = builder.table({1: size}, ("Int8", 0, color))
    content = builder.table({1: properties}, ("Uint8", 0, _IMAGE_PROPERTIES))
    # Mean 0 and deviation 1: raw pixels. A uint8 tensor takes them anyway, and readers want the unit all the same.
    mean, deviation = builder.floats(0.0), builder.floats(1.0)
    options = builder.table({0: mean, 1: deviation})
    unit = builder.table({1: options}, ("Uint8", 0, _NORMALIZATION_OPTIONS))
    high, low = builder.floats(255.0), builder.floats(0.0)
    stats = builder.table({0: high, 1: low})
    colors = "RGB" if facts["channels"] == 3 else "grey"
    text = f"Raw {colors} pixels of 0..255, {spec['dtype']}, {height}x{width}."
    offsets = {
        0: builder.CreateString(name),
        1: builder.CreateString(text),
        3: content,
        4: builder.offsets([unit]),
        5: stats,
    }
    return builder.table(offsets)


def _output(builder: _Builder, name: str, facts: dict[str, Any], spec: dict[str, Any]) -> int:
    content = builder.table({1: builder.table({})}, ("Uint8", 0, _FEATURE_PROPERTIES))
    offsets = {0: builder.CreateString(name), 3: content}
    if spec["shape"][-1] == len(facts["labels"]):
        offsets[1] = builder.CreateString("One score in 0..1 for each label.")
        high, low = builder.floats(1.0), builder.floats(0.0)
        offsets[5] = builder.table({0: high, 1: low})
        labels = _file(builder, LABELS, "Class names, in the order of the scores", _TENSOR_AXIS_LABELS)
        offsets[6] = builder.offsets([labels])
    return builder.table(offsets)


def _detection_output(builder: _Builder, name: str, facts: dict[str, Any], spec: dict[str, Any]) -> int:
    if name not in _DETECTIONS:
        return _output(builder, name, facts, spec)
    # The content is that of the second axis: one for each detection.
    dimension = builder.table({}, ("Int32", 0, 2), ("Int32", 1, 2))
    if name == "boxes":
        builder.StartVector(4, 4, 4)
        for corner in (3, 2, 1, 0):  # Of left, top, right, bottom; a vector is written from its end.
            builder.PrependUint32(corner)
        order = builder.EndVector()
        properties = builder.table({0: order}, ("Int8", 1, _BOUNDARIES), ("Int8", 2, _RATIO))
        content = builder.table({1: properties, 2: dimension}, ("Uint8", 0, _BOX_PROPERTIES))
    else:
        parts = {1: builder.table({})} if name == "count" else {1: builder.table({}), 2: dimension}
        content = builder.table(parts, ("Uint8", 0, _FEATURE_PROPERTIES))
    offsets = {0: builder.CreateString(_DETECTIONS[name]), 1: builder.CreateString(_ABOUT[name]), 3: content}
    if name == "classes":
        labels = _file(builder, LABELS, "Class names, in the order of their numbers", _TENSOR_VALUE_LABELS)
        offsets[6] = builder.offsets([labels])
    return builder.table(offsets)


def _file(builder: _Builder, name: str, description: str, kind: int) -> int:
    strings = {0: builder.CreateString(name), 1: builder.CreateString(description)}
    return builder.table(strings, ("Int8", 2, kind))
