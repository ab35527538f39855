"""Which images a detector's report shows, and what it says about them: the truth beside what was found."""

import dataclasses
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import numpy as np

from kerasvision.data.decode import read_image
from kerasvision.data.listing import spread
from kerasvision.detection.pairing import WRONG, pair, ranked
from kerasvision.detection.results import ImageResult, Regions
from kerasvision.detections import Found
from kerasvision.draw import draw
from kerasvision.report.detector import above
from kerasvision.report.examples import data_uri, draw_example

SHOWN = 6
SIDE = 480
IOU = 0.5


@dataclasses.dataclass(frozen=True, eq=False)
class DetectorExample:
    """One image with what the models found in it.

    Args:
        example: of `Data.splits`, with "boxes" and "classes".
        found: of each model, "float" and "quantized"; what has too low a score is left out already.
        mistake: chosen because of its errors, and not to show what is typical.
    """

    example: Mapping[str, Any]
    found: Mapping[str, Found]
    mistake: bool = False


def choose_images(images: Sequence[ImageResult], score: float, count: int = SHOWN) -> list[tuple[int, bool]]:
    """Images evenly spread over a split, and those with the most errors: objects missed and detections that are wrong.

    Args:
        images: of a split, in order.
        score: detections below it do not count.
        count: at most so many of each sort.

    Returns:
        (index, whether chosen for its errors): the spread ones, then the worst first.
    """
    errors = np.array([sum(len(part) for part in _errors(above(image, score))) for image in images], int)
    worst = [int(index) for index in np.argsort(-errors, kind="stable")[:count] if errors[index]]
    return [*((index, False) for index in spread(len(images), count)), *((index, True) for index in worst)]


def show_example(example: DetectorExample, labels: Sequence[str]) -> dict[str, Any]:
    """What the page prints: {"file", "panels": [{"title", "words", "source", "alt"}]}, the truth first.

    Args:
        example: what to show.
        labels: class names.
    """
    image = example.example["image"]
    pixels = read_image(image)
    classes = np.asarray(example.example["classes"], int)
    crowd = np.asarray(example.example.get("crowd", np.zeros(len(classes), bool)), bool)
    truth = in_words(classes[~crowd], labels) or "nothing"
    truth += f", {crowd.sum()} marked as crowd" if crowd.any() else ""
    panels = [("true", truth, draw_example(dict(example.example), labels, SIDE))]
    for kind, found in example.found.items():
        picture = draw(
            pixels,
            labels=labels,
            boxes=found.boxes,
            classes=found.classes,
            scores=found.scores,
            masks=found.pasted(),
            side=SIDE,
        )
        panels.append((kind, _verdict(example.example, found, labels), picture))
    return {
        "file": Path(image).name if isinstance(image, str) else "",
        "panels": [
            {"title": title, "words": words, "source": data_uri(picture), "alt": f"{title}: {words}"}
            for title, words, picture in panels
        ],
    }


def in_words(classes: np.ndarray, labels: Sequence[str]) -> str:
    """Classes of objects as counts, most first: "12 RBC, 1 WBC"; "" where there are none."""
    found, counts = np.unique(classes, return_counts=True)
    return ", ".join(f"{counts[index]} {labels[found[index]]}" for index in np.argsort(-counts, kind="stable"))


def _verdict(example: Mapping[str, Any], found: Found, labels: Sequence[str]) -> str:
    """What of an image was found, such as "found 11 of 13; missed 2 RBC; wrong 1 WBC"."""
    count = len(example["classes"])
    crowd, difficult = (np.asarray(example.get(key, np.zeros(count, bool)), bool) for key in ("crowd", "difficult"))
    image = ImageResult(
        Regions.of_boxes(np.reshape(example["boxes"], (-1, 4))),
        np.asarray(example["classes"], np.int64),
        crowd,
        difficult,
        Regions.of_boxes(found.boxes),
        found.classes,
        found.scores.astype(np.float64),
    )
    missed, wrong = _errors(image)
    objects = int((~image.ignored).sum())
    parts = [f"found {objects - len(missed)} of {objects}"] if objects else ["nothing to find"]
    parts += [f"{name} {in_words(part, labels)}" for name, part in (("missed", missed), ("wrong", wrong)) if len(part)]
    return "; ".join(parts)


def _errors(image: ImageResult) -> tuple[np.ndarray, np.ndarray]:
    """Classes of the objects that are not found, and of the detections that are wrong."""
    order = ranked(image, len(image.scores))
    partners = pair(image, order, IOU)
    missed = ~image.ignored
    missed[partners[partners >= 0]] = False
    return image.classes[missed], image.found_classes[order][partners == WRONG]
