import dataclasses

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from kerasvision.augment.occlusion import Cutout, Erase, GridMask, HideAndSeek, cover_keypoints, paint, visible_shares
from kerasvision.errors import RecipeError
from kerasvision.masks import PackedMasks

EVERY = [
    Cutout(),
    Cutout(size=5, count=3, fill="noise"),
    Erase(probability=1.0),
    GridMask(),
    GridMask(unit=(4, 9), degrees=30),
    HideAndSeek(),
]
IDENTITIES = [
    Cutout(size=0),
    Cutout(count=0),
    Erase(probability=0.0),
    Erase(probability=1.0, area=(0.0, 0.0)),
    GridMask(ratio=1.0),
    GridMask(ratio=1.0, degrees=40),
    HideAndSeek(share=0.0),
    HideAndSeek(probability=0.0),
]


def scene(height=40, width=30, channels=3, masks=True):
    rng = np.random.default_rng(0)
    boxes = np.array([[2, 3, 12, 13], [15, 20, 29.5, 38.5], [0, 0, width, height]], np.float32)
    example = {
        # Never 128, the value that covers.
        "image": rng.integers(0, 120, (height, width, channels), np.uint8),
        "boxes": boxes,
        "classes": np.arange(3, dtype=np.int32),
        "crowd": np.zeros(3, bool),
        "keypoints": np.tile(np.float32([[5, 5, 2], [20, 30, 1], [0, 0, 0], [29.9, 39.9, 2]]), (3, 1, 1)),
        "segmentation": rng.integers(0, 4, (height, width), np.uint8),
    }
    if masks:
        stack = np.zeros((3, height, width), bool)
        for mask, (left, top, right, bottom) in zip(stack, boxes.astype(int), strict=True):
            mask[top:bottom, left:right] = True
        example["masks"] = PackedMasks.pack(stack)
    return example


@pytest.mark.parametrize("channels", [1, 3])
@pytest.mark.parametrize("transform", EVERY, ids=repr)
def test_covers_pixels_and_leaves_the_rest(transform, channels):
    example = scene(channels=channels)
    before = {key: value.copy() for key, value in example.items() if isinstance(value, np.ndarray)}
    result = transform(example, np.random.default_rng(1))
    again = transform(example, np.random.default_rng(1))
    np.testing.assert_array_equal(result["image"], again["image"])
    for key, value in before.items():
        np.testing.assert_array_equal(example[key], value)
    assert result["image"].shape == before["image"].shape and result["image"].dtype == np.uint8
    changed = (result["image"] != before["image"]).any(axis=-1)
    assert 0 < changed.mean() < 1
    for key in ("boxes", "classes", "crowd", "segmentation", "masks"):
        assert result[key] is example[key]
    others = [transform(example, np.random.default_rng(seed))["image"].tobytes() for seed in range(2, 8)]
    assert len(set(others)) > 3


@pytest.mark.parametrize("transform", IDENTITIES, ids=repr)
def test_identity_at_magnitude_0(transform):
    example = scene()
    assert transform(example, np.random.default_rng(0)) is example


def covered(transform, size, seed=0):
    image = np.zeros((*size, 1), np.uint8)
    filled = dataclasses.replace(transform, probability=1.0, fill=255)
    return filled({"image": image}, np.random.default_rng(seed))["image"][..., 0] == 255


