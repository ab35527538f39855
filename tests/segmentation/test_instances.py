"""Objects from class maps, and the figures of the 2018 Data Science Bowl."""

import cv2
import numpy as np
import pytest

from kerasvision.class_maps import border_pixels
from kerasvision.segmentation.instances import (
    ObjectMetrics,
    find_objects,
    grow,
    masks_of,
    object_overlaps,
    peaks,
    without_small,
)


def discs(*circles, size=(64, 64)):
    """Number of the disc (x, y, radius) at each pixel; the first one lies on top."""
    labels = np.zeros(size, np.int32)
    for number in range(len(circles), 0, -1):
        x, y, radius = circles[number - 1]
        rows, columns = np.mgrid[: size[0], : size[1]]
        labels[(columns - x) ** 2 + (rows - y) ** 2 <= radius**2] = number
    return labels


CROWDED = discs((15, 15, 10), (34, 15, 10), (15, 34, 9), (50, 50, 12), (50, 30, 8), (5, 60, 1.5))


def class_map(labels, width, outline):
    classes = (labels > 0).astype(np.uint8)
    classes[border_pixels(labels, width, outline=outline)] = 2
    return classes


@pytest.mark.parametrize(("width", "outline", "least"), [(1, True, 0.95), (2, True, 0.95), (1, False, 0.85)])
def test_objects_come_back_from_their_class_map(width, outline, least):
    found = find_objects(class_map(CROWDED, width, outline), border=2)
    overlaps = object_overlaps(CROWDED, found)
    assert overlaps.shape == (6, 6)
    assert (overlaps.max(axis=1) > least).all()
    if outline:
        np.testing.assert_array_equal(found > 0, CROWDED > 0)


def test_objects_that_are_border_alone_are_kept_unless_small():
    classes = class_map(discs((5, 5, 1.5), (30, 30, 8)), 3, True)
    assert find_objects(classes, border=2).max() == 2
    only = find_objects(classes, border=2, min_area=20)
    assert only.max() == 1 and only[30, 30] == 1


def test_without_a_border_objects_that_touch_are_one():
    classes = (discs((20, 20, 10), (40, 20, 12)) > 0).astype(np.uint8)
    assert find_objects(classes).max() == 1


def test_objects_of_two_classes_do_not_join():
    classes = np.zeros((10, 20), np.uint8)
    classes[2:8, 2:10], classes[2:8, 10:18] = 1, 2
    found = find_objects(classes)
    np.testing.assert_array_equal(found, classes)


def test_void_is_no_object():
    classes = np.full((10, 10), 255, np.uint8)
    classes[2:5, 2:5] = 1
    np.testing.assert_array_equal(find_objects(classes, border=2), classes == 1)


def test_watershed_splits_at_the_neck():
    truth = discs((20, 32, 15), (41, 32, 9))
    mask = (truth > 0).astype(np.uint8)
    found = find_objects(mask, neck=0.75)
    assert found.max() == 2
    np.testing.assert_array_equal(found > 0, mask > 0)
    # The narrowest place lies where the circles cross, not half-way between the centres.
    crossing = 20 + (15**2 - 9**2 + 21**2) / (2 * 21)
    split = np.flatnonzero(np.diff(found[32, 6:50]))[0] + 7
    assert abs(split - crossing) <= 1.5


def test_a_disc_is_not_split():
    assert find_objects((discs((32, 32, 20)) > 0).astype(np.uint8), neck=0.75).max() == 1


def test_objects_that_are_narrow_everywhere_are_kept():
    classes = np.zeros((16, 40), np.uint8)
    classes[2, 2:38], classes[5:15, 5:15] = 1, 1
    assert find_objects(classes, neck=3).max() == 2


def test_peaks_are_as_deep_as_wanted():
    height = np.array([[0, 3, 5, 4, 6, 6, 2, 4, 0, 1, 0]], np.float32)
    tops = {depth: np.flatnonzero(peaks(height, depth)[0]).tolist() for depth in (0.5, 1, 2, 9)}
    # What is connected with a top and less than the depth below it belongs to it.
    assert tops == {0.5: [2, 4, 5, 7, 9], 1: [4, 5, 7], 2: [2, 3, 4, 5], 9: []}
    assert not peaks(np.zeros((3, 3), np.float32), 1).any()


