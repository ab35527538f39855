"""Errors by their kind, in hand-made images with one error each."""

import numpy as np
import pytest
from detection.scenes import batch, scene

from kerasvision.detection import DetectionMetrics
from kerasvision.detection.breakdown import ERRORS

LABELS = ("cell", "platelet")
BOX, OTHER = (10, 10, 60, 60), (100, 100, 140, 140)
NEAR = (10, 10, 60, 30)  # IoU 0.4 with BOX
NOWHERE = (0, 100, 30, 150)


def broken_down(objects, found):
    metrics = DetectionMetrics(LABELS)
    metrics.update(*batch(objects, found))
    return metrics.breakdown()


# name: (objects, found, counts that are not 0, costs that are not 0, AP50)
CASES = {
    "right": ([(BOX, 0)], [(BOX, 0, 0.9)], {}, {}, 1),
    "classification": (
        [(BOX, 0), (OTHER, 1)],
        [(BOX, 1, 0.9), (OTHER, 1, 0.95)],
        {"classification": 1},
        {"classification": 0.5},
        0.5,
    ),
    "localisation": ([(BOX, 0)], [(NEAR, 0, 0.9)], {"localisation": 1}, {"localisation": 1}, 0),
    "both": ([(BOX, 0), (OTHER, 1)], [(NEAR, 1, 0.9)], {"both": 1, "missed": 2}, {"missed": 1}, 0),
    "duplicate": (
        [(BOX, 0), (OTHER, 0)],
        [(BOX, 0, 0.9), (BOX, 0, 0.8), (OTHER, 0, 0.7)],
        {"duplicate": 1},
        # Precision 1 at the 51 recalls up to a half, 2/3 at the other 50.
        {"duplicate": 50 / 101 / 3},
        (51 + 50 * 2 / 3) / 101,
    ),
    "background": (
        [(BOX, 0)],
        [(NOWHERE, 0, 0.9), (BOX, 0, 0.8)],
        {"background": 1},
        {"background": 0.5},
        0.5,
    ),
    "background of an empty image": ([], [(BOX, 0, 0.9)], {"background": 1}, {}, float("nan")),
    "missed": ([(BOX, 0), (OTHER, 0)], [(BOX, 0, 0.9)], {"missed": 1}, {"missed": 50 / 101}, 51 / 101),
    "nothing found": ([(BOX, 0)], [], {"missed": 1}, {"missed": 1}, 0),
    "crowd": ([(BOX, 0), (OTHER, 0, {"crowd": True})], [(BOX, 0, 0.9), (OTHER, 0, 0.95)], {}, {}, 1),
    "only the best of several near ones is mended": (
        [(BOX, 0)],
        [(NEAR, 0, 0.9), (NEAR, 0, 0.8)],
        {"localisation": 2},
        {"localisation": 1},
        0,
    ),
    # Mending it takes it away: if it were right as well, recall would be 1 from the first detection on.
    "near an object that was found": (
        [(BOX, 0), (OTHER, 0)],
        [(NEAR, 0, 0.9), (BOX, 0, 0.8)],
        {"localisation": 1, "missed": 1},
        {"localisation": 51 / 101 / 2, "missed": 0.5 - 51 / 101 / 2},
        51 / 101 / 2,
    ),
}


@pytest.mark.parametrize("case", CASES)
def test_hand_made(case):
    objects, found, counts, costs, ap50 = CASES[case]
    result = broken_down([objects], [found])
    assert result.counts == {name: counts.get(name, 0) for name in ERRORS}
    assert result.ap50 == pytest.approx(ap50, nan_ok=True)
    if not np.isnan(ap50):
        assert result.costs == pytest.approx({name: costs.get(name, 0) for name in ERRORS}, abs=1e-9)


def test_every_wrong_detection_has_one_kind():
    targets, predictions = scene(np.random.default_rng(1), images=30, classes=2, crowd=0)
    metrics = DetectionMetrics(LABELS)
    metrics.update(targets, predictions)
    result = metrics.breakdown()
    curves = metrics.curves()
    right = sum(round(curve.recall[-1] * curve.objects) for curve in curves.values())
    wrong = sum(count for name, count in result.counts.items() if name != "missed")
    assert right + wrong == predictions["count"].sum()
    assert min(result.counts.values()) > 0
    assert result.ap50 == pytest.approx(metrics.result()["AP50"])
    assert all(0 <= cost <= 1 - result.ap50 + 1e-9 for cost in result.costs.values())
