"""Tone curves and sharpness: what Pillow's ImageOps and ImageEnhance do, at the speed of table look-ups."""

import dataclasses
from collections.abc import Callable
from functools import partial

import cv2
import numpy as np

from kerasvision.augment.base import require, require_range
from kerasvision.augment.photometric import Photometric, linear, look_up

VALUES = np.arange(256)


def gamma(image: np.ndarray, exponent: float) -> np.ndarray:
    """Raises pixels, as shares of 255, to a power: below 1 brightens, above 1 darkens, 1 changes nothing."""
    return look_up(image, np.rint(255 * (VALUES / 255) ** exponent).astype(np.uint8))


def clahe(image: np.ndarray, limit: float = 2.0, tiles: int = 8) -> np.ndarray:
    """Equalizes histograms of tiles with a limit on the contrast (Zuiderveld, 1994, Graphics Gems IV).

    Args:
        image: uint8 [H, W, 1 or 3]; of colours only the lightness (L of Lab) is changed.
        limit: largest count of a histogram bin, in multiples of the mean count; 0 changes nothing.
        tiles: number of tiles in each direction.

    Returns:
        uint8 of the same shape.
    """
    if limit == 0:
        return image
    equalizer = cv2.createCLAHE(limit, (tiles, tiles))
    if image.shape[-1] == 1:
        return equalizer.apply(image[..., 0]).reshape(image.shape)
    lab = cv2.cvtColor(image, cv2.COLOR_RGB2LAB)
    cv2.insertChannel(equalizer.apply(cv2.extractChannel(lab, 0)), lab, 0)
    return cv2.cvtColor(lab, cv2.COLOR_LAB2RGB)


