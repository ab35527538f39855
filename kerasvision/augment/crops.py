"""Transforms that choose what part of an image is seen, or how much room there is around it."""

import dataclasses
import math
from typing import ClassVar

import numpy as np

from kerasvision.augment import moves
from kerasvision.augment.base import Example, require, require_range
from kerasvision.augment.geometric import Geometric, Range, require_fill, require_size
from kerasvision.boxes import pairwise_iou


@dataclasses.dataclass(frozen=True)
class Crop(Geometric):
    """Shifts images by a few pixels: pads them and cuts out a window of the old size.

    Args:
        padding: largest shift in pixels, each way.
        fill: value of the pixels that come in, 0..255.
    """

    padding: int = 4
    fill: int = 0

    def check(self) -> None:
        """Raise a `RecipeError` where a parameter is out of range."""
        require(self.padding >= 0, "padding >= 0 pixels", self.padding)
        require_fill(self.fill)

    def draw(self, example: Example, rng: np.random.Generator) -> tuple[int, int]:
        """(left, top) of the window in pixels."""
        left, top = rng.integers(-self.padding, self.padding + 1, 2)
        return int(left), int(top)

    def move(self, example: Example, drawn: tuple[int, int]) -> Example:
        """Cut the window out."""
        if drawn == (0, 0):
            return example
        height, width = example["image"].shape[:2]
        return moves.window(example, *drawn, height, width, self.fill)


@dataclasses.dataclass(frozen=True)
class ResizedCrop(Geometric):
    """Cuts out a random part and brings it to a size (Szegedy et al., 2014, arXiv:1409.4842).

    As the first transform of a pipeline it gets images as they are on disk, and its parts go straight to the size that
    the net takes.

    Args:
        scale: smallest and largest share of the image's area.
        ratio: smallest and largest change of the aspect ratio; less than asked for where the part would not fit.
        size: (height, width) of the result; the image's where None.
    """

    takes_own_size: ClassVar[bool] = True

    scale: Range = (0.35, 1.0)
    ratio: Range = (3 / 4, 4 / 3)
    size: tuple[int, int] | None = None

    def check(self) -> None:
        """Raise a `RecipeError` where a parameter is out of range."""
        require_range("scale", self.scale, 0, 1)
        require_range("ratio", self.ratio, 0, math.inf)
        require(self.scale[0] > 0 and self.ratio[0] > 0, "scale and ratio above 0", (self.scale, self.ratio))
        require_size(self.size)

    def draw(self, example: Example, rng: np.random.Generator) -> tuple[int, int, int, int]:
        """(left, top, height, width) of the part in pixels."""
        return self.part(example["image"].shape[:2], rng)

    def part(self, source: tuple[int, ...], rng: np.random.Generator) -> tuple[int, int, int, int]:
        """(left, top, height, width) of a part of an image of size (H, W)."""
        height, width = source[:2]
        area = rng.uniform(*self.scale)
        ratio = math.exp(rng.uniform(math.log(self.ratio[0]), math.log(self.ratio[1])))
        # Sides as shares of the image's: a ratio beyond [area, 1 / area] would stick out. Relative to the net's own
        # shape, so that parts keep their proportions where the size has the image's.
        if self.size:
            ratio *= (self.size[1] / self.size[0]) / (width / height)
        ratio = min(max(ratio, area), 1 / area)
        rows = max(round(height * math.sqrt(area / ratio)), 1)
        columns = max(round(width * math.sqrt(area * ratio)), 1)
        top, left = rng.random(2) * (height - rows + 1, width - columns + 1)
        return min(int(left), width - columns), min(int(top), height - rows), rows, columns

    def move(self, example: Example, drawn: tuple[int, int, int, int]) -> Example:
        """Cut out and resize."""
        size = self.size or example["image"].shape[:2]
        return moves.resize(moves.window(example, *drawn), size)


