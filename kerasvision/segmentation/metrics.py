"""`SegmentationMetrics`: what a class map is worth on a data set, gathered batch by batch, in NumPy and OpenCV."""

import math
from collections.abc import Mapping, Sequence
from typing import Any

import cv2
import numpy as np

from kerasvision.class_maps import VOID
from kerasvision.segmentation.instances import ObjectMetrics, find_objects

# Of the image's diagonal (Csurka et al., 2013).
TOLERANCE = 0.0075


class SegmentationMetrics:
    """Overlaps, accuracies and outlines of classes, from class maps, outside any graph.

        metrics = SegmentationMetrics(data.labels)
        for images, targets in batches:
            metrics.update(targets, predict(images))
        metrics.result()["mIoU"]

    Pixels are counted over the whole set: figures are exact whatever the size of the batches. Where the truth is void,
    or the prediction is, because a net says nothing about the edges of its image, pixels count nowhere.

    Args:
        labels: class names, in the order of their indices.
        tolerance: how far outlines may be from each other, as a share of the image's diagonal; None measures none,
            which takes the most time here.

    Raises:
        ValueError: fewer than two labels, the same label twice, or a tolerance that is not above 0.

    Attributes:
        confusion: int64 [K, K], pixels of the true class (row) that were given a class (column).
        image_ious: mean IoU of each image, in their order; NaN for one that is void.
    """

    def __init__(self, labels: Sequence[str], tolerance: float | None = TOLERANCE) -> None:
        if not 2 <= len(labels) <= VOID or len(set(labels)) != len(labels):
            raise ValueError(f"Expected the names of 2 to {VOID} classes, each once, got {list(labels)}.")
        if tolerance is not None and not 0 < tolerance < 1:
            raise ValueError(f"tolerance is a share of the image's diagonal, such as {TOLERANCE}, got {tolerance}.")
        self.labels = tuple(labels)
        self.tolerance = tolerance
        self.confusion = np.zeros((len(labels), len(labels)), np.int64)
        self.image_ious: list[float] = []
        self._outlines = _Mean(len(labels))

    def update(self, targets: Mapping[str, Any], predictions: Mapping[str, Any]) -> None:
        """Adds a batch.

        Args:
            targets: {"segmentation": [B, H, W]}, class indices, 255 for void.
            predictions: {"classes": [B, H, W]}, class indices of any type of number.

        Raises:
            ValueError: shapes differ, or there is a class without a label.
        """
        for truth, found in zip(*self._aligned(targets, predictions), strict=True):
            table = confusion_of(truth, found, len(self.labels))
            self.confusion += table
            ious = _overlaps(table)[0]
            self.image_ious.append(float(np.nanmean(ious)) if np.isfinite(ious).any() else math.nan)
            if self.tolerance is not None:
                self._outlines.add(outline_scores(truth, found, len(self.labels), self.tolerance))

    def _aligned(self, targets: Mapping[str, Any], predictions: Mapping[str, Any]) -> tuple[np.ndarray, np.ndarray]:
        """True and found classes, uint8 [B, H, W], void in both where it is in one of them."""
        for key, given in (("segmentation", targets), ("classes", predictions)):
            if key not in given:
                raise ValueError(f'Expected "{key}", got {", ".join(given) or "nothing"}.')
        truth, found = np.asarray(targets["segmentation"]), np.asarray(predictions["classes"])
        if truth.ndim != 3 or truth.shape != found.shape:
            raise ValueError(
                f"Expected class maps of one shape [B, H, W], got {truth.shape} as the truth and {found.shape} as the "
                "prediction. Decode with the image_size that the targets were made for."
            )
        for name, maps in (("truth", truth), ("prediction", found)):
            strange = (maps != VOID) & ~((maps >= 0) & (maps < len(self.labels)))
            if strange.any():
                raise ValueError(
                    f"The {name} has the class {maps[strange][0]}; expected 0..{len(self.labels) - 1}, or {VOID} for "
                    "void."
                )
        void = (truth == VOID) | (found == VOID)
        return np.where(void, VOID, truth).astype(np.uint8), np.where(void, VOID, found).astype(np.uint8)

    def result(self) -> dict[str, float]:
        """The figures of all batches so far.

        Returns:
            All in 0..1: "mIoU" and "Dice", the means over the classes that occur in truth or prediction, and
            "IoU/<label>", "Dice/<label>" of those; "pixel_accuracy"; "mean_accuracy", the mean of the recalls of the
            classes that occur in the truth; "frequency_weighted_IoU", by their share of the truth; "boundary_F1", the
            mean over images of the mean over classes (Csurka et al., 2013), and "boundary_F1/<label>", the mean over
            images. What the data cannot give is left out.
        """
        table = self.confusion
        total = table.sum()
        if not total:
            return {}
        ious, dices = _overlaps(table)
        truth = table.sum(axis=1)
        occurring = truth > 0
        figures = {
            "mIoU": np.nanmean(ious),
            "Dice": np.nanmean(dices),
            "pixel_accuracy": np.trace(table) / total,
            "mean_accuracy": np.mean(np.diag(table)[occurring] / truth[occurring]),
            "frequency_weighted_IoU": np.sum(truth[occurring] * ious[occurring]) / total,
            "boundary_F1": self._outlines.of_images,
            **{f"IoU/{label}": value for label, value in zip(self.labels, ious, strict=True)},
            **{f"Dice/{label}": value for label, value in zip(self.labels, dices, strict=True)},
            **{f"boundary_F1/{label}": value for label, value in zip(self.labels, self._outlines.means(), strict=True)},
        }
        return {name: float(value) for name, value in figures.items() if not np.isnan(value)}


