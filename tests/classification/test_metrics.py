import numpy as np
import pytest

from kerasvision.classification import metrics


def test_single_label_counts_by_hand():
    label = np.array([0, 0, 0, 1])
    scores = np.array([[0.9, 0.1], [0.8, 0.2], [0.3, 0.7], [0.4, 0.6]])
    result = metrics.single_label(label, scores)
    assert result["accuracy"] == 0.75
    assert result["balanced_accuracy"] == pytest.approx((2 / 3 + 1) / 2)
    assert result["macro_f1"] == pytest.approx((0.8 + 2 / 3) / 2)
    # One of the three pairs (negative, positive) is ordered wrongly.
    assert result["auc"] == pytest.approx(2 / 3)
    np.testing.assert_array_equal(metrics.confusion_matrix(label, scores), [[2, 1], [0, 1]])


def test_top5():
    scores = np.tile(np.arange(8.0), (8, 1))
    result = metrics.single_label(np.arange(8), scores)
    assert result["accuracy"] == 1 / 8
    assert result["top5_accuracy"] == 5 / 8


def test_an_absent_class_leaves_the_auc_out():
    result = metrics.single_label(np.array([0, 1]), np.array([[0.9, 0.1, 0], [0.2, 0.8, 0]]))
    assert "auc" not in result
    assert result["accuracy"] == 1.0


def test_nothing_to_measure():
    assert metrics.single_label(np.zeros(0, int), np.zeros((0, 3))) == {}
    assert metrics.multi_label(np.zeros((0, 3), int), np.zeros((0, 3))) == {}


def test_multi_label_counts_by_hand():
    labels = np.array([[1, 0, 0], [1, 1, 0], [0, 1, 0]])
    scores = np.array([[0.9, 0.2, 0.1], [0.6, 0.4, 0.1], [0.7, 0.8, 0.1]])
    result = metrics.multi_label(labels, scores)
    # Class 0 is ranked yes, no, yes: precision (1 + 2/3) / 2. Class 1 is ranked perfectly. Class 2 never occurs.
    assert result["mAP"] == pytest.approx(((1 + 2 / 3) / 2 + 1) / 2)
    assert result["exact_match"] == pytest.approx(1 / 3)
    # Three right decisions, one wrong, one missed: 2 * 3 / (2 * 3 + 1 + 1).
    assert result["overall_f1"] == pytest.approx(0.75)
    assert result["auc"] == pytest.approx((0.5 + 1) / 2)
