import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from kerasvision.masks import PackedMasks, decode_masks, encode_mask, mask_extents


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
