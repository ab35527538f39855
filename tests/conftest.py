"""Fixtures of general use: folders of small images, and the folder of real data."""

import os
from collections.abc import Callable
from pathlib import Path

import numpy as np
import pytest
from PIL import Image

# Quiet start-up messages; set before anything imports TensorFlow.
os.environ.setdefault("TF_CPP_MIN_LOG_LEVEL", "3")


@pytest.fixture
def image_folder(tmp_path: Path) -> Callable[..., Path]:
    """Factory of class-folder trees: image_folder({"cats": 3, "train/dogs": 2}) -> the root."""

    def make(counts: dict[str, int], size: tuple[int, int] = (16, 12), root: str = "images") -> Path:
        rng = np.random.default_rng(0)
        for folder, count in counts.items():
            target = tmp_path / root / folder
            target.mkdir(parents=True, exist_ok=True)
            for index in range(count):
                pixels = rng.integers(0, 256, (*size, 3), np.uint8)
                Image.fromarray(pixels).save(target / f"{index:03}.png")
        return tmp_path / root

    return make


@pytest.fixture
def real_data() -> Path:
    """The folder KERASVISION_DATA points to; the test is skipped where it is not set."""
    folder = os.environ.get("KERASVISION_DATA")
    if not folder:
        pytest.skip("KERASVISION_DATA is not set: no real images to test with")
    return Path(folder)
