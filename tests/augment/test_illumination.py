"""Illumination normalisation: what it makes equal, and that light changes less afterwards."""

import numpy as np
import pytest
from PIL import Image

from kerasvision.augment import illumination
from kerasvision.augment.photometric import linear
from kerasvision.augment.tone import gamma

FUNCTIONS = {
    "standardize": illumination.standardize,
    "grey_world": illumination.grey_world,
    "retinex": illumination.retinex,
    "restored": lambda image: illumination.retinex(image, color_restoration=True),
    "local_contrast": illumination.local_contrast,
}


@pytest.fixture(scope="module")
def scene():
    rng = np.random.default_rng(0)
    y, x = np.mgrid[:96, :120]
    image = 90 + 40 * np.stack([np.sin(x / 9), np.cos(y / 7), np.sin((x + y) / 11)], axis=-1)
    image[30:60, 20:50] = (160, 80, 40)
    return np.clip(image + rng.normal(0, 5, image.shape), 1, 200).astype(np.uint8)


@pytest.mark.parametrize("name", FUNCTIONS)
@pytest.mark.parametrize("channels", [1, 3])
@pytest.mark.parametrize("value", [0, 77, 255])
def test_a_flat_image_stays_as_it_is(name, channels, value):
    image = np.full((15, 22, channels), value, np.uint8)
    np.testing.assert_array_equal(FUNCTIONS[name](image), image)


@pytest.mark.parametrize("channels", [1, 3])
def test_standardize_gives_mean_and_deviation(scene, channels):
    image = np.ascontiguousarray(scene[..., :channels])
    changed = illumination.standardize(image, 120.0, 40.0)
    assert changed.mean() == pytest.approx(120, abs=1) and changed.std() == pytest.approx(40, rel=0.03)


def test_grey_world_makes_channel_means_equal(scene):
    cast = linear(scene, np.diag([1.2, 1.0, 0.6]))
    assert np.ptp(cast.mean((0, 1))) > 30
    assert np.ptp(illumination.grey_world(cast).mean((0, 1))) < 1
    no_blue = cast * np.array([1, 1, 0], np.uint8)
    means = illumination.grey_world(no_blue).mean((0, 1))
    assert abs(means[0] - means[1]) < 1 and means[2] == 0


def differences(images, function):
    """Mean differences of pixels that a gamma, a colour cast and half the light make, after a normalisation."""

    def difference(change):
        return np.mean([np.abs(function(change(i)).astype(int) - function(i)).mean() for i in images])

    cast = np.diag([0.75, 0.9, 1.0])
    return difference(lambda i: gamma(i, 1.6)), difference(lambda i: linear(i, cast)), difference(lambda i: i // 2)


def check_shrinkage(images):
    before = differences(images, lambda image: image)
    # Each against the kinds of light that it is made for; grey world is for casts alone, which has its own test.
    shares = {name: np.array(differences(images, function)) / before for name, function in FUNCTIONS.items()}
    assert shares["standardize"][0] < 0.5 and shares["standardize"][2] < 0.1
    for name in ("retinex", "restored", "local_contrast"):
        assert (shares[name] < (0.4, 0.4, 0.15)).all(), (name, shares[name])


def test_light_changes_less_after_normalisation(scene):
    check_shrinkage([scene])


def test_light_changes_less_after_normalisation_on_photographs(real_data):
    files = sorted((real_data / "imagenet_sample").glob("*.jpg"))[::50]
    images = [np.array(Image.open(file).convert("RGB").resize((128, 128))) for file in files]
    check_shrinkage(images)
    cast = np.diag([0.75, 0.9, 1.0])
    for image in images:
        # A cast scales the result as a whole: the colours are those of the image without it.
        plain, changed = (illumination.grey_world(i).astype(float) for i in (image // 2, linear(image // 2, cast)))
        shares = [values.mean((0, 1)) / values.mean() for values in (plain, changed)]
        assert np.abs(shares[0] - shares[1]).max() < 0.02


def test_local_contrast_lifts_what_is_faint():
    y, x = np.mgrid[:64, :128]
    amplitude = np.where(x < 64, 4, 60)
    image = (128 + amplitude * np.sin(x) * np.cos(y))[..., None].astype(np.uint8)
    before = image[:, 76:].std() / image[:, :52].std()
    after = illumination.local_contrast(image)
    assert before > 12 and after[:, 76:].std() / after[:, :52].std() < before / 1.5


def test_wide_blur_is_gaussian_at_any_width():
    spot = np.zeros((201, 201, 1), np.float32)
    spot[100, 100] = 1
    for sigma in (3.0, 20.0):
        blurred = illumination.wide_blur(spot, sigma)[..., 0]
        spread = ((blurred.sum(0) * (np.arange(201) - 100) ** 2).sum() / blurred.sum()) ** 0.5
        assert blurred.sum() == pytest.approx(1, rel=0.02) and spread == pytest.approx(sigma, rel=0.1)
