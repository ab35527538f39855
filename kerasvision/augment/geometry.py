"""Transforms that move pixels: flip, shifted crop, resized crop, rotation."""

import dataclasses
import math

import tensorflow as tf

from kerasvision.augment.base import (
    Example,
    between,
    require,
    require_range,
    to_pixels,
    uniform,
)


@dataclasses.dataclass(frozen=True)
class Flip:
    """Mirrors images.

    Args:
        horizontal: mirror left and right.
        vertical: mirror top and bottom.
        probability: of each mirroring on its own.
    """

    horizontal: bool = True
    vertical: bool = False
    probability: float = 0.5

    def __post_init__(self) -> None:
        require(0 <= self.probability <= 1, "probability in 0..1", self.probability)

    def __call__(self, example: Example, seed: tf.Tensor) -> Example:
        """Transforms one batch; see `Transform`."""
        image = example["image"]
        chosen = uniform(image, seed, 2) < self.probability
        if self.horizontal:
            image = _mirror(image, 2, chosen[0])
        if self.vertical:
            image = _mirror(image, 1, chosen[1])
        return {**example, "image": tf.ensure_shape(image, example["image"].shape)}


def _mirror(image: tf.Tensor, axis: int, chosen: tf.Tensor) -> tf.Tensor:
    """Mirrors the chosen images of a batch, bool [B]; gathering is three times as fast as tf.where on images."""
    last = tf.shape(image)[axis] - 1
    places = tf.range(last + 1)
    return tf.gather(image, tf.where(chosen[:, None], last - places, places), axis=axis, batch_dims=1)


@dataclasses.dataclass(frozen=True)
class Crop:
    """Shifts images by a few pixels: pads them and cuts out a window of the old size.

    Args:
        padding: largest shift in pixels, each way.
        fill: value of the pixels that come in, 0..255.
    """

    padding: int = 4
    fill: float = 0

    def __post_init__(self) -> None:
        require(self.padding >= 0, "padding >= 0 pixels", self.padding)
        require(0 <= self.fill <= 255, "fill in 0..255", self.fill)

    def __call__(self, example: Example, seed: tf.Tensor) -> Example:
        """Transforms one batch; see `Transform`."""
        image = example["image"]
        size = tf.shape(image)
        border = [[0, 0], [self.padding, self.padding], [self.padding, self.padding], [0, 0]]
        padded = tf.pad(image, border, constant_values=tf.cast(self.fill, image.dtype))
        shift = tf.random.stateless_uniform([2, size[0], 1], seed, 0, 2 * self.padding + 1, tf.int32)
        # rows: [B, H], columns: [B, W]
        window = tf.gather(padded, shift[0] + tf.range(size[1]), axis=1, batch_dims=1)
        window = tf.gather(window, shift[1] + tf.range(size[2]), axis=2, batch_dims=1)
        return {**example, "image": tf.ensure_shape(window, image.shape)}


@dataclasses.dataclass(frozen=True)
class ResizedCrop:
    """Cuts out a random part and enlarges it to the old size (Szegedy et al., 2014, arXiv:1409.4842).

    Args:
        scale: smallest and largest share of the image's area.
        ratio: smallest and largest change of the aspect ratio; less than asked for where the part would not fit.
    """

    scale: tuple[float, float] = (0.35, 1.0)
    ratio: tuple[float, float] = (3 / 4, 4 / 3)

    def __post_init__(self) -> None:
        require_range("scale", self.scale, 0, 1)
        require_range("ratio", self.ratio, 0, math.inf)

    def __call__(self, example: Example, seed: tf.Tensor) -> Example:
        """Transforms one batch; see `Transform`."""
        image = example["image"]
        draws = uniform(image, seed, 4)
        area = between(draws[0], *self.scale)
        ratio = tf.exp(between(draws[1], math.log(self.ratio[0]), math.log(self.ratio[1])))
        # Sides as shares of the image's: a ratio beyond [area, 1 / area] would stick out.
        ratio = tf.clip_by_value(ratio, area, 1 / area)
        height, width = tf.sqrt(area / ratio), tf.sqrt(area * ratio)
        size = tf.cast(tf.shape(image)[1:3], tf.float32)
        top, left = draws[2] * (1 - height) * size[0], draws[3] * (1 - width) * size[1]
        zero = tf.zeros_like(area)
        # Pixel centres lie at halves: output x shows input (x + 0.5) * width + left - 0.5.
        matrix = [width, zero, left + (width - 1) / 2, zero, height, top + (height - 1) / 2, zero, zero]
        return {**example, "image": project(image, tf.stack(matrix, axis=-1), "NEAREST")}


@dataclasses.dataclass(frozen=True)
class Rotate:
    """Rotates images about their centres.

    Args:
        degrees: largest angle, each way.
        fill: value of the pixels that come in, 0..255.
    """

    degrees: float = 15.0
    fill: float = 0

    def __post_init__(self) -> None:
        require(0 <= self.degrees <= 180, "degrees in 0..180", self.degrees)
        require(0 <= self.fill <= 255, "fill in 0..255", self.fill)

    def __call__(self, example: Example, seed: tf.Tensor) -> Example:
        """Transforms one batch; see `Transform`."""
        image = example["image"]
        angles = between(uniform(image, seed, 1)[0], -self.degrees, self.degrees) * (math.pi / 180)
        return {**example, "image": rotate(image, angles, self.fill)}


def rotate(image: tf.Tensor, angles: tf.Tensor, fill: float = 0) -> tf.Tensor:
    """Rotates images counter-clockwise about their centres.

    Args:
        image: [B, H, W, C] of 0..255.
        angles: radians, [B].
        fill: value of the pixels that come in.

    Returns:
        [B, H, W, C] of the same type.
    """
    angles = tf.cast(angles, tf.float32)
    cos, sin = tf.cos(angles), tf.sin(angles)
    last = tf.cast(tf.shape(image)[1:3], tf.float32) - 1
    # The shifts keep the centre (last / 2) where it is.
    shift_x = (last[1] - (cos * last[1] - sin * last[0])) / 2
    shift_y = (last[0] - (sin * last[1] + cos * last[0])) / 2
    zero = tf.zeros_like(cos)
    matrix = tf.stack([cos, -sin, shift_x, sin, cos, shift_y, zero, zero], axis=-1)
    return project(image, matrix, "CONSTANT", fill)


def project(image: tf.Tensor, matrix: tf.Tensor, fill_mode: str, fill: float = 0) -> tf.Tensor:
    """Moves each image by its own affine map, with bilinear interpolation.

    Args:
        image: [B, H, W, C] of 0..255.
        matrix: [B, 8], rows (a0, a1, a2, b0, b1, b2, 0, 0): output (x, y) shows input
            (a0 x + a1 y + a2, b0 x + b1 y + b2).
        fill_mode: what lies outside: "CONSTANT" is `fill`, "NEAREST" the border pixel.
        fill: value, 0..255.

    Returns:
        [B, H, W, C] of the same type.
    """
    moved = tf.raw_ops.ImageProjectiveTransformV3(
        images=tf.cast(image, tf.float32),
        transforms=matrix,
        output_shape=tf.shape(image)[1:3],
        fill_value=tf.cast(fill, tf.float32),
        interpolation="BILINEAR",
        fill_mode=fill_mode,
    )
    return to_pixels(moved, image)
