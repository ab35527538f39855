"""Numbers about the targets of a set: classes, boxes, keypoints and the pixels of class maps."""

import dataclasses
import itertools
import os
from collections.abc import Iterable, Mapping, Sequence
from concurrent.futures import ThreadPoolExecutor
from typing import Any

import numpy as np

from kerasvision.boxes import pairwise_iou
from kerasvision.data.mask_files import VOID, read_segmentation
from kerasvision.errors import DataError
from kerasvision.progress import progress

# COCO's bounds between small, medium and large objects, in square pixels of the box.
SMALL, LARGE = 32**2, 96**2
SAME_BOX = 0.95
TINY = 4.0
_OUTSIDE = 0.5
_CHUNK = 64

Splits = Mapping[str, Sequence[dict[str, Any]]]


@dataclasses.dataclass(frozen=True, eq=False)
class ClassCounts:
    """How often each class occurs in each split.

    Args:
        splits: S names.
        objects: int64 [S, K]: labels, boxes, or pixels of a class map.
        images: int64 [S, K]: images with at least one of them.
    """

    splits: tuple[str, ...]
    objects: np.ndarray
    images: np.ndarray


@dataclasses.dataclass(frozen=True, eq=False)
class BoxTable:
    """All boxes of a set in one table.

    Args:
        boxes: float64 [M, 4] xyxy in pixels.
        classes: int64 [M].
        crowd: bool [M].
        images: int64 [M], index of the box's image in the set, split after split.
        per_image: int64 [N], boxes of each image.
    """

    boxes: np.ndarray
    classes: np.ndarray
    crowd: np.ndarray
    images: np.ndarray
    per_image: np.ndarray

    def sizes(self) -> np.ndarray:
        """float64 [M, 2], width and height."""
        return self.boxes[:, 2:] - self.boxes[:, :2]


@dataclasses.dataclass(frozen=True, eq=False)
class ClassMaps:
    """What the class maps of a segmentation set hold.

    Args:
        pixels: int64 [S, K] of each split and class.
        images: int64 [S, K], images in which the class occurs.
        void: float64 [N], share of each image that belongs to no class.
        unreadable: image index -> what is wrong with its map.
    """

    pixels: np.ndarray
    images: np.ndarray
    void: np.ndarray
    unreadable: dict[int, str]


def count_classes(splits: Splits, count: int) -> ClassCounts:
    """Counts labels, label sets, or the classes of boxes.

    Args:
        splits: name -> examples with "label", "labels" or "classes".
        count: number of classes K.

    Returns:
        The counts.
    """
    objects, images = (np.zeros((len(splits), count), np.int64) for _ in range(2))
    for row, examples in enumerate(splits.values()):
        for example in examples:
            found = np.bincount(classes_of(example), minlength=count)
            objects[row] += found
            images[row] += found > 0
    return ClassCounts(tuple(splits), objects, images)


def classes_of(example: dict[str, Any]) -> np.ndarray:
    """int64 [n]: class indices of an example's label, labels or boxes; with repeats."""
    for key in ("classes", "labels"):
        if key in example:
            return np.asarray(example[key], np.int64).reshape(-1)
    return np.array([example["label"]] if "label" in example else [], np.int64)


def imbalance_ratio(counts: np.ndarray) -> float:
    """The most frequent class over the rarest one that occurs; 1 where nothing occurs."""
    present = counts[counts > 0]
    return float(present.max() / present.min()) if len(present) else 1.0


def effective_classes(counts: np.ndarray) -> float:
    """As many classes as an evenly filled set of the same entropy has (Hill, 1973, "Diversity and Evenness").

    Args:
        counts: [K].

    Returns:
        1..K; 0 where nothing occurs.
    """
    total = counts.sum()
    if not total:
        return 0.0
    shares = counts[counts > 0] / total
    return float(np.exp(-(shares * np.log(shares)).sum()))


