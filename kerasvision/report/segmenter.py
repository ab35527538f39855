"""What a segmenter's report shows: a row for each class, and images with the true classes beside those found."""

import dataclasses
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import numpy as np

from kerasvision.class_maps import VOID
from kerasvision.data.listing import spread
from kerasvision.draw import draw
from kerasvision.predictions import ImageSource
from kerasvision.report.examples import data_uri
from kerasvision.segmentation import SegmentationMetrics

SHOWN = 6
SIDE = 480
NAMED = 3


@dataclasses.dataclass(frozen=True, eq=False)
class SegmenterExample:
    """One image, as a net sees it, with the classes that the models found in it.

    Args:
        name: what the image is called; an array has none.
        image: [H, W, C] pixels of 0..255.
        truth: class of each pixel [H, W], 255 for void.
        found: of each model, "float" and "quantized", [H, W].
        mistake: chosen because of its errors, and not to show what is typical.
    """

    name: ImageSource
    image: np.ndarray
    truth: np.ndarray
    found: Mapping[str, np.ndarray]
    mistake: bool = False


def choose_maps(ious: Sequence[float], count: int = SHOWN) -> list[tuple[int, bool]]:
    """Images evenly spread over a split, and those whose mean IoU is lowest.

    Args:
        ious: of each image, in order; NaN for one that is void.
        count: at most so many of each sort.

    Returns:
        (index, whether chosen for its errors): the spread ones, then the worst first.
    """
    worst = [int(index) for index in np.argsort(ious, kind="stable") if ious[index] < 1][:count]
    return [*((index, False) for index in spread(len(ious), count)), *((index, True) for index in worst)]


def show_maps(example: SegmenterExample, labels: Sequence[str]) -> dict[str, Any]:
    """What the page prints: {"file", "panels": [{"title", "words", "source", "alt"}]}, the truth first.

    Args:
        example: what to show.
        labels: class names.
    """
    present = [labels[index] for index in np.unique(example.truth) if index != VOID]
    more = f" and {len(present) - NAMED} more" if len(present) > NAMED else ""
    panels = [("true", f"{', '.join(present[:NAMED]) or 'nothing but void'}{more}", example.truth)]
    for kind, found in example.found.items():
        meter = SegmentationMetrics(labels, tolerance=None)
        meter.update({"segmentation": example.truth[None]}, {"classes": found[None]})
        figures = meter.result()
        words = "nothing to compare with"
        if figures:
            words = f"mIoU {100 * figures['mIoU']:.1f} %, {100 * figures['pixel_accuracy']:.1f} % of the pixels right"
        panels.append((kind, words, found))
    return {
        "file": Path(example.name).name if isinstance(example.name, str) else "",
        "panels": [
            {
                "title": title,
                "words": words,
                "source": data_uri(draw(example.image, labels=labels, segmentation=classes, side=SIDE)),
                "alt": f"{title}: {words}",
            }
            for title, words, classes in panels
        ],
    }


def class_rows(
    facts: Mapping[str, Any], figures: Mapping[str, Any], labels: Sequence[str], most: int
) -> list[dict[str, Any]]:
    """One row for each class; where there are many, those of the lowest IoU first, and those that never occur last.

    Args:
        facts: "segmentation" of metrics.json.
        figures: "metrics" of metrics.json.
        labels: class names.
        most: classes that stay in their order.

    Returns:
        {"label", "share": of the pixels, "precision", "recall", "outline": F1, "cells": the IoU of each model}; None
        for what is not known.
    """
    matrix = np.array(facts["float"]["confusion_matrix"])
    true, found, right = matrix.sum(axis=1), matrix.sum(axis=0), np.diag(matrix)
    single: Mapping[str, float] = figures["float"]
    rows = [
        {
            "label": label,
            "share": true[index] / max(matrix.sum(), 1),
            "precision": right[index] / found[index] if found[index] else None,
            "recall": right[index] / true[index] if true[index] else None,
            "outline": single.get(f"boundary_F1/{label}"),
            "cells": [figures[kind].get(f"IoU/{label}") for kind in ("float", "quantized") if kind in facts],
        }
        for index, label in enumerate(labels)
    ]
    if len(rows) > most:
        rows.sort(key=lambda row: 2.0 if row["cells"][0] is None else row["cells"][0])
    return rows
