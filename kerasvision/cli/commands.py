"""The verbs. Each one calls a public function and says how its result looks."""

import json
from collections import Counter
from pathlib import Path
from typing import TYPE_CHECKING, Any, Literal

import click

import kerasvision
from kerasvision.cli.verb import Result, Verb

if TYPE_CHECKING:
    from rich.console import Console

DATA_HELP = (
    "A folder (classes, COCO, VOC, YOLO, masks, shards), a CSV, .json, .npz or video file, tfds:NAME, or a known set "
    "such as digits."
)
FORMAT_HELP = "How to read --data; recognised when left out."
TILES_HELP = "Of a segmenter: images at their own size, in tiles of the model's input size."
OVERLAP_HELP = "Of --tiles: share of a tile that its neighbour covers too; 0.5 when left out."
WINDOW_HELP = "values that become grey levels; the file's own, or 0.5 to 99.5 % of all values, when left out."
PLANES = ("axial", "coronal", "sagittal")
PLANE_HELP = "which way NIfTI files are sliced; axial when left out."
SKIP_HELP = "Leave out images that cannot be read, and say which."
TASK_HELP = "classification"


@click.group(context_settings={"help_option_names": ["-h", "--help"], "max_content_width": 100})
@click.version_option(kerasvision.__version__, prog_name="kerasvision")
def main() -> None:
    """Computer vision for Keras 3, from a data set to a phone: train, quantize, export, prove the file."""


@main.command("list", cls=Verb)
@click.option("--task", help=f"Only models for this task ({TASK_HELP}).")
def list_verb(task: str | None) -> Result:
    """List the models that can be trained."""
    from kerasvision.registry import BACKBONE, get_entry, list_models

    models = []
    for name in list_models(task):
        entry, does = get_entry(name, task)
        models.append(
            {
                "name": name,
                "tasks": [does],
                "backbone": entry.kind == BACKBONE,
                "input_shape": list(entry.input_shape),
                "weights": {
                    key: {
                        "parameters": weights.parameters,
                        "classes": weights.classes,
                        "metrics": dict(weights.metrics),
                        "source": weights.source,
                        "license": weights.license,
                    }
                    for key, weights in entry.weights.items()
                },
            }
        )

    def show(console: "Console") -> None:
        from kerasvision.cli.tables import show_models

        show_models(console, models)

    return Result({"models": models}, show)


@main.command(cls=Verb, short_help="Train, quantize, export and report.", resumable=True)
@click.argument("arguments", nargs=-1, metavar="[RECIPE] [KEY=VALUE]...")
@click.option("--task", help=f"Without RECIPE: the task ({TASK_HELP}).")
@click.option("--model", help="Without RECIPE: a name from `kerasvision list`.")
@click.option("--weights", help='Without RECIPE: trained weights to start from, such as "imagenet", or a file.')
@click.option("--data", help=DATA_HELP)
@click.option("--data-format", help=FORMAT_HELP)
@click.option("--epochs", type=click.IntRange(min=0), help="Passes over the training images.")
@click.option("--skip-bad-files", is_flag=True, help=SKIP_HELP)
@click.option("--out", type=click.Path(file_okay=False), help="Run folder; saved_models/NAME when left out.")
@click.option("--overwrite", is_flag=True, help="Replace an earlier run in that folder.")
def train(arguments: tuple[str, ...], overwrite: bool, **options: Any) -> Result:
    """Train, quantize, export and report, as RECIPE (.py or .yaml) says, or --model and --data.

    KEY=VALUE changes the recipe: train.epochs=3 model.arguments.alpha=0.5. An unfinished run in the folder is
    continued.
    """
    from kerasvision.cli.recipes import recipe_and_folder

    return _run(*recipe_and_folder(arguments, **options), overwrite=overwrite)


@main.command(cls=Verb, short_help="Train and quantize on embedded digits.", resumable=True)
@click.option("--out", type=click.Path(file_okay=False), default="saved_models/digits", show_default=True)
@click.option("--epochs", type=click.IntRange(min=1), help="Fewer than the recipe's for a quick look.")
def demo(out: str, epochs: int | None) -> Result:
    """Train on the embedded digits, quantize, export, and compare the float file with the int8 file."""
    from kerasvision.demo import digits
    from kerasvision.recipe import override

    recipe = override(digits(), [] if epochs is None else [f"train.epochs={epochs}"])
    return _run(recipe, Path(out), overwrite=False)


