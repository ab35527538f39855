"""YOLOv1: a grid of cells, each with two boxes and one class (Redmon et al., 2016, arXiv:1506.02640)."""

from collections.abc import Mapping
from typing import Any

import numpy as np
from keras import layers, ops

from kerasvision.boxes.formats import from_center, to_center
from kerasvision.boxes.grid import Grid, center_grid
from kerasvision.boxes.matching import gather_objects, match_best_size
from kerasvision.boxes.overlap import iou
from kerasvision.detection.losses import class_targets
from kerasvision.detection.method import Method, Tensors
from kerasvision.detection.task import DetectionTask
from kerasvision.layers.convolution import LEAKY_SLOPE
from kerasvision.layers.shared_convolution import shared_convolution
from kerasvision.registry import build_backbone, register

PREDICTORS = 2
# Of the backbone: (filters, side) of its convolutions, one list a stage; a max-pooling stands between the stages, and
# the first convolution has stride 2.
STAGES = (
    ((64, 7),),
    ((192, 3),),
    ((128, 1), (256, 3), (256, 1), (512, 3)),
    (*(((256, 1), (512, 3)) * 4), (512, 1), (1024, 3)),
    ((512, 1), (1024, 3)) * 2,
)


class Cells(Method):
    """Each cell has one class, and boxes of which the one that overlaps the cell's object most answers for it.

    The raw outputs are the numbers themselves: the place in the cell, roots of the shares of the image's sides,
    confidence and class scores in 0..1. Nothing squashes them.

    Args:
        grid: the cells.
        classes: K.
        image_size: (H, W) in pixels.
        coordinate_weight: lambda_coord.
        background_weight: lambda_noobj.
    """

    loss_names = ("class_loss", "box_loss", "confidence_loss")

    def __init__(
        self,
        grid: Grid,
        classes: int,
        image_size: tuple[int, int],
        *,
        coordinate_weight: float = 5.0,
        background_weight: float = 0.5,
    ) -> None:
        self.grid = grid
        self.classes = classes
        self.sides = np.array([image_size[1], image_size[0]], np.float32)
        self.coordinate_weight = coordinate_weight
        self.background_weight = background_weight

    def losses(self, targets: Tensors, outputs: Tensors) -> Tensors:
        """Squared errors, summed over an image as in the paper (its equation 3).

        An object belongs to the cell of its center; of several in one cell, the one most like the cell in size. The
        wanted confidence is the IoU. Where no box of a cell touches the object, the one nearest in its four numbers
        answers, as in Darknet.
        """
        cells, count = self.grid.boxes, len(self.grid)
        match = match_best_size(
            cells, self.grid.strides, cells, targets["boxes"], targets["valid"], targets.get("crowd"), ignore=1.0
        )
        positive = ops.cast(match.positive, "float32")
        own = gather_objects(ops.cast(targets["boxes"], "float32"), match)
        own = ops.where(match.positive[..., None], own, cells)
        raw = ops.reshape(outputs["box_values"], (-1, count, PREDICTORS, 4))
        # [B, cells, predictors]
        wrong = ops.sum(ops.square(self._encode(own)[:, :, None] - raw), axis=-1)
        overlap = ops.stop_gradient(iou(own[:, :, None], self._decode(raw)))
        rank = ops.where(ops.max(overlap, axis=-1, keepdims=True) > 0, overlap, -ops.stop_gradient(wrong))
        best = ops.equal(ops.arange(PREDICTORS, dtype="int32"), ops.cast(ops.top_k(rank, 1)[1], "int32"))
        responsible = positive[..., None] * ops.cast(best, "float32")

        confidence = ops.reshape(outputs["confidences"], (-1, count, PREDICTORS))
        known = 1.0 - ops.cast(match.ignored, "float32")
        background = self.background_weight * known[..., None] * (1.0 - responsible) * ops.square(confidence)
        wanted = class_targets(gather_objects(targets["classes"], match), match.positive, self.classes)
        of_classes = ops.sum(ops.square(wanted - outputs["class_scores"]), axis=-1)
        return {
            "class_loss": ops.sum(positive * of_classes, axis=1),
            "box_loss": self.coordinate_weight * ops.sum(responsible * wrong, axis=(1, 2)),
            "confidence_loss": ops.sum(responsible * ops.square(overlap - confidence) + background, axis=(1, 2)),
        }

    def candidates(self, outputs: Tensors) -> tuple[Any, Any]:
        """Both boxes of every cell; their scores are confidence times class."""
        count = len(self.grid)
        boxes = self._decode(ops.reshape(outputs["box_values"], (-1, count, PREDICTORS, 4)))
        confidence = ops.clip(ops.reshape(outputs["confidences"], (-1, count, PREDICTORS, 1)), 0.0, 1.0)
        scores = confidence * ops.clip(outputs["class_scores"], 0.0, 1.0)[:, :, None]
        return (
            ops.reshape(boxes, (-1, count * PREDICTORS, 4)),
            ops.reshape(scores, (-1, count * PREDICTORS, self.classes)),
        )

    def _encode(self, boxes: Any) -> Any:
        """xyxy [B, cells, 4] -> x and y in their cell, roots of width and height in shares of the image."""
        boxes = to_center(boxes)
        place = (boxes[..., :2] - self.grid.boxes[:, :2]) / self.grid.strides[:, None]
        return ops.concatenate([place, ops.sqrt(boxes[..., 2:] / self.sides)], axis=-1)

    def _decode(self, raw: Any) -> Any:
        """[B, cells, predictors, 4] -> xyxy of the same shape, in pixels."""
        place = raw[..., :2] * self.grid.strides[:, None, None] - -self.grid.boxes[:, None, :2]
        return from_center(ops.concatenate([place, ops.square(raw[..., 2:]) * self.sides], axis=-1))


