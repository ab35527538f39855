"""The fifteen corruptions of ImageNet-C at five severities (Hendrycks & Dietterich, 2019, arXiv:1903.12261).

The numbers are the paper's, for images of 224 x 224; lengths in pixels grow with the shorter side of an image. Two
corruptions stand in for the paper's: motion blur has its own kernel instead of ImageMagick's, and frost is painted
instead of photographed. Where the paper's code swaps pixels (glass blur) it in fact copies them; so does this one.
"""

import dataclasses
import math
from collections.abc import Callable
from functools import partial

import cv2
import numpy as np

from kerasvision.augment.base import require, to_pixels
from kerasvision.augment.degrade import downscale, filtered, jpeg
from kerasvision.augment.noise import gaussian_noise, impulse_noise, shot_noise
from kerasvision.augment.photometric import Photometric, linear
from kerasvision.augment.weather import disk_kernel, fog, frost_texture, line_kernel, snow_layer
from kerasvision.errors import UnknownNameError, closest

SEVERITIES = 5
_SIDE = 224


def corrupt(image: np.ndarray, name: str, severity: int, rng: np.random.Generator) -> np.ndarray:
    """Corrupts an image.

    Args:
        image: uint8 [H, W, 1 or 3].
        name: one of `CORRUPTIONS`.
        severity: 0 (unchanged) to 5.
        rng: source of every random number.

    Returns:
        uint8 of the same shape.

    Raises:
        UnknownNameError: there is no corruption of that name.
        RecipeError: the severity is out of range.
    """
    if name not in _TABLE:
        raise UnknownNameError(f'Unknown corruption "{name}".{closest(name, _TABLE)}')
    require(severity in range(SEVERITIES + 1), "severity 0, 1, 2, 3, 4 or 5", severity)
    if severity == 0:
        return image
    change, parameters = _TABLE[name]
    return change(image, rng, *parameters[severity - 1])


@dataclasses.dataclass(frozen=True)
class Corrupt(Photometric):
    """One corruption of ImageNet-C (Hendrycks & Dietterich, 2019, arXiv:1903.12261).

    Boxes, masks and points stay where they were, though "elastic_transform" moves pixels: by up to a tenth and a
    fifth of the shorter side at severities 1 and 2, by some hundredths at the others.

    Args:
        kind: one of `CORRUPTIONS`.
        severity: 0 (unchanged) to 5.
        probability: of changing the image at all.
    """

    kind: str = "gaussian_noise"
    severity: int = 1

    def __post_init__(self) -> None:
        super().__post_init__()
        if self.kind not in _TABLE:
            raise UnknownNameError(f'Unknown corruption "{self.kind}".{closest(self.kind, _TABLE)}')
        require(self.severity in range(SEVERITIES + 1), "severity 0, 1, 2, 3, 4 or 5", self.severity)

    def _draw(self, rng: np.random.Generator) -> Callable[[np.ndarray], np.ndarray]:
        return partial(corrupt, name=self.kind, severity=self.severity, rng=rng)


def _relative(image: np.ndarray) -> float:
    """Shorter side of an image as a multiple of the paper's."""
    return min(image.shape[:2]) / _SIDE


def _gaussian_noise(image: np.ndarray, rng: np.random.Generator, sigma: float) -> np.ndarray:
    return gaussian_noise(image, 255 * sigma, rng)


def _shot_noise(image: np.ndarray, rng: np.random.Generator, photons: float) -> np.ndarray:
    return shot_noise(image, photons, rng)


def _impulse_noise(image: np.ndarray, rng: np.random.Generator, amount: float) -> np.ndarray:
    return impulse_noise(image, amount, rng)


def _defocus_blur(image: np.ndarray, rng: np.random.Generator, radius: float, soft: float) -> np.ndarray:
    return filtered(image, disk_kernel(radius * _relative(image), soft * _relative(image)))


def _glass_blur(image: np.ndarray, rng: np.random.Generator, sigma: float, reach: int, rounds: int) -> np.ndarray:
    height, width = image.shape[:2]
    scale = _relative(image)
    reach = max(1, round(reach * scale))
    blurred = cv2.GaussianBlur(image, (0, 0), sigma * scale, borderType=cv2.BORDER_REPLICATE)
    pixels = blurred.reshape(height * width, -1)
    rows, columns = np.mgrid[reach + 1 : height - reach + 1, reach + 1 : width - reach + 1]
    for _ in range(rounds):
        pixels = pixels[_glass_sources((height, width), rows, columns, reach, rng)]
    shuffled = pixels.reshape(image.shape)
    return cv2.GaussianBlur(shuffled, (0, 0), sigma * scale, borderType=cv2.BORDER_REPLICATE).reshape(image.shape)


