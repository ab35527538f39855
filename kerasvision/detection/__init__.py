"""Detection: what is where in an image."""

from kerasvision.detection.breakdown import ErrorBreakdown
from kerasvision.detection.curves import Operating, PrecisionRecall
from kerasvision.detection.metrics import DetectionMetrics

__all__ = ["DetectionMetrics", "ErrorBreakdown", "Operating", "PrecisionRecall"]
