import keras
import numpy as np
import pytest
import tensorflow as tf

import kerasvision as kv
from kerasvision.compress.sharing import cluster, k_means
from kerasvision.errors import UnknownNameError

KERNELS = ("stage1_0_conv", "stage2_0_conv")


def batches(count=64, seed=0):
    rng = np.random.default_rng(seed)
    label = rng.integers(0, 3, count)
    images = rng.normal(100 + 25 * label[:, None, None, None], 20, (count, 8, 8, 1)).clip(0, 255).astype("uint8")
    return tf.data.Dataset.from_tensor_slices((images, {"label": label})).batch(16)


@pytest.fixture(scope="module")
def built():
    keras.utils.set_random_seed(0)
    return kv.create_model("small_cnn", num_classes=3, input_shape=(8, 8, 1), filters=[8, 8, 12], depth=1)


@pytest.fixture(scope="module")
def clustered(built):
    clustered = cluster(built, 8)
    clustered.compile("adam", learning_rate=1e-3)
    clustered.fit(batches(), validation_data=batches(seed=1), epochs=2, verbose=0)
    return clustered


def distinct(model, layer):
    return len(np.unique(model.get_layer(layer).get_weights()[0]))


def test_kernels_hold_few_values(built, clustered):
    model = clustered.strip()
    assert clustered.changed == KERNELS
    for name in KERNELS:
        assert 1 < distinct(model, name) <= 8
    for name in ("stage0_0_conv", "logits"):
        assert distinct(model, name) == distinct(built, name)


def test_the_stripped_model_computes_the_same(clustered):
    images, _ = next(iter(batches(seed=2)))
    np.testing.assert_allclose(clustered.strip()(images)["logits"], clustered(images)["logits"], atol=1e-5)


def test_values_and_normalization_are_trained(built, clustered):
    start, end = cluster(built, 8).strip(), clustered.strip()
    for name in (*KERNELS, "stage1_0_bn", "logits"):
        old, new = (model.get_layer(name).get_weights() for model in (start, end))
        assert all(not np.array_equal(a, b) for a, b in zip(old, new, strict=True)), name


def test_the_model_it_came_from_is_left_alone(built):
    before = built.get_weights()
    clustered = cluster(built, 4, skip=())
    clustered.compile("sgd", learning_rate=0.01)
    clustered.fit(batches(), verbose=0)
    for old, new in zip(before, built.get_weights(), strict=True):
        np.testing.assert_array_equal(new, old)
    assert distinct(clustered.strip(), "logits") <= 4


def test_frozen_layers_stay_frozen():
    model = kv.create_model("small_cnn", num_classes=3, input_shape=(8, 8, 1), filters=[4, 6], depth=1)
    model.get_layer("stage0_0_bn").trainable = False
    assert not cluster(model, 4).strip().get_layer("stage0_0_bn").trainable


@pytest.mark.parametrize("start", ["linear", "k-means++"])
def test_zeros_are_preserved(built, start):
    sparse = kv.create_model("small_cnn", num_classes=3, input_shape=(8, 8, 1), filters=[8, 8, 12], depth=1)
    sparse.set_weights([w * (np.abs(w) > np.median(np.abs(w))) if w.ndim == 4 else w for w in built.get_weights()])
    clustered = cluster(sparse, 8, start=start, preserve=("sparsity",))
    clustered.compile("adam", learning_rate=1e-2)
    clustered.fit(batches(), epochs=2, verbose=0)
    model = clustered.strip()
    for name in KERNELS:
        was, now = (each.get_layer(name).get_weights()[0] for each in (sparse, model))
        assert (now[was == 0] == 0).all()
        assert len(np.unique(now)) <= 8


@pytest.mark.parametrize("start", ["linear", "k-means++"])
def test_the_start_is_k_means(built, start):
    """No kernel is further from the float one than with values at equal distances."""
    model = cluster(built, 8, start=start).strip()
    for name in KERNELS:
        kernel, now = (each.get_layer(name).get_weights()[0] for each in (built, model))
        linear = np.linspace(kernel.min(), kernel.max(), 8)
        naive = (np.abs(kernel[..., None] - linear).min(-1) ** 2).sum()
        assert ((kernel - now) ** 2).sum() < naive
        for value in np.unique(now):
            assert kernel[now == value].mean() == pytest.approx(value, abs=1e-6)


def test_k_means_against_a_plain_one():
    values = np.random.default_rng(0).normal(size=500)
    start = np.linspace(values.min(), values.max(), 7)
    expected = start.copy()
    for _ in range(300):
        nearest = np.abs(values[:, None] - expected).argmin(1)
        expected = np.array([values[nearest == i].mean() for i in range(7)])
    np.testing.assert_allclose(k_means(values, start), expected, rtol=1e-6)


def test_a_centroid_without_values_stays():
    np.testing.assert_allclose(k_means(np.array([0.0, 0.2, 1.0]), np.array([0.0, 0.5, 1.0])), [0.1, 0.5, 1.0])


@pytest.mark.parametrize(
    ("arguments", "error", "message"),
    [
        ({"clusters": 1}, ValueError, "at least 2, got 1"),
        ({"clusters": 2, "preserve": ("sparsity",)}, ValueError, "at least 3, got 2"),
        ({"start": "random"}, ValueError, 'one of linear, k-means.*"random"'),
        ({"preserve": ("clusters",)}, ValueError, r'only name "sparsity", got \[.clusters.\]'),
        ({"skip": ("stage1_1_conv",)}, UnknownNameError, 'no layer "stage1_1_conv".*"stage1_0_conv"'),
        ({"skip": ("stage0_0_conv", *KERNELS, "logits")}, ValueError, r"no kernel to change.*skip=\(\)"),
    ],
)
def test_bad_arguments(built, arguments, error, message):
    with pytest.raises(error, match=message):
        cluster(built, **arguments)


def test_only_task_models():
    with pytest.raises(TypeError, match=r"cluster expects a model made by kerasvision.create_model, got Sequential"):
        cluster(keras.Sequential([keras.layers.Dense(1)]))
