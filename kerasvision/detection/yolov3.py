"""YOLOv3: nine anchors on three levels, an objectness beside the classes (Redmon & Farhadi, 2018, arXiv:1804.02767)."""

from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np
from keras import ops

from kerasvision.boxes.arrays import gather_rows
from kerasvision.boxes.coding import decode_yolov3, encode_yolov3
from kerasvision.boxes.formats import box_areas
from kerasvision.boxes.grid import YOLOV3_SIZES, Grid, yolov3_grid
from kerasvision.boxes.matching import Match, gather_objects, match_best_size
from kerasvision.detection.heads import yolo_head
from kerasvision.detection.losses import class_targets, sigmoid_cross_entropy
from kerasvision.detection.method import Method, Tensors, per_positive
from kerasvision.detection.task import DetectionTask
from kerasvision.layers.pyramid import LEVELS, yolo_neck
from kerasvision.registry import build_backbone, register

ANCHORS = tuple(size for level in YOLOV3_SIZES for size in level)


class CellAnchors(Method):
    """A few anchors a cell; the one most like an object in size answers for it, in the cell of its center.

    Args:
        grid: the anchors.
        classes: K.
        image_size: (H, W) in pixels.
        ignore: predictions with more IoU than this with any object are not taught that they are background.
    """

    loss_names: tuple[str, ...] = ("class_loss", "box_loss", "objectness_loss")

    def __init__(self, grid: Grid, classes: int, image_size: tuple[int, int], *, ignore: float = 0.5) -> None:
        self.grid = grid
        self.classes = classes
        self.image_size = image_size
        self.ignore = ignore

    def match(self, targets: Tensors, outputs: Tensors) -> Match:
        """Which object each anchor answers for."""
        return match_best_size(
            self.grid.boxes,
            self.grid.strides,
            decode_yolov3(outputs["box_deltas"], self.grid.boxes, self.grid.strides),
            targets["boxes"],
            targets["valid"],
            targets.get("crowd"),
            ignore=self.ignore,
        )

    def losses(self, targets: Tensors, outputs: Tensors) -> Tensors:
        """Cross-entropies of classes, objectness, x and y, and half the squares of w and h.

        The gradients are those of Darknet, also for x and y, where the paper speaks of squares: half a square of the
        sigmoid has the same one when the sigmoid's own slope is left out. So the least box loss is above 0. Boxes count
        2 - their share of the image, small ones nearly twice as much as large ones.

        The paper's sums over an image are divided by its objects here, or by 1 where it has none: the size of the
        gradient, and with it the learning rate, does not hang on how crowded the images are.
        """
        return self.losses_of(self.match(targets, outputs), targets, outputs)

    def losses_of(self, match: Match, targets: Tensors, outputs: Tensors) -> Tensors:
        """`losses`, where the match is known."""
        positive = match.positive
        wanted = class_targets(gather_objects(targets["classes"], match), positive, self.classes)
        of_classes = ops.sum(sigmoid_cross_entropy(wanted, outputs["class_logits"]), axis=-1)

        own = ops.where(
            positive[..., None], gather_objects(ops.cast(targets["boxes"], "float32"), match), self.grid.boxes
        )
        goal, raw = encode_yolov3(own, self.grid.boxes, self.grid.strides), outputs["box_deltas"]
        place = sigmoid_cross_entropy(goal[..., :2], raw[..., :2])
        size = 0.5 * ops.square(goal[..., 2:] - raw[..., 2:])
        height, width = self.image_size
        scale = 2.0 - ops.minimum(box_areas(own) / (height * width), 1.0)
        of_boxes = scale * ops.sum(ops.concatenate([place, size], axis=-1), axis=-1)

        objectness = sigmoid_cross_entropy(ops.cast(positive, "float32"), outputs["objectness_logits"][..., 0])
        return {
            "class_loss": per_positive(ops.where(positive, of_classes, 0.0), positive),
            "box_loss": per_positive(ops.where(positive, of_boxes, 0.0), positive),
            "objectness_loss": per_positive(ops.where(match.ignored, 0.0, objectness), positive),
        }

    def candidates(self, outputs: Tensors) -> tuple[Any, Any]:
        """The boxes of chosen anchors; the scores of all are objectness times class."""
        anchors, strides = (ops.cast(values, "float32") for values in (self.grid.boxes, self.grid.strides))

        def boxes(index: Any) -> Any:
            chosen = (ops.take(values, index, axis=0) for values in (anchors, strides))
            return decode_yolov3(gather_rows(outputs["box_deltas"], index), *chosen)

        return boxes, ops.sigmoid(outputs["objectness_logits"]) * ops.sigmoid(outputs["class_logits"])


