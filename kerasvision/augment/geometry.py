"""Transforms that move pixels, and everything that belongs to them."""

import abc
import dataclasses
import math
from typing import Any, ClassVar

import cv2
import numpy as np

from kerasvision.augment import moves
from kerasvision.augment.base import Example, chance, require, require_probability, require_range
from kerasvision.boxes import pairwise_iou

Range = tuple[float, float]


@dataclasses.dataclass(frozen=True, kw_only=True)
class Geometric(abc.ABC):
    """A move: parameters are drawn once and applied to all of an example.

    Args:
        probability: of moving anything.
        min_visible: objects are dropped of which a smaller share of the box stays inside the image.
    """

    probability: float = 1.0
    min_visible: float = 0.1

    def __post_init__(self) -> None:
        require_probability(self.probability)
        require(0 <= self.min_visible <= 1, "min_visible in 0..1", self.min_visible)
        self.check()

    def check(self) -> None:  # noqa: B027 (most have something to check, not all)
        """Raise a `RecipeError` where a parameter is out of range."""

    @abc.abstractmethod
    def draw(self, example: Example, rng: np.random.Generator) -> Any:
        """Parameters for one example."""

    @abc.abstractmethod
    def move(self, example: Example, drawn: Any) -> Example:
        """The example, moved; its boxes may stick out."""

    def __call__(self, example: Example, rng: np.random.Generator) -> Example:
        """Transform one example; see `Transform`."""
        chosen = chance(rng, self.probability)
        drawn = self.draw(example, rng)
        return moves.keep_visible(self.move(example, drawn), self.min_visible) if chosen else example


@dataclasses.dataclass(frozen=True)
class Flip(Geometric):
    """Mirrors images.

    Args:
        horizontal: mirror left and right.
        vertical: mirror top and bottom.
        probability: of each mirroring on its own.
        keypoint_order: which keypoint takes the place of each in a horizontal mirror; the pipeline finds it out from
            names such as "left_eye".
    """

    horizontal: bool = True
    vertical: bool = False
    probability: float = 0.5
    keypoint_order: tuple[int, ...] | None = None

    def draw(self, example: Example, rng: np.random.Generator) -> tuple[bool, bool]:
        """Whether to mirror (left and right, top and bottom)."""
        chosen = chance(rng, self.probability), chance(rng, self.probability)
        return chosen[0] and self.horizontal, chosen[1] and self.vertical

    def move(self, example: Example, drawn: tuple[bool, bool]) -> Example:
        """Mirror."""
        if drawn[0]:
            example = moves.mirror(example, 1, self.keypoint_order)
        return moves.mirror(example, 0) if drawn[1] else example

    def __call__(self, example: Example, rng: np.random.Generator) -> Example:
        """Transform one example; see `Transform`."""
        return self.move(example, self.draw(example, rng))


@dataclasses.dataclass(frozen=True)
class Rot90(Geometric):
    """Turns images by 0, 90, 180 or 270 degrees; an oblong image changes its sides.

    Args:
        turns: the quarter turns to choose from, counter-clockwise.
    """

    turns: tuple[int, ...] = (0, 1, 2, 3)

    def check(self) -> None:
        """Raise a `RecipeError` where a parameter is out of range."""
        require(len(self.turns) > 0 and set(self.turns) <= {0, 1, 2, 3}, "turns out of 0, 1, 2, 3", self.turns)

    def draw(self, example: Example, rng: np.random.Generator) -> int:
        """Quarter turns."""
        return self.turns[int(rng.integers(len(self.turns)))]

    def move(self, example: Example, drawn: int) -> Example:
        """Turn."""
        return moves.quarter_turns(example, drawn)


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
        _require_fill(self.fill)

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
        _require_size(self.size)

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
        _require_fill(self.fill)

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
        _require_size(self.size)
        require(self.divisor >= 1, "divisor >= 1", self.divisor)
        _require_fill(self.fill)

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
        _require_size(self.size)
        _require_fill(self.fill)

    def draw(self, example: Example, rng: np.random.Generator) -> None:
        """Nothing is random."""

    def move(self, example: Example, drawn: None) -> Example:
        """Resize and add the border."""
        height, width = example["image"].shape[:2]
        size = self.size or (height, width)
        factor = min(size[0] / height, size[1] / width)
        inner = max(round(height * factor), 1), max(round(width * factor), 1)
        return Pad(size, fill=self.fill).move(moves.resize(example, inner), None)