@dataclasses.dataclass(frozen=True)
class SSDCrop(Geometric):
    """Cuts out a part that overlaps an object by a drawn IoU at least (SSD: Liu et al., 2016, arXiv:1512.02325).

    Objects stay whose centres lie inside. The part has its own size: the pipeline fits it afterwards.

    Args:
        overlaps: least IoU with an object, one of which is drawn; 0 takes any part, 1 the whole image.
        scale: smallest and largest share of each side.
        ratio: smallest and largest aspect ratio of the part, relative to the image's.
        trials: parts that are tried for one IoU, before the image stays whole.
    """

    takes_own_size: ClassVar[bool] = True

    overlaps: tuple[float, ...] = (0.0, 0.1, 0.3, 0.5, 0.7, 0.9, 1.0)
    scale: Range = (0.3, 1.0)
    ratio: Range = (0.5, 2.0)
    trials: int = 50

    def check(self) -> None:
        """Raise a `RecipeError` where a parameter is out of range."""
        require(
            len(self.overlaps) > 0 and all(0 <= overlap <= 1 for overlap in self.overlaps),
            "overlaps in 0..1",
            self.overlaps,
        )
        require_range("scale", self.scale, 0, 1)
        require_range("ratio", self.ratio, 0, math.inf)
        require(self.scale[0] > 0 and self.ratio[0] > 0, "scale and ratio above 0", (self.scale, self.ratio))
        require(self.trials >= 1, "trials >= 1", self.trials)

    def draw(self, example: Example, rng: np.random.Generator) -> tuple[int, int, int, int] | None:
        """(left, top, height, width) of the part in pixels; None: the whole."""
        height, width = example["image"].shape[:2]
        boxes = example.get("boxes", np.zeros((0, 4), np.float32))
        least = self.overlaps[int(rng.integers(len(self.overlaps)))]
        if least >= 1 or not len(boxes):
            return None
        shares = rng.uniform(*self.scale, (self.trials, 2))
        places = rng.random((self.trials, 2))
        # [trials] sides and corners in pixels
        columns, rows = np.maximum(shares * (width, height), 1).astype(int).T
        left = (places[:, 0] * (width - columns + 1)).astype(int)
        top = (places[:, 1] * (height - rows + 1)).astype(int)
        parts = np.stack([left, top, left + columns, top + rows], axis=-1).astype(np.float64)
        ratio = shares[:, 0] / shares[:, 1]
        centers = (boxes[:, :2] + boxes[:, 2:]) / 2
        inside = ((centers > parts[:, None, :2]) & (centers < parts[:, None, 2:])).all(axis=-1)
        good = (pairwise_iou(parts, boxes) >= least) & inside
        found = np.flatnonzero(good.any(axis=1) & (ratio >= self.ratio[0]) & (ratio <= self.ratio[1]))
        if not len(found):
            return None
        best = found[0]
        return int(left[best]), int(top[best]), int(rows[best]), int(columns[best])

    def move(self, example: Example, drawn: tuple[int, int, int, int] | None) -> Example:
        """Cut out, and drop the objects whose centres are outside."""
        if drawn is None:
            return example
        left, top, height, width = drawn
        centers = (example["boxes"][:, :2] + example["boxes"][:, 2:]) / 2 - (left, top)
        inside = (centers > 0).all(axis=-1) & (centers < (width, height)).all(axis=-1)
        return moves.window(moves.select_objects(example, inside), left, top, height, width)


@dataclasses.dataclass(frozen=True)
class Expand(Geometric):
    """Puts the image somewhere on a larger, filled canvas, so that objects become small (SSD: arXiv:1512.02325).

    The canvas has its own size: the pipeline fits it afterwards.

    Args:
        ratio: smallest and largest size of the canvas, relative to the image's sides.
        fill: value of the canvas, 0..255.
    """

    takes_own_size: ClassVar[bool] = True

    ratio: Range = (1.0, 4.0)
    fill: int = 114
    probability: float = 0.5

    def check(self) -> None:
        """Raise a `RecipeError` where a parameter is out of range."""
        require_range("ratio", self.ratio, 1, math.inf)
        require_fill(self.fill)

    def draw(self, example: Example, rng: np.random.Generator) -> tuple[int, int, int, int]:
        """(left, top, height, width) of the canvas, seen from the image, in pixels."""
        height, width = example["image"].shape[:2]
        ratio = rng.uniform(*self.ratio)
        rows, columns = round(height * ratio), round(width * ratio)
        x, y = rng.random(2)
        return -int(x * (columns - width + 1)), -int(y * (rows - height + 1)), rows, columns

    def move(self, example: Example, drawn: tuple[int, int, int, int]) -> Example:
        """Lay it on the canvas."""
        return moves.window(example, *drawn, fill=self.fill)


@dataclasses.dataclass(frozen=True)
class Pad(Geometric):
    """Adds a border where an image is smaller than a size; the image stays in the middle.

    Args:
        size: (height, width) that the result has at least.
        divisor: both sides become multiples of it.
        fill: value of the border, 0..255.
    """

    size: tuple[int, int] = (1, 1)
    divisor: int = 1
    fill: int = 114

    def check(self) -> None:
        """Raise a `RecipeError` where a parameter is out of range."""
        require_size(self.size)
        require(self.divisor >= 1, "divisor >= 1", self.divisor)
        require_fill(self.fill)

    def draw(self, example: Example, rng: np.random.Generator) -> None:
        """Nothing is random."""

    def move(self, example: Example, drawn: None) -> Example:
        """Add the border."""
        height, width = example["image"].shape[:2]
        rows, columns = (
            -(-max(side, least) // self.divisor) * self.divisor
            for side, least in zip((height, width), self.size, strict=True)
        )
        if (rows, columns) == (height, width):
            return example
        return moves.window(example, -((columns - width) // 2), -((rows - height) // 2), rows, columns, self.fill)


@dataclasses.dataclass(frozen=True)
class Letterbox(Geometric):
    """Brings an image to a size, keeps its proportions, and fills the rest.

    Args:
        size: (height, width) of the result; the image's where None, which changes nothing.
        fill: value of the border, 0..255.
    """

    takes_own_size: ClassVar[bool] = True

    size: tuple[int, int] | None = None
    fill: int = 114

    def check(self) -> None:
        """Raise a `RecipeError` where a parameter is out of range."""
        require_size(self.size)
        require_fill(self.fill)

    def draw(self, example: Example, rng: np.random.Generator) -> None:
        """Nothing is random."""

    def move(self, example: Example, drawn: None) -> Example:
        """Resize and add the border."""
        height, width = example["image"].shape[:2]
        size = self.size or (height, width)
        factor = min(size[0] / height, size[1] / width)
        inner = max(round(height * factor), 1), max(round(width * factor), 1)
        return Pad(size, fill=self.fill).move(moves.resize(example, inner), None)
