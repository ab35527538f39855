"""report.html from a run folder: reads what the run wrote, and fills the template."""

import datetime
import json
import os
import re
from collections.abc import Iterable, Mapping, Sequence
from pathlib import Path
from typing import Any

import jinja2
import numpy as np
from markupsafe import Markup

import kerasvision
from kerasvision.errors import ArtifactError
from kerasvision.files import write_text
from kerasvision.report import charts, detector, segmenter, tables
from kerasvision.report.detector_examples import DetectorExample, show_example
from kerasvision.report.examples import ReportExample, thumbnail
from kerasvision.report.segmenter import SegmenterExample, show_maps

METRICS, RECIPE, REPORT = "metrics.json", "recipe.yaml", "report.html"
SHOWN_LABELS = 3
# Figures of detectors and segmenters that share a chart: its title, and what their names look like.
_TOGETHER = {
    "average precision": r"AP(50|75)?",
    "AP by class": r"AP/.+",
    "AP by size of the object": r"AP_\w+",
    "recall (AR)": r"AR\d+",
    "average precision of masks": r"mask_AP(50|75)?",
    "mean overlap and accuracy": r"mIoU|Dice|mean_accuracy|boundary_F1|frequency_weighted_IoU|foreground_Dice",
    "IoU by class": r"IoU/.+",
    "Dice by class": r"Dice/.+",
    "F1 of the outlines by class": r"boundary_F1/.+",
    "objects": r"object_.+",
}


def write_report(
    run_dir: str | os.PathLike[str],
    examples: Iterable[ReportExample] | Iterable[DetectorExample] | Iterable[SegmenterExample] = (),
) -> Path:
    """Writes report.html into a run folder: one page that holds everything and loads nothing.

    Args:
        run_dir: a run folder with metrics.json; recipe.yaml is shown where it is there.
        examples: what `make_examples`, `choose_images` or `choose_maps` chose; without them the page has no pictures.

    Returns:
        The page's path.

    Raises:
        ArtifactError: there is no metrics.json, or it is damaged.
    """
    run_dir = Path(run_dir)
    metrics = read_metrics(run_dir)
    page = render(
        metrics, _recipe(run_dir), list(examples), run_dir.resolve().name, metrics.get("date") or _date(run_dir)
    )
    path = run_dir / REPORT
    write_text(path, page)
    return path


def read_metrics(run_dir: Path) -> dict[str, Any]:
    """The content of a run folder's metrics.json.

    Raises:
        ArtifactError: there is none, or it is damaged.
    """
    path = run_dir / METRICS
    if not path.exists():
        raise ArtifactError(
            f"{run_dir} is not a finished run: it has no {METRICS}. Run `kerasvision train` again to finish it."
        )
    try:
        return json.loads(path.read_text("utf-8"))
    except (json.JSONDecodeError, UnicodeDecodeError) as error:
        raise ArtifactError(f"{path} is damaged: {error}. Train again, or restore the file.") from error


def write_metrics(run_dir: Path, metrics: Mapping[str, Any]) -> None:
    """Write a run folder's metrics.json: indented for people, but with every list of numbers on one line.

    Args:
        run_dir: the run folder.
        metrics: the content, without NaN.
    """
    text = json.dumps(metrics, indent=2, ensure_ascii=False, allow_nan=False)
    # In JSON no string holds a line break as such.
    text = re.sub(r"\[\n[-+\d.eE,\s]+\]", lambda found: f"[{' '.join(found[0][1:-1].split())}]", text)
    write_text(run_dir / METRICS, text + "\n")


def environment() -> jinja2.Environment:
    """Where the templates of the pages come from; what they print is escaped."""
    return jinja2.Environment(
        loader=jinja2.PackageLoader("kerasvision.report"),
        autoescape=True,
        trim_blocks=True,
        lstrip_blocks=True,
        undefined=jinja2.StrictUndefined,
    )


