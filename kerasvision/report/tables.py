"""The numbers of a report, as rows that the template only has to print."""

import re
from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np

from kerasvision.report import charts
from kerasvision.report.detector import rare_classes

NOTHING = "\N{EN DASH}"
LARGEST_TABLE = 20
SMALL_SPLIT = 100
LOST_POINTS = 1.0
CONFUSED_PAIRS = 15

_NAMES = {
    "mAP": "mAP",
    "auc": "AUC",
    "macro_f1": "Macro F1",
    "top5_accuracy": "Top-5 accuracy",
    "class_f1": "Class F1",
    "mIoU": "mIoU",
    "frequency_weighted_IoU": "Frequency-weighted IoU",
    "boundary_F1": "Outline F1",
    "foreground_Dice": "Dice of all objects",
    "object_F1": "Object F1",
    "object_AP": "Object AP",
}


def percent(value: float | None, digits: int = 2) -> str:
    """0.98333 -> "98.33 %"; an en dash where there is no value."""
    return NOTHING if value is None else f"{100 * value:.{digits}f} %"


def size(count: int | None) -> str:
    """Bytes for people: 57 kB, 9.2 MB (decimal units)."""
    if count is None:
        return NOTHING
    if count < 1000:
        return f"{count} B"
    return f"{count / 1000:.3g} kB" if count < 999_500 else f"{count / 1e6:.3g} MB"


def milliseconds(value: float | None) -> str:
    """A latency for people: 43 µs, 5.21 ms, 1,250 ms."""
    if value is None:
        return NOTHING
    if value < 0.9995:
        return f"{1000 * value:.3g} µs"
    return f"{value:.3g} ms" if value < 999.5 else f"{value:,.0f} ms"


def metric_name(key: str) -> str:
    """A metric's key as a heading."""
    if precision := re.fullmatch(r"(mask_)?(A[PR]\d*)([_/](.*))?", key):
        masks, name, _, which = precision.groups()
        return f"{'Mask ' if masks else ''}{name}{f', {which}' if which else ''}"
    name, _, label = key.partition("/")
    shown = _NAMES.get(name, name if name == "IoU" else name.replace("_", " ").capitalize())
    return f"{shown}, {label}" if label else shown


def primary(figures: Mapping[str, Any]) -> str | None:
    """The metric that stands for all: accuracy, else mAP, else the first."""
    return next(iter(headlines(figures.get("float") or {})), None)


def headlines(known: Mapping[str, Any]) -> list[str]:
    """The metrics that stand for all, the most important one first; what finds objects has two."""
    if "AP" in known:
        return ["AP", *(["AP50"] if "AP50" in known else [])]
    if "mIoU" in known:
        return ["mIoU", *(["object_F1"] if "object_F1" in known else [])]
    return [key for key in ("accuracy", "mAP", *list(known)[:1]) if key in known][:1]


def float_reference(exports: Sequence[Mapping[str, Any]]) -> Mapping[str, Any] | None:
    """The float TFLite file, to which the others are compared; else the first float export with one file."""
    floats = [report for report in exports if report["quantization"] == "none"]
    return next((report for report in floats if report["format"] == "tflite"), next(iter(floats), None))


def int8_file(exports: Sequence[Mapping[str, Any]]) -> Mapping[str, Any] | None:
    """The int8 TFLite file a run is about: from QAT, else by calibration."""
    files = [report for report in exports if report["format"] == "tflite"]
    return next((report for kind in ("qat", "int8") for report in files if report["quantization"] == kind), None)


def cards(metrics: Mapping[str, Any]) -> list[dict[str, str]]:
    """Headline numbers: {"title", "value", "note"}."""
    figures, exports = metrics.get("metrics") or {}, metrics.get("exports") or []
    int8, result = int8_file(exports), []
    for key in headlines(figures.get("float") or {}):
        value = figures["float"][key]
        result.append({"title": f"{metric_name(key)}, float", "value": percent(value), "note": _count_note(metrics)})
        # The file on the disk counts; the fake-quantized model is only its forecast.
        measured = (int8 or {}).get("metrics") or figures.get("quantized") or {}
        if measured.get(key) is not None:
            title = (
                f"{metric_name(key)}, int8 file" if int8 and int8.get("metrics") else f"{metric_name(key)}, quantized"
            )
            note = f"{100 * (measured[key] - value):+.2f} points against float"
            result.append({"title": title, "value": percent(measured[key]), "note": note})
    reference = float_reference(exports)
    if int8:
        note = f"{int8['size_bytes'] / reference['size_bytes']:.2f} of the float file" if reference else "TFLite"
        result.append({"title": "int8 file", "value": size(int8["size_bytes"]), "note": note})
        floats = int8.get("float_ops") or []
        note = f"of {sum(int8['ops'].values())} ops" if int8.get("ops") else ""
        result.append({"title": "Float ops in int8 file", "value": str(len(floats)), "note": note})
        if int8.get("latency"):
            result.append({"title": "int8 latency", **_latency_card(int8["latency"])})
    return result


