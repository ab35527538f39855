"""Precision-recall curves, the average precision under them, and the score at which a detector is best used."""

import dataclasses
from collections.abc import Callable, Sequence

import numpy as np

from kerasvision.detection.pairing import IGNORED, pair, pair_voc, ranked
from kerasvision.detection.results import ImageResult

Rule = Callable[[ImageResult, np.ndarray, float], np.ndarray]


@dataclasses.dataclass(frozen=True)
class Operating:
    """A detector used from one score on.

    Args:
        score: detections with this score or a higher one are kept.
        f1: harmonic mean of the two below.
        precision: share of the kept detections that are right.
        recall: share of the objects that are found.
    """

    score: float
    f1: float
    precision: float
    recall: float


@dataclasses.dataclass(frozen=True)
class PrecisionRecall:
    """What a detector is right about, and what it finds, as more and more of its detections of one class are kept.

    Args:
        scores: float64 [D], falling.
        precision: float64 [D], share of the detections up to here that are right.
        recall: float64 [D], share of the objects that these find; NaN where there is no object.
        objects: that are to be found.
    """

    scores: np.ndarray
    precision: np.ndarray
    recall: np.ndarray
    objects: int

    @classmethod
    def of(cls, scores: np.ndarray, right: np.ndarray, objects: int) -> "PrecisionRecall":
        """The curve of detections.

        Args:
            scores: [D], in any order.
            right: bool [D].
            objects: that are to be found.
        """
        order = np.argsort(-scores, kind="stable")
        found = np.cumsum(right[order], dtype=np.float64)
        recall = found / objects if objects else np.full(len(order), np.nan)
        return cls(scores[order], found / np.arange(1, len(order) + 1), recall, objects)

    def average_precision(self, points: int | None = 101) -> float:
        """Area under the curve, where precision at a recall is the best at this recall or a higher one.

        Args:
            points: recalls, evenly spread over 0..1, at which it is read: 101 (COCO), 11 (Pascal VOC 2007); None for
                the exact area (Pascal VOC 2010).

        Returns:
            0..1; NaN where there is no object.
        """
        if not self.objects:
            return float("nan")
        best = np.maximum.accumulate(self.precision[::-1])[::-1]
        if points is None:
            return float(np.sum(np.diff(self.recall, prepend=0.0) * best))
        reached = np.searchsorted(self.recall, np.linspace(0, 1, points), side="left")
        return float(np.append(best, 0.0)[reached].mean())

    def best(self) -> Operating | None:
        """Where F1 is highest, at the highest such score; None where nothing right was found."""
        # Detections of the same score can only be kept together.
        last = np.append(self.scores[1:] != self.scores[:-1], True)[: len(self.scores)]
        scores, precision, recall = (each[last] for each in (self.scores, self.precision, self.recall))
        if not self.objects or not recall.any():
            return None
        f1 = 2 * precision * recall / np.maximum(precision + recall, np.finfo(float).tiny)
        index = int(f1.argmax())
        return Operating(float(scores[index]), float(f1[index]), float(precision[index]), float(recall[index]))


def precision_recall(
    images: Sequence[ImageResult],
    labels: Sequence[str],
    *,
    iou: float = 0.5,
    max_detections: int = 100,
    rule: Rule = pair,
) -> dict[str, PrecisionRecall]:
    """The curve of every class.

    Args:
        images: what lies in each, and what was found.
        labels: class names.
        iou: the least overlap with which an object counts as found, 0..1.
        max_detections: best ones of an image and class that count.
        rule: says which detection found which object.

    Returns:
        Label -> curve.
    """
    kept = []
    for image in images:
        order = ranked(image, max_detections)
        partners = rule(image, order, iou)
        counted = partners != IGNORED
        kept.append((image.found_classes[order][counted], image.scores[order][counted], partners[counted] >= 0))
    empty = np.zeros(0, np.int64)
    classes, scores, right = (
        np.concatenate([np.zeros(0, kind), *(each[index] for each in kept)])
        for index, kind in enumerate((np.int64, np.float64, bool))
    )
    objects = np.concatenate([empty, *(image.classes[~image.ignored] for image in images)])
    counts = np.bincount(objects, minlength=len(labels))
    return {
        label: PrecisionRecall.of(scores[classes == index], right[classes == index], int(counts[index]))
        for index, label in enumerate(labels)
    }


def voc_figures(
    images: Sequence[ImageResult], labels: Sequence[str], *, points: int | None, iou: float
) -> dict[str, float]:
    """Average precision as Pascal VOC defines it, see `DetectionMetrics.voc`."""
    most = max((len(image.scores) for image in images), default=0)
    curves = precision_recall(images, labels, iou=iou, max_detections=most, rule=pair_voc)
    each = {f"AP/{label}": curve.average_precision(points) for label, curve in curves.items()}
    known = [value for value in each.values() if not np.isnan(value)]
    return {"AP": float(np.mean(known)) if known else float("nan"), **each}
