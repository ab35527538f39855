import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from kerasvision.masks import PackedMasks, decode_masks, encode_mask, mask_extents, paste_mask


def random_masks(count, height, width, seed):
    masks = np.random.default_rng(seed).random((count, height, width)) < 0.05
    masks[: count // 3] = False
    return masks


SIZES = (st.integers(0, 20), st.integers(1, 12), st.integers(1, 12), st.integers(0, 99))


@given(*SIZES)
@settings(max_examples=100, deadline=None)
def test_planes_hold_what_a_stack_holds(count, height, width, seed):
    stack = random_masks(count, height, width, seed)
    rng = np.random.default_rng(seed)
    masks = PackedMasks.pack(stack)
    kept, order, hidden = (
        rng.random(count) < 0.5,
        rng.permutation(count)[: count // 2],
        rng.random((height, width)) < 0.3,
    )
    assert len(masks) == count and masks.size == (height, width)
    np.testing.assert_array_equal(masks.unpack(), stack)
    np.testing.assert_array_equal(masks.select(kept).unpack(), stack[kept])
    np.testing.assert_array_equal(masks.select(order).unpack(), stack[order])
    np.testing.assert_array_equal(masks.areas(), stack.sum(axis=(1, 2)))
    np.testing.assert_array_equal(masks.extents(), mask_extents(stack))
    np.testing.assert_array_equal(masks.union(kept), stack[kept].any(axis=0))
    np.testing.assert_array_equal(masks.without(hidden).unpack(), stack & ~hidden)
    np.testing.assert_array_equal(masks.move(np.fliplr).unpack(), stack[:, :, ::-1])
    np.testing.assert_array_equal(masks.unpack(), stack)


@given(*SIZES, st.integers(0, 20))
@settings(max_examples=60, deadline=None)
def test_join(count, height, width, seed, more):
    first, second = random_masks(count, height, width, seed), random_masks(more, height, width, seed + 1)
    joined = PackedMasks.join(PackedMasks.pack(first), PackedMasks.pack(second))
    np.testing.assert_array_equal(joined.unpack(), np.concatenate([first, second]))


def test_coco_encodings_come_back():
    mask = random_masks(4, 9, 7, 0)[3]
    encoded = encode_mask(mask)
    square = [[1.0, 2.0, 4.0, 2.0, 4.0, 6.0, 1.0, 6.0]]
    runs = {"size": [9, 7], "counts": [10, 3, 50]}
    decoded = decode_masks([encoded, square, runs, []], (9, 7))
    np.testing.assert_array_equal(decoded[0], mask)
    assert mask_extents(decoded[1:2]).tolist() == [[1, 2, 4, 6]] and decoded[1].sum() == 12
    assert decoded[2].T.ravel().nonzero()[0].tolist() == [10, 11, 12]
    assert decoded[3].sum() == 0


@pytest.mark.parametrize("count", [0, 3])
def test_empty_extents(count):
    assert PackedMasks.pack(np.zeros((count, 4, 5), bool)).extents().tolist() == [[0, 0, 0, 0]] * count


def stretched(mask, box, x, y):
    """Bilinear value of a mask, stretched over a box, at a point; None outside."""
    if not (box[0] <= x < box[2] and box[1] <= y < box[3]):
        return None
    height, width = mask.shape
    row = np.clip((y - box[1]) / (box[3] - box[1]) * height - 0.5, 0, height - 1)
    column = np.clip((x - box[0]) / (box[2] - box[0]) * width - 0.5, 0, width - 1)
    total = 0.0
    for i in range(height):
        for j in range(width):
            total += mask[i, j] * max(0, 1 - abs(row - i)) * max(0, 1 - abs(column - j))
    return total


@pytest.mark.parametrize("seed", range(12))
def test_pasted_masks_are_sampled_at_the_centres_of_the_pixels(seed):
    rng = np.random.default_rng(seed)
    mask = rng.random((rng.integers(1, 6), rng.integers(1, 6))).astype(np.float32)
    low = rng.uniform(-6, 14, 2)
    box = np.concatenate([low, low + rng.uniform(0.2, 20, 2)])
    plane = np.zeros((17, 21), np.uint8)
    paste_mask(plane, mask, box, 4)
    for row, column in np.ndindex(plane.shape):
        value = stretched(mask, box, column + 0.5, row + 0.5)
        # OpenCV rounds places to 1/32 of a bin.
        if value is None or abs(value - 0.5) > 0.04:
            assert plane[row, column] == (4 if value is not None and value > 0.5 else 0)


def test_pasted_masks_stand_beside_one_another():
    plane = np.zeros((4, 6), np.uint8)
    for box in ([0, 0, 0, 4], [np.nan, 0, 4, 4], [0, 0, np.inf, 4], [5, 2, 1, 3], [100, 100, 130, 120], [-9, -9, 0, 0]):
        paste_mask(plane, np.ones((2, 2)), np.array(box))
    assert not plane.any()
    paste_mask(plane, np.ones((2, 2)), np.array([0, 0, 3, 4]), 1)
    paste_mask(plane, np.ones((2, 2)), np.array([2, 1, 6, 3]), 2)
    expected = np.zeros((4, 6), np.uint8)
    expected[:, :3] += 1
    expected[1:3, 2:] += 2
    np.testing.assert_array_equal(plane, expected)
