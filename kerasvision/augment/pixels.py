"""Transforms that change pixels where they are: colour, and erasing a part."""

import dataclasses
import math

import tensorflow as tf

from kerasvision.augment.base import (
    Example,
    between,
    per_image,
    require,
    require_range,
    to_pixels,
    uniform,
)

LUMA = (0.299, 0.587, 0.114)
RGB_TO_YIQ = (LUMA, (0.596, -0.274, -0.322), (0.211, -0.523, 0.312))


@dataclasses.dataclass(frozen=True)
class Color:
    """Changes brightness, contrast, saturation and hue, in this order; clipped once, at the end.

    Each strength s draws a factor from [1 - s, 1 + s). Grey images have neither saturation nor hue.

    Args:
        brightness: strength; the factor multiplies all pixels.
        contrast: strength; the factor multiplies the distance from the image's mean grey.
        saturation: strength; the factor multiplies the distance from the pixel's own grey.
        hue: largest turn of the chroma plane (YIQ) about grey, as a share of the full circle, at most 0.5.
    """

    brightness: float = 0.2
    contrast: float = 0.2
    saturation: float = 0.2
    hue: float = 0.0

    def __post_init__(self) -> None:
        for name in ("brightness", "contrast", "saturation"):
            require(0 <= getattr(self, name) <= 1, f"{name} in 0..1", getattr(self, name))
        require(0 <= self.hue <= 0.5, "hue in 0..0.5", self.hue)

    def __call__(self, example: Example, seed: tf.Tensor) -> Example:
        """Transforms one batch; see `Transform`."""
        image = example["image"]
        draws = uniform(image, seed, 4)
        pixels = tf.cast(image, tf.float32)
        luma = tf.constant(LUMA if image.shape[-1] == 3 else (1.0,))
        brightness = between(draws[0], 1 - self.brightness, 1 + self.brightness)
        contrast = between(draws[1], 1 - self.contrast, 1 + self.contrast)
        mean = brightness * tf.linalg.matvec(tf.reduce_mean(pixels, axis=[1, 2]), luma)
        # Everything here is linear in a pixel's (R, G, B), and leaves grey grey: one matrix and one addend do it all.
        matrix = (brightness * contrast)[:, None, None] * tf.eye(len(luma))
        if image.shape[-1] == 3:
            saturation = between(draws[2], 1 - self.saturation, 1 + self.saturation)[:, None, None]
            matrix = (saturation * tf.eye(3) + (1 - saturation) * luma) @ matrix
            if self.hue:
                matrix = hue_turn(between(draws[3], -self.hue, self.hue)) @ matrix
        size = tf.shape(pixels)
        flat = tf.reshape(pixels, [size[0], -1, size[3]])
        changed = tf.matmul(flat, matrix, transpose_b=True) + (mean * (1 - contrast))[:, None, None]
        return {**example, "image": to_pixels(tf.reshape(changed, size), image)}


def hue_turn(turns: tf.Tensor) -> tf.Tensor:
    """Matrices that turn the chroma of (R, G, B) about the grey axis and leave the luma.

    Args:
        turns: shares of the full circle, [B].

    Returns:
        float32 [B, 3, 3].
    """
    to_yiq = tf.constant(RGB_TO_YIQ)
    cos, sin = tf.cos(2 * math.pi * turns), tf.sin(2 * math.pi * turns)
    zero, one = tf.zeros_like(cos), tf.ones_like(cos)
    turn = tf.reshape(tf.stack([one, zero, zero, zero, cos, -sin, zero, sin, cos], axis=-1), [-1, 3, 3])
    return tf.linalg.inv(to_yiq) @ turn @ to_yiq


@dataclasses.dataclass(frozen=True)
class Erase:
    """Covers a random rectangle with grey (Zhong et al., 2017, arXiv:1708.04896).

    Args:
        probability: of covering anything.
        area: smallest and largest share of the image's area.
        ratio: smallest and largest width / height of the rectangle.
        fill: value of the covered pixels, 0..255.
    """

    probability: float = 0.25
    area: tuple[float, float] = (0.02, 0.2)
    ratio: tuple[float, float] = (0.3, 3.3)
    fill: float = 128

    def __post_init__(self) -> None:
        require(0 <= self.probability <= 1, "probability in 0..1", self.probability)
        require_range("area", self.area, 0, 1)
        require_range("ratio", self.ratio, 0, math.inf)
        require(0 <= self.fill <= 255, "fill in 0..255", self.fill)

    def __call__(self, example: Example, seed: tf.Tensor) -> Example:
        """Transforms one batch; see `Transform`."""
        image = example["image"]
        chosen, area, ratio, top, left = tf.unstack(uniform(image, seed, 5))
        height, width = tf.unstack(tf.cast(tf.shape(image)[1:3], tf.float32))
        area = between(area, *self.area) * height * width
        ratio = tf.exp(between(ratio, math.log(self.ratio[0]), math.log(self.ratio[1])))
        rows = _span(tf.sqrt(area / ratio), height, top)
        columns = _span(tf.sqrt(area * ratio), width, left)
        # [B, H, 1, 1] & [B, 1, W, 1]
        inside = rows[:, :, None, None] & columns[:, None, :, None] & per_image(chosen < self.probability)
        return {**example, "image": tf.where(inside, tf.cast(self.fill, image.dtype), image)}


def _span(length: tf.Tensor, size: tf.Tensor, position: tf.Tensor) -> tf.Tensor:
    """bool [B, size]: a stretch of each row, `length` pixels long, at a relative position in [0, 1)."""
    length = tf.minimum(tf.round(length), size)
    start = tf.floor(position * (size - length + 1))
    pixels = tf.range(size)
    return (pixels >= start[:, None]) & (pixels < (start + length)[:, None])
