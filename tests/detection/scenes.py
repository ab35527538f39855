"""Random sets of objects and detections, padded, and what pycocotools says about them."""

import numpy as np
from pycocotools import mask as coco_mask
from pycocotools.coco import COCO
from pycocotools.cocoeval import COCOeval

SIZE = 160


def pad(rows, count, tail, dtype):
    """Arrays of different lengths [n, *tail] -> one [B, count, *tail]."""
    padded = np.zeros((len(rows), count, *tail), dtype)
    for target, row in zip(padded, rows, strict=True):
        target[: len(row)] = np.reshape(row, (-1, *tail))
    return padded


def batch(objects, found, slots=None):
    """Targets and predictions from hand-made lists.

    Args:
        objects: for each image, tuples (box, class) or (box, class, {"crowd": True, "difficult": True}).
        found: for each image, tuples (box, class, score).
        slots: (M, D), as many as are needed when None.
    """
    most, count = slots or (max(map(len, objects)), max(map(len, found)))
    flags = [[each[2] if len(each) > 2 else {} for each in image] for image in objects]
    targets = {
        "boxes": pad([[each[0] for each in image] for image in objects], most, (4,), np.float32),
        "classes": pad([[each[1] for each in image] for image in objects], most, (), np.int32),
        "valid": pad([[True] * len(image) for image in objects], most, (), bool),
        "crowd": pad([[each.get("crowd", False) for each in image] for image in flags], most, (), bool),
        "difficult": pad([[each.get("difficult", False) for each in image] for image in flags], most, (), bool),
    }
    predictions = {
        "boxes": pad([[each[0] for each in image] for image in found], count, (4,), np.float32),
        "classes": pad([[each[1] for each in image] for image in found], count, (), np.int32),
        "scores": pad([[each[2] for each in image] for image in found], count, (), np.float32),
        "count": np.array([len(image) for image in found], np.int32),
    }
    return targets, predictions


def boxes(random, count):
    low = random.uniform(0, SIZE * 0.7, (count, 2))
    return np.concatenate([low, low + random.uniform(2, SIZE * 0.8, (count, 2))], axis=1).clip(0, SIZE)


def scene(random, images=8, classes=3, objects=6, extra=4, crowd=0.1, difficult=0.0, ties=False, never=()):
    """Detections that are some of the objects, moved, of a class that is mostly right, and others anywhere."""
    true, found = [], []
    kinds = [index for index in range(classes) if index not in never]
    for _ in range(images):
        count = random.integers(0, objects + 1)
        places, labels = boxes(random, count), random.choice(kinds, count)
        marks = [{"crowd": random.random() < crowd, "difficult": random.random() < difficult} for _ in range(count)]
        true.append(list(zip(places, labels, marks, strict=True)))
        moved = places[random.random(count) < 0.8]
        again = np.concatenate([moved, moved[: len(moved) // 3]])
        again = (again + random.normal(0, 6, again.shape)).clip(0, SIZE)
        again[:, 2:] = np.maximum(again[:, 2:], again[:, :2])
        again = np.concatenate([again, boxes(random, random.integers(0, extra + 1))])
        owned = np.concatenate([labels[: len(moved)], random.integers(0, classes, len(again) - len(moved))])
        scores = random.uniform(0, 1, len(again))
        scores = np.round(scores, 1) if ties else scores
        found.append(list(zip(again, owned, scores, strict=True)))
    return batch(true, found, (objects + 2, 2 * objects + extra))


def with_masks(targets, predictions, random):
    """The same with an ellipse in every box, and a few pixels of it gone."""
    rows, columns = np.mgrid[:SIZE, :SIZE] + 0.5

    def ellipses(places):
        low, high = (places[..., part, None, None] for part in ((0, 1), (2, 3)))
        low, high = np.moveaxis(low, 2, 0), np.moveaxis(high, 2, 0)
        middle, half = (low + high) / 2, np.maximum(high - low, 1e-3) / 2
        inside = ((columns - middle[0]) / half[0]) ** 2 + ((rows - middle[1]) / half[1]) ** 2 <= 1
        return inside & (random.random((SIZE, SIZE)) > 0.05)

    return (
        {**targets, "masks": ellipses(targets["boxes"]).astype(np.uint8)},
        {**predictions, "masks": ellipses(predictions["boxes"]).astype(np.float32) * 0.9},
    )


def pycocotools_figures(targets, predictions, classes, kind="boxes", detections=(1, 10, 100)):
    """The reference, from COCO dicts made one by one; NaN where it says -1."""
    true, found = [], []
    for image in range(len(targets["valid"])):
        for index in np.flatnonzero(targets["valid"][image]):
            ignored = targets["crowd"][image, index] or targets["difficult"][image, index]
            entry = _entry(targets, image, index, kind, len(true) + 1)
            true.append({**entry, "iscrowd": int(ignored)})
        for index in range(predictions["count"][image]):
            entry = _entry(predictions, image, index, kind, len(found) + 1)
            found.append({**entry, "score": float(predictions["scores"][image, index])})
    frame = {
        "info": {},
        "images": [{"id": image, "height": SIZE, "width": SIZE} for image in range(len(targets["valid"]))],
        "categories": [{"id": index, "name": str(index)} for index in range(classes)],
    }
    evaluation = COCOeval(_coco({**frame, "annotations": true}), _coco({**frame, "annotations": found}))
    evaluation.params.iouType = "bbox" if kind == "boxes" else "segm"
    evaluation.params.maxDets = list(detections)
    evaluation.evaluate()
    evaluation.accumulate()
    precision, recall = evaluation.eval["precision"], evaluation.eval["recall"]

    def mean(values):
        return values[values > -1].mean() if (values > -1).any() else np.nan

    return {
        "AP": mean(precision[..., 0, -1]),
        "AP50": mean(precision[0, ..., 0, -1]),
        "AP75": mean(precision[5, ..., 0, -1]),
        "AP_small": mean(precision[..., 1, -1]),
        "AP_medium": mean(precision[..., 2, -1]),
        "AP_large": mean(precision[..., 3, -1]),
        **{f"AR{count}": mean(recall[:, :, 0, index]) for index, count in enumerate(detections)},
        **{f"AP/{index}": mean(precision[:, :, index, 0, -1]) for index in range(classes)},
    }


def _coco(dataset):
    coco = COCO()
    coco.dataset = dataset
    coco.createIndex()
    return coco


def _entry(arrays, image, index, kind, number):
    entry = {"id": number, "image_id": image, "category_id": int(arrays["classes"][image, index])}
    x0, y0, x1, y1 = arrays["boxes"][image, index].astype(float).tolist()
    if kind == "boxes":
        return {**entry, "bbox": [x0, y0, x1 - x0, y1 - y0], "area": (x1 - x0) * (y1 - y0)}
    mask = coco_mask.encode(np.asfortranarray(arrays["masks"][image, index] >= 0.5).astype(np.uint8, order="F"))
    return {**entry, "segmentation": mask, "area": float(coco_mask.area(mask))}
