"""Layer by layer: what the 8 bits cost, and how far the file is from the fake-quantized net."""

import dataclasses
from collections import Counter
from collections.abc import Iterable, Mapping
from pathlib import Path
from typing import Any

import numpy as np
import tensorflow as tf
from ai_edge_litert.interpreter import Interpreter, OpResolverType

from kerasvision.choices import choices_of, net_of_choices
from kerasvision.export.coverage import layers_of, read_graph
from kerasvision.export.join import RAW
from kerasvision.export.saved_model import output_layers

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
        alone_lsb: largest difference that this op makes by itself, where it takes what the file's ops before it gave.
            Roundings make 1, a few 2; more is an op that computes something else. None for a layer of several calls.
        noise_db: power of the float net's values over that of the quantization's error, decibels; higher is better.
    """

    tensor: str
    op: str
    low: float
    high: float
    mean_lsb: float
    max_lsb: float
    alone_lsb: float | None
    noise_db: float


def explain(path: Path, model: Any, images: np.ndarray) -> list[LayerDifference]:
    """Compare every stored tensor of an int8 `.tflite` file with the net it was made from.

    The file is run by LiteRT's own kernels without a delegate, because a delegate keeps the tensors between its ops
    to itself. Where it chooses boxes inside, the net goes on with the same boxes.

    Args:
        path: of the file.
        model: QuantizedModel.
        images: pixels of 0..255, [N, H, W, C]; eight are plenty.

    Returns:
        In the file's order of execution; tensors that no layer of the model can be told from are left out.
    """
    images = np.rint(images).astype(np.float32)
    interpreter = Interpreter(
        str(path),
        experimental_preserve_all_tensors=True,
        experimental_op_resolver_type=OpResolverType.BUILTIN_WITHOUT_DEFAULT_DELEGATES,
    )
    interpreter.allocate_tensors()
    indices = {detail["name"]: detail["index"] for detail in interpreter.get_tensor_details()}
    givers = output_layers(model)
    chosen = [indices[f"{givers[name]}{RAW}{name}"] for name in choices_of(model.net)]
    inputs = [images, *_run(interpreter, images, chosen).values()]
    quantized, calls = _tensors(model, inputs, True)
    exact, _ = _tensors(model, inputs, False)
    places = _places(path, interpreter, model, {name: x.size // len(images) for name, x in quantized.items()})
    stored = _run(interpreter, images, places)
    reals = {
        name: (stored[index].reshape(quantized[name].shape) - zero_point) * scale
        for index, (name, _, scale, zero_point) in places.items()
    }
    alone, _ = _tensors(model, inputs, True, {name: real for name, real in reals.items() if calls[name] == 1})
    found = []
    for name, op, scale, _ in places.values():
        steps = np.abs(reals[name] - quantized[name]) / scale
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
                float(np.max(np.abs(reals[name] - alone[name])) / scale) if calls[name] == 1 else None,
                float(10 * np.log10((np.mean(exact[name] ** 2) + 1e-20) / (noise + 1e-20))),
            )
        )
    return found


def _run(interpreter: Any, images: np.ndarray, indices: Iterable[int]) -> dict[int, np.ndarray]:
    """Index of a tensor of the file -> what it holds for all images."""
    stored: dict[int, list[np.ndarray]] = {index: [] for index in indices}
    for image in images:
        interpreter.set_tensor(interpreter.get_input_details()[0]["index"], image[None].astype(np.uint8))
        interpreter.invoke()
        for index, values in stored.items():
            values.append(interpreter.get_tensor(index).astype(np.float32))
    return {index: np.concatenate(values) for index, values in stored.items()}


def _tensors(
    model: Any, inputs: list[np.ndarray], fake: bool, given: Mapping[str, np.ndarray] | None = None
) -> tuple[dict[str, np.ndarray], Counter[str]]:
    """Name of a tensor -> its values, and how many calls give such a tensor.

    Args:
        model: QuantizedModel.
        inputs: images and chosen boxes.
        fake: whether with fake quantization.
        given: name -> values that the net goes on with in the place of its own.
    """
    from kerasvision.compress.quantizers import observed

    net = net_of_choices(model.net)
    # Made here, they are inputs of the function, whose own constants may take 2 GB at most.
    known = {name: tf.constant(values, tf.float32) for name, values in (given or {}).items()}
    calls: Counter[str] = Counter()

    @tf.function(autograph=False)
    def run(batch: Any, *choices: Any) -> dict[str, Any]:
        seen: dict[str, Any] = {}

        def note(name: str, values: Any, quantized: Any) -> Any:
            seen[name] = quantized if fake else values
            calls[name] += 1
            return known.get(name, seen[name])

        with observed(note):
            net([model.normalized(batch), *choices], training=False)
        return {name: values for name, values in seen.items() if hasattr(model.quantizers[name], "limits")}

    return {name: values.numpy() for name, values in run(*map(tf.constant, inputs)).items()}, calls


def _places(path: Path, interpreter: Any, model: Any, sizes: dict[str, int]) -> dict[int, tuple[str, str, float, int]]:
    """Index of a tensor of the file -> its name in the net, its op, scale and zero point."""
    layers: dict[str, list[str]] = {}
    for name in sizes:
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
                if name not in taken and fits and np.prod(detail["shape"]) == sizes[name]:
                    taken.add(name)
                    places.setdefault(index, (name, op.name, scale, zero_point))
    return places
