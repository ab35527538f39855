"""What every transform is, and the small tools they share."""

from collections.abc import Callable, Mapping
from typing import Any, ClassVar, Protocol, runtime_checkable

import numpy as np

from kerasvision.errors import RecipeError

Example = dict[str, Any]


@runtime_checkable
class Transform(Protocol):
    """Changes one example; what belongs to an image moves with it.

    All randomness comes from the generator: the same state of it gives the same example, called directly or inside
    tf.data. Transforms work on NumPy arrays with OpenCV, which gives Python's lock back while it computes, so that
    tf.data runs them on every core.
    """

    def __call__(self, example: Example, rng: np.random.Generator) -> Example:
        """Transform one example.

        Args:
            example: see `kerasvision.augment`; it and its arrays are not changed.
            rng: source of every random number.

        Returns:
            A new dict; arrays that did not change may be the old ones.
        """
        ...


@runtime_checkable
class Mixing(Protocol):
    """A transform that puts several examples together."""

    mixes: ClassVar[bool]
    images: ClassVar[int]

    def __call__(self, example: Example, rng: np.random.Generator, draw: Callable[[], Example]) -> Example:
        """Transform one example.

        Args:
            example: as in `Transform`.
            rng: source of every random number.
            draw: gives another example of the set, at random by the same generator, as it was before this transform.

        Returns:
            A new dict.
        """
        ...


Augmentation = str | Mapping[str, Any] | Transform | Mixing


def chance(rng: np.random.Generator, probability: float) -> bool:
    """True with a probability; takes one number from the generator whatever it is, so that streams stay comparable."""
    return bool(rng.random() < probability)


def with_image(example: Example, image: np.ndarray) -> Example:
    """The example with other pixels; OpenCV leaves out an axis of one channel, which comes back here."""
    return {**example, "image": image[..., None] if image.ndim == 2 else image}


def to_pixels(values: np.ndarray) -> np.ndarray:
    """Rounds float values to the pixels 0..255 they are nearest to."""
    return np.clip(np.rint(values), 0, 255).astype(np.uint8)


def require(condition: bool, expected: str, received: object) -> None:
    """Raises a `RecipeError` that says what was expected and what came."""
    if not condition:
        raise RecipeError(f"Expected {expected}, got {received}.")


def require_range(name: str, value: tuple[float, float], low: float, high: float) -> None:
    """Requires a pair (smallest, largest) within [low, high]."""
    pair = isinstance(value, tuple) and len(value) == 2
    require(pair and low <= value[0] <= value[1] <= high, f"{name} (smallest, largest) in [{low}, {high}]", value)


def require_probability(value: float) -> None:
    """Requires a number in 0..1."""
    require(0 <= value <= 1, "probability in 0..1", value)
