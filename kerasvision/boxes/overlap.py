"""How much boxes overlap: IoU, GIoU, DIoU, CIoU.

Every function takes NumPy arrays (float64 results) or tensors of `keras.ops` (float32). Leading axes broadcast:
equal shapes compare boxes one to one, `pairwise` compares every box with every other. Boxes with x1 <= x0 or
y1 <= y0 are empty; nothing here is ever divided by 0, forward or backward.
"""

import math
from collections.abc import Callable
from typing import Any

from keras import ops

from kerasvision.boxes.arrays import as_float, namespace, ratio
from kerasvision.boxes.formats import box_areas, split

# Aspect ratios of thinner boxes are those of this height.
_LEAST_SIDE = 1e-4


def iou(first: Any, second: Any) -> Any:
    """Intersection over union (Jaccard, 1901).

    Args:
        first: xyxy [..., 4].
        second: xyxy [..., 4].

    Returns:
        [...] in 0..1; 0 where both boxes are empty.
    """
    first, second = as_float(first), as_float(second)
    return ratio(*_shared_and_union(first, second))


def giou(first: Any, second: Any) -> Any:
    """Generalized IoU: less by the share of the hull that neither box covers.

    Rezatofighi et al., 2019, arXiv:1902.09630.

    Args:
        first: xyxy [..., 4].
        second: xyxy [..., 4].

    Returns:
        [...] in -1..1, at most the IoU.
    """
    first, second = as_float(first), as_float(second)
    shared, union = _shared_and_union(first, second)
    width, height = _hull(first, second)
    hull = width * height
    return ratio(shared, union) - ratio(namespace(hull).maximum(hull - union, 0), hull)


def diou(first: Any, second: Any) -> Any:
    """Distance IoU: less by the squared distance of the centers over that of the hull's corners.

    Zheng et al., 2020, arXiv:1911.08287.

    Args:
        first: xyxy [..., 4].
        second: xyxy [..., 4].

    Returns:
        [...] in -1..1, at most the IoU.
    """
    first, second = as_float(first), as_float(second)
    return ratio(*_shared_and_union(first, second)) - _distance(first, second)


def ciou(first: Any, second: Any) -> Any:
    """Complete IoU: the distance IoU, less by a term for different aspect ratios (arXiv:1911.08287).

    The weight of the aspect term is a constant to the gradient, as in the paper. Empty boxes have no aspect.

    Args:
        first: xyxy [..., 4].
        second: xyxy [..., 4].

    Returns:
        [...], at most the distance IoU.
    """
    first, second = as_float(first), as_float(second)
    overlap = ratio(*_shared_and_union(first, second))
    difference = _angle(first) - _angle(second)
    xp = namespace(difference)
    both = xp.minimum(box_areas(first), box_areas(second)) > 0
    aspect = xp.where(both, 4 / math.pi**2 * difference * difference, 0.0)
    weight = ratio(aspect, 1 - overlap + aspect)
    weight = weight if xp is not ops else ops.stop_gradient(weight)
    return overlap - _distance(first, second) - weight * aspect


def shared_area(first: Any, second: Any) -> Any:
    """Area of the intersection, in square pixels.

    Args:
        first: xyxy [..., 4].
        second: xyxy [..., 4].

    Returns:
        [...] at least 0.
    """
    first, second = as_float(first), as_float(second)
    xp = namespace(first, second)
    (ax0, ay0, ax1, ay1), (bx0, by0, bx1, by1) = split(first), split(second)
    width = xp.minimum(ax1, bx1) - xp.maximum(ax0, bx0)
    height = xp.minimum(ay1, by1) - xp.maximum(ay0, by0)
    return xp.maximum(width, 0) * xp.maximum(height, 0)


def covered(first: Any, second: Any) -> Any:
    """Share of the area of `second` that `first` covers, the overlap of detections (second) with crowds (first).

    Args:
        first: xyxy [..., 4].
        second: xyxy [..., 4].

    Returns:
        [...] in 0..1; 0 where the second box is empty.
    """
    first, second = as_float(first), as_float(second)
    return ratio(shared_area(first, second), box_areas(second))


def pairwise(measure: Callable[[Any, Any], Any], first: Any, second: Any) -> Any:
    """A measure of every box with every other.

    Args:
        measure: `iou`, `giou`, `diou`, `ciou`, `covered` or `shared_area`.
        first: xyxy [..., N, 4].
        second: xyxy [..., M, 4].

    Returns:
        [..., N, M].
    """
    return measure(first[..., :, None, :], second[..., None, :, :])


def pairwise_iou(first: Any, second: Any) -> Any:
    """Intersection over union of every box with every other.

    Args:
        first: xyxy [..., N, 4].
        second: xyxy [..., M, 4].

    Returns:
        [..., N, M] in 0..1; 0 where both boxes are empty.
    """
    return pairwise(iou, first, second)


def size_iou(first: Any, second: Any) -> Any:
    """Intersection over union of boxes that share their center: of their sizes alone.

    Args:
        first: [..., N, 2] width and height, not negative.
        second: [..., M, 2].

    Returns:
        [..., N, M] in 0..1; 0 where both boxes are empty.
    """
    first, second = as_float(first)[..., :, None, :], as_float(second)[..., None, :, :]
    xp = namespace(first, second)
    shared = xp.minimum(first[..., 0], second[..., 0]) * xp.minimum(first[..., 1], second[..., 1])
    return ratio(shared, first[..., 0] * first[..., 1] - shared - -second[..., 0] * second[..., 1])


def _shared_and_union(first: Any, second: Any) -> tuple[Any, Any]:
    shared = shared_area(first, second)
    # Subtracted, see `arrays`.
    return shared, box_areas(first) - shared - -box_areas(second)


def _hull(first: Any, second: Any) -> tuple[Any, Any]:
    """Width and height of the smallest box around both."""
    xp = namespace(first, second)
    (ax0, ay0, ax1, ay1), (bx0, by0, bx1, by1) = split(first), split(second)
    width = xp.maximum(ax1, bx1) - xp.minimum(ax0, bx0)
    height = xp.maximum(ay1, by1) - xp.minimum(ay0, by0)
    return xp.maximum(width, 0), xp.maximum(height, 0)


def _distance(first: Any, second: Any) -> Any:
    """Squared distance of the centers over the squared diagonal of the hull, 0..1."""
    (ax0, ay0, ax1, ay1), (bx0, by0, bx1, by1) = split(first), split(second)
    across, down = (ax0 + ax1 - bx0 - bx1) / 2, (ay0 + ay1 - by0 - by1) / 2
    width, height = _hull(first, second)
    return ratio(across * across + down * down, width * width + height * height)


def _angle(boxes: Any) -> Any:
    """arctan(width / height); any finite angle where the box is empty."""
    x0, y0, x1, y1 = split(boxes)
    xp = namespace(boxes)
    return xp.arctan((x1 - x0) / xp.maximum(y1 - y0, _LEAST_SIDE))