@given(st.integers(1, 60), st.integers(1, 60), st.integers(0, 80), st.integers(0, 9))
@settings(max_examples=60, deadline=None)
def test_cutout_covers_a_square_that_may_stick_out(height, width, side, seed):
    hidden = covered(Cutout(size=side), (height, width), seed)
    rows, columns = np.flatnonzero(hidden.any(axis=1)), np.flatnonzero(hidden.any(axis=0))
    assert hidden.sum() == len(rows) * len(columns)
    # Its middle lies in the image: at least half of it, rounded down, is seen on each axis.
    assert min(side // 2, height) <= len(rows) <= side and min(side // 2, width) <= len(columns) <= side


def test_cutout_side_as_a_share_of_the_shorter_side():
    sizes = [covered(Cutout(size=0.25), (40, 80), seed) for seed in range(20)]
    assert max(hidden.any(axis=0).sum() for hidden in sizes) == 10


@given(st.integers(8, 60), st.integers(8, 60), st.integers(0, 99))
@settings(max_examples=60, deadline=None)
def test_erase_covers_a_rectangle_of_the_area_and_ratio(height, width, seed):
    hidden = covered(Erase(area=(0.1, 0.2), ratio=(0.5, 2.0)), (height, width), seed)
    rows, columns = hidden.any(axis=1).sum(), hidden.any(axis=0).sum()
    assert hidden.sum() == rows * columns
    rounding = (rows + columns) / 2 + 0.25
    assert hidden.sum() <= 0.2 * height * width + rounding
    assert hidden.sum() >= 0.1 * height * width - rounding or rows == height or columns == width
    assert columns - 0.5 <= 2.0 * (rows + 0.5) and rows - 0.5 <= 2.0 * (columns + 0.5)


def test_grid_mask_leaves_the_share_of_the_paper_free():
    # The paper's keep ratio: 1 - (1 - r)^2 on whole units.
    hidden = covered(GridMask(ratio=0.6, unit=(10, 10)), (100, 50))
    assert hidden.mean() == pytest.approx((1 - 0.6) ** 2)
    turned = [covered(GridMask(ratio=0.6, unit=(10, 10), degrees=180), (100, 80), seed).mean() for seed in range(5)]
    assert np.mean(turned) == pytest.approx((1 - 0.6) ** 2, abs=0.02)


def test_grid_mask_units_are_shares_or_pixels():
    def period(transform):
        rows = covered(transform, (60, 60)).any(axis=1)
        return np.diff(np.flatnonzero(np.diff(rows.astype(int)) == 1))

    assert set(period(GridMask(unit=(0.2, 0.2)))) == {12}
    assert set(period(GridMask(unit=(7, 7)))) == {7}


def test_hide_and_seek_covers_whole_patches():
    hidden = covered(HideAndSeek(grid=(4, 5)), (41, 52), seed=3)
    patches = [
        part for band in np.array_split(hidden, [11, 21, 31], axis=0) for part in np.split(band, [11, 21, 32, 42], 1)
    ]
    assert len(patches) == 20 and all(patch.all() or not patch.any() for patch in patches)
    shares = [covered(HideAndSeek(share=0.3), (16, 16), seed).mean() for seed in range(100)]
    assert np.mean(shares) == pytest.approx(0.3, abs=0.03)


def test_fills():
    rng = np.random.default_rng(0)
    image = np.full((6, 8, 3), (10, 20, 30), np.uint8)
    hidden = np.zeros((6, 8), np.uint8)
    hidden[1:4, 2:5] = 1
    assert (paint(image, hidden, "mean", rng) == image).all()
    gray = paint(image, hidden, 7, rng)
    assert (gray[hidden == 1] == 7).all() and (gray[hidden == 0] == image[hidden == 0]).all()
    noise = paint(image, hidden, "noise", rng)
    assert len(np.unique(noise[hidden == 1])) > 10 and (noise[hidden == 0] == image[hidden == 0]).all()


def test_keypoints_under_the_cover_become_occluded():
    example = scene()
    hidden = np.zeros((40, 30), np.uint8)
    hidden[:20] = 1
    assert cover_keypoints(example, hidden)["keypoints"][0, :, 2].tolist() == [1, 1, 0, 2]
    assert cover_keypoints(example, 1 - hidden)["keypoints"][0, :, 2].tolist() == [2, 1, 0, 1]
    assert example["keypoints"][0, :, 2].tolist() == [2, 1, 0, 2]


def test_visible_shares_of_boxes_and_of_masks():
    hidden = np.zeros((40, 30), np.uint8)
    hidden[:, :7] = 1
    np.testing.assert_allclose(visible_shares(scene(masks=False), hidden), [0.5, 1.0, 23 / 30])
    np.testing.assert_allclose(visible_shares(scene(), hidden), [0.5, 1.0, 23 / 30])
    # The mask counts, not the box.
    example = scene()
    stack = example["masks"].unpack()
    stack[0, :, 7:] = 0
    assert visible_shares({**example, "masks": PackedMasks.pack(stack)}, hidden)[0] == 0


@pytest.mark.parametrize("masks", [False, True])
def test_hidden_objects_are_dropped_on_demand(masks):
    example = scene(masks=masks)
    everything = HideAndSeek(share=1.0)
    assert len(everything(example, np.random.default_rng(0))["boxes"]) == 3
    none = dataclasses.replace(everything, min_visible=0.1)(example, np.random.default_rng(0))
    assert len(none["boxes"]) == len(none["classes"]) == len(none["crowd"]) == len(none["keypoints"]) == 0
    assert not masks or len(none["masks"]) == 0


def test_an_image_without_objects():
    example = {**scene(), "boxes": np.zeros((0, 4), np.float32), "keypoints": np.zeros((0, 4, 3), np.float32)}
    example |= {"masks": PackedMasks.pack(np.zeros((0, 40, 30), bool)), "classes": np.zeros(0, np.int32)}
    example |= {"crowd": np.zeros(0, bool)}
    result = Cutout(min_visible=0.5)(example, np.random.default_rng(0))
    assert result["boxes"].shape == (0, 4) and result["keypoints"].shape == (0, 4, 3)


@pytest.mark.parametrize(
    "make",
    [
        lambda: Cutout(size=1.5),
        lambda: Cutout(size=-1),
        lambda: Cutout(count=-1),
        lambda: Cutout(fill="black"),
        lambda: Cutout(fill=256),
        lambda: Cutout(min_visible=2),
        lambda: Erase(area=(0.5, 0.1)),
        lambda: Erase(ratio=(0.0, 1.0)),
        lambda: Erase(probability=1.2),
        lambda: GridMask(ratio=-0.1),
        lambda: GridMask(unit=(0.5, 1.5)),
        lambda: GridMask(degrees=-1),
        lambda: HideAndSeek(grid=(0, 3)),
        lambda: HideAndSeek(share=3),
    ],
)
def test_parameters_out_of_range(make):
    with pytest.raises(RecipeError, match="Expected .*, got"):
        make()