def _run(recipe: Any, folder: Path, overwrite: bool) -> Result:
    from kerasvision.report.page import REPORT
    from kerasvision.training.run import train as train_recipe

    metrics = train_recipe(recipe, folder, overwrite=overwrite)
    report = folder / REPORT

    def show(console: "Console") -> None:
        from kerasvision.cli.tables import show_run

        show_run(console, metrics, report)

    return Result({"run": str(folder), "report": str(report), **metrics}, show)


@main.command(cls=Verb, short_help="Measure a model on labelled images.")
@click.argument("artifact")
@click.option("--data", help=f"{DATA_HELP} The run's own data when left out.")
@click.option("--data-format", help=FORMAT_HELP)
@click.option("--split", default="test", show_default=True, help="train, validation, test or all.")
@click.option("--tiles", is_flag=True, help=TILES_HELP)
@click.option("--overlap", type=click.FloatRange(0, 1, max_open=True), help=OVERLAP_HELP)
@click.option("--skip-bad-files", is_flag=True, help=SKIP_HELP)
def evaluate(
    artifact: str,
    data: str | None,
    data_format: str | None,
    split: str,
    tiles: bool,
    overlap: float | None,
    skip_bad_files: bool,
) -> Result:
    """Measure ARTIFACT: a run folder, .keras, .tflite, .onnx or SavedModel folder."""
    from kerasvision.cli.predicting import open_predictor
    from kerasvision.run_data import count_objects, splits_of
    from kerasvision.segmentation import SegmentationMetrics

    predictor = open_predictor(artifact, tiles, overlap)
    on_bad_files: Literal["skip"] | None = "skip" if skip_bad_files else None
    loaded = predictor.load_data(data, data_format, split=split, on_bad_files=on_bad_files)
    meter, images, objects = predictor.task.meter(), 0, Counter[str]()
    for targets, predictions in predictor.judged(loaded, split):
        meter.update(targets, predictions)
        images += len(next(iter(targets.values())))
        if predictor.detects:
            objects += count_objects(targets, predictor.labels)
    split, metrics = ", ".join(splits_of(loaded, split)), meter.result()
    values = {"artifact": artifact, "data": loaded.source, "split": split, "images": images, "metrics": metrics}
    if predictor.detects:
        values["objects"] = {label: objects[label] for label in predictor.labels}
    if isinstance(meter, SegmentationMetrics):
        counts = meter.confusion.sum(axis=1).tolist()
        values["pixels"] = dict(zip(predictor.labels, counts, strict=True))

    def show(console: "Console") -> None:
        from kerasvision.cli.tables import show_average_precision, show_metrics, show_overlaps

        title = f"{artifact} on {images} images ({loaded.source}, {split})"
        if predictor.detects:
            show_average_precision(console, title, metrics, values["objects"], predictor.image_size)
        elif "pixels" in values:
            show_overlaps(console, title, metrics, values["pixels"])
        else:
            show_metrics(console, title, metrics)

    skipped = [str(file) for file in loaded.skipped]
    return Result({**values, "skipped": skipped}, show)


@main.command(cls=Verb, short_help="Say what a model sees on images.")
@click.argument("artifact")
@click.argument("images", nargs=-1, required=True, metavar="IMAGE...")
@click.option("--out", type=click.Path(file_okay=False), help="Folder for drawn images and predictions.json.")
@click.option("--top", type=click.IntRange(min=1), help="Of a classifier: labels for each image; 5 when left out.")
@click.option("--score", type=click.FloatRange(0, 1), help="Of a detector: least score shown; 0.5 when left out.")
@click.option("--coco", type=click.Path(dir_okay=False), help="Of a detector: file for all boxes as COCO results.")
@click.option(
    "--coco-ids",
    type=click.Path(exists=True, dir_okay=False),
    help="COCO annotation file that --coco takes the ids of images and categories from.",
)
@click.option("--tiles", is_flag=True, help=TILES_HELP)
@click.option("--overlap", type=click.FloatRange(0, 1, max_open=True), help=OVERLAP_HELP)
@click.option("--window", nargs=2, type=float, metavar="CENTER WIDTH", help=f"Of volumes: {WINDOW_HELP}")
@click.option("--plane", type=click.Choice(PLANES), help=f"Of volumes: {PLANE_HELP}")
@click.option("--skip-bad-files", is_flag=True, help=SKIP_HELP)
def predict(artifact: str, images: tuple[str, ...], skip_bad_files: bool, **options: Any) -> Result:
    """Say what ARTIFACT sees on images; IMAGE is a file or a folder of them.

    A segmenter takes volumes, too: a NIfTI file, or a folder with a DICOM series. --out then holds its class maps as
    NIfTI files in the volume's own geometry.
    """
    from kerasvision.cli.predicting import predict_images

    return predict_images(artifact, images, on_bad_files="skip" if skip_bad_files else "stop", **options)


