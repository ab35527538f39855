"""Mask R-CNN: Faster R-CNN with a mask of every detection (He et al., 2017, arXiv:1703.06870)."""

from collections.abc import Mapping, Sequence
from typing import Any

import keras
from keras import layers, ops

from kerasvision.boxes.arrays import gather_rows, ratio
from kerasvision.boxes.formats import box_areas, clip_boxes
from kerasvision.boxes.grid import RATIOS, Grid
from kerasvision.boxes.matching import gather_objects
from kerasvision.detection.faster_rcnn import TwoStages, strides_of, two_stages
from kerasvision.detection.instance_masks import crop_masks
from kerasvision.detection.losses import sigmoid_cross_entropy
from kerasvision.detection.method import Tensors
from kerasvision.detection.proposals import proposal_grid, survivors
from kerasvision.detection.regions import match_regions, read_regions, spread_scores
from kerasvision.detection.task import DetectionTask
from kerasvision.layers.pyramid import with_extra_levels
from kerasvision.layers.roi_align import RoIAlign
from kerasvision.layers.shared_convolution import shared_convolution
from kerasvision.registry import register


@keras.saving.register_keras_serializable("kerasvision")
class MaskRegions(layers.Layer):
    """What gets a mask: proposals while training, detections otherwise. No gradient goes through.

    Training takes the proposals that most likely hold an object, several on each. Otherwise the boxes are refined and
    suppressed, so that there is one mask for each detection.

    Args:
        image_size: (H, W) in pixels.
        regions: an image, D; all there are where these are fewer.
        candidates: pairs of proposal and class that are compared with one another.
        iou: overlap from which a detection gives way to a better one of its class.
        rounds: of the suppression, see `survivors`.
        **kwargs: of `keras.layers.Layer`.
    """

    # Pixels need more than 8 bits: in float, its result too.
    quantization = "float"
    # See `kerasvision.choices`.
    chooses = True

    def __init__(
        self,
        image_size: Sequence[int],
        regions: int = 100,
        candidates: int = 300,
        iou: float = 0.5,
        rounds: int = 6,
        **kwargs: Any,
    ) -> None:
        super().__init__(**kwargs)
        self.autocast = False
        self.image_size = (int(image_size[0]), int(image_size[1]))
        self.regions = regions
        self.candidates = candidates
        self.iou = iou
        self.rounds = rounds

    def call(self, proposals: Any, class_logits: Any, box_deltas: Any, training: bool | None = None) -> Any:
        """Regions by falling score.

        Args:
            proposals: xyxy [B, N, 4] in pixels.
            class_logits: [B, N, K + 1].
            box_deltas: [B, N, 4 K].
            training: whether proposals are wanted.

        Returns:
            float32 [B, D, 6]: xyxy in pixels, score, class.
        """
        proposals, logits, deltas = (
            ops.stop_gradient(ops.cast(values, "float32")) for values in (proposals, class_logits, box_deltas)
        )
        if training:
            boxes = proposals
            scores, classes = ops.top_k(ops.softmax(logits, axis=-1)[..., :-1], 1)
            scores, classes = scores[..., 0], ops.cast(classes[..., 0], "int32")
            rank = scores
        else:
            outputs = {"class_logits": logits, "box_deltas": deltas}
            boxes, scores, classes = read_regions(proposals, outputs, self.candidates)
            boxes = clip_boxes(boxes, self.image_size)
            stays = survivors(boxes, self.iou, self.rounds, classes) * ops.cast(box_areas(boxes) > 0, "float32")
            rank = scores = scores * stays
        order = ops.top_k(rank, min(self.regions, rank.shape[1]))[1]
        rows = ops.concatenate([boxes, scores[..., None], ops.cast(classes, "float32")[..., None]], axis=-1)
        return gather_rows(rows, order)

    def get_config(self) -> dict[str, Any]:
        """The constructor's arguments."""
        return {
            **super().get_config(),
            "image_size": list(self.image_size),
            **{name: getattr(self, name) for name in ("regions", "candidates", "iou", "rounds")},
        }


