"""Float layers of an integer file keep their weights as float16, as a float16 file does: half the size."""

from pathlib import Path
from typing import Any

import flatbuffers
import numpy as np
from ai_edge_litert import schema_py_generated as schema

# Biases and the constants of arithmetic are not worth an op.
SMALLEST = 64


def halve_constants(path: Path) -> int:
    """Store every larger float32 constant of a `.tflite` file as float16, with a DEQUANTIZE op behind it.

    Args:
        path: of the file, which is changed.

    Returns:
        Number of constants stored that way.
    """
    model = schema.ModelT.InitFromPackedBuf(path.read_bytes(), 0)
    count = sum(_halve(model, graph) for graph in model.subgraphs)
    if count:
        builder = flatbuffers.Builder(1024)
        builder.Finish(model.Pack(builder), file_identifier=b"TFL3")
        path.write_bytes(bytes(builder.Output()))
    return count


def _halve(model: Any, graph: Any) -> int:
    casts, moved = [], {}
    for index in sorted({int(i) for op in graph.operators for i in op.inputs if i >= 0}):
        tensor = graph.tensors[index]
        data = model.buffers[tensor.buffer].data
        if tensor.type != schema.TensorType.FLOAT32 or data is None or len(data) < 4 * SMALLEST:
            continue
        values = np.asarray(data, np.uint8).view(np.float32).astype(np.float16)
        stored = _tensor_like(tensor, schema.TensorType.FLOAT16, _add_buffer(model, values), b"_float16")
        graph.tensors.append(stored)
        restored = _tensor_like(tensor, schema.TensorType.FLOAT32, 0, b"")
        graph.tensors.append(restored)
        moved[index] = len(graph.tensors) - 1
        casts.append(_cast(model, len(graph.tensors) - 2, moved[index]))
    for op in graph.operators:
        op.inputs = np.array([moved.get(int(i), int(i)) for i in op.inputs], np.int32)
    graph.operators = casts + graph.operators
    return len(casts)


def _add_buffer(model: Any, values: np.ndarray) -> int:
    buffer = schema.BufferT()
    buffer.data = np.frombuffer(values.tobytes(), np.uint8)
    model.buffers.append(buffer)
    return len(model.buffers) - 1


def _tensor_like(tensor: Any, kind: int, buffer: int, suffix: bytes) -> Any:
    made = schema.TensorT()
    made.shape, made.type, made.buffer, made.name = tensor.shape, kind, buffer, tensor.name + suffix
    made.hasRank = tensor.hasRank
    return made


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
