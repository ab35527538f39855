"""Where the names of boxes stand: beside them, over as little as possible."""

import numpy as np

# What it costs to cover all of a tag, all of another object, all of the own one; to stand inside the own box; and to
# lie across an edge of a box. Places that cost the same are taken in the order of `_places`.
_TAG, _OTHER, _OWN, _INSIDE, _ACROSS, _LATER = 4.0, 2.0, 2.0, 0.3, 0.2, 0.01


def place_tags(boxes: np.ndarray, sizes: np.ndarray, picture: tuple[int, int]) -> np.ndarray:
    """Finds a place for a tag at each of many boxes, those of small boxes first.

    Every tag touches its box. Of twelve places around and inside it, the one is taken that covers the least of the
    other tags, of the objects, and of the edges of boxes.

    Args:
        boxes: [N, 4] xyxy, in pixels of the picture.
        sizes: [N, 2], width and height of each tag.
        picture: (width, height); tags lie in it, and are not larger.

    Returns:
        Upper left corners, int [N, 2].
    """
    boxes = np.clip(boxes, 0, np.tile(picture, 2)).astype(np.float64)
    areas = np.maximum((boxes[:, 2:] - boxes[:, :2]).prod(axis=1), 1.0)
    corners = np.zeros((len(boxes), 2), int)
    placed = np.zeros((0, 4))
    for index in np.argsort(areas, kind="stable"):
        size = np.asarray(sizes[index], np.float64)
        starts = np.clip(_places(boxes[index], size), 0, np.maximum(np.subtract(picture, size), 0)).round()
        tags = np.concatenate([starts, starts + size], axis=1)
        covered = _shared(tags, boxes)
        across = (covered > 0) & (covered < size.prod())
        own = covered[:, index].copy()
        covered[:, index] = 0.0
        cost = (
            _TAG * _shared(tags, placed).sum(axis=1) / size.prod()
            + covered.sum(axis=1) / size.prod()
            + _OTHER * (covered / areas).sum(axis=1)
            + _OWN * own / areas[index]
            + _INSIDE * (own > 0)
            + _ACROSS * across.sum(axis=1)
            + _LATER * np.arange(len(tags))
        )
        best = int(cost.argmin())
        corners[index] = starts[best]
        placed = np.concatenate([placed, tags[best : best + 1]])
    return corners


def _places(box: np.ndarray, size: np.ndarray) -> np.ndarray:
    """Upper left corners of a tag above, below, right, left of a box, and in its corners: [12, 2]."""
    (left, top, right, bottom), (width, height) = box, size
    return np.array(
        [
            *((left, top - height), (right - width, top - height)),
            *((left, bottom), (right - width, bottom)),
            *((right, top), (right, bottom - height)),
            *((left - width, top), (left - width, bottom - height)),
            *((left, top), (right - width, top)),
            *((left, bottom - height), (right - width, bottom - height)),
        ]
    )


def _shared(first: np.ndarray, second: np.ndarray) -> np.ndarray:
    """Common area of every pair of boxes: [N, 4] and [M, 4] -> [N, M]."""
    low = np.maximum(first[:, None, :2], second[None, :, :2])
    high = np.minimum(first[:, None, 2:], second[None, :, 2:])
    return np.maximum(high - low, 0).prod(axis=-1)