@keras.saving.register_keras_serializable("kerasvision")
class Regroup(layers.Layer):
    """A reshape that may change the number of examples: [B, N, ...] -> [B * N, ...] and back.

    Args:
        shape: of one example of the result.
        **kwargs: of `keras.layers.Layer`.
    """

    quantization = "values"

    def __init__(self, shape: Sequence[int], **kwargs: Any) -> None:
        super().__init__(**kwargs)
        self.shape = tuple(int(side) for side in shape)

    def call(self, x: Any) -> Any:
        """The same values as [-1, *shape]."""
        return ops.reshape(x, (-1, *self.shape))

    def compute_output_shape(self, input_shape: Sequence[int | None]) -> tuple[int | None, ...]:
        """Of the result; Keras's JAX backend cannot divide an open number of examples."""
        return (None, *self.shape)

    def get_config(self) -> dict[str, Any]:
        """The constructor's arguments."""
        return {**super().get_config(), "shape": list(self.shape)}


def mask_head(
    x: Any,
    classes: int,
    filters: int = 256,
    depth: int = 4,
    *,
    separable: bool = False,
    normalized: bool = False,
    name: str = "mask",
) -> Any:
    """Convolutions on the features of each region, then twice the size (He et al., 2017, arXiv:1703.06870).

    Args:
        x: features of the regions, [B, D, size, size, C].
        classes: K.
        filters: channels.
        depth: 3x3 convolutions.
        separable: whether these are depthwise, then 1x1.
        normalized: whether a batch normalization stands behind each.
        name: prefix of the layers' names.

    Returns:
        "mask_logits" float32 [B, D, 2 size, 2 size, K].
    """
    _, count, height, width, channels = x.shape
    x = Regroup((height, width, channels), name=f"{name}_regions")(x)
    for index in range(depth):
        x = shared_convolution(filters, 3, f"{name}_{index}", separable=separable, normalized=normalized)(x)
    x = layers.Conv2DTranspose(filters, 2, 2, kernel_initializer="he_normal", name=f"{name}_up")(x)
    x = layers.ReLU(name=f"{name}_up_relu")(x)
    x = layers.Conv2D(classes, 1, kernel_initializer="he_normal", name=f"{name}_classes")(x)
    return Regroup((count, 2 * height, 2 * width, classes), dtype="float32", name="mask_logits")(x)


class TwoStagesWithMasks(TwoStages):
    """Two stages, and masks of what the net found itself; arguments as those of `TwoStages`."""

    loss_names = (*TwoStages.loss_names, "mask_loss")
    mask_stride = 1

    def __init__(self, grid: Grid, classes: int, image_size: tuple[int, int], **kwargs: Any) -> None:
        super().__init__(grid, classes, **kwargs)
        self.image_size = image_size

    def losses(self, targets: Tensors, outputs: Tensors) -> Tensors:
        """Losses of both stages, and binary cross-entropy of the masks of regions that lie on an object.

        Only the mask of the object's class counts.

        Raises:
            ValueError: the targets have no masks.
        """
        if "masks" not in targets:
            raise ValueError(
                f'Expected "masks" [B, M, H/s, W/s] among the targets, got {", ".join(targets)}. Take data with masks, '
                "such as COCO segmentations, or the model faster_rcnn."
            )
        return {**super().losses(targets, outputs), "mask_loss": self._mask_loss(targets, outputs)}

    def _mask_loss(self, targets: Tensors, outputs: Tensors) -> Any:
        boxes, logits = outputs["regions"][..., :4], outputs["mask_logits"]
        match, size = match_regions(boxes, targets), logits.shape[2]
        height, width = targets["masks"].shape[2:]
        scale = (width / self.image_size[1], height / self.image_size[0]) * 2
        wanted = crop_masks(targets["masks"], match.index, boxes * ops.cast(scale, "float32"), size)
        found = _of_classes(logits, gather_objects(targets["classes"], match))
        values = ops.mean(sigmoid_cross_entropy(wanted, found), axis=(2, 3))
        positive = ops.cast(match.positive, "float32")
        return ratio(ops.sum(values * positive, axis=1), ops.sum(positive, axis=1))

    def candidates(self, outputs: Tensors) -> tuple[Any, Any]:
        """The detections that have a mask."""
        boxes, scores, classes = ops.split(outputs["regions"], [4, 5], axis=-1)
        # Half more, because a number cut to a whole one must not be cut to the one below.
        classes = ops.cast(classes[..., 0] + 0.5, "int32")
        return boxes, spread_scores(scores[..., 0], classes, self.classes)

    def details(self, outputs: Tensors, found: Tensors) -> Tensors:
        """ "box_masks" float32 [B, D, S, S], in 0..1: how likely each part of the box belongs to the object."""
        logits, index = outputs["mask_logits"], found["index"]
        _, count, height, width, classes = logits.shape
        rows = gather_rows(ops.reshape(logits, (-1, count, height * width * classes)), index)
        rows = ops.reshape(rows, (-1, index.shape[1], height, width, classes))
        return {"box_masks": ops.sigmoid(_of_classes(rows, found["classes"]))}


