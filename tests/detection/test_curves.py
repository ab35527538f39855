"""Precision-recall curves and the best F1."""

import numpy as np
import pytest
from detection.scenes import batch, scene
from hypothesis import given, settings
from hypothesis import strategies as st

from kerasvision.detection import DetectionMetrics, PrecisionRecall

LABELS = ("0", "1", "2")
BOX, OTHER, NOWHERE = (10, 10, 60, 60), (80, 80, 140, 140), (0, 100, 30, 150)


def curves(objects, found, **arguments):
    metrics = DetectionMetrics(LABELS, **arguments)
    metrics.update(*batch(objects, found))
    return metrics.curves()


def test_curve_of_a_hand_made_case():
    objects = [[(BOX, 0), (OTHER, 0)], [(BOX, 0), (OTHER, 1)]]
    found = [[(NOWHERE, 0, 0.8), (OTHER, 0, 0.9)], [(BOX, 0, 0.7)]]
    curve = curves(objects, found)["0"]
    assert curve.objects == 3
    assert curve.scores.tolist() == pytest.approx([0.9, 0.8, 0.7])
    assert curve.precision.tolist() == pytest.approx([1, 1 / 2, 2 / 3])
    assert curve.recall.tolist() == pytest.approx([1 / 3, 1 / 3, 2 / 3])
    best = curve.best()
    assert (best.score, best.precision, best.recall) == pytest.approx((0.7, 2 / 3, 2 / 3))
    assert best.f1 == pytest.approx(2 / 3)
    # The area: precision 1 up to a third, 2/3 up to two thirds, 0 beyond.
    assert curve.average_precision(None) == pytest.approx(1 / 3 + 2 / 9)
    # Recalls 0, .1, .2, .3 at precision 1; .4, .5, .6 at 2/3.
    assert curve.average_precision(11) == pytest.approx((4 + 3 * 2 / 3) / 11)


def test_nothing_found_and_nothing_to_find():
    found = curves([[(BOX, 0)]], [[(BOX, 1, 0.9)]])
    assert found["0"].average_precision() == 0
    assert found["0"].best() is None
    assert np.isnan(found["1"].average_precision(None))
    assert found["1"].best() is None
    assert found["1"].precision.tolist() == [0]


@pytest.mark.parametrize("case", [{}, {"crowd": 0.4}, {"difficult": 0.4}, {"ties": True}])
def test_area_under_the_curve_is_cocos_ap50(case):
    metrics = DetectionMetrics(LABELS)
    metrics.update(*scene(np.random.default_rng(5), images=20, **case))
    values = [curve.average_precision() for curve in metrics.curves().values()]
    assert np.nanmean(values) == pytest.approx(metrics.result()["AP50"], abs=1e-9)


def test_only_the_best_detections_of_an_image_and_class_count():
    objects = [[(BOX, 0), (OTHER, 1)]]
    found = [[(NOWHERE, 0, 0.9), (NOWHERE, 0, 0.8), (BOX, 0, 0.7), (OTHER, 1, 0.1)]]
    assert curves(objects, found, max_detections=(1, 2))["0"].average_precision() == 0
    assert curves(objects, found, max_detections=(1, 2))["1"].average_precision() == 1
    assert curves(objects, found, max_detections=(1, 3))["0"].average_precision() == pytest.approx(1 / 3)


@settings(max_examples=100, deadline=None)
@given(
    st.lists(st.tuples(st.integers(0, 5), st.booleans()), max_size=20),
    st.integers(0, 5),
)
def test_best_score_is_the_one_that_trying_all_of_them_gives(detections, missed):
    scores = np.array([score / 5 for score, _ in detections])
    right = np.array([hit for _, hit in detections], bool)
    objects = int(right.sum()) + missed
    curve = PrecisionRecall.of(scores, right, objects)
    tried = {}
    for score in set(scores.tolist()):
        kept = scores >= score
        tried[score] = 2 * right[kept].sum() / (kept.sum() + objects)
    best = curve.best()
    if not right.any():
        assert best is None
        return
    highest = max(tried.values())
    assert best.f1 == pytest.approx(highest)
    assert tried[best.score] == pytest.approx(highest)
    area = curve.average_precision(None)
    assert 0 <= area <= 1
    assert curve.average_precision(1001) == pytest.approx(area, abs=0.05)
