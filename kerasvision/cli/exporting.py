"""`kerasvision export`: finds the data and the quantized weights that an export needs, and keeps the run in step."""

import dataclasses
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np

from kerasvision.errors import DataError, ExportError
from kerasvision.report import (
    DetectorExample,
    ReportExample,
    SegmenterExample,
    make_examples,
    write_card,
    write_metrics,
    write_report,
)
from kerasvision.report.page import read_metrics
from kerasvision.report.tables import int8_file
from kerasvision.runtime import Predictor, load
from kerasvision.training.folder import RunFolder

if TYPE_CHECKING:
    from kerasvision.data import Data

FINE_TUNING_EPOCHS = 2
FINE_TUNING_RATE = 1e-4


def export_artifact(
    artifact: Path,
    format: str,
    quantization: str,
    *,
    data: str | None,
    data_format: str | None,
    out: str | None,
    threads: int,
    explain: bool = False,
    float_layers: int = 0,
) -> dict[str, Any]:
    """Export a run's model, or a `.keras` file.

    Args:
        artifact: a run folder or a `.keras` file.
        format: "tflite", "saved_model" or "onnx".
        quantization: "none", "float16", "dynamic", "int8", "int16x8" or "qat".
        data: source of the images to compare, calibrate and fine-tune with; the run's own when None.
        data_format: of that source.
        out: where the file goes; exports/ beside the model when None.
        threads: of the latency measurement.
        explain: whether to compare every layer of an int8 file with its model.
        float_layers: of "int8": how many layers stay in float.

    Returns:
        The export report, in types that JSON knows. A run's metrics.json and report.html have it too, when the
        file went into its exports/.

    Raises:
        ExportError: neither a run nor a `.keras` file, or what is needed for this quantization is missing.
    """
    from kerasvision.export import export

    predictor = load(artifact)
    if predictor.format not in ("run", "keras"):
        raise ExportError(
            f"{artifact} is an exported file already. Give the run folder or the .keras file it came from."
        )
    run = _run_folder(artifact)
    loaded = _data(predictor, data, data_format, run)
    model = predictor.engine.model  # type: ignore[attr-defined]
    calibrated = quantization in ("int8", "int16x8")
    if calibrated and loaded is None:
        raise ExportError(f'Quantization "{quantization}" takes its ranges from real images: name them with --data.')
    if quantization == "qat":
        model = _quantized(model, run, loaded)
    judged = None
    if loaded is not None:
        stride = 1 if predictor.segments else None
        judged = _batches(predictor, loaded, _judging_split(loaded), mask_stride=stride)
    samples = judged
    if calibrated and loaded is not None and loaded.splits.get("train"):
        # Calibration sets ranges, so it should not see the images that the file is judged by.
        samples = _batches(predictor, loaded, "train")
    target = Path(out) if out else (run.exports if run else artifact.parent / "exports")
    report = export(
        model,
        target,
        format=format,
        quantization=quantization,
        data=samples,
        threads=threads,
        metric_data=judged,
        explain=explain,
        float_layers=float_layers,
    ).to_dict()
    if run is not None and run.metrics.exists() and target.resolve() == run.exports.resolve():
        _remember(run, report, predictor)
    return report


def _run_folder(artifact: Path) -> RunFolder | None:
    folder = RunFolder(artifact if artifact.is_dir() else artifact.parent)
    return folder if folder.recipe.exists() and folder.model.exists() else None


def _data(predictor: Predictor, source: str | None, format: str | None, run: RunFolder | None) -> "Data | None":
    if source is None and run is None:
        return None
    return predictor.load_data(source, format, split="validation")


def _judging_split(data: "Data") -> str:
    return next((split for split in ("test", "validation", "train") if data.splits.get(split)), "train")


def _batches(model: Any, data: "Data", split: str, **options: Any) -> Any:
    return data.batches(
        split,
        image_size=model.image_size,
        channels=model.channels,
        preprocessing=model.preprocessing,
        **options,
    )


