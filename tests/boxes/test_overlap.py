"""Overlaps: against hand-made numbers, against what must hold for any boxes, and without NaN in any gradient."""

import itertools
import math

import keras
import numpy as np
import pytest
import tensorflow as tf
from hypothesis import given, settings
from hypothesis import strategies as st
from keras import ops

from kerasvision.boxes import ciou, covered, diou, giou, iou, pairwise, pairwise_iou, size_iou

MEASURES = [iou, giou, diou, ciou, covered]
position, length = st.floats(-50, 50), st.floats(0.01, 60)
solid = st.tuples(position, position, length, length).map(lambda b: [b[0], b[1], b[0] + b[2], b[1] + b[3]])
corner = st.integers(0, 24)
any_boxes = st.lists(st.tuples(corner, corner, corner, corner), min_size=1, max_size=5)


def pixel_iou(first, second, side=24):
    """By counting pixels of a raster."""

    def raster(box):
        mask = np.zeros((side, side), bool)
        mask[box[1] : max(box[3], box[1]), box[0] : max(box[2], box[0])] = True
        return mask

    a, b = raster(first), raster(second)
    return (a & b).sum() / max((a | b).sum(), 1)


@given(any_boxes, any_boxes)
def test_iou_counts_pixels(first, second):
    found = pairwise_iou(np.array(first), np.array(second))
    assert found.shape == (len(first), len(second))
    for (i, a), (j, b) in itertools.product(enumerate(first), enumerate(second)):
        assert found[i, j] == pytest.approx(pixel_iou(a, b))


def test_iou_of_no_boxes():
    assert pairwise_iou(np.zeros((0, 4)), np.ones((3, 4))).shape == (0, 3)


@given(st.lists(st.tuples(st.integers(1, 24), st.integers(1, 24)), min_size=1, max_size=6))
def test_size_iou_is_the_iou_of_boxes_in_one_corner(sizes):
    sizes = np.array(sizes)
    boxes = np.concatenate([np.zeros_like(sizes), sizes], axis=1)
    assert np.allclose(size_iou(sizes, sizes), pairwise_iou(boxes, boxes))
    assert np.allclose(np.diag(size_iou(sizes, sizes)), 1)


def test_numbers_by_hand():
    first, second = np.array([0.0, 0, 2, 2]), np.array([1.0, 1, 3, 5])
    # 1 shared, 4 + 8 - 1 in all, a hull of 3 x 5, centers (1, 1) and (2, 3).
    assert iou(first, second) == pytest.approx(1 / 11)
    assert giou(first, second) == pytest.approx(1 / 11 - 4 / 15)
    assert diou(first, second) == pytest.approx(1 / 11 - 5 / 34)
    aspect = 4 / math.pi**2 * (math.atan(1) - math.atan(0.5)) ** 2
    assert ciou(first, second) == pytest.approx(1 / 11 - 5 / 34 - aspect**2 / (1 - 1 / 11 + aspect))
    assert covered(first, second) == pytest.approx(1 / 8) and covered(second, first) == pytest.approx(1 / 4)
    apart = np.array([4.0, 0, 6, 2])
    assert giou(first, apart) == pytest.approx(-4 / 12) and diou(first, apart) == pytest.approx(-16 / 40)


@given(solid, solid)
def test_bounds_and_symmetry(first, second):
    first, second = np.array(first), np.array(second)
    plain = iou(first, second)
    assert 0 <= plain <= 1 + 1e-12
    assert -1 <= giou(first, second) <= plain
    assert diou(first, second) >= -1
    assert ciou(first, second) <= diou(first, second) <= plain
    assert plain <= covered(first, second) + 1e-12 <= 1 + 1e-9
    for measure in (iou, giou, diou, ciou):
        assert measure(first, second) == pytest.approx(measure(second, first), abs=1e-9)
        assert measure(first, first) == pytest.approx(1)


@given(solid, solid, position, position, st.floats(0.1, 20))
def test_moving_scaling_and_mirroring_both_changes_nothing(first, second, across, down, factor):
    first, second = np.array(first), np.array(second)

    def moved(box):
        return (box + np.array([across, down, across, down])) * factor

    def mirrored(box):
        return -box[[2, 3, 0, 1]]

    for measure in MEASURES:
        before = measure(first, second)
        assert measure(moved(first), moved(second)) == pytest.approx(before, abs=1e-6)
        assert measure(mirrored(first), mirrored(second)) == pytest.approx(before, abs=1e-9)


