import importlib.util
from pathlib import Path

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

FILE = Path(__file__).parents[2] / "benchmarks" / "cover.py"
SIZE = (90, 120)


@pytest.fixture(scope="module")
def cover():
    spec = importlib.util.spec_from_file_location("cover", FILE)
    module = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    return module


def noise(seed=0):
    return np.random.default_rng(seed).integers(0, 256, (*SIZE, 3), np.uint8)


def in_a_grid(random):
    """Twelve boxes of at least 12 x 12 pixels, each in a cell of its own."""
    cells = np.stack(np.meshgrid(np.arange(0, 120, 30), np.arange(0, 90, 30)), axis=-1).reshape(-1, 2)
    low = cells + random.uniform(0, 9, cells.shape)
    return np.concatenate([low, low + random.uniform(12, 20, cells.shape)], axis=1).astype(np.float32)


def shares_of(boxes, hidden):
    """Pixel by pixel, what `hidden_shares` adds up."""
    shares = []
    for left, top, right, bottom in boxes:
        rows, columns = slice(int(np.floor(top)), int(np.ceil(bottom))), slice(int(np.floor(left)), int(np.ceil(right)))
        shares.append(hidden[rows, columns].mean())
    return np.array(shares)


@settings(max_examples=25, deadline=None)
@given(seed=st.integers(0, 10_000))
def test_20_to_60_percent_of_each_box_is_hidden_and_nothing_else(cover, seed):
    image, boxes = noise(seed), in_a_grid(np.random.default_rng(seed))
    covered, hidden = cover.cover_objects(image, boxes, np.random.default_rng(seed))
    shares = shares_of(boxes, hidden)
    assert shares.min() >= 0.2 and shares.max() <= 0.6
    objects = np.zeros(SIZE, bool)
    for left, top, right, bottom in boxes:
        objects[int(top) : int(np.ceil(bottom)), int(left) : int(np.ceil(right))] = True
    assert not hidden[~objects].any()
    np.testing.assert_array_equal(covered[hidden == 0], image[hidden == 0])
    assert (covered != image).any(axis=-1)[hidden == 1].mean() > 0.99
    assert covered.dtype == np.uint8 and covered.shape == image.shape


def test_shares_are_spread_over_the_whole_range(cover):
    shares = []
    for seed in range(30):
        boxes = in_a_grid(np.random.default_rng(seed))
        shares.append(shares_of(boxes, cover.cover_objects(noise(), boxes, np.random.default_rng(seed))[1]))
    counts, _ = np.histogram(shares, bins=[0.2, 0.3, 0.4, 0.5, 0.6])
    assert counts.sum() == 360 and counts.min() > 60 and abs(np.mean(shares) - 0.4) < 0.02


def test_objects_that_overlap_stay_in_range_as_well(cover):
    boxes = np.float32([[10, 10, 50, 50], [30, 30, 80, 80], [20, 15, 32, 27], [60, 40, 110, 88], [30, 30, 80, 80]])
    for seed in range(20):
        hidden = cover.cover_objects(noise(), boxes, np.random.default_rng(seed))[1]
        shares = shares_of(boxes, hidden)
        assert shares.min() >= 0.2 and shares.max() <= 0.6


def test_the_generator_decides_and_inputs_stay(cover):
    image, boxes = noise(), in_a_grid(np.random.default_rng(1))
    before = image.copy(), boxes.copy()
    first, again, other = (cover.cover_objects(image, boxes, np.random.default_rng(seed)) for seed in (5, 5, 6))
    for mine, same in zip(first, again, strict=True):
        np.testing.assert_array_equal(mine, same)
    assert (first[1] != other[1]).any()
    np.testing.assert_array_equal(image, before[0])
    np.testing.assert_array_equal(boxes, before[1])


def test_covered_with_what_lies_between_the_objects(cover):
    boxes = in_a_grid(np.random.default_rng(2))[:6]
    image = np.zeros((*SIZE, 3), np.uint8)
    for left, top, right, bottom in boxes:
        image[int(top) : int(np.ceil(bottom)), int(left) : int(np.ceil(right))] = 200
    covered, hidden = cover.cover_objects(image, boxes, np.random.default_rng(0))
    assert hidden.any() and not covered[hidden == 1].any()


@pytest.mark.parametrize("shape", [(7, 9), (40, 3), (90, 120)])
def test_emptiest_part(cover, shape):
    objects = (np.random.default_rng(3).random(SIZE) < 0.2).astype(np.uint8)
    counts = {
        (row, column): objects[row : row + shape[0], column : column + shape[1]].sum()
        for row in range(SIZE[0] - shape[0] + 1)
        for column in range(SIZE[1] - shape[1] + 1)
    }
    rows, columns = cover.emptiest_part(objects, shape, np.random.default_rng(0))
    assert (rows.stop - rows.start, columns.stop - columns.start) == shape
    assert counts[rows.start, columns.start] == min(counts.values())


def test_odd_boxes(cover):
    image = noise()
    for boxes in (np.zeros((0, 4)), [[5, 5, 5, 30]], [[-40, -40, -10, -10]], [[130, 5, 140, 30]]):
        covered, hidden = cover.cover_objects(image, np.array(boxes, np.float32), np.random.default_rng(0))
        assert not hidden.any()
        np.testing.assert_array_equal(covered, image)
    hidden = cover.cover_objects(image, np.float32([[-20, 70, 30, 120]]), np.random.default_rng(0))[1]
    assert 0.2 <= hidden[70:90, 0:30].mean() <= 0.6 and hidden.sum() == hidden[70:90, 0:30].sum()
    # A part of one pixel is all or nothing.
    assert cover.cover_objects(image, np.float32([[4, 4, 5, 5]]), np.random.default_rng(0))[1].sum() == 1
