"""One contract for every transform of the table, and each one's own arithmetic against NumPy."""

import numpy as np
import pytest
import tensorflow as tf
from hypothesis import given, settings
from hypothesis import strategies as st

from kerasvision.augment import TRANSFORMS, Color, Crop, Erase, Flip, ResizedCrop, Rotate, build, rotate
from kerasvision.augment.pixels import hue_turn
from kerasvision.errors import RecipeError, UnknownNameError

IDENTITIES = [
    Flip(horizontal=False),
    Flip(probability=0.0, vertical=True),
    Crop(padding=0),
    ResizedCrop(scale=(1.0, 1.0), ratio=(1.0, 1.0)),
    Rotate(degrees=0.0),
    Color(brightness=0.0, contrast=0.0, saturation=0.0, hue=0.0),
    Erase(probability=0.0),
]


def batch(count=6, height=12, width=9, channels=3, dtype=np.uint8):
    return np.random.default_rng(0).integers(0, 256, (count, height, width, channels)).astype(dtype)


def apply(transform, images, seed=(1, 2)):
    return transform({"image": tf.constant(images)}, tf.constant(seed, tf.int64))["image"].numpy()


def with_every_option(name):
    """Default parameters leave hue and vertical flips out; the contract covers them too."""
    return build(
        [{"flip": {"name": "flip", "vertical": True}, "color": {"name": "color", "hue": 0.2}}.get(name, name)]
    )[0]


@pytest.mark.parametrize("name", TRANSFORMS)
@pytest.mark.parametrize("dtype", [np.uint8, np.float32])
@pytest.mark.parametrize("channels", [1, 3])
def test_contract(name, dtype, channels):
    transform = with_every_option(name)
    images = batch(channels=channels, dtype=dtype)
    example = {"image": tf.constant(images), "label": tf.range(6)}
    result = transform(example, tf.constant([1, 2], tf.int64))
    assert result["label"] is example["label"]
    np.testing.assert_array_equal(example["image"], images)
    changed = result["image"].numpy()
    assert changed.dtype == dtype and changed.shape == images.shape
    assert changed.min() >= 0 and changed.max() <= 255 and np.isfinite(changed).all()
    np.testing.assert_array_equal(apply(transform, images), changed)
    assert any((apply(transform, images, (1, seed)) != changed).any() for seed in range(3, 8))


@pytest.mark.parametrize("name", TRANSFORMS)
def test_inside_tf_data_as_eagerly(name):
    transform = with_every_option(name)
    images = batch(dtype=np.float32)
    dataset = tf.data.Dataset.from_tensor_slices(images).batch(3)
    dataset = tf.data.Dataset.zip(dataset, tf.data.Dataset.range(2))
    mapped = list(dataset.map(lambda image, index: transform({"image": image}, tf.stack([5, index]))["image"]))
    assert dataset.map(
        lambda image, index: transform({"image": image}, tf.stack([5, index]))["image"]
    ).element_spec == (tf.TensorSpec([None, 12, 9, 3], tf.float32))
    for index, result in enumerate(mapped):
        np.testing.assert_allclose(result, apply(transform, images[3 * index : 3 * index + 3], (5, index)), atol=1e-3)


@pytest.mark.parametrize("name", TRANSFORMS)
def test_each_image_of_a_batch_is_changed_in_its_own_way(name):
    same = np.repeat(batch(1), 32, axis=0)
    changed = apply(with_every_option(name), same)
    assert len({image.tobytes() for image in changed}) > 3


@pytest.mark.parametrize("transform", IDENTITIES, ids=repr)
@pytest.mark.parametrize("dtype", [np.uint8, np.float32])
def test_identity_is_exact(transform, dtype):
    images = batch(dtype=dtype)
    np.testing.assert_array_equal(apply(transform, images), images)