def _glass_sources(
    size: tuple[int, int], rows: np.ndarray, columns: np.ndarray, reach: int, rng: np.random.Generator
) -> np.ndarray:
    """Where every pixel comes from when, from the last to the first, each copies a random neighbour: int [H W]."""
    shift = rng.integers(-reach, reach, (2, *rows.shape))
    sources = np.arange(size[0] * size[1])
    sources[rows * size[1] + columns] = (rows + shift[0]) * size[1] + columns + shift[1]
    # A source behind the pixel is a copy already: follow it to the first pixel of its chain that is not.
    places = np.arange(len(sources))
    chain = np.where(sources > places, sources, places)
    while (chain[chain] != chain).any():
        chain = chain[chain]
    return sources[chain]


def _magick_motion(image: np.ndarray, radius: float, sigma: float, degrees: float) -> np.ndarray:
    """Motion that starts at every pixel and fades, as ImageMagick's: Gaussian weights over 2 radius + 1 pixels."""
    scale = _relative(image)
    places = np.arange(2 * math.ceil(radius * scale) + 1.0)
    return filtered(image, line_kernel(places, np.exp(-0.5 * (places / (sigma * scale)) ** 2), degrees))


def _motion_blur(image: np.ndarray, rng: np.random.Generator, radius: float, sigma: float) -> np.ndarray:
    return _magick_motion(image, radius, sigma, rng.uniform(-45, 45))


def _zoom_blur(image: np.ndarray, rng: np.random.Generator, end: float, step: float) -> np.ndarray:
    zooms = np.arange(1, end, step)
    total = image.astype(np.float32)
    for zoom in zooms:
        total += _zoomed(image, zoom)
    return to_pixels(total / (len(zooms) + 1))


def _zoomed(image: np.ndarray, zoom: float) -> np.ndarray:
    """Middle of an image enlarged to its size, float32."""
    height, width = image.shape[:2]
    # The middle of the image stays where it is; OpenCV counts from the centre of the first pixel.
    matrix = np.array([[zoom, 0, (1 - zoom) * (width - 1) / 2], [0, zoom, (1 - zoom) * (height - 1) / 2]])
    moved = cv2.warpAffine(image.astype(np.float32), matrix, (width, height), borderMode=cv2.BORDER_REPLICATE)
    return moved.reshape(image.shape)


def _snow(
    image: np.ndarray,
    rng: np.random.Generator,
    mean: float,
    spread: float,
    zoom: float,
    threshold: float,
    radius: float,
    sigma: float,
    kept: float,
) -> np.ndarray:
    scale = _relative(image)
    flakes = snow_layer(image.shape[:2], mean, spread, max(1.0, zoom * scale), threshold, rng)[..., None]
    flakes = _magick_motion(to_pixels(255 * flakes), radius, sigma, rng.uniform(-135, -45)).astype(np.float32)
    pixels = image.astype(np.float32)
    grey = pixels if image.shape[-1] == 1 else cv2.cvtColor(pixels, cv2.COLOR_RGB2GRAY)[..., None]
    whitened = kept * pixels + (1 - kept) * np.maximum(pixels, 1.5 * grey + 127.5)
    return to_pixels(whitened + flakes + flakes[::-1, ::-1])


def _frost(image: np.ndarray, rng: np.random.Generator, kept: float, ice: float) -> np.ndarray:
    texture = frost_texture(image.shape[:2], rng)
    if image.shape[-1] == 1:
        texture = cv2.cvtColor(texture, cv2.COLOR_RGB2GRAY)[..., None]
    return cv2.addWeighted(image, kept, texture, ice, 0).reshape(image.shape)


def _fog(image: np.ndarray, rng: np.random.Generator, density: float, decay: float) -> np.ndarray:
    return fog(image, density, decay, rng)


def _brightness(image: np.ndarray, rng: np.random.Generator, addend: float) -> np.ndarray:
    # The value V of (H, S, V) is the largest channel; the others keep their share of it.
    value = image.max(axis=-1)
    table = np.full(256, 255 * addend, np.float32)
    table[1:] = np.minimum(1 + 255 * addend / np.arange(1, 256), 255 / np.arange(1, 256))
    factor = table.take(value)[..., None]
    return to_pixels(np.where(value[..., None] == 0, table[0], image * factor))