@dataclasses.dataclass(frozen=True)
class ByMatrix(Geometric):
    """A move by one matrix, which keeps the size of the image.

    Args:
        fill: value of the pixels that come in, 0..255.
    """

    fill: int = dataclasses.field(default=0, kw_only=True)

    def __post_init__(self) -> None:
        _require_fill(self.fill)
        super().__post_init__()

    @abc.abstractmethod
    def draw(self, example: Example, rng: np.random.Generator) -> np.ndarray:
        """Matrix [3, 3] from input to output coordinates."""

    def move(self, example: Example, drawn: np.ndarray) -> Example:
        """Warp."""
        return example if (drawn == np.eye(3)).all() else moves.warp(example, drawn, fill=self.fill)


@dataclasses.dataclass(frozen=True)
class Rotate(ByMatrix):
    """Rotates images about their centres.

    Args:
        degrees: largest angle, each way.
        fill: value of the pixels that come in, 0..255.
    """

    degrees: float = 15.0

    def check(self) -> None:
        """Raise a `RecipeError` where a parameter is out of range."""
        require(0 <= self.degrees <= 180, "degrees in 0..180", self.degrees)

    def draw(self, example: Example, rng: np.random.Generator) -> np.ndarray:
        """A rotation."""
        return moves.rotation(rng.uniform(-self.degrees, self.degrees), moves.center_of(example))


@dataclasses.dataclass(frozen=True)
class Scale(ByMatrix):
    """Enlarges and shrinks images about their centres; the size of the picture stays.

    Args:
        factor: smallest and largest factor.
        same: one factor for both sides, or one for each.
    """

    factor: Range = (0.8, 1.25)
    same: bool = True

    def check(self) -> None:
        """Raise a `RecipeError` where a parameter is out of range."""
        require_range("factor", self.factor, 0.01, 100)

    def draw(self, example: Example, rng: np.random.Generator) -> np.ndarray:
        """An enlargement; factors are drawn on a logarithmic scale."""
        low, high = np.log(self.factor)
        x, y = np.exp(rng.uniform(low, high, 2))
        return moves.scaling(x, x if self.same else y, moves.center_of(example))


@dataclasses.dataclass(frozen=True)
class Translate(ByMatrix):
    """Shifts images.

    Args:
        x: largest shift, each way, as a share of the width.
        y: largest shift, each way, as a share of the height.
    """

    x: float = 0.1
    y: float = 0.1

    def check(self) -> None:
        """Raise a `RecipeError` where a parameter is out of range."""
        require(0 <= self.x <= 1 and 0 <= self.y <= 1, "x and y in 0..1", (self.x, self.y))

    def draw(self, example: Example, rng: np.random.Generator) -> np.ndarray:
        """A shift."""
        height, width = example["image"].shape[:2]
        x, y = rng.uniform(-1, 1, 2)
        return moves.translation(x * self.x * width, y * self.y * height)


@dataclasses.dataclass(frozen=True)
class Shear(ByMatrix):
    """Shears images about their centres.

    Args:
        x: largest angle of the upright edges, each way, in degrees.
        y: largest angle of the level edges, each way, in degrees.
    """

    x: float = 10.0
    y: float = 0.0

    def check(self) -> None:
        """Raise a `RecipeError` where a parameter is out of range."""
        require(0 <= self.x < 90 and 0 <= self.y < 90, "x and y in 0..90 degrees", (self.x, self.y))

    def draw(self, example: Example, rng: np.random.Generator) -> np.ndarray:
        """A shear."""
        x, y = np.tan(np.radians(rng.uniform(-1, 1, 2) * (self.x, self.y)))
        return moves.shearing(x, y, moves.center_of(example))


