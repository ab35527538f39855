"""What every format's writer is given."""

import dataclasses
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np


@dataclasses.dataclass(frozen=True)
class Job:
    """One export on its way.

    Args:
        model: TaskModel in float32, or QuantizedModel.
        quantization: "none", "float16", "dynamic", "int8" or "qat".
        path: file or folder to write; not yet its final place.
        scratch: folder for intermediate files.
        calibration: raw pixels [N, H, W, C] for "int8", else None.
        waiting: called now and then while a converter works.
    """

    model: Any
    quantization: str
    path: Path
    scratch: Path
    calibration: np.ndarray | None
    waiting: Callable[[], None]
