"""Zeros, clusters and number formats, from the float model into the int8 file."""

import keras
import numpy as np
import pytest
import tensorflow as tf

import kerasvision as kv
from kerasvision.compress.formats import FORMATS
from kerasvision.compress.preserve import cluster_index, shared
from kerasvision.compress.pruning import prune
from kerasvision.compress.sharing import cluster
from kerasvision.errors import QuantizationError, UnknownNameError
from kerasvision.export.coverage import layers_of
from kerasvision.export.kernels import int8_kernels
from kerasvision.export.timing import zip_size_of

KERNELS = ("stage1_0_conv", "stage2_0_conv")


def batches(count=64, seed=0):
    rng = np.random.default_rng(seed)
    label = rng.integers(0, 3, count)
    images = rng.normal(100 + 25 * label[:, None, None, None], 20, (count, 8, 8, 1)).clip(0, 255).astype("uint8")
    return tf.data.Dataset.from_tensor_slices((images, {"label": label})).batch(16)


@pytest.fixture(scope="module")
def built():
    keras.utils.set_random_seed(0)
    return kv.create_model("small_cnn", num_classes=3, input_shape=(8, 8, 1), filters=[8, 32, 64], depth=1)


@pytest.fixture(scope="module")
def small(built):
    """Half of the weights zero, the others of seven values in each kernel."""
    pruned = prune(built, 0.5)
    pruned.compile("sgd", learning_rate=1e-3)
    pruned.fit(batches(), epochs=1, verbose=0)
    return cluster(pruned.strip(), 8, preserve=("sparsity",)).strip()


def tuned(model, **arguments):
    quantized = kv.quantize(model, **arguments)
    quantized.compile("adam", learning_rate=1e-2)
    quantized.fit(batches(), epochs=2, verbose=0)
    return quantized


@pytest.fixture(scope="module")
def preserved(small):
    return tuned(small, preserve=("sparsity", "clusters"))


def exported(model, folder):
    report = kv.export(model, folder, format="tflite", benchmark=False)
    names = {layer.name.removeprefix("quant_") for layer in model.net.layers}
    found = {layers_of(name, names)[-1]: codes for name, codes in int8_kernels(report.path).items()}
    return report.path, found


def float_kernel(model, name):
    return model.get_layer(name).get_weights()[0]


def test_zeros_and_clusters_reach_the_file(built, small, preserved, tmp_path):
    path, codes = exported(preserved, tmp_path / "small")
    assert set(codes) == {"stage0_0_conv", *KERNELS, "logits"}
    for name in KERNELS:
        before = np.moveaxis(float_kernel(small, name), -1, 0)  # [C_out, h, w, C_in], as the file has it.
        assert np.mean(before == 0) >= 0.5
        assert (codes[name][before == 0] == 0).all()
        assert 3 <= len(np.unique(codes[name])) <= 8
        assert (np.sign(codes[name]) == np.sign(before)).mean() > 0.9
    # The same net without: as large, but hardly to be compressed.
    plain_path, plain = exported(tuned(built), tmp_path / "plain")
    assert len(np.unique(plain[KERNELS[1]])) > 100
    saved = zip_size_of(plain_path) - zip_size_of(path)
    weights = sum(codes[name].size for name in KERNELS)
    assert abs(plain_path.stat().st_size - path.stat().st_size) < 0.05 * weights
    # 8 bits a weight against half zeros and 7 values: 0.5 log2(2) + 0.5 log2(14) = 2.4 bits; deflate comes near.
    assert saved > 0.5 * weights


def test_clusters_and_zeros_move_no_weight_apart(small, preserved):
    """The file's values are trained: they are not those that the net had before."""
    for name in KERNELS:
        kernel = preserved.net.get_layer(f"quant_{name}").weights[0].numpy()
        before = float_kernel(small, name)
        for value in np.unique(before):
            together = kernel[before == value]
            np.testing.assert_allclose(together, together[0], rtol=1e-4, atol=1e-6)
            if value == 0:
                assert (together == 0).all()
            else:
                assert together[0] != value


def test_one_kind_alone(small):
    quantized = tuned(small, preserve=("sparsity",))
    kernel = float_kernel(small, KERNELS[1])
    quantizer = quantized.quantizers[f"{KERNELS[1]}/kernel"]
    wrapper = quantized.net.get_layer(f"quant_{KERNELS[1]}")
    (now, _, variables) = wrapper._weight_vars[0]
    values = quantizer(now, False, variables).numpy()
    assert (values[kernel == 0] == 0).all()
    assert len(np.unique(values)) > 100


