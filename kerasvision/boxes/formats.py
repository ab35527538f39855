"""Box formats: xyxy is the one in use, the others stand at the borders. NumPy arrays and tensors alike."""

from typing import Any

from kerasvision.boxes.arrays import namespace


def split(boxes: Any) -> tuple[Any, Any, Any, Any]:
    """The four numbers of boxes [..., 4], each [...]."""
    return boxes[..., 0], boxes[..., 1], boxes[..., 2], boxes[..., 3]


def to_center(boxes: Any) -> Any:
    """xyxy -> (center x, center y, width, height), as YOLO's label files and the delta codings write boxes.

    Args:
        boxes: float [..., 4].

    Returns:
        [..., 4].
    """
    x0, y0, x1, y1 = split(boxes)
    return namespace(boxes).stack([(x0 + x1) / 2, (y0 + y1) / 2, x1 - x0, y1 - y0], axis=-1)


def from_center(boxes: Any) -> Any:
    """(center x, center y, width, height) [..., 4] -> xyxy [..., 4]."""
    x, y, width, height = split(boxes)
    half_width, half_height = width / 2, height / 2
    return namespace(boxes).stack([x - half_width, y - half_height, x + half_width, y + half_height], axis=-1)


def to_corner_size(boxes: Any) -> Any:
    """xyxy [..., 4] -> (x0, y0, width, height) [..., 4], as COCO's files write boxes."""
    x0, y0, x1, y1 = split(boxes)
    return namespace(boxes).stack([x0, y0, x1 - x0, y1 - y0], axis=-1)


def from_corner_size(boxes: Any) -> Any:
    """(x0, y0, width, height) [..., 4] -> xyxy [..., 4]."""
    x, y, width, height = split(boxes)
    return namespace(boxes).stack([x, y, x + width, y + height], axis=-1)


def to_relative(boxes: Any, image_size: tuple[int, int]) -> Any:
    """xyxy in pixels -> (y0, x0, y1, x1) in shares of the image, as TFLite's detection metadata describes boxes.

    Args:
        boxes: float [..., 4].
        image_size: (H, W) in pixels.

    Returns:
        [..., 4]; 0..1 for boxes inside of the image.
    """
    height, width = image_size
    x0, y0, x1, y1 = split(boxes)
    return namespace(boxes).stack([y0 / height, x0 / width, y1 / height, x1 / width], axis=-1)


def clip_boxes(boxes: Any, image_size: tuple[int, int]) -> Any:
    """The part of each box that lies inside the image; boxes outside become empty.

    Args:
        boxes: xyxy float [..., 4] in pixels.
        image_size: (H, W) in pixels.

    Returns:
        [..., 4].
    """
    xp, (height, width) = namespace(boxes), image_size
    x0, y0, x1, y1 = split(boxes)
    columns, rows = [xp.clip(x, 0, width) for x in (x0, x1)], [xp.clip(y, 0, height) for y in (y0, y1)]
    return xp.stack([columns[0], rows[0], columns[1], rows[1]], axis=-1)


def box_areas(boxes: Any) -> Any:
    """Areas [...] of xyxy boxes [..., 4]; 0 where x1 <= x0 or y1 <= y0."""
    xp = namespace(boxes)
    x0, y0, x1, y1 = split(boxes)
    return xp.maximum(x1 - x0, 0) * xp.maximum(y1 - y0, 0)
