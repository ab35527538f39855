"""The int8 file that one gets without kerasvision: keras.applications and TensorFlow's converter, by calibration.

    python benchmarks/stock_int8.py MODEL.keras IMAGES.npy TARGET.tflite

Prints what the file was made from. Where keras.applications has no such net, it is made from the same Keras graph. The
weights are those of the model, which is checked.
"""

import argparse
import importlib
import inspect
from collections.abc import Callable
from pathlib import Path

import keras
import numpy as np
import tensorflow as tf

import kerasvision as kv
from kerasvision.backbones.applications import RGB_MINUS_MEANS

# Where the name is not that of keras.applications in small letters.
OTHER_NAMES = {"mobilenet_v1": "MobileNet"}
CHECKED_IMAGES = 2
LARGEST_DIFFERENCE = 1e-4

Preprocess = Callable[[np.ndarray], np.ndarray]


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("model", type=Path)
    parser.add_argument("images", type=Path)
    parser.add_argument("target", type=Path)
    arguments = parser.parse_args()
    model = keras.saving.load_model(arguments.model, compile=False)
    images = np.load(arguments.images)
    application = find_application(model.name)
    peer, preprocess = from_application(model, application) if application else from_graph(model)
    check(peer, preprocess, model, images[:CHECKED_IMAGES])
    convert(peer, preprocess(images.copy()), arguments.target)
    print("keras.applications" if application else "same graph")


def find_application(name: str) -> Callable[..., keras.Model] | None:
    """The net of keras.applications, None where it has no such net."""
    wanted = OTHER_NAMES.get(name, name.replace("_", "")).lower()
    nets = {key.lower(): found for key, found in vars(keras.applications).items() if inspect.isfunction(found)}
    return nets.get(wanted)


def from_application(model: kv.TaskModel, application: Callable[..., keras.Model]) -> tuple[keras.Model, Preprocess]:
    """The application with the model's weights, and its own preprocessing."""
    peer = application(weights=None, input_shape=model.input_shape[1:], classes=len(model.labels))
    inside = peer._flatten_layers(include_self=False, recursive=True)  # Some applications have nested models.
    unnamed = [layer for layer in inside if layer.weights and not isinstance(layer, keras.Model)]
    sources = {layer.name: layer for layer in model.layers if layer.weights}
    for layer in list(unnamed):
        if layer.name in sources:
            copy_weights(sources.pop(layer.name), layer)
            unnamed.remove(layer)
        elif isinstance(layer, keras.layers.Normalization):
            # EfficientNet's hidden one, as its published weights have it.
            variance = np.square((0.229, 0.224, 0.225))
            layer.set_weights([np.array((0.485, 0.456, 0.406)), variance, np.array(0)])
            layer.finalize_state()
            unnamed.remove(layer)
    for layer, source in zip(unnamed, sources.values(), strict=True):
        copy_weights(source, layer)
    if model.preprocessing.offset == RGB_MINUS_MEANS.offset:
        stem = next(layer for layer in peer.layers if layer.weights)  # Takes BGR.
        kernel, *others = stem.get_weights()
        stem.set_weights([kernel[:, :, ::-1], *others])
    return peer, importlib.import_module(application.__module__).preprocess_input


def copy_weights(source: keras.Layer, layer: keras.Layer) -> None:
    """Values of the same order; a 1x1 convolution and a Dense layer differ by axes of length 1."""
    values = zip(source.get_weights(), layer.weights, strict=True)
    layer.set_weights([value.reshape(weight.shape) for value, weight in values])


def from_graph(model: kv.TaskModel) -> tuple[keras.Model, Preprocess]:
    """The graph behind the preprocessing, and the preprocessing."""
    scores = keras.layers.Softmax(name="scores")(model.net.output["logits"])
    scale, offset = np.float32(model.preprocessing.scale), np.float32(model.preprocessing.offset)
    return keras.Model(model.net.input, scores), lambda pixels: pixels * scale + offset


def check(peer: keras.Model, preprocess: Preprocess, model: kv.TaskModel, images: np.ndarray) -> None:
    """Make sure that both nets compute the same."""
    expected = keras.ops.convert_to_numpy(model.task.decode(model(images, training=False))["scores"])
    received = keras.ops.convert_to_numpy(peer(preprocess(images.copy()), training=False))
    difference = np.abs(received - expected).max() / expected.max()
    if not difference <= LARGEST_DIFFERENCE:
        raise AssertionError(
            f"The peer of {model.name} computes something else: {difference:.2g} of the largest score."
        )


def convert(peer: keras.Model, inputs: np.ndarray, target: Path) -> None:
    """Full-integer quantization as TensorFlow's guide has it, bytes in and out."""
    converter = tf.lite.TFLiteConverter.from_keras_model(peer)
    converter.optimizations = [tf.lite.Optimize.DEFAULT]
    converter.representative_dataset = lambda: ([image[None]] for image in inputs.astype(np.float32))
    converter.target_spec.supported_ops = [tf.lite.OpsSet.TFLITE_BUILTINS_INT8]
    converter.inference_input_type = tf.uint8
    converter.inference_output_type = tf.uint8
    target.write_bytes(converter.convert())


if __name__ == "__main__":
    main()