@settings(deadline=None, max_examples=20)
@given(any_boxes, any_boxes)
def test_tensors_and_arrays_agree(first, second):
    first, second = np.array(first, np.float32), np.array(second, np.float32)
    for measure in MEASURES:
        found = pairwise(measure, ops.convert_to_tensor(first), ops.convert_to_tensor(second))
        assert keras.backend.standardize_dtype(found.dtype) == "float32"
        assert np.allclose(ops.convert_to_numpy(found), pairwise(measure, first, second), atol=1e-5)


@pytest.mark.parametrize("images", [1, 3])
def test_the_same_in_a_symbolic_model(images):
    rng = np.random.default_rng(1)
    low = rng.uniform(0, 9, (images, 3, 2))
    boxes = np.concatenate([low, low + rng.uniform(1, 9, low.shape)], axis=-1).astype(np.float32)
    node = keras.Input((3, 4))
    model = keras.Model(node, [pairwise(measure, node, node) for measure in MEASURES])
    for measure, values in zip(MEASURES, model(boxes), strict=True):
        assert np.allclose(values, pairwise(measure, boxes, boxes), atol=1e-5), measure


def test_batches_broadcast():
    rng = np.random.default_rng(0)
    low = rng.uniform(0, 9, (2, 5, 2))
    boxes = np.concatenate([low, low + rng.uniform(1, 9, (2, 5, 2))], axis=-1)
    found = pairwise(giou, boxes, boxes[:, :3])
    assert found.shape == (2, 5, 3)
    assert found[1, 4, 2] == giou(boxes[1, 4], boxes[1, 2])
    assert np.allclose(found[1], pairwise(giou, boxes[1], boxes[1, :3]))


ODD = {
    "identical": ([1, 1, 4, 5], [1, 1, 4, 5]),
    "apart": ([0, 0, 1, 1], [5, 5, 6, 7]),
    "touching": ([0, 0, 1, 1], [1, 0, 2, 1]),
    "first_empty": ([3, 3, 3, 3], [1, 1, 4, 5]),
    "both_empty": ([0, 0, 0, 0], [0, 0, 0, 0]),
    "flat": ([0, 2, 5, 2], [0, 2, 5, 2]),
    "inside_out": ([5, 5, 3, 3], [0, 0, 1, 1]),
    "thin": ([0, 0, 1e-20, 1e-20], [0, 0, 1e-20, 1]),
    "huge": ([0, 0, 1e9, 1e9], [0, 0, 1, 1e9]),
}


@pytest.mark.parametrize("measure", MEASURES, ids=lambda measure: measure.__name__)
@pytest.mark.parametrize("name", ODD)
def test_odd_boxes_have_finite_values_and_gradients(measure, name):
    first, second = (tf.constant(box, tf.float32) for box in ODD[name])
    with tf.GradientTape() as tape:
        tape.watch([first, second])
        value = measure(first, second)
    gradients = np.stack(tape.gradient(value, [first, second]))
    assert np.isfinite(value) and np.isfinite(gradients).all()
    assert np.abs(gradients).max() < 1e3
    assert -2 <= float(value) <= 1


def test_nan_overlaps_nothing():
    nan, box = np.full(4, np.nan), np.array([0.0, 0, 1, 1])
    assert iou(nan, box) == 0 and covered(box, nan) == 0


@pytest.mark.parametrize("measure", [giou, diou, ciou])
def test_gradient_pulls_on_boxes_that_do_not_touch(measure):
    wanted, found = tf.constant([10.0, 10, 14, 14]), tf.constant([0.0, 0, 3, 3])
    with tf.GradientTape(persistent=True) as tape:
        tape.watch(found)
        value = measure(wanted, found)
    moved = found + 0.5 * tape.gradient(value, found) / tf.norm(tape.gradient(value, found))
    assert float(measure(wanted, moved)) > float(value) + 1e-3 and float(iou(wanted, found)) == 0


@pytest.mark.parametrize("measure", MEASURES, ids=lambda measure: measure.__name__)
def test_gradient_is_the_slope(measure):
    first, second = np.array([0.0, 1, 7, 9]), np.array([2.0, 0, 8.5, 6])
    tensor = tf.constant(first, tf.float32)
    with tf.GradientTape() as tape:
        tape.watch(tensor)
        value = measure(tensor, tf.constant(second, tf.float32))
    slope = [(measure(first + step, second) - measure(first - step, second)) / 2e-6 for step in np.eye(4) * 1e-6]
    # The weight of the aspect term is a constant to the gradient alone.
    assert np.allclose(tape.gradient(value, tensor), slope, atol=2e-3 if measure is ciou else 1e-4)
