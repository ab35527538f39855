"""Figures of merit of a classifier, from decoded scores, in NumPy and scikit-learn."""

from collections.abc import Mapping
from typing import Any

import numpy as np
from sklearn import metrics as sk


class ClassificationMeter:
    """Figures of a classifier, gathered batch by batch.

    Args:
        several: whether an image may have any number of labels.
    """

    def __init__(self, several: bool) -> None:
        self.several = several
        self._wanted: list[np.ndarray] = []
        self._scores: list[np.ndarray] = []

    def update(self, targets: Mapping[str, Any], predictions: Mapping[str, Any]) -> None:
        """Adds a batch: {"label": [B]} or {"labels": [B, K]}, and {"scores": [B, K]}."""
        self._wanted.append(np.asarray(targets["labels" if self.several else "label"]))
        self._scores.append(np.asarray(predictions["scores"], np.float64))

    def result(self) -> dict[str, float]:
        """Those of `multi_label` or of `single_label`; nothing before the first image."""
        if not self._wanted:
            return {}
        figures = multi_label if self.several else single_label
        return figures(np.concatenate(self._wanted), np.concatenate(self._scores))


def single_label(label: np.ndarray, scores: np.ndarray) -> dict[str, float]:
    """Figures for one label per image.

    Args:
        label: class indices, int [N].
        scores: [N, K] in 0..1.

    Returns:
        accuracy, balanced_accuracy, macro_f1; top5_accuracy above five classes; auc (for two classes of the
        second one, else one-vs-rest, macro) where every class occurs.
    """
    if len(label) == 0:
        return {}
    classes = scores.shape[1]
    predicted = scores.argmax(axis=1)
    recalls = [np.mean(predicted[label == index] == index) for index in np.unique(label)]
    result = {
        "accuracy": float(np.mean(predicted == label)),
        "balanced_accuracy": float(np.mean(recalls)),
        "macro_f1": float(sk.f1_score(label, predicted, average="macro", zero_division=0)),
    }
    if classes > 5:
        top5 = np.argpartition(-scores, 5, axis=1)[:, :5]
        result["top5_accuracy"] = float(np.mean((top5 == label[:, None]).any(axis=1)))
    if len(np.unique(label)) == classes:
        if classes == 2:
            result["auc"] = float(sk.roc_auc_score(label, scores[:, 1]))
        else:
            one_hot = np.eye(classes, dtype=np.int8)[label]
            result["auc"] = float(sk.roc_auc_score(one_hot, scores, average="macro"))
    return result


def multi_label(labels: np.ndarray, scores: np.ndarray) -> dict[str, float]:
    """Figures for any number of labels per image.

    Args:
        labels: 0/1, [N, K].
        scores: [N, K] in 0..1; 0.5 decides.

    Returns:
        mAP and auc over the classes that occur (auc: and do not always occur), class_f1 (macro), overall_f1
        (micro), exact_match.
    """
    if len(labels) == 0:
        return {}
    labels = labels.astype(np.int8)
    chosen = (scores >= 0.5).astype(np.int8)
    result = {
        "class_f1": float(sk.f1_score(labels, chosen, average="macro", zero_division=0)),
        "overall_f1": float(sk.f1_score(labels, chosen, average="micro", zero_division=0)),
        "exact_match": float(np.mean((labels == chosen).all(axis=1))),
    }
    present = np.flatnonzero(labels.any(axis=0))
    if len(present):
        precision = [sk.average_precision_score(labels[:, k], scores[:, k]) for k in present]
        result["mAP"] = float(np.mean(precision))
    varied = [k for k in present if not labels[:, k].all()]
    if varied:
        result["auc"] = float(np.mean([sk.roc_auc_score(labels[:, k], scores[:, k]) for k in varied]))
    return result


def confusion_matrix(label: np.ndarray, scores: np.ndarray) -> np.ndarray:
    """Counts [K, K]: rows are the true class, columns the predicted one."""
    classes = scores.shape[1]
    return sk.confusion_matrix(label, scores.argmax(axis=1), labels=np.arange(classes))
