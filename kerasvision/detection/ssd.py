"""SSD and SSD-Lite: default boxes, a softmax over the classes and the background, hard negative mining.

Liu et al., 2016, arXiv:1512.02325, and Sandler et al., 2018, arXiv:1801.04381.
"""

from collections.abc import Mapping, Sequence
from typing import Any, Literal

import numpy as np
from keras import ops

from kerasvision.backbones.vgg import VARIANTS, reduced_vgg
from kerasvision.boxes.coding import VARIANCES, encode_deltas
from kerasvision.boxes.grid import Grid, ssd300_grid, ssd512_grid, ssdlite_grid
from kerasvision.boxes.losses import smooth_l1
from kerasvision.boxes.matching import Match, gather_objects, match_overlaps
from kerasvision.detection.heads import PRIOR, ssd_head
from kerasvision.detection.method import Method, Tensors, chosen_boxes, per_positive
from kerasvision.detection.retinanet import FocalAnchors
from kerasvision.detection.task import DetectionTask
from kerasvision.errors import UnknownNameError, closest
from kerasvision.layers.l2_normalization import L2Normalization
from kerasvision.layers.pyramid import downsampled_levels, with_extra_levels
from kerasvision.registry import build_backbone, register

# Of an image without objects, as in TensorFlow's Object Detection API.
LEAST_NEGATIVES = 3


class MultiBox(Method):
    """Default boxes, each with one class or the background, which is the last of the K + 1 logits.

    Args:
        grid: the default boxes.
        classes: K, without the background.
        positive: least IoU with which a box answers for an object; the best box of each object always does.
        negative: below it, a box is background; those between are left out.
        negatives: background boxes that are trained for each positive one, those of the highest loss.
        variances: what the deltas are divided by.
    """

    loss_names = ("class_loss", "box_loss")

    def __init__(
        self,
        grid: Grid,
        classes: int,
        *,
        positive: float = 0.5,
        negative: float = 0.5,
        negatives: int = 3,
        variances: Sequence[float] = VARIANCES,
    ) -> None:
        self.grid = grid
        self.classes = classes
        self.positive = positive
        self.negative = negative
        self.negatives = negatives
        self.variances = tuple(variances)

    def match(self, targets: Tensors, outputs: Tensors) -> Match:
        """Which object each default box answers for."""
        return match_overlaps(
            self.grid.boxes,
            targets["boxes"],
            targets["valid"],
            targets.get("crowd"),
            positive=self.positive,
            negative=self.negative,
            keep_best="one",
        )

    def losses(self, targets: Tensors, outputs: Tensors) -> Tensors:
        """Cross-entropy of positives and hard negatives, smooth L1 of positives; `LEAST_NEGATIVES` without objects."""
        boxes, anchors = targets["boxes"], self.grid.boxes
        match = self.match(targets, outputs)
        classes = ops.cast(gather_objects(targets["classes"], match), "int32")
        wanted = ops.one_hot(ops.where(match.positive, classes, self.classes), self.classes + 1, dtype="float32")
        values = -ops.sum(wanted * ops.log_softmax(outputs["class_logits"], axis=-1), axis=-1)
        count = self.negatives * ops.sum(ops.cast(match.positive, "int32"), axis=1)
        background = ops.logical_not(ops.logical_or(match.positive, match.ignored))
        chosen = hardest(values, background, ops.maximum(count, LEAST_NEGATIVES))
        own = ops.where(match.positive[..., None], gather_objects(ops.cast(boxes, "float32"), match), anchors)
        distance = smooth_l1(encode_deltas(own, anchors, self.variances), outputs["box_deltas"])
        return {
            "class_loss": per_positive(ops.where(ops.logical_or(match.positive, chosen), values, 0.0), match.positive),
            "box_loss": per_positive(ops.where(match.positive, distance, 0.0), match.positive),
        }

    def candidates(self, outputs: Tensors) -> tuple[Any, Any]:
        """The boxes of chosen default boxes, and the shares of the softmax of all; the background's are 0."""
        boxes = chosen_boxes(outputs["box_deltas"], self.grid.boxes, self.variances)
        # Cutting the background off would take a phone four times as long.
        objects = np.arange(self.classes + 1) < self.classes
        return boxes, ops.softmax(outputs["class_logits"], axis=-1) * objects.astype(np.float32)


