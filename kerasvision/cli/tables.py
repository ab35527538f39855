"""Results as tables for a terminal."""

import re
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

from rich import box
from rich.console import Console
from rich.markup import escape
from rich.table import Table

from kerasvision.report.tables import export_rows, metric_name, milliseconds, percent, size


def table(console: Console, columns: Sequence[str], rows: Sequence[Sequence[Any]], numbers: Sequence[str] = ()) -> None:
    """Prints one table.

    Args:
        console: where to.
        columns: headings.
        rows: cells, printed as `str` gives them.
        numbers: headings of columns that stand at the right.
    """
    made = Table(box=box.SIMPLE_HEAD, pad_edge=False)
    for column in columns:
        # Numbers keep their width; long names go on in the next line.
        number = column in numbers
        made.add_column(column, justify="right" if number else "left", overflow="fold", no_wrap=number)
    for row in rows:
        made.add_row(*(escape(str(cell)) for cell in row))
    console.print(made)


def show_models(console: Console, models: Sequence[Mapping[str, Any]]) -> None:
    """`kerasvision list`."""
    rows = [
        (
            model["name"],
            ", ".join(model["tasks"]),
            "x".join(map(str, model["input_shape"])),
            "\n".join(model["weights"]) or "-",
            "\n".join(f"{weights['parameters']:,}" for weights in model["weights"].values()),
            "\n".join(
                ", ".join(f"{name} {value:.3f}" for name, value in weights["metrics"].items())
                for weights in model["weights"].values()
            ),
            "\n".join(_origin(weights["source"]) for weights in model["weights"].values()),
        )
        for model in models
    ]
    columns = ("name", "task", "input", "weights", "parameters", "measured", "source")
    table(console, columns, rows, numbers=("input", "parameters"))


def _origin(source: str) -> str:
    """The package or host that weights come from; `--json` has the whole path."""
    return source.removeprefix("https://").split("/")[0]


def show_metrics(console: Console, title: str, metrics: Mapping[str, float]) -> None:
    """`kerasvision evaluate`: every figure, in full, so that two artifacts can be compared to the digit."""
    console.print(f"[bold]{escape(title)}[/bold]")
    rows = [(metric_name(key), f"{value:.6f}") for key, value in metrics.items()]
    table(console, ("metric", "value"), rows, numbers=("value",))


def show_average_precision(
    console: Console,
    title: str,
    metrics: Mapping[str, float],
    objects: Mapping[str, int],
    image_size: tuple[int, int],
) -> None:
    """`kerasvision evaluate` of a detector: the means, by size and by class.

    Args:
        console: where to.
        title: what was measured on what.
        metrics: of `DetectionTask.metrics`.
        objects: label -> how many there are.
        image_size: (H, W) of the model's input, in whose pixels sizes are meant.
    """
    console.print(f"[bold]{escape(title)}[/bold]")
    # "AP/<label>" and "mask_AP/<label>", "AP_<size>" and "mask_AP_<size>": a row for each label and size.
    parts = {name: re.split(r"(?<=AP)[/_]", name, maxsplit=1) for name in metrics}
    means = [(name, f"{metrics[name]:.6f}") for name, part in parts.items() if len(part) == 1]
    table(console, ("metric", "value"), means, numbers=("value",))
    kinds = ["AP", *(["mask_AP"] if "mask_AP" in metrics else [])]
    titles = [kind.replace("_", " ") for kind in kinds]

    def cells(between: str, name: str) -> list[str]:
        values = [metrics.get(f"{kind}{between}{name}") for kind in kinds]
        return ["" if value is None else f"{value:.6f}" for value in values]

    labels, sizes = ([part[1] for name, part in parts.items() if name.startswith(f"AP{sign}")] for sign in "/_")
    if labels:
        rows = [(label, f"{objects.get(label, 0):,}", *cells("/", label)) for label in labels]
        table(console, ("class", "objects", *titles), rows, numbers=("objects", *titles))
    if sizes:
        table(console, ("size", *titles), [(name, *cells("_", name)) for name in sizes], numbers=titles)
        height, width = image_size
        console.print(f"Small: below 32x32 pixels of the model's input, {height}x{width}; large: above 96x96.")


def show_overlaps(console: Console, title: str, metrics: Mapping[str, float], pixels: Mapping[str, int]) -> None:
    """`kerasvision evaluate` of a segmenter: the means, and by class.

    Args:
        console: where to.
        title: what was measured on what.
        metrics: of `SegmentationTask.metrics`.
        pixels: label -> how many there are, void left out.
    """
    show_metrics(console, title, {name: value for name, value in metrics.items() if "/" not in name})
    kinds = ("IoU", "Dice", "boundary_F1")
    titles = [metric_name(kind) for kind in kinds]
    total = max(sum(pixels.values()), 1)
    rows = []
    for label, count in pixels.items():
        values = [metrics.get(f"{kind}/{label}") for kind in kinds]
        rows.append((label, percent(count / total), *("" if value is None else f"{value:.6f}" for value in values)))
    table(console, ("class", "of the pixels", *titles), rows, numbers=("of the pixels", *titles))


def show_predictions(console: Console, predictions: Mapping[str, Any], files: Sequence[Path]) -> None:
    """`kerasvision predict`: one row for each image, its best label first."""
    rows = []
    for entry in predictions["predictions"]:
        best, *others = entry["top"]
        rest = ", ".join(f"{other['label']} {percent(other['score'], 1)}" for other in others)
        rows.append((entry["image"], best["label"], percent(best["score"], 1), rest))
    table(console, ("image", "label", "score", "then"), rows, numbers=("score",))
    _show_files(console, files)


