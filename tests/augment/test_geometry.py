"""Moves: what belongs to an image goes where its pixels go."""

import numpy as np
import pytest
from harness import assert_same, check_sound, full_example
from hypothesis import given, settings
from hypothesis import strategies as st

from kerasvision.augment import apply, bind, build, crops, generator, moves
from kerasvision.augment import geometry as g
from kerasvision.augment.compose import mirrored_order
from kerasvision.errors import RecipeError
from kerasvision.masks import PackedMasks

IDENTITIES = [
    g.Flip(horizontal=False),
    g.Flip(probability=0.0, vertical=True),
    g.Rot90(turns=(0,)),
    crops.Crop(padding=0),
    crops.ResizedCrop(scale=(1.0, 1.0), ratio=(1.0, 1.0)),
    crops.SSDCrop(overlaps=(1.0,)),
    crops.Expand(ratio=(1.0, 1.0), probability=1.0),
    crops.Pad(),
    crops.Letterbox(),
    g.Rotate(degrees=0.0),
    g.Scale(factor=(1.0, 1.0)),
    g.Translate(0.0, 0.0),
    g.Shear(0.0, 0.0),
    g.Affine(0.0, (1.0, 1.0), 0.0, 0.0),
    g.Perspective(0.0),
    g.Elastic(0.0),
]
MOVES = [
    g.Flip(vertical=True),
    g.Rot90(),
    crops.Crop(10),
    crops.ResizedCrop((0.2, 1.0), size=(40, 56)),
    crops.Expand(probability=1.0),
    crops.Pad((60, 100)),
    crops.Letterbox((64, 50)),
    g.Rotate(180.0),
    g.Scale((0.5, 2.0), same=False),
    g.Translate(0.4, 0.4),
    g.Shear(30.0, 30.0),
    g.Affine(45.0, (0.5, 2.0), 0.3, 20.0),
    g.Perspective(0.6),
    g.Elastic(3.0, 0.2),
]


@pytest.mark.parametrize("transform", IDENTITIES, ids=repr)
def test_identity_at_magnitude_0(transform):
    example = full_example()
    assert_same(transform(example, np.random.default_rng(0)), example)


@pytest.mark.parametrize("transform", MOVES, ids=repr)
def test_everything_goes_where_the_pixels_go(transform):
    """A bright spot, the keypoint on it, the mask on it, the box around it and its segmentation stay together."""
    places = [(20, 15), (40, 30), (30, 24)]
    for seed, (x, y) in enumerate(places * 3):
        image = np.zeros((48, 64, 1), np.uint8)
        image[y - 3 : y + 3, x - 3 : x + 3] = 255
        spot = (image[..., 0] > 0).astype(np.uint8)
        example = {
            "image": image,
            "boxes": np.array([[x - 3, y - 3, x + 3, y + 3]], np.float32),
            "classes": np.zeros(1, np.int32),
            "crowd": np.zeros(1, bool),
            "masks": PackedMasks.pack(spot[None]),
            "keypoints": np.array([[[x, y, 2]]], np.float32),
            "segmentation": spot,
        }
        moved = transform(example, np.random.default_rng(seed))
        check_sound(moved)
        bright = np.argwhere(moved["image"][..., 0] > 127)
        if getattr(transform, "fill", 0) == 114:
            bright = np.argwhere(moved["image"][..., 0] > 200)
        if not len(moved["boxes"]):
            assert len(bright) < 20
            continue
        mask = moved["masks"].unpack()[0]
        inside = (bright > 2).all() and (bright < np.array(mask.shape) - 3).all()
        if not len(bright) or not inside:
            continue
        center = bright.mean(axis=0)[::-1] + 0.5
        x0, y0, x1, y1 = moved["boxes"][0]
        np.testing.assert_allclose([(x0 + x1) / 2, (y0 + y1) / 2], center, atol=1.5)
        np.testing.assert_allclose(moved["keypoints"][0, 0, :2], center, atol=1.2)
        np.testing.assert_allclose(np.argwhere(mask).mean(axis=0)[::-1] + 0.5, center, atol=1.0)
        np.testing.assert_array_equal(moved["segmentation"] == 1, mask == 1)
        assert x0 - 1 <= bright[:, 1].min() and bright[:, 1].max() + 1 <= x1 + 1


@given(seed=st.integers(0, 10**6), objects=st.integers(0, 9), height=st.integers(1, 40), width=st.integers(1, 40))
@settings(max_examples=60, deadline=None)
def test_boxes_stay_sound_whatever_happens(seed, objects, height, width):
    rng = np.random.default_rng(seed)
    example = full_example(max(height, 8), max(width, 8), objects=objects, seed=seed)
    window = example["image"][:height, :width]
    example = {"image": np.ascontiguousarray(window), **{k: v for k, v in example.items() if k in ("classes", "crowd")}}
    example["boxes"] = (np.sort(rng.normal(0.5, 0.6, (objects, 2, 2)), axis=1) * (width, height)).reshape(-1, 4)
    example["boxes"] = example["boxes"].astype(np.float32)
    for transform in rng.permutation(np.array([*MOVES, crops.SSDCrop()], object))[:4]:
        example = moves.keep_visible(example, 0.1)
        example = transform(example, rng)
        check_sound(example)


