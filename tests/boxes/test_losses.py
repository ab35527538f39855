"""Losses of boxes: numbers by hand, gradients that are finite and point the right way."""

import math

import numpy as np
import pytest
import tensorflow as tf

from kerasvision.boxes import ciou, diou, distribution_focal_loss, giou, iou, overlap_loss, repulsion_loss, smooth_l1


def slope(function, point):
    point = tf.constant(point, tf.float32)
    with tf.GradientTape() as tape:
        tape.watch(point)
        value = tf.reduce_sum(function(point))
    return float(value), np.asarray(tape.gradient(value, point))


def test_overlap_loss_is_one_less_the_overlap():
    wanted, found = np.array([[0.0, 0, 2, 2]]), np.array([[1.0, 1, 3, 5]])
    for measure in (iou, giou, diou, ciou):
        assert overlap_loss(wanted, found, measure) == pytest.approx(1 - measure(wanted, found))
    assert overlap_loss(wanted, wanted) == pytest.approx(0)
    assert overlap_loss(wanted, found) == pytest.approx(1 - 1 / 11 + 4 / 15)


def test_smooth_l1():
    wanted, found = np.zeros((2, 4)), np.array([[0.5, -2, 0, 0], [0.1, 0, 0, 1]])
    assert np.allclose(smooth_l1(wanted, found), [0.125 + 1.5, 0.005 + 0.5])
    assert np.allclose(smooth_l1(wanted, found, beta=0), [2.5, 1.1])
    assert np.allclose(smooth_l1(wanted, found, beta=1 / 9), [2.5 - 1 / 9, 0.045 + 1 - 1 / 18])
    assert np.allclose(slope(lambda x: smooth_l1(wanted, x), found)[1], [[0.5, -1, 0, 0], [0.1, 0, 0, 1]])
    with pytest.raises(ValueError, match="at least 0, got -1"):
        smooth_l1(wanted, found, beta=-1)


def test_distribution_focal_loss_is_the_formula():
    rng = np.random.default_rng(0)
    logits = rng.normal(size=(3, 4, 8)).astype(np.float32)
    wanted = rng.uniform(0, 7, (3, 4))
    logs = logits - np.log(np.exp(logits).sum(-1, keepdims=True))
    left = np.floor(wanted).astype(int)
    near = (
        np.take_along_axis(logs, left[..., None], -1)[..., 0],
        np.take_along_axis(logs, left[..., None] + 1, -1)[..., 0],
    )
    expected = -((left + 1 - wanted) * near[0] + (wanted - left) * near[1])
    assert np.allclose(distribution_focal_loss(wanted, logits), expected.mean(-1), atol=1e-5)


def test_distribution_focal_loss_beyond_the_bins_is_that_of_the_last():
    logits = np.zeros((1, 4, 8), np.float32)
    logits[..., -1] = 20
    for far in (7.0, 7.4, 100.0):
        assert np.allclose(distribution_focal_loss(np.full((1, 4), far), logits), 0, atol=1e-5)
    assert np.isfinite(slope(lambda x: distribution_focal_loss(np.full((1, 4), -3.0), x), logits)[1]).all()


OBJECTS = np.array([[[0, 0, 10, 10], [8, 0, 18, 10], [0, 0, 0, 0]]], np.float32)
VALID = np.array([[True, True, False]])


def repelled(found, index=(0, 1), positive=(True, True), **options):
    arguments = OBJECTS, VALID, np.array([index]), np.array([positive])
    return [float(part[0]) for part in repulsion_loss(np.array([found], np.float32), *arguments, **options)]


def test_repulsion_by_hand():
    # The first prediction lies on its object and covers 2 of 10 columns of the other one; the second reaches
    # as far into the first object.
    on_object, on_box = repelled([[0, 0, 10, 10], [8, 0, 18, 10]])
    assert on_object == pytest.approx(-math.log(1 - 0.2), abs=1e-5)
    assert on_box == pytest.approx(20 / 180, abs=1e-5)
    # With sigma 0.1, the part beyond is a line.
    steep = repelled([[0, 0, 10, 10], [8, 0, 18, 10]], sigma_object=0.1, sigma_box=0.9)
    assert steep[0] == pytest.approx(0.1 / 0.9 - math.log(0.9), abs=1e-5)
    assert steep[1] == pytest.approx(-math.log(1 - 20 / 180), abs=1e-5)


def test_nothing_repels_predictions_of_one_object_or_none():
    assert repelled([[0, 0, 7, 10], [1, 0, 7, 10]], index=(0, 0)) == [0, 0]
    assert repelled([[0, 0, 10, 10], [8, 0, 18, 10]], positive=(False, False)) == [0, 0]
    # One prediction alone: its share of the other object, and no pair.
    assert repelled([[0, 0, 10, 10], [8, 0, 18, 10]], positive=(True, False)) == pytest.approx(
        [-math.log(0.8), 0], abs=1e-5
    )


def test_repulsion_pushes_away_and_stays_finite_at_full_cover():
    index, positive = np.array([[0, 1]]), np.array([[True, True]])

    def total(found):
        return sum(repulsion_loss(found, OBJECTS, VALID, index, positive))

    _, gradient = slope(total, [[[0, 0, 10, 10], [7, 0, 18, 10]]])
    # Less loss with the first box's right side further left and the second box's left side further right.
    assert gradient[0, 0, 2] > 0 and gradient[0, 1, 0] < 0
    for boxes in ([[8, 0, 18, 10], [0, 0, 10, 10]], [[0, 0, 0, 0], [5, 5, 5, 5]], [[0, 0, 18, 10], [0, 0, 18, 10]]):
        value, gradient = slope(total, [boxes])
        assert math.isfinite(value) and np.isfinite(gradient).all()


def test_repulsion_of_some_of_many_positives():
    rng = np.random.default_rng(0)
    found = np.repeat([[[0, 0, 10, 10]]], 60, axis=1) + rng.normal(0, 0.01, (1, 60, 4))
    index, positive = np.zeros((1, 60), int), np.ones((1, 60), bool)
    parts = repulsion_loss(found, OBJECTS, VALID, index, positive, limit=16)
    assert float(parts[0][0]) == pytest.approx(-math.log(0.8), abs=0.02) and float(parts[1][0]) == 0


def test_wrong_sigma():
    with pytest.raises(ValueError, match=r"sigma_object must lie in \[0, 1\), got 1"):
        repelled([[0, 0, 1, 1], [0, 0, 1, 1]], sigma_object=1)
