"""RetinaNet: a feature pyramid, two towers, focal loss (Lin et al., 2017, arXiv:1708.02002)."""

from collections.abc import Mapping, Sequence
from typing import Any, Literal

from keras import ops

from kerasvision.boxes.coding import decode_deltas, encode_deltas
from kerasvision.boxes.grid import RATIOS, RETINANET_SCALES, Grid, anchor_sizes, make_grid, map_shapes
from kerasvision.boxes.losses import overlap_loss, smooth_l1
from kerasvision.boxes.matching import Match, gather_objects, match_overlaps
from kerasvision.detection.heads import retinanet_head
from kerasvision.detection.losses import class_targets, focal_loss
from kerasvision.detection.method import Method, Tensors, best_of_place, chosen_boxes, per_positive
from kerasvision.detection.task import DetectionTask
from kerasvision.layers.pyramid import feature_pyramid, with_extra_levels
from kerasvision.registry import build_backbone, register

BoxLoss = Literal["smooth_l1", "giou"]
BETA = 0.11


class FocalAnchors(Method):
    """Many anchors a place, each with a sigmoid for every class.

    Args:
        grid: the anchors.
        classes: K.
        positive: least IoU with which an anchor answers for an object.
        negative: below it, it is background.
        alpha: of the focal loss.
        gamma: of the focal loss.
        box_loss: "smooth_l1" of the deltas, as in the paper, or "giou" of the boxes.
        variances: what the deltas are divided by.
    """

    loss_names = ("class_loss", "box_loss")

    def __init__(
        self,
        grid: Grid,
        classes: int,
        *,
        positive: float = 0.5,
        negative: float = 0.4,
        alpha: float = 0.25,
        gamma: float = 2.0,
        box_loss: BoxLoss = "smooth_l1",
        variances: Sequence[float] = (1.0, 1.0, 1.0, 1.0),
    ) -> None:
        if box_loss not in ("smooth_l1", "giou"):
            raise ValueError(f'box_loss must be "smooth_l1" or "giou", got {box_loss!r}.')
        self.grid = grid
        self.classes = classes
        self.positive = positive
        self.negative = negative
        self.alpha = alpha
        self.gamma = gamma
        self.box_loss = box_loss
        self.variances = tuple(variances)

    def match(self, targets: Tensors, outputs: Tensors) -> Match:
        """Which object each anchor answers for."""
        return match_overlaps(
            self.grid.boxes,
            targets["boxes"],
            targets["valid"],
            targets.get("crowd"),
            positive=self.positive,
            negative=self.negative,
        )

    def losses(self, targets: Tensors, outputs: Tensors) -> Tensors:
        """Focal loss of all anchors but the ignored ones, box loss of the positive ones."""
        boxes, anchors = targets["boxes"], self.grid.boxes
        match = self.match(targets, outputs)
        wanted = class_targets(gather_objects(targets["classes"], match), match.positive, self.classes)
        values = ops.sum(focal_loss(wanted, outputs["class_logits"], self.alpha, self.gamma), axis=-1)
        own = ops.where(match.positive[..., None], gather_objects(ops.cast(boxes, "float32"), match), anchors)
        deltas = outputs["box_deltas"]
        if self.box_loss == "giou":
            distance = overlap_loss(own, decode_deltas(deltas, anchors, self.variances))
        else:
            distance = smooth_l1(encode_deltas(own, anchors, self.variances), deltas, BETA)
        return {
            "class_loss": per_positive(ops.where(match.ignored, 0.0, values), match.positive),
            "box_loss": per_positive(ops.where(match.positive, distance, 0.0), match.positive),
        }

    def candidates(self, outputs: Tensors) -> tuple[Any, Any]:
        """The boxes of chosen anchors; the sigmoids of the classes of the best anchor of each place."""
        boxes = chosen_boxes(outputs["box_deltas"], self.grid.boxes, self.variances)
        return boxes, best_of_place(ops.sigmoid(outputs["class_logits"]), self.grid)


@register("retinanet", kind="detection", input_shape=(512, 512, 3))
def retinanet(
    x: Any,
    task: DetectionTask,
    *,
    weights: str | None = None,
    backbone: str = "resnet50",
    backbone_arguments: Mapping[str, Any] | None = None,
    filters: int = 256,
    depth: int = 4,
    levels: Sequence[str] = ("P3", "P4", "P5", "P6", "P7"),
    anchor_size: float = 4.0,
    scales: Sequence[float] = RETINANET_SCALES,
    ratios: Sequence[float] = RATIOS,
    separable: bool = False,
    normalized: bool = False,
    box_loss: BoxLoss = "smooth_l1",
    positive: float = 0.5,
    negative: float = 0.4,
) -> tuple[Tensors, Tensors]:
    """RetinaNet on any backbone; 34,014,999 parameters with ResNet-50 and 91 classes.

    Args:
        x: normalized image.
        task: that it is built for.
        weights: of the backbone.
        backbone: a name of the registry.
        backbone_arguments: of its builder, such as {"alpha": 0.5}.
        filters: channels of pyramid and towers.
        depth: convolutions of each tower.
        levels: of the pyramid; those of the backbone end with P5, P6 and P7 are made.
        anchor_size: side of an anchor of scale 1, in strides.
        scales: of the anchors of one level.
        ratios: height / width of the anchors.
        separable: whether 3x3 convolutions are depthwise, then 1x1: for phones.
        normalized: whether batch normalizations stand behind the convolutions of pyramid and towers.
        box_loss: "smooth_l1" as in the paper, or "giou".
        positive: least IoU of an anchor that answers for an object.
        negative: below it, an anchor is background.

    Returns:
        Raw outputs "box_deltas" [B, A, 4] and "class_logits" [B, A, K], and the backbone's features.
    """
    features = build_backbone(backbone, x, weights=weights, **(backbone_arguments or {}))
    levels = tuple(levels)
    own = tuple(level for level in levels if level in features)
    options: dict[str, Any] = {"separable": separable, "normalized": normalized}
    pyramid = feature_pyramid(features, filters, "p5" if "P6" in levels else None, levels=own, **options)
    pyramid = {level: pyramid[level] for level in levels}
    outputs = retinanet_head(pyramid, len(task.labels), len(scales) * len(ratios), filters, depth, **options)
    strides = [2 ** int(level[1:]) for level in levels]
    sizes = [anchor_sizes(anchor_size * stride, scales, ratios) for stride in strides]
    grid = make_grid(map_shapes(task.image_size, strides), strides, sizes)
    task.bind(FocalAnchors(grid, len(task.labels), box_loss=box_loss, positive=positive, negative=negative))
    return outputs, with_extra_levels(features, pyramid)