@dataclasses.dataclass(frozen=True)
class Affine(ByMatrix):
    """Rotates, shears, scales and shifts images in one step.

    Args:
        degrees: largest angle, each way.
        scale: smallest and largest factor, drawn on a logarithmic scale.
        translate: largest shift, each way, as a share of each side.
        shear: largest angle of the upright edges, each way, in degrees.
    """

    degrees: float = 10.0
    scale: Range = (0.8, 1.25)
    translate: float = 0.1
    shear: float = 5.0

    def check(self) -> None:
        """Raise a `RecipeError` where a parameter is out of range."""
        require(0 <= self.degrees <= 180, "degrees in 0..180", self.degrees)
        require_range("scale", self.scale, 0.01, 100)
        require(0 <= self.translate <= 1, "translate in 0..1", self.translate)
        require(0 <= self.shear < 90, "shear in 0..90 degrees", self.shear)

    def draw(self, example: Example, rng: np.random.Generator) -> np.ndarray:
        """All in one matrix."""
        height, width = example["image"].shape[:2]
        center = moves.center_of(example)
        angle, shear, x, y = rng.uniform(-1, 1, 4)
        factor = math.exp(rng.uniform(*np.log(self.scale)))
        return (
            moves.translation(x * self.translate * width, y * self.translate * height)
            @ moves.scaling(factor, factor, center)
            @ moves.shearing(math.tan(math.radians(shear * self.shear)), 0.0, center)
            @ moves.rotation(angle * self.degrees, center)
        )


@dataclasses.dataclass(frozen=True)
class Perspective(ByMatrix):
    """Moves each corner of the image on its own, as a camera would that looks from somewhere else.

    Args:
        distortion: largest way of a corner towards the middle, as a share of half a side.
    """

    distortion: float = 0.3

    def check(self) -> None:
        """Raise a `RecipeError` where a parameter is out of range."""
        require(0 <= self.distortion < 1, "distortion in [0, 1)", self.distortion)

    def draw(self, example: Example, rng: np.random.Generator) -> np.ndarray:
        """A projection."""
        height, width = example["image"].shape[:2]
        ways = rng.random((4, 2)) * self.distortion / 2
        if not ways.any():
            return np.eye(3)
        corners = np.array([[0, 0], [1, 0], [1, 1], [0, 1]], np.float64)
        moved = corners + ways * (1 - 2 * corners)
        sides = (width, height)
        return cv2.getPerspectiveTransform((corners * sides).astype(np.float32), (moved * sides).astype(np.float32))


@dataclasses.dataclass(frozen=True)
class Elastic(Geometric):
    """Bends images by a smooth random field (Simard et al., 2003, ICDAR).

    Args:
        strength: standard deviation of the shifts in pixels.
        smoothness: of the field: standard deviation of its Gaussian filter, as a share of the shorter side.
        fill: value of the pixels that come in, 0..255.
    """

    strength: float = 4.0
    smoothness: float = 0.08
    fill: int = 0

    def check(self) -> None:
        """Raise a `RecipeError` where a parameter is out of range."""
        require(self.strength >= 0, "strength >= 0 pixels", self.strength)
        require(0.01 <= self.smoothness <= 1, "smoothness in 0.01..1", self.smoothness)
        _require_fill(self.fill)

    def draw(self, example: Example, rng: np.random.Generator) -> np.ndarray:
        """Shifts, float32 [H, W, 2]."""
        height, width = example["image"].shape[:2]
        sigma = self.smoothness * min(height, width)
        # A field this smooth is drawn small, at two pixels for each sigma, and enlarged.
        step = max(sigma / 2, 1.0)
        shape = max(math.ceil(height / step), 2), max(math.ceil(width / step), 2)
        field = cv2.GaussianBlur(rng.standard_normal((*shape, 2), np.float32), (0, 0), max(sigma / step, 0.5))
        shifts = cv2.resize(field, (width, height), interpolation=cv2.INTER_CUBIC)
        return shifts * np.float32(self.strength / max(float(field.std()), 1e-6))

    def move(self, example: Example, drawn: np.ndarray) -> Example:
        """Bend."""
        return moves.bend(example, drawn, fill=self.fill) if self.strength else example


def _require_fill(fill: float) -> None:
    require(0 <= fill <= 255, "fill in 0..255", fill)


def _require_size(size: tuple[int, int] | None) -> None:
    valid = size is None or (isinstance(size, tuple) and len(size) == 2 and min(size) >= 1)
    require(valid, "size (height, width) in pixels", size)
