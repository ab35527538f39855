"""Volumes on the command line: `kerasvision predict` of DICOM and NIfTI, and `kerasvision slices`."""

import json
import warnings
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any, Literal

import click

from kerasvision.cli.commands import PLANE_HELP, PLANES, WINDOW_HELP, main
from kerasvision.cli.verb import Result, Verb
from kerasvision.errors import DataError

if TYPE_CHECKING:
    from rich.console import Console

    from kerasvision.medical import SegmentedVolume, Window
    from kerasvision.medical.nifti import Plane
    from kerasvision.runtime import Predictor

FRACTION = click.FloatRange(0, 1)


def volumes_among(images: Sequence[str]) -> list[Path]:
    """The volumes that arguments of `predict` name; none where they name images.

    Raises:
        click.UsageError: some are volumes and some are not.
        DataError: a folder holds volumes and images.
    """
    from kerasvision.medical import find_volumes

    found = {image: find_volumes(image) if Path(image).exists() else [] for image in images}
    others = [image for image, volumes in found.items() if not volumes]
    if others and len(others) < len(found):
        raise click.UsageError(f"Volumes and images are predicted by calls of their own; {others[0]} holds no volume.")
    return [volume for volumes in found.values() for volume in volumes]


def predict_volumes(
    predictor: "Predictor",
    volumes: Sequence[Path],
    *,
    out: str | None,
    window: tuple[float, float] | None,
    plane: "Plane | None",
    on_bad_files: Literal["stop", "skip"],
) -> Result:
    """Segments volumes; with `out`, writes of each a class map, a picture of one slice, and predictions.json.

    Raises:
        DataError: a volume cannot be used.
        click.UsageError: no such window.
    """
    from kerasvision.files import write_text
    from kerasvision.medical import read_volume, segment
    from kerasvision.medical.nifti import SUFFIXES
    from kerasvision.medical.slices import volume_name
    from kerasvision.predictions import unique_names

    given, folder = _window(window), None if out is None else Path(out)
    entries, files, bad = [], [], []
    for path, name in zip(volumes, unique_names([volume_name(path) for path in volumes]), strict=True):
        try:
            volume = read_volume(path, plane=plane if path.name.lower().endswith(SUFFIXES) else None)
            found = segment(predictor, volume, given)
        except DataError as error:
            if on_bad_files == "stop":
                raise
            bad.append(str(error))
            continue
        entry = found.to_dict()
        entry["window"]["from"] = "given" if given else "file" if volume.window else "percentiles"
        if folder is not None:
            written = _write(found, folder, name)
            files += written
            entry |= {"classes_file": written[0].name, "drawn": written[1].name}
        entries.append(entry)
    if not entries:
        raise DataError("\n".join(bad))
    for reason in bad:
        warnings.warn(f"Left out: {reason}", stacklevel=2)
    values = {"artifact": str(predictor.path), "labels": list(predictor.labels), "predictions": entries}
    if folder is not None:
        write_text(folder / "predictions.json", json.dumps(values, indent=2, ensure_ascii=False) + "\n")
        files.append(folder / "predictions.json")
    return Result({**values, "files": [str(file) for file in files]}, lambda console: _show(console, values, folder))


def _window(values: tuple[float, float] | None) -> "Window | None":
    from kerasvision.medical import Window

    if values is None:
        return None
    try:
        return Window(*values)
    except ValueError as error:
        raise click.UsageError(f"--window: {error}") from error


def _write(found: "SegmentedVolume", folder: Path, name: str) -> list[Path]:
    from kerasvision.files import replacing

    drawn = folder / f"{name}_prediction.png"
    with replacing(drawn) as temporary:
        found.draw().save(temporary, format="PNG")
    return [found.write(folder / f"{name}_classes.nii.gz"), drawn]


def _show(console: "Console", values: Mapping[str, Any], folder: Path | None) -> None:
    from kerasvision.cli.tables import table

    rows = []
    for entry in values["predictions"]:
        used = entry["window"]
        sizes = [
            f"{label} {sizes['ml']:,.2f} ml" if "ml" in sizes else f"{label} {sizes['voxels']:,} voxels"
            for label, sizes in list(entry["classes"].items())[1:]
            if sizes["voxels"]
        ]
        window = f"{used['center']:.4g} / {used['width']:.4g} ({used['from']})"
        rows.append((entry["volume"], " x ".join(map(str, entry["size"])), window, ", ".join(sizes) or "nothing"))
    table(console, ("volume", "slices", "window", "found"), rows)
    if folder is not None:
        console.print(f"Class maps, pictures and predictions.json in {folder}", soft_wrap=True, markup=False)


@main.command(cls=Verb, short_help="Make a set of images and masks from volumes.")
@click.argument("volumes", type=click.Path(exists=True, file_okay=False))
@click.argument("masks", type=click.Path(exists=True, file_okay=False))
@click.option("--out", required=True, type=click.Path(file_okay=False), help="Folder of the set; must be new or empty.")
@click.option("--labels", required=True, help="Names of the classes, background first: background,liver,tumour.")
@click.option("--window", nargs=2, type=float, metavar="CENTER WIDTH", help=WINDOW_HELP.capitalize())
@click.option("--plane", type=click.Choice(PLANES), help=PLANE_HELP.capitalize())
@click.option("--skip-empty", is_flag=True, help="Leave out slices of nothing but background.")
@click.option("--validation-fraction", type=FRACTION, default=0.2, show_default=True, help="Share of the volumes.")
@click.option("--test-fraction", type=FRACTION, default=0.0, show_default=True, help="The same for a test split.")
@click.option("--seed", type=click.IntRange(min=0), default=0, show_default=True, help="Decides which they are.")
@click.option("--group-pattern", help="Regular expression that finds the patient in the name of a volume.")
def slices(
    volumes: str,
    masks: str,
    out: str,
    labels: str,
    window: tuple[float, float] | None,
    skip_empty: bool,
    **options: Any,
) -> Result:
    """Write the slices of VOLUMES (NIfTI files, folders of DICOM series) and of MASKS (NIfTI) as PNG files.

    --data FOLDER of the other verbs then reads them. Whole volumes are divided into training and validation.
    """
    from kerasvision.medical import write_slices

    names = [name.strip() for name in labels.split(",")]
    facts = write_slices(volumes, masks, out, names, window=_window(window), empty=not skip_empty, **options)

    def show(console: "Console") -> None:
        from kerasvision.cli.tables import table

        rows = [(name, fact["split"], fact["slices"]) for name, fact in facts["volumes"].items()]
        table(console, ("volume", "split", "slices"), rows, numbers=("slices",))

    return Result({"out": out, **facts}, show)
