"""Dense layers whose kernel is too large for the converter: one variable for some output channels each."""

import keras
import numpy as np
import pytest
import tensorflow as tf
from keras import layers

import kerasvision as kv
from kerasvision import registry
from kerasvision.compress import layers as compress_layers
from kerasvision.compress.layers import LARGEST_PART, part_widths
from kerasvision.compress.quantizers import WeightQuantizer, observed

SIZE, CHANNELS, UNITS = 8, 8, 10
PARTS = ("kernel_0", "kernel_1", "kernel_2")
WIDTHS = [4, 3, 3]


@pytest.fixture
def model(monkeypatch):
    """fc [8, 10] with a ReLU inside, late [10, 9] with one behind, logits [9, 3]."""
    registry.list_models()
    monkeypatch.setattr(registry, "_ENTRIES", dict(registry._ENTRIES))

    @registry.register("test_dense", input_shape=(SIZE, SIZE, 3))
    def build(x, *, weights=None):
        x = layers.Conv2D(CHANNELS, 3, activation="relu", name="conv")(x)
        x = layers.Dense(UNITS, activation="relu", name="fc")(layers.GlobalMaxPooling2D(name="pool")(x))
        x = layers.BatchNormalization(name="late_bn")(layers.Dense(UNITS - 1, name="late")(x))
        return {"top": layers.ReLU(name="late_relu")(x)}

    keras.utils.set_random_seed(0)
    model = kv.create_model("test_dense", num_classes=3)
    rng = np.random.default_rng(0)
    for layer in ("fc", "late"):
        kernel, bias = model.get_layer(layer).get_weights()
        # Channels of unequal ranges.
        model.get_layer(layer).set_weights([kernel * rng.uniform(0.2, 2, bias.shape), rng.uniform(size=bias.shape)])
    normalization = model.get_layer("late_bn")
    normalization.set_weights([rng.uniform(0.5, 2.0, weight.shape) for weight in normalization.weights])
    return model


@pytest.fixture
def images():
    return np.random.default_rng(1).integers(0, 256, (32, SIZE, SIZE, 3)).astype("float32")


@pytest.fixture
def split(monkeypatch):
    """Let fc and late be of three parts each, and logits of one."""
    monkeypatch.setattr(compress_layers, "LARGEST_PART", 32)


def calibrated(model, images, **arguments):
    quantized = kv.quantize(model, **arguments)
    quantized.calibrate(images)
    return quantized


def fully_connected(quantized):
    return quantized.net.get_layer("quant_fc").layer


def kernel_variables(quantized):
    return [weight for weight, *_ in quantized.net.get_layer("quant_fc")._weight_vars]


def values_of(quantized, images, name, fake):
    """Of a tensor by name, with or without fake quantization."""
    seen = {}

    def note(tensor, values, fakes):
        seen[tensor] = fakes if fake else values
        return seen[tensor]

    with observed(note):
        quantized(images, training=False)
    return seen[name].numpy()


def test_parts_are_few_and_nearly_equal():
    assert part_widths(4096, 1000) == [1000]
    widths = part_widths(25088, 4096)  # VGG's first fully connected layer, on 224 pixels.
    assert sum(widths) == 4096
    assert max(widths) - min(widths) <= 1
    assert max(widths) * 25088 <= LARGEST_PART < -(-4096 // (len(widths) - 1)) * 25088
    assert part_widths(2 * LARGEST_PART, 3) == [1, 1, 1]


def test_the_weights_are_those_of_the_model(model, images, split):
    quantized = calibrated(model, images)
    kernel, bias = model.get_layer("fc").get_weights()
    assert fully_connected(quantized).parts == PARTS
    assert [part.shape[-1] for part in kernel_variables(quantized)] == WIDTHS
    np.testing.assert_array_equal(np.concatenate(kernel_variables(quantized), axis=-1), kernel)
    np.testing.assert_array_equal(fully_connected(quantized).bias, bias)
    expected = model.predict(images, verbose=0)["logits"]
    plain = values_of(quantized, images, "logits/output", fake=False)
    np.testing.assert_allclose(plain, expected, atol=1e-5 * np.abs(expected).max())


def test_joined_parts_are_the_whole_layer(model, images, monkeypatch):
    """Ranges of weights are those of each channel, so nothing changes."""
    whole = calibrated(model, images)
    monkeypatch.setattr(compress_layers, "LARGEST_PART", 32)
    split = calibrated(model, images)
    assert fully_connected(whole).parts == ("kernel",)
    assert split.ranges()["fc/output"] == whole.ranges()["fc/output"]
    for fake in (False, True):
        expected = values_of(whole, images, "fc/output", fake)
        np.testing.assert_array_equal(values_of(split, images, "fc/output", fake), expected)
    joined = [values_of(split, images, f"fc/{part}", fake=True) for part in PARTS]
    np.testing.assert_array_equal(np.concatenate(joined, axis=-1), values_of(whole, images, "fc/kernel", fake=True))


def test_it_trains_and_comes_back(model, images, split, tmp_path):
    quantized = kv.quantize(model)
    quantized.compile("sgd", learning_rate=0.1)
    before = [part.numpy() for part in kernel_variables(quantized)]
    quantized.fit(images, {"label": np.arange(len(images)) % 3}, batch_size=16, verbose=0)
    quantized.check_trained()
    assert all((part.numpy() != old).any() for part, old in zip(kernel_variables(quantized), before, strict=True))
    quantized.save_weights(tmp_path / "quantized.weights.h5")
    again = kv.quantize(model)
    again.load_weights(tmp_path / "quantized.weights.h5")
    np.testing.assert_array_equal(again(images)["logits"], quantized(images)["logits"])


def test_the_file_has_no_float_op_and_computes_the_same(model, images, split, tmp_path):
    data = (images, {"label": np.zeros(len(images), np.int64)})
    report = kv.export(model, tmp_path, quantization="int8", data=data, benchmark=False, explain=True)
    assert report.float_ops == []
    assert report.ops["CONV_2D"] == 1 + 3 + 3 + 1
    assert report.ops["CONCATENATION"] == 2
    assert report.ops["QUANTIZE"] == 2, "the two ends of the file; parts are not rescaled"
    assert report.parity["scores"]["lsb"]["mean"] <= 1.0
    differences = {layer["tensor"]: layer["mean_lsb"] for layer in report.layers}
    assert differences["fc/output"] < 0.1
    assert differences["late/output"] < 0.1


def test_number_formats_and_zeros_are_kept_in_every_part(model, images, split):
    kernel, bias = model.get_layer("fc").get_weights()
    kernel[::2] = 0
    model.get_layer("fc").set_weights([kernel, bias])
    quantized = calibrated(model, images, weights={"fc": "int4"}, preserve=("sparsity",))
    for name, width in zip(PARTS, WIDTHS, strict=True):
        quantizer = quantized.quantizers[f"fc/{name}"]
        assert isinstance(quantizer, WeightQuantizer)
        assert quantizer.number_format == "int4"
        values = tf.reshape(values_of(quantized, images, f"fc/{name}", fake=True), (CHANNELS, width)).numpy()
        assert (values[::2] == 0).all()
        assert all(len(np.unique(column)) <= 15 for column in values.T)
