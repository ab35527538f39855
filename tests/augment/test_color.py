"""Colour transforms against float arithmetic and against Pillow."""

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from PIL import Image, ImageEnhance

from kerasvision.augment import color
from kerasvision.augment.illumination import grey_world

LUMA = np.array([0.299, 0.587, 0.114])


def noise(seed=0, channels=3, low=0, high=256):
    return np.random.default_rng(seed).integers(low, high, (20, 24, channels)).astype(np.uint8)


def pillow(image):
    return Image.fromarray(image if image.shape[-1] == 3 else image[..., 0])


@settings(deadline=None, max_examples=30)
@given(
    st.floats(0, 2), st.floats(0, 2), st.floats(0, 2), st.floats(-0.5, 0.5), st.sampled_from([1, 3]), st.integers(0, 9)
)
def test_recolor_is_the_four_steps_in_float(brightness, contrast, saturation, turn, channels, seed):
    image = noise(seed, channels)
    luma = LUMA if channels == 3 else np.ones(1)
    values = image * brightness
    mean = (values @ luma).mean()
    values = mean + contrast * (values - mean)
    if channels == 3:
        grey = (values @ luma)[..., None]
        values = grey + saturation * (values - grey)
        to_yiq = np.array([LUMA, (0.596, -0.274, -0.322), (0.211, -0.523, 0.312)])
        y, i, q = np.moveaxis(values @ to_yiq.T, -1, 0)
        turned = (i + 1j * q) * np.exp(2j * np.pi * turn)
        values = np.stack([y, turned.real, turned.imag], axis=-1) @ np.linalg.inv(to_yiq).T
    changed = color.recolor(image, brightness, contrast, saturation, turn)
    # OpenCV multiplies pixels by fixed-point numbers: a little more than half a pixel value away.
    assert np.abs(changed - np.clip(values, 0, 255)).max() <= 1.5


@pytest.mark.parametrize("factor", [0.0, 0.4, 1.0, 1.3, 1.9])
@pytest.mark.parametrize("channels", [1, 3])
@pytest.mark.parametrize(
    ("ours", "theirs"),
    [
        (color.brightness, ImageEnhance.Brightness),
        (color.contrast, ImageEnhance.Contrast),
        (color.saturation, ImageEnhance.Color),
    ],
)
def test_as_pillow_within_rounding(ours, theirs, factor, channels):
    for image in (noise(1, channels), noise(2, channels, 90, 140)):
        expected = np.asarray(theirs(pillow(image)).enhance(factor)).reshape(image.shape)
        assert np.abs(ours(image, factor).astype(int) - expected).max() <= 1


def test_hue_turns_back_and_keeps_luma():
    image = noise(3, low=110, high=146)
    turned = color.hue(image, 0.3)
    assert np.abs(turned.astype(int) - image).mean() > 3
    assert np.abs(turned @ LUMA - image @ LUMA).max() < 1.5
    assert np.abs(color.hue(turned, -0.3).astype(int) - image).max() <= 2
    grey = np.repeat(noise(4, 1), 3, axis=-1)
    assert np.abs(color.hue(grey, 0.3).astype(int) - grey).max() <= 1


def test_a_cast_is_what_grey_world_takes_away():
    """Of an image whose channels have one mean: gains are those of channels, with a mean of 1."""
    image = grey_world(noise(7, low=60, high=120))
    cast = color.ColorCast((0.6, 1.6))({"image": image}, np.random.default_rng(1))["image"]
    gains = cast.mean(axis=(0, 1)) / image.mean(axis=(0, 1))
    assert np.ptp(gains) > 0.2 and gains.mean() == pytest.approx(1, abs=0.01)
    assert np.abs(cast - image * gains).max() < 1.5
    assert np.abs(grey_world(cast).astype(int) - image).max() <= 2


def test_grey_is_pillows():
    image = noise(5)
    expected = np.asarray(pillow(image).convert("L").convert("RGB")).astype(int)
    assert np.abs(color.grey(image) - expected).max() <= 1
    assert (color.grey(image) == color.grey(image)[..., :1]).all()


def test_channels_are_shuffled_and_dropped():
    image = noise(6)
    orders, lost = set(), set()
    for seed in range(40):
        shuffled = color.ChannelShuffle(probability=1.0)({"image": image}, np.random.default_rng(seed))["image"]
        order = tuple(int(np.flatnonzero((image == shuffled[..., [c]]).all((0, 1)))[0]) for c in range(3))
        orders.add(order)
        dropped = color.ChannelDropout(7, probability=1.0)({"image": image}, np.random.default_rng(seed))["image"]
        gone = (dropped == 7).all((0, 1))
        assert gone.sum() == 1 and (dropped[..., ~gone] == image[..., ~gone]).all()
        lost.add(int(np.flatnonzero(gone)[0]))
    assert len(orders) == 6 and lost == {0, 1, 2}


def test_color_draws_within_its_strengths():
    flat = np.full((4, 4, 1), 100, np.uint8)
    values = {
        int(color.Color(0.2, 0.0, 0.0)({"image": flat}, np.random.default_rng(seed))["image"][0, 0, 0])
        for seed in range(60)
    }
    assert min(values) >= 80 and max(values) <= 120 and min(values) < 85 and max(values) > 115
