"""What measuring a detector costs: `DetectionMetrics` beside faster-coco-eval alone, and pycocotools.

    python benchmarks/detection_metrics.py [--json] [--images 5000] [--repetitions 3]

Ours gets padded batches, as a net gives them, and ends with the figures of every class. The evaluator alone gets the
lists of dicts that COCO's files hold, made beforehand, and ends with its summary. They take turns; a figure is the
least processor time of the repetitions, as what else the machine does can only add to it.
"""

import argparse
import contextlib
import gc
import io
import time
from collections.abc import Callable
from typing import Any

import numpy as np
from table import row, show

from kerasvision.detection import DetectionMetrics

CLASSES = 80
OBJECTS = 7
DETECTIONS = 100
SIZE = 640
BATCH = 32
LARGEST_RATIO = 1.2

Batch = tuple[dict[str, np.ndarray], dict[str, np.ndarray]]


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--json", action="store_true", help="print rows as JSON")
    parser.add_argument("--images", type=int, default=5000)
    parser.add_argument("--repetitions", type=int, default=3)
    arguments = parser.parse_args()
    repetitions = {"faster-coco-eval": arguments.repetitions, "pycocotools": 1}
    rows = compare(arguments.images, repetitions)
    show(rows, title="COCO evaluation", ours="DetectionMetrics", peer="evaluator", as_json=arguments.json)


def compare(images: int, repetitions: dict[str, int]) -> list[dict]:
    """A row for each evaluator, by its repetitions."""
    batches = scenes(images)
    true, found = as_coco(batches)
    rows = []
    for name, count in repetitions.items():
        mine, other = alternately(batches, EVALUATORS[name], true, found, count)
        case = f"boxes, {images} images x {DETECTIONS}, beside {name}"
        rows.append(row(case, mine, other, "CPU s", LARGEST_RATIO, "most"))
    return rows


def scenes(images: int) -> list[Batch]:
    """Objects as many as COCO has, and detections half of which are near one of them."""
    random = np.random.default_rng(0)
    batches = []
    for start in range(0, images, BATCH):
        count = min(BATCH, images - start)
        boxes = random_boxes(random, (count, 2 * OBJECTS))
        classes = random.integers(0, CLASSES, boxes.shape[:2]).astype(np.int32)
        valid = np.arange(2 * OBJECTS) < random.integers(0, 2 * OBJECTS + 1, (count, 1))
        chosen = random.integers(0, 2 * OBJECTS, (count, DETECTIONS))
        found = np.take_along_axis(boxes, chosen[..., None], axis=1) + random.normal(0, 8, (count, DETECTIONS, 4))
        found[..., 2:] = np.maximum(found[..., 2:], found[..., :2] + 1)
        anywhere = random.random((count, DETECTIONS)) < 0.5
        found = np.where(anywhere[..., None], random_boxes(random, (count, DETECTIONS)), found)
        named = np.take_along_axis(classes, chosen, axis=1)
        targets = {"boxes": boxes, "classes": classes, "valid": valid, "crowd": np.zeros_like(valid)}
        predictions = {
            "boxes": found.astype(np.float32),
            "classes": np.where(anywhere, random.integers(0, CLASSES, named.shape), named).astype(np.int32),
            "scores": -np.sort(-random.random((count, DETECTIONS)).astype(np.float32), axis=1),
            "count": np.full(count, DETECTIONS, np.int32),
        }
        batches.append((targets, predictions))
    return batches


def random_boxes(random: np.random.Generator, shape: tuple[int, ...]) -> np.ndarray:
    low = random.uniform(0, 0.8 * SIZE, (*shape, 2))
    return np.concatenate([low, low + random.uniform(4, 0.4 * SIZE, low.shape)], axis=-1).astype(np.float32)


def as_coco(batches: list[Batch]) -> tuple[dict[str, Any], list[dict[str, Any]]]:
    """The same as COCO's files hold it."""
    annotations: list[dict[str, Any]] = []
    found: list[dict[str, Any]] = []
    number = 0
    for targets, predictions in batches:
        for image in range(len(targets["valid"])):
            number += 1
            for index in np.flatnonzero(targets["valid"][image]):
                x0, y0, x1, y1 = targets["boxes"][image, index].astype(float).tolist()
                box = {"bbox": [x0, y0, x1 - x0, y1 - y0], "area": (x1 - x0) * (y1 - y0), "iscrowd": 0}
                kind = int(targets["classes"][image, index])
                annotations.append({"id": len(annotations) + 1, "image_id": number, "category_id": kind, **box})
            for index in range(DETECTIONS):
                x0, y0, x1, y1 = predictions["boxes"][image, index].astype(float).tolist()
                kind, score = int(predictions["classes"][image, index]), float(predictions["scores"][image, index])
                box = {"bbox": [x0, y0, x1 - x0, y1 - y0]}
                found.append({"image_id": number, "category_id": kind, "score": score, **box})
    images = [{"id": index + 1, "height": SIZE, "width": SIZE} for index in range(number)]
    categories = [{"id": index, "name": str(index)} for index in range(CLASSES)]
    return {"info": {}, "images": images, "categories": categories, "annotations": annotations}, found


def alternately(
    batches: list[Batch],
    peer: Callable[[dict[str, Any], list[dict[str, Any]]], float],
    true: dict[str, Any],
    found: list[dict[str, Any]],
    repetitions: int,
) -> tuple[float, float]:
    """Least processor seconds of ours and of the peer; their AP is the same."""
    mine, other = [], []
    for _ in range(repetitions):
        value, seconds = timed(lambda: ours(batches))
        mine.append(seconds)
        # The evaluators write into what they get.
        fresh = {**true, "annotations": [dict(each) for each in true["annotations"]]}, [dict(each) for each in found]
        expected, seconds = timed(lambda arguments=fresh: peer(*arguments))
        other.append(seconds)
        np.testing.assert_allclose(value, expected, atol=1e-6)
    return min(mine), min(other)


def timed(run: Callable[[], float]) -> tuple[float, float]:
    """What it returns, and its processor seconds."""
    gc.collect()
    # What is there already is not searched for garbage, again and again, in the time of the one who comes next.
    gc.freeze()
    start = time.process_time()
    value = run()
    seconds = time.process_time() - start
    gc.unfreeze()
    return value, seconds


def ours(batches: list[Batch]) -> float:
    metrics = DetectionMetrics([str(index) for index in range(CLASSES)])
    for targets, predictions in batches:
        metrics.update(targets, predictions)
    return metrics.result()["AP"]


def faster(true: dict[str, Any], found: list[dict[str, Any]]) -> float:
    from faster_coco_eval import COCO, COCOeval_faster

    return summary(COCO, COCOeval_faster, true, found)


def slow(true: dict[str, Any], found: list[dict[str, Any]]) -> float:
    from pycocotools.coco import COCO
    from pycocotools.cocoeval import COCOeval

    def load(dataset: dict[str, Any]) -> Any:
        coco = COCO()
        coco.dataset = dataset
        coco.createIndex()
        return coco

    return summary(load, COCOeval, true, found)


def summary(load: Any, evaluator: Any, true: dict[str, Any], found: list[dict[str, Any]]) -> float:
    with contextlib.redirect_stdout(io.StringIO()):
        objects = load(true)
        evaluation = evaluator(objects, objects.loadRes(found), "bbox")
        evaluation.evaluate()
        evaluation.accumulate()
        evaluation.summarize()
    return float(evaluation.stats[0])


EVALUATORS = {"faster-coco-eval": faster, "pycocotools": slow}

if __name__ == "__main__":
    main()
