"""Objects that are covered in part, as by dirt on the lens: what `occlusion.py` looks for them in."""

import math

import cv2
import numpy as np

from kerasvision.augment.occlusion import visible_shares

SHARE = (0.2, 0.6)
TRIES = 100

Part = tuple[slice, slice]  # Rows and columns of an image.


def cover_objects(
    image: np.ndarray, boxes: np.ndarray, random: np.random.Generator, share: tuple[float, float] = SHARE
) -> tuple[np.ndarray, np.ndarray]:
    """Covers a random part of each object with what the same photograph has between its objects.

    Each object, the smallest first, gets a rectangle inside its box with a random share of its pixels, of random form
    and place. Where objects overlap, a rectangle that would hide more than the largest share of any of them is drawn
    again, and an object of which others have hidden as much already gets none. What is pasted is the part of the image
    of the same size with the fewest pixels of objects, at random where several have as few.

    Args:
        image: uint8 [H, W, C].
        boxes: float [N, 4], xyxy in pixels; what lies outside of the image counts for nothing.
        random: of shares, forms and places.
        share: smallest and largest share of each box to be hidden. After so many tries as `TRIES`, the rectangle is
            taken that exceeds it least: boxes of a few pixels have no others, or many boxes that lie on one another.

    Returns:
        uint8 [H, W, C], and what of it is hidden, uint8 [H, W] of zeros and ones.
    """
    size = image.shape[:2]
    extents = extents_of(boxes, size)
    objects = np.zeros(size, np.uint8)
    for left, top, right, bottom in extents:
        objects[top:bottom, left:right] = 1
    covered, hidden = image.copy(), np.zeros(size, np.uint8)
    for index in np.argsort(np.prod(extents[:, 2:] - extents[:, :2], axis=1), kind="stable"):
        if hidden_shares(extents, hidden)[index] >= random.uniform(*share):
            continue
        part = draw_part(extents, index, hidden, random, share)
        covered[part] = image[emptiest_part(objects, hidden[part].shape, random)]
        hidden[part] = 1
    return covered, hidden


def extents_of(boxes: np.ndarray, size: tuple[int, int]) -> np.ndarray:
    """Whole pixels of the boxes that have any, int [N, 4]."""
    limits = np.array([*size[::-1], *size[::-1]])
    extents = np.concatenate([np.floor(boxes[:, :2]), np.ceil(boxes[:, 2:])], axis=1)
    extents = np.clip(extents, 0, limits).astype(int)
    return extents[(extents[:, 2:] > extents[:, :2]).all(axis=1)]


def hidden_shares(extents: np.ndarray, hidden: np.ndarray) -> np.ndarray:
    """Shares of boxes of whole pixels, int [N, 4], that are hidden."""
    return 1 - visible_shares({"boxes": extents}, hidden)


def draw_part(
    extents: np.ndarray,
    index: int,
    hidden: np.ndarray,
    random: np.random.Generator,
    share: tuple[float, float],
) -> Part:
    """A rectangle in one of the boxes that leaves enough of all to be seen, or comes nearest to it."""
    best: tuple[float, Part] | None = None
    most = np.maximum(hidden_shares(extents, hidden), share[1])
    for _ in range(TRIES):
        part = random_part(extents[index], random.uniform(*share), random)
        after = hidden.copy()
        after[part] = 1
        shares = hidden_shares(extents, after)
        excess = max((shares - most).max(), share[0] - shares[index], 0.0)
        if best is None or excess < best[0]:
            best = excess, part
        if not excess:
            break
    return best[1]


def random_part(extent: np.ndarray, share: float, random: np.random.Generator) -> Part:
    """A rectangle of a share of a box, int [4]."""
    left, top, right, bottom = extent
    whole = bottom - top, right - left
    # From as high as the box to as wide as the box.
    height = whole[0] * math.exp(random.uniform(math.log(share), 0))
    rows = min(max(round(height), 1), whole[0])
    columns = min(max(round(share * whole[0] * whole[1] / rows), 1), whole[1])
    row, column = (int(random.integers(most + 1)) for most in (whole[0] - rows, whole[1] - columns))
    return slice(top + row, top + row + rows), slice(left + column, left + column + columns)


def emptiest_part(objects: np.ndarray, shape: tuple[int, int], random: np.random.Generator) -> Part:
    """The part of an image, of a shape (rows, columns), with the fewest pixels of objects, uint8 [H, W]."""
    rows, columns = shape
    sums = cv2.integral(objects)
    counts = sums[rows:, columns:] - sums[:-rows, columns:] - sums[rows:, :-columns] + sums[:-rows, :-columns]
    row, column = np.unravel_index(random.choice(np.flatnonzero(counts == counts.min())), counts.shape)
    return slice(row, row + rows), slice(column, column + columns)