class SegmentationMeter(SegmentationMetrics):
    """The figures of a `SegmentationTask`: of the classes and, where there is a border class, of the objects.

    With "instances" among the targets, objects are found in the class maps and compared with them, see `ObjectMetrics`;
    and "foreground_Dice" compares the pixels of any object with those of any class but the first.

    Args:
        labels: class names, in the order of their indices.
        border: label of the pixels between objects; None where no object is looked for.
        min_area: pixels that an object has at least.
        neck: objects are split where they are narrow, see `find_objects`.
        tolerance: as in `SegmentationMetrics`.
    """

    def __init__(
        self,
        labels: Sequence[str],
        border: str | None = None,
        min_area: int = 1,
        neck: float | None = None,
        tolerance: float | None = TOLERANCE,
    ) -> None:
        super().__init__(labels, tolerance)
        self.border = None if border is None else self.labels.index(border)
        self.min_area = min_area
        self.neck = neck
        self.objects = ObjectMetrics()
        # Pixels of objects: in both, in the truth, in the prediction.
        self._foreground = np.zeros(3, np.int64)

    def update(self, targets: Mapping[str, Any], predictions: Mapping[str, Any]) -> None:
        """Adds a batch; as `SegmentationMetrics.update`, with "instances" [B, H, W], 0 where there is none."""
        super().update(targets, predictions)
        if self.border is None or "instances" not in targets:
            return
        found = self._aligned(targets, predictions)[1]
        instances = np.where(found == VOID, 0, np.asarray(targets["instances"]))
        true, guessed = instances > 0, (found > 0) & (found != VOID)
        self._foreground += [np.count_nonzero(each) for each in (true & guessed, true, guessed)]
        for truth, classes in zip(instances, found, strict=True):
            objects = find_objects(classes, border=self.border, min_area=self.min_area, neck=self.neck)
            self.objects.add(truth, objects)

    def result(self) -> dict[str, float]:
        """Figures of the classes, then those of the objects."""
        both, true, guessed = self._foreground
        dice = {"foreground_Dice": float(2 * both / (true + guessed))} if true + guessed else {}
        return {**super().result(), **dice, **self.objects.result()}


