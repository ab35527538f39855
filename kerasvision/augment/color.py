"""Colour: brightness, contrast, saturation, hue, grey, and the channels themselves."""

import dataclasses
import math
from collections.abc import Callable, Sequence
from functools import partial

import cv2
import numpy as np

from kerasvision.augment.base import Example, require, require_range, with_image
from kerasvision.augment.photometric import Photometric, linear

LUMA = (0.299, 0.587, 0.114)
RGB_TO_YIQ = np.array([LUMA, (0.596, -0.274, -0.322), (0.211, -0.523, 0.312)])
YIQ_TO_RGB = np.linalg.inv(RGB_TO_YIQ)


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

    def __call__(self, example: Example, rng: np.random.Generator) -> Example:
        """Transforms one example; see `Transform`."""
        strengths = np.array([self.brightness, self.contrast, self.saturation, self.hue])
        brightness, contrast, saturation, turn = ((2 * rng.random(4) - 1) * strengths).tolist()
        return with_image(example, recolor(example["image"], 1 + brightness, 1 + contrast, 1 + saturation, turn))


def recolor(
    image: np.ndarray, brightness: float = 1.0, contrast: float = 1.0, saturation: float = 1.0, turn: float = 0.0
) -> np.ndarray:
    """Changes brightness, contrast, saturation and hue at once.

    Args:
        image: uint8 [H, W, 1 or 3].
        brightness: factor on all pixels.
        contrast: factor on the distance from the image's mean grey.
        saturation: factor on the distance from the pixel's own grey.
        turn: of the chroma plane (YIQ) about grey, as a share of the full circle.

    Returns:
        uint8 of the same shape.
    """
    # Everything here is linear in a pixel's (R, G, B), and leaves grey grey: one matrix and one addend do it all.
    addend = (1 - contrast) * brightness * mean_grey(image) if contrast != 1 else 0.0
    scale = brightness * contrast
    if image.shape[-1] == 1 or (saturation == 1 and turn == 0):
        return linear(image, np.array([[scale]]), addend)
    matrix = saturation_matrix(saturation)
    if turn:
        matrix = hue_matrix(turn) @ matrix
    return linear(image, scale * matrix, addend)


def mean_grey(image: np.ndarray) -> float:
    """Mean of the grey values of an image, 0..255."""
    means = cv2.mean(image)
    return means[0] if image.shape[-1] == 1 else sum(part * mean for part, mean in zip(LUMA, means, strict=False))


def saturation_matrix(factor: float) -> np.ndarray:
    """float64 [3, 3] that multiplies the distance of (R, G, B) from its own grey."""
    return factor * np.eye(3) + (1 - factor) * np.array(LUMA)


def hue_matrix(turn: float) -> np.ndarray:
    """Matrix that turns the chroma of (R, G, B) about the grey axis and leaves the luma.

    Args:
        turn: share of the full circle.

    Returns:
        float64 [3, 3].
    """
    cos, sin = math.cos(2 * math.pi * turn), math.sin(2 * math.pi * turn)
    return YIQ_TO_RGB @ np.array([[1, 0, 0], [0, cos, -sin], [0, sin, cos]]) @ RGB_TO_YIQ


def brightness(image: np.ndarray, factor: float) -> np.ndarray:
    """Multiplies all pixels, as Pillow's ImageEnhance.Brightness."""
    return linear(image, np.array([[factor]]))


def contrast(image: np.ndarray, factor: float) -> np.ndarray:
    """Multiplies the distance of every pixel from the image's mean grey, as Pillow's ImageEnhance.Contrast."""
    return linear(image, np.array([[factor]]), (1 - factor) * math.floor(mean_grey(image) + 0.5))


def saturation(image: np.ndarray, factor: float) -> np.ndarray:
    """Multiplies the distance of every pixel from its own grey, as Pillow's ImageEnhance.Color."""
    return image if image.shape[-1] == 1 else linear(image, saturation_matrix(factor))


def hue(image: np.ndarray, turn: float) -> np.ndarray:
    """Turns the chroma plane (YIQ) about grey by a share of the full circle."""
    return image if image.shape[-1] == 1 else linear(image, hue_matrix(turn))


def color_cast(image: np.ndarray, gains: Sequence[float]) -> np.ndarray:
    """Multiplies each channel by a gain of its own, as light of another colour does (von Kries's diagonal model)."""
    return image if image.shape[-1] == 1 else linear(image, np.diag(gains))


def grey(image: np.ndarray) -> np.ndarray:
    """Replaces colours by their grey, in as many channels as before."""
    if image.shape[-1] == 1:
        return image
    return cv2.cvtColor(cv2.cvtColor(image, cv2.COLOR_RGB2GRAY), cv2.COLOR_GRAY2RGB)


