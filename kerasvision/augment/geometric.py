"""What the transforms share that move pixels, and everything that belongs to them."""

import abc
import dataclasses
from typing import Any

import numpy as np

from kerasvision.augment import moves
from kerasvision.augment.base import Example, chance, require, require_probability

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


def require_fill(fill: float) -> None:
    """Raise a `RecipeError` unless it is a pixel value."""
    require(0 <= fill <= 255, "fill in 0..255", fill)


def require_size(size: tuple[int, int] | None) -> None:
    """Raise a `RecipeError` unless it is (height, width), or None."""
    valid = size is None or (isinstance(size, tuple) and len(size) == 2 and min(size) >= 1)
    require(valid, "size (height, width) in pixels", size)
