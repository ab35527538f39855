"""Illumination normalisation: images of the same thing in different light become more alike.

All four are deterministic: they serve as augmentation, with a probability, and as preprocessing, always.
"""

import dataclasses
from collections.abc import Callable
from functools import partial

import cv2
import numpy as np

from kerasvision.augment.base import require, to_pixels
from kerasvision.augment.photometric import Photometric, linear

_FINEST_SIGMA = 4.0


def standardize(image: np.ndarray, mean: float = 128.0, deviation: float = 64.0) -> np.ndarray:
    """Gives an image a mean and a standard deviation, over all its pixels and channels.

    Args:
        image: uint8 [H, W, C].
        mean: of the result, before clipping, in pixel values.
        deviation: standard deviation of the result, before clipping, in pixel values.

    Returns:
        uint8 of the same shape; an image of one value stays as it is.
    """
    means, deviations = cv2.meanStdDev(image.reshape(-1, 1))
    old_mean, old_deviation = float(means.item()), float(deviations.item())
    if old_deviation == 0:
        return image
    scale = deviation / old_deviation
    return cv2.addWeighted(image, scale, image, 0, mean - scale * old_mean).reshape(image.shape)


def grey_world(image: np.ndarray) -> np.ndarray:
    """Gives all channels the same mean, as if the world were grey (Buchsbaum, 1980, doi:10.1016/0016-0032(80)90058-7).

    Args:
        image: uint8 [H, W, C].

    Returns:
        uint8 of the same shape; a channel of zeros stays as it is.
    """
    means = np.array(cv2.mean(image)[: image.shape[-1]])
    lit = means > 0
    if not lit.any():
        return image
    return linear(image, np.diag(np.where(lit, means[lit].mean() / np.maximum(means, 1e-9), 1.0)))


def retinex(
    image: np.ndarray,
    sigmas: tuple[float, ...] = (15.0, 80.0, 250.0),
    clip: float = 2.5,
    color_restoration: bool = False,
) -> np.ndarray:
    """Divides an image by its surroundings at several scales (Jobson et al., 1997, doi:10.1109/83.597272).

    Args:
        image: uint8 [H, W, C].
        sigmas: of the Gaussians that make the surroundings, in pixels.
        clip: standard deviations about its mean that a channel's result keeps of the logarithms.
        color_restoration: multiply by the logarithm of a channel's share of its pixel, as the paper does for images
            whose surroundings are not grey; brings some of the light's colour back.

    Returns:
        uint8 of the same shape; a channel of one value stays as it is.
    """
    values = image.astype(np.float32) + 1
    logarithms = np.log(values)
    surroundings = np.zeros_like(values)
    for sigma in sigmas:
        surroundings += np.log(np.maximum(wide_blur(values, sigma), 1))
    reflectance = logarithms - surroundings / len(sigmas)
    if color_restoration:
        # A grey pixel's factor is log(alpha / 3) for the paper's alpha = 125.
        reflectance *= np.log(125 * values / values.sum(axis=-1, keepdims=True))
    means, deviations = cv2.meanStdDev(reflectance)
    flat = image.reshape(-1, image.shape[-1]).max(axis=0) == image.reshape(-1, image.shape[-1]).min(axis=0)
    scale = 127.5 / (clip * np.maximum(deviations.ravel(), 1e-6))
    stretched = to_pixels(127.5 + (reflectance - means.ravel().astype(np.float32)) * scale.astype(np.float32))
    return np.where(flat, image, stretched) if flat.any() else stretched


def local_contrast(image: np.ndarray, sigma: float = 8.0, deviation: float = 48.0) -> np.ndarray:
    """Takes the local mean off and divides by the local spread (Jarrett et al., 2009, doi:10.1109/ICCV.2009.5459469).

    Args:
        image: uint8 [H, W, C].
        sigma: of the Gaussian that weights the neighbourhood, in pixels.
        deviation: of the result where the neighbourhood has contrast, in pixel values about 128.

    Returns:
        uint8 of the same shape; an image of one value stays as it is.
    """
    values = image.astype(np.float32)
    distance = values - wide_blur(values, sigma)
    squares = distance * distance
    spread = np.sqrt(np.maximum(wide_blur(squares, sigma), 0))
    # As in the paper, the mean spread is the least: smooth places do not become noise.
    floor = float(spread.mean())
    if floor < 1e-3:
        return image
    return to_pixels(128 + deviation * distance / np.maximum(spread, floor))