class _Mean:
    """Means of rows that hold NaN where there is nothing: over rows of each column, and of the rows' own means."""

    def __init__(self, columns: int) -> None:
        self._sums, self._counts = np.zeros(columns), np.zeros(columns, np.int64)
        self._rows, self._sum = 0, 0.0

    def add(self, row: np.ndarray) -> None:
        there = ~np.isnan(row)
        self._sums[there] += row[there]
        self._counts += there
        if there.any():
            self._rows += 1
            self._sum += float(row[there].mean())

    def means(self) -> np.ndarray:
        return np.divide(self._sums, self._counts, out=np.full(len(self._sums), np.nan), where=self._counts > 0)

    @property
    def of_images(self) -> float:
        return self._sum / self._rows if self._rows else math.nan


def confusion_of(truth: np.ndarray, found: np.ndarray, classes: int) -> np.ndarray:
    """Pixels of each true class (row) by the class they were given (column).

    Args:
        truth: [H, W], void where it does not count.
        found: [H, W].
        classes: K.

    Returns:
        int64 [K, K].
    """
    known = truth != VOID
    pairs = truth[known].astype(np.int64) * classes + found[known]
    return np.bincount(pairs, minlength=classes * classes).reshape(classes, classes)


def _overlaps(table: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    """IoU and Dice of each class; NaN for those that do not occur."""
    hits, both = np.diag(table), table.sum(axis=0) + table.sum(axis=1)
    missing = np.full(len(table), np.nan)
    ious = np.divide(hits, both - hits, out=missing.copy(), where=both > 0)
    return ious, np.divide(2 * hits, both, out=missing, where=both > 0)


def outline_scores(truth: np.ndarray, found: np.ndarray, classes: int, tolerance: float = TOLERANCE) -> np.ndarray:
    """F1 of the outlines of each class (Csurka et al., 2013, "What is a good evaluation measure ...?", BMVC).

    Precision is the share of found outline pixels that lie no farther than the tolerance from a true one of the class,
    recall the share of true ones near a found one. A pixel is on the outline where one of its four neighbours has
    another class; void and the image's edge make none.

    Args:
        truth: uint8 [H, W], class indices, 255 for void.
        found: uint8 [H, W], void where the truth is.
        classes: K.
        tolerance: share of the image's diagonal.

    Returns:
        float64 [K]; NaN where a class has no outline in either.
    """
    radius = tolerance * math.hypot(*truth.shape)
    edges = _edges(truth), _edges(found)
    scores = np.full(classes, np.nan)
    for index in np.unique(np.concatenate([truth[edges[0]], found[edges[1]]])):
        true, guessed = _cropped(edges[0] & (truth == index), edges[1] & (found == index))
        recall, precision = _near(true, guessed, radius), _near(guessed, true, radius)
        scores[index] = 2 * precision * recall / (precision + recall) if precision + recall else 0.0
    return scores


def _edges(classes: np.ndarray) -> np.ndarray:
    """Pixels with a neighbour of another class, bool [H, W]."""
    edges = np.zeros(classes.shape, bool)
    for first, second in (
        ((slice(1, None), slice(None)), (slice(None, -1), slice(None))),
        ((slice(None), slice(1, None)), (slice(None), slice(None, -1))),
    ):
        one, other = classes[first], classes[second]
        differs = (one != other) & (one != VOID) & (other != VOID)
        edges[first] |= differs
        edges[second] |= differs
    return edges


def _cropped(*points: np.ndarray) -> list[np.ndarray]:
    """The part of maps [H, W] that all their points lie in: distances take time."""
    left, top, width, height = cv2.boundingRect(np.logical_or.reduce(points).astype(np.uint8))
    return [each[top : top + height, left : left + width] for each in points]


def _near(points: np.ndarray, others: np.ndarray, radius: float) -> float:
    """Share of the points that have another one within a radius; 0 without points or others."""
    if not points.any() or not others.any():
        return 0.0
    distances = cv2.distanceTransform((~others).astype(np.uint8), cv2.DIST_L2, cv2.DIST_MASK_PRECISE)
    # Distances are roots of whole numbers in float32.
    return float(np.mean(distances[points] <= radius + 1e-4))
