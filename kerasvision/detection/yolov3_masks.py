"""YOLOv3 with masks: prototypes of the whole image, and their coefficients for every box.

The masks are those of YOLACT (Bolya et al., 2019, arXiv:1904.02689), the boxes those of YOLOv3.
"""

import math
from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np
from keras import layers, ops

from kerasvision.boxes.arrays import gather_rows
from kerasvision.boxes.formats import clip_boxes, split
from kerasvision.boxes.grid import Grid
from kerasvision.boxes.matching import Match
from kerasvision.detection.instance_masks import crop_masks
from kerasvision.detection.losses import sigmoid_cross_entropy
from kerasvision.detection.method import Tensors, mean_over
from kerasvision.detection.task import DetectionTask
from kerasvision.detection.yolov3 import ANCHORS, CellAnchors, cell_anchor_net
from kerasvision.layers.pyramid import LEVELS
from kerasvision.layers.shared_convolution import shared_convolution
from kerasvision.registry import build_backbone, register

MASK_WEIGHT = 6.125  # Of the mask loss beside the others, in the paper.
# Places around a box that count in the loss: what is read up to the edge of a box also depends on its neighbour.
_BORDER = 1.0


def prototype_net(
    x: Any, count: int, filters: int = 256, depth: int = 3, *, doublings: int = 1, name: str = "prototypes"
) -> Any:
    """YOLACT's protonet: maps that are mixed to masks (Bolya et al., 2019, arXiv:1904.02689).

    Args:
        x: the finest level of a neck, [B, h, w, C].
        count: prototypes, k.
        filters: channels of the 3x3 convolutions.
        depth: 3x3 convolutions on the level itself.
        doublings: how often the size is doubled, with another 3x3 convolution each time.
        name: of the output, and prefix of the layers' names.

    Returns:
        float32 [B, h * 2**doublings, w * 2**doublings, k], not negative and without a bound.
    """
    for index in range(depth + doublings):
        if index >= depth:
            x = layers.UpSampling2D(2, name=f"{name}_up_{index - depth}")(x)
        x = shared_convolution(filters, 3, f"{name}_{index}")(x)
    x = layers.Conv2D(count, 1, kernel_initializer="he_normal", name=f"{name}_maps")(x)
    return layers.ReLU(name=name, dtype="float32")(x)


class CellAnchorsWithMasks(CellAnchors):
    """`CellAnchors` whose objects have masks: the sigmoid of a mixture of prototypes, within their box.

    Args:
        grid: as in `CellAnchors`, like the two following ones.
        classes: K.
        image_size: (H, W) in pixels.
        stride: of the prototypes.
        masks: at most so many objects of an image count in the mask loss.
        mask_size: bins along each side of a box in what is predicted.
        mask_weight: of the mask loss.
        **kwargs: of `CellAnchors`.
    """

    loss_names = (*CellAnchors.loss_names, "mask_loss")
    # Of every pixel: how much of a prototype's place is covered tells more about an outline than whether its centre is.
    mask_stride = 1

    def __init__(
        self,
        grid: Grid,
        classes: int,
        image_size: tuple[int, int],
        *,
        stride: int,
        masks: int,
        mask_size: int,
        mask_weight: float,
        **kwargs: Any,
    ) -> None:
        super().__init__(grid, classes, image_size, **kwargs)
        self.stride = stride
        self.masks = masks
        self.mask_size = mask_size
        self.mask_weight = mask_weight
        # Which anchors come first where there are too many: shuffled, or the lower part of an image would not count.
        count = len(grid.boxes)
        self._order = (1 + np.random.default_rng(0).permutation(count).astype(np.float32)) / count

    def losses(self, targets: Tensors, outputs: Tensors) -> Tensors:
        """Those of YOLOv3, and binary cross-entropy of the masks of matched objects.

        A mask's cross-entropy is summed over its box, at the prototypes' resolution, and divided by the box's area.

        Raises:
            ValueError: the targets have no masks.
        """
        if "masks" not in targets:
            raise ValueError(
                f'Expected "masks" [B, M, H/s, W/s] among the targets, got {", ".join(targets)}. Take data with masks, '
                "such as COCO segmentations, or the model yolov3."
            )
        match = self.match(targets, outputs)
        return {**self.losses_of(match, targets, outputs), "mask_loss": self._mask_loss(match, targets, outputs)}

    def _mask_loss(self, match: Match, targets: Tensors, outputs: Tensors) -> Any:
        objects, *size = targets["masks"].shape[1:]
        height, width = outputs["prototypes"].shape[1:3]
        order = ops.where(match.positive, self._order, 0.0)
        # An object has one anchor at most.
        rank, place = ops.top_k(order, min(self.masks, objects, len(self._order)))  # [B, P]
        chosen = rank > 0
        index = gather_rows(match.index[..., None], place)[..., 0]
        masks = gather_rows(ops.reshape(targets["masks"], (-1, objects, math.prod(size))), index)
        wanted = self._covered(ops.reshape(masks, (-1, rank.shape[1], *size)), (height, width))
        logits = mix_prototypes(outputs["prototypes"], gather_rows(outputs["mask_coefficients"], place))
        boxes = gather_rows(ops.cast(targets["boxes"], "float32"), index) / self.stride
        x0, y0, x1, y1 = split(ops.where(chosen[..., None], boxes, 0.0))
        rows, columns = _near(y0, y1, height)[..., :, None], _near(x0, x1, width)[..., None, :]
        values = ops.sum(sigmoid_cross_entropy(wanted, logits) * rows * columns, axis=(2, 3))
        # A box smaller than a place still has one.
        area = ops.maximum(x1 - x0, 1.0) * ops.maximum(y1 - y0, 1.0)
        return self.mask_weight * mean_over(values / area, chosen)

    def _covered(self, masks: Any, size: tuple[int, int]) -> Any:
        """The share of each place of the prototypes that masks cover: [B, P, H/s, W/s] -> float32 [B, P, h, w]."""
        samples = []
        for axis in (0, 1):
            pixels, image = masks.shape[2 + axis], self.image_size[axis]
            count = max(1, math.ceil(self.stride * pixels / image))
            # [count, h]: pixels of the masks under evenly spread points of each place; the last one beyond the border.
            points = (np.arange(size[axis]) + (np.arange(count)[:, None] + 0.5) / count) * self.stride
            samples.append(np.minimum(points * pixels / image, pixels - 1).astype(np.int32))
        rows, columns = samples
        # uint8 as long as it can be: the masks are large.
        down = sum(ops.take(masks, each, axis=2) for each in rows)
        covered = sum(ops.cast(ops.take(down, each, axis=3), "float32") for each in columns)
        return covered / (len(rows) * len(columns))

    def details(self, outputs: Tensors, found: Tensors) -> Tensors:
        """ "box_masks" float32 [B, D, S, S], in 0..1: how likely each part of the box belongs to the object.

        Prototypes are read bilinearly, so that small boxes have finer masks than the prototypes' places.
        """
        index = found["index"]
        logits = mix_prototypes(outputs["prototypes"], gather_rows(outputs["mask_coefficients"], index))
        boxes = clip_boxes(found["boxes"], self.image_size) / self.stride
        own = ops.cumsum(ops.ones_like(index, dtype="int32"), axis=1) - 1
        return {"box_masks": ops.sigmoid(crop_masks(logits, own, boxes, self.mask_size))}