def _of_classes(logits: Any, classes: Any) -> Any:
    """The mask of each region's class: [B, D, S, S, K] and int [B, D] -> [B, D, S, S]."""
    _, count, height, width, total = logits.shape
    chosen = ops.one_hot(ops.cast(classes, "int32"), total, dtype="float32")[..., None]  # [B, D, K, 1]
    picked = ops.matmul(ops.reshape(logits, (-1, count, height * width, total)), chosen)
    return ops.reshape(picked, (-1, count, height, width))


@register("mask_rcnn", kind="detection", input_shape=(512, 512, 3))
def mask_rcnn(
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
    masks: int = 100,
    mask_filters: int = 256,
    mask_depth: int = 4,
    mask_bins: int = 14,
    mask_iou: float = 0.5,
    separable: bool = False,
    normalized: bool = False,
) -> tuple[Tensors, Tensors]:
    """Mask R-CNN with a feature pyramid on any backbone.

    With ResNet-50, 90 classes and a background it has the 44,401,393 parameters of torchvision's, but for those that
    `faster_rcnn` names, and for the 257 of a mask of the background.

    Args:
        x: normalized image.
        task: that it is built for.
        weights: of the backbone.
        backbone: a name of the registry.
        backbone_arguments: of its builder, such as {"alpha": 0.5}.
        filters: as in `faster_rcnn`, like the following ones.
        levels: of the pyramid.
        anchor_size: side of an anchor of scale 1, in strides.
        scales: of the anchors of one level.
        ratios: height / width of the anchors.
        proposals: an image.
        level_candidates: as in `faster_rcnn`.
        samples: proposals of an image that count in the loss.
        head_widths: units of the hidden layers of the second stage.
        canonical_size: side in pixels of the boxes that take their features from P4.
        bin_samples: along each side of a bin of a region's features.
        masks: made for so many regions an image, D.
        mask_filters: channels of the mask branch.
        mask_depth: its 3x3 convolutions.
        mask_bins: along each side of a region's features in it; a mask has twice as many. 7 suits objects of a dozen
            pixels.
        mask_iou: overlap from which a detection gets no mask, and is left out, beside a better one of its class; for
            soft suppression take more, such as 0.8.
        separable: whether 3x3 convolutions are depthwise, then 1x1: for phones.
        normalized: whether batch normalizations stand behind the convolutions of pyramid and mask branch.

    Returns:
        Raw outputs of `faster_rcnn`, "regions" [B, D, 6] (xyxy in pixels, score, class) and "mask_logits"
        [B, D, S, S, K] with S = 2 `mask_bins`; and the features.
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
    regions = MaskRegions(task.image_size, masks, task.candidates, mask_iou, name="regions")(
        outputs["proposals"], outputs["class_logits"], outputs["box_deltas"]
    )
    own = [level for level in levels if level in features]
    aligned = RoIAlign(strides_of(own), mask_bins, bin_samples, canonical_size, name="mask_align")(
        [pyramid[level] for level in own], regions
    )
    options: dict[str, Any] = {"separable": separable, "normalized": normalized}
    logits = mask_head(aligned, len(task.labels), mask_filters, mask_depth, **options)
    grid = proposal_grid(task.image_size, strides_of(levels), **anchors)
    task.bind(TwoStagesWithMasks(grid, len(task.labels), task.image_size, samples=samples, candidates=task.candidates))
    return {**outputs, "regions": regions, "mask_logits": logits}, with_extra_levels(features, pyramid)
