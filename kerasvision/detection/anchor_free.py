"""The anchor-free detector of today: one box a place, task-aligned assignment, distances as distributions.

From TOOD (Feng et al., 2021, arXiv:2108.07755), Generalized Focal Loss (Li et al., 2020, arXiv:2006.04388) and the form
that Ultralytics' YOLOv8 gave them, on backbones and a neck for phones. Every activation is bounded or a plain ReLU, and
all convolutions have int8 kernels. What a distribution means is computed in float, when the outputs are decoded.

Parameters and multiply-accumulates with 80 classes:

| name | backbone | parameters | 320x320 | 416x416 |
|---|---|---|---|---|
| anchor_free_n | mobilenet_v2, alpha 0.5 | 710,928 | 0.29 G | 0.49 G |
| anchor_free_s | efficientnet_lite0 | 3,416,240 | 0.94 G | 1.58 G |
| anchor_free_m | efficientnet_lite2 | 5,129,184 | 1.48 G | 2.51 G |
"""

from collections.abc import Mapping, Sequence
from typing import Any, Literal, NamedTuple

from keras import ops

from kerasvision.boxes.arrays import gather_rows
from kerasvision.boxes.coding import decode_distances, encode_distances, mean_distances
from kerasvision.boxes.grid import Grid, center_grid
from kerasvision.boxes.losses import distribution_focal_loss, overlap_loss
from kerasvision.boxes.matching import Match, gather_objects, match_aligned
from kerasvision.boxes.overlap import ciou, giou
from kerasvision.detection.heads import decoupled_head
from kerasvision.detection.losses import class_targets, sigmoid_cross_entropy
from kerasvision.detection.method import Method, Tensors, per_positive
from kerasvision.detection.task import DetectionTask
from kerasvision.layers.pyramid import LEVELS, path_aggregation
from kerasvision.registry import build_backbone, register

BoxLoss = Literal["ciou", "giou"]
_MEASURES = {"ciou": ciou, "giou": giou}


class AlignedCenters(Method):
    """One box a place, and as score of its class how well it should fit.

    Args:
        grid: the places, see `center_grid`.
        classes: K.
        alpha: power of the score in the alignment.
        beta: power of the IoU.
        top: places an object.
        box_loss: "ciou" or "giou".
        class_weight: factor of the class loss.
        box_weight: factor of the box loss.
        distribution_weight: factor of the distribution focal loss.

    Raises:
        ValueError: another `box_loss`, or fewer than one place an object.
    """

    loss_names = ("class_loss", "box_loss", "distribution_loss")

    def __init__(
        self,
        grid: Grid,
        classes: int,
        *,
        alpha: float = 0.5,
        beta: float = 6.0,
        top: int = 10,
        box_loss: BoxLoss = "ciou",
        class_weight: float = 0.5,
        box_weight: float = 7.5,
        distribution_weight: float = 1.5,
    ) -> None:
        if box_loss not in _MEASURES:
            raise ValueError(f'box_loss must be "ciou" or "giou", got {box_loss!r}.')
        if top < 1:
            raise ValueError(f"top must be at least 1, got {top}. Today's detectors take 10.")
        self.grid = grid
        self.classes = classes
        self.alpha = alpha
        self.beta = beta
        self.top = top
        self.box_loss = box_loss
        self.class_weight = class_weight
        self.box_weight = box_weight
        self.distribution_weight = distribution_weight

    def match(self, targets: Tensors, outputs: Tensors) -> Match:
        """Which object each place answers for, and the score that is wanted of it."""
        return match_aligned(
            self.grid.centers,
            self.grid.strides,
            ops.sigmoid(outputs["class_logits"]),
            self._all_boxes(outputs),
            targets["boxes"],
            targets["classes"],
            targets["valid"],
            targets.get("crowd"),
            alpha=self.alpha,
            beta=self.beta,
            top=self.top,
        )

    def losses(self, targets: Tensors, outputs: Tensors) -> Tensors:
        """Cross-entropy of all places with their wanted scores; of the positive ones also the box and its distances.

        The wanted score of a place is its scaled alignment, which weighs its box, too. All three are divided by the sum
        of an image's wanted scores, or by 1 where that is less.
        """
        match, found = self.match(targets, outputs), self._all_boxes(outputs)
        quality = match.quality
        wanted = class_targets(gather_objects(targets["classes"], match), match.positive, self.classes)
        values = ops.sum(sigmoid_cross_entropy(wanted * quality[..., None], outputs["class_logits"]), axis=-1)
        own = gather_objects(ops.cast(targets["boxes"], "float32"), match)
        own = ops.where(match.positive[..., None], own, self.grid.boxes)
        overlap = overlap_loss(own, found, _MEASURES[self.box_loss])
        distances = encode_distances(own, self.grid.centers, self.grid.strides)
        spread = distribution_focal_loss(distances, _by_side(outputs["box_bins"]))
        return {
            "class_loss": self.class_weight * per_positive(ops.where(match.ignored, 0.0, values), quality),
            "box_loss": self.box_weight * per_positive(overlap * quality, quality),
            "distribution_loss": self.distribution_weight * per_positive(spread * quality, quality),
        }

    def candidates(self, outputs: Tensors) -> tuple[Any, Any]:
        """The boxes of chosen places, and the sigmoids of the classes of all."""
        centers, strides = (ops.cast(values, "float32") for values in (self.grid.centers, self.grid.strides))

        def boxes(index: Any) -> Any:
            bins = gather_rows(outputs["box_bins"], index)
            chosen = (ops.take(values, index, axis=0) for values in (centers, strides))
            return decode_distances(mean_distances(_by_side(bins)), *chosen)

        return boxes, ops.sigmoid(outputs["class_logits"])

    def _all_boxes(self, outputs: Tensors) -> Any:
        """[B, A, 4]."""
        distances = mean_distances(_by_side(outputs["box_bins"]))
        return decode_distances(distances, self.grid.centers, self.grid.strides)


