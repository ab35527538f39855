"""`train`: load, train, quantize, evaluate, export, report; each phase is done once, whatever interrupts it."""

import datetime
import importlib.metadata
import importlib.util
import platform
import sys
from pathlib import Path
from typing import Any

import keras

import kerasvision
from kerasvision.data import Data
from kerasvision.errors import RecipeError
from kerasvision.export.exporter import FORMATS, export
from kerasvision.recipe import Recipe, from_dict, to_dict
from kerasvision.report import write_card, write_metrics, write_report
from kerasvision.run_data import load_run_data
from kerasvision.training.evaluation import judge
from kerasvision.training.fit import batches, check_data, train_model
from kerasvision.training.folder import RunFolder

PACKAGES = ("tensorflow", "keras", "tf-keras", "tensorflow-model-optimization", "ai-edge-litert", "numpy")


def train(
    recipe: Recipe, out: str | Path, *, resume: bool = True, overwrite: bool = False, progress: bool = True
) -> dict[str, Any]:
    """Run a recipe from its data to its report.

    Killed and called again with the same arguments, it goes on from the last checkpoint; what is finished is not
    repeated. A finished run is not run again.

    Args:
        recipe: what to do.
        out: run folder: recipe.yaml, model.keras, quantized.weights.h5, exports/, split.json, logs/,
            metrics.json, report.html.
        resume: continue an unfinished run of the same recipe; False makes any earlier run in the folder an error.
        overwrite: delete an earlier run in the folder first.
        progress: show progress on stderr.

    Returns:
        The content of metrics.json.

    Raises:
        RecipeError: the folder belongs to another recipe, or the recipe asks for what cannot be.
        DataError: the data cannot be used.
        TrainingDivergedError: the loss became NaN; the last good checkpoint is kept.
    """
    recipe = from_dict(to_dict(recipe))
    folder = RunFolder(out)
    _check_exports(recipe)
    folder.open(recipe, resume=resume, overwrite=overwrite)
    if folder.finished:
        print(f"{folder.path} is finished already; overwrite it to run it again.", file=sys.stderr)
        return folder.read_metrics()
    data = load_run_data(recipe.data, folder.split)
    check_data(recipe, data)
    trained = train_model(recipe, data, folder, progress)
    model = keras.saving.load_model(folder.model)
    quantized, fine_tuned = None, None
    if recipe.quantize.enabled:
        # Imported here, because it brings tf_keras along.
        from kerasvision.training.quantization import quantize_model

        quantized, fine_tuned = quantize_model(recipe, data, model, folder, progress)
    split = "test" if data.splits.get("test") else "validation"
    test = batches(recipe, data, model, split, batch_size=32)
    judgement = judge(model, quantized, test, data.splits[split])
    metrics = {
        "kerasvision": kerasvision.__version__,
        "date": datetime.datetime.now(datetime.timezone.utc).isoformat(timespec="minutes"),
        "model": model.name,
        "task": model.task.name,
        "labels": list(model.labels),
        "data": _data_facts(data),
        "parameters": model.count_params(),
        "training": _training_facts(trained, fine_tuned),
        "metrics": {"split": split, **judgement.figures},
        "exports": _export_all(recipe, data, model, quantized, test, folder),
        "environment": _environment(),
        **judgement.facts,
    }
    write_metrics(folder.path, metrics)
    write_report(folder.path, judgement.examples)
    write_card(folder.path)
    folder.finish()
    return metrics


def _check_exports(recipe: Recipe) -> None:
    """An hour of training should not end in an error that was known before it."""
    for kind, quantization in recipe.export.formats:
        if (kind, quantization) not in FORMATS:
            known = ", ".join(f"[{a}, {b}]" for a, b in FORMATS)
            raise RecipeError(f"export.formats: there is no [{kind}, {quantization}]. Known: {known}.")
    missing = [name for name in ("tf2onnx", "onnxruntime") if importlib.util.find_spec(name) is None]
    if missing and any(kind == "onnx" for kind, _ in recipe.export.formats):
        raise ImportError(f'export.formats asks for ONNX, which needs {missing[0]}: pip install "kerasvision[onnx]"')


def _export_all(
    recipe: Recipe, data: Data, model: Any, quantized: Any, test: Any, folder: RunFolder
) -> list[dict[str, Any]]:
    reports = []
    for kind, quantization in recipe.export.formats:
        phase = f"export {kind} {quantization}"
        report = folder.done(phase)
        if report is None:
            # Calibration sets ranges, so it must not see the images that the file is judged by.
            calibrated = quantization in ("int8", "int16x8")
            images_alone = {"batch_size": 32, "mask_stride": None}
            source = batches(recipe, data, model, "train", **images_alone) if calibrated else test
            report = export(
                quantized if quantization == "qat" else model,
                folder.exports,
                format=kind,
                quantization=quantization,
                data=source,
                samples=recipe.export.samples,
                calibration=recipe.export.calibration,
                threads=recipe.export.threads,
                benchmark=recipe.export.benchmark,
                metric_data=test,
            ).to_dict()
            folder.mark_done(phase, report)
        reports.append(report)
    return reports


def _data_facts(data: Data) -> dict[str, Any]:
    counts = {split: len(data.splits.get(split, ())) for split in ("train", "validation", "test")}
    skipped = [{"path": file.path, "reason": file.reason} for file in data.skipped]
    return {"source": data.source, **counts, "skipped": skipped}


def _training_facts(trained: dict[str, Any], fine_tuned: dict[str, Any] | None) -> dict[str, Any]:
    facts = dict(trained)
    if fine_tuned:
        facts |= {
            "qat_epochs": fine_tuned["epochs"],
            "qat_best_epoch": fine_tuned["best_epoch"],
            "qat_seconds": fine_tuned["seconds"],
            "qat_history": fine_tuned["history"],
        }
    return facts


def _environment() -> dict[str, str]:
    versions = {name: importlib.metadata.version(name) for name in PACKAGES}
    return {"python": platform.python_version(), **versions, "platform": f"{platform.system()} {platform.machine()}"}
