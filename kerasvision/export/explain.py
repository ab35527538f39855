"""Layer by layer: what the 8 bits cost, and how far the file is from the fake-quantized net."""

import dataclasses
from pathlib import Path
from typing import Any

import numpy as np
import tensorflow as tf
from ai_edge_litert.interpreter import Interpreter, OpResolverType

from kerasvision.export.coverage import layers_of, read_graph

_CLOSE = 1e-3


@dataclasses.dataclass(frozen=True)
class LayerDifference:
    """One tensor of an integer file, beside the same tensor of the fake-quantized and of the float net.

    Args:
        tensor: "LAYER/output", or another step inside of the layer.
        op: builtin op that gives it.
        low: lowest value its 8 bits can hold.
        high: highest value.
        mean_lsb: mean difference between file and fake-quantized net, in steps of the 8 bits.
        max_lsb: largest difference.
        noise_db: power of the float net's values over that of the quantization's error, decibels; higher is better.
    """

    tensor: str
    op: str
    low: float
    high: float
    mean_lsb: float
    max_lsb: float
    noise_db: float


def explain(path: Path, model: Any, images: np.ndarray) -> list[LayerDifference]:
    """Compare every stored tensor of an int8 `.tflite` file with the net it was made from.

    The file is run by LiteRT's own kernels without a delegate, because a delegate keeps the tensors between its ops
    to itself.

    Args:
        path: of the file.
        model: QuantizedModel.
        images: pixels of 0..255, [N, H, W, C]; eight are plenty.

    Returns:
        In the file's order of execution; tensors that no layer of the model can be told from are left out.
    """
    images = np.rint(images).astype(np.float32)
    quantized, exact = _tensors(model, images, True), _tensors(model, images, False)
    interpreter = Interpreter(
        str(path),
        experimental_preserve_all_tensors=True,
        experimental_op_resolver_type=OpResolverType.BUILTIN_WITHOUT_DEFAULT_DELEGATES,
    )
    interpreter.allocate_tensors()
    places = _places(path, interpreter, model, quantized)
    stored: dict[int, list[np.ndarray]] = {index: [] for index in places}
    for image in images:
        interpreter.set_tensor(interpreter.get_input_details()[0]["index"], image[None].astype(np.uint8))
        interpreter.invoke()
        for index, values in stored.items():
            values.append(interpreter.get_tensor(index).astype(np.float32))
    found = []
    for index, (name, op, scale, zero_point) in places.items():
        real = (np.concatenate(stored[index]).reshape(quantized[name].shape) - zero_point) * scale
        steps = np.abs(real - quantized[name]) / scale
        noise = np.mean((quantized[name] - exact[name]) ** 2)
        low, high = model.quantizers[name].limits()
        found.append(
            LayerDifference(
                name,
                op,
                low,
                high,
                float(steps.mean()),
                float(steps.max()),
                float(10 * np.log10((np.mean(exact[name] ** 2) + 1e-20) / (noise + 1e-20))),
            )
        )
    return found


def _tensors(model: Any, images: np.ndarray, fake: bool) -> dict[str, np.ndarray]:
    """Name of a tensor -> its values, with or without fake quantization."""
    from kerasvision.compress.quantizers import observed

    @tf.function(autograph=False)
    def run(batch: Any) -> dict[str, Any]:
        seen: dict[str, Any] = {}

        def note(name: str, values: Any, quantized: Any) -> Any:
            seen[name] = quantized if fake else values
            return seen[name]

        with observed(note):
            model(batch, training=False)
        return {name: values for name, values in seen.items() if hasattr(model.quantizers[name], "limits")}

    return {name: values.numpy() for name, values in run(tf.constant(images)).items()}


def _places(
    path: Path, interpreter: Any, model: Any, tensors: dict[str, np.ndarray]
) -> dict[int, tuple[str, str, float, int]]:
    """Index of a tensor of the file -> its name in the net, its op, scale and zero point."""
    layers: dict[str, list[str]] = {}
    for name in tensors:
        # The file names an op after its first layer, or after all of them.
        for layer in {name.split("/")[0], model.units[name]}:
            layers.setdefault(layer, []).append(name)
    details = {detail["index"]: detail for detail in interpreter.get_tensor_details()}
    graph = read_graph(path)
    places: dict[int, tuple[str, str, float, int]] = {}
    taken: set[str] = set()
    for op in graph.ops:
        index = op.outputs[0]
        detail = details.get(index)
        if detail is None or detail["dtype"] != np.int8 or len(detail["quantization_parameters"]["scales"]) != 1:
            continue
        scale, zero_point = detail["quantization"]
        for layer in layers_of(graph.names[index], layers):
            for name in layers[layer]:
                low, high = model.quantizers[name].limits()
                fits = abs((high - low) / 255 / scale - 1) < _CLOSE
                if name not in taken and fits and np.prod(detail["shape"]) == tensors[name][0].size:
                    taken.add(name)
                    places.setdefault(index, (name, op.name, scale, zero_point))
    return places