@dataclasses.dataclass(frozen=True)
class Brightness(Photometric):
    """Multiplies all pixels.

    Args:
        factor: smallest and largest factor; 1 changes nothing.
        probability: of changing the image at all.
    """

    factor: tuple[float, float] = (0.7, 1.3)

    def __post_init__(self) -> None:
        super().__post_init__()
        require_range("factor", self.factor, 0, 10)

    def _draw(self, rng: np.random.Generator) -> Callable[[np.ndarray], np.ndarray]:
        return partial(brightness, factor=rng.uniform(*self.factor))


@dataclasses.dataclass(frozen=True)
class Contrast(Photometric):
    """Multiplies the distance of every pixel from the image's mean grey.

    Args:
        factor: smallest and largest factor; 1 changes nothing.
        probability: of changing the image at all.
    """

    factor: tuple[float, float] = (0.7, 1.3)

    def __post_init__(self) -> None:
        super().__post_init__()
        require_range("factor", self.factor, 0, 10)

    def _draw(self, rng: np.random.Generator) -> Callable[[np.ndarray], np.ndarray]:
        return partial(contrast, factor=rng.uniform(*self.factor))


@dataclasses.dataclass(frozen=True)
class Saturation(Photometric):
    """Multiplies the distance of every pixel from its own grey; grey images stay as they are.

    Args:
        factor: smallest and largest factor; 1 changes nothing.
        probability: of changing the image at all.
    """

    factor: tuple[float, float] = (0.6, 1.4)

    def __post_init__(self) -> None:
        super().__post_init__()
        require_range("factor", self.factor, 0, 10)

    def _draw(self, rng: np.random.Generator) -> Callable[[np.ndarray], np.ndarray]:
        return partial(saturation, factor=rng.uniform(*self.factor))


@dataclasses.dataclass(frozen=True)
class Hue(Photometric):
    """Turns the chroma plane (YIQ) about grey; grey images stay as they are.

    Args:
        turn: smallest and largest turn, as a share of the full circle; 0 changes nothing.
        probability: of changing the image at all.
    """

    turn: tuple[float, float] = (-0.05, 0.05)

    def __post_init__(self) -> None:
        super().__post_init__()
        require_range("turn", self.turn, -0.5, 0.5)

    def _draw(self, rng: np.random.Generator) -> Callable[[np.ndarray], np.ndarray]:
        return partial(hue, turn=rng.uniform(*self.turn))


@dataclasses.dataclass(frozen=True)
class ColorCast(Photometric):
    """Multiplies each channel by a gain of its own, as light of another colour does; grey images stay as they are.

    The diagonal model of von Kries (1902). The gains are divided by their mean, so that the image grows no brighter.

    Args:
        gain: smallest and largest gain of a channel, drawn evenly on a logarithmic scale; 1 changes nothing.
        probability: of changing the image at all.
    """

    gain: tuple[float, float] = (0.7, 1.4)

    def __post_init__(self) -> None:
        super().__post_init__()
        require_range("gain", self.gain, 0.01, 10)

    def _draw(self, rng: np.random.Generator) -> Callable[[np.ndarray], np.ndarray]:
        low, high = np.log(self.gain)
        gains = np.exp(rng.uniform(low, high, 3))
        return partial(color_cast, gains=gains / gains.mean())


@dataclasses.dataclass(frozen=True)
class Grey(Photometric):
    """Replaces colours by their grey, in as many channels as before.

    Args:
        probability: of changing the image at all.
    """

    probability: float = dataclasses.field(default=0.1, kw_only=True)

    def _draw(self, rng: np.random.Generator) -> Callable[[np.ndarray], np.ndarray]:
        return grey


@dataclasses.dataclass(frozen=True)
class ChannelShuffle(Photometric):
    """Puts the channels into a random order; grey images stay as they are.

    Args:
        probability: of changing the image at all.
    """

    probability: float = dataclasses.field(default=0.1, kw_only=True)

    def _draw(self, rng: np.random.Generator) -> Callable[[np.ndarray], np.ndarray]:
        order = rng.permutation(3)
        return lambda image: image if image.shape[-1] == 1 else linear(image, np.eye(3)[order])


@dataclasses.dataclass(frozen=True)
class ChannelDropout(Photometric):
    """Replaces one channel by a constant; grey images stay as they are.

    Args:
        fill: value of the lost channel, 0..255.
        probability: of changing the image at all.
    """

    fill: int = 0
    probability: float = dataclasses.field(default=0.1, kw_only=True)

    def __post_init__(self) -> None:
        super().__post_init__()
        require(0 <= self.fill <= 255, "fill in 0..255", self.fill)

    def _draw(self, rng: np.random.Generator) -> Callable[[np.ndarray], np.ndarray]:
        kept = np.arange(3) != rng.integers(3)
        return lambda image: image if image.shape[-1] == 1 else linear(image, np.diag(kept), self.fill * ~kept)