def equalize(image: np.ndarray) -> np.ndarray:
    """Makes the histogram of each channel as even as possible, exactly as Pillow's ImageOps.equalize."""
    channels = image.shape[-1]
    table = np.empty((256, channels), np.uint8)
    for channel in range(channels):
        counts = cv2.calcHist([image], [channel], None, [256], [0, 256]).ravel().astype(np.int64)
        below = counts.cumsum() - counts
        brightest = int(counts.nonzero()[0][-1])
        step = int(below[brightest]) // 255
        table[:, channel] = np.minimum((step // 2 + below) // step, 255) if step else VALUES
    return look_up(image, table)


def autocontrast(image: np.ndarray) -> np.ndarray:
    """Stretches each channel to 0..255, as Pillow's ImageOps.autocontrast."""
    bounds = np.array([cv2.minMaxLoc(values)[:2] for values in cv2.split(image)])
    low, spread = bounds[:, 0], bounds[:, 1] - bounds[:, 0]
    if np.isin(spread, (0, 255)).all():
        return image
    scale = np.where(spread > 0, 255 / np.maximum(spread, 1), 1.0)
    return linear(image, np.diag(scale), np.where(spread > 0, -low * scale, 0.0))


def posterize(image: np.ndarray, bits: int) -> np.ndarray:
    """Keeps the upper bits of every value, 0..8, as Pillow's ImageOps.posterize; 8 changes nothing."""
    return image & np.uint8(256 - 2 ** (8 - bits))


def solarize(image: np.ndarray, threshold: int) -> np.ndarray:
    """Inverts the values of at least the threshold, 0..256, as Pillow's ImageOps.solarize; 256 changes nothing."""
    if threshold > 255:
        return image
    return image ^ np.negative((image >= threshold).view(np.uint8))


def solarize_add(image: np.ndarray, addend: int, threshold: int = 128) -> np.ndarray:
    """Adds to the values below the threshold, clipped to 0..255."""
    return look_up(image, np.where(threshold > VALUES, np.clip(VALUES + addend, 0, 255), VALUES).astype(np.uint8))


def sharpness(image: np.ndarray, factor: float) -> np.ndarray:
    """Multiplies the distance from the smoothed image, as Pillow's ImageEnhance.Sharpness; 1 changes nothing.

    Args:
        image: uint8 [H, W, 1 or 3].
        factor: 0 smooths, 2 sharpens; the outermost pixels stay as they are.

    Returns:
        uint8 of the same shape.
    """
    # Pillow's kernel, 3x3 ones but 5 in the centre over 13, is a box and a point.
    box = (1 - factor) * 9 / 13
    changed = cv2.addWeighted(image, 1 - box, cv2.blur(image, (3, 3)).reshape(image.shape), box, 0)
    changed = np.asarray(changed).reshape(image.shape)
    changed[[0, -1]] = image[[0, -1]]
    changed[:, [0, -1]] = image[:, [0, -1]]
    return changed


def invert(image: np.ndarray) -> np.ndarray:
    """255 less every value."""
    return np.invert(image)


@dataclasses.dataclass(frozen=True)
class Gamma(Photometric):
    """Raises pixels, as shares of 255, to a power.

    Args:
        exponent: smallest and largest exponent, drawn evenly on a logarithmic scale; 1 changes nothing.
        probability: of changing the image at all.
    """

    exponent: tuple[float, float] = (0.7, 1.4)

    def __post_init__(self) -> None:
        super().__post_init__()
        require_range("exponent", self.exponent, 0.01, 100)

    def _draw(self, rng: np.random.Generator) -> Callable[[np.ndarray], np.ndarray]:
        return partial(gamma, exponent=float(np.exp(rng.uniform(*np.log(self.exponent)))))


@dataclasses.dataclass(frozen=True)
class CLAHE(Photometric):
    """Equalizes histograms of tiles with a limit on the contrast (Zuiderveld, 1994, Graphics Gems IV).

    Args:
        limit: smallest and largest limit, in multiples of a histogram's mean count; 0 changes nothing.
        tiles: number of tiles in each direction.
        probability: of changing the image at all.
    """

    limit: tuple[float, float] = (1.0, 4.0)
    tiles: int = 8

    def __post_init__(self) -> None:
        super().__post_init__()
        require_range("limit", self.limit, 0, 256)
        require(self.tiles >= 1, "tiles >= 1", self.tiles)

    def _draw(self, rng: np.random.Generator) -> Callable[[np.ndarray], np.ndarray]:
        return partial(clahe, limit=rng.uniform(*self.limit), tiles=self.tiles)


@dataclasses.dataclass(frozen=True)
class Equalize(Photometric):
    """Makes the histogram of each channel as even as possible, exactly as Pillow's ImageOps.equalize.

    Args:
        probability: of changing the image at all.
    """

    probability: float = dataclasses.field(default=0.5, kw_only=True)

    def _draw(self, rng: np.random.Generator) -> Callable[[np.ndarray], np.ndarray]:
        return equalize


@dataclasses.dataclass(frozen=True)
class AutoContrast(Photometric):
    """Stretches each channel to 0..255, as Pillow's ImageOps.autocontrast.

    Args:
        probability: of changing the image at all.
    """

    probability: float = dataclasses.field(default=0.5, kw_only=True)

    def _draw(self, rng: np.random.Generator) -> Callable[[np.ndarray], np.ndarray]:
        return autocontrast


@dataclasses.dataclass(frozen=True)
class Posterize(Photometric):
    """Keeps the upper bits of every value.

    Args:
        bits: smallest and largest number of bits kept; 8 changes nothing.
        probability: of changing the image at all.
    """

    bits: tuple[int, int] = (4, 8)

    def __post_init__(self) -> None:
        super().__post_init__()
        require_range("bits", self.bits, 0, 8)

    def _draw(self, rng: np.random.Generator) -> Callable[[np.ndarray], np.ndarray]:
        return partial(posterize, bits=int(rng.integers(self.bits[0], self.bits[1] + 1)))


@dataclasses.dataclass(frozen=True)
class Solarize(Photometric):
    """Inverts the values of at least a threshold.

    Args:
        threshold: smallest and largest threshold, 0..256; 256 changes nothing.
        probability: of changing the image at all.
    """

    threshold: tuple[int, int] = (128, 256)

    def __post_init__(self) -> None:
        super().__post_init__()
        require_range("threshold", self.threshold, 0, 256)

    def _draw(self, rng: np.random.Generator) -> Callable[[np.ndarray], np.ndarray]:
        return partial(solarize, threshold=int(rng.integers(self.threshold[0], self.threshold[1] + 1)))


@dataclasses.dataclass(frozen=True)
class Sharpness(Photometric):
    """Multiplies the distance from the smoothed image.

    Args:
        factor: smallest and largest factor; 0 smooths, 1 changes nothing, 2 sharpens.
        probability: of changing the image at all.
    """

    factor: tuple[float, float] = (0.2, 1.8)

    def __post_init__(self) -> None:
        super().__post_init__()
        require_range("factor", self.factor, 0, 10)

    def _draw(self, rng: np.random.Generator) -> Callable[[np.ndarray], np.ndarray]:
        return partial(sharpness, factor=rng.uniform(*self.factor))


@dataclasses.dataclass(frozen=True)
class Invert(Photometric):
    """Replaces every value by 255 less it.

    Args:
        probability: of changing the image at all.
    """

    probability: float = dataclasses.field(default=0.1, kw_only=True)

    def _draw(self, rng: np.random.Generator) -> Callable[[np.ndarray], np.ndarray]:
        return invert
