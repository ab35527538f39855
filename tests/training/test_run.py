"""A whole run, killed in mid-epoch and started again with the same command."""

import dataclasses
import json
import shutil
import signal
import subprocess
import sys
import time
from pathlib import Path

import numpy as np
import pytest
import yaml
from PIL import Image
from tensorboard.backend.event_processing.event_accumulator import EventAccumulator

import kerasvision as kv
from kerasvision.errors import DataError, RecipeError
from kerasvision.recipe import (
    DataRecipe,
    ExportRecipe,
    ModelRecipe,
    QuantizeRecipe,
    Recipe,
    TrainRecipe,
    load_recipe,
    to_yaml,
)
from kerasvision.training.folder import RunFolder

EPOCHS = 3
RECIPE = Recipe(
    data=DataRecipe("digits", limit=300, augment=({"name": "crop", "padding": 1},)),
    model=ModelRecipe("small_cnn", (8, 8, 1), arguments={"filters": [8, 16], "depth": 1}),
    train=TrainRecipe(epochs=EPOCHS, batch_size=4, learning_rate=0.01, ema=0.9, early_stopping=5),
    quantize=QuantizeRecipe(epochs=1, learning_rate=1e-3, batch_size=25),
    export=ExportRecipe(formats=(("tflite", "none"), ("tflite", "qat")), samples=8, benchmark=False),
)
COMMAND = "import sys; import kerasvision as kv; from kerasvision.recipe import load_recipe; "
COMMAND += "kv.train(load_recipe(sys.argv[1]), sys.argv[2])"


def start(folder: Path) -> subprocess.Popen:
    recipe = folder.parent / "input.yaml"
    recipe.write_text(to_yaml(RECIPE))
    command = [sys.executable, "-c", COMMAND, str(recipe), str(folder)]
    return subprocess.Popen(command, stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True)


@pytest.fixture(scope="module")
def run(tmp_path_factory):
    """The finished run, and what the second process said."""
    folder = tmp_path_factory.mktemp("runs") / "digits"
    first = start(folder)
    while not (folder / "checkpoint" / "state.npz").exists():
        assert first.poll() is None, first.stderr.read()[-3000:]
        time.sleep(0.01)
    time.sleep(0.05)  # Some steps into the second epoch, which takes 75.
    first.send_signal(signal.SIGKILL)
    first.communicate()
    assert first.returncode == -signal.SIGKILL
    assert not (folder / "model.keras").exists()

    second = start(folder)
    stdout, stderr = second.communicate()
    assert second.returncode == 0, stderr[-3000:]
    return folder, stdout, stderr


@pytest.fixture(scope="module")
def metrics(run):
    return json.loads((run[0] / "metrics.json").read_text())


def test_second_process_goes_on_and_finishes(run):
    folder, stdout, stderr = run
    assert stdout == ""
    assert f"Training 1/{EPOCHS}" not in stderr
    assert f"Training {EPOCHS}/{EPOCHS}" in stderr
    names = {path.name for path in folder.iterdir()}
    assert names == {
        "recipe.yaml", "model.keras", "quantized.weights.h5", "metrics.json", "exports", "report.html",
            "model_card.md", "logs", "split.json"
    }  # fmt: skip
    assert {path.name for path in (folder / "exports").iterdir()} == {"model_float32.tflite", "model_int8.tflite"}
    assert load_recipe(folder / "recipe.yaml") == RECIPE
    assert yaml.safe_load((folder / "recipe.yaml").read_text())["train"]["batch_size"] == 4


def test_metrics_say_everything(run, metrics):
    assert metrics["kerasvision"] == kv.__version__
    assert (metrics["model"], metrics["task"]) == ("small_cnn", "classification")
    assert metrics["labels"] == [str(digit) for digit in range(10)]
    data = metrics["data"]
    assert data["source"] == "digits" and data["train"] == 300 and data["validation"] > 0 and data["test"] > 0
    training = metrics["training"]
    assert training["epochs"] == EPOCHS and training["seconds"] > 0
    for name in ("loss", "crossentropy", "accuracy", "val_loss", "val_crossentropy", "val_accuracy", "learning_rate"):
        assert len(training["history"][name]) == EPOCHS
        assert len(training["qat_history"][name]) == 1
    best = max(zip(training["history"]["val_accuracy"], range(EPOCHS), strict=True))[0]
    assert training["history"]["val_accuracy"][training["best_epoch"] - 1] == best
    figures = metrics["metrics"]
    assert figures["split"] == "test"
    assert figures["float"].keys() == figures["quantized"].keys() >= {"accuracy", "macro_f1", "auc"}
    matrix = np.array(metrics["classification"]["confusion_matrix"])
    assert matrix.sum() == data["test"]
    assert np.trace(matrix) / matrix.sum() == pytest.approx(figures["float"]["accuracy"])
    assert {"python", "tensorflow", "keras"} <= metrics["environment"].keys()
    assert [(e["format"], e["quantization"]) for e in metrics["exports"]] == [("tflite", "none"), ("tflite", "qat")]


def test_saved_model_is_the_one_that_was_measured(run, metrics):
    assert kv.evaluate(run[0], "digits")["accuracy"] == metrics["metrics"]["float"]["accuracy"]


def test_finished_run_is_not_run_again(run, metrics, capsys):
    before = (run[0] / "metrics.json").stat().st_mtime_ns
    assert kv.train(RECIPE, run[0]) == metrics
    assert "finished already" in capsys.readouterr().err
    assert (run[0] / "metrics.json").stat().st_mtime_ns == before


