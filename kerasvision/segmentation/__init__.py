"""Semantic segmentation: a class for every pixel. One file per architecture; importing this room registers them all."""

import importlib
import pkgutil

from kerasvision.segmentation.instances import ObjectMetrics, find_objects
from kerasvision.segmentation.metrics import SegmentationMetrics
from kerasvision.segmentation.task import SegmentationTask

for _module in pkgutil.iter_modules(__path__):
    importlib.import_module(f"{__name__}.{_module.name}")

__all__ = ["ObjectMetrics", "SegmentationMetrics", "SegmentationTask", "find_objects"]