def _latency_card(latency: Mapping[str, Any]) -> dict[str, str]:
    threads = f", {latency['threads']} threads" if latency.get("threads") else ""
    note = f"median of {latency['runs']} runs{threads}"
    return {"value": milliseconds(latency["median_ms"]), "note": note}


def _count_note(metrics: Mapping[str, Any]) -> str:
    split = (metrics.get("metrics") or {}).get("split", "test")
    count, objects = (metrics.get("data") or {}).get(split), _objects(metrics)
    if not count:
        return f"{split} split"
    return f"{count:,} {split} images" + ("" if objects is None else f", {objects:,} objects")


def _objects(metrics: Mapping[str, Any]) -> int | None:
    """Objects that a detector was to find; None for other tasks."""
    if "detection" not in metrics:
        return None
    return sum(each["objects"] for each in metrics["detection"]["float"]["classes"].values())


def figure_rows(figures: Mapping[str, Any]) -> list[tuple[str, float, float | None]]:
    """Every metric of all classes together: (name, float model, quantized model or None)."""
    quantized = figures.get("quantized") or {}
    return [
        (metric_name(key), value, quantized.get(key))
        for key, value in (figures.get("float") or {}).items()
        if "/" not in key
    ]


def export_rows(exports: Sequence[Mapping[str, Any]]) -> list[dict[str, Any]]:
    """One row for each exported file."""
    reference = float_reference(exports)
    rows = []
    for report in exports:
        figures = report.get("metrics") or {}
        shown = headlines(figures)
        latency = report.get("latency") or {}
        rows.append(
            {
                "file": str(report["path"]).rstrip("/").split("/")[-1],
                "format": report["format"],
                "quantization": report["quantization"],
                "size": size(report["size_bytes"]),
                "zip": size(report["zip_bytes"]) if report.get("zip_bytes") else NOTHING,
                "ratio": f"{report['size_bytes'] / reference['size_bytes']:.2f}" if reference else NOTHING,
                "metric": _percents([figures[name] for name in shown]),
                "metric_name": " / ".join(metric_name(name) for name in shown),
                "median": milliseconds(latency.get("median_ms")),
                "p90": milliseconds(latency.get("p90_ms")),
                "ops": sum(report["ops"].values()) if report.get("ops") else None,
                "float_ops": len(report.get("float_ops") or []) if report.get("ops") else None,
                "integer": report["quantization"] in ("int8", "int16x8", "qat"),
            }
        )
    return rows


def _percents(values: Sequence[float]) -> str:
    """One value as a percentage, two in short: "44.5 / 66.0 %"."""
    if len(values) < 2:
        return percent(next(iter(values), None))
    return f"{' / '.join(f'{100 * value:.1f}' for value in values)} %"


def export_details(exports: Sequence[Mapping[str, Any]]) -> list[dict[str, Any]]:
    """What stands below the table for each file: parity, ops, float ops, islands."""
    return [
        {
            "file": str(report["path"]).rstrip("/").split("/")[-1],
            "parity": [
                {"output": output, **_parity(values)} for output, values in (report.get("parity") or {}).items()
            ],
            "samples": report.get("samples"),
            "synthetic": report.get("samples_source") == "synthetic",
            "ops": sorted((report.get("ops") or {}).items(), key=lambda item: (-item[1], item[0])),
            "float_ops": [
                " ".join(str(op[key]) for key in ("op", "tensor", "layer") if op.get(key))
                for op in report.get("float_ops") or []
            ],
            "islands": list(report.get("islands") or []),
        }
        for report in exports
    ]


def _parity(values: Mapping[str, Any]) -> dict[str, str]:
    lsb = values.get("lsb") or {}
    return {
        key: f"{values[key]:.2g}" + (f" ({lsb[key]:.2g} LSB)" if lsb else "")
        if values.get(key) is not None
        else NOTHING
        for key in ("max", "mean", "p99")
    }