def test_another_recipe_in_the_same_folder_is_refused(run):
    other = dataclasses.replace(RECIPE, train=dataclasses.replace(RECIPE.train, epochs=5))
    with pytest.raises(RecipeError, match=rf"train\.epochs: {EPOCHS} -> 5.*another folder"):
        kv.train(other, run[0])
    assert (run[0] / "metrics.json").exists()


def test_finished_phases_are_not_repeated(run, metrics, tmp_path):
    """Killed before metrics.json was there: weights and exports are taken as they are, the rest is done."""
    folder = RunFolder(tmp_path / "run")
    shutil.copytree(run[0], folder.path)
    for path in (folder.metrics, folder.report):
        path.unlink()
    training = metrics["training"]
    folder.mark_done("train", {key: value for key, value in training.items() if not key.startswith("qat_")})
    quantized = {key.removeprefix("qat_"): value for key, value in training.items() if key.startswith("qat_")}
    folder.mark_done("quantize", quantized)
    for report in metrics["exports"]:
        folder.mark_done(f"export {report['format']} {report['quantization']}", report)
    kept = (folder.model, folder.quantized, *folder.exports.iterdir())
    times = [path.stat().st_mtime_ns for path in kept]
    again = kv.train(RECIPE, folder.path, progress=False)
    assert [path.stat().st_mtime_ns for path in kept] == times
    for key in ("metrics", "training", "exports"):
        assert again[key] == metrics[key]
    assert folder.report.exists() and folder.finished


def test_contradictions_are_found_before_anything_is_written(tmp_path):
    wrong = dataclasses.replace(RECIPE, quantize=QuantizeRecipe(enabled=False))
    with pytest.raises(RecipeError, match=r"quantize\.enabled"):
        kv.train(wrong, tmp_path / "run")
    wrong = dataclasses.replace(RECIPE, export=ExportRecipe(formats=(("saved_model", "dynamic"),)))
    with pytest.raises(RecipeError, match=r"no \[saved_model, dynamic\].*Known: "):
        kv.train(wrong, tmp_path / "run")
    assert not (tmp_path / "run").exists()


def test_no_validation_images(tmp_path):
    for index in range(8):
        path = tmp_path / "photos" / "ab"[index % 2] / f"{index}.png"
        path.parent.mkdir(parents=True, exist_ok=True)
        Image.fromarray(np.full((8, 8), index, np.uint8)).save(path)
    without = dataclasses.replace(RECIPE, data=DataRecipe(str(tmp_path / "photos"), validation_fraction=0.0))
    with pytest.raises(DataError, match=r"no validation images.*validation_fraction"):
        kv.train(without, tmp_path / "run")


def read(folder: Path) -> EventAccumulator:
    events = EventAccumulator(str(folder), size_guidance={"scalars": 0, "images": 0, "tensors": 0, "graph": 0})
    events.Reload()
    return events


def scalars(events: EventAccumulator, tag: str) -> dict[int, float]:
    """Step -> value; what a killed process wrote last may stand there twice."""
    import tensorflow as tf

    return {event.step: float(tf.make_ndarray(event.tensor_proto)) for event in events.Tensors(tag)}


def pictures(events: EventAccumulator, tag: str) -> dict[int, np.ndarray]:
    """Step -> pixels; the first two strings of an image summary are its width and height."""
    import tensorflow as tf

    found = {}
    for event in events.Tensors(tag):
        width, height, png = tf.make_ndarray(event.tensor_proto)
        found[event.step] = tf.io.decode_png(png).numpy()
        assert found[event.step].shape == (int(height), int(width), 3)
    return found


def test_tensorboard_holds_the_figures(run, metrics):
    history = metrics["training"]["history"]
    for which, prefix in (("train", ""), ("validation", "val_")):
        events = read(run[0] / "logs" / which)
        for name in ("loss", "crossentropy", "accuracy"):
            values = scalars(events, name)
            assert list(values) == [1, 2, 3]
            np.testing.assert_allclose(list(values.values()), history[prefix + name], rtol=1e-5)
    rates = scalars(read(run[0] / "logs" / "train"), "learning_rate")
    np.testing.assert_allclose(list(rates.values()), history["learning_rate"], rtol=1e-5)


def test_tensorboard_holds_graph_and_pictures(run):
    train, validation = read(run[0] / "logs" / "train"), read(run[0] / "logs" / "validation")
    nodes = [node.name for node in train.Graph().node]
    assert any("stage0_0_conv" in name for name in nodes) and "image" in nodes
    inputs = pictures(train, "inputs")[0]
    predictions = pictures(validation, "predictions")
    assert sorted(predictions) == [1, 2, 3]
    confusion = pictures(validation, "confusion_matrix")[EPOCHS]
    for picture in (inputs, predictions[EPOCHS], confusion):
        assert min(picture.shape[:2]) > 300 and picture.std() > 20


def test_tensorboard_holds_quantization_ranges(run):
    events = read(run[0] / "logs" / "quantization" / "train")
    tags = [tag for tag in events.Tags()["tensors"] if tag.startswith("ranges/")]
    lows = {tag for tag in tags if tag.endswith("/min")}
    assert len(lows) >= 4
    for tag in lows:
        assert scalars(events, tag)[1] < scalars(events, tag.removesuffix("min") + "max")[1]
    assert "ranges" in events.Tags()["tensors"]
