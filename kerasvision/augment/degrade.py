"""Degradation: noise, blur, compression, fewer pixels, fog and shadow."""

import dataclasses
import math
from collections.abc import Callable
from functools import partial

import cv2
import numpy as np

from kerasvision.augment.base import require, require_range
from kerasvision.augment.noise import gaussian_noise, impulse_noise, shot_noise, speckle_noise
from kerasvision.augment.photometric import Photometric
from kerasvision.augment.weather import disk_kernel, fog, line_kernel, shadow


def gaussian_blur(image: np.ndarray, sigma: float) -> np.ndarray:
    """Blurs with a Gaussian of sigma pixels; 0 changes nothing."""
    if sigma == 0:
        return image
    kernel = cv2.getGaussianKernel(2 * round(3 * sigma) + 1, sigma, cv2.CV_32F)
    return cv2.sepFilter2D(image, -1, kernel, kernel, borderType=cv2.BORDER_REPLICATE).reshape(image.shape)


def filtered(image: np.ndarray, kernel: np.ndarray) -> np.ndarray:
    """Blurs with a kernel [K, K]; beyond the border the image goes on with its last pixels."""
    if kernel.shape == (1, 1):
        return image
    # OpenCV filters floats several times as fast as pixels.
    blurred = cv2.filter2D(image.astype(np.float32), -1, kernel, borderType=cv2.BORDER_REPLICATE)
    return cv2.convertScaleAbs(blurred).reshape(image.shape)


def defocus_blur(image: np.ndarray, radius: float) -> np.ndarray:
    """Blurs as a lens out of focus does, to disks of a radius in pixels; 0 changes nothing."""
    return filtered(image, disk_kernel(radius))


def motion_blur(image: np.ndarray, length: float, degrees: float) -> np.ndarray:
    """Blurs as a camera in even motion does.

    Args:
        image: uint8 [H, W, C].
        length: of the way in pixels; 0 changes nothing.
        degrees: direction, counter-clockwise from the x axis.

    Returns:
        uint8 of the same shape.
    """
    places = np.linspace(-length / 2, length / 2, 2 * math.ceil(length) + 1)
    return filtered(image, line_kernel(places, np.ones(len(places)), degrees))


def jpeg(image: np.ndarray, quality: int) -> np.ndarray:
    """Compresses to JPEG of a quality 1..100 and back."""
    grey = image.shape[-1] == 1
    # OpenCV's files are blue first.
    pixels = image if grey else cv2.cvtColor(image, cv2.COLOR_RGB2BGR)
    _, data = cv2.imencode(".jpg", pixels, [cv2.IMWRITE_JPEG_QUALITY, quality])
    decoded = np.asarray(cv2.imdecode(data, cv2.IMREAD_GRAYSCALE if grey else cv2.IMREAD_COLOR))
    return decoded[..., None] if grey else cv2.cvtColor(decoded, cv2.COLOR_BGR2RGB)


def downscale(image: np.ndarray, scale: float) -> np.ndarray:
    """Reduces the number of pixels and enlarges what is left to the old size, in blocks.

    Args:
        image: uint8 [H, W, C].
        scale: of the sides, in (0, 1]; 1 changes nothing.

    Returns:
        uint8 of the same shape.
    """
    height, width = image.shape[:2]
    small = cv2.resize(image, (max(1, int(width * scale)), max(1, int(height * scale))), interpolation=cv2.INTER_AREA)
    return cv2.resize(small, (width, height), interpolation=cv2.INTER_NEAREST_EXACT).reshape(image.shape)


@dataclasses.dataclass(frozen=True)
class GaussianNoise(Photometric):
    """Adds normal noise to every value.

    Args:
        sigma: smallest and largest standard deviation in pixel values, 0..255; 0 changes nothing.
        probability: of changing the image at all.
    """

    sigma: tuple[float, float] = (2.0, 25.0)

    def __post_init__(self) -> None:
        super().__post_init__()
        require_range("sigma", self.sigma, 0, 255)

    def _draw(self, rng: np.random.Generator) -> Callable[[np.ndarray], np.ndarray]:
        return partial(gaussian_noise, sigma=rng.uniform(*self.sigma), rng=rng)


@dataclasses.dataclass(frozen=True)
class SpeckleNoise(Photometric):
    """Multiplies every value by a normal number about 1.

    Args:
        sigma: smallest and largest standard deviation as a share of the value; 0 changes nothing.
        probability: of changing the image at all.
    """

    sigma: tuple[float, float] = (0.05, 0.3)

    def __post_init__(self) -> None:
        super().__post_init__()
        require_range("sigma", self.sigma, 0, 1)

    def _draw(self, rng: np.random.Generator) -> Callable[[np.ndarray], np.ndarray]:
        return partial(speckle_noise, sigma=rng.uniform(*self.sigma), rng=rng)


@dataclasses.dataclass(frozen=True)
class ShotNoise(Photometric):
    """Counts photons: every value becomes a Poisson number about itself.

    Args:
        photons: smallest and largest mean count at the value 255; the more, the less noise.
        probability: of changing the image at all.
    """

    photons: tuple[float, float] = (10.0, 60.0)

    def __post_init__(self) -> None:
        super().__post_init__()
        require_range("photons", self.photons, 0.1, 1e9)

    def _draw(self, rng: np.random.Generator) -> Callable[[np.ndarray], np.ndarray]:
        return partial(shot_noise, photons=rng.uniform(*self.photons), rng=rng)


