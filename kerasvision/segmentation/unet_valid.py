"""U-Net as published, of convolutions that do not pad (Ronneberger et al., 2015, arXiv:1505.04597)."""

from collections.abc import Sequence
from typing import Any

from keras import layers

from kerasvision.registry import register
from kerasvision.segmentation.heads import class_logits
from kerasvision.segmentation.task import SegmentationTask
from kerasvision.task import Tensors

FILTERS = (64, 128, 256, 512, 1024)


def convolutions(x: Any, filters: int, name: str) -> Any:
    """Two 3x3 convolutions, each with ReLU: [B, H, W, C] -> [B, H - 4, W - 4, filters]."""
    for index in range(2):
        x = layers.Conv2D(filters, 3, activation="relu", kernel_initializer="he_normal", name=f"{name}_{index}")(x)
    return x


def cut_to_centre(x: Any, inner: Any, name: str) -> Any:
    """The middle of a map, of the size of a smaller one: [B, H, W, C] and [B, h, w, _] -> [B, h, w, C]."""
    lost = [before - after for before, after in zip(x.shape[1:3], inner.shape[1:3], strict=True)]
    return layers.Cropping2D([(count // 2, count - count // 2) for count in lost], name=name)(x)


def margin(depth: int) -> int:
    """Pixels of the image on every side for which there are no logits: 92 with four poolings.

    Args:
        depth: number of poolings.
    """
    # At every resolution two convolutions on the way down and two on the way up, and at the coarsest two altogether.
    return sum(2 ** (level + 2) for level in range(depth)) + 2 ** (depth + 1)


def check_sides(sides: Sequence[int], depth: int) -> None:
    """Make sure that every pooling takes an even size.

    Args:
        sides: of the image in pixels.
        depth: number of poolings.

    Raises:
        ValueError: not so, or nothing would be left; the nearest sides that fit are named.
    """
    step = 2**depth
    # What all convolutions on the way down take away, which the poolings never see.
    first = 4 * (step - 1) % step
    least = first + step * -(-(2 * margin(depth) + 1 - first) // step)
    for side in sides:
        if side < least or (side - first) % step:
            below = first + step * ((side - first) // step)
            fitting = [str(each) for each in (below, below + step) if each >= least] or [str(least)]
            raise ValueError(
                f"unet_valid with {depth} poolings takes images whose sides are {least} pixels or a multiple of "
                f"{step} more, so that every pooling takes an even size; got {side}. Take {' or '.join(fitting)}."
            )


@register("unet_valid", kind="segmentation", input_shape=(572, 572, 1))
def unet_valid(
    x: Any,
    task: SegmentationTask,
    *,
    weights: str | None = None,
    filters: Sequence[int] = FILTERS,
    dropout: float = 0.5,
) -> tuple[Tensors, Tensors]:
    """The original U-Net: 572x572 pixels in, logits of the inner 388x388 out; 31,030,658 parameters with two classes.

    What lies within the margin of 92 pixels is seen, and not segmented: the task compares and decodes the inner part.
    Whole images are segmented in tiles that overlap, mirrored at the border.

    Args:
        x: normalized image.
        task: that it is built for.
        weights: always None, there are no trained ones by name.
        filters: of each resolution, from fine to coarse.
        dropout: share of the values that are dropped at the end of the way down.

    Returns:
        Raw output "logits" [B, H - 184, W - 184, K], and the features P0, P1, ...

    Raises:
        ValueError: fewer than two resolutions, or an image of sides that do not fit.
    """
    if len(filters) < 2:
        raise ValueError(f"filters must have two numbers at least, got {tuple(filters)}.")
    depth = len(filters) - 1
    check_sides(x.shape[1:3], depth)
    features: Tensors = {}
    for level, width in enumerate(filters):
        if level:
            x = layers.MaxPooling2D(2, name=f"down{level}_pool")(x)
        x = convolutions(x, width, f"down{level}")
        # The paper: "at the end of the contracting path".
        if dropout and level >= depth - 1:
            x = layers.Dropout(dropout, name=f"down{level}_dropout")(x)
        features[f"P{level}"] = x
    for level in reversed(range(depth)):
        name = f"up{level}"
        x = layers.Conv2DTranspose(filters[level], 2, 2, kernel_initializer="he_normal", name=f"{name}_transposed")(x)
        skip = cut_to_centre(features[f"P{level}"], x, f"{name}_cut")
        x = layers.Concatenate(name=f"{name}_concat")([skip, x])
        x = convolutions(x, filters[level], name)
    task.bind(margin(depth))
    return {"logits": class_logits(x, len(task.labels))}, features