def _quantized(model: Any, run: RunFolder | None, data: "Data | None") -> Any:
    """The model with trained ranges: the run's, else fine-tuned now."""
    from kerasvision.compress import quantize
    from kerasvision.recipe import load_recipe
    from kerasvision.training.quantization import fresh_quantized, quantize_model

    recipe = load_recipe(run.recipe) if run else None
    if run is not None and recipe is not None and run.quantized.exists():
        quantized = fresh_quantized(recipe, model)
        quantized.load_weights(str(run.quantized))
        return quantized
    if data is None or not data.splits.get("train"):
        raise ExportError('Quantization "qat" fine-tunes on training images: name them with --data.')
    if run is not None and recipe is not None:
        finished = run.finished
        quantized, _ = quantize_model(recipe, data, model, run, progress=True)
        if finished:
            run.finish()
        return quantized
    quantized = quantize(model)
    quantized.compile("adam", learning_rate=FINE_TUNING_RATE)
    train = _batches(model, data, "train", shuffle=True)
    quantized.fit(train, epochs=FINE_TUNING_EPOCHS, verbose=2)
    return quantized


def _remember(run: RunFolder, report: dict[str, Any], predictor: Predictor) -> None:
    """Puts an export into the run's metrics.json, in place of an older one of that name, and into its report."""
    metrics = read_metrics(run.path)
    others = [other for other in metrics["exports"] if Path(other["path"]).name != Path(report["path"]).name]
    metrics["exports"] = [*others, report]
    write_metrics(run.path, metrics)
    write_report(run.path, _examples(run, metrics, predictor))
    write_card(run.path)


def _examples(
    run: RunFolder, metrics: dict[str, Any], predictor: Predictor
) -> list[ReportExample] | list[DetectorExample] | list[SegmenterExample]:
    """The report's pictures, made again; none where the run's data is gone."""
    split = metrics["metrics"]["split"]
    try:
        data = predictor.load_data(split=split)
    except DataError:
        return []
    int8 = int8_file(metrics["exports"])
    path = run.exports / Path(int8["path"]).name if int8 else None
    quantized = load(path) if path and path.exists() else None
    if predictor.detects:
        return _detector_examples(metrics, predictor, quantized, data, split)
    if predictor.task.name == "segmentation":
        return _segmenter_examples(predictor, quantized, data, split)
    scores = predictor.collect(data, split)[1]["scores"]
    rounded = None if quantized is None else quantized.collect(data, split)[1]["scores"]
    return make_examples(data.splits[split], scores, rounded)


def _segmenter_examples(
    predictor: Predictor, quantized: Predictor | None, data: "Data", split: str
) -> list[SegmenterExample]:
    """Those of `judge`, with what the int8 file finds in them."""
    from kerasvision.training.evaluation import judge

    model = predictor.engine.model  # type: ignore[attr-defined]
    examples: Any = judge(model, None, _batches(model, data, split), data.splits[split]).examples
    if quantized is None or not examples:
        return examples
    maps = np.rint(quantized.run(np.stack([example.image for example in examples]))["classes"]).astype(int)
    return [
        dataclasses.replace(example, found={**example.found, "quantized": classes})
        for example, classes in zip(examples, maps, strict=True)
    ]


def _detector_examples(
    metrics: dict[str, Any], predictor: Predictor, quantized: Predictor | None, data: "Data", split: str
) -> list[DetectorExample]:
    """Those of `judge`, with what the int8 file finds in them."""
    from kerasvision.training.evaluation import judge

    model = predictor.engine.model  # type: ignore[attr-defined]
    examples: Any = judge(model, None, _batches(model, data, split), data.splits[split]).examples
    if quantized is None or not examples:
        return examples
    facts = metrics["detection"]
    score = ((facts.get("quantized") or facts["float"])["working_point"] or {"score": 0.5})["score"]
    found: Any = quantized.predict([example.example["image"] for example in examples])
    return [
        dataclasses.replace(example, found={**example.found, "quantized": seen.above(score)})
        for example, seen in zip(examples, found.found, strict=True)
    ]
