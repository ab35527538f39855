"""`kerasvision predict`: what a model says about images, drawn, printed and written."""

import json
from collections.abc import Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any, Literal

import click

from kerasvision import runtime
from kerasvision.cli.tables import show_class_maps, show_detections, show_predictions
from kerasvision.cli.verb import Result
from kerasvision.cli.volumes import predict_volumes, volumes_among
from kerasvision.detections import Detections
from kerasvision.errors import DataError
from kerasvision.files import write_text
from kerasvision.medical.nifti import Plane
from kerasvision.tiles import with_tiles

if TYPE_CHECKING:
    from rich.console import Console


def predict_images(
    artifact: str,
    images: Sequence[str],
    *,
    out: str | None,
    top: int | None,
    score: float | None,
    coco: str | None,
    coco_ids: str | None,
    tiles: bool,
    overlap: float | None,
    window: tuple[float, float] | None,
    plane: Plane | None,
    on_bad_files: Literal["stop", "skip"],
) -> Result:
    """The work of the verb; its options are the arguments.

    Raises:
        ArtifactError: the artifact cannot be used.
        DataError: an image or the file of ids cannot be used.
        click.UsageError: an option of the other kind of model.
    """
    predictor = open_predictor(artifact, tiles, overlap)
    if predictor.task.name != "classification" and top is not None:
        advice = ": use --score" if predictor.detects else ""
        raise click.UsageError(f"--top is for classifiers, and {artifact} is {predictor.kind}{advice}.")
    for option, value in (("--score", score), ("--coco", coco)):
        if value is not None and not predictor.detects:
            raise click.UsageError(f"{option} is for detectors, and {artifact} is {predictor.kind}.")
    if coco_ids is not None and coco is None:
        raise click.UsageError("--coco-ids says which ids the file of --coco has: name that file, too.")
    if volumes := volumes_among(images):
        if predictor.task.name != "segmentation":
            raise click.UsageError(
                f"{volumes[0]} is a volume, which is for segmenters; {artifact} is {predictor.kind}."
            )
        return predict_volumes(predictor, volumes, out=out, window=window, plane=plane, on_bad_files=on_bad_files)
    for option, given in (("--window", window), ("--plane", plane)):
        if given is not None:
            raise click.UsageError(f"{option} is for volumes, and there are only images.")
    annotations = None if coco_ids is None else _annotations(Path(coco_ids))
    shown = 0.5 if score is None else score
    results = predictor.predict(list(images), 5 if top is None else top, on_bad_files, score=shown)
    files = results.save(out) if out else []
    values = {"artifact": artifact, **results.to_dict()}
    written = None
    if coco is not None and isinstance(results, Detections):
        written = Path(coco)
        write_text(written, json.dumps(results.to_coco(annotations), ensure_ascii=False) + "\n")

    def show(console: "Console") -> None:
        if predictor.detects:
            show_detections(console, values, files)
        elif predictor.task.name == "segmentation":
            show_class_maps(console, values, files)
        else:
            show_predictions(console, values, files)
        if written is not None:
            console.print(f"All boxes as COCO results: {written}", soft_wrap=True, markup=False)

    paths = {"files": [str(file) for file in files], **({} if written is None else {"coco": str(written)})}
    return Result({**values, **paths}, show)


def open_predictor(artifact: str, tiles: bool, overlap: float | None) -> runtime.Predictor:
    """The model that a verb names, in tiles where it asks for them.

    Raises:
        ArtifactError: the artifact cannot be used.
        click.UsageError: an overlap without tiles, or tiles for another model than a segmenter.
    """
    predictor = runtime.load(artifact)
    if not tiles:
        if overlap is not None:
            raise click.UsageError("--overlap is of --tiles: give both.")
        return predictor
    if predictor.task.name != "segmentation":
        raise click.UsageError(f"--tiles is for segmenters, and {artifact} is {predictor.kind}.")
    return with_tiles(predictor, 0.5 if overlap is None else overlap)


def _annotations(path: Path) -> dict[str, Any]:
    try:
        content = json.loads(path.read_text("utf-8"))
        if all("id" in entry for part in ("images", "categories") for entry in content[part]):
            return content
    except (ValueError, KeyError, TypeError):
        pass
    raise DataError(
        f"{path} is no COCO annotation file: expected a JSON object with lists of images and categories that have ids."
    )
