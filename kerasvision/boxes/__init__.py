"""Boxes: formats, overlap, anchors, coding, matching, suppression and losses, as small pure functions.

Boxes are xyxy in continuous pixels. Formats and overlaps take NumPy arrays and tensors; what runs in a net, a loss
or an exported file is written in `keras.ops` with static shapes.
"""

from kerasvision.boxes.anchors import AnchorFit, fit_anchors, measure_anchors
from kerasvision.boxes.losses import distribution_focal_loss, overlap_loss, repulsion_loss, smooth_l1
from kerasvision.boxes.matching import Match, gather_objects, match_aligned, match_best_size, match_overlaps
from kerasvision.boxes.nms import hard_nms, matrix_nms, soft_nms
from kerasvision.boxes.overlap import ciou, covered, diou, giou, iou, pairwise, pairwise_iou, size_iou

__all__ = [
    "AnchorFit",
    "Match",
    "ciou",
    "covered",
    "diou",
    "distribution_focal_loss",
    "fit_anchors",
    "gather_objects",
    "giou",
    "hard_nms",
    "iou",
    "match_aligned",
    "match_best_size",
    "match_overlaps",
    "matrix_nms",
    "measure_anchors",
    "overlap_loss",
    "pairwise",
    "pairwise_iou",
    "repulsion_loss",
    "size_iou",
    "smooth_l1",
    "soft_nms",
]
