"""Partial convolution against the plain one, against its formula, and as a part of a net."""

import itertools

import keras
import numpy as np
import pytest

import kerasvision as kv
from kerasvision.layers.partial_convolution import PartialConv2D, partial_conv

RNG = np.random.default_rng(0)
X = RNG.normal(size=(2, 9, 7, 3)).astype("float32")


def masks(share=0.4, channels=1):
    return (RNG.random((2, 9, 7, channels)) > share).astype("float32")


@pytest.mark.parametrize("padding", ["same", "valid"])
@pytest.mark.parametrize("kernel_size, strides", [(3, 1), (3, 2), ((5, 3), (1, 2)), (1, 1)])
def test_full_mask_is_the_plain_convolution(kernel_size, strides, padding):
    layer = PartialConv2D(4, kernel_size, strides, padding, activation="relu")
    plain = keras.layers.Conv2D(4, kernel_size, strides, padding, activation="relu")
    received = layer(X, np.ones((2, 9, 7, 1), "float32"))
    plain.build(X.shape)
    layer.bias.assign(RNG.normal(size=4))
    plain.set_weights(layer.get_weights())
    expected = plain(X)
    assert received.shape == expected.shape
    np.testing.assert_allclose(layer(X, np.ones_like(X)), expected, atol=1e-6)
    np.testing.assert_allclose(layer(X, np.ones((2, 9, 7, 1))), expected, atol=1e-6)


@pytest.mark.parametrize("channels", [1, 3])
def test_formula(channels):
    """W (X * M) sum(1) / sum(M) + b over the part of the window that lies inside of the image; 0 without a pixel."""
    observed = masks(0.8, channels)
    layer = PartialConv2D(4, 3)
    received = np.asarray(layer(X, observed))
    layer.bias.assign(RNG.normal(size=4))
    received = np.asarray(layer(X, observed))
    kernel, bias = (np.asarray(weight) for weight in layer.get_weights())
    seen = 0
    for image, row, column in itertools.product(range(2), range(9), range(7)):
        total, one, there = np.zeros(4), 0, 0.0
        for i, j in itertools.product(range(-1, 2), repeat=2):
            y, x = row + i, column + j
            if 0 <= y < 9 and 0 <= x < 7:
                total += (X[image, y, x] * observed[image, y, x]) @ kernel[i + 1, j + 1]
                one += channels
                there += observed[image, y, x].sum()
        expected = total * one / there + bias if there else np.zeros(4)
        seen += there > 0
        np.testing.assert_allclose(received[image, row, column], expected, atol=1e-4)
    assert 30 < seen < 126 or channels == 3


def test_what_stands_in_gaps_does_not_count():
    observed = masks()
    layer = PartialConv2D(4, 3)
    other = np.where(observed > 0, X, 1e3).astype("float32")
    np.testing.assert_array_equal(layer(X, observed), layer(other, observed))


def net(strides=1, blocks=2):
    keras.utils.set_random_seed(1)
    image, mask = keras.Input((9, 7, 3)), keras.Input((9, 7, 1))
    x, observed = image, mask
    for index in range(blocks):
        x, observed = partial_conv(x, observed, 4, 3, strides, name=f"block{index}", activation="relu")
    return keras.Model([image, mask], {"features": x, "observed": observed})


@pytest.mark.parametrize("strides", [1, 2])
def test_the_mask_grows_to_every_window_that_saw_something(strides):
    mask = np.zeros((1, 9, 7, 1), "float32")
    mask[0, 4, 3] = 1
    results = net(strides)([X[:1], mask])
    assert results["features"].shape[1:3] == results["observed"].shape[1:3]
    expected = np.zeros((9, 7)) if strides == 1 else np.zeros((3, 2))
    if strides == 1:
        expected[2:7, 1:6] = 1
    else:
        # Of the 5 x 4 map after the first stride, the windows of row 2 and column 1 saw it (SAME pads above and left).
        first = {(row, column) for row in range(5) for column in range(4) if abs(2 * row - 4) <= 1}
        first = {(row, column) for row, column in first if abs(2 * column - 3) <= 1}
        for row, column in itertools.product(range(3), range(2)):
            hit = any(abs(2 * row - y) <= 1 and 0 <= x - 2 * column <= 2 for y, x in first)
            expected[row, column] = hit
    np.testing.assert_array_equal(results["observed"][0, ..., 0], expected)
    assert not np.asarray(results["features"])[0][expected == 0].any()


