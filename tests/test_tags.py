"""Tags of boxes: in the picture, at their boxes, and over as little as possible."""

import numpy as np
import pytest

from kerasvision.tags import place_tags

SIZE = (60, 20)


def rectangles(boxes, picture=(640, 480), sizes=None):
    boxes = np.array(boxes, float)
    sizes = np.tile(SIZE, (len(boxes), 1)) if sizes is None else np.array(sizes)
    corners = place_tags(boxes, sizes, picture)
    return np.concatenate([corners, corners + sizes], axis=1)


def common(first, second):
    low = np.maximum(first[:, None, :2], second[None, :, :2])
    high = np.minimum(first[:, None, 2:], second[None, :, 2:])
    return np.maximum(high - low, 0).prod(axis=-1)


def test_a_single_tag_stands_above_its_box_or_else_below():
    assert rectangles([[100, 100, 200, 200]]).tolist() == [[100, 80, 160, 100]]
    assert rectangles([[100, 5, 200, 200]]).tolist() == [[100, 200, 160, 220]]
    assert rectangles([[600, 100, 640, 200]]).tolist() == [[580, 80, 640, 100]]


def test_a_box_as_large_as_the_picture_has_its_tag_inside():
    ((left, top, right, bottom),) = rectangles([[0, 0, 640, 480]])
    assert (left, top, right, bottom) == (0, 0, 60, 20)


def test_where_there_is_room_nothing_is_covered():
    rows, columns = np.meshgrid(np.arange(3), np.arange(4), indexing="ij")
    low = np.stack([columns.ravel() * 150 + 30, rows.ravel() * 140 + 30], axis=1)
    boxes = np.concatenate([low, low + 90], axis=1)
    tags = rectangles(boxes)
    assert common(tags, boxes).sum() == 0
    assert np.triu(common(tags, tags), 1).sum() == 0


def test_two_boxes_in_each_other_s_way():
    boxes = [[100, 100, 200, 200], [100, 200, 200, 300], [100, 60, 200, 100]]
    tags = rectangles(boxes)
    assert common(tags, np.array(boxes, float)).sum() == 0 and np.triu(common(tags, tags), 1).sum() == 0


@pytest.mark.parametrize("seed", range(5))
def test_crowds(seed):
    rng = np.random.default_rng(seed)
    low = rng.uniform(-20, 560, (25, 2)) * (1, 0.75)
    boxes = np.concatenate([low, low + rng.uniform(20, 110, (25, 2))], axis=1)
    tags = rectangles(boxes)
    assert (tags >= 0).all() and (tags <= [640, 480, 640, 480]).all()
    # Each touches its box, where that is in the picture.
    seen = np.clip(boxes, 0, [640, 480, 640, 480])
    gap = np.maximum(np.maximum(tags[:, :2] - seen[:, 2:], seen[:, :2] - tags[:, 2:]), 0)
    assert gap.max() <= 1
    # Above the upper left corner, wherever that is, the tags would cover far more of one another.
    plain = np.concatenate([seen[:, :2] - (0, 20), seen[:, :2] + (60, 0)], axis=1)
    overlaps, before = (np.triu(common(each, each), 1).sum() for each in (tags, plain))
    assert overlaps <= 0.2 * before


@pytest.mark.parametrize("picture", [(40, 10), (60, 20), (1, 1)])
def test_pictures_smaller_than_a_tag(picture):
    sizes = np.minimum([SIZE], picture)
    assert rectangles([[0, 0, *picture]], picture, sizes).tolist() == [[0, 0, *sizes[0]]]


def test_no_boxes():
    assert place_tags(np.zeros((0, 4)), np.zeros((0, 2)), (9, 9)).shape == (0, 2)
