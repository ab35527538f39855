"""How long a file takes, and how large it is."""

import io
import zipfile
from pathlib import Path
from typing import Any

import numpy as np

from kerasvision.export.engines import Engine, open_engine
from kerasvision.export.samples import synthetic_images
from kerasvision.progress import track

WARM_UP = 5


def benchmark(path: str | Path, *, threads: int = 2, runs: int = 50) -> dict[str, Any]:
    """Measure a model file on one image at a time.

    Args:
        path: `.tflite`, `.onnx`, `.keras`, or a SavedModel folder.
        threads: CPU threads, for `.tflite` and `.onnx`; TensorFlow takes what it was configured to take.
        runs: how often it is measured, after five runs that warm it up.

    Returns:
        {"median_ms", "p90_ms", "runs", "threads", "size_bytes"}; "threads" is None where it had no effect.

    Raises:
        ArtifactError: not a model file, or a damaged one.
    """
    if runs < 1:
        raise ValueError(f"runs must be at least 1, got {runs}.")
    return {**time_engine(open_engine(path, threads), threads, runs), "size_bytes": size_of(Path(path))}


def time_engine(engine: Engine, threads: int, runs: int) -> dict[str, Any]:
    """{"median_ms", "p90_ms", "runs", "threads"} of an opened file."""
    height, width, channels = engine.input_shape
    image = synthetic_images(1, (height, width, channels))
    for _ in range(WARM_UP):
        engine.time_once(image)
    seconds = [engine.time_once(image) for _ in track(range(runs), f"Timing {engine.path.name}")]
    return {
        "median_ms": float(np.median(seconds) * 1e3),
        "p90_ms": float(np.percentile(seconds, 90) * 1e3),
        "runs": runs,
        "threads": threads if engine.format in ("tflite", "onnx") else None,
    }


def size_of(path: Path) -> int:
    """Bytes of a file, or of all files in a folder."""
    return path.stat().st_size if path.is_file() else sum(p.stat().st_size for p in path.rglob("*") if p.is_file())


def zip_size_of(path: Path) -> int:
    """Bytes of a file, or of all files in a folder, in a zip archive (deflate), as an app's package holds them."""
    archive = io.BytesIO()
    with zipfile.ZipFile(archive, "w", zipfile.ZIP_DEFLATED, compresslevel=9) as target:
        for file in [path] if path.is_file() else sorted(p for p in path.rglob("*") if p.is_file()):
            target.write(file, file.relative_to(path.parent))
    return len(archive.getvalue())