def test_fit_reaches_every_weight_and_the_net_survives_a_file(tmp_path):
    model = net()
    model.compile(keras.optimizers.SGD(0.1), loss={"features": "mse"})
    before = [np.array(weight) for weight in model.trainable_weights]
    model.fit([X, masks()], {"features": np.ones((2, 9, 7, 4))}, verbose=0)
    moved = [np.abs(np.array(now) - old).max() for now, old in zip(model.trainable_weights, before, strict=True)]
    assert len(moved) == 4 and all(moved)
    model.save(tmp_path / "net.keras")
    given = [X, masks()]
    again = keras.saving.load_model(tmp_path / "net.keras")
    np.testing.assert_array_equal(again(given)["features"], model(given)["features"])


def test_config_round_trip():
    layer = PartialConv2D(
        5, (3, 5), (2, 1), "valid", activation="gelu", use_bias=False, kernel_initializer="he_normal", name="here"
    )
    again = PartialConv2D.from_config(layer.get_config())
    assert again.get_config() == layer.get_config()
    assert again.name == "here" and again.strides == (2, 1)
    again(X, masks())
    assert len(again.weights) == 1


def test_half_precision():
    layer, half = PartialConv2D(4, 3), PartialConv2D(4, 3, dtype="mixed_float16")
    observed = masks()
    full = layer(X, observed)
    half(X, observed)
    half.set_weights(layer.get_weights())
    output = half(X, observed)
    assert output.dtype == "float16"
    np.testing.assert_allclose(np.asarray(output, "float32"), full, atol=0.03)


@pytest.mark.parametrize("shape", [(2, 9, 7, 2), (2, 9, 6, 1)])
def test_masks_of_another_shape(shape):
    with pytest.raises(ValueError, match=r"expected a mask \[B, 9, 7, 1 or 3\]"):
        PartialConv2D(4, 3)(X, np.ones(shape))
    with pytest.raises(ValueError, match='"same" or "valid"'):
        PartialConv2D(4, 3, padding="full")


def test_quantized_net_keeps_it_as_an_island():
    """In a net whose third channel is the mask."""
    task = kv.create_model("small_cnn", num_classes=2, input_shape=(9, 7, 3), filters=[4]).task
    image = keras.Input((9, 7, 3), name="image")
    preprocessing = kv.Preprocessing(scale=(1.0,), offset=(0.0,))
    normalized = keras.layers.Rescaling(1.0, 0.0, name="preprocessing")(image)
    x, observed = partial_conv(normalized[..., :2], normalized[..., 2:], 4, 3, 2, name="first", activation="relu")
    x, _ = partial_conv(x, observed, 4, 3, name="second")
    x = keras.layers.GlobalAveragePooling2D()(x)
    outputs = {"logits": keras.layers.Dense(2, name="logits")(x)}
    build = {"name": "partial", "arguments": {}}
    model = kv.TaskModel(image, outputs, task=task, preprocessing=preprocessing, build=build)
    quantized = kv.quantize(model, islands=[part.name for part in model.operations if "get_item" in part.name])
    assert {"first_conv", "second_conv"} <= set(quantized.islands)
    images = np.concatenate([RNG.integers(0, 255, (8, 9, 7, 2)), RNG.integers(0, 2, (8, 9, 7, 1))], -1)
    images = images.astype("float32")
    quantized.calibrate(images)
    expected = np.asarray(model(images)["logits"])
    difference = np.abs(np.asarray(quantized(images)["logits"]) - expected).max()
    assert difference < 0.05 * np.ptp(expected)