def hardest(values: Any, allowed: Any, count: Any) -> Any:
    """The places with the highest values of each image.

    Args:
        values: losses, float [B, A], at least 0.
        allowed: which may be taken, bool [B, A].
        count: how many of them, int [B].

    Returns:
        bool [B, A]; exactly `count` are chosen, or all that are allowed where there are fewer. Of equal values, any.
    """
    order = ops.argsort(ops.where(allowed, -ops.stop_gradient(values), 1.0), axis=1)
    # The place of each in that order.
    rank = ops.cast(ops.argsort(order, axis=1), "int32")
    return ops.logical_and(allowed, rank < ops.cast(count, "int32")[:, None])


@register("ssd300", kind="detection", input_shape=(300, 300, 3))
def ssd300(
    x: Any, task: DetectionTask, *, weights: str | None = None, backbone: str = "vgg16"
) -> tuple[Tensors, Tensors]:
    """SSD300: 8,732 boxes; 26,285,486 parameters with VGG-16 and 20 classes.

    The paper's suppression is `create_model("ssd300", iou=0.45, detections=200, candidates=400)`.

    Args:
        x: normalized image, [B, 300, 300, C].
        task: that it is built for.
        weights: of the backbone; "imagenet" gives fc6 and fc7 theirs too.
        backbone: "vgg16" or "vgg19".

    Returns:
        Raw outputs "box_deltas" [B, 8732, 4] and "class_logits" [B, 8732, K + 1], the background last; the features.

    Raises:
        ValueError: an image of another size.
        UnknownNameError: another backbone.
    """
    return _ssd(x, task, weights, backbone, ssd300_grid(), 300, (512, 256, 256, 256), (4, 6, 6, 6, 4, 4), unpadded=2)


@register("ssd512", kind="detection", input_shape=(512, 512, 3))
def ssd512(
    x: Any, task: DetectionTask, *, weights: str | None = None, backbone: str = "vgg16"
) -> tuple[Tensors, Tensors]:
    """SSD512: one level more than SSD300, 24,564 boxes; 27,188,676 parameters with VGG-16 and 20 classes.

    The paper's suppression is `create_model("ssd512", iou=0.45, detections=200, candidates=400)`.

    Args:
        x: normalized image, [B, 512, 512, C].
        task: that it is built for.
        weights: of the backbone; "imagenet" gives fc6 and fc7 theirs too.
        backbone: "vgg16" or "vgg19".

    Returns:
        Raw outputs "box_deltas" [B, 24564, 4] and "class_logits" [B, 24564, K + 1], the background last; the features.

    Raises:
        ValueError: an image of another size.
        UnknownNameError: another backbone.
    """
    filters, anchors = (512, 256, 256, 256, 256), (4, 6, 6, 6, 6, 4, 4)
    return _ssd(x, task, weights, backbone, ssd512_grid(), 512, filters, anchors, last_kernel_size=4)


