"""`kerasvision inspect`: what a data set holds, and what is wrong with it."""

from collections.abc import Mapping
from pathlib import Path
from typing import TYPE_CHECKING, Any

import click

from kerasvision.cli.commands import DATA_HELP, FORMAT_HELP, main
from kerasvision.cli.verb import Result, Verb

if TYPE_CHECKING:
    from rich.console import Console

_COLOURS = {"error": "red", "warning": "yellow", "note": "cyan"}
_MOST_CLASSES = 20


@main.command("inspect", cls=Verb, short_help="Look through a data set before training.")
@click.argument("data", metavar="PATH")
@click.option("--format", "format_", help=FORMAT_HELP.replace("--data", "PATH"))
@click.option("--out", type=click.Path(dir_okay=False), help="HTML page to write, such as report.html.")
@click.option("--limit", type=click.IntRange(min=1), help="At most so many images of each split.")
def inspect_verb(data: str, format_: str | None, out: str | None, limit: int | None) -> Result:
    """Look through PATH: class balance, sizes, boxes, broken files, duplicates, leakage between splits.

    PATH is what --data of the other verbs takes.
    """
    from kerasvision.report.inspection import inspect

    if out is not None and Path(out).suffix.lower() not in (".html", ".htm"):
        raise click.UsageError(
            f"--out is an HTML page: expected a name such as report.html, got {out}. PATH: {DATA_HELP}"
        )
    report = inspect(data, format_, limit=limit)
    page = None if out is None else report.save(out)
    values = report.to_dict()
    return Result({**values, "page": None if page is None else str(page)}, lambda console: show(console, values, page))


def show(console: "Console", values: Mapping[str, Any], page: Path | None) -> None:
    """Prints what `DataReport.to_dict` gives.

    Args:
        console: where to.
        values: the report.
        page: where the HTML page was written.
    """
    from rich.markup import escape

    from kerasvision.cli.tables import table

    splits = ", ".join(f"{name} {count:,}" for name, count in values["splits"].items()) or "no split"
    console.print(f"[bold]{escape(str(values['source']))}[/bold]: {splits}", soft_wrap=True)
    _show_classes(console, values["classes"], len(values["labels"]))
    images = values["images"]
    rows = [(name, f"{width:,} x {height:,}") for name, (height, width) in images["sizes"].items()]
    rows += [(name, _counts(images[name])) for name in ("formats", "modes", "orientations") if images[name]]
    if values["boxes"]:
        boxes = values["boxes"]
        shares = ", ".join(f"{name} {100 * share:.0f} %" for name, share in boxes["sizes"].items())
        rows.append(("boxes", f"{boxes['boxes']:,}: {shares}"))
        for count, fit in boxes["anchors"].items():
            sizes = ", ".join(f"{width:.0f}x{height:.0f}" for width, height in fit["sizes"])
            rows.append((f"{count} anchors", f"{sizes} (mean best IoU {fit['mean_iou']:.3f})"))
    if values["void_share"] is not None:
        rows.append(("void", f"{100 * values['void_share']:.1f} % of the pixels"))
    if rows:
        table(console, ("images", ""), rows)
    for found in values["findings"]:
        level = found["level"]
        console.print(f"[{_COLOURS[level]}]{level}[/] [bold]{escape(found['text'])}.[/bold] {escape(found['remedy'])}")
        for name in found["names"][:3]:
            console.print(f"  {escape(name)}", soft_wrap=True)
        if found["count"] > 3:
            console.print(f"  ... and {found['count'] - 3:,} more")
    if not values["findings"]:
        console.print("Nothing found that would spoil training.")
    if page is not None:
        console.print(f"Report: {escape(str(page))}", soft_wrap=True)


def _show_classes(console: "Console", classes: Mapping[str, Any], count: int) -> None:
    """The classes, most frequent first where there are many, and how unequal they are."""
    from kerasvision.cli.tables import table

    splits = classes["splits"]
    if not splits or not count:
        return
    names = list(next(iter(splits.values())))
    totals = {name: sum(split[name] for split in splits.values()) for name in names}
    if count > _MOST_CLASSES:
        names.sort(key=lambda name: -totals[name])
    rows = [(name, *(f"{split[name]:,}" for split in splits.values())) for name in names[:_MOST_CLASSES]]
    table(console, (f"class, by {classes['unit']}", *splits), rows, numbers=tuple(splits))
    if count > _MOST_CLASSES:
        console.print(f"... and {count - _MOST_CLASSES:,} more classes")
    console.print(
        f"Most frequent over rarest class: {classes['imbalance_ratio']:,.1f}. "
        f"As varied as {classes['effective_classes']:.1f} classes of equal size."
    )


def _counts(counts: Mapping[str, int]) -> str:
    return ", ".join(f"{name}: {count:,}" for name, count in counts.items())