def test_what_is_preserved_comes_back_with_the_weights(preserved, tmp_path):
    preserved.save_weights(tmp_path / "q.weights.h5")
    again = type(preserved).from_config(preserved.get_config())
    again.load_weights(tmp_path / "q.weights.h5")
    images, _ = next(iter(batches(seed=3)))
    np.testing.assert_array_equal(again(images)["logits"], preserved(images)["logits"])


def test_formats_reach_the_file(built, tmp_path):
    """One layer in each format; the file's codes are those of the fake-quantized kernels."""
    formats = dict(zip((*KERNELS, "logits"), ("int4", "power_of_two", "additive_power_of_two"), strict=True))
    quantized = tuned(built, weights=formats)
    _, codes = exported(quantized, tmp_path)
    for name, number_format in {"stage0_0_conv": "int8", **formats}.items():
        grid = FORMATS[number_format]
        quantizer = quantized.quantizers[f"{name}/kernel"]
        kernel = tf.reshape(quantized.net.get_layer(f"quant_{name}").weights[0], (*codes[name].shape[1:], -1))
        values = np.moveaxis(quantizer.quantize(kernel).numpy(), -1, 0)
        step = np.abs(values).max((1, 2, 3), keepdims=True) / grid.codes[-1]
        np.testing.assert_array_equal(codes[name], np.round(values / step))
        assert grid.holds(codes[name])
        assert np.abs(codes[name]).max() == grid.codes[-1]
    assert not FORMATS["additive_power_of_two"].holds(codes[KERNELS[0]])


def test_formats_come_back_from_the_config(built):
    quantized = kv.quantize(built, weights="power_of_two")
    assert {q.number_format for n, q in quantized.quantizers.items() if n.endswith("/kernel")} == {"power_of_two"}
    assert type(quantized).from_config(quantized.get_config()).get_config() == quantized.get_config()


def test_zeros_stay_zeros_in_every_format(small):
    kernel = float_kernel(small, KERNELS[1])
    for number_format in FORMATS:
        quantized = kv.quantize(small, weights=number_format, preserve=("sparsity", "clusters"))
        now, quantizer, variables = quantized.net.get_layer(f"quant_{KERNELS[1]}")._weight_vars[0]
        values = quantizer(now, False, variables).numpy()
        assert (values[kernel == 0] == 0).all()
        assert len(np.unique(values)) <= 8


class TestClusterIndex:
    def test_values_that_repeat(self):
        index = cluster_index(np.array([[0.5, -1.0], [0.5, -1.0]], "float32"))
        np.testing.assert_array_equal(index, [[1, 0], [1, 0]])

    def test_zeros_alone_are_no_cluster(self):
        np.testing.assert_array_equal(cluster_index(np.array([0.0, 0.0, 0.0, 1.0, 2.0], "float32")), -1)

    def test_the_gradient_is_the_sum_over_the_cluster(self):
        values, index = tf.constant([1.0, 2.0, 1.0, 2.0, 2.0]), tf.constant([0, 1, 0, 1, 1], tf.int64)
        with tf.GradientTape() as tape:
            tape.watch(values)
            y = shared(values, index)
            loss = tf.reduce_sum(y * tf.constant([1.0, 2.0, 3.0, 4.0, 5.0]))
        np.testing.assert_allclose(y, values)
        np.testing.assert_allclose(tape.gradient(loss, values), [4, 11, 4, 11, 11])

    def test_values_of_no_cluster_pass(self):
        values, index = tf.constant([1.0, 2.0, 3.0]), tf.constant([-1, -1, -1], tf.int64)
        with tf.GradientTape() as tape:
            tape.watch(values)
            y = shared(values, index)
        np.testing.assert_array_equal(y, values)
        np.testing.assert_array_equal(tape.gradient(y, values), 1.0)


@pytest.mark.parametrize(
    ("arguments", "error", "message"),
    [
        ({"preserve": ("sparsity",)}, QuantizationError, "has sparsity to preserve. Call prune first"),
        ({"preserve": ("clusters",)}, QuantizationError, "has clusters to preserve. Call cluster first"),
        ({"preserve": ("zeros",)}, UnknownNameError, 'no property to preserve "zeros".*clusters, sparsity'),
        ({"weights": "int5"}, UnknownNameError, 'no number format "int5".*"int4"'),
        ({"weights": {"stage0_0_conv": "int5"}}, UnknownNameError, 'no number format "int5"'),
        ({"weights": {"stage0_conv": "int4"}}, UnknownNameError, 'name "stage0_conv".*"stage0_0_conv"'),
    ],
)
def test_bad_arguments(built, arguments, error, message):
    with pytest.raises(error, match=message):
        kv.quantize(built, **arguments)