@dataclasses.dataclass(frozen=True)
class ImpulseNoise(Photometric):
    """Replaces values by 0 or 255: salt and pepper.

    Args:
        amount: smallest and largest share of the values replaced; 0 changes nothing.
        probability: of changing the image at all.
    """

    amount: tuple[float, float] = (0.01, 0.1)

    def __post_init__(self) -> None:
        super().__post_init__()
        require_range("amount", self.amount, 0, 1)

    def _draw(self, rng: np.random.Generator) -> Callable[[np.ndarray], np.ndarray]:
        return partial(impulse_noise, amount=rng.uniform(*self.amount), rng=rng)


@dataclasses.dataclass(frozen=True)
class GaussianBlur(Photometric):
    """Blurs with a Gaussian.

    Args:
        sigma: smallest and largest, in pixels; 0 changes nothing.
        probability: of changing the image at all.
    """

    sigma: tuple[float, float] = (0.2, 2.0)

    def __post_init__(self) -> None:
        super().__post_init__()
        require_range("sigma", self.sigma, 0, 100)

    def _draw(self, rng: np.random.Generator) -> Callable[[np.ndarray], np.ndarray]:
        return partial(gaussian_blur, sigma=rng.uniform(*self.sigma))


@dataclasses.dataclass(frozen=True)
class DefocusBlur(Photometric):
    """Blurs as a lens out of focus does.

    Args:
        radius: smallest and largest radius of the disk a point becomes, in pixels; 0 changes nothing.
        probability: of changing the image at all.
    """

    radius: tuple[float, float] = (1.0, 4.0)

    def __post_init__(self) -> None:
        super().__post_init__()
        require_range("radius", self.radius, 0, 100)

    def _draw(self, rng: np.random.Generator) -> Callable[[np.ndarray], np.ndarray]:
        return partial(defocus_blur, radius=rng.uniform(*self.radius))


@dataclasses.dataclass(frozen=True)
class MotionBlur(Photometric):
    """Blurs as a camera in even motion does, in any direction.

    Args:
        length: smallest and largest way in pixels; 0 changes nothing.
        probability: of changing the image at all.
    """

    length: tuple[float, float] = (3.0, 10.0)

    def __post_init__(self) -> None:
        super().__post_init__()
        require_range("length", self.length, 0, 200)

    def _draw(self, rng: np.random.Generator) -> Callable[[np.ndarray], np.ndarray]:
        return partial(motion_blur, length=rng.uniform(*self.length), degrees=rng.uniform(0, 180))


@dataclasses.dataclass(frozen=True)
class JPEGQuality(Photometric):
    """Compresses to JPEG and back.

    Args:
        quality: smallest and largest, 1..100; 100 still loses a little.
        probability: of changing the image at all.
    """

    quality: tuple[int, int] = (30, 95)

    def __post_init__(self) -> None:
        super().__post_init__()
        require_range("quality", self.quality, 1, 100)

    def _draw(self, rng: np.random.Generator) -> Callable[[np.ndarray], np.ndarray]:
        return partial(jpeg, quality=int(rng.integers(self.quality[0], self.quality[1] + 1)))


@dataclasses.dataclass(frozen=True)
class Downscale(Photometric):
    """Reduces the number of pixels and enlarges what is left to the old size, in blocks.

    Args:
        scale: smallest and largest factor on the sides, in (0, 1]; 1 changes nothing.
        probability: of changing the image at all.
    """

    scale: tuple[float, float] = (0.25, 0.75)

    def __post_init__(self) -> None:
        super().__post_init__()
        require_range("scale", self.scale, 0.01, 1)

    def _draw(self, rng: np.random.Generator) -> Callable[[np.ndarray], np.ndarray]:
        return partial(downscale, scale=rng.uniform(*self.scale))


@dataclasses.dataclass(frozen=True)
class Fog(Photometric):
    """Puts clouds of white light over an image.

    Args:
        density: smallest and largest, of the thickest fog, in multiples of white; 0 changes nothing.
        decay: softness of the clouds, see `plasma`.
        probability: of changing the image at all.
    """

    density: tuple[float, float] = (0.3, 1.5)
    decay: float = 2.0

    def __post_init__(self) -> None:
        super().__post_init__()
        require_range("density", self.density, 0, 10)
        require(self.decay >= 1, "decay >= 1", self.decay)

    def _draw(self, rng: np.random.Generator) -> Callable[[np.ndarray], np.ndarray]:
        return partial(fog, density=rng.uniform(*self.density), decay=self.decay, rng=rng)


@dataclasses.dataclass(frozen=True)
class Shadow(Photometric):
    """Darkens the inside of random polygons.

    Args:
        darkness: smallest and largest share of the light that is lost; 0 changes nothing.
        count: number of polygons.
        corners: of each polygon.
        probability: of changing the image at all.
    """

    darkness: tuple[float, float] = (0.2, 0.6)
    count: int = 2
    corners: int = 5

    def __post_init__(self) -> None:
        super().__post_init__()
        require_range("darkness", self.darkness, 0, 1)
        require(self.count >= 0, "count >= 0", self.count)
        require(self.corners >= 3, "corners >= 3", self.corners)

    def _draw(self, rng: np.random.Generator) -> Callable[[np.ndarray], np.ndarray]:
        places = rng.random((self.count, self.corners, 2))
        # Corners in the order of their angles, so that no side crosses another.
        rays = places - places.mean(axis=1, keepdims=True)
        order = np.argsort(np.arctan2(rays[..., 1], rays[..., 0]), axis=1)
        places = np.take_along_axis(places, order[..., None], axis=1)
        darkness = rng.uniform(*self.darkness)
        return lambda image: shadow(image, places * (image.shape[1], image.shape[0]), darkness)
