import dataclasses

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from kerasvision.augment.mixing import CopyPaste, CutMix, MixUp, fit, hide_objects, mix_labels
from kerasvision.augment.mosaic import Mosaic
from kerasvision.errors import RecipeError
from kerasvision.masks import PackedMasks

EVERY = [MixUp(alpha=1.0), CutMix(), CopyPaste(), Mosaic(), Mosaic(size=(50, 44), scale=(1.0, 3.0))]
IDENTITIES = [
    MixUp(alpha=0.0),
    MixUp(probability=0.0),
    CutMix(alpha=0.0),
    CutMix(probability=0.0),
    CopyPaste(share=0.0),
    CopyPaste(probability=0.0),
    Mosaic(probability=0.0),
]


def filled(boxes, size):
    """Masks that fill their boxes, whose corners are whole pixels."""
    stack = np.zeros((len(boxes), *size), bool)
    for mask, (left, top, right, bottom) in zip(stack, boxes.astype(int), strict=True):
        mask[top:bottom, left:right] = True
    return PackedMasks.pack(stack)


def scene(seed=0, count=12, height=40, width=30, channels=3, masks=True):
    """Objects whose pixels all are 100 + their class, on a background below 100."""
    rng = np.random.default_rng(seed)
    corners = np.floor(rng.random((count, 2)) * (width - 4, height - 4))
    sides = rng.integers(2, 9, (count, 2))
    boxes = np.concatenate([corners, np.minimum(corners + sides, (width, height))], axis=1).astype(np.float32)
    example = {
        "image": rng.integers(0, 100, (height, width, channels), np.uint8),
        "boxes": boxes,
        "classes": rng.integers(0, 5, count).astype(np.int32),
        "crowd": np.zeros(count, bool),
        "keypoints": np.concatenate([boxes[:, None, :2] + 1, np.full((count, 1, 1), 2.0)], -1).astype(np.float32),
    }
    if masks:
        example["masks"] = filled(boxes, (height, width))
    return example


def drawing(**shape):
    seeds = iter(range(1, 99))
    return lambda: scene(next(seeds), **shape)


def arrays(example):
    for key, value in example.items():
        yield key, value.planes if isinstance(value, PackedMasks) else np.asarray(value)


@pytest.mark.parametrize("masks", [False, True])
@pytest.mark.parametrize("channels", [1, 3])
@pytest.mark.parametrize("transform", EVERY, ids=repr)
def test_contract(transform, channels, masks):
    example = scene(channels=channels, masks=masks)
    other = scene(7, channels=channels, masks=masks, height=33, width=51)
    before = [(key, value.copy()) for each in (example, other) for key, value in arrays(each)]
    result = transform(example, np.random.default_rng(3), lambda: other)
    after = [(key, value) for each in (example, other) for key, value in arrays(each)]
    for (key, old), (_, new) in zip(before, after, strict=True):
        np.testing.assert_array_equal(old, new, err_msg=key)
    again = dict(arrays(transform(example, np.random.default_rng(3), lambda: other)))
    for key, value in arrays(result):
        np.testing.assert_array_equal(value, again[key], err_msg=key)
    assert set(result) == set(example)
    assert result["image"].dtype == np.uint8 and result["image"].shape[-1] == channels
    assert (result["image"].shape[:2] == example["image"].shape[:2]) == (transform != EVERY[-1])
    assert result["image"].shape[:2] != example["image"].shape[:2] or (result["image"] != example["image"]).any()


@pytest.mark.parametrize("transform", IDENTITIES, ids=repr)
def test_identity_at_magnitude_0(transform):
    example = {**scene(), "label": np.int32(2)}
    transform = dataclasses.replace(transform, classes=3)
    result = transform(example, np.random.default_rng(0), drawing())
    assert all(result[key] is value for key, value in example.items())
    assert result["label_weights"].tolist() == [0, 0, 1]


