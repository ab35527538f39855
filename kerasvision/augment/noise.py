"""Noise of four kinds, as functions of an image."""

import functools
import math
import statistics

import cv2
import numpy as np

_LEVELS = 65536


@functools.cache
def _normal_quantiles() -> np.ndarray:
    """float32 [65536]: the middle of every 65536th part of the normal distribution."""
    normal = statistics.NormalDist()
    return np.array([normal.inv_cdf((level + 0.5) / _LEVELS) for level in range(_LEVELS)], np.float32)


def _random_levels(shape: tuple[int, ...], rng: np.random.Generator) -> np.ndarray:
    """Even random numbers 0..65535, uint16; four from every number of the generator."""
    count = math.prod(shape)
    return rng.integers(0, 2**64, -(-count // 4), np.uint64).view(np.uint16)[:count].reshape(shape)


def gaussian_noise(image: np.ndarray, sigma: float, rng: np.random.Generator) -> np.ndarray:
    """Adds normal noise to every value.

    Args:
        image: uint8 [H, W, C].
        sigma: standard deviation in pixel values, 0..255.
        rng: source of every random number.

    Returns:
        uint8 of the same shape.
    """
    # Looking normal numbers up is five times as fast as making them.
    table = np.rint(sigma * _normal_quantiles()).astype(np.int16)
    noise = table.take(_random_levels(image.shape, rng))
    return np.asarray(cv2.add(image, noise, dtype=cv2.CV_8U)).reshape(image.shape)


def speckle_noise(image: np.ndarray, sigma: float, rng: np.random.Generator) -> np.ndarray:
    """Multiplies every value by a normal number about 1.

    Args:
        image: uint8 [H, W, C].
        sigma: standard deviation as a share of the value.
        rng: source of every random number.

    Returns:
        uint8 of the same shape.
    """
    factors = (1 + sigma * _normal_quantiles()).take(_random_levels(image.shape, rng))
    return np.asarray(cv2.multiply(image, factors, dtype=cv2.CV_8U)).reshape(image.shape)


def shot_noise(image: np.ndarray, photons: float, rng: np.random.Generator) -> np.ndarray:
    """Counts photons: every value becomes a Poisson number about itself.

    Args:
        image: uint8 [H, W, C].
        photons: mean count at the value 255; the more, the less noise.
        rng: source of every random number.

    Returns:
        uint8 of the same shape.
    """
    counts = rng.poisson(image * (photons / 255)).astype(np.float32)
    return cv2.convertScaleAbs(counts, alpha=255 / photons).reshape(image.shape)


def impulse_noise(image: np.ndarray, amount: float, rng: np.random.Generator) -> np.ndarray:
    """Replaces values by 0 or 255.

    Args:
        image: uint8 [H, W, C].
        amount: share of the values replaced, half by 0 and half by 255.
        rng: source of every random number.

    Returns:
        uint8 of the same shape.
    """
    levels = _random_levels(image.shape, rng)
    white, black = round(amount * _LEVELS / 2), round(amount * _LEVELS)
    changed = image | np.negative((levels < white).view(np.uint8))
    changed &= ((levels >= white) & (levels < black)).view(np.uint8) - np.uint8(1)
    return changed