def test_visible_fraction():
    boxes = np.array([[-6, 0, 4, 10], [-5, 0, 5, 10], [20, 20, 30, 30], [3, 3, 3, 9]], np.float32)
    example = {
        "image": np.zeros((24, 40, 3), np.uint8),
        "boxes": boxes,
        "classes": np.arange(4),
        "crowd": np.zeros(4, bool),
    }
    kept = moves.keep_visible(example, 0.4)
    np.testing.assert_array_equal(kept["classes"], [0, 1, 2])
    np.testing.assert_array_equal(kept["boxes"], [[0, 0, 4, 10], [0, 0, 5, 10], [20, 20, 30, 24]])
    np.testing.assert_array_equal(moves.keep_visible(example, 0.5)["classes"], [1])


def test_matrices_against_points():
    np.testing.assert_allclose(
        moves.move_points(np.array([[1.0, 0.0]]), moves.rotation(90, (0, 0))), [[0, -1]], atol=1e-9
    )
    np.testing.assert_allclose(moves.move_points(np.array([[3.0, 4.0]]), moves.scaling(2, 3, (1, 1))), [[5, 10]])
    np.testing.assert_allclose(moves.move_points(np.array([[3.0, 4.0]]), moves.shearing(0.5, 0)), [[5, 4]])
    behind = np.array([[1.0, 0, 0], [0, 1, 0], [-1, 0, 1]])
    assert np.isfinite(moves.move_points(np.array([[5.0, 4.0], [1.0, 1.0]]), behind)).all()


@pytest.mark.parametrize("turns", range(5))
def test_quarter_turns_are_numpys(turns):
    example = full_example()
    turned = moves.quarter_turns(example, turns)
    np.testing.assert_array_equal(turned["image"], np.rot90(example["image"], turns))
    expected = np.rot90(example["masks"].unpack(), turns, axes=(1, 2))
    np.testing.assert_array_equal(turned["masks"].unpack(), expected)
    np.testing.assert_allclose(turned["boxes"], turned["masks"].extents())
    assert_same(moves.quarter_turns(turned, -turns), example)


@pytest.mark.parametrize("axis", [0, 1])
def test_mirror_twice_is_nothing(axis):
    example = full_example()
    once = moves.mirror(example, axis)
    np.testing.assert_array_equal(once["image"], np.flip(example["image"], axis))
    np.testing.assert_allclose(once["boxes"], once["masks"].extents())
    assert_same(moves.mirror(once, axis), example)


def test_keypoints_change_sides_in_a_mirror():
    names = ("nose", "left_eye", "right_eye", "left-hip", "right-hip", "tail")
    assert mirrored_order(names) == (0, 2, 1, 4, 3, 5)
    example = full_example(objects=1)
    example["keypoints"] = np.array([[[x, 5, 2] for x in (1, 2, 3, 4, 5, 6)]], np.float32)
    (flip,) = bind(build([{"name": "flip", "probability": 1.0}]), (48, 64), 3, names)
    assert flip(example, np.random.default_rng(0))["keypoints"][0, :, 0].tolist() == [63, 61, 62, 59, 60, 58]


def test_ssd_crop_overlaps_as_drawn():
    transform = crops.SSDCrop(overlaps=(0.5,), min_visible=0.0)
    changed = 0
    for seed in range(30):
        example = full_example(seed=seed)
        rng = np.random.default_rng(seed)
        rng.random()  # Whether to crop at all.
        part = transform.draw(example, rng)
        result = transform(example, np.random.default_rng(seed))
        check_sound(result)
        if part is None:
            continue
        changed += 1
        left, top, height, width = part
        window = np.array([left, top, left + width, top + height], float)
        boxes = example["boxes"]
        both = np.prod(
            np.maximum(np.minimum(boxes[:, 2:], window[2:]) - np.maximum(boxes[:, :2], window[:2]), 0), axis=1
        )
        ious = both / (moves.areas(boxes) + height * width - both)
        assert ious.max() >= 0.5
        centers = (boxes[:, :2] + boxes[:, 2:]) / 2
        inside = ((centers > window[:2]) & (centers < window[2:])).all(axis=1)
        assert len(result["boxes"]) == inside.sum() >= 1
    assert changed > 5


def test_parts_go_straight_to_the_nets_size():
    example = full_example(100, 200)
    (crop,) = bind(build(["resized_crop"]), (32, 32), 3)
    result = apply([crop], example, generator(0, 0))
    assert result["image"].shape == (32, 32, 3)
    areas = []
    for seed in range(200):
        left, top, height, width = crop.part((100, 200), np.random.default_rng(seed))
        assert 0 <= left <= 200 - width and 0 <= top <= 100 - height
        areas.append(height * width / 20000)
    assert 0.33 <= min(areas) < 0.4 and 0.9 < max(areas) <= 1


@pytest.mark.parametrize(
    ("config", "message"),
    [
        ({"name": "crop", "padding": -1}, "padding >= 0"),
        ({"name": "resized_crop", "scale": [0.0, 1.0]}, "above 0"),
        ({"name": "resized_crop", "scale": [0.9, 0.1]}, "scale"),
        ({"name": "rot90", "turns": []}, "turns"),
        ({"name": "shear", "x": 90}, "degrees"),
        ({"name": "perspective", "distortion": 1.0}, "distortion"),
        ({"name": "elastic", "strength": -1}, "strength"),
        ({"name": "pad", "size": [0, 3]}, "size"),
        ({"name": "affine", "fill": 300}, "fill"),
        ({"name": "flip", "probability": 1.5}, "probability"),
        ({"name": "ssd_crop", "overlaps": [2.0]}, "overlaps"),
        ({"name": "expand", "ratio": [0.5, 2.0]}, "ratio"),
    ],
)
def test_parameters_out_of_range(config, message):
    with pytest.raises(RecipeError, match=message):
        build([config])
