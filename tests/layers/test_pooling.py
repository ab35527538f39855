"""Poolings against their formulas in NumPy."""

import keras
import numpy as np
import pytest

from kerasvision.layers.pooling import POOLING, PYRAMID, GeneralizedMeanPooling, MixedPooling, pyramid_bins


@pytest.fixture
def x():
    return np.random.default_rng(0).uniform(0, 3, (2, 5, 7, 6)).astype("float32")


def build(name, shape):
    image = keras.Input(shape)
    return keras.Model(image, POOLING[name](image, "pool"))


def pyramid(x):
    """Bin by bin, from the definition."""
    height, width = x.shape[1:3]
    parts = []
    for number in (1, 2, 4):
        for i in range(number):
            for j in range(number):
                rows = slice(int(np.floor(i * height / number)), int(np.ceil((i + 1) * height / number)))
                columns = slice(int(np.floor(j * width / number)), int(np.ceil((j + 1) * width / number)))
                parts.append(x[:, rows, columns].max((1, 2)))
    return np.concatenate(parts, -1)


def test_fresh_poolings(x):
    average, highest = x.mean((1, 2)), x.max((1, 2))
    expected = {
        "avg": average,
        "max": highest,
        "mixed": (average + highest) / 2,
        "gem": (x.astype("float64") ** 3).mean((1, 2)) ** (1 / 3),
        "spp": pyramid(x),
    }
    assert expected.keys() == POOLING.keys()
    for name, values in expected.items():
        net = build(name, x.shape[1:])
        assert net.layers[-1].name == "pool"
        np.testing.assert_allclose(net(x), values, rtol=1e-5, err_msg=name)


@pytest.mark.parametrize("size", [(4, 4), (7, 7), (5, 8), (6, 9), (10, 4), (12, 16), (13, 11), (2, 3), (1, 1)])
def test_spatial_pyramid_is_exact_for_any_size(size):
    x = np.random.default_rng(0).normal(size=(2, *size, 3)).astype("float32")
    output = build("spp", x.shape[1:])(x)
    assert output.shape == (2, 21 * 3)
    np.testing.assert_array_equal(output, pyramid(x))


def test_pyramid_bins_cover_every_place():
    for length in range(4, 20):
        for number in PYRAMID:
            bins = pyramid_bins(length, number)
            assert set().union(*(range(start, end) for start, end in bins)) == set(range(length))
            assert max(end - start for start, end in bins) <= -(-length // number) + 1


def test_a_pyramid_that_fits_needs_no_crops():
    kinds = {type(layer).__name__ for layer in build("spp", (8, 4, 3)).layers}
    assert kinds == {"InputLayer", "MaxPooling2D", "Flatten", "Concatenate"}


@pytest.mark.parametrize("logit,share", [(-30.0, 0.0), (np.log(3.0), 0.75), (30.0, 1.0)])
def test_mixed_pooling_mixes(x, logit, share):
    layer = MixedPooling()
    layer.build(x.shape)
    layer.logit.assign(logit)
    np.testing.assert_allclose(layer(x), share * x.max((1, 2)) + (1 - share) * x.mean((1, 2)), rtol=1e-5)


def test_generalized_mean_has_average_and_maximum_as_limits(x):
    np.testing.assert_allclose(GeneralizedMeanPooling(p=1.0)(x), x.mean((1, 2)), rtol=1e-5)
    # Within (number of places)^(1/p) of the maximum.
    highest = x.max((1, 2))
    output = np.asarray(GeneralizedMeanPooling(p=1000.0)(x))
    assert np.all(output <= highest) and np.all(output >= highest * 35**-0.001 * 0.9999)


def test_generalized_mean_of_what_a_relu_leaves():
    """Zeros, negative and large values give finite results and finite gradients."""
    x = np.zeros((1, 3, 3, 3), "float32")
    x[0, 0, 0] = (-5.0, 0.0, 1e6)
    output = np.asarray(GeneralizedMeanPooling(p=9.0)(x))
    np.testing.assert_allclose(output, [[1e-6, 1e-6, 1e6 * 9 ** (-1 / 9)]], rtol=1e-4)


def test_gradients_of_the_learned_scalars(x):
    """Against finite differences, on a loss that tells the channels apart."""
    factors = np.arange(1.0, 7.0)

    def loss(function, value):
        return float((function(x.astype("float64"), value) * factors).sum())

    def gem(x, p):
        return (x**p).mean((1, 2)) ** (1 / p)

    def mixed(x, logit):
        share = 1 / (1 + np.exp(-logit))
        return share * x.max((1, 2)) + (1 - share) * x.mean((1, 2))

    for name, function, start in (("gem", gem, 3.0), ("mixed", mixed, 0.0)):
        expected = (loss(function, start + 1e-4) - loss(function, start - 1e-4)) / 2e-4
        net = build(name, x.shape[1:])
        # One step of gradient descent, which every backend knows.
        rate = 1e-3
        net.compile(keras.optimizers.SGD(rate), loss=lambda y, out: keras.ops.sum(out * factors.astype("float32")))
        net.fit(x, np.zeros(2), batch_size=2, verbose=0)
        received = (start - float(net.trainable_weights[0].numpy())) / rate
        assert abs(expected) > 0.1
        assert received == pytest.approx(expected, rel=2e-2), name


@pytest.mark.parametrize("policy", ["mixed_float16", "mixed_bfloat16"])
def test_generalized_mean_is_computed_in_float32(policy):
    x = np.full((1, 4, 4, 2), 200.0, "float32")  # its cube is no float16
    layer = GeneralizedMeanPooling(dtype=policy)
    output = layer(x)
    assert keras.backend.standardize_dtype(output.dtype) == policy.removeprefix("mixed_")
    np.testing.assert_allclose(np.asarray(keras.ops.cast(output, "float32")), 200.0, rtol=1e-3)
    assert layer.exponent.dtype == "float32"


@pytest.mark.parametrize("layer", [MixedPooling(), GeneralizedMeanPooling(p=2.5)])
def test_layers_come_back_from_their_config(layer, x):
    twin = type(layer).from_config(layer.get_config())
    np.testing.assert_array_equal(twin(x), layer(x))


@pytest.mark.parametrize("name", POOLING)
def test_saves_and_loads(name, x, tmp_path):
    net = build(name, x.shape[1:])
    for weight in net.weights:
        weight.assign(weight + 0.5)
    net.save(tmp_path / "net.keras")
    np.testing.assert_array_equal(keras.saving.load_model(tmp_path / "net.keras")(x), net(x))
