"""Faster R-CNN: proposals on a feature pyramid, then classes and boxes of each (Ren et al., 2015, arXiv:1506.01497)."""

from collections.abc import Mapping, Sequence
from typing import Any

from keras import ops

from kerasvision.boxes.coding import encode_deltas
from kerasvision.boxes.grid import RATIOS, Grid
from kerasvision.boxes.losses import smooth_l1
from kerasvision.boxes.matching import gather_objects, match_overlaps
from kerasvision.detection.heads import rpn_head
from kerasvision.detection.losses import sigmoid_cross_entropy
from kerasvision.detection.method import Method, Tensors
from kerasvision.detection.proposals import RPN_VARIANCES, Proposals, proposal_grid
from kerasvision.detection.regions import (
    BETA,
    read_regions,
    region_head,
    region_losses,
    sampled_mean,
    sampling_weights,
    spread_scores,
)
from kerasvision.detection.task import DetectionTask
from kerasvision.layers.pyramid import feature_pyramid, with_extra_levels
from kerasvision.layers.roi_align import RoIAlign
from kerasvision.registry import build_backbone, register

RPN_SAMPLES = 256


class TwoStages(Method):
    """Anchors learn where objects are, proposals learn what they are.

    Proposals are made inside of the net, which sees the image alone: unlike in the paper's training, the true boxes are
    not among them. A mild suppression (0.7) keeps several proposals on each object, and fresh deltas are about 0, so
    the first proposals are anchors, some of which lie on objects. Where objects are few and small, more `proposals`
    help at the start.

    Args:
        grid: anchors of the region proposal network.
        classes: K.
        samples: proposals of an image in the loss of the second stage, a quarter of them on objects.
        candidates: pairs of proposal and class that are handed to the suppression.
    """

    loss_names: tuple[str, ...] = ("rpn_class_loss", "rpn_box_loss", "class_loss", "box_loss")

    def __init__(self, grid: Grid, classes: int, *, samples: int = 512, candidates: int = 300) -> None:
        self.grid = grid
        self.classes = classes
        self.samples = samples
        self.candidate_count = candidates

    def losses(self, targets: Tensors, outputs: Tensors) -> Tensors:
        """Losses of both stages."""
        return {
            **self.proposal_losses(targets, outputs),
            **region_losses(outputs["proposals"], outputs, targets, samples=self.samples),
        }

    def proposal_losses(self, targets: Tensors, outputs: Tensors) -> Tensors:
        """Anchors of IoU 0.7, or the best ones of an object, against those below 0.3: "rpn_class_loss", "rpn_box_loss".

        256 of an image count, at most half of them on objects, see `sampling_weights`.
        """
        boxes, anchors = ops.cast(targets["boxes"], "float32"), self.grid.boxes
        match = match_overlaps(anchors, boxes, targets["valid"], targets.get("crowd"), positive=0.7, negative=0.3)
        known = ops.logical_or(match.positive, match.ignored)
        weights = sampling_weights(match.positive, ops.logical_not(known), RPN_SAMPLES, 0.5)
        positive = ops.cast(match.positive, "float32")
        entropy = sigmoid_cross_entropy(positive, outputs["rpn_logits"][..., 0])
        own = ops.where(match.positive[..., None], gather_objects(boxes, match), anchors)
        distance = smooth_l1(encode_deltas(own, anchors, RPN_VARIANCES), outputs["rpn_deltas"], BETA)
        return {
            "rpn_class_loss": sampled_mean(entropy, weights),
            "rpn_box_loss": sampled_mean(distance * positive, weights),
        }

    def candidates(self, outputs: Tensors) -> tuple[Any, Any]:
        """The best pairs of proposal and class, each with a box of its own."""
        boxes, scores, classes = read_regions(outputs["proposals"], outputs, self.candidate_count)
        return boxes, spread_scores(scores, classes, self.classes)


