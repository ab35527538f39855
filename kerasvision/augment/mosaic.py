"""Mosaic: parts of four examples on one canvas."""

import dataclasses
from collections.abc import Sequence
from typing import ClassVar

import cv2
import numpy as np

from kerasvision.augment.base import Example, require, require_range
from kerasvision.augment.mixing import Draw, Mixer, Range, mix_labels
from kerasvision.augment.moves import OBJECT_KEYS, keep_visible, move_rest, shrinking
from kerasvision.masks import PackedMasks, copy_bits, stack_of_planes


@dataclasses.dataclass(frozen=True)
class Mosaic(Mixer):
    """Puts parts of four images around a random centre (Bochkovskiy et al., 2020, arXiv:2004.10934).

    Args:
        size: (height, width) of the result; the first image's where None.
        center: smallest and largest place of the centre, as a share of each side.
        scale: smallest and largest size of an image, relative to the size at which it fits into the result; more where
            it would not fill its part.
    """

    images: ClassVar[int] = 4

    size: tuple[int, int] | None = None
    center: Range = (0.25, 0.75)
    scale: Range = (0.5, 1.0)

    def check(self) -> None:
        """Raise a `RecipeError` where a parameter is out of range."""
        valid = self.size is None or (len(self.size) == 2 and min(self.size) >= 2)
        require(valid, "size (height, width), at least 2 pixels", self.size)
        require_range("center", self.center, 0, 1)
        require_range("scale", self.scale, 0.01, 100)

    def mix(self, example: Example, rng: np.random.Generator, draw: Draw) -> Example:
        """Four parts on one canvas."""
        height, width = size = self.size or example["image"].shape[:2]
        examples = [example, draw(), draw(), draw()]
        # At least a pixel of each image.
        y, x = np.clip(np.rint(rng.uniform(*self.center, 2) * size), 1, np.array(size) - 1).astype(int).tolist()
        rows, columns = (slice(0, y), slice(y, height)), (slice(0, x), slice(x, width))
        canvas: Example = {
            key: np.empty((*size, *example[key].shape[2:]), np.uint8)
            for key in ("image", "segmentation")
            if key in example
        }
        order, factors, places = rng.permutation(4), rng.uniform(*self.scale, 4), rng.random((4, 2))
        cells = [(rows[cell // 2], columns[cell % 2]) for cell in order]
        parts = [
            _fill_cell(canvas, cell, each, factor, place, self.min_visible)
            for cell, each, factor, place in zip(cells, examples, factors, places, strict=True)
        ]
        areas = [_length(cell[0]) * _length(cell[1]) / (height * width) for cell in cells]
        mixed = {**example, **canvas, **mix_labels(examples, areas, self.classes)}
        for key in OBJECT_KEYS:
            if key in example:
                mixed[key] = np.concatenate([part[key] for part in parts])
        if "masks" in example:
            mixed["masks"] = _place_masks(parts, cells, size)
        return mixed


def _fill_cell(
    canvas: Example,
    cell: tuple[slice, slice],
    example: Example,
    scale: float,
    place: np.ndarray,
    min_visible: float,
) -> Example:
    """Resizes a part of an example straight into its cell of the canvas.

    Args:
        canvas: "image" [H, W, C] and "segmentation" [H, W] of the mosaic, changed in place.
        cell: rows and columns.
        example: where the part comes from.
        scale: size of the image, relative to the size at which it fits into the canvas.
        place: of the part, (y, x) in [0, 1).
        min_visible: as in `Mixer`.

    Returns:
        The part: its boxes, keypoints ... in coordinates of the canvas, the masks of all objects, of the size of the
        cell, and which objects are "kept".
    """
    rows, columns = cell
    height, width = example["image"].shape[:2]
    cell_size = _length(rows), _length(columns)
    whole = canvas["image"].shape[:2]
    factor = max(scale * min(whole[0] / height, whole[1] / width), cell_size[0] / height, cell_size[1] / width)
    # The part in whole pixels, so that it is a view.
    tall, wide = (
        min(max(round(side / factor), 1), most) for side, most in zip(cell_size, (height, width), strict=True)
    )
    top, left = int(place[0] * (height - tall + 1)), int(place[1] * (width - wide + 1))
    factors = np.array([cell_size[1] / wide, cell_size[0] / tall])

    def change(planes: np.ndarray, interpolation: int, target: np.ndarray | None = None) -> np.ndarray:
        part = planes[top : top + tall, left : left + wide]
        return cv2.resize(part, cell_size[::-1], dst=target, interpolation=interpolation)

    change(example["image"], shrinking(tuple(factors)), canvas["image"][cell])
    objects = {**example, "image": canvas["image"][cell]}
    if "boxes" in example:
        objects["classes"] = np.arange(len(example["boxes"]))
    moved = move_rest(
        objects,
        lambda planes, _: change(planes, cv2.INTER_NEAREST_EXACT),
        lambda points: (points - (left, top)) * factors,
    )
    if "segmentation" in canvas:
        canvas["segmentation"][cell] = moved["segmentation"]
    masks = moved.pop("masks", None)
    part = keep_visible(moved, min_visible)
    # Objects were numbered, so that those that stay can be told; their masks are selected as they are placed.
    if "boxes" in part:
        part["kept"] = np.isin(np.arange(len(example["boxes"])), part["classes"])
        part["classes"] = example["classes"][part["kept"]]
    if masks is not None:
        part["masks"] = masks
    # Absent keypoints stay at (0, 0).
    corner = np.array([columns.start, rows.start], np.float32)
    if "boxes" in part:
        part["boxes"] = part["boxes"] + np.tile(corner, 2)
    if "keypoints" in part:
        keypoints = part["keypoints"].copy()
        keypoints[..., :2] += corner * (keypoints[..., 2:] > 0)
        part["keypoints"] = keypoints
    return part


def _place_masks(parts: Sequence[Example], cells: Sequence[tuple[slice, slice]], size: tuple[int, int]) -> PackedMasks:
    """The masks of all cells of a canvas of size (H, W), one cell's after the other's."""
    counts = [int(part["kept"].sum()) for part in parts]
    placed = stack_of_planes(size, sum(counts))
    for part, (rows, columns), first in zip(parts, cells, np.cumsum([0, *counts[:-1]]), strict=True):
        copy_bits(placed[:, rows, columns], int(first), part["masks"].stack(), part["kept"])
    return PackedMasks.from_stack(placed, sum(counts))


def _length(part: slice) -> int:
    return part.stop - part.start