def _contrast(image: np.ndarray, rng: np.random.Generator, factor: float) -> np.ndarray:
    channels = image.shape[-1]
    return linear(image, factor * np.eye(channels), (1 - factor) * np.array(cv2.mean(image)[:channels]))


def _elastic_transform(
    image: np.ndarray, rng: np.random.Generator, amplitude: float, sigma: float, jitter: float
) -> np.ndarray:
    height, width = image.shape[:2]
    scale = _relative(image)
    center, side = np.array([width // 2, height // 2]), min(height, width) // 3
    corners = (center + side * np.array([(1, 1), (1, -1), (-1, -1)])).astype(np.float32)
    moved = corners + rng.uniform(-jitter * scale, jitter * scale, (3, 2)).astype(np.float32)
    # Output pixel -> input place, as remap wants it; then every pixel its own small way.
    matrix = cv2.invertAffineTransform(cv2.getAffineTransform(corners, moved))
    reach = 2 * round(3 * sigma * scale) + 1
    shift = rng.uniform(-1, 1, (height, width, 2)).astype(np.float32)
    shift = cv2.GaussianBlur(shift, (reach, reach), sigma * scale, borderType=cv2.BORDER_REFLECT) * (amplitude * scale)
    columns, rows = shift[..., 0] + np.arange(width), shift[..., 1] + np.arange(height)[:, None]
    map_x, map_y = ((row[0] * columns + row[1] * rows + row[2]).astype(np.float32) for row in matrix)
    return cv2.remap(image, map_x, map_y, cv2.INTER_LINEAR, borderMode=cv2.BORDER_REFLECT_101).reshape(image.shape)


def _pixelate(image: np.ndarray, rng: np.random.Generator, scale: float) -> np.ndarray:
    return downscale(image, scale)


def _jpeg_compression(image: np.ndarray, rng: np.random.Generator, quality: int) -> np.ndarray:
    return jpeg(image, quality)


# name: (function, parameters at severities 1..5)
_TABLE: dict[str, tuple[Callable[..., np.ndarray], tuple[tuple[float, ...], ...]]] = {
    "gaussian_noise": (_gaussian_noise, ((0.08,), (0.12,), (0.18,), (0.26,), (0.38,))),
    "shot_noise": (_shot_noise, ((60,), (25,), (12,), (5,), (3,))),
    "impulse_noise": (_impulse_noise, ((0.03,), (0.06,), (0.09,), (0.17,), (0.27,))),
    "defocus_blur": (_defocus_blur, ((3, 0.1), (4, 0.5), (6, 0.5), (8, 0.5), (10, 0.5))),
    "glass_blur": (_glass_blur, ((0.7, 1, 2), (0.9, 2, 1), (1, 2, 3), (1.1, 3, 2), (1.5, 4, 2))),
    "motion_blur": (_motion_blur, ((10, 3), (15, 5), (15, 8), (15, 12), (20, 15))),
    "zoom_blur": (_zoom_blur, ((1.11, 0.01), (1.16, 0.01), (1.21, 0.02), (1.26, 0.02), (1.31, 0.03))),
    "snow": (
        _snow,
        (
            (0.1, 0.3, 3, 0.5, 10, 4, 0.8),
            (0.2, 0.3, 2, 0.5, 12, 4, 0.7),
            (0.55, 0.3, 4, 0.9, 12, 8, 0.7),
            (0.55, 0.3, 4.5, 0.85, 12, 8, 0.65),
            (0.55, 0.3, 2.5, 0.85, 12, 12, 0.55),
        ),
    ),
    "frost": (_frost, ((1, 0.4), (0.8, 0.6), (0.7, 0.7), (0.65, 0.7), (0.6, 0.75))),
    "fog": (_fog, ((1.5, 2), (2, 2), (2.5, 1.7), (2.5, 1.5), (3, 1.4))),
    "brightness": (_brightness, ((0.1,), (0.2,), (0.3,), (0.4,), (0.5,))),
    "contrast": (_contrast, ((0.4,), (0.3,), (0.2,), (0.1,), (0.05,))),
    "elastic_transform": (
        _elastic_transform,
        ((488, 170.8, 24.4), (488, 19.52, 48.8), (12.2, 2.44, 4.88), (17.08, 2.44, 4.88), (29.28, 2.44, 4.88)),
    ),
    "pixelate": (_pixelate, ((0.6,), (0.5,), (0.4,), (0.3,), (0.25,))),
    "jpeg_compression": (_jpeg_compression, ((25,), (18,), (15,), (10,), (7,))),
}
CORRUPTIONS = tuple(_TABLE)