def confusion(matrix: np.ndarray, labels: Sequence[str], unit: str = "images") -> dict[str, Any]:
    """A table with numbers up to 20 classes, an image above; and the most frequent confusions.

    Args:
        matrix: counts [K, K], rows true, columns predicted.
        labels: K names.
        unit: what is counted; of anything but images, which are few, the table shows shares.
    """
    shares = charts.row_shares(matrix)
    wrong = matrix.copy()
    np.fill_diagonal(wrong, 0)
    order = np.argsort(-wrong, axis=None, kind="stable")[:CONFUSED_PAIRS]
    pairs = [(int(true), int(guess)) for true, guess in zip(*np.unravel_index(order, wrong.shape), strict=True)]
    small = len(labels) <= LARGEST_TABLE
    return {
        "unit": unit,
        "rows": [
            (
                labels[true],
                [(int(matrix[true, guess]), float(shares[true, guess]), true == guess) for guess in range(len(labels))],
            )
            for true in range(len(labels))
        ]
        if small
        else [],
        "image": None if small else charts.heat_image(shares, f"Confusion matrix of {len(labels)} classes"),
        "pairs": [
            (labels[true], labels[guess], int(wrong[true, guess]), float(shares[true, guess]))
            for true, guess in pairs
            if wrong[true, guess]
        ],
    }


def class_rows(matrix: np.ndarray, labels: Sequence[str]) -> list[dict[str, Any]]:
    """Precision, recall, F1 and number of images of each class; beyond 20 classes the worst ones first."""
    right = np.diag(matrix)
    predicted, present = matrix.sum(axis=0), matrix.sum(axis=1)
    rows = []
    for index, label in enumerate(labels):
        precision = float(right[index] / predicted[index]) if predicted[index] else None
        recall = float(right[index] / present[index]) if present[index] else None
        total = predicted[index] + present[index]
        f1 = float(2 * right[index] / total) if total else None
        rows.append({"label": label, "precision": precision, "recall": recall, "f1": f1, "images": int(present[index])})
    if len(labels) > LARGEST_TABLE:
        rows.sort(key=lambda row: 2.0 if row["f1"] is None else row["f1"])
    return rows


def skipped(data: Mapping[str, Any]) -> list[str]:
    """The files a run left out, with the reason."""
    return [
        f"{entry.get('path')}: {entry.get('reason')}" if isinstance(entry, Mapping) else str(entry)
        for entry in data.get("skipped") or []
    ]


def warnings(metrics: Mapping[str, Any]) -> list[str]:
    """What a reader should know before trusting the numbers."""
    found = [str(warning) for warning in metrics.get("warnings") or []]
    figures, data = metrics.get("metrics") or {}, metrics.get("data") or {}
    split = figures.get("split", "test")
    count = data.get(split)
    if split == "validation":
        found.append("There is no test split: the figures are of the validation images that training was steered by.")
    objects = _objects(metrics)
    if count and count < SMALL_SPLIT and "segmentation" in metrics:
        found.append(f"Only {count} {split} images: another {count} may give other figures.")
    elif count and count < SMALL_SPLIT and objects is None:
        found.append(f"Only {count} {split} images: one image is {100 / count:.1f} points of accuracy.")
    elif count and count < SMALL_SPLIT:
        found.append(f"Only {count} {split} images with {objects:,} objects: another {count} may give other figures.")
    if objects is not None and (rare := rare_classes(metrics["detection"])):
        found.append(f"So few objects that the AP of the class says little: {', '.join(rare)}.")
    if data.get("skipped"):
        found.append(f"{len(data['skipped'])} unusable files were left out of the data; they are listed below.")
    key = primary(figures)
    quantized = (figures.get("quantized") or {}).get(key)
    if key and quantized is not None and 100 * (figures["float"][key] - quantized) > LOST_POINTS:
        lost = 100 * (figures["float"][key] - quantized)
        found.append(f"Quantization cost {lost:.1f} points of {metric_name(key)}: train it longer, or with more data.")
    for report in metrics.get("exports") or []:
        file = str(report["path"]).rstrip("/").split("/")[-1]
        if report.get("samples_source") == "synthetic":
            found.append(f"{file} was compared with the model on synthetic images, not on real ones.")
        if report["quantization"] in ("int8", "int16x8", "qat") and report.get("float_ops"):
            found.append(f"{file} runs {len(report['float_ops'])} ops in float.")
    return found
