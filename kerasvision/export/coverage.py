"""What a `.tflite` file is made of: its ops, and those that compute in float where they should not."""

import collections
import dataclasses
import re
from collections.abc import Collection
from pathlib import Path
from typing import Any

from ai_edge_litert import schema_py_generated as schema

from kerasvision.errors import ExportError

_FLOATS = {schema.TensorType.FLOAT32, schema.TensorType.FLOAT16}
_OP_NAMES = {value: name for name, value in vars(schema.BuiltinOperator).items() if not name.startswith("_")}
# Registered in every LiteRT runtime, though the schema calls it custom.
_KNOWN_CUSTOM = {"TFLite_Detection_PostProcess"}
DECODE = "decode/"  # Begins the name of every tensor of a decoding that `join_decode` has put behind a net.
_CASTS = {"QUANTIZE", "DEQUANTIZE"}


@dataclasses.dataclass(frozen=True)
class FloatOp:
    """An op that touches a float tensor.

    Args:
        op: builtin name, such as "MUL".
        tensor: name of its first output.
        layer: the Keras layer it came from, "" where the name does not tell.
    """

    op: str
    tensor: str
    layer: str


@dataclasses.dataclass(frozen=True)
class Op:
    """One op of a file: builtin or custom name, tensor indices."""

    name: str
    inputs: tuple[int, ...]
    outputs: tuple[int, ...]


@dataclasses.dataclass(frozen=True)
class Graph:
    """The main subgraph of a `.tflite` file.

    Args:
        ops: in order of execution.
        names: of the tensors.
        floats: indices of float32 and float16 tensors.
        ends: indices of the graph's own inputs and outputs.
        custom: names of custom and Select TF ops.
    """

    ops: tuple[Op, ...]
    names: tuple[str, ...]
    floats: frozenset[int]
    ends: frozenset[int]
    custom: tuple[str, ...]


def read_graph(path: Path) -> Graph:
    """Parse a `.tflite` file."""
    model = schema.Model.GetRootAs(path.read_bytes())
    graph = model.Subgraphs(0)
    codes = [_op_name(model.OperatorCodes(index)) for index in range(model.OperatorCodesLength())]
    tensors = [graph.Tensors(index) for index in range(graph.TensorsLength())]
    ops = [graph.Operators(index) for index in range(graph.OperatorsLength())]
    return Graph(
        tuple(Op(codes[op.OpcodeIndex()], _indices(op.InputsAsNumpy()), _indices(op.OutputsAsNumpy())) for op in ops),
        tuple(tensor.Name().decode() for tensor in tensors),
        frozenset(index for index, tensor in enumerate(tensors) if tensor.Type() in _FLOATS),
        frozenset((*_indices(graph.InputsAsNumpy()), *_indices(graph.OutputsAsNumpy()))),
        tuple(sorted(name for name in codes if name not in _OP_NAMES.values() and name not in _KNOWN_CUSTOM)),
    )


def _op_name(code: Any) -> str:
    # Files of old converters keep small codes in a field of one byte.
    builtin = max(code.BuiltinCode(), code.DeprecatedBuiltinCode())
    return code.CustomCode().decode() if builtin == schema.BuiltinOperator.CUSTOM else _OP_NAMES[builtin]


def _indices(array: Any) -> tuple[int, ...]:
    # flatbuffers gives the number 0 for an absent vector, and -1 stands for an optional tensor left out.
    return () if isinstance(array, int) else tuple(int(index) for index in array if index >= 0)


def op_histogram(graph: Graph) -> dict[str, int]:
    """Op name -> how often, the most frequent first."""
    return dict(collections.Counter(op.name for op in graph.ops).most_common())