def render(
    metrics: Mapping[str, Any],
    recipe: str,
    examples: Sequence[ReportExample | DetectorExample | SegmenterExample],
    name: str,
    date: str,
) -> str:
    """The page as HTML.

    Args:
        metrics: content of metrics.json.
        recipe: content of recipe.yaml, or "".
        examples: what to show in pictures.
        name: the run's name.
        date: when the run ended.
    """
    labels = [str(label) for label in metrics["labels"]]
    classification = metrics.get("classification") or {}
    matrix = classification.get("confusion_matrix")
    segmentation = metrics.get("segmentation")
    training = metrics.get("training") or {}
    figures = metrics.get("metrics") or {}
    return (
        environment()
        .get_template("report.html.j2")
        .render(
            name=name,
            date=date,
            version=metrics.get("kerasvision", kerasvision.__version__),
            model=metrics["model"],
            task=metrics["task"],
            environment=metrics.get("environment") or {},
            parameters=metrics.get("parameters"),
            labels=labels,
            split=figures.get("split", "test"),
            cards=tables.cards(metrics),
            figures=tables.figure_rows(figures),
            warnings=tables.warnings(metrics),
            exports=tables.export_rows(metrics.get("exports") or []),
            details=tables.export_details(metrics.get("exports") or []),
            training=training,
            curves=_curves(training.get("history") or {}),
            head_curves=_curves(training.get("head_history") or {}),
            qat_curves=_curves(training.get("qat_history") or {}),
            confusion=_confusion(metrics, labels),
            classes=tables.class_rows(np.array(matrix), labels) if matrix else None,
            detector=_detector(metrics["detection"], figures) if "detection" in metrics else None,
            segmenter=_segmenter(segmentation, figures, labels) if segmentation else None,
            samples=[_shown(example, labels) for example in examples if not example.mistake],
            mistakes=[_shown(example, labels) for example in examples if example.mistake],
            data=metrics.get("data") or {},
            skipped=tables.skipped(metrics.get("data") or {}),
            recipe=recipe,
            bar=charts.bar,
            percent=tables.percent,
        )
    )


def _recipe(run_dir: Path) -> str:
    path = run_dir / RECIPE
    return path.read_text("utf-8") if path.exists() else ""


def _date(run_dir: Path) -> str:
    written = datetime.datetime.fromtimestamp((run_dir / METRICS).stat().st_mtime, datetime.timezone.utc)
    return written.strftime("%Y-%m-%d %H:%M UTC")


def _detector(facts: Mapping[str, Any], figures: Mapping[str, Any]) -> dict[str, Any]:
    """What only a detector's page shows; see `kerasvision.report.detector`."""
    chart, left_out = detector.recall_chart(facts)
    kinds = detector.kinds_of(facts)
    return {
        "kinds": kinds,
        "points": [(kind, facts[kind]["working_point"], facts[kind]["right"]) for kind in kinds],
        "objects": sum(each["objects"] for each in facts["float"]["classes"].values()),
        "image_size": facts["image_size"],
        "classes": detector.class_rows(facts, figures, tables.LARGEST_TABLE),
        "errors": detector.error_rows(facts),
        "chart": chart,
        "left_out": left_out,
    }


def _confusion(metrics: Mapping[str, Any], labels: Sequence[str]) -> dict[str, Any] | None:
    """Of the images of a classifier, or the pixels of a segmenter."""
    if "segmentation" in metrics:
        return tables.confusion(np.array(metrics["segmentation"]["float"]["confusion_matrix"]), labels, "pixels")
    matrix = (metrics.get("classification") or {}).get("confusion_matrix")
    return tables.confusion(np.array(matrix), labels) if matrix else None


