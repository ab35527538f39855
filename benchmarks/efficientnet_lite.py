"""EfficientNet-Lite0 with its packaged ImageNet weights: top-1 of the Keras model and of its files on real photographs.

    KERASVISION_DATA=... python benchmarks/efficientnet_lite.py [--json]

The peer of each file is the Keras model in the same run. A fifth of the photographs calibrates the int8 file; all
figures are of the others.
"""

import argparse
import tempfile
from pathlib import Path

import keras
from table import row, show

import kerasvision as kv

MODEL = "efficientnet_lite0"
CALIBRATION = 5
LARGEST_LOSS = 0.015
FILES = ("none", "float16", "dynamic", "int8")


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--json", action="store_true", help="print rows as JSON")
    arguments = parser.parse_args()

    data = kv.load_data("imagenet_sample")
    photographs = data.splits["test"]
    data.splits = {
        "train": photographs[::CALIBRATION],
        "test": [example for index, example in enumerate(photographs) if index % CALIBRATION],
    }
    keras.utils.set_random_seed(0)
    model = kv.create_model(MODEL, weights="imagenet")

    def batches(split: str):
        return data.batches(split, image_size=model.image_size, preprocessing=model.preprocessing)

    with tempfile.TemporaryDirectory() as folder:
        model.save(Path(folder) / "model.keras")
        reference = kv.evaluate(Path(folder) / "model.keras", data)["accuracy"]
        keras_ms = kv.benchmark(Path(folder) / "model.keras")["median_ms"]
        rows = []
        for quantization in FILES:
            report = kv.export(model, folder, quantization=quantization, data=batches("train"))
            accuracy = kv.evaluate(report.path, data)["accuracy"]
            case = f"tflite {quantization}"
            rows.append(row(f"{case} top-1", accuracy, reference, "share", 1 - LARGEST_LOSS / reference, "least"))
            rows.append(row(f"{case} latency", report.latency["median_ms"], keras_ms, "ms", 1.0, "most"))
            rows.append(row(f"{case} size", report.size_bytes / 1e6, 4 * report.parameters / 1e6, "MB", 1.01, "most"))
    show(rows, title=MODEL, ours="file", peer="Keras model", as_json=arguments.json)


if __name__ == "__main__":
    main()