def wide_blur(values: np.ndarray, sigma: float) -> np.ndarray:
    """Gaussian blur of a float image at a cost that does not grow with sigma: wide ones are made on fewer pixels.

    Args:
        values: float32 [H, W, C].
        sigma: pixels.

    Returns:
        float32 of the same shape.
    """
    height, width = values.shape[:2]
    factor = max(1.0, sigma / _FINEST_SIGMA)
    small = (max(1, round(width / factor)), max(1, round(height / factor)))
    reduced = cv2.resize(values, small, interpolation=cv2.INTER_AREA) if factor > 1 else values
    side = 2 * round(3 * sigma / factor) + 1
    blurred = cv2.GaussianBlur(reduced, (side, side), sigma / factor, borderType=cv2.BORDER_REPLICATE)
    if factor > 1:
        blurred = cv2.resize(blurred, (width, height), interpolation=cv2.INTER_LINEAR)
    return blurred.reshape(values.shape)


@dataclasses.dataclass(frozen=True)
class Standardize(Photometric):
    """Gives an image a mean and a standard deviation, over all its pixels and channels.

    Args:
        mean: of the result, before clipping, in pixel values.
        deviation: standard deviation of the result, before clipping, in pixel values.
        probability: of changing the image at all.
    """

    mean: float = 128.0
    deviation: float = 64.0

    def __post_init__(self) -> None:
        super().__post_init__()
        require(0 <= self.mean <= 255, "mean in 0..255", self.mean)
        require(0 < self.deviation <= 255, "deviation in 0..255, not 0", self.deviation)

    def _draw(self, rng: np.random.Generator) -> Callable[[np.ndarray], np.ndarray]:
        return partial(standardize, mean=self.mean, deviation=self.deviation)


@dataclasses.dataclass(frozen=True)
class GreyWorld(Photometric):
    """Gives all channels the same mean, as if the world were grey (Buchsbaum, 1980, doi:10.1016/0016-0032(80)90058-7).

    Args:
        probability: of changing the image at all.
    """

    def _draw(self, rng: np.random.Generator) -> Callable[[np.ndarray], np.ndarray]:
        return grey_world


@dataclasses.dataclass(frozen=True)
class Retinex(Photometric):
    """Divides an image by its surroundings at several scales (Jobson et al., 1997, doi:10.1109/83.597272).

    Args:
        sigmas: of the Gaussians that make the surroundings, in pixels.
        clip: standard deviations about its mean that a channel's result keeps of the logarithms.
        color_restoration: bring some of the colours back that the division took; see `retinex`.
        probability: of changing the image at all.
    """

    sigmas: tuple[float, ...] = (15.0, 80.0, 250.0)
    clip: float = 2.5
    color_restoration: bool = False

    def __post_init__(self) -> None:
        super().__post_init__()
        require(len(self.sigmas) > 0 and min(self.sigmas) > 0, "one or more sigmas > 0 pixels", self.sigmas)
        require(self.clip > 0, "clip > 0", self.clip)

    def _draw(self, rng: np.random.Generator) -> Callable[[np.ndarray], np.ndarray]:
        return partial(retinex, sigmas=self.sigmas, clip=self.clip, color_restoration=self.color_restoration)


@dataclasses.dataclass(frozen=True)
class LocalContrast(Photometric):
    """Takes the local mean off and divides by the local spread (Jarrett et al., 2009, doi:10.1109/ICCV.2009.5459469).

    Args:
        sigma: of the Gaussian that weights the neighbourhood, in pixels.
        deviation: of the result where the neighbourhood has contrast, in pixel values about 128.
        probability: of changing the image at all.
    """

    sigma: float = 8.0
    deviation: float = 48.0

    def __post_init__(self) -> None:
        super().__post_init__()
        require(self.sigma > 0, "sigma > 0 pixels", self.sigma)
        require(0 < self.deviation <= 255, "deviation in 0..255, not 0", self.deviation)

    def _draw(self, rng: np.random.Generator) -> Callable[[np.ndarray], np.ndarray]:
        return partial(local_contrast, sigma=self.sigma, deviation=self.deviation)