def two_stages(
    x: Any,
    task: DetectionTask,
    *,
    weights: str | None,
    backbone: str,
    backbone_arguments: Mapping[str, Any] | None,
    filters: int,
    levels: Sequence[str],
    anchors: Mapping[str, Any],
    proposals: int,
    candidates: int,
    head_widths: Sequence[int],
    canonical_size: float,
    bin_samples: int,
    separable: bool,
    normalized: bool,
) -> tuple[Tensors, Tensors, Tensors]:
    """The net of both stages; arguments as those of `faster_rcnn`.

    Returns:
        Raw outputs, features of the backbone, and the pyramid.
    """
    features = build_backbone(backbone, x, weights=weights, **(backbone_arguments or {}))
    own = tuple(level for level in levels if level in features)
    extra = "pool" if len(own) < len(levels) else None
    pyramid = feature_pyramid(features, filters, extra, levels=own, separable=separable, normalized=normalized)
    pyramid = {level: pyramid[level] for level in levels}
    per_place = len(anchors["scales"]) * len(anchors["ratios"])
    outputs = rpn_head(pyramid, per_place, filters, separable=separable)
    found = Proposals(
        task.image_size, strides_of(levels), proposals=proposals, candidates=candidates, name="proposals", **anchors
    )(outputs["rpn_deltas"], outputs["rpn_logits"])
    aligned = RoIAlign(strides_of(own), 7, bin_samples, canonical_size, name="region_align")(
        [pyramid[level] for level in own], found
    )
    outputs |= {"proposals": found, **region_head(aligned, len(task.labels), head_widths)}
    return outputs, features, pyramid


def strides_of(levels: Sequence[str]) -> list[int]:
    """("P2", "P3") -> [4, 8]."""
    return [2 ** int(level[1:]) for level in levels]


@register("faster_rcnn", kind="detection", input_shape=(512, 512, 3))
def faster_rcnn(
    x: Any,
    task: DetectionTask,
    *,
    weights: str | None = None,
    backbone: str = "resnet50",
    backbone_arguments: Mapping[str, Any] | None = None,
    filters: int = 256,
    levels: Sequence[str] = ("P2", "P3", "P4", "P5", "P6"),
    anchor_size: float = 8.0,
    scales: Sequence[float] = (1.0,),
    ratios: Sequence[float] = RATIOS,
    proposals: int = 300,
    level_candidates: int = 300,
    samples: int = 512,
    head_widths: Sequence[int] = (1024, 1024),
    canonical_size: float = 224.0,
    bin_samples: int = 2,
    separable: bool = False,
    normalized: bool = False,
) -> tuple[Tensors, Tensors]:
    """Faster R-CNN with a feature pyramid (Lin et al., 2017, arXiv:1612.03144) on any backbone.

    With ResNet-50, 90 classes and a background it has the 41,755,286 parameters of torchvision's, less the 4,100 of a
    box for the background, which is never learned, and with the normalizations and biases of the backbone, 132,800.

    Args:
        x: normalized image.
        task: that it is built for.
        weights: of the backbone.
        backbone: a name of the registry.
        backbone_arguments: of its builder, such as {"alpha": 0.5}.
        filters: channels of pyramid and region proposal network.
        levels: of the pyramid, where proposals come from; P6 is made by pooling. Features of regions come from those
            that the backbone has.
        anchor_size: side of an anchor of scale 1, in strides.
        scales: of the anchors of one level.
        ratios: height / width of the anchors.
        proposals: an image, 1,000 in the paper; the second stage costs in proportion.
        level_candidates: of each level before their suppression, 1,000 in the paper. Where they are few beside the
            objects, the rivals of clear ones keep faint ones out; the same goes for the task's `candidates`.
        samples: proposals of an image that count in the loss.
        head_widths: units of the hidden layers of the second stage.
        canonical_size: side in pixels of the boxes that take their features from P4; 224 suits images of 800 pixels.
        bin_samples: along each side of a bin of a region's features; 1 takes a fraction of the time on a phone.
        separable: whether 3x3 convolutions are depthwise, then 1x1: for phones.
        normalized: whether batch normalizations stand behind the convolutions of the pyramid.

    Returns:
        Raw outputs "rpn_deltas" [B, A, 4], "rpn_logits" [B, A, 1], "proposals" xyxy [B, N, 4] in pixels, "class_logits"
        [B, N, K + 1], the background last, "box_deltas" [B, N, 4 K]; and the features.
    """
    anchors: dict[str, Any] = {"anchor_size": anchor_size, "scales": scales, "ratios": ratios}
    outputs, features, pyramid = two_stages(
        x,
        task,
        weights=weights,
        backbone=backbone,
        backbone_arguments=backbone_arguments,
        filters=filters,
        levels=tuple(levels),
        anchors=anchors,
        proposals=proposals,
        candidates=level_candidates,
        head_widths=head_widths,
        canonical_size=canonical_size,
        bin_samples=bin_samples,
        separable=separable,
        normalized=normalized,
    )
    grid = proposal_grid(task.image_size, strides_of(levels), **anchors)
    task.bind(TwoStages(grid, len(task.labels), samples=samples, candidates=task.candidates))
    return outputs, with_extra_levels(features, pyramid)
