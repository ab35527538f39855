import keras
import numpy as np
import pytest
import tensorflow as tf
import tf_keras

import kerasvision as kv
from kerasvision.compress.pruning import prune

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


def kernel(model, name):
    return model.get_layer(name).get_weights()[0]


def fitted(model, **arguments):
    pruned = prune(model, **arguments)
    pruned.compile("adam", learning_rate=1e-3)
    pruned.fit(batches(), validation_data=batches(seed=1), epochs=2, verbose=0)
    return pruned


@pytest.mark.parametrize("sparsity", [0.5, 0.75])
def test_zeros_are_exact(built, sparsity):
    pruned = fitted(built, sparsity=sparsity)
    model = pruned.strip()
    assert pruned.changed == KERNELS
    for name in KERNELS:
        assert np.mean(kernel(model, name) == 0) == pytest.approx(sparsity, abs=0.5 / kernel(model, name).size)
    for name in ("stage0_0_conv", "logits"):
        assert kernel(model, name).all()
    images, _ = next(iter(batches(seed=2)))
    np.testing.assert_allclose(model(images)["logits"], pruned(images)["logits"], atol=1e-5)


def test_the_smallest_weights_go(built):
    pruned = prune(built, 0.5)
    pruned.compile("sgd", learning_rate=0.0)
    pruned.fit(batches(), verbose=0)
    model = pruned.strip()
    for name in KERNELS:
        was, now = np.abs(kernel(built, name)), kernel(model, name)
        assert was[now == 0].max() < was[now != 0].min()
        np.testing.assert_array_equal(now[now != 0], kernel(built, name)[now != 0])


def test_a_second_fit_keeps_the_zeros(built):
    pruned = fitted(built)
    first = pruned.strip()
    pruned.compile("adam", learning_rate=1e-2)
    pruned.fit(batches(), epochs=3, verbose=0)
    second = pruned.strip()
    for name in KERNELS:
        np.testing.assert_array_equal(kernel(first, name) == 0, kernel(second, name) == 0)
        assert not np.array_equal(kernel(first, name), kernel(second, name))


def test_two_of_four_input_channels(built):
    model = fitted(built, pattern=(2, 4)).strip()
    for name in KERNELS:
        rows = np.moveaxis(kernel(model, name), 2, -1)  # As a .tflite file has them: input channels last.
        np.testing.assert_array_equal((rows.reshape(-1, 4) == 0).sum(1), 2)


def test_all_layers_on_request(built):
    model = fitted(built, skip=()).strip()
    for name in ("stage0_0_conv", "logits"):
        assert np.mean(kernel(model, name) == 0) == pytest.approx(0.5)


def test_a_broken_off_fit_is_planned_anew(built):
    def stop(batch, logs):
        raise KeyboardInterrupt

    pruned = prune(built, 0.5)
    pruned.compile("adam", learning_rate=1e-3)
    with pytest.raises(KeyboardInterrupt):
        pruned.fit(batches(), epochs=50, verbose=0, callbacks=[tf_keras.callbacks.LambdaCallback(on_batch_end=stop)])
    with pytest.raises(ValueError, match="call fit first"):
        pruned.strip()
    pruned.fit(batches(), epochs=3, verbose=0)
    assert np.mean(kernel(pruned.strip(), KERNELS[0]) == 0) == 0.5


def test_steps_come_from_the_data(built):
    endless = batches().repeat()
    pruned = prune(built, 0.5)
    pruned.compile("adam", learning_rate=1e-3)
    with pytest.raises(ValueError, match="give steps_per_epoch"):
        pruned.fit(endless, epochs=1, verbose=0)
    pruned.fit(endless, epochs=2, steps_per_epoch=3, verbose=0)
    assert np.mean(kernel(pruned.strip(), KERNELS[0]) == 0) == 0.5
    images, targets = next(iter(batches().unbatch().batch(64)))
    pruned = prune(built, 0.5)
    pruned.compile("adam", learning_rate=1e-3)
    pruned.fit(images, targets, batch_size=32, verbose=0)
    assert np.mean(kernel(pruned.strip(), KERNELS[0]) == 0) == 0.5


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        ({"sparsity": 1.0}, "between 0 and 1, got 1"),
        ({"sparsity": 0.5, "pattern": (2, 4)}, "not both"),
        ({"pattern": (4, 2)}, r"such as \(2, 4\), got \(4, 2\)"),
    ],
)
def test_bad_arguments(built, arguments, message):
    with pytest.raises(ValueError, match=message):
        prune(built, **arguments)