def _ssd(
    x: Any,
    task: DetectionTask,
    weights: str | None,
    backbone: str,
    grid: Grid,
    side: int,
    filters: Sequence[int],
    anchors: Sequence[int],
    **options: Any,
) -> tuple[Tensors, Tensors]:
    """Reduced VGG, the further levels, and a head without anything shared; arguments as of `downsampled_levels`."""
    if task.image_size != (side, side):
        raise ValueError(
            f"SSD{side} takes images of {side}x{side} pixels, got {task.image_size[0]}x{task.image_size[1]}. Leave out "
            'input_shape, or take "ssdlite", which takes any size.'
        )
    if backbone not in VARIANTS:
        raise UnknownNameError(
            f'SSD{side} stands on a VGG net, not on "{backbone}".{closest(backbone, VARIANTS)} "ssdlite" takes any.'
        )
    features = reduced_vgg(x, VARIANTS[backbone], weights)
    # Its values are larger than those of the other levels.
    features["P3"] = L2Normalization(name="P3_normalization")(features["P3"])
    pyramid = downsampled_levels(features, filters, levels=("P3", "P4"), **options)
    task.bind(MultiBox(grid, len(task.labels)))
    return ssd_head(pyramid, len(task.labels) + 1, anchors), pyramid


@register("ssdlite", kind="detection", input_shape=(320, 320, 3))
def ssdlite(
    x: Any,
    task: DetectionTask,
    *,
    weights: str | None = None,
    backbone: str = "mobilenet_v2",
    backbone_arguments: Mapping[str, Any] | None = None,
    levels: Sequence[str] = ("P4", "P5"),
    extra_filters: Sequence[int] = (512, 256, 256, 128),
    scales: Sequence[float] | None = None,
    ratios: Sequence[float] = (2, 3),
    loss: Literal["softmax", "focal"] = "softmax",
    positive: float = 0.5,
    negative: float = 0.5,
) -> tuple[Tensors, Tensors]:
    """SSD-Lite on any backbone: separable convolutions, batch normalizations and ReLU6 throughout.

    For small objects add a level, and begin with a smaller scale: levels=("P3", "P4", "P5"), extra_filters=(256, 128),
    scales=(0.06, 0.12, 0.25, 0.45, 0.7, 0.95). `kerasvision.boxes.measure_anchors` tells how well boxes fit a data set.

    Args:
        x: normalized image, [B, H, W, C], of any size.
        task: that it is built for.
        weights: of the backbone.
        backbone: a name of the registry.
        backbone_arguments: of its builder, such as {"alpha": 0.5}.
        levels: of the backbone, from fine to coarse.
        extra_filters: channels of each further level.
        scales: of the squares of each level, as shares of the shorter side of the image, and one more behind the last;
            from 0.2 to 0.95 in even steps, then 1, when None.
        ratios: of the other boxes, above 1; each lies and stands.
        loss: "softmax" over the classes and the background with hard negative mining, as in the paper, or "focal" with
            a sigmoid for each class.
        positive: least IoU of a box that answers for an object.
        negative: below it, a box is background; those between are left out.

    Returns:
        Raw outputs "box_deltas" [B, A, 4] and "class_logits" [B, A, K + 1], the background last ("focal": [B, A, K]),
        and the features.

    Raises:
        ValueError: an unknown loss, a missing level, or another number of scales than levels and one.
    """
    if loss not in ("softmax", "focal"):
        raise ValueError(f'loss must be "softmax" or "focal", got {loss!r}.')
    features = build_backbone(backbone, x, weights=weights, **(backbone_arguments or {}))
    pyramid = downsampled_levels(features, extra_filters, levels=tuple(levels), separable=True, normalized=True)
    shapes = [feature.shape[1:3] for feature in pyramid.values()]
    grid, classes = ssdlite_grid(task.image_size, shapes, scales, ratios), len(task.labels)
    anchors = [2 + 2 * len(ratios)] * len(pyramid)
    if loss == "focal":
        outputs = ssd_head(pyramid, classes, anchors, separable=True, prior=PRIOR)
        task.bind(FocalAnchors(grid, classes, positive=positive, negative=negative, variances=VARIANCES))
    else:
        outputs = ssd_head(pyramid, classes + 1, anchors, separable=True)
        task.bind(MultiBox(grid, classes, positive=positive, negative=negative))
    return outputs, with_extra_levels(features, pyramid)