def test_probabilities_draw_the_line():
    classes = np.full((5, 20), 2, np.uint8)
    classes[:, 0], classes[:, -1] = 1, 1
    chance = np.zeros((5, 20, 3))
    chance[:, :, 1] = np.abs(np.arange(20) - 6) / 20  # Least likely at column 6.
    chance[:, :, 2] = 1 - chance[:, :, 1]
    even = find_objects(classes, border=2)
    drawn = find_objects(classes, border=2, probabilities=chance)
    assert (even[2] == 1).sum() == 10
    assert (drawn[2] == drawn[2, 0]).sum() in (6, 7)


def test_grow_is_nearest_by_steps_where_all_is_level():
    seeds = np.zeros((9, 9), np.int32)
    seeds[4, 0], seeds[4, 8] = 3, 5
    region = np.ones((9, 9), bool)
    region[:, 4] = False
    grown = grow(seeds, region)
    assert (grown[:, :4] == 3).all() and (grown[:, 5:] == 5).all() and not grown[:, 4].any()


def test_without_small_renumbers():
    labels = np.array([[0, 4, 4, 0, 7, 9, 9]])
    np.testing.assert_array_equal(without_small(labels, 2), [[0, 1, 1, 0, 0, 2, 2]])


def test_masks():
    labels = np.array([[0, 1, 1], [3, 3, 0]])
    np.testing.assert_array_equal(masks_of(labels).unpack(), [labels == 1, labels == 2, labels == 3])
    assert len(masks_of(np.zeros((4, 4), int))) == 0


def plain_scores(truth, found):
    """TP, FP and FN of each threshold from masks, as the competition's page has it."""
    masks = [[labels == number for number in np.unique(labels[labels > 0])] for labels in (truth, found)]
    ious = np.array([[(a & b).sum() / (a | b).sum() for b in masks[1]] for a in masks[0]])
    scores = []
    for threshold in np.arange(0.5, 1, 0.05):
        hits = ious > threshold
        right, missed, false = hits.sum(), (~hits.any(axis=1)).sum(), (~hits.any(axis=0)).sum()
        scores.append((right, false, missed))
    return np.array(scores)


def shaken(labels, seed):
    """Each object moved and dilated or eroded a little, one left out, numbers mixed."""
    rng = np.random.default_rng(seed)
    found = np.zeros_like(labels)
    for number in rng.permutation(np.arange(1, labels.max())):
        mask = np.roll((labels == number).astype(np.uint8), rng.integers(-2, 3, 2), axis=(0, 1))
        change = (cv2.dilate, cv2.erode)[rng.integers(2)]
        found[(change(mask, np.ones((3, 3), np.uint8)) > 0) & (found == 0)] = 2 * number
    return found


def test_figures_equal_plain_ones():
    metrics = ObjectMetrics()
    tables = []
    for seed in range(4):
        found = shaken(CROWDED, seed)
        metrics.add(CROWDED, found)
        tables.append(plain_scores(CROWDED, found))
    empty = np.zeros((8, 8), int)
    metrics.add(empty, empty)
    tables = np.array(tables, float)  # [images, thresholds, 3]
    right, false, missed = tables[:, 0].sum(axis=0)
    received = metrics.result()
    assert 0.2 < received["object_AP"] < 0.9
    assert received == pytest.approx(
        {
            "object_F1": 2 * right / (2 * right + false + missed),
            "object_precision": right / (right + false),
            "object_recall": right / (right + missed),
            "object_AP": (tables[..., 0] / tables.sum(axis=-1)).mean(),
        }
    )


def test_nothing_and_false_objects():
    empty, one = np.zeros((8, 8), int), np.eye(8, dtype=int)
    metrics = ObjectMetrics()
    assert metrics.result() == {}
    metrics.add(empty, empty)
    assert metrics.result() == {}
    metrics.add(empty, one)
    assert set(metrics.result().values()) == {0.0}
    metrics.add(one, one)
    assert metrics.result() == {
        "object_F1": pytest.approx(2 / 3),
        "object_precision": 0.5,
        "object_recall": 1.0,
        "object_AP": 0.5,
    }
