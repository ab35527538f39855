"""What every transform is, and the small tools they share."""

from collections.abc import Mapping
from typing import Any, Protocol

import tensorflow as tf

from kerasvision.errors import RecipeError

Example = dict[str, tf.Tensor]


class Transform(Protocol):
    """Changes a batch of examples, each in its own way; what belongs to an image is to move with it.

    Working on batches costs a small image a tenth of what a tf.data function called for each would cost. All
    randomness comes from the seed: the same seed gives the same pixels, eagerly and inside tf.data.
    """

    def __call__(self, example: Example, seed: tf.Tensor) -> Example:
        """Transforms one batch.

        Args:
            example: {"image": uint8 or float32 [B, H, W, C] of 0..255, ...}; other keys are passed on.
            seed: integer [2].

        Returns:
            A new dict; the images keep shape and type, their values stay in 0..255.
        """
        ...


Augmentation = str | Mapping[str, Any] | Transform


def uniform(image: tf.Tensor, seed: tf.Tensor, count: int) -> tf.Tensor:
    """`count` random numbers for each image of a batch: float32 [count, B] in [0, 1)."""
    return tf.random.stateless_uniform([count, tf.shape(image)[0]], seed)


def between(draws: tf.Tensor, low: float, high: float) -> tf.Tensor:
    """Stretches numbers in [0, 1) over [low, high)."""
    return low + draws * (high - low)


def per_image(values: tf.Tensor) -> tf.Tensor:
    """[B] -> [B, 1, 1, 1], to meet a batch of images."""
    return values[:, None, None, None]


def to_pixels(values: tf.Tensor, like: tf.Tensor) -> tf.Tensor:
    """Clips float values to 0..255 and gives them the type and the static shape of a batch of images."""
    values = tf.clip_by_value(values, 0.0, 255.0)
    if like.dtype.is_integer:
        values = tf.round(values)
    return tf.ensure_shape(tf.cast(values, like.dtype), like.shape)


def require(condition: bool, expected: str, received: object) -> None:
    """Raises a `RecipeError` that says what was expected and what came."""
    if not condition:
        raise RecipeError(f"Expected {expected}, got {received}.")


def require_range(name: str, value: tuple[float, float], low: float, high: float) -> None:
    """Requires a pair (smallest, largest) within (low, high]."""
    pair = isinstance(value, tuple) and len(value) == 2
    require(pair and low < value[0] <= value[1] <= high, f"{name} (smallest, largest) in ({low}, {high}]", value)
