"""`DetectionMetrics`: what a detector is worth on a data set, gathered batch by batch."""

import math
from collections.abc import Mapping, Sequence
from typing import Any

from kerasvision.detection.breakdown import ErrorBreakdown, break_down
from kerasvision.detection.coco_ap import coco_figures
from kerasvision.detection.curves import PrecisionRecall, precision_recall, voc_figures
from kerasvision.detection.results import ImageResult, Kind, unpad

# Where there is nothing to find at all these, and the recalls, are 0, so that epochs can still be compared.
ALWAYS = ("AP", "AP50", "AP75")
# Stands before the names of masks' figures.
MASKS = "mask_"
# COCO's; where a task gives more detections an image, as many of them count.
MOST = 100


def comparable(figures: Mapping[str, float]) -> dict[str, float]:
    """Figures without NaN: the mean precisions and the recalls are 0 there, those of classes and sizes are left out."""
    kept = {}
    for name, value in figures.items():
        if not math.isnan(value) or name in ALWAYS or name.startswith("AR"):
            kept[name] = 0.0 if math.isnan(value) else value
    return kept


class DetectionMetrics:
    """Average precision, curves and errors of a detector, from its decoded predictions, outside any graph.

        metrics = DetectionMetrics(data.labels)
        for images, targets in batches:
            metrics.update(targets, predict(images))
        metrics.result()["AP50"]

    Figures are exact whatever the size of the batches. Masks are kept as run lengths. Pixels are those of the targets:
    of the image the net sees, and of masks with a stride, theirs.

    Args:
        labels: class names, in the order of their indices.
        kind: whether "boxes" or "masks" are compared.
        max_detections: numbers of best detections of an image and class for which the recall is given, rising;
            the precision is that of the last. Images with more objects of a class than 100 need a larger one.
        image_size: (H, W) in pixels of the net's input, where predicted boxes are shares of it, as those of
            `DetectionTask.decode`; None where they are pixels, as the targets always are.

    Raises:
        ValueError: no labels, the same label twice, another kind, or numbers that do not rise.
    """

    def __init__(
        self,
        labels: Sequence[str],
        kind: Kind = "boxes",
        max_detections: Sequence[int] = (1, 10, 100),
        image_size: Sequence[int] | None = None,
    ) -> None:
        if not labels or len(set(labels)) != len(labels):
            raise ValueError(f"Expected the names of one class or more, each once, got {list(labels)}.")
        if kind not in ("boxes", "masks"):
            raise ValueError(f'kind must be "boxes" or "masks", got {kind!r}.')
        rising = sorted({int(count) for count in max_detections})
        if not rising or rising != list(max_detections) or rising[0] < 1:
            raise ValueError(f"max_detections must be rising numbers from 1, got {tuple(max_detections)}.")
        self.labels = tuple(labels)
        self.kind: Kind = kind
        self.max_detections = tuple(rising)
        self.image_size = image_size
        self.images: list[ImageResult] = []

    def update(self, targets: Mapping[str, Any], predictions: Mapping[str, Any]) -> None:
        """Adds a batch.

        Args:
            targets: as `Data.batches` yields them: "boxes" [B, M, 4] xyxy in pixels, "classes" [B, M], "valid" [B, M];
                where there are any, "crowd" and "difficult" [B, M]; "masks" [B, M, H, W] for masks.
            predictions: "boxes" [B, D, 4] xyxy, "scores" and "classes" [B, D], "count" [B], how many of the D are
                there; for masks "masks" [B, D, H, W], yes or no or 0..1, or "box_masks" [B, D, h, w] in 0..1, each
                stretched over its box.

        Raises:
            ValueError: a tensor is missing or of another shape, or there is a class without a label.
        """
        classes, size = len(self.labels), self.image_size
        self.images.extend(unpad(targets, predictions, kind=self.kind, classes=classes, image_size=size))

    def result(self) -> dict[str, float]:
        """COCO's figures (Lin et al., 2014, arXiv:1405.0312), equal to those of pycocotools.

        Difficult objects count as crowd. An object's size is the area of its box, or of its mask: small below 32 x 32
        pixels, large above 96 x 96.

        Returns:
            "AP" (mean over the overlaps 0.5, 0.55, ..., 0.95), "AP50", "AP75", "AP_small", "AP_medium", "AP_large",
            "AR1", "AR10", "AR100" and, for each class, "AP/<label>", all in 0..1. What the data cannot give, such as
            the AP of a class that never occurs, is NaN, and in no mean.
        """
        return coco_figures(self.images, self.labels, kind=self.kind, max_detections=self.max_detections)

    def voc(self, points: int | None = None, iou: float = 0.5) -> dict[str, float]:
        """Pascal VOC's average precision (Everingham et al., 2010), of continuous boxes and of all detections.

        Args:
            points: recalls at which precision is read: 11 as in 2007; None for the area under the curve, as since 2010.
            iou: the least overlap with which an object counts as found, 0..1.

        Returns:
            "AP" and, for each class, "AP/<label>"; NaN as in `result`. Difficult objects need not be found.
        """
        return voc_figures(self.images, self.labels, points=points, iou=iou)

    def curves(self, iou: float = 0.5) -> dict[str, PrecisionRecall]:
        """Label -> precision-recall curve at one overlap, with the score at which F1 is best."""
        return precision_recall(self.images, self.labels, iou=iou, max_detections=self.max_detections[-1])

    def breakdown(self) -> ErrorBreakdown:
        """Errors by their kind, and what each kind costs, see `kerasvision.detection.breakdown.break_down`."""
        return break_down(self.images, self.labels, max_detections=self.max_detections[-1])


class DetectionMeter:
    """COCO's figures of a task's predictions: of boxes, and of masks where data and net have them.

    Args:
        labels: class names.
        image_size: (H, W) in pixels of the net's input, whose shares the predicted boxes are.
        detections: the most that are found in an image.
    """

    def __init__(self, labels: Sequence[str], image_size: Sequence[int], detections: int = MOST) -> None:
        counts = (1, 10, max(MOST, detections))
        self.boxes = DetectionMetrics(labels, "boxes", counts, image_size)
        self.masks = DetectionMetrics(labels, "masks", counts, image_size)

    def update(self, targets: Mapping[str, Any], predictions: Mapping[str, Any]) -> None:
        """Adds a batch, as `DetectionMetrics.update` does."""
        self.boxes.update(targets, predictions)
        if "masks" in targets and not {"masks", "box_masks"}.isdisjoint(predictions):
            self.masks.update(targets, predictions)

    def result(self) -> dict[str, float]:
        """ "AP", "AP50" and so on as `DetectionMetrics.result`, and "mask_AP", "mask_AP50" and so on.

        Classes and sizes that never occur are left out.
        """
        figures = comparable(self.boxes.result())
        if self.masks.images:
            figures |= {MASKS + name: value for name, value in comparable(self.masks.result()).items()}
        return figures
