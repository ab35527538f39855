"""What every registered backbone must do, from its number of parameters to its int8 file."""

import keras
import numpy as np
import pytest
import tensorflow as tf
from keras import layers

import kerasvision as kv
from kerasvision.compress.bridge import build_twin
from kerasvision.compress.plan import FLOAT

# What a shift of each channel goes through unchanged.
CARRIES_SHIFTS = (layers.Add, layers.MaxPooling2D, layers.AveragePooling2D, layers.Concatenate)
CONVOLUTIONS = (layers.Conv2D, layers.DepthwiseConv2D)
LARGEST_DIFFERENCE = 1e-5
LARGEST_MEAN_LSB = 1.5


def logits_of(model, images):
    return keras.ops.convert_to_numpy(model(images, training=False)["logits"])


def test_outputs_and_features(model, images):
    """Logits and taps have the shapes they are said to have, and any layer is a feature by name."""
    height, width, _ = model.input_shape[1:]
    outputs = model(images[:2], training=False)
    assert {name: tuple(value.shape) for name, value in outputs.items()} == {"logits": (2, len(model.labels))}
    levels = [level for level in model.taps if level != "top"]
    assert levels == [f"P{int(levels[0][1:]) + step}" for step in range(len(levels))]
    features = model.features(list(model.taps))(images[:2], training=False)
    for level in levels:
        stride = 2 ** int(level[1:])
        # Nets without padding lose up to four places at the borders: InceptionV3 has 71 at P2 of 299 pixels.
        assert 0 <= -(-height // stride) - features[level].shape[1] <= 4
        assert 0 <= -(-width // stride) - features[level].shape[2] <= 4
    level = "P4" if "P4" in levels else levels[-1]
    by_level = keras.ops.convert_to_numpy(model.features(level)(images[:2], training=False))
    by_layer = keras.ops.convert_to_numpy(model.features(model.taps[level])(images[:2], training=False))
    np.testing.assert_array_equal(by_level, by_layer)
    np.testing.assert_array_equal(by_level, keras.ops.convert_to_numpy(features[level]))
    assert np.ptp(by_level) > 0


def test_saved_and_loaded(model, images, tmp_path):
    model.save(tmp_path / "model.keras")
    loaded = keras.saving.load_model(tmp_path / "model.keras")
    assert loaded.taps == model.taps
    np.testing.assert_allclose(logits_of(loaded, images), logits_of(model, images), atol=1e-6)


def test_gradients_reach_every_weight(model, images, labels):
    """And those that cannot have one, because a normalization takes away what they add, are known from the graph."""
    with tf.GradientTape() as tape:
        outputs = model(images, training=True)
        loss = sum(model.task.loss(labels, outputs).values())
    weights = model.trainable_weights
    gradients = tape.gradient(loss, [weight.value for weight in weights])
    lost = weights_without_effect(model)
    largest = {weight.path: float(np.abs(g).max()) for weight, g in zip(weights, gradients, strict=True)}
    assert np.isfinite(list(largest.values())).all()
    assert [path for path, value in largest.items() if not value > 0 and path not in lost] == []
    typical = np.median([value for path, value in largest.items() if path not in lost])
    assert [path for path in lost if largest[path] > 1e-3 * typical] == []


def weights_without_effect(model):
    """Paths of biases and shifts that a batch normalization behind them subtracts again."""
    readers = {}
    for nodes in model._nodes_by_depth.values():
        for node in nodes:
            for tensor in node.input_tensors:
                readers.setdefault(id(tensor), []).append(node)

    def is_subtracted(tensor):
        found = readers.get(id(tensor), [])
        return bool(found) and all(subtracts(node.operation, node.output_tensors[0]) for node in found)

    def subtracts(layer, output):
        if isinstance(layer, layers.BatchNormalization):
            return True
        if isinstance(layer, CONVOLUTIONS):
            unpadded = layer.padding == "valid" or set(layer.kernel_size) == {1}
            return unpadded and layer.activation is keras.activations.linear and is_subtracted(output)
        return isinstance(layer, CARRIES_SHIFTS) and is_subtracted(output)

    paths = []
    for layer in model.layers:
        linear = getattr(layer, "activation", keras.activations.linear) is keras.activations.linear
        shifts = [weight.path for weight in layer.trainable_weights if weight.name in ("bias", "beta")]
        if shifts and linear and is_subtracted(layer.output):
            paths.extend(shifts)
    return paths


@pytest.mark.parametrize("policy", ["mixed_float16", "mixed_bfloat16"])
def test_half_precision(model, images, policy):
    call = model.get_config()
    keras.config.set_dtype_policy(policy)
    try:
        half = kv.create_model(call["name"], **call["arguments"])
    finally:
        keras.config.set_dtype_policy("float32")
    half.set_weights(model.get_weights())
    convolutions = [layer for layer in half.layers if isinstance(layer, CONVOLUTIONS)]
    assert {layer.compute_dtype for layer in convolutions} == {policy.removeprefix("mixed_")}
    expected, received = logits_of(model, images), logits_of(half, images)
    assert received.dtype == np.float32 and np.isfinite(received).all()
    if policy == "mixed_float16":
        assert np.abs(received - expected).mean() < 0.1  # The logits have a variance of 1.


def test_bridge(model, images):
    twin = build_twin(model.net)
    normalized = model.get_layer("preprocessing")(images)
    expected = keras.ops.convert_to_numpy(model.net(normalized, training=False)["logits"])
    received = np.asarray(twin(np.asarray(normalized), training=False)["logits"])
    difference = np.abs(received - expected).max()
    if difference > LARGEST_DIFFERENCE * max(1.0, np.abs(expected).max()):
        # Both round: then the twin is to be as near to the exact result as the net itself.
        exact = in_float64(model, normalized)
        assert difference < 1e-4
        assert np.abs(received - exact).max() <= 1.5 * np.abs(expected - exact).max()


def in_float64(model, normalized):
    """The net's logits, computed with twice the digits."""
    call = model.get_config()
    keras.config.set_dtype_policy("float64")
    try:
        net = kv.create_model(call["name"], **call["arguments"])
    finally:
        keras.config.set_dtype_policy("float32")
    net.set_weights(model.get_weights())
    return keras.ops.convert_to_numpy(net.net(np.asarray(normalized, np.float64), training=False)["logits"])


def test_quantization_aware_training(model, images, labels):
    """One step: every range is seen, the loss is finite, and the kernels move."""
    quantized = kv.quantize(model)
    quantized.compile("sgd", learning_rate=1e-3, run_eagerly=True)  # For one step, tracing would take the time.
    before = [weight.numpy() for weight in quantized.net.trainable_weights]
    history = quantized.fit(images, labels, batch_size=16, verbose=0)
    assert np.isfinite(history.history["loss"]).all()
    quantized.check_trained()
    after = [weight.numpy() for weight in quantized.net.trainable_weights]
    assert all(np.isfinite(weight).all() for weight in after)
    moved = [not np.array_equal(old, new) for old, new in zip(before, after, strict=True) if old.ndim > 1]
    assert sum(moved) > 0.9 * len(moved)


def test_int8_file(model, images, labels, tmp_path):
    """No float op but those of layers that are islands by their kind, and the file does what the model does."""
    report = kv.export(
        model, tmp_path, quantization="int8", data=(images, labels), samples=16, calibration=16, benchmark=False
    )
    islands = {layer.name for layer in model.layers if type(layer).__name__ in {kind.__name__ for kind in FLOAT}}
    assert set(report.islands) <= islands
    # Casts stand at the borders of the islands.
    computing = [op for op in report.float_ops if op["op"] not in ("QUANTIZE", "DEQUANTIZE")]
    assert {name for op in computing for name in op["layer"].split(", ")} <= islands
    assert report.parity["scores"]["lsb"]["mean"] <= LARGEST_MEAN_LSB
    assert report.signature["inputs"]["image"]["dtype"] == report.signature["outputs"]["scores"]["dtype"] == "uint8"