def test_flip_mirrors():
    images = batch()
    np.testing.assert_array_equal(apply(Flip(probability=1.0), images), images[:, :, ::-1])
    np.testing.assert_array_equal(apply(Flip(False, True, probability=1.0), images), images[:, ::-1])
    chosen = [(image != original).any() for image, original in zip(apply(Flip(), batch(400)), batch(400), strict=True)]
    assert 140 < sum(chosen) < 260


@given(padding=st.integers(0, 5), seed=st.integers(0, 1000))
@settings(max_examples=30, deadline=None)
def test_crop_is_a_window_of_the_padded_image(padding, seed):
    images = batch(2, 6, 5)
    changed = apply(Crop(padding=padding, fill=7), images, (seed, 0))
    for original, image in zip(images, changed, strict=True):
        padded = np.pad(original, ((padding, padding), (padding, padding), (0, 0)), constant_values=7)
        shifts = range(2 * padding + 1)
        assert any((padded[y : y + 6, x : x + 5] == image).all() for y in shifts for x in shifts)


@given(low=st.floats(0.05, 1.0), seed=st.integers(0, 1000))
@settings(max_examples=30, deadline=None)
def test_resized_crop_shows_an_upright_part(low, seed):
    """On a picture of its own coordinates, the crop's corners tell the part: inside, and of the wanted area."""
    height, width = 40, 60
    y, x = np.mgrid[:height, :width].astype(np.float32)
    picture = np.stack([y, x, 0 * x], -1)[None]
    part = apply(ResizedCrop(scale=(low, 1.0), ratio=(1.0, 1.0)), picture, (seed, 0))[0]
    assert part[..., 0].min() >= 0 and part[..., 0].max() <= height - 1
    steps_y, steps_x = np.diff(part[..., 0], axis=0).max(), np.diff(part[..., 1], axis=1).max()
    assert low - 0.02 <= steps_y * steps_x <= 1.001
    np.testing.assert_allclose(steps_y, steps_x, atol=0.02)
    assert np.abs(np.diff(part[..., 0], axis=1)).max() < 1e-4


def test_resized_crop_never_leaves_the_image():
    thin = np.full((50, 10, 90, 3), 200, np.uint8)
    changed = apply(ResizedCrop(scale=(0.9, 1.0), ratio=(0.2, 5.0)), thin)
    np.testing.assert_array_equal(changed, 200)


def test_rotation_by_right_angles():
    square = batch(2, 10, 10)
    quarter = rotate(tf.constant(square), tf.constant([np.pi / 2, np.pi / 2])).numpy()
    np.testing.assert_allclose(quarter[:, 1:-1, 1:-1], np.rot90(square, 1, (1, 2))[:, 1:-1, 1:-1], atol=1)
    half = rotate(tf.constant(batch(1, 7, 10)), tf.constant([np.pi])).numpy()
    np.testing.assert_allclose(half[:, 1:-1, 1:-1], batch(1, 7, 10)[:, ::-1, ::-1][:, 1:-1, 1:-1], atol=1)


def test_rotation_fills_the_corners():
    white = np.full((1, 20, 20, 1), 255, np.uint8)
    turned = rotate(tf.constant(white), tf.constant([np.pi / 4]), fill=9).numpy()
    assert turned[0, 0, 0, 0] == 9 and turned[0, 10, 10, 0] == 255


def test_brightness_and_contrast_against_numpy():
    images = batch(dtype=np.float32)
    seed = (1, 2)
    draws = tf.random.stateless_uniform([4, 6], seed).numpy()
    factors = (0.5 + draws)[:, :, None, None, None]
    bright = apply(Color(0.5, 0, 0), images, seed)
    np.testing.assert_allclose(bright, np.clip(images * factors[0], 0, 255), rtol=1e-5)
    mean = (images @ np.array([0.299, 0.587, 0.114])).mean((1, 2))[:, None, None, None]
    contrast = apply(Color(0, 0.5, 0), images, seed)
    np.testing.assert_allclose(contrast, np.clip(mean + (images - mean) * factors[1], 0, 255), atol=1e-3)
    grey = (images @ np.array([0.299, 0.587, 0.114]))[..., None]
    saturation = apply(Color(0, 0, 0.5), images, seed)
    np.testing.assert_allclose(saturation, np.clip(grey + (images - grey) * factors[2], 0, 255), atol=1e-3)


