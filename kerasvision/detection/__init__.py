"""Detection: what is where in an image. One file per architecture; importing this room registers them all."""

import importlib
import pkgutil

from kerasvision.detection.breakdown import ErrorBreakdown
from kerasvision.detection.curves import Operating, PrecisionRecall
from kerasvision.detection.metrics import DetectionMetrics
from kerasvision.detection.task import DetectionTask

for _module in pkgutil.iter_modules(__path__):
    importlib.import_module(f"{__name__}.{_module.name}")

__all__ = ["DetectionMetrics", "DetectionTask", "ErrorBreakdown", "Operating", "PrecisionRecall"]
