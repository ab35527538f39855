"""report.html from a run folder: reads what the run wrote, and fills the template."""

import datetime
import json
import os
from collections.abc import Iterable, Mapping, Sequence
from pathlib import Path
from typing import Any

import jinja2
import numpy as np
from markupsafe import Markup

import kerasvision
from kerasvision.errors import ArtifactError
from kerasvision.files import write_text
from kerasvision.report import charts, tables
from kerasvision.report.examples import ReportExample, thumbnail

METRICS, RECIPE, REPORT = "metrics.json", "recipe.yaml", "report.html"
SHOWN_LABELS = 3


def write_report(run_dir: str | os.PathLike[str], examples: Iterable[ReportExample] = ()) -> Path:
    """Writes report.html into a run folder: one page that holds everything and loads nothing.

    Args:
        run_dir: a run folder with metrics.json; recipe.yaml is shown where it is there.
        examples: what `make_examples` chose; without them the page has no pictures.

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


def environment() -> jinja2.Environment:
    """Where the templates of the pages come from; what they print is escaped."""
    return jinja2.Environment(
        loader=jinja2.PackageLoader("kerasvision.report"),
        autoescape=True,
        trim_blocks=True,
        lstrip_blocks=True,
        undefined=jinja2.StrictUndefined,
    )


def render(metrics: Mapping[str, Any], recipe: str, examples: Sequence[ReportExample], name: str, date: str) -> str:
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
            confusion=tables.confusion(np.array(matrix), labels) if matrix else None,
            classes=tables.class_rows(np.array(matrix), labels) if matrix else None,
            samples=[_picture(example, labels) for example in examples if not example.mistake],
            mistakes=[_picture(example, labels) for example in examples if example.mistake],
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


def _curves(history: Mapping[str, Sequence[float]]) -> list[tuple[str, Markup]]:
    """One chart for each quantity, training and validation in it together; the loss first."""
    names = sorted({key.removeprefix("val_") for key in history}, key=lambda name: (name != "loss", name))
    curves = []
    for name in names:
        pair = {"training": history.get(name), "validation": history.get(f"val_{name}")}
        series = {which: values for which, values in pair.items() if values}
        chart = charts.line_chart(
            name.replace("_", " "), series if len(series) > 1 else {name: next(iter(series.values()), [])}
        )
        if chart and not _doubles_loss(name, history):
            curves.append((name.replace("_", " "), chart))
    return curves


def _doubles_loss(name: str, history: Mapping[str, Sequence[float]]) -> bool:
    """A task's only named loss is the loss itself: the same curve twice would be noise."""
    return name != "loss" and list(history.get(name, [])) == list(history.get("loss", [None]))


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
