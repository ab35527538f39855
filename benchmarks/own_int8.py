"""The int8 file that `export` writes, unchecked: of nets whose heads know nothing yet."""

import tempfile
from pathlib import Path

import numpy as np

import kerasvision as kv
from kerasvision.export.job import Job
from kerasvision.export.process import converter
from kerasvision.export.tflite import write_tflite


def write_int8(model: kv.TaskModel, path: Path, images: np.ndarray) -> None:
    """Write a model as int8, with ranges from images [N, H, W, C] of 0..255."""
    quantized = kv.quantize(model)
    quantized.calibrate(images)
    converter.start()
    with tempfile.TemporaryDirectory() as scratch:
        write_tflite(Job(quantized, "int8", path, Path(scratch), images, lambda: None))