@main.command(cls=Verb)
@click.argument("artifact", metavar="RUN|MODEL.keras")
@click.option("--format", "format_", default="tflite", show_default=True, help="tflite, saved_model or onnx.")
@click.option("--quantization", default="none", show_default=True, help="none, float16, dynamic, int8, int16x8 or qat.")
@click.option("--explain", is_flag=True, help="Compare every layer of an int8 TFLite file with its model.")
@click.option(
    "--float-layers",
    type=click.IntRange(min=0),
    default=0,
    help="Of int8: layers to keep in float, those whose quantization costs most.",
)
@click.option("--data", help=f"{DATA_HELP} The run's own data when left out.")
@click.option("--data-format", help=FORMAT_HELP)
@click.option(
    "--out", type=click.Path(file_okay=False), help="Folder for the file; exports/ beside the model when left out."
)
@click.option("--threads", type=click.IntRange(min=1), default=2, show_default=True, help="Of the latency measurement.")
def export(artifact: str, format_: str, quantization: str, **options: Any) -> Result:
    """Write a model file, run it again, and compare it with the Keras model."""
    from kerasvision.cli.exporting import export_artifact

    report = export_artifact(Path(artifact), format_, quantization, **options)

    def show(console: "Console") -> None:
        from kerasvision.cli.tables import show_exports, show_layers

        show_exports(console, [report])
        if report["layers"]:
            show_layers(console, report["layers"])
        console.print(report["path"], soft_wrap=True, markup=False)

    return Result(report, show)


@main.command(cls=Verb, short_help="Measure files, or a recipe's input pipeline.")
@click.argument("artifacts", nargs=-1, metavar="[ARTIFACT]...")
@click.option("--threads", type=click.IntRange(min=1), default=2, show_default=True)
@click.option(
    "--runs", type=click.IntRange(min=1), default=50, show_default=True, help="Measured after five to warm up."
)
@click.option("--recipe", type=click.Path(exists=True, dir_okay=False), help="Measure its pipeline instead.")
@click.option("--data", help="In place of the recipe's data. " + DATA_HELP)
@click.option("--seconds", type=click.FloatRange(min=0.1), default=5.0, show_default=True, help="With --recipe.")
def benchmark(
    artifacts: tuple[str, ...], threads: int, runs: int, recipe: str | None, data: str | None, seconds: float
) -> Result:
    """Measure how long one image takes, and how large each ARTIFACT is.

    With --recipe instead: whether the input pipeline keeps up with the training step, in images a second.
    """
    if bool(artifacts) == bool(recipe) or (data and not recipe):
        raise click.UsageError("Expected files to measure, or --recipe FILE and, if wanted, --data PATH.")
    if recipe:
        return _throughput(recipe, data, seconds)
    from kerasvision.export import benchmark as measure
    from kerasvision.runtime import model_path

    files = {artifact: model_path(Path(artifact)) for artifact in artifacts}
    rows = [{"artifact": name, **measure(file, threads=threads, runs=runs)} for name, file in files.items()]

    def show(console: "Console") -> None:
        from kerasvision.cli.tables import show_benchmarks

        show_benchmarks(console, rows)

    return Result({"rows": rows}, show)


def _throughput(file: str, data: str | None, seconds: float) -> Result:
    from kerasvision.recipe import load_recipe, override
    from kerasvision.training.throughput import throughput

    recipe = override(load_recipe(file), [] if data is None else [f"data.source={json.dumps(data)}"])
    figures = throughput(recipe, seconds=seconds)

    def show(console: "Console") -> None:
        from kerasvision.cli.tables import show_throughput

        show_throughput(console, figures)

    return Result(figures, show)
