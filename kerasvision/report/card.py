"""model_card.md: what the model is for, what it learned from, what was measured, and where it ends."""

import os
from pathlib import Path
from typing import Any

import jinja2
import numpy as np

from kerasvision.files import write_text
from kerasvision.recipe import load_recipe
from kerasvision.report import tables
from kerasvision.report.page import RECIPE, read_metrics

CARD = "model_card.md"
WEAKEST = 3


def write_card(run_dir: str | os.PathLike[str]) -> Path:
    """Write model_card.md into a run folder (Mitchell et al., 2019, arXiv:1810.03993).

    Args:
        run_dir: a finished run folder, with metrics.json and recipe.yaml.

    Returns:
        The card's path.

    Raises:
        ArtifactError: there is no metrics.json, or it is damaged.
        RecipeError: recipe.yaml is missing or damaged.
    """
    run_dir = Path(run_dir)
    metrics = read_metrics(run_dir)
    environment = jinja2.Environment(
        loader=jinja2.PackageLoader("kerasvision.report"),
        autoescape=False,  # Markdown.
        trim_blocks=True,
        lstrip_blocks=True,
        undefined=jinja2.StrictUndefined,
        keep_trailing_newline=True,
    )
    exports = tables.export_rows(metrics["exports"])
    best = tables.int8_file(metrics["exports"]) or tables.float_reference(metrics["exports"])
    name = run_dir.resolve().name
    text = environment.get_template("model_card.md.j2").render(
        name=name,
        model=metrics["model"],
        task=metrics["task"],
        parameters=metrics["parameters"],
        version=metrics["kerasvision"],
        date=metrics["date"],
        labels=metrics["labels"],
        signature=_input(metrics),
        weights=load_recipe(run_dir / RECIPE).model.weights,
        data=metrics["data"],
        split=metrics["metrics"]["split"],
        figures=tables.figure_rows(metrics["metrics"]),
        percent=tables.percent,
        primary=next((row["metric_name"] for row in exports if row["metric_name"]), "metric"),
        weakest=_weakest(metrics),
        point=metrics["detection"]["float"]["working_point"] if "detection" in metrics else None,
        exports=exports,
        best=f"exports/{Path(best['path']).name}" if best else "model.keras",
    )
    path = run_dir / CARD
    write_text(path, text)
    return path


def _input(metrics: dict[str, Any]) -> str:
    """Shapes of the files' inputs, such as "[1, 28, 28, 1] float32 or uint8"."""
    inputs = [report["signature"]["inputs"]["image"] for report in metrics["exports"]]
    kinds = " or ".join(dict.fromkeys(spec["dtype"] for spec in inputs))
    return f"{inputs[0]['shape']} {kinds}" if inputs else "[B, H, W, C]"


def _weakest(metrics: dict[str, Any]) -> str:
    """The classes of the lowest F1, AP of a detector or IoU of a segmenter, such as "shirt (F1 0.80)"."""
    if figure := {"detection": "AP", "segmentation": "IoU"}.get(metrics["task"]):
        known = {key: value for key, value in metrics["metrics"]["float"].items() if key.startswith(f"{figure}/")}
        lowest = sorted(known, key=lambda key: known[key])[: WEAKEST if len(known) > WEAKEST else 1]
        named = [(key.removeprefix(f"{figure}/"), tables.percent(known[key], 1)) for key in lowest]
        return ", ".join(f"{label} ({figure} {value})" for label, value in named)
    matrix = (metrics.get("classification") or {}).get("confusion_matrix")
    if not matrix:
        return ""
    rows = [row for row in tables.class_rows(np.array(matrix), metrics["labels"]) if row["f1"] is not None]
    rows.sort(key=lambda row: row["f1"])
    return ", ".join(f"{row['label']} (F1 {row['f1']:.2f})" for row in rows[:WEAKEST])