def convolve(x: Any, filters: int, kernel_size: int, name: str, *, stride: int = 1, normalized: bool = False) -> Any:
    """Convolution and leaky ReLU, and a batch normalization between them on demand."""
    block = shared_convolution(
        filters,
        kernel_size,
        name,
        stride=stride,
        normalized=normalized,
        activation=None,
        kernel_initializer="he_normal",
    )
    return layers.LeakyReLU(LEAKY_SLOPE, name=f"{name}_leaky")(block(x))


def convolutions(x: Any, normalized: bool) -> dict[str, Any]:
    """The first 20 convolutions, which the paper trains as a classifier before.

    Args:
        x: normalized image, [B, H, W, C].
        normalized: whether batch normalizations stand behind the convolutions.

    Returns:
        P1 [B, H/2, W/2, 64] to P5 [B, H/32, W/32, 1024].
    """
    features = {}
    for stage, convolved in enumerate(STAGES, 1):
        if stage > 1:
            x = layers.MaxPooling2D(2, padding="same", name=f"stage{stage}_pool")(x)
        for index, (filters, size) in enumerate(convolved):
            stride = 2 if stage == 1 else 1
            x = convolve(x, filters, size, f"stage{stage}_{index}", stride=stride, normalized=normalized)
        features[f"P{stage}"] = x
    return features


@register("yolov1", kind="detection", input_shape=(448, 448, 3))
def yolov1(
    x: Any,
    task: DetectionTask,
    *,
    weights: str | None = None,
    backbone: str | None = None,
    backbone_arguments: Mapping[str, Any] | None = None,
    filters: int = 1024,
    units: int = 4096,
    dropout: float = 0.5,
    stride: int = 64,
    normalized: bool = False,
) -> tuple[Tensors, Tensors]:
    """YOLOv1: 24 convolutions and two fully connected layers; 271,703,550 parameters with 20 classes at 448 x 448.

    Args:
        x: normalized image.
        task: that it is built for.
        weights: of the backbone.
        backbone: a name of the registry, whose P5 takes the place of the first 20 convolutions; the paper's when None.
        backbone_arguments: of its builder, such as {"alpha": 0.5}.
        filters: channels of the four last convolutions.
        units: of the fully connected layer in the middle; 256 with 128 filters for a phone.
        dropout: behind that layer.
        stride: side of a cell in pixels, 64 or 32.
        normalized: whether batch normalizations stand behind the net's own convolutions; the paper has none, and trains
            long.

    Returns:
        Raw outputs "box_values" [B, 2 * cells, 4], "confidences" [B, 2 * cells, 1] and "class_scores" [B, cells, K],
        and the features.

    Raises:
        ValueError: another stride, or a backbone without P5.
    """
    if stride not in (32, 64):
        raise ValueError(f"stride must be 64, as in the paper, or 32 for cells of half the side, got {stride}.")
    if backbone is None:
        features = convolutions(x, normalized)
    else:
        features = build_backbone(backbone, x, weights=weights, **(backbone_arguments or {}))
        if "P5" not in features:
            raise ValueError(f'YOLOv1 needs a backbone with P5; "{backbone}" has {", ".join(features)}.')
    x = features["P5"]
    for index in range(4):
        step = stride // 32 if index == 1 else 1
        x = convolve(x, filters, 3, f"head_{index}", stride=step, normalized=normalized)
    grid = center_grid(task.image_size, [stride])
    x = layers.Flatten(name="head_flatten")(x)
    x = layers.Dense(units, kernel_initializer="he_normal", name="head_dense")(x)
    x = layers.Dropout(dropout, name="head_dropout")(layers.LeakyReLU(LEAKY_SLOPE, name="head_dense_leaky")(x))
    # One matrix in the paper. In an int8 file, three have a scale each.
    outputs = {}
    for name, rows, values in (
        ("box_values", PREDICTORS * len(grid), 4),
        ("confidences", PREDICTORS * len(grid), 1),
        ("class_scores", len(grid), len(task.labels)),
    ):
        flat = layers.Dense(rows * values, name=f"head_{name}")(x)
        outputs[name] = layers.Reshape((rows, values), name=name, dtype="float32")(flat)
    task.bind(Cells(grid, len(task.labels), task.image_size))
    return outputs, features
