"""L2 normalization against its formula, where it is hardest: nothing at all, half precision, an integer file."""

import keras
import numpy as np
import pytest
import tensorflow as tf

import kerasvision as kv
from kerasvision.layers.l2_normalization import L2Normalization


@pytest.fixture
def x():
    return np.random.default_rng(0).normal(size=(2, 3, 5, 16)).astype("float32")


def test_every_place_has_the_length_of_the_scale(x):
    layer = L2Normalization(7.0)
    y = layer(100 * x)
    np.testing.assert_allclose(y, 7 * x / np.linalg.norm(x, axis=-1, keepdims=True), rtol=1e-5)
    assert layer.count_params() == 16


def test_scales_are_learned_channel_by_channel(x):
    layer = L2Normalization()
    layer.build(x.shape)
    layer.gamma.assign(np.arange(16))
    expected = np.arange(16) * x / np.linalg.norm(x, axis=-1, keepdims=True)
    np.testing.assert_allclose(layer(x), expected, rtol=1e-5, atol=1e-6)


def test_a_place_of_zeros_stays_and_has_a_gradient(x):
    x[0, 1, 2] = 0
    x, layer = tf.constant(x), L2Normalization()
    with tf.GradientTape() as tape:
        tape.watch(x)
        y = layer(x)
        total = tf.reduce_sum(y * tf.random.stateless_normal(y.shape, (0, 0)))
    assert np.isfinite(tape.gradient(total, x)).all()
    np.testing.assert_array_equal(y[0, 1, 2], 0)


@pytest.mark.parametrize("policy", ["mixed_float16", "mixed_bfloat16"])
def test_squares_beyond_half_precision(x, policy):
    y = L2Normalization(dtype=policy)(1000 * x)
    assert y.dtype == policy.removeprefix("mixed_")
    expected = 20 * x / np.linalg.norm(x, axis=-1, keepdims=True)
    np.testing.assert_allclose(tf.cast(y, "float32"), expected, rtol=0.02, atol=1e-3)


def test_comes_back_from_a_file(x, tmp_path):
    image = keras.Input(x.shape[1:])
    model = keras.Model(image, L2Normalization(3.0, name="normalization")(image))
    model.save(tmp_path / "net.keras")
    again = keras.saving.load_model(tmp_path / "net.keras")
    np.testing.assert_array_equal(model(x), again(x))
    assert again.get_layer("normalization").get_config()["scale"] == 3.0


def test_an_island_in_a_quantized_net():
    keras.utils.set_random_seed(0)
    image = keras.Input((12, 12, 3), name="image")
    scaled = keras.layers.Rescaling(1 / 128, -1.0, name="preprocessing")(image)
    features = keras.layers.Conv2D(16, 3, padding="same", activation="relu", name="conv")(scaled)
    normalized = L2Normalization(name="normalization")(features)
    maps = keras.layers.Conv2D(2, 3, name="predictions")(normalized)
    task = kv.create_model("small_cnn", num_classes=2, input_shape=(16, 16, 3), filters=[4]).task
    preprocessing = kv.Preprocessing(scale=(1 / 128,), offset=(-1.0,))
    build = {"name": "normalized", "arguments": {}}
    logits = keras.layers.GlobalAveragePooling2D(name="logits")(maps)
    model = kv.TaskModel(image, {"logits": logits}, task=task, preprocessing=preprocessing, build=build)
    images = np.random.default_rng(0).integers(0, 256, (16, 12, 12, 3)).astype("float32")
    quantized = kv.quantize(model)
    assert quantized.islands == ("normalization",)
    quantized.calibrate(images)
    expected = np.asarray(model(images)["logits"])
    assert np.abs(np.asarray(quantized(images)["logits"]) - expected).max() < 0.05 * np.abs(expected).max()
    quantized.compile("adam")
    before = quantized.get_weights()
    quantized.fit(images, {"label": np.arange(16) % 2}, epochs=1, verbose=0)
    assert any(old.shape == (16,) and (old == 20).all() for old in before)
    assert not any(new.shape == (16,) and (new == 20).all() for new in quantized.get_weights())
