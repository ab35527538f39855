import numpy as np
import pytest
import tensorflow as tf
from hypothesis import given, settings
from hypothesis import strategies as st

from kerasvision.compress.formats import FORMATS, grid
from kerasvision.errors import UnknownNameError

names = st.sampled_from(sorted(FORMATS))
values = st.lists(st.floats(-1e3, 1e3, width=32), min_size=1, max_size=40).map(lambda v: np.array(v, "float32"))


def rounded(name, x, limit=None):
    limit = np.float32(max(np.abs(x).max(), 1e-9)) if limit is None else limit
    return np.asarray(grid(name).round(tf.constant(x, tf.float32), limit))


def test_levels():
    assert len(grid("int8").levels()) == 255
    np.testing.assert_allclose(grid("int4").levels() * 7, np.arange(-7, 8))
    powers = 2.0 ** -np.arange(7)
    np.testing.assert_array_equal(grid("power_of_two").levels(), [*-powers, 0, *powers[::-1]])
    # Li et al., 2020: {0, 1, 1/2, 1/8} + {0, 1/4}, stretched to 1.
    sums = np.unique([a + b for a in (0, 1, 1 / 2, 1 / 8) for b in (0, 1 / 4)]) / 1.25
    np.testing.assert_allclose(grid("additive_power_of_two").levels()[7:], sums)


@pytest.mark.parametrize("name", ["int4", "power_of_two", "additive_power_of_two"])
def test_four_bits_are_enough(name):
    assert len(FORMATS[name].levels()) <= 16


def test_an_unknown_format_gives_the_closest():
    with pytest.raises(UnknownNameError, match='"int4"'):
        grid("int5")


@settings(deadline=None)
@given(names, values)
def test_every_value_lies_on_the_grid(name, x):
    limit = max(np.abs(x).max(), 1e-9)
    distance = np.abs(rounded(name, x)[:, None] / limit - grid(name).levels()).min(1)
    assert distance.max() < 1e-6


@settings(deadline=None)
@given(st.sampled_from(["int8", "int4", "additive_power_of_two"]), values)
def test_nearest_level(name, x):
    limit = max(np.abs(x).max(), 1e-9)
    best = np.abs(x[:, None] / limit - grid(name).levels()).min(1)
    np.testing.assert_allclose(np.abs(x - rounded(name, x)) / limit, best, atol=1e-6)


@settings(deadline=None)
@given(values)
def test_powers_of_two_are_rounded_in_the_logarithm(x):
    limit = np.float32(max(np.abs(x).max(), 1e-9))
    exponent = np.log2(np.maximum(np.abs(x.astype(float)) / limit, 1e-9))
    clear = np.abs(exponent - np.floor(exponent) - 0.5) > 1e-4  # From halfway between two powers.
    expected = np.where(exponent > -6.5, np.sign(x) * 2.0 ** np.round(np.maximum(exponent, -7)), 0.0)
    np.testing.assert_allclose((rounded("power_of_two", x) / limit)[clear], expected[clear], atol=1e-6)


@settings(deadline=None)
@given(names, values)
def test_idempotent(name, x):
    limit = np.float32(max(np.abs(x).max(), 1e-9))
    once = rounded(name, x, limit)
    np.testing.assert_allclose(rounded(name, once, limit), once, rtol=1e-6)


@settings(deadline=None)
@given(names, values)
def test_monotone_and_symmetric(name, x):
    limit = np.float32(max(np.abs(x).max(), 1e-9))
    x = np.sort(x)
    y = rounded(name, x, limit)
    assert (np.diff(y) >= -1e-6 * limit).all()
    np.testing.assert_array_equal(rounded(name, -x, limit), -y)


@pytest.mark.parametrize("name", FORMATS)
def test_each_channel_has_its_own_limit(name):
    x = np.random.default_rng(0).normal(size=(3, 3, 2, 4)).astype("float32") * [1, 10, 100, 1000]
    limit = np.abs(x).max((0, 1, 2)).astype("float32")
    expected = np.stack([rounded(name, x[..., c]) for c in range(4)], -1)
    np.testing.assert_allclose(rounded(name, x, limit), expected, rtol=1e-5)


@pytest.mark.parametrize("name", FORMATS)
def test_the_gradient_goes_straight_through(name):
    x = tf.constant(np.linspace(-1, 1, 9), tf.float32)
    with tf.GradientTape() as tape:
        tape.watch(x)
        y = tf.reduce_sum(grid(name).round(x, 1.0) * tf.range(9.0))
    np.testing.assert_array_equal(tape.gradient(y, x), np.arange(9.0))


@pytest.mark.parametrize("name", FORMATS)
def test_eight_bits_hold_every_level(name):
    limit = 0.37
    levels = tf.constant(grid(name).levels() * limit, tf.float32)
    top = grid(name).int8_limit(limit)
    again = tf.quantization.fake_quant_with_min_max_vars(levels, -top, top, narrow_range=True)
    np.testing.assert_allclose(again, levels, rtol=1e-5)
    codes = np.round(np.asarray(levels) / (top / 127)).astype("int8")
    assert grid(name).holds(codes)


def test_a_code_off_the_grid_is_found():
    assert not grid("power_of_two").holds(np.array([[0, 64], [-32, 3]], "int8"))
    assert not grid("int4").holds(np.array([-128], "int8"))
