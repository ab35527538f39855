"""The converters, in a process of their own: one JSON request a line on stdin, one JSON answer a line.

Run as `python -m kerasvision.export.worker` by `kerasvision.export.process`; never imported.
"""

import json
import os
import re
import sys
from pathlib import Path
from typing import Any

import numpy as np
import tensorflow as tf

OPSET = 17
ERROR_LINES = 12


def saved_model_to_tflite(
    saved_model: str, target: str, quantization: str, calibration: str | None, float_outputs: bool
) -> None:
    """Convert a SavedModel with TensorFlow's converter, to builtin ops only.

    Args:
        saved_model: folder.
        target: `.tflite` file to write.
        quantization: "none", "float16", "dynamic", "int16x8" (by calibration), "int8" or "qat" (both of a
            fake-quantized graph).
        calibration: `.npy` file with inputs [N, H, W, C], for "int16x8".
        float_outputs: whether an integer file gives float32, in place of uint8.
    """
    converter = tf.lite.TFLiteConverter.from_saved_model(saved_model)
    if quantization != "none":
        converter.optimizations = [tf.lite.Optimize.DEFAULT]
    if quantization == "float16":
        converter.target_spec.supported_types = [tf.float16]
    if quantization in ("int8", "qat"):
        converter.inference_input_type = tf.uint8
        converter.inference_output_type = tf.float32 if float_outputs else tf.uint8
    if quantization == "int16x8":
        converter.target_spec.supported_ops = [
            tf.lite.OpsSet.EXPERIMENTAL_TFLITE_BUILTINS_ACTIVATIONS_INT16_WEIGHTS_INT8
        ]
    if calibration is not None:
        images = np.load(calibration, mmap_mode="r")
        converter.representative_dataset = lambda: ([image[None]] for image in images)
    Path(target).write_bytes(converter.convert())


def saved_model_to_onnx(saved_model: str, target: str) -> None:
    """Convert a float SavedModel with tf2onnx; the signature's names stay."""
    import onnx
    import tf2onnx

    loaded = tf.saved_model.load(saved_model)  # Held by name: the signature alone lets its variables go.
    signature = loaded.signatures["serving_default"]
    ((name, image),) = signature.structured_input_signature[1].items()
    spec = tf.TensorSpec(image.shape, image.dtype, name=name)
    function = tf.function(lambda image: signature(**{name: image}), input_signature=[spec])
    model, _ = tf2onnx.convert.from_function(function, [spec], opset=OPSET)
    onnx.save(model, target)


def tflite_to_onnx(tflite: str, target: str) -> None:
    """Convert an int8 `.tflite` file with tf2onnx, to quantize/dequantize pairs; tensors get the signature's names."""
    import onnx
    import tf2onnx
    from ai_edge_litert.interpreter import Interpreter

    runner = Interpreter(model_path=tflite).get_signature_runner("serving_default")
    signature = {details["name"]: name for name, details in runner.get_input_details().items()}
    signature |= {details["name"]: name for name, details in runner.get_output_details().items()}
    model, _ = tf2onnx.convert.from_tflite(tflite, opset=OPSET)
    for node in model.graph.node:
        node.input[:] = [signature.get(name, name) for name in node.input]
        node.output[:] = [signature.get(name, name) for name in node.output]
    for value in (*model.graph.input, *model.graph.output):
        value.name = signature[value.name]
    onnx.checker.check_model(model)
    onnx.save(model, target)


def explain(error: Exception) -> str:
    """The part of a converter's message that helps: ops without a kernel and where they stand, else its beginning."""
    text = f"{type(error).__name__}: {error}"
    missing = re.search(r"^(?:Custom|Flex) ops: (.+)$", text, re.MULTILINE)
    if missing is None:
        return "\n".join(text[:4000].splitlines()[:ERROR_LINES])
    places = [
        place
        for op in missing.group(1).split(", ")
        for place in sorted(set(re.findall(rf'"{re.escape(op.removeprefix("Flex"))}:", "([^"@]+)@', text)))
    ]
    return (
        f"LiteRT has no kernel for {missing.group(1)}, used in {', '.join(places) or 'the decoding'}. "
        "Replace the layers of that name by ones made of other operations."
    )


JOBS = {job.__name__: job for job in (saved_model_to_tflite, saved_model_to_onnx, tflite_to_onnx)}


def main() -> None:
    """Answer requests until stdin ends."""
    # Libraries print to stdout, from C++ too: the answers get a copy of it, and descriptor 1 goes to the log.
    answers = os.fdopen(os.dup(1), "w")
    os.dup2(2, 1)
    for line in sys.stdin:
        request: dict[str, Any] = json.loads(line)
        error = None
        try:
            JOBS[request["job"]](**request["arguments"])
        except Exception as raised:  # Whatever a converter raises is the parent's to report.
            error = explain(raised)
        sys.stdout.flush()
        sys.stderr.flush()
        answers.write(json.dumps({"error": error}) + "\n")
        answers.flush()


if __name__ == "__main__":
    main()
