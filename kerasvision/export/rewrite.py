"""What is changed in a `.tflite` file after its conversion: what makes it smaller and computes the same."""

import collections
from collections.abc import Callable, Collection
from pathlib import Path
from typing import Any

import flatbuffers
import numpy as np
from ai_edge_litert import schema_py_generated as schema

from kerasvision.export.coverage import layers_of

IDENTIFIER = b"TFL3"
ALIGNMENT = 16  # "force_align: 16" of a buffer's data, in the schema.
# Biases and the constants of arithmetic are not worth an op.
SMALLEST = 64


def shorten_names(path: Path, known: Collection[str]) -> None:
    """Call every tensor after the layers it belongs to, as "conv;bn;relu", in place of the converter's scopes.

    Names of a deep net are a hundred bytes each. Those of the file's inputs and outputs stay.

    Args:
        path: of the file, which is changed.
        known: names of the model's layers.
    """

    def change(model: Any) -> None:
        for graph in model.subgraphs:
            ends = {*graph.inputs, *graph.outputs}
            taken: collections.Counter[str] = collections.Counter()
            for index, tensor in enumerate(graph.tensors):
                short = ";".join(layers_of(tensor.name.decode(), known))
                if short and index not in ends:
                    # Some readers need every name to be its tensor's alone.
                    tensor.name = f"{short}/{taken[short]}".encode()
                    taken[short] += 1

    _rewrite(path, change)


def halve_constants(path: Path) -> None:
    """Store every larger float32 constant of a `.tflite` file as float16, with a DEQUANTIZE op behind it.

    So do float16 files; in an integer file, these are the weights of layers that stay in float.

    Args:
        path: of the file, which is changed.
    """

    def change(model: Any) -> None:
        for graph in model.subgraphs:
            _halve(model, graph)

    _rewrite(path, change)


def read_model(path: Path) -> Any:
    """The schema's ModelT of a `.tflite` file."""
    return schema.ModelT.InitFromPackedBuf(path.read_bytes(), 0)


def write_model(path: Path, model: Any) -> None:
    """Write a `.tflite` file in which equal vectors are stored once.

    Half of what describes an integer tensor of many channels are its zero points, 8 bytes of 0 for each.

    Args:
        path: of the file.
        model: the schema's ModelT.
    """
    builder = _Packer(1 << 20)
    builder.Finish(model.Pack(builder), file_identifier=IDENTIFIER)
    path.write_bytes(bytes(builder.Output()))


class _Packer(flatbuffers.Builder):
    """Shares equal arrays between their tables, and aligns weights as the schema demands."""

    def __init__(self, size: int):
        super().__init__(size)
        self._written: dict[tuple[str, bytes], int] = {}

    def CreateNumpyVector(self, x: np.ndarray) -> int:  # noqa: N802 (the library's name)
        """Write an array, or find where it was written."""
        key = (x.dtype.str, x.tobytes())
        if key not in self._written:
            self._written[key] = super().CreateNumpyVector(x)
        return self._written[key]

    def StartVector(self, elemSize: int, numElems: int, alignment: int) -> int:  # noqa: N802, N803
        """Begin a vector; bytes are the contents of buffers, which kernels read where they lie."""
        return super().StartVector(elemSize, numElems, ALIGNMENT if elemSize == 1 else alignment)


def _rewrite(path: Path, change: Callable[[Any], None]) -> None:
    model = read_model(path)
    change(model)
    write_model(path, model)


def _halve(model: Any, graph: Any) -> None:
    casts, restored = [], {}
    halved: set[int] = set()  # Buffers, which several tensors may share.
    for index in sorted({int(i) for op in graph.operators for i in op.inputs if i >= 0}):
        tensor = graph.tensors[index]
        buffer = model.buffers[tensor.buffer]
        known = tensor.buffer in halved
        small = buffer.data is None or len(buffer.data) < (2 if known else 4) * SMALLEST
        if tensor.type != schema.TensorType.FLOAT32 or small:
            continue
        if not known:
            values = np.asarray(buffer.data, np.uint8).view(np.float32).astype(np.float16)
            buffer.data = np.frombuffer(values.tobytes(), np.uint8)
            halved.add(tensor.buffer)
        full = schema.TensorT()
        full.shape, full.type, full.buffer, full.name = tensor.shape, tensor.type, 0, tensor.name
        full.hasRank = tensor.hasRank
        tensor.type, tensor.name = schema.TensorType.FLOAT16, tensor.name + b"_float16"
        restored[index] = len(graph.tensors)
        graph.tensors.append(full)
        casts.append(_cast(model, index, restored[index]))
    for op in graph.operators:
        op.inputs = np.array([restored.get(int(i), int(i)) for i in op.inputs], np.int32)
    graph.operators = casts + graph.operators


def _cast(model: Any, source: int, target: int) -> Any:
    op = schema.OperatorT()
    op.opcodeIndex = _opcode(model)
    op.inputs, op.outputs = np.array([source], np.int32), np.array([target], np.int32)
    op.builtinOptionsType, op.builtinOptions = schema.BuiltinOptions.DequantizeOptions, schema.DequantizeOptionsT()
    return op


def _opcode(model: Any) -> int:
    wanted = schema.BuiltinOperator.DEQUANTIZE
    for index, code in enumerate(model.operatorCodes):
        if max(code.builtinCode, code.deprecatedBuiltinCode) == wanted and code.version >= 3:
            return index
    code = schema.OperatorCodeT()
    # Version 3 is the first that takes float16.
    code.builtinCode, code.deprecatedBuiltinCode, code.version = wanted, wanted, 3
    model.operatorCodes.append(code)
    return len(model.operatorCodes) - 1