def effective_numbers(counts: np.ndarray, beta: float = 0.999) -> np.ndarray:
    """How many examples those of a class are worth, since they overlap more the more there are.

    (1 - beta^n) / (1 - beta) (Cui et al., 2019, arXiv:1901.05555).

    Args:
        counts: [K].
        beta: 0..1; near 1 every example counts in full.

    Returns:
        float64 [K].
    """
    return (1 - np.power(beta, np.asarray(counts, np.float64))) / (1 - beta)


def collect_boxes(splits: Splits) -> BoxTable:
    """All boxes of a set in one table, split after split.

    Args:
        splits: name -> examples with "boxes", "classes" and "crowd".

    Returns:
        The table.
    """
    examples = list(itertools.chain.from_iterable(splits.values()))
    per_image = np.array([len(example["boxes"]) for example in examples], np.int64)

    def joined(key: str, shape: tuple[int, ...], kind: Any) -> np.ndarray:
        parts: list[np.ndarray] = [np.asarray(example[key], kind).reshape(shape) for example in examples]
        return np.concatenate([np.zeros((0, *shape[1:]), kind), *parts])

    return BoxTable(
        boxes=joined("boxes", (-1, 4), np.float64),
        classes=joined("classes", (-1,), np.int64),
        crowd=joined("crowd", (-1,), np.bool_),
        images=np.repeat(np.arange(len(examples)), per_image),
        per_image=per_image,
    )


def box_problems(table: BoxTable, sizes: np.ndarray) -> dict[str, np.ndarray]:
    """Finds boxes that cannot be right, or that a net can hardly learn from.

    Args:
        table: of the set.
        sizes: [N, 2], (H, W) of each image; zeros where it is not known.

    Returns:
        Kind -> indices of boxes, rising: "degenerate" (not finite, or no area), "outside" (nothing of it in the
        image), "beyond" (more than half a pixel of it outside), "tiny" (a side below 4 pixels), "repeated" (a
        second box of the class in the same place, IoU >= 0.95), "two classes" (the same place, another class).
        Crowd boxes are only looked at for the first three.
    """
    boxes, finite = table.boxes, np.isfinite(table.boxes).all(axis=1)
    sides = np.where(finite[:, None], table.sizes(), 0.0).min(axis=1, initial=np.inf)
    degenerate = ~finite | (sides <= 0)
    limits = sizes[table.images][:, ::-1].astype(np.float64)
    known = (limits > 0).all(axis=1) & ~degenerate
    outside = known & ((boxes[:, 2:] <= 0) | (boxes[:, :2] >= limits)).any(axis=1)
    over = ((boxes[:, :2] < -_OUTSIDE) | (boxes[:, 2:] > limits + _OUTSIDE)).any(axis=1)
    repeated, two_classes = _same_places(table, ~degenerate & ~table.crowd)
    found = {
        "degenerate": np.flatnonzero(degenerate),
        "outside": np.flatnonzero(outside),
        "beyond": np.flatnonzero(known & over & ~outside),
        "tiny": np.flatnonzero(~degenerate & ~table.crowd & (sides < TINY)),
        "repeated": repeated,
        "two classes": two_classes,
    }
    return found