def show_detections(console: Console, detections: Mapping[str, Any], files: Sequence[Path]) -> None:
    """`kerasvision predict` of a detector: for each image how many of each class there are, and their best scores."""
    rows = []
    for entry in detections["predictions"]:
        classes: dict[str, list[float]] = {}
        for found in entry["objects"]:
            classes.setdefault(found["label"], []).append(found["score"])
        most = sorted(classes.items(), key=lambda item: -len(item[1]))
        listed = ", ".join(f"{label} {len(scores)} (best {percent(max(scores), 1)})" for label, scores in most)
        if not listed:
            best = entry["best_score"]
            listed = "nothing" if best is None else f"nothing; the best score is {percent(best, 1)}"
        rows.append((entry["image"], len(entry["objects"]), listed))
    table(console, ("image", "objects", f"found, from a score of {percent(detections['score'])}"), rows, ("objects",))
    _show_files(console, files)


def show_class_maps(console: Console, found: Mapping[str, Any], files: Sequence[Path]) -> None:
    """`kerasvision predict` of a segmenter: for each image the shares of the classes, and how many objects."""
    told_apart = any("objects" in entry for entry in found["predictions"])
    rows = []
    for entry in found["predictions"]:
        shares = ", ".join(f"{label} {percent(share, 1)}" for label, share in entry["classes"].items())
        rows.append((entry["image"], *([entry["objects"]] if told_apart else []), shares or "nothing"))
    columns = ("image", *(["objects"] if told_apart else []), "of the pixels")
    table(console, columns, rows, ("objects",))
    _show_files(console, files)


def _show_files(console: Console, files: Sequence[Path]) -> None:
    if files:
        count = len(files) - 1
        console.print(f"{count} picture{'s' * (count != 1)} and predictions.json in {escape(str(files[-1].parent))}")


def show_exports(console: Console, exports: Sequence[Mapping[str, Any]]) -> None:
    """One row for each exported file, as in the report."""
    rows = [
        (
            row["file"],
            row["quantization"],
            row["size"],
            row["zip"],
            row["ratio"],
            row["metric"],
            row["median"],
            row["ops"] or "-",
            row["float_ops"] if row["integer"] and row["float_ops"] is not None else "-",
        )
        for row in export_rows(exports)
    ]
    metric = next((row["metric_name"] for row in export_rows(exports) if row["metric_name"]), "metric")
    metric = metric.lower() if metric.istitle() else metric
    columns = ("file", "quantization", "size", "zip", "of float", metric, "latency", "ops", "float ops")
    table(console, columns, rows, numbers=columns[2:])


def show_layers(console: Console, layers: Sequence[Mapping[str, Any]]) -> None:
    """`kerasvision export --explain`: one row for each tensor, in the order of execution."""
    columns = ("tensor", "op", "range", "step", "noise", "mean LSB", "max LSB", "alone")
    rows = [
        (
            layer["tensor"].removesuffix("/output"),
            layer["op"],
            f"{layer['low']:.3g} .. {layer['high']:.3g}",
            f"{(layer['high'] - layer['low']) / 255:.2g}",
            f"{layer['noise_db']:.1f} dB",
            f"{layer['mean_lsb']:.2f}",
            f"{layer['max_lsb']:.0f}",
            "" if layer["alone_lsb"] is None else f"{layer['alone_lsb']:.0f}",
        )
        for layer in layers
    ]
    table(console, columns, rows, numbers=columns[2:])
    console.print(
        "noise: power of the float net's values over that of the error of all quantization so far; more is better.\n"
        "LSB: difference between the file and the fake-quantized net, in steps of 8 bits. alone: the largest that the\n"
        "op makes by itself, from what the file's ops before it gave; above 2, it computes something else."
    )


def show_run(console: Console, metrics: Mapping[str, Any], report: Path | None) -> None:
    """`kerasvision train` and `demo`: the figures, the files, and where the report is."""
    figures = metrics.get("metrics") or {}
    quantized = figures.get("quantized") or {}
    console.print(f"[bold]{escape(str(metrics['model']))}[/bold] on the {figures.get('split', 'test')} split")
    rows = [
        (metric_name(key), percent(value), percent(quantized.get(key)))
        for key, value in (figures.get("float") or {}).items()
    ]
    table(console, ("metric", "float", "quantized"), rows, numbers=("float", "quantized"))
    if metrics.get("exports"):
        show_exports(console, metrics["exports"])
    if report is not None:
        console.print(f"Report: {escape(str(report))}", soft_wrap=True)


def show_benchmarks(console: Console, rows: Sequence[Mapping[str, Any]]) -> None:
    """`kerasvision benchmark`."""
    cells = [
        (
            row["artifact"],
            size(row["size_bytes"]),
            milliseconds(row["median_ms"]),
            milliseconds(row["p90_ms"]),
            row["runs"],
            row["threads"] or "-",
        )
        for row in rows
    ]
    columns = ("artifact", "size", "median", "p90", "runs", "threads")
    table(console, columns, cells, numbers=columns[1:])


def show_throughput(console: Console, figures: Mapping[str, Any]) -> None:
    """`kerasvision benchmark --recipe`."""
    parts = {"reading": "reading", "pipeline": "reading and augmentation", "training": "training step"}
    cells = [(text, f"{figures[key]:,.0f}") for key, text in parts.items()]
    table(console, ("part", "images a second"), cells, numbers=("images a second",))
    if figures["starves"]:
        console.print(f"[bold red]The training step waits for images.[/bold red] {escape(figures['advice'])}")
    else:
        console.print(f"The pipeline makes images {figures['ratio']:.1f} times as fast as the training takes them.")