def layers_of(tensor: str, known: Collection[str]) -> list[str]:
    """Keras layers that a tensor's name speaks of.

    Args:
        tensor: such as "net_1/conv_relu_1/Relu;net_1/conv_1/convolution"; the converter joins fused ops with ";".
        known: names of the model's layers.

    Returns:
        Layer names, without repetition, in the name's order.
    """
    found = []
    for part in tensor.split(";"):
        # Keras numbers the scopes of a graph's second trace: "net_1/conv_1" is the layer "conv".
        scopes = part.split("/")
        numbered = re.search(r"_\d+$", scopes[0])
        for scope in scopes:
            name = scope.removeprefix("quant_")
            shorter = name.removesuffix(numbered.group()) if numbered else name
            layer = next((layer for layer in (shorter, name, re.sub(r"_\d+$", "", name)) if layer in known), None)
            if layer is not None:
                if layer not in found:
                    found.append(layer)
                break
    return found


def float_ops(graph: Graph, known: Collection[str] = (), islands: Collection[str] = ()) -> list[FloatOp]:
    """Ops that touch float tensors, beyond what was declared.

    The decoding of a file by `join_decode` is declared. A QUANTIZE or DEQUANTIZE is no float op where its float side is
    an input or output of the file, or belongs to declared parts alone; nor is one that restores a weight of theirs from
    float16.

    Args:
        graph: from `read_graph`.
        known: names of the model's layers.
        islands: names of the layers that were left in float on purpose.
    """
    touching = [op for op in graph.ops if graph.floats.intersection((*op.inputs, *op.outputs))]
    declared = {op for op in touching if op.name not in _CASTS and _all_in(layers_of(_name(graph, op), known), islands)}
    declared.update(decode_part(graph, known).ops)
    allowed = {tensor for op in declared for tensor in (*op.inputs, *op.outputs)} | graph.ends
    computed = {tensor for op in graph.ops for tensor in op.outputs}
    allowed |= {op.inputs[0] for op in touching if op.name == "DEQUANTIZE" and op.inputs[0] not in computed}
    found = []
    for op in touching:
        floats = graph.floats.intersection((*op.inputs, *op.outputs))
        if op in declared or (op.name in _CASTS and floats <= allowed):
            continue
        found.append(FloatOp(op.name, _name(graph, op), ", ".join(layers_of(_name(graph, op), known))))
    return found


def decode_part(graph: Graph, known: Collection[str] = ()) -> Graph:
    """The graph's decoding alone, which `join_decode` has put behind the net.

    Args:
        graph: from `read_graph`.
        known: names of the model's layers; what belongs to one of them is no decoding.
    """
    ops = (op for op in graph.ops if _name(graph, op).startswith(DECODE) and not layers_of(_name(graph, op), known))
    return dataclasses.replace(graph, ops=tuple(ops))


def check_coverage(graph: Graph, found: list[FloatOp], what: str) -> None:
    """Refuse a file that a phone would run in float, or not at all.

    Args:
        graph: of the file.
        found: undeclared float ops of an integer file; empty for a float file.
        what: the file in words.

    Raises:
        ExportError: it lists every such op with its tensor and Keras layer.
    """
    if graph.custom:
        raise ExportError(
            f"{what} needs ops that are not built into LiteRT: {', '.join(graph.custom)}. Replace the layers that "
            "make them by ones of builtin ops."
        )
    if found:
        # Casts are there because of the others.
        found = [item for item in found if item.op not in _CASTS] or found
        lines = [f"  {item.op} -> {item.tensor} (layer: {item.layer or 'unknown'})" for item in found]
        layers = sorted({layer for item in found for layer in item.layer.split(", ") if layer})
        islands = f"islands={layers}" if layers else "islands=[...]"
        raise ExportError(
            f"{what} would run {len(found)} ops in float:\n" + "\n".join(lines) + "\n"
            f"Replace those layers by ones with int8 kernels, or leave them in float on purpose: "
            f"kerasvision.quantize(model, {islands}), train that, and export it."
        )


def _name(graph: Graph, op: Op) -> str:
    return graph.names[op.outputs[0]] if op.outputs else ""


def _all_in(layers: list[str], islands: Collection[str]) -> bool:
    return bool(layers) and all(layer in islands for layer in layers)
