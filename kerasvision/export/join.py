"""Net and decoding, converted apart, become one `.tflite` file; and such a file shows the net's raw outputs again."""

from collections.abc import Mapping
from pathlib import Path
from typing import Any

import numpy as np

from kerasvision.errors import ExportError
from kerasvision.export.coverage import DECODE
from kerasvision.export.rewrite import read_model, write_model

RAW = "/raw:"  # Stands between layer and raw output in the name of a tensor that the decoding reads.
# Readers that know no names take a detector's outputs in this order.
ORDER = ("boxes", "classes", "scores", "count")
_RUNTIME = b"min_runtime_version"


def join_decode(net: Path, decode: Path, target: Path, layers: Mapping[str, str]) -> None:
    """Put the ops of one file behind those of another.

    Args:
        net: image -> raw outputs.
        decode: raw outputs -> decoded outputs; the signatures' names lead from one to the other.
        target: file to write: image -> decoded outputs.
        layers: raw output -> name of the layer that gives it.

    Raises:
        ExportError: the decoding has control flow.
    """
    model, added = read_model(net), read_model(decode)
    if len(added.subgraphs) > 1:
        raise ExportError(
            "The decoding was converted to control flow (WHILE or IF), which phones' delegates do not take. Write "
            "Task.decode without loops and conditions of tensors."
        )
    graph, behind = model.subgraphs[0], added.subgraphs[0]
    raw = {item.name.decode(): item.tensorIndex for item in model.signatureDefs[0].outputs}
    for name, index in raw.items():
        graph.tensors[index].name = f"{layers[name]}{RAW}{name}".encode()
    # Index in the added file -> index in the joined one, -1 for an input that an op goes without.
    tensors = {-1: -1, **{item.tensorIndex: raw[item.name.decode()] for item in added.signatureDefs[0].inputs}}
    buffers = {0: 0}  # The first buffer is empty, and belongs to everything that is computed.
    for index, tensor in enumerate(behind.tensors):
        if index in tensors:
            continue
        if tensor.buffer not in buffers:
            buffers[tensor.buffer] = len(model.buffers)
            model.buffers.append(added.buffers[tensor.buffer])
        tensor.buffer = buffers[tensor.buffer]
        tensor.name = f"{DECODE}{index}".encode()
        tensors[index] = len(graph.tensors)
        graph.tensors.append(tensor)
    for op in behind.operators:
        op.opcodeIndex += len(model.operatorCodes)
        op.inputs, op.outputs = (np.array([tensors[int(i)] for i in of], np.int32) for of in (op.inputs, op.outputs))
        graph.operators.append(op)
    model.operatorCodes += added.operatorCodes
    decoded = sorted(added.signatureDefs[0].outputs, key=_order)
    for item in decoded:
        item.tensorIndex = tensors[item.tensorIndex]
    model.signatureDefs[0].outputs = decoded
    graph.outputs = np.array([item.tensorIndex for item in decoded], np.int32)
    _join_runtime(model, added)
    write_model(target, model)


def _order(item: Any) -> int:
    name = item.name.decode()
    return ORDER.index(name) if name in ORDER else len(ORDER)


def _join_runtime(model: Any, added: Any) -> None:
    """Of the two files' lowest runtimes the higher one is needed."""
    ours, theirs = (
        next((m.buffers[entry.buffer] for entry in m.metadata or [] if entry.name == _RUNTIME), None)
        for m in (model, added)
    )
    if ours is not None and theirs is not None:
        ours.data = max(ours.data, theirs.data, key=_version)


def _version(text: np.ndarray) -> tuple[int, ...]:
    return tuple(int(part) for part in bytes(text).rstrip(b"\0").split(b"."))


def show_raw_outputs(path: Path, target: Path) -> None:
    """Write a file that gives the net's raw outputs beside the decoded ones; its ops are the same.

    Args:
        path: of a file by `join_decode`.
        target: file to write.
    """
    model = read_model(path)
    graph, signature = model.subgraphs[0], model.signatureDefs[0]
    for index, tensor in enumerate(graph.tensors):
        _, found, name = tensor.name.decode().partition(RAW)
        if found:
            item = type(signature.outputs[0])()
            item.name, item.tensorIndex = name.encode(), index
            signature.outputs.append(item)
            graph.outputs = np.append(graph.outputs, np.int32(index))
    for entry in model.metadata or []:
        model.buffers[entry.buffer].data = None  # It names files in an archive, which this one has not.
    model.metadata = None
    write_model(target, model)
