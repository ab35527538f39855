"""How nets write boxes: deltas to anchors, distances to centers, YOLOv3's offsets. All in `keras.ops`."""

import math
from collections.abc import Sequence
from typing import Any

from keras import ops

from kerasvision.boxes.formats import from_center, split, to_center

# Standard deviations of the deltas: SSD's variances, which are one over Faster R-CNN's weights (10, 10, 5, 5).
VARIANCES = (0.1, 0.1, 0.2, 0.2)
# A box may be so many times as large as its anchor, and no side is taken as shorter than this (pixels).
_LARGEST = math.log(1000 / 16)
_LEAST_SIDE = 1e-3


def encode_deltas(boxes: Any, anchors: Any, variances: Sequence[float] = VARIANCES) -> Any:
    """Offsets of the center in anchor sizes and logs of the size ratios (Girshick et al., 2014, arXiv:1311.2524).

    Args:
        boxes: xyxy [..., A, 4].
        anchors: xyxy [A, 4] or [..., A, 4], none of them empty.
        variances: what the four deltas are divided by; (1, 1, 1, 1) in RetinaNet.

    Returns:
        (dx, dy, dw, dh) [..., A, 4]; finite for boxes without area too.
    """
    x, y, width, height = split(to_center(ops.cast(boxes, "float32")))
    ax, ay, awidth, aheight = split(to_center(ops.cast(anchors, "float32")))
    logs = [ops.log(ops.maximum(side, _LEAST_SIDE) / own) for side, own in ((width, awidth), (height, aheight))]
    return ops.stack([(x - ax) / awidth, (y - ay) / aheight, *logs], axis=-1) / ops.cast(variances, "float32")


def decode_deltas(deltas: Any, anchors: Any, variances: Sequence[float] = VARIANCES) -> Any:
    """The boxes that deltas stand for; sizes are held below 62.5 times the anchor's.

    Args:
        deltas: (dx, dy, dw, dh) [..., A, 4].
        anchors: xyxy [A, 4] or [..., A, 4].
        variances: as in `encode_deltas`.

    Returns:
        xyxy float32 [..., A, 4].
    """
    dx, dy, dw, dh = split(ops.cast(deltas, "float32") * ops.cast(variances, "float32"))
    x, y, width, height = split(to_center(ops.cast(anchors, "float32")))
    sizes = [ops.exp(ops.minimum(delta, _LARGEST)) * own for delta, own in ((dw, width), (dh, height))]
    return from_center(ops.stack([x + dx * width, y + dy * height, *sizes], axis=-1))


def encode_distances(boxes: Any, centers: Any, strides: Any) -> Any:
    """Distances from a center to the four sides, in strides (FCOS: Tian et al., 2019, arXiv:1904.01355).

    Args:
        boxes: xyxy [..., A, 4].
        centers: [A, 2] in pixels.
        strides: [A] in pixels.

    Returns:
        (left, top, right, bottom) [..., A, 4]; negative where the center is outside of the box.
    """
    boxes, centers = ops.cast(boxes, "float32"), ops.cast(centers, "float32")
    distances = ops.concatenate([centers - boxes[..., :2], boxes[..., 2:] - centers], axis=-1)
    return distances / ops.cast(strides, "float32")[:, None]


def decode_distances(distances: Any, centers: Any, strides: Any) -> Any:
    """The boxes that distances stand for.

    Args:
        distances: (left, top, right, bottom) [..., A, 4] in strides.
        centers: [A, 2] or [..., A, 2] in pixels.
        strides: [A] or [..., A] in pixels.

    Returns:
        xyxy float32 [..., A, 4].
    """
    distances, centers = ops.cast(distances, "float32"), ops.cast(centers, "float32")
    distances = distances * ops.cast(strides, "float32")[..., None]
    return ops.concatenate([centers - distances[..., :2], centers + distances[..., 2:]], axis=-1)


def mean_distances(logits: Any) -> Any:
    """Distances as the means of distributions over 0..R-1 strides (Li et al., 2020, arXiv:2006.04388).

    Args:
        logits: [..., 4, R].

    Returns:
        float32 [..., 4] in strides.
    """
    shares = ops.softmax(ops.cast(logits, "float32"), axis=-1)
    return ops.sum(shares * ops.arange(logits.shape[-1], dtype="float32"), axis=-1)


def encode_yolov3(boxes: Any, anchors: Any, strides: Any) -> Any:
    """Place of the center within the anchor's cell and logs of the size ratios (YOLOv3, arXiv:1804.02767).

    Args:
        boxes: xyxy [..., A, 4].
        anchors: xyxy [A, 4] around the centers of their cells.
        strides: side of the cells, [A] in pixels.

    Returns:
        (x, y, w, h) [..., A, 4]; x and y in 0..1, what the sigmoids of the net should be, for boxes whose center
        lies in the cell, and clipped for others.
    """
    boxes, anchors = to_center(ops.cast(boxes, "float32")), to_center(ops.cast(anchors, "float32"))
    place = (boxes[..., :2] - anchors[..., :2]) / ops.cast(strides, "float32")[:, None] + 0.5
    sizes = ops.log(ops.maximum(boxes[..., 2:], _LEAST_SIDE) / anchors[..., 2:])
    return ops.concatenate([ops.clip(place, 0.0, 1.0), sizes], axis=-1)


def decode_yolov3(raw: Any, anchors: Any, strides: Any) -> Any:
    """The boxes that raw outputs of YOLOv3 stand for; sizes are held below 62.5 times the anchor's.

    Args:
        raw: (x, y, w, h) [..., A, 4]; x and y before their sigmoid.
        anchors: xyxy [A, 4] or [..., A, 4] around the centers of their cells.
        strides: side of the cells, [A] or [..., A] in pixels.

    Returns:
        xyxy float32 [..., A, 4].
    """
    raw, anchors = ops.cast(raw, "float32"), to_center(ops.cast(anchors, "float32"))
    move = (ops.sigmoid(raw[..., :2]) - 0.5) * ops.cast(strides, "float32")[..., None]
    sizes = ops.exp(ops.minimum(raw[..., 2:], _LARGEST)) * anchors[..., 2:]
    return from_center(ops.concatenate([anchors[..., :2] + move, sizes], axis=-1))
