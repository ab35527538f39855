"""Boxes: formats, overlap, anchors, coding, matching, suppression and losses, as small pure functions.

Boxes are xyxy in continuous pixels. Formats and overlaps take NumPy arrays and tensors; what runs in a net, a loss
or an exported file is written in `keras.ops` with static shapes.
"""

from kerasvision.boxes.anchors import AnchorFit, fit_anchors, measure_anchors
from kerasvision.boxes.overlap import ciou, covered, diou, giou, iou, pairwise, pairwise_iou, size_iou

__all__ = [
    "AnchorFit",
    "ciou",
    "covered",
    "diou",
    "fit_anchors",
    "giou",
    "iou",
    "measure_anchors",
    "pairwise",
    "pairwise_iou",
    "size_iou",
]
