"""Image classification: one label or several for each image, on any registered backbone."""

from kerasvision.classification.task import ClassificationTask

__all__ = ["ClassificationTask"]
