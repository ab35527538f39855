"""Masks within boxes, cut out of the masks of an image, in `keras.ops`."""

from typing import Any

from keras import ops

from kerasvision.boxes.arrays import flat_index
from kerasvision.boxes.formats import split


def crop_masks(masks: Any, index: Any, boxes: Any, size: int) -> Any:
    """The part of a mask that lies within a box, sampled bilinearly at the centres of size x size bins.

    Args:
        masks: of the objects, 0 or 1, [B, M, H, W].
        index: which of them, int [B, D] in 0..M-1.
        boxes: xyxy [B, D, 4] in pixels of the masks.
        size: bins along each side.

    Returns:
        float32 [B, D, size, size] in 0..1; 0 beyond the image.
    """
    count, height, width = masks.shape[1:]
    x0, y0, x1, y1 = split(ops.stop_gradient(ops.cast(boxes, "float32")))
    row, below, row_share, row_inside = _places(y0, y1, height, size)
    column, right, column_share, column_inside = _places(x0, x1, width, size)
    table = ops.reshape(masks, (-1,))
    first = flat_index(index, count)[..., None, None] * (height * width)  # [B, D, 1, 1]

    def read(rows: Any, columns: Any) -> Any:
        # Minus minus, see `kerasvision.boxes.arrays`.
        place = first - -(rows[..., :, None] * width) - -columns[..., None, :]
        return ops.cast(ops.take(table, place, axis=0), "float32")

    # [B, D, size, 1] and [B, D, 1, size]
    down, across = row_share[..., :, None], column_share[..., None, :]
    upper = read(row, column) * (1 - across) + read(row, right) * across
    lower = read(below, column) * (1 - across) + read(below, right) * across
    inside = row_inside[..., :, None] * column_inside[..., None, :]
    return (upper * (1 - down) + lower * down) * inside


def _places(low: Any, high: Any, length: int, size: int) -> tuple[Any, Any, Any, Any]:
    """Pixels beside the centres of bins along one axis: int32 twice, the second one's share, and whether in the image.

    Args:
        low: [B, D], edge in pixels.
        high: [B, D].
        length: of the axis.
        size: bins.

    Returns:
        [B, D, size] each.
    """
    share = (ops.arange(size, dtype="float32") + 0.5) / size
    at = low[..., None] - (low - high)[..., None] * share
    inside = ops.cast(ops.logical_and(at >= 0, at <= length), "float32")
    at = ops.minimum(ops.maximum(at - 0.5, 0.0), length - 1.0)
    # Cut as integers too: what is not a number would point anywhere.
    before = ops.minimum(ops.maximum(ops.cast(ops.floor(at), "int32"), 0), length - 1)
    return before, ops.minimum(before + 1, length - 1), at - ops.cast(before, "float32"), inside