@register("yolov3", kind="detection", input_shape=(416, 416, 3))
def yolov3(
    x: Any,
    task: DetectionTask,
    *,
    weights: str | None = None,
    backbone: str = "darknet53",
    backbone_arguments: Mapping[str, Any] | None = None,
    filters: Sequence[int] = (128, 256, 512),
    levels: Sequence[str] = LEVELS,
    anchors: Sequence[Sequence[float]] = ANCHORS,
    ignore: float = 0.5,
) -> tuple[Tensors, Tensors]:
    """YOLOv3 on any backbone; 62,001,757 parameters with Darknet-53 and 80 classes, 10,647 boxes at 416 x 416.

    Args:
        x: normalized image.
        task: that it is built for.
        weights: of the backbone.
        backbone: a name of the registry.
        backbone_arguments: of its builder, such as {"alpha": 0.5}.
        filters: channels of the neck on each level, (64, 96, 128) for a phone.
        levels: of the backbone, that predict; P4 and P5 in the small YOLOv3 of Darknet.
        anchors: (width, height) in pixels of this net's input, by rising area; the levels share them evenly, from fine
            to coarse. COCO's at 416 x 416 by default; `kerasvision.boxes.fit_anchors` finds those of a data set.
        ignore: predictions with more IoU than this with any object are not background; 0.7 in Darknet's file.

    Returns:
        Raw outputs "box_deltas" [B, A, 4], "objectness_logits" [B, A, 1], "class_logits" [B, A, K], and the features.

    Raises:
        ValueError: anchors that the levels cannot share, or a level is missing.
    """
    features = build_backbone(backbone, x, weights=weights, **(backbone_arguments or {}))
    outputs, taps, _, grid = cell_anchor_net(features, task, filters=filters, levels=levels, anchors=anchors)
    task.bind(CellAnchors(grid, len(task.labels), task.image_size, ignore=ignore))
    return outputs, taps


def cell_anchor_net(
    features: Mapping[str, Any],
    task: DetectionTask,
    *,
    filters: Sequence[int],
    levels: Sequence[str],
    anchors: Sequence[Sequence[float]],
    coefficients: int = 0,
) -> tuple[Tensors, Tensors, Tensors, Grid]:
    """YOLOv3's neck and head.

    Args:
        features: of a backbone, {"P3": [B, H/8, W/8, C3], ...}.
        task: that the net is built for.
        filters: as in `yolov3`, like the following ones.
        levels: of the backbone.
        anchors: (width, height) in pixels.
        coefficients: of a mask, k; 0 for no masks.

    Returns:
        Raw outputs, those of `yolov3` and "mask_coefficients" [B, A, k] where there are any; the features that have a
        part in them; the neck's levels; the anchors.

    Raises:
        ValueError: anchors that the levels cannot share, or a level is missing.
    """
    levels = tuple(levels)
    sizes = _by_level(anchors, levels)
    pyramid = yolo_neck(features, filters, levels=levels)
    outputs = yolo_head(pyramid, len(task.labels), [len(level) for level in sizes], coefficients)
    grid = yolov3_grid(task.image_size, sizes, [2 ** int(level[1:]) for level in levels])
    # Coarser features than the coarsest level are no part of the net.
    taps = {level: feature for level, feature in features.items() if level <= levels[-1]}
    return outputs, taps, pyramid, grid


def _by_level(anchors: Sequence[Sequence[float]], levels: Sequence[str]) -> list[np.ndarray]:
    """[A, 2] -> [A / levels, 2] for each level."""
    sizes = np.asarray(anchors, np.float64)
    if sizes.ndim != 2 or sizes.shape[1] != 2 or not len(sizes) or len(sizes) % len(levels):
        raise ValueError(
            f"Expected anchors as (width, height) in pixels, as many for each of {', '.join(levels)}, got the shape "
            f"{list(sizes.shape)}. kerasvision.boxes.fit_anchors(sizes, {3 * len(levels)}) finds three for each."
        )
    return list(sizes.reshape(len(levels), -1, 2))
