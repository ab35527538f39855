"""COCO's average precision and recall, computed by faster-coco-eval (Lin et al., 2014, arXiv:1405.0312)."""

import dataclasses
import itertools
from collections.abc import Iterator, Sequence
from typing import Any

import numpy as np

from kerasvision.detection.results import ImageResult, Kind, Regions

SIZES = ("small", "medium", "large")
_IOU50, _IOU75 = 0, 5
# Regions that are dicts at the same time, about 2 KB each; more would not be faster.
_AT_ONCE = 50_000


def coco_figures(
    images: Sequence[ImageResult], labels: Sequence[str], *, kind: Kind, max_detections: Sequence[int]
) -> dict[str, float]:
    """AP and AR as pycocotools gives them.

    Args:
        images: what lies in each, and what was found.
        labels: class names.
        kind: what was compared.
        max_detections: for AR1, AR10, AR100: best ones of an image and class that count; AP is at the last.

    Returns:
        See `DetectionMetrics.result`.
    """
    precision, recall = _evaluate(images, labels, kind, max_detections)
    # [threshold, recall, class], [threshold, recall, class, size], [threshold, class, detections]
    whole, sizes, recalls = precision[..., 0, -1], precision[..., 1:, -1], recall[:, :, 0, :]
    return {
        "AP": _mean(whole),
        "AP50": _mean(whole[_IOU50]),
        "AP75": _mean(whole[_IOU75]),
        **{f"AP_{name}": _mean(sizes[..., index]) for index, name in enumerate(SIZES)},
        **{f"AR{count}": _mean(recalls[..., index]) for index, count in enumerate(max_detections)},
        **{f"AP/{label}": _mean(whole[..., index]) for index, label in enumerate(labels)},
    }


@dataclasses.dataclass(frozen=True)
class _Table:
    """Regions of all images, one after the other: boxes [A, 4] or A masks, and what COCO knows of each, [A]."""

    regions: Any
    columns: dict[str, np.ndarray]

    @classmethod
    def of(cls, kind: Kind, regions: Sequence[Regions], **columns: Sequence[np.ndarray]) -> "_Table":
        """From what each image has."""
        columns["image_id"] = [np.full(len(each), index) for index, each in enumerate(regions)]
        columns["area"] = [each.areas for each in regions]
        values: list[Any] = [each.values for each in regions]
        # Numbers of no image, so that there may be none.
        whole = {name: np.concatenate([np.zeros(0, int), *column]) for name, column in columns.items()}
        if kind == "masks":
            return cls(list(itertools.chain(*values)), whole)
        return cls(np.concatenate([np.zeros((0, 4)), *values]), whole)

    def annotations(self, classes: range) -> list[dict[str, Any]]:
        """COCO's dicts of the regions of some classes."""
        kind = self.columns["category_id"]
        rows = np.flatnonzero((kind >= classes.start) & (kind < classes.stop))
        if isinstance(self.regions, np.ndarray):
            key, regions = "bbox", self.regions[rows].tolist()
        else:
            key, regions = "segmentation", [self.regions[row] for row in rows]
        names = ("id", key, *self.columns)
        # COCO counts from 1: to it, the number 0 says that nothing was matched.
        lists = (range(1, len(rows) + 1), regions, *(column[rows].tolist() for column in self.columns.values()))
        return [dict(zip(names, values, strict=True)) for values in zip(*lists, strict=True)]


def _evaluate(
    images: Sequence[ImageResult], labels: Sequence[str], kind: Kind, max_detections: Sequence[int]
) -> tuple[np.ndarray, np.ndarray]:
    """COCO's precision [T, R, K, A, M] and recall [T, K, A, M]; -1 where there is nothing to find."""
    from faster_coco_eval import COCO, COCOeval_faster

    true = _Table.of(
        kind,
        [image.objects for image in images],
        category_id=[image.classes for image in images],
        iscrowd=[image.ignored.astype(int) for image in images],
    )
    found = _Table.of(
        kind,
        [image.found for image in images],
        category_id=[image.found_classes for image in images],
        score=[image.scores for image in images],
    )
    frames = [_frame(index, image, kind) for index, image in enumerate(images)]
    parts = []
    for classes in _groups(len(labels), true, found):
        frame: dict[str, Any] = {"images": frames, "categories": [{"id": each} for each in classes]}
        evaluation = COCOeval_faster(
            COCO({**frame, "annotations": true.annotations(classes)}),
            COCO({**frame, "annotations": found.annotations(classes)}),
            "segm" if kind == "masks" else "bbox",
        )
        evaluation.params.maxDets = list(max_detections)
        evaluation.evaluate()
        evaluation.accumulate()
        parts.append([np.asarray(evaluation.eval[name]) for name in ("precision", "recall")])
    precisions, recalls = zip(*parts, strict=True)
    return np.concatenate(precisions, axis=2), np.concatenate(recalls, axis=1)


def _frame(index: int, image: ImageResult, kind: Kind) -> dict[str, int]:
    masks = [*image.objects.values[:1], *image.found.values[:1]] if kind == "masks" else []
    height, width = masks[0]["size"] if masks else (0, 0)
    return {"id": index, "height": height, "width": width}


def _groups(count: int, *tables: _Table) -> Iterator[range]:
    """Classes that are evaluated together, as they do not depend on each other: no more dicts at once than needed."""
    regions = np.sum([np.bincount(table.columns["category_id"], minlength=count) for table in tables], axis=0)
    start, total = 0, 0
    for index in range(count):
        total += int(regions[index])
        if total > _AT_ONCE and index > start:
            yield range(start, index)
            start, total = index, int(regions[index])
    yield range(start, count)


def _mean(values: np.ndarray) -> float:
    known = values[values > -1]
    return float(known.mean()) if known.size else float("nan")
