"""Images to check and calibrate files with: the user's own where there are any, else synthetic ones."""

from collections.abc import Iterable, Iterator
from typing import Any

import numpy as np

from kerasvision.errors import ExportError
from kerasvision.progress import track

# Validation sets are often sorted by class, so samples are drawn from many times their number.
POOL_FACTOR = 50


def draw_samples(data: Any, count: int, shape: tuple[int, int, int], seed: int = 0) -> np.ndarray:
    """Draw images from a data set, each with the same chance (Vitter's reservoir, 1985).

    Args:
        data: as for `batches_of`.
        count: how many at most.
        shape: (H, W, C) the model takes.
        seed: of the drawing.

    Returns:
        [n, H, W, C] float32 pixels of 0..255, n <= count.

    Raises:
        ExportError: no images, or images the model does not take.
    """
    random = np.random.default_rng(seed)
    chosen: list[np.ndarray] = []
    seen = 0
    for images, _ in batches_of(data, shape):
        for image in images:
            seen += 1
            if len(chosen) < count:
                chosen.append(image)
            elif (place := random.integers(seen)) < count:
                chosen[place] = image
        if seen >= POOL_FACTOR * count:
            break
    if not chosen:
        raise ExportError("The data given to export holds no images. Give a data set of (images, targets).")
    return np.stack(chosen)


def batches_of(data: Any, shape: tuple[int, int, int]) -> Iterator[tuple[np.ndarray, Any]]:
    """Walk over whatever `fit` takes.

    Args:
        data: tf.data.Dataset or another iterable of (images, targets) or of images, batched or not; or the arrays
            (images, targets); or one array of images.
        shape: (H, W, C) the model takes.

    Yields:
        Images [b, H, W, C] float32, and their targets or None.

    Raises:
        ExportError: images the model does not take.
    """
    # iter: an endless data set has no length to show.
    for item in track(iter(_items(data)), "Reading samples"):
        images, targets = (item[0], item[1]) if isinstance(item, (tuple, list)) and len(item) > 1 else (item, None)
        images = np.asarray(images[0] if isinstance(images, (tuple, list)) else images, np.float32)
        if images.shape == shape:
            images = images[None]
            targets = {name: np.asarray(value)[None] for name, value in targets.items()} if targets else targets
        if images.shape[1:] != shape:
            raise ExportError(f"The model takes images [N, {', '.join(map(str, shape))}], the data has {images.shape}.")
        if images.size and (images.min() < 0 or images.max() > 255):
            raise ExportError(
                f"Images must be raw pixels of 0..255, the data has {images.min():.3g}..{images.max():.3g}. "
                "The preprocessing is part of the model: leave it out of the data."
            )
        yield images, targets


def _items(data: Any) -> Iterable[Any]:
    if isinstance(data, np.ndarray):
        return [data]
    if isinstance(data, (tuple, list)) and len(data) > 1 and hasattr(data[0], "shape") and len(data[0].shape) == 4:
        return [data]
    return data


def synthetic_images(count: int, shape: tuple[int, int, int], seed: int = 0) -> np.ndarray:
    """Images with the 1/f spectrum of natural ones (Field, 1987), in slightly different colors.

    Args:
        count: N.
        shape: (H, W, C).
        seed: of the noise.

    Returns:
        [N, H, W, C] float32, whole pixels of 0..255.
    """
    random = np.random.default_rng(seed)
    height, width, channels = shape
    frequency = np.hypot(np.fft.fftfreq(height)[:, None], np.fft.fftfreq(width)[None])  # [H, W]
    spectrum = 1 / np.maximum(frequency, 1 / max(height, width))
    noise = random.normal(size=(count, height, width, channels + 1))
    fields = np.fft.ifft2(np.fft.fft2(noise, axes=(1, 2)) * spectrum[None, :, :, None], axes=(1, 2)).real
    images = fields[..., :1] + 0.5 * fields[..., 1:]  # brightness in common, color apart
    low, high = images.min(axis=(1, 2, 3), keepdims=True), images.max(axis=(1, 2, 3), keepdims=True)
    return np.rint((images - low) / np.maximum(high - low, 1e-9) * 255).astype(np.float32)
