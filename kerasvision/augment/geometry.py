"""Transforms that mirror, turn, stretch and bend images, and everything that belongs to them."""

import abc
import dataclasses
import math

import cv2
import numpy as np

from kerasvision.augment import moves
from kerasvision.augment.base import Example, chance, require, require_range
from kerasvision.augment.geometric import Geometric, Range, require_fill


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
class ByMatrix(Geometric):
    """A move by one matrix, which keeps the size of the image.

    Args:
        fill: value of the pixels that come in, 0..255.
    """

    fill: int = dataclasses.field(default=0, kw_only=True)

    def __post_init__(self) -> None:
        require_fill(self.fill)
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
        require_fill(self.fill)

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
