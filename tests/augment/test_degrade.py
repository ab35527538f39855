"""Noise, blur and the other degradations: their statistics and their shapes."""

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from kerasvision.augment import degrade, noise, weather

RNG = np.random.default_rng


def flat(value, channels=3, side=128):
    return np.full((side, side, channels), value, np.uint8)


def point(side=41, value=255):
    image = np.zeros((side, side, 1), np.uint8)
    image[side // 2, side // 2] = value
    return image


@pytest.mark.parametrize("value", [60, 128])
def test_noise_has_the_spread_it_is_asked_for(value):
    image = flat(value)
    for changed, spread in [
        (noise.gaussian_noise(image, 12.0, RNG(0)), 12.0),
        (noise.speckle_noise(image, 0.1, RNG(0)), 0.1 * value),
        (noise.shot_noise(image, 100.0, RNG(0)), (value * 255 / 100) ** 0.5),
    ]:
        assert abs(changed.mean() - value) < 0.5
        assert changed.std() == pytest.approx(spread, rel=0.03)
        # Neighbours and channels know nothing of each other.
        centred = changed - changed.mean()
        for first, second in ((centred[:, 1:], centred[:, :-1]), (centred[..., 0], centred[..., 1])):
            assert abs((first * second).mean()) < 0.02 * spread**2


def test_impulse_noise_replaces_its_share():
    changed = noise.impulse_noise(flat(100), 0.2, RNG(0))
    assert (changed == 0).mean() == pytest.approx(0.1, abs=0.01)
    assert (changed == 255).mean() == pytest.approx(0.1, abs=0.01)
    assert (noise.impulse_noise(flat(100), 1.0, RNG(0)) != 100).all()


@settings(deadline=None, max_examples=40)
@given(st.floats(0, 12), st.floats(0, 2), st.floats(-360, 360))
def test_kernels_sum_to_one_and_fit(radius, blur, degrees):
    for kernel in (
        weather.disk_kernel(radius, blur),
        weather.line_kernel(np.linspace(-radius, radius, 9), np.ones(9), degrees),
        weather.line_kernel(np.arange(np.ceil(radius) + 1), np.ones(int(np.ceil(radius)) + 1), degrees),
    ):
        assert kernel.shape[0] == kernel.shape[1] and kernel.shape[0] % 2 == 1
        assert kernel.min() >= 0 and kernel.sum() == pytest.approx(1, abs=1e-4)


@pytest.mark.parametrize("degrees", [0, 30, 90, 135])
def test_motion_blur_goes_its_way(degrees):
    rows, columns = np.nonzero(degrade.motion_blur(point(), 16.0, degrees)[..., 0])
    rows, columns = rows - 20, columns - 20
    along = columns * np.cos(np.radians(degrees)) - rows * np.sin(np.radians(degrees))
    across = columns * np.sin(np.radians(degrees)) + rows * np.cos(np.radians(degrees))
    assert 7 <= along.max() <= 9.5 and -9.5 <= along.min() <= -7
    assert np.abs(across).max() < 1.5


def test_blurs_spread_a_point_as_far_as_they_say():
    def spread(image):
        weights = image[..., 0].astype(float)
        return ((weights * (np.arange(41) - 20) ** 2).sum() / weights.sum()) ** 0.5

    # The variance of a disk along one axis is a quarter of its squared radius.
    assert spread(degrade.defocus_blur(255 - (255 - point()) // 1, 4.0)) == pytest.approx(2.0, rel=0.15)
    square = np.zeros((41, 41, 1), np.uint8)
    square[18:23, 18:23] = 255
    assert spread(degrade.gaussian_blur(square, 2.0)) == pytest.approx((2 + 2.0**2) ** 0.5, rel=0.05)
    for blurred in (degrade.gaussian_blur(flat(77), 3.0), degrade.defocus_blur(flat(77), 5.0)):
        assert (blurred == 77).all()


def test_jpeg_and_downscale_lose_more_the_stronger_they_are():
    y, x = np.mgrid[:64, :64]
    image = np.stack([127 + 100 * np.sin(x * y / 60), 2.0 * x + y, 3.0 * y], -1).astype(np.uint8)
    losses = [np.abs(degrade.jpeg(image, q).astype(int) - image).mean() for q in (95, 60, 20, 5)]
    assert losses == sorted(losses) and losses[0] < losses[-1] / 2
    # Red first in, red first out.
    red = np.zeros((16, 16, 3), np.uint8)
    red[..., 0] = 200
    assert np.abs(degrade.jpeg(red, 95).astype(int) - red).max() < 4
    losses = [np.abs(degrade.downscale(image, s).astype(int) - image).mean() for s in (1.0, 0.5, 0.25, 0.1)]
    assert losses == sorted(losses) and losses[0] == 0
    halved = degrade.downscale(image, 0.5)
    assert (halved[::2] == halved[1::2]).all() and (halved[:, ::2] == halved[:, 1::2]).all()


@settings(deadline=None, max_examples=30)
@given(st.integers(1, 70), st.integers(1, 70), st.floats(1, 4), st.integers(0, 99))
def test_plasma_fills_its_range(height, width, decay, seed):
    clouds = weather.plasma((height, width), decay, RNG(seed))
    assert clouds.shape == (height, width) and clouds.min() == 0
    assert clouds.max() == pytest.approx(1, abs=1e-5) or height * width == 1


def test_plasma_is_smoother_with_decay():
    def roughness(decay):
        return np.mean([np.abs(np.diff(weather.plasma((64, 64), decay, RNG(k)))).mean() for k in range(5)])

    assert roughness(1.2) > 1.5 * roughness(2.0) > 2 * roughness(3.5)


def test_fog_lightens_dark_places_and_flattens_contrast():
    image = np.zeros((64, 64, 3), np.uint8)
    image[:, 32:] = 255
    changed = degrade.fog(image, 1.5, 2.0, RNG(0)).astype(int)
    assert changed[:, :32].mean() > 60
    assert changed[:, 32:].mean() - changed[:, :32].mean() < 140
    assert (degrade.fog(np.zeros((8, 8, 3), np.uint8), 1.0, 2.0, RNG(0)) == 0).all()


def test_shadow_darkens_inside_the_polygon_only():
    triangle = np.array([[[10.0, 10.0], [50.0, 10.0], [10.0, 50.0]]])
    changed = degrade.shadow(flat(200, side=64), triangle, 0.5)
    assert (changed[20, 20] == 100).all() and (changed[50, 50] == 200).all() and (changed[5, 20] == 200).all()
    share = (changed == 100).mean()
    assert share == pytest.approx(0.5 * 40 * 40 / 64**2, rel=0.1)