@given(
    st.sampled_from(EVERY),
    st.booleans(),
    st.integers(0, 14),
    st.integers(5, 60),
    st.integers(5, 60),
    st.integers(0, 999),
)
@settings(max_examples=150, deadline=None)
def test_objects_stay_whole(transform, masks, count, height, width, seed):
    """Boxes lie inside the image and have an area; every object has its class, crowd flag, keypoints and mask."""
    others = drawing(masks=masks, count=count // 2)
    example = scene(seed, count, height, width, masks=masks)
    result = transform(example, np.random.default_rng(seed), others)
    rows, columns = result["image"].shape[:2]
    boxes = result["boxes"]
    assert boxes.dtype == np.float32 and boxes.shape[1:] == (4,) and np.isfinite(boxes).all()
    assert (boxes >= 0).all() and (boxes <= (columns, rows, columns, rows)).all()
    assert (boxes[:, 2:] > boxes[:, :2]).all()
    assert len(boxes) == len(result["classes"]) == len(result["crowd"]) == len(result["keypoints"])
    keypoints = result["keypoints"]
    assert np.isfinite(keypoints).all() and (keypoints[..., :2] <= (columns, rows)).all() and (keypoints >= 0).all()
    if masks:
        assert len(result["masks"]) == len(boxes) and result["masks"].size == (rows, columns)
        # Whole pixels stick out of boxes by less than one.
        extents = result["masks"].extents()
        empty = result["masks"].areas() == 0
        assert (extents[~empty, :2] > boxes[~empty, :2] - 1).all() and (
            extents[~empty, 2:] < boxes[~empty, 2:] + 1
        ).all()


@given(st.sampled_from([MixUp(alpha=0.7), CutMix(), Mosaic()]), st.integers(0, 99))
@settings(max_examples=60, deadline=None)
def test_label_weights_sum_to_one(transform, seed):
    label = iter(range(9))
    example = {"image": scene(seed)["image"], "label": 4}
    result = dataclasses.replace(transform, classes=5)(
        example, np.random.default_rng(seed), lambda: {"image": scene(seed + 1)["image"], "label": next(label)}
    )
    weights = result["label_weights"]
    assert weights.dtype == np.float32 and weights.sum() == pytest.approx(1, abs=1e-6) and (weights >= 0).all()
    assert weights[result["label"]] == weights.max() or isinstance(transform, Mosaic)


def test_mix_up_blends_images_and_labels():
    zero, one = (np.full((4, 5, 3), value, np.uint8) for value in (0, 200))
    example = {"image": zero, "labels": np.float32([1, 0, 1])}
    result = MixUp(alpha=1.0)(
        example, np.random.default_rng(0), lambda: {"image": one, "labels": np.float32([0, 0, 1])}
    )
    share = 1 - result["image"][0, 0, 0] / 200
    np.testing.assert_allclose(result["labels"], [share, 0, 1], atol=0.01)
    assert 0.05 < share < 0.95 and result["labels"].dtype == np.float32


def test_mix_up_keeps_no_objects_that_cannot_be_seen():
    example, other = scene(count=3), scene(1, count=2)
    counts = {len(MixUp(alpha=0.3)(example, np.random.default_rng(s), lambda: other)["boxes"]) for s in range(40)}
    assert counts == {2, 3, 5}


def test_mix_up_then_cut_mix():
    images = {index: np.full((20, 20, 1), index, np.uint8) for index in range(3)}
    mixed = MixUp(alpha=1.0, classes=3)(
        {"image": images[0], "label": 0}, np.random.default_rng(0), lambda: {"image": images[1], "label": 1}
    )
    result = CutMix(classes=3)(mixed, np.random.default_rng(3), lambda: {"image": images[2], "label": 2})
    pasted = (result["image"] == 2).mean()
    assert 0 < pasted < 1
    np.testing.assert_allclose(
        result["label_weights"], [*(mixed["label_weights"][:2] * (1 - pasted)), pasted], atol=1e-6
    )


@given(st.integers(1, 40), st.integers(1, 40), st.integers(0, 999))
@settings(max_examples=80, deadline=None)
def test_cut_mix_weighs_labels_by_pixels(height, width, seed):
    zero, one = (np.full((height, width, 1), value, np.uint8) for value in (0, 1))
    example = {"image": zero, "label": 0, "segmentation": zero[..., 0]}
    other = {"image": one, "label": 1, "segmentation": one[..., 0]}
    result = CutMix(classes=2)(example, np.random.default_rng(seed), lambda: other)
    np.testing.assert_allclose(result["label_weights"][1], result["image"].mean(), atol=1e-6)
    np.testing.assert_array_equal(result["segmentation"], result["image"][..., 0])
    rows, columns = result["image"].any(axis=(1, 2)), result["image"].any(axis=(0, 2))
    assert result["image"].sum() == rows.sum() * columns.sum()


def painted(seed, count=6):
    """An example whose objects have pixels of their own: 10 x seed + their number; they do not overlap."""
    image = np.full((48, 64, 1), 200 + seed, np.uint8)
    boxes = np.array(
        [[4 + 20 * (i % 3), 4 + 22 * (i // 3), 18 + 20 * (i % 3), 22 + 22 * (i // 3)] for i in range(count)]
    )
    for index, (left, top, right, bottom) in enumerate(boxes):
        image[top:bottom, left:right] = 10 * seed + index
    boxes = boxes.astype(np.float32)
    example = {"image": image, "boxes": boxes, "classes": np.arange(count, dtype=np.int32) + 10 * seed}
    return {**example, "crowd": np.zeros(count, bool), "masks": filled(boxes, (48, 64))}


@pytest.mark.parametrize("masks", [False, True])
@pytest.mark.parametrize("transform", [CutMix(), CopyPaste(scale=(1.0, 1.0)), Mosaic(scale=(1.0, 1.0))], ids=repr)
@pytest.mark.parametrize("seed", range(8))
def test_boxes_and_masks_are_where_the_pixels_are(transform, masks, seed):
    """Nothing is resized here, so that every object's pixels can be found by their value."""
    parts = iter([painted(index) for index in (1, 2, 3)])
    example, others = painted(0), lambda: next(parts)
    if not masks:
        example.pop("masks")
        others = lambda: {key: value for key, value in next(parts).items() if key != "masks"}  # noqa: E731
    result = transform(example, np.random.default_rng(seed), others)
    image = result["image"][..., 0]
    for index, (box, number) in enumerate(zip(result["boxes"], result["classes"], strict=True)):
        seen = image == number
        if masks and not isinstance(transform, CopyPaste):
            np.testing.assert_array_equal(result["masks"].unpack()[index].astype(bool), seen)
        rows, columns = np.flatnonzero(seen.any(axis=1)), np.flatnonzero(seen.any(axis=0))
        extent = columns[0], rows[0], columns[-1] + 1, rows[-1] + 1
        # A pasted image may lie between pixels.
        np.testing.assert_allclose(box, extent, atol=1.01 if isinstance(transform, CopyPaste) else 1e-4)
        assert seen.sum() >= 0.09 * 14 * 18
    # What is seen of no object is small.
    for number in set(np.unique(image[image < 200])) - set(result["classes"].tolist()):
        assert (image == number).sum() <= 0.11 * 14 * 18 + 14 + 18


def test_mosaic_has_a_part_of_every_image():
    parts = iter([np.full((30, 20, 3), value, np.uint8) for value in (1, 2, 3)])
    segmentation = iter([np.full((30, 20), value, np.uint8) for value in (1, 2, 3)])
    example = {"image": np.zeros((30, 20, 3), np.uint8), "segmentation": np.zeros((30, 20), np.uint8), "label": 0}
    labels = iter((1, 2, 3))
    result = Mosaic(size=(64, 48), classes=4)(
        example,
        np.random.default_rng(0),
        lambda: {"image": next(parts), "segmentation": next(segmentation), "label": next(labels)},
    )
    assert result["image"].shape == (64, 48, 3)
    shares = np.bincount(result["image"][..., 0].ravel(), minlength=4) / (64 * 48)
    assert (shares > 0.05).all()
    np.testing.assert_allclose(result["label_weights"], shares, atol=1e-6)
    np.testing.assert_array_equal(result["segmentation"], result["image"][..., 0])


def test_mosaic_shows_parts_at_their_scale():
    image = np.tile(np.arange(100, dtype=np.uint8)[None, :, None], (100, 1, 1))
    result = Mosaic(scale=(1.0, 1.0), center=(0.5, 0.5))(
        {"image": image}, np.random.default_rng(0), lambda: {"image": image}
    )
    steps = np.diff(result["image"][..., 0].astype(int), axis=1)
    assert (np.delete(steps, 49, axis=1) == 1).all()
    # At half the size or less a part shows the whole image.
    result = Mosaic(scale=(0.1, 0.5), center=(0.5, 0.5))(
        {"image": image}, np.random.default_rng(0), lambda: {"image": image}
    )
    assert (result["image"][:, [0, 50]] <= 1).all() and (result["image"][:, [49, 99]] >= 98).all()


def test_mosaic_keeps_proportions():
    """A cell that an image would not fill gets an enlarged part, and not a stretched image."""
    rows, columns = np.mgrid[:40, :80].astype(np.uint8)
    image = np.stack([rows, columns, columns], axis=-1)
    transform = Mosaic(size=(64, 64), scale=(0.1, 0.2), center=(0.5, 0.5))
    result = transform({"image": image}, np.random.default_rng(0), lambda: {"image": image})["image"].astype(int)
    # A cell of 32 pixels shows all 40 rows, and 40 of the 80 columns.
    assert 38 <= np.ptp(result[:32, :32, 0]) <= 40 and 38 <= np.ptp(result[:32, :32, 1]) <= 40


def test_copy_paste_pastes_along_masks():
    example, other = painted(0, 1), painted(1, 1)
    stack = np.zeros((1, 48, 64), bool)
    stack[0, 4:22, 4:18] = np.tri(18, 14, dtype=bool)
    other["masks"] = PackedMasks.pack(stack)
    transform = CopyPaste(share=1.0, scale=(1.0, 1.0), flip=0.0, min_visible=0.0)
    result = transform(example, np.random.default_rng(0), lambda: other)
    # At the size at which it fits, there is one place for it.
    np.testing.assert_array_equal(result["image"][..., 0] == 10, stack[0])
    np.testing.assert_array_equal(result["masks"].unpack()[1], stack[0])
    np.testing.assert_array_equal(result["masks"].unpack()[0], example["masks"].unpack()[0] * (1 - stack[0]))
    assert result["classes"].tolist() == [0, 10]
    # Box only: all of the first object is hidden.
    for each in (example, other):
        del each["masks"]
    assert transform(example, np.random.default_rng(0), lambda: other)["classes"].tolist() == [10]


def test_copy_paste_never_pastes_crowds():
    other = {**painted(1), "crowd": np.ones(6, bool)}
    example = painted(0)
    assert CopyPaste(share=1.0)(example, np.random.default_rng(0), lambda: other)["image"] is example["image"]


def test_hidden_objects_are_cut_back_or_dropped():
    example = painted(0, 3)
    hidden = np.zeros((48, 64), np.uint8)
    hidden[:, :10] = 1  # 6 of the first object's 14 columns
    hidden[:21, 20:40] = 1  # all but one of the second object's 18 rows
    for each in (example, {key: value for key, value in example.items() if key != "masks"}):
        result = hide_objects(each, hidden, 0.1)
        assert result["boxes"].tolist() == [[10, 4, 18, 22], [44, 4, 58, 22]]
        assert result["classes"].tolist() == [0, 2]
        assert hide_objects(each, hidden, 0.05)["boxes"][1].tolist() == [24, 21, 38, 22]
        assert len(hide_objects(each, np.ones((48, 64), np.uint8), 0.0)["boxes"]) == 0


@given(st.integers(1, 50), st.integers(1, 50), st.integers(1, 50), st.integers(1, 50))
@settings(max_examples=60, deadline=None)
def test_fit_gives_the_size(height, width, rows, columns):
    example = {"image": np.zeros((height, width, 3), np.uint8), "segmentation": np.zeros((height, width), np.uint8)}
    fitted = fit(example, (rows, columns), 0.1)
    assert fitted["image"].shape == (rows, columns, 3) and fitted["segmentation"].shape == (rows, columns)


def test_what_cannot_be_mixed():
    image = np.zeros((4, 4, 3), np.uint8)
    with pytest.raises(RecipeError, match="give classes"):
        MixUp()({"image": image, "label": 1}, np.random.default_rng(0), dict)
    with pytest.raises(RecipeError, match="a label in 0..1, got 2"):
        mix_labels([{"label": 2}], [1.0], 2)
    with pytest.raises(RecipeError, match="use cutmix or mosaic"):
        MixUp()({"image": image, "segmentation": image[..., 0]}, np.random.default_rng(0), dict)
    with pytest.raises(RecipeError, match="nothing to copy"):
        CopyPaste()({"image": image}, np.random.default_rng(0), dict)


@pytest.mark.parametrize(
    "make",
    [
        lambda: MixUp(alpha=-1),
        lambda: CutMix(alpha=-1),
        lambda: CutMix(classes=0),
        lambda: CopyPaste(share=2),
        lambda: CopyPaste(scale=(0.0, 1.0)),
        lambda: CopyPaste(flip=-1),
        lambda: Mosaic(size=(1, 5)),
        lambda: Mosaic(center=(0.6, 0.4)),
        lambda: Mosaic(min_visible=1.5),
        lambda: Mosaic(probability=7),
    ],
)
def test_parameters_out_of_range(make):
    with pytest.raises(RecipeError, match="Expected .*, got"):
        make()