def _same_places(table: BoxTable, usable: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    """Boxes that cover one before them in the same image: of the same class, and of another class."""
    repeated, two_classes = [], []
    ends = np.cumsum(table.per_image)
    for image in np.flatnonzero(table.per_image > 1):
        members = np.arange(ends[image] - table.per_image[image], ends[image])
        members = members[usable[members]]
        same = np.tril(pairwise_iou(table.boxes[members], table.boxes[members]) >= SAME_BOX, -1)
        if same.any():
            equal = table.classes[members][:, None] == table.classes[members]
            repeated.append(members[(same & equal).any(axis=1)])
            two_classes.append(members[(same & ~equal).any(axis=1)])
    nothing = np.zeros(0, np.int64)
    return np.concatenate([nothing, *repeated]), np.concatenate([nothing, *two_classes])


def area_shares(sizes: np.ndarray) -> dict[str, float]:
    """Shares of small (below 32 x 32), medium, and large (96 x 96 and more) boxes, as COCO calls them.

    Args:
        sizes: [M, 2], width and height in pixels.

    Returns:
        {"small": 0..1, "medium": 0..1, "large": 0..1}; zeros where there is no box.
    """
    areas = sizes.prod(axis=1)
    counts = np.array([(areas < SMALL).sum(), ((areas >= SMALL) & (areas < LARGE)).sum(), (areas >= LARGE).sum()])
    return dict(zip(("small", "medium", "large"), (counts / max(len(areas), 1)).tolist(), strict=True))


def centre_map(table: BoxTable, sizes: np.ndarray, bins: int = 32) -> np.ndarray:
    """How many boxes have their centre where, over all images laid on one another.

    Args:
        table: of the set.
        sizes: [N, 2], (H, W) of each image.
        bins: cells a side.

    Returns:
        int64 [bins, bins], rows from the top; centres outside the image, or of images of unknown size, are left out.
    """
    limits = sizes[table.images][:, ::-1]
    known = (limits > 0).all(axis=1) & np.isfinite(table.boxes).all(axis=1)
    centres = (table.boxes[known, :2] + table.boxes[known, 2:]) / 2 / limits[known]
    x, y = centres.T if len(centres) else (np.zeros(0), np.zeros(0))
    return np.histogram2d(y, x, bins=bins, range=((0, 1), (0, 1)))[0].astype(np.int64)


def count_keypoints(examples: Iterable[dict[str, Any]], count: int) -> np.ndarray:
    """How often each keypoint is absent, hidden and visible.

    Args:
        examples: with "keypoints" [n, count, 3] of (x, y, 0/1/2).
        count: keypoints of one object.

    Returns:
        int64 [count, 3].
    """
    found = np.zeros((count, 3), np.int64)
    for example in examples:
        visibility = np.asarray(example["keypoints"], np.float64).reshape(-1, count, 3)[..., 2]
        for state in range(3):
            found[:, state] += (visibility == state).sum(axis=0)
    return found


def count_pixels(splits: Splits, count: int) -> ClassMaps:
    """Reads the class map of every image, on all cores, and counts its pixels.

    Args:
        splits: name -> examples with "segmentation".
        count: number of classes K; 255 is void, and so is every other value beyond the classes.

    Returns:
        The counts.
    """
    rows = [row for row, examples in enumerate(splits.values()) for _ in examples]
    maps = [example["segmentation"] for examples in splits.values() for example in examples]
    pixels, images = (np.zeros((len(splits), count), np.int64) for _ in range(2))
    void, unreadable = np.zeros(len(maps)), {}
    with ThreadPoolExecutor(max_workers=os.cpu_count()) as pool, progress("Reading masks", len(maps)) as advance:
        for start in range(0, len(maps), _CHUNK):
            part = maps[start : start + _CHUNK]
            for index, found in enumerate(pool.map(_histogram, part), start):
                if isinstance(found, str):
                    unreadable[index] = found
                    continue
                pixels[rows[index]] += found[:count]
                images[rows[index]] += found[:count] > 0
                void[index] = found[count:].sum() / max(found.sum(), 1)
            advance(len(part))
    return ClassMaps(pixels, images, void, unreadable)


def class_map(segmentation: Any) -> np.ndarray:
    """The class map of an example, [H, W]: read where it is a file.

    Raises:
        DataError: the file cannot be used.
    """
    return segmentation if isinstance(segmentation, np.ndarray) else read_segmentation(segmentation)


def _histogram(segmentation: Any) -> np.ndarray | str:
    try:
        return np.bincount(class_map(segmentation).ravel(), minlength=VOID + 1)
    except (DataError, OSError, ValueError) as error:
        return str(error)
