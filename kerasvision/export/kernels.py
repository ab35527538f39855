"""The integer kernels of a `.tflite` file, as it stores them."""

from pathlib import Path

import numpy as np
from ai_edge_litert import schema_py_generated as schema

_WITH_KERNEL = {
    schema.BuiltinOperator.CONV_2D,
    schema.BuiltinOperator.DEPTHWISE_CONV_2D,
    schema.BuiltinOperator.FULLY_CONNECTED,
    schema.BuiltinOperator.TRANSPOSE_CONV,
}


def int8_kernels(path: Path) -> dict[str, np.ndarray]:
    """Codes of every int8 kernel.

    Args:
        path: of a `.tflite` file.

    Returns:
        Name of the tensor that the op gives, from which `coverage.layers_of` reads the layer -> its codes, int8
        [C_out, h, w, C_in], [1, h, w, C_out] where depthwise, or [C_out, C_in].
    """
    model = schema.Model.GetRootAs(path.read_bytes())
    graph = model.Subgraphs(0)
    found = {}
    for index in range(graph.OperatorsLength()):
        op = graph.Operators(index)
        code = model.OperatorCodes(op.OpcodeIndex())
        if max(code.BuiltinCode(), code.DeprecatedBuiltinCode()) not in _WITH_KERNEL:
            continue
        kernel = graph.Tensors(op.Inputs(1))
        data = model.Buffers(kernel.Buffer()).DataAsNumpy()
        if kernel.Type() == schema.TensorType.INT8 and not isinstance(data, int):  # An absent buffer is the number 0.
            name = graph.Tensors(op.Outputs(0)).Name().decode()
            found[name] = data.view(np.int8).reshape(kernel.ShapeAsNumpy())
    return found