def test_hue_keeps_grey_and_luma_and_comes_full_circle():
    luma = np.array([0.299, 0.587, 0.114])
    quarter, back = hue_turn(tf.constant([0.25, -0.1])).numpy()
    for matrix in (quarter, back):
        np.testing.assert_allclose(luma @ matrix, luma, atol=1e-3)
        np.testing.assert_allclose(matrix.sum(-1), 1, atol=1e-3)
    assert np.abs(quarter - np.eye(3)).max() > 0.5
    np.testing.assert_allclose(hue_turn(tf.constant([1.0, -1.0])), np.stack([np.eye(3)] * 2), atol=1e-5)
    images = batch(dtype=np.float32)
    assert np.abs(apply(Color(0, 0, 0, hue=0.5), images) - images).mean() > 5


@given(seed=st.integers(0, 1000))
@settings(max_examples=30, deadline=None)
def test_erase_covers_one_rectangle(seed):
    images = np.zeros((4, 30, 20, 3), np.uint8)
    changed = apply(Erase(probability=1.0, area=(0.1, 0.3), ratio=(0.5, 2.0), fill=9), images, (seed, 1))
    for image in changed:
        covered = (image == 9).all(-1)
        rows, columns = covered.any(1), covered.any(0)
        assert covered.sum() == rows.sum() * columns.sum()
        assert np.diff(np.flatnonzero(rows)).max(initial=1) == 1
        assert 0.08 < covered.mean() < 0.33


def test_erase_spares_the_rest():
    images = batch(200)
    changed = apply(Erase(probability=0.25), images)
    touched = sum((image != original).any() for image, original in zip(changed, images, strict=True))
    assert 25 < touched < 80


def test_build():
    assert build(["flip", {"name": "crop", "padding": 2}, Rotate(5)]) == (Flip(), Crop(padding=2), Rotate(5))
    assert build([{"name": "erase", "area": [0.1, 0.2]}]) == (Erase(area=(0.1, 0.2)),)
    assert build(()) == ()


@pytest.mark.parametrize(
    ("augmentations", "error", "message"),
    [
        (["flop"], UnknownNameError, 'Unknown augmentation "flop".*"flip"'),
        ([{"padding": 3}], UnknownNameError, 'Unknown augmentation "None"'),
        ([{"name": "crop", "paddin": 3}], RecipeError, '"crop" has no parameter "paddin".*"padding"'),
        ([{"name": "crop", "padding": -1}], RecipeError, '"crop".*padding >= 0 pixels, got -1'),
        ([{"name": "erase", "area": [0.5, 0.1]}], RecipeError, r"area \(smallest, largest\) in \(0, 1\]"),
        ([{"name": "resized_crop", "scale": 0.5}], RecipeError, r"scale \(smallest, largest\)"),
        ([{"name": "flip", "probability": "often"}], RecipeError, '"flip" cannot be made from'),
        ([{"name": "color", "hue": 2}], RecipeError, "hue in 0..0.5"),
        ([3], RecipeError, "Expected a transform, a name or"),
        ("flip", RecipeError, "put it in a list"),
        ({"name": "flip"}, RecipeError, "put it in a list"),
    ],
)
def test_build_refuses(augmentations, error, message):
    with pytest.raises(error, match=message):
        build(augmentations)


@pytest.mark.parametrize(
    "make",
    [
        lambda: Flip(probability=2),
        lambda: Crop(fill=300),
        lambda: Rotate(degrees=-1),
        lambda: Color(brightness=2),
        lambda: ResizedCrop(ratio=(0, 1)),
        lambda: Erase(fill=-1),
    ],
)
def test_parameters_out_of_range(make):
    with pytest.raises(RecipeError, match="Expected .* got"):
        make()