def _by_side(bins: Any) -> Any:
    """[B, A, 4 * R] -> [B, A, 4, R]."""
    _, places, values = bins.shape
    return ops.reshape(bins, (-1, places, 4, values // 4))


class Size(NamedTuple):
    """Backbone with its arguments, channels of the neck, and separable convolutions behind each of its joints."""

    backbone: str
    backbone_arguments: Mapping[str, Any]
    filters: int
    depth: int


SIZES = {
    "anchor_free_n": Size("mobilenet_v2", {"alpha": 0.5}, 64, 1),
    "anchor_free_s": Size("efficientnet_lite0", {}, 96, 1),
    "anchor_free_m": Size("efficientnet_lite2", {}, 128, 2),
}


def anchor_free(
    x: Any,
    task: DetectionTask,
    *,
    weights: str | None,
    backbone: str,
    backbone_arguments: Mapping[str, Any],
    filters: int,
    depth: int,
    levels: Sequence[str],
    bins: int,
    separable: bool,
    activation: str,
    box_loss: BoxLoss,
    top: int,
) -> tuple[Tensors, Tensors]:
    """An anchor-free detector on any backbone.

    Args:
        x: normalized image.
        task: that it is built for.
        weights: of the backbone.
        backbone: a name of the registry.
        backbone_arguments: of its builder; those of the size when None and the backbone is the size's own.
        filters: channels of the neck.
        depth: separable convolutions behind each joint of the neck.
        levels: of the backbone, that predict; with "P2" for objects of a few pixels, without "P5" where none is large.
        bins: of each distance. Boxes reach bins - 1 strides to each side of a place; 8 are enough for boxes of 448
            pixels on P5, and halve the box branch and what is read to decode it.
        separable: whether the 3x3 convolutions of the head are depthwise, then 1x1.
        activation: of neck and head, a Keras name.
        box_loss: "ciou" or "giou".
        top: positive places an object.

    Returns:
        Raw outputs "box_bins" [B, A, 4 * bins] and "class_logits" [B, A, K], and the features.

    Raises:
        ValueError: fewer than 2 bins, or a level is missing.
    """
    if bins < 2:
        raise ValueError(f"bins must be at least 2, got {bins}. Take 16, or 8 where boxes are smaller than 448 pixels.")
    features = build_backbone(backbone, x, weights=weights, **backbone_arguments)
    levels = tuple(levels)
    pyramid = path_aggregation(features, filters, depth=depth, levels=levels, activation=activation)
    outputs = decoupled_head(pyramid, len(task.labels), bins, separable=separable, activation=activation)
    grid = center_grid(task.image_size, [2 ** int(level[1:]) for level in levels])
    task.bind(AlignedCenters(grid, len(task.labels), box_loss=box_loss, top=top))
    return outputs, features


def _register(name: str, size: Size) -> None:
    def builder(
        x: Any,
        task: DetectionTask,
        *,
        weights: str | None = None,
        backbone: str = size.backbone,
        backbone_arguments: Mapping[str, Any] | None = None,
        filters: int = size.filters,
        depth: int = size.depth,
        levels: Sequence[str] = LEVELS,
        bins: int = 16,
        separable: bool = True,
        activation: str = "relu6",
        box_loss: BoxLoss = "ciou",
        top: int = 10,
    ) -> tuple[Tensors, Tensors]:
        """See `anchor_free`."""
        if backbone_arguments is None:
            backbone_arguments = size.backbone_arguments if backbone == size.backbone else {}
        return anchor_free(
            x,
            task,
            weights=weights,
            backbone=backbone,
            backbone_arguments=backbone_arguments,
            filters=filters,
            depth=depth,
            levels=levels,
            bins=bins,
            separable=separable,
            activation=activation,
            box_loss=box_loss,
            top=top,
        )

    register(name, kind="detection", input_shape=(320, 320, 3))(builder)


for _name, _size in SIZES.items():
    _register(_name, _size)
