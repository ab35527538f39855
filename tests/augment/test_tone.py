"""Tone curves against Pillow."""

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from PIL import Image, ImageEnhance, ImageOps

from kerasvision.augment import tone

IMAGES = [
    np.random.default_rng(seed).integers(low, high, (21, 26, channels)).astype(np.uint8)
    for channels in (1, 3)
    for seed, (low, high) in enumerate([(0, 256), (90, 97), (40, 200), (128, 129)])
]


def pillow(image):
    return Image.fromarray(image if image.shape[-1] == 3 else image[..., 0])


def difference(changed, expected):
    assert changed.dtype == np.uint8
    return np.abs(changed.astype(int) - np.asarray(expected).reshape(changed.shape)).max()


@settings(deadline=None, max_examples=30)
@given(st.integers(0, 2**31), st.integers(1, 40), st.sampled_from([1, 3]), st.floats(0.1, 8))
def test_equalize_is_exactly_pillows(seed, side, channels, power):
    values = np.random.default_rng(seed).random((side, side + 3, channels)) ** power
    image = (255 * values).astype(np.uint8)
    assert difference(tone.equalize(image), ImageOps.equalize(pillow(image))) == 0


@pytest.mark.parametrize("image", IMAGES, ids=lambda image: f"{image.shape[-1]}-{image.min()}-{image.max()}")
def test_as_pillow(image):
    assert difference(tone.autocontrast(image), ImageOps.autocontrast(pillow(image))) <= 1
    assert difference(tone.invert(image), ImageOps.invert(pillow(image))) == 0
    for bits in range(1, 9):
        assert difference(tone.posterize(image, bits), ImageOps.posterize(pillow(image), bits)) == 0
    for threshold in (0, 1, 100, 128, 255, 256):
        assert difference(tone.solarize(image, threshold), ImageOps.solarize(pillow(image), threshold)) == 0
    for factor in (0.0, 0.5, 1.0, 1.9):
        assert difference(tone.sharpness(image, factor), ImageEnhance.Sharpness(pillow(image)).enhance(factor)) <= 2


def test_autocontrast_reaches_both_ends():
    stretched = tone.autocontrast(IMAGES[6])
    assert IMAGES[6].min() > 0
    assert (stretched.min(axis=(0, 1)) == 0).all() and (stretched.max(axis=(0, 1)) == 255).all()


@pytest.mark.parametrize("exponent", [0.5, 1.0, 2.2])
def test_gamma(exponent):
    image = IMAGES[4]
    assert np.abs(tone.gamma(image, exponent) - 255 * (image / 255) ** exponent).max() <= 0.5


def test_solarize_add_changes_dark_values_only():
    image = IMAGES[4]
    expected = np.where(image < 128, np.minimum(image.astype(int) + 110, 255), image)
    np.testing.assert_array_equal(tone.solarize_add(image, 110), expected)
    np.testing.assert_array_equal(tone.solarize_add(image, 0), image)


def test_clahe_raises_local_contrast_and_keeps_colours():
    x = np.mgrid[:64, :64][1]
    dull = np.stack([100 + 8 * np.sin(x / 3), 110 + 8 * np.sin(x / 3), 90 + 8 * np.sin(x / 3)], -1).astype(np.uint8)
    changed = tone.clahe(dull, 4.0, 2)
    assert changed.std(axis=(0, 1)).min() > 1.5 * dull.std(axis=(0, 1)).max()
    assert (changed[..., 1].mean() > changed[..., 0].mean()) and (changed[..., 0].mean() > changed[..., 2].mean())
    assert tone.clahe(dull[..., :1], 4.0, 2).std() > 1.5 * dull[..., 0].std()
