"""Verbs about data sets."""

from typing import TYPE_CHECKING, Any

import click

from kerasvision.cli.commands import DATA_HELP, FORMAT_HELP, SKIP_HELP, main
from kerasvision.cli.verb import Result, Verb

if TYPE_CHECKING:
    from rich.console import Console

    from kerasvision.data.shard_index import ShardIndex

FRACTION = click.FloatRange(0, 1)


@main.command(cls=Verb, short_help="Write a data set as TFRecord shards.")
@click.argument("data", required=False)
@click.option("--out", type=click.Path(file_okay=False), help="Folder for the shards; must be new or empty.")
@click.option("--check", type=click.Path(), help="Instead: compare the shards in this folder with their checksums.")
@click.option("--data-format", help=FORMAT_HELP.replace("--data", "DATA"))
@click.option("--shards", type=click.IntRange(min=1), help="Shards of each split, in place of --shard-mb.")
@click.option(
    "--shard-mb", type=click.FloatRange(min=0, min_open=True), default=128, show_default=True, help="Size of a shard."
)
@click.option(
    "--validation-fraction", type=FRACTION, default=0.0, show_default=True, help="Taken out of the training images."
)
@click.option("--test-fraction", type=FRACTION, default=0.0, show_default=True, help="The same for a test split.")
@click.option(
    "--split",
    type=click.Choice(["stratified", "random", "group"]),
    default="stratified",
    show_default=True,
    help="How they are chosen.",
)
@click.option("--seed", type=click.IntRange(min=0), default=0, show_default=True, help="Decides which they are.")
@click.option("--group-pattern", help="Regular expression that finds an image's group in its path.")
@click.option("--split-file", type=click.Path(dir_okay=False), help="A saved split, such as a run's split.json.")
@click.option("--frame-step", type=click.IntRange(min=1), default=1, show_default=True, help="Of videos: every n-th.")
@click.option("--limit", type=click.IntRange(min=1), help="At most so many images of each split.")
@click.option("--multi-label", is_flag=True, help="An image may carry any number of labels.")
@click.option("--skip-bad-files", is_flag=True, help=SKIP_HELP)
def convert(data: str | None, out: str | None, check: str | None, **options: Any) -> Result:
    """Write DATA as TFRecord shards with an index and checksums; --data FOLDER then reads them like any set.

    DATA is what --data of the other verbs takes. Image files keep their bytes.
    """
    if check is not None:
        if data is not None or out is not None:
            raise click.UsageError("--check FOLDER takes neither DATA nor --out.")
        return _check(check)
    if data is None or out is None:
        raise click.UsageError(f"Expected DATA and --out FOLDER, or --check FOLDER. DATA: {DATA_HELP}")
    return _convert(data, out, **options)


def _convert(
    data: str,
    out: str,
    *,
    data_format: str | None,
    shards: int | None,
    shard_mb: float,
    skip_bad_files: bool,
    **options: Any,
) -> Result:
    from kerasvision.data import load_data, write_shards

    loaded = load_data(data, data_format, on_bad_files="skip" if skip_bad_files else "stop", **options)
    index = write_shards(loaded, out, shards=shards, shard_mb=shard_mb)
    skipped = [str(file) for file in loaded.skipped]
    return _result(f"{data} in {out}", {"data": data, "out": out}, index, {"skipped": skipped})


def _check(folder: str) -> Result:
    from kerasvision.data.shard_index import check_shards
    from kerasvision.data.storage import as_path

    return _result(f"{folder} is sound", {"checked": folder}, check_shards(as_path(folder)), {})


def _result(title: str, first: dict[str, Any], index: "ShardIndex", last: dict[str, Any]) -> Result:
    splits = {
        name: {
            "examples": sum(shard.examples for shard in shards),
            "shards": len(shards),
            "bytes": sum(shard.records.bytes for shard in shards),
        }
        for name, shards in index.splits.items()
    }
    values = {**first, "labels": index.labels, "fields": index.fields, "splits": splits, **last}

    def show(console: "Console") -> None:
        from kerasvision.cli.tables import table
        from kerasvision.report.tables import size

        console.print(f"{title}: {', '.join(index.fields)}", markup=False, soft_wrap=True)
        rows = [(name, found["examples"], found["shards"], size(found["bytes"])) for name, found in splits.items()]
        columns = ("split", "examples", "shards", "size")
        table(console, columns, rows, numbers=columns[1:])
        for line in last.get("skipped", []):
            console.print(f"left out: {line}", markup=False, soft_wrap=True)

    return Result(values, show)
