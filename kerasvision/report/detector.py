"""The numbers of a detector: what metrics.json holds of them, and the rows and charts that the page shows."""

import dataclasses
import math
from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np
from markupsafe import Markup

from kerasvision.detection import DetectionMetrics, Operating, PrecisionRecall
from kerasvision.detection.breakdown import ERRORS, break_down
from kerasvision.detection.results import ImageResult, Regions
from kerasvision.report import charts

POINTS = 100
SMALL_CLASS = 20
_SHARES = ("f1", "precision", "recall")
_MEANINGS = {
    "classification": "an object is found, as another class",
    "localisation": "the box of an object fits badly (IoU below 0.5)",
    "both": "another class, and a box that fits badly",
    "duplicate": "an object is found a second time",
    "background": "there is nothing",
    "missed": "nothing has come near the object",
}


def working_point(curves: Mapping[str, PrecisionRecall]) -> Operating | None:
    """Where F1 over the objects of all classes is highest, with one score for all; None where nothing is right.

    Args:
        curves: of every class.
    """
    parts = list(curves.values())
    right = [np.diff(np.rint(each.precision * np.arange(1, len(each.scores) + 1)), prepend=0.0) > 0 for each in parts]
    scores = np.concatenate([each.scores for each in parts])
    return PrecisionRecall.of(scores, np.concatenate(right), sum(each.objects for each in parts)).best()


def detector_facts(metrics: DetectionMetrics) -> dict[str, Any]:
    """Curves and errors of a detector on a data set, in types that JSON knows, without NaN.

    Args:
        metrics: of the whole set.

    Returns:
        - "working_point": {"score", "f1", "precision", "recall"} of `working_point`, or None.
        - "right": detections from that score on that are right; of all where there is no such score.
        - "errors": kind -> {"count": from that score on, "all": of all detections, "cost": how much higher AP50 would
          be without them, 0..1}.
        - "classes": label -> {"objects", "AP50", "best": its own working point, "curve": {"score", "precision",
          "recall"}, at most 100 points}; what cannot be said is None.
    """
    curves = metrics.curves()
    point = working_point(curves)
    most = metrics.max_detections[-1]
    used = metrics.images if point is None else [above(image, point.score) for image in metrics.images]
    counts, every = break_down(used, metrics.labels, max_detections=most).counts, metrics.breakdown()
    objects = sum(curve.objects for curve in curves.values())
    return {
        "working_point": _point(point),
        "right": 0 if point is None else round(point.recall * objects),
        "errors": {
            kind: {"count": counts[kind], "all": every.counts[kind], "cost": _number(every.costs[kind])}
            for kind in ERRORS
        },
        "classes": {
            label: {
                "objects": curve.objects,
                "AP50": _number(curve.average_precision()),
                "best": _point(curve.best()),
                "curve": _thinned(curve),
            }
            for label, curve in curves.items()
        },
    }


def above(image: ImageResult, score: float) -> ImageResult:
    """An image with those of its detections that have at least a score."""
    kept = np.flatnonzero(image.scores >= score)
    values = image.found.values
    chosen = values[kept] if isinstance(values, np.ndarray) else [values[index] for index in kept]
    found = Regions(chosen, image.found.areas[kept])
    return dataclasses.replace(image, found=found, found_classes=image.found_classes[kept], scores=image.scores[kept])


def _thinned(curve: PrecisionRecall) -> dict[str, list[float]]:
    """The points at which one more object is found, evenly spread over the recall."""
    found = np.flatnonzero(np.diff(curve.recall, prepend=0.0) > 0)
    if len(found) > POINTS:
        found = found[np.linspace(0, len(found) - 1, POINTS).round().astype(int)]
    parts = {"score": curve.scores, "precision": curve.precision, "recall": curve.recall}
    return {name: np.round(values[found], 4).tolist() if curve.objects else [] for name, values in parts.items()}


def _point(point: Operating | None) -> dict[str, float] | None:
    if point is None:
        return None
    # The score is exact: those of an untrained net differ in their last digits.
    return {"score": point.score, **{name: round(getattr(point, name), 5) for name in _SHARES}}


def _number(value: float) -> float | None:
    return round(float(value), 5) if math.isfinite(value) else None


def kinds_of(facts: Mapping[str, Any]) -> list[str]:
    """Which models there are facts of: "float", and "quantized" where there is one."""
    return [kind for kind in ("float", "quantized") if kind in facts]


def error_rows(facts: Mapping[str, Any]) -> list[dict[str, Any]]:
    """Each kind of error: {"kind", "meaning", "cells": for each model (count, cost, length of the bar in 0..1)}.

    Args:
        facts: "detection" of metrics.json.
    """
    kinds = kinds_of(facts)
    costs = [facts[kind]["errors"][error]["cost"] or 0.0 for kind in kinds for error in ERRORS]
    largest = max(costs) or 1.0
    return [
        {
            "kind": error.capitalize(),
            "meaning": _MEANINGS[error],
            "cells": [
                (errors["count"], errors["cost"], (errors["cost"] or 0.0) / largest)
                for errors in (facts[kind]["errors"][error] for kind in kinds)
            ],
        }
        for error in ERRORS
    ]


def class_rows(facts: Mapping[str, Any], figures: Mapping[str, Any], most: int) -> list[dict[str, Any]]:
    """One row for each class; where there are many, those of the lowest AP first, and those that never occur last.

    Args:
        facts: "detection" of metrics.json.
        figures: "metrics" of metrics.json.
        most: classes that stay in their order.

    Returns:
        {"label", "objects", "AP50", "best", "cells": the AP of each model}; None for what is not known.
    """
    kinds = kinds_of(facts)
    rows = [
        {
            "label": label,
            "objects": known["objects"],
            "AP50": known["AP50"],
            "best": known["best"],
            "cells": [(figures.get(kind) or {}).get(f"AP/{label}") for kind in kinds],
        }
        for label, known in facts["float"]["classes"].items()
    ]
    if len(rows) > most:
        rows.sort(key=lambda row: 2.0 if row["cells"][0] is None else row["cells"][0])
    return rows


def recall_chart(facts: Mapping[str, Any]) -> tuple[Markup, int]:
    """Precision over recall of the float model, a line for each class; at most eight, those of the lowest AP50.

    Args:
        facts: "detection" of metrics.json.

    Returns:
        An <svg> element, and how many classes it has no line for.
    """
    classes = facts["float"]["classes"]
    known = {label: each for label, each in classes.items() if each["curve"]["recall"]}
    shown: Sequence[str] = sorted(known, key=lambda label: known[label]["AP50"])[: charts.COLOURS]
    curves = {
        label: (each["curve"]["recall"], each["curve"]["precision"]) for label, each in known.items() if label in shown
    }
    marks = {
        label: (each["best"]["recall"], each["best"]["precision"])
        for label, each in known.items()
        if label in shown and each["best"]
    }
    return charts.share_chart("Precision over recall", curves, marks, ("recall", "precision")), len(known) - len(shown)


def rare_classes(facts: Mapping[str, Any]) -> list[str]:
    """Classes with so few objects that their AP says little, such as "Platelets (12)"."""
    classes = facts["float"]["classes"].items()
    return [f"{label} ({known['objects']})" for label, known in classes if 0 < known["objects"] < SMALL_CLASS]
