"""The committed runs still say what their metrics.json says."""

import json
from pathlib import Path

import pytest

import kerasvision as kv
from kerasvision.data.named import FASHION_FOLDER, data_folder

RUNS = Path(__file__).parent.parent / "saved_models"
RUN = RUNS / "fashion_mnist"
CELLS = RUNS / "bccd_retinanet"


@pytest.mark.parametrize("file", ["model_float32.tflite", "model_int8.tflite"])
def test_fashion_mnist_files_score_what_was_measured(file):
    if not (FASHION_FOLDER.is_dir() or data_folder("fashion_mnist")):
        pytest.skip("Fashion-MNIST is not on this machine (Debian's package dataset-fashion-mnist)")
    metrics = json.loads((RUN / "metrics.json").read_text())
    report = next(report for report in metrics["exports"] if report["path"].endswith(file))
    accuracy = kv.evaluate(RUN / "exports" / file, kv.load_data("fashion_mnist"))["accuracy"]
    # Kernels of another processor may round a score to the other side of a tie.
    assert accuracy == pytest.approx(report["metrics"]["accuracy"], abs=5e-4)
    assert accuracy >= 0.93


def test_the_keras_model_of_a_committed_run_loads():
    predictor = kv.load(RUN)
    assert predictor.labels[0] == "T-shirt/top"
    assert predictor.image_size == (28, 28)


def test_the_cell_detector_finds_what_was_measured():
    if not data_folder("bccd"):
        pytest.skip("the blood cells are not on this machine: set KERASVISION_DATA to a folder with bccd/")
    metrics = json.loads((CELLS / "metrics.json").read_text())
    file = CELLS / "exports" / "model_int8.tflite"
    report = next(report for report in metrics["exports"] if report["path"].endswith(file.name))
    figures = kv.evaluate(file, kv.load_data("bccd"), "validation")
    assert figures["AP"] == pytest.approx(report["metrics"]["AP"], abs=2e-3)
    assert figures["AP"] >= 0.6 and figures["AP50"] >= 0.9
    assert file.stat().st_size < 6e6
