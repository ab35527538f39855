"""One contract for every transform that changes pixels only."""

import dataclasses

import numpy as np
import pytest

from kerasvision.augment import color, corruptions, degrade, illumination, tone
from kerasvision.augment.photometric import Photometric, linear, look_up
from kerasvision.errors import RecipeError

MODULES = (color, corruptions, degrade, illumination, tone)
CLASSES = sorted(
    {each for each in Photometric.__subclasses__() if any(hasattr(m, each.__name__) for m in MODULES)},
    key=lambda each: each.__name__,
)


def picture(channels=3, size=(40, 48)):
    """A smooth image with texture, so that every transform has something to change."""
    rng = np.random.default_rng(0)
    y, x = np.mgrid[: size[0], : size[1]]
    waves = np.stack([np.sin(x / 5) + np.cos(y / 7 + k) for k in range(channels)], axis=-1)
    return np.clip(120 + 40 * waves + rng.normal(0, 12, waves.shape), 0, 255).astype(np.uint8)


@pytest.mark.parametrize("channels", [1, 3])
@pytest.mark.parametrize("cls", CLASSES, ids=lambda each: each.__name__)
def test_contract(cls, channels):
    transform = cls(probability=1.0)
    image = picture(channels)
    before = image.copy()
    boxes = np.ones((1, 4), np.float32)
    example = {"image": image, "label": 3, "boxes": boxes}
    results = [transform(example, np.random.default_rng(seed)) for seed in (1, 1, 2, 3, 4)]
    for result in results:
        assert result["image"].shape == image.shape and result["image"].dtype == np.uint8
        assert result["label"] == 3 and result["boxes"] is boxes
    np.testing.assert_array_equal(results[0]["image"], results[1]["image"])
    np.testing.assert_array_equal(image, before)
    assert list(example) == ["image", "label", "boxes"] and example["image"] is image
    colors_only = cls in (
        color.Saturation,
        color.Hue,
        color.ColorCast,
        color.Grey,
        color.ChannelShuffle,
        color.ChannelDropout,
    )
    if channels == 3 or not (colors_only or cls is illumination.GreyWorld):
        assert any((result["image"] != image).any() for result in results)
    elif colors_only:
        assert all((result["image"] == image).all() for result in results)


@pytest.mark.parametrize("cls", CLASSES, ids=lambda each: each.__name__)
def test_probability_0_changes_nothing(cls):
    image = picture()
    rng = np.random.default_rng(0)
    np.testing.assert_array_equal(cls(probability=0.0)({"image": image}, rng)["image"], image)
    with pytest.raises(RecipeError, match="probability"):
        cls(probability=1.5)


@pytest.mark.parametrize("cls", CLASSES, ids=lambda each: each.__name__)
@pytest.mark.parametrize("size", [(1, 1), (1, 9), (17, 2)])
def test_any_size(cls, size):
    for channels in (1, 3):
        image = picture(channels, size)
        assert cls(probability=1.0)({"image": image}, np.random.default_rng(0))["image"].shape == image.shape


@pytest.mark.parametrize(
    "transform",
    [
        color.Color(0.0, 0.0, 0.0, 0.0),
        color.Brightness((1.0, 1.0)),
        color.Contrast((1.0, 1.0)),
        color.Saturation((1.0, 1.0)),
        color.Hue((0.0, 0.0)),
        color.ColorCast((1.0, 1.0)),
        tone.Gamma((1.0, 1.0)),
        tone.CLAHE((0.0, 0.0)),
        tone.Posterize((8, 8)),
        tone.Solarize((256, 256)),
        tone.Sharpness((1.0, 1.0)),
        degrade.GaussianNoise((0.0, 0.0)),
        degrade.SpeckleNoise((0.0, 0.0)),
        degrade.ImpulseNoise((0.0, 0.0)),
        degrade.GaussianBlur((0.0, 0.0)),
        degrade.DefocusBlur((0.0, 0.0)),
        degrade.MotionBlur((0.0, 0.0)),
        degrade.Downscale((1.0, 1.0)),
        degrade.Fog((0.0, 0.0)),
        degrade.Shadow((0.0, 0.0)),
        corruptions.Corrupt("snow", 0),
    ],
    ids=repr,
)
@pytest.mark.parametrize("channels", [1, 3])
def test_identity_is_exact(transform, channels):
    image = picture(channels)
    np.testing.assert_array_equal(transform({"image": image}, np.random.default_rng(0))["image"], image)


@pytest.mark.parametrize(
    "make",
    [
        lambda: color.Brightness((1.2, 0.8)),
        lambda: color.Hue((-0.6, 0.0)),
        lambda: color.Color(hue=0.7),
        lambda: color.ColorCast((0.0, 1.0)),
        lambda: color.ChannelDropout(fill=256),
        lambda: tone.Gamma((0.0, 1.0)),
        lambda: tone.CLAHE(tiles=0),
        lambda: tone.Posterize((3, 9)),
        lambda: degrade.GaussianNoise((-1.0, 2.0)),
        lambda: degrade.JPEGQuality((0, 50)),
        lambda: degrade.Downscale((0.0, 0.5)),
        lambda: degrade.Fog(decay=0.5),
        lambda: degrade.Shadow(corners=2),
        lambda: corruptions.Corrupt("fog", 6),
        lambda: illumination.Standardize(deviation=0.0),
        lambda: illumination.Retinex(sigmas=()),
        lambda: illumination.LocalContrast(sigma=0.0),
    ],
)
def test_parameters_out_of_range_are_refused(make):
    with pytest.raises(RecipeError, match="Expected"):
        make()


def test_fields_have_no_mutable_or_missing_defaults():
    for cls in CLASSES:
        assert cls() == cls() and hash(cls()) == hash(cls())
        assert all(field.default is not dataclasses.MISSING for field in dataclasses.fields(cls))


def test_linear_and_look_up():
    image = picture()
    matrix = np.array([[0.2, 0.5, 0.1], [0, 1, 0], [-0.3, 0.2, 0.9]])
    expected = np.clip(image @ matrix.T + [5, -6, 7], 0, 255)
    assert np.abs(linear(image, matrix, np.array([5, -6, 7])) - expected).max() <= 1
    np.testing.assert_array_equal(linear(image, np.eye(3)), image)
    table = np.random.default_rng(0).integers(0, 256, (256, 3)).astype(np.uint8)
    np.testing.assert_array_equal(look_up(image, table[:, 0]), table[:, 0][image])
    np.testing.assert_array_equal(look_up(image, table), np.stack([table[image[..., c], c] for c in range(3)], -1))
