"""What the transforms share that change pixels where they are and leave everything else of an example alone."""

import abc
import dataclasses
from collections.abc import Callable

import cv2
import numpy as np

from kerasvision.augment.base import Example, chance, require_probability, with_image


@dataclasses.dataclass(frozen=True)
class Photometric(abc.ABC):
    """Base of the transforms that change pixel values only: boxes, masks and points stay as they are.

    Args:
        probability: of changing the image at all.
    """

    probability: float = dataclasses.field(default=1.0, kw_only=True)

    def __post_init__(self) -> None:
        require_probability(self.probability)

    def __call__(self, example: Example, rng: np.random.Generator) -> Example:
        """Transforms one example; see `Transform`."""
        chosen = chance(rng, self.probability)
        change = self._draw(rng)
        image: np.ndarray = example["image"]
        return with_image(example, change(image) if chosen else image)

    @abc.abstractmethod
    def _draw(self, rng: np.random.Generator) -> Callable[[np.ndarray], np.ndarray]:
        """Draws the parameters and gives the function of an image they make."""


def look_up(image: np.ndarray, table: np.ndarray) -> np.ndarray:
    """Replaces every value of an image.

    Args:
        image: uint8 [H, W, C].
        table: uint8 [256] for all channels, or [256, C] for each its own.

    Returns:
        uint8 [H, W, C].
    """
    if table.ndim == 2:
        table = table[None]
    return np.asarray(cv2.LUT(image, table)).reshape(image.shape)


def linear(image: np.ndarray, matrix: np.ndarray, addend: float | np.ndarray = 0.0) -> np.ndarray:
    """Multiplies every pixel's channels by a matrix and adds a value, to the nearest pixel value.

    Args:
        image: uint8 [H, W, C].
        matrix: [C, C], or [1, 1] for the same factor on every channel.
        addend: one number, or one for each channel, in pixel values.

    Returns:
        uint8 [H, W, C].
    """
    channels = len(matrix)
    coefficients = np.empty((channels, channels + 1), np.float32)
    coefficients[:, :-1] = matrix
    coefficients[:, -1] = addend
    return np.asarray(cv2.transform(image.reshape(-1, 1, channels), coefficients)).reshape(image.shape)