def _segmenter(facts: Mapping[str, Any], figures: Mapping[str, Any], labels: Sequence[str]) -> dict[str, Any]:
    """What only a segmenter's page shows; see `kerasvision.report.segmenter`."""
    rows = segmenter.class_rows(facts, figures, labels, tables.LARGEST_TABLE)
    return {"kinds": [kind for kind in ("float", "quantized") if kind in facts], "classes": rows}


def _curves(history: Mapping[str, Sequence[float]]) -> list[tuple[str, Markup]]:
    """One chart for each quantity, training and validation in it together; the loss first, then average precision."""
    names = {key.removeprefix("val_") for key in history}
    groups = [(title, [name for name in names if re.fullmatch(form, name)]) for title, form in _TOGETHER.items()]
    grouped = {name for _, members in groups for name in members}
    charts_of = {title: charts.line_chart(title, _together(members, history)) for title, members in groups}
    single = sorted(names - grouped, key=lambda name: (name != "loss", name))
    for name in single:
        pair = {"training": history.get(name), "validation": history.get(f"val_{name}")}
        series = {which: values for which, values in pair.items() if values}
        if not _doubles_loss(name, history):
            charts_of[name.replace("_", " ")] = charts.line_chart(
                name.replace("_", " "), series if len(series) > 1 else {name: next(iter(series.values()), [])}
            )
    curves = [(title, chart) for title, chart in charts_of.items() if chart]
    return sorted(curves, key=lambda curve: curve[0] != "loss")


def _together(names: Sequence[str], history: Mapping[str, Sequence[float]]) -> dict[str, Sequence[float]]:
    """The validation's values of figures that share a chart; of many classes those that end lowest."""
    known = {name: history[f"val_{name}"] for name in sorted(names, key=_by_number) if f"val_{name}" in history}
    lowest = sorted(known, key=lambda name: known[name][-1])[: charts.COLOURS]
    return {_in_chart(name): values for name, values in known.items() if name in lowest}


def _in_chart(name: str) -> str:
    """What a figure is called beside others of its chart: of "AP/cat" and "AP_small" what follows."""
    if "/" in name:
        return name.split("/", 1)[1]
    return re.sub(r"^(A[PR]|mask|object)_", "", name).replace("_", " ")


def _by_number(name: str) -> tuple[str, int]:
    """Sorts AR1, AR10, AR100 by their numbers."""
    return re.sub(r"\d+", "", name), int("".join(re.findall(r"\d+", name)) or 0)


def _doubles_loss(name: str, history: Mapping[str, Sequence[float]]) -> bool:
    """A task's only named loss is the loss itself: the same curve twice would be noise."""
    return name != "loss" and list(history.get(name, [])) == list(history.get("loss", [None]))


def _shown(example: ReportExample | DetectorExample | SegmenterExample, labels: Sequence[str]) -> dict[str, Any]:
    if isinstance(example, SegmenterExample):
        return show_maps(example, labels)
    return show_example(example, labels) if isinstance(example, DetectorExample) else _picture(example, labels)


def _picture(example: ReportExample, labels: Sequence[str]) -> dict[str, Any]:
    truth = [labels[index] for index in example.truth]
    opinions = [("float", _ranked(example.scores, labels, truth))]
    if example.quantized_scores is not None:
        opinions.append(("quantized", _ranked(example.quantized_scores, labels, truth)))
    return {
        "source": thumbnail(example.image),
        "alt": f"Image of {', '.join(truth) or 'no class'}",
        "truth": ", ".join(truth) or "none",
        "opinions": opinions,
        "file": Path(example.image).name if isinstance(example.image, str) else "",
    }


def _ranked(scores: np.ndarray, labels: Sequence[str], truth: Sequence[str]) -> list[tuple[str, float, str]]:
    best = np.argsort(-np.asarray(scores), kind="stable")[:SHOWN_LABELS]
    first = max(len(truth), 1)
    return [
        (
            labels[index],
            float(scores[index]),
            "good" if labels[index] in truth else "bad" if place < first else "neutral",
        )
        for place, index in enumerate(best)
    ]