def mix_prototypes(prototypes: Any, coefficients: Any) -> Any:
    """Masks of the whole image, not yet squashed.

    The coefficients are squashed here, in float, and not in the net: 8 bits hold them better before.

    Args:
        prototypes: [B, h, w, k].
        coefficients: [B, D, k], before their tanh.

    Returns:
        [B, D, h, w].
    """
    height, width, count = prototypes.shape[1:]
    flat = ops.transpose(ops.reshape(prototypes, (-1, height * width, count)), (0, 2, 1))
    return ops.reshape(ops.matmul(ops.tanh(coefficients), flat), (-1, coefficients.shape[1], height, width))


def _near(low: Any, high: Any, length: int) -> Any:
    """Whether the centres of places lie between two edges [B, P] or little beyond: float32 [B, P, length]."""
    centers = ops.arange(length, dtype="float32") + 0.5
    inside = ops.logical_and(centers >= low[..., None] - _BORDER, centers <= high[..., None] - -_BORDER)
    return ops.cast(inside, "float32")


@register("yolov3_masks", kind="detection", input_shape=(416, 416, 3))
def yolov3_masks(
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
    prototypes: int = 32,
    prototype_filters: int = 256,
    prototype_depth: int = 3,
    prototype_stride: int = 4,
    masks: int = 100,
    mask_size: int = 28,
    mask_weight: float = MASK_WEIGHT,
) -> tuple[Tensors, Tensors]:
    """YOLOv3 with a mask for every detection, mixed from prototypes as in YOLACT.

    Args:
        x: normalized image.
        task: that it is built for.
        weights: of the backbone.
        backbone: a name of the registry.
        backbone_arguments: of its builder, such as {"alpha": 0.5}.
        filters: as in `yolov3`, like the following ones.
        levels: of the backbone, that predict.
        anchors: (width, height) in pixels of this net's input.
        ignore: predictions with more IoU than this with any object are not background.
        prototypes: k.
        prototype_filters: channels of the convolutions that make them.
        prototype_depth: 3x3 convolutions on the finest level, before the size is doubled.
        prototype_stride: pixels of the image for one of a prototype's; 2 for objects of a dozen pixels.
        masks: at most so many objects of an image count in the mask loss.
        mask_size: a detection's mask has so many bins along each side of its box, S.
        mask_weight: of the mask loss.

    Returns:
        Raw outputs of `yolov3`, "mask_coefficients" [B, A, k], before their tanh, and "prototypes" [B, h, w, k]; and
        the features.

    Raises:
        ValueError: anchors that the levels cannot share, a level is missing, or a stride that doubling the finest level
            does not lead to.
    """
    finest = 2 ** int(levels[0][1:])
    strides = [finest >> count for count in range(finest.bit_length())]
    if prototype_stride not in strides:
        raise ValueError(
            f"prototype_stride must be one of {', '.join(map(str, strides))}: {levels[0]} has the stride {finest}, and "
            f"each doubling halves it; got {prototype_stride}."
        )
    features = build_backbone(backbone, x, weights=weights, **(backbone_arguments or {}))
    outputs, taps, pyramid, grid = cell_anchor_net(
        features, task, filters=filters, levels=levels, anchors=anchors, coefficients=prototypes
    )
    maps = prototype_net(
        pyramid[levels[0]],
        prototypes,
        prototype_filters,
        prototype_depth,
        doublings=strides.index(prototype_stride),
    )
    task.bind(
        CellAnchorsWithMasks(
            grid,
            len(task.labels),
            task.image_size,
            ignore=ignore,
            stride=prototype_stride,
            masks=masks,
            mask_size=mask_size,
            mask_weight=mask_weight,
        )
    )
    return {**outputs, "prototypes": maps}, taps
