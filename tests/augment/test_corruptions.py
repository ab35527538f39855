"""The corruptions of ImageNet-C: names, severities, sizes and determinism."""

import numpy as np
import pytest
from PIL import Image

from kerasvision.augment import corruptions
from kerasvision.augment.corruptions import CORRUPTIONS, Corrupt, corrupt
from kerasvision.augment.weather import frost_texture, snow_layer
from kerasvision.errors import RecipeError, UnknownNameError

SIDE = 224
# Steps at which the paper's own parameters make the difference of pixels smaller: the first two elastic transforms move
# whole parts and the others tremble; blurring glass is stirred three times, then twice; frost and fog darken.
STEPS_BACK = {"elastic_transform": 3, "glass_blur": 4, "fog": 4, "frost": 4}


@pytest.fixture(scope="module")
def scenes():
    """Drawn photographs: a sky, a ground, some things with edges and texture."""
    return [_scene(seed) for seed in range(3)]


def _scene(seed):
    rng = np.random.default_rng(seed)
    y, x = np.mgrid[:SIDE, :SIDE]
    image = np.stack([90 + 0.5 * y, 120 + 0.2 * y, 190 - 0.9 * y], axis=-1)
    image[SIDE // 2 :] = image[SIDE // 2 :] * 0.6 + 25 * np.sin(x[SIDE // 2 :, :, None] * y[SIDE // 2 :, :, None] / 40)
    for _ in range(6):
        left, top = rng.integers(0, SIDE - 80, 2)
        width, height = rng.integers(20, 80, 2)
        image[top : top + height, left : left + width] = rng.uniform(0, 255, 3)
    return np.clip(image + rng.normal(0, 4, image.shape), 0, 255).astype(np.uint8)


def differences(images, name):
    return [
        np.mean(
            [
                np.abs(corrupt(image, name, severity, np.random.default_rng(index)).astype(int) - image).mean()
                for index, image in enumerate(images)
            ]
        )
        for severity in range(6)
    ]


def check_growth(name, growth):
    assert growth[0] == 0 and growth[1] > 1
    if name != "elastic_transform":
        assert growth[5] > 1.05 * growth[1]
    for severity in range(2, 6):
        if severity != STEPS_BACK.get(name):
            assert growth[severity] > growth[severity - 1], (name, severity, growth)


@pytest.mark.parametrize("name", CORRUPTIONS)
def test_difference_grows_with_severity(name, scenes):
    check_growth(name, differences(scenes, name))


@pytest.mark.parametrize("name", CORRUPTIONS)
def test_difference_grows_with_severity_on_photographs(name, real_data):
    files = sorted((real_data / "imagenet_sample").glob("*.jpg"))[::170]
    photographs = [np.array(Image.open(file).convert("RGB").resize((SIDE, SIDE))) for file in files]
    check_growth(name, differences(photographs, name))


@pytest.mark.parametrize("name", CORRUPTIONS)
def test_sizes_channels_and_determinism(name, scenes):
    for image in (scenes[0][:, :61], scenes[1][:40, :, :1], scenes[0][:9, :7]):
        image = np.ascontiguousarray(image)
        before = image.copy()
        for severity in (0, 1, 5):
            first, again = (corrupt(image, name, severity, np.random.default_rng(7)) for _ in range(2))
            assert first.shape == image.shape and first.dtype == np.uint8
            np.testing.assert_array_equal(first, again)
        np.testing.assert_array_equal(image, before)


def test_there_are_the_papers_fifteen():
    assert len(CORRUPTIONS) == 15
    with pytest.raises(UnknownNameError, match="gaussian_noise"):
        corrupt(np.zeros((4, 4, 3), np.uint8), "gausian_noise", 1, np.random.default_rng(0))
    with pytest.raises(RecipeError, match="severity"):
        corrupt(np.zeros((4, 4, 3), np.uint8), "fog", 6, np.random.default_rng(0))
    with pytest.raises(UnknownNameError, match="Unknown corruption"):
        Corrupt("mist")


def test_the_transform_is_the_function(scenes):
    changed = Corrupt("glass_blur", 3)({"image": scenes[0]}, np.random.default_rng(5))["image"]
    assert (changed != scenes[0]).any()
    again = Corrupt("glass_blur", 3)({"image": scenes[0]}, np.random.default_rng(5))["image"]
    np.testing.assert_array_equal(changed, again)


def test_glass_copies_one_pixel_after_the_other():
    # The paper's loop: from the last pixel to the first, each copies a neighbour as it is by then.
    height, width, reach = 23, 31, 2
    rows, columns = np.mgrid[reach + 1 : height - reach + 1, reach + 1 : width - reach + 1]
    sources = corruptions._glass_sources((height, width), rows, columns, reach, np.random.default_rng(3))
    shift = np.random.default_rng(3).integers(-reach, reach, (2, *rows.shape))
    looped = np.arange(height * width).reshape(height, width)
    for i in reversed(range(rows.shape[0])):
        for j in reversed(range(rows.shape[1])):
            row, column = rows[i, j], columns[i, j]
            looped[row, column] = looped[row + shift[0, i, j], column + shift[1, i, j]]
    np.testing.assert_array_equal(sources, looped.ravel())


def test_brightness_adds_to_the_value_and_keeps_the_hue():
    image = np.array([[[100, 50, 0], [0, 0, 0], [250, 200, 10], [255, 255, 255]]], np.uint8)
    changed = corrupt(image, "brightness", 2, np.random.default_rng(0))
    np.testing.assert_array_equal(changed, [[[151, 76, 0], [51, 51, 51], [255, 204, 10], [255, 255, 255]]])


def test_contrast_pulls_each_channel_to_its_mean(scenes):
    changed = corrupt(scenes[0], "contrast", 1, np.random.default_rng(0))
    np.testing.assert_allclose(changed.mean((0, 1)), scenes[0].mean((0, 1)), atol=0.6)
    np.testing.assert_allclose(changed.std((0, 1)), 0.4 * scenes[0].std((0, 1)), rtol=0.03)


def test_frost_and_snow_cover_parts():
    frost = np.stack([frost_texture((80, 100), np.random.default_rng(k)) for k in range(6)])
    assert frost.shape == (6, 80, 100, 3) and 50 < frost.mean() < 170
    assert (frost < 60).mean() > 0.1 and (frost > 150).mean() > 0.1
    assert frost[..., 2].mean() > frost[..., 0].mean()
    few, many = (snow_layer((80, 100), 0.1, 0.3, 3, threshold, np.random.default_rng(0)) for threshold in (0.5, 0.2))
    assert few.min() == 0 and few.max() <= 1 and 0 < (few > 0).mean() < (many > 0).mean() < 1
