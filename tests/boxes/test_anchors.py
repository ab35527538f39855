"""Fitted anchors: of clusters that are known, and what must hold for any sizes."""

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from kerasvision.boxes import fit_anchors, measure_anchors, size_iou


def test_anchors_find_clusters():
    rng = np.random.default_rng(0)
    centres = np.array([[10, 10], [20, 60], [90, 40], [200, 200]])
    sizes = np.concatenate([centre * rng.uniform(0.95, 1.05, (50, 2)) for centre in centres])
    found = fit_anchors(sizes, 4, seed=3)
    assert np.allclose(found, centres, rtol=0.05)
    fit = measure_anchors(sizes, found)
    assert fit.mean_iou > 0.93 and fit.recall == 1.0


@settings(deadline=None, max_examples=30)
@given(
    st.lists(st.tuples(st.floats(1, 500), st.floats(1, 500)), min_size=1, max_size=40),
    st.integers(1, 6),
    st.integers(0, 5),
)
def test_anchors_of_any_sizes(sizes, count, seed):
    sizes = np.array(sizes)
    found = fit_anchors(sizes, count, seed)
    assert len(found) == min(count, len(np.unique(sizes, axis=0)))
    assert (np.diff(found.prod(axis=1)) >= 0).all()
    assert (found >= sizes.min(axis=0)).all() and (found <= sizes.max(axis=0)).all()
    assert (found == fit_anchors(sizes, count, seed)).all()


def test_more_anchors_fit_better_than_the_best_single_one():
    sizes = np.random.default_rng(1).lognormal(3, 0.8, (400, 2))
    one, five, nine = (measure_anchors(sizes, fit_anchors(sizes, count)).mean_iou for count in (1, 5, 9))
    assert one < five < nine
    # No single size of the set does better than the fitted anchor by more than the median's slack.
    assert one > size_iou(sizes, sizes).mean(axis=0).max() - 0.02


def test_measure_is_the_mean_best_iou():
    sizes, anchors = np.array([[2.0, 2.0], [4.0, 4.0], [1.0, 8.0]]), np.array([[2.0, 2.0], [4.0, 3.0]])
    best = [1.0, 12 / 16, 2 / 10]
    fit = measure_anchors(sizes, anchors)
    assert fit.mean_iou == pytest.approx(np.mean(best)) and fit.recall == pytest.approx(2 / 3)
    # (1, 8) and (4, 3) share 1 x 3 of 8 + 12 - 3.
    assert size_iou(sizes[2:], anchors)[0] == pytest.approx([2 / 10, 3 / 17])


@pytest.mark.parametrize(
    ("sizes", "count", "message"),
    [
        (np.zeros((0, 2)), 3, "at least one size"),
        (np.array([[0.0, 1.0]]), 1, "above 0"),
        (np.array([[np.nan, 1.0]]), 1, "finite"),
        (np.ones((3, 2)), 0, "count of at least 1"),
        (np.ones((3, 4)), 2, r"\[N, 2\]"),
    ],
)
def test_wrong_sizes(sizes, count, message):
    with pytest.raises(ValueError, match=message):
        fit_anchors(sizes, count)
