"""Boxes: overlap, and the anchors that fit a set of them."""

from kerasvision.boxes.anchors import AnchorFit, fit_anchors, measure_anchors
from kerasvision.boxes.iou import pairwise_iou, size_iou

__all__ = ["AnchorFit", "fit_anchors", "measure_anchors", "pairwise_iou", "size_iou"]
