"""Index -> pixels: the functions a tf.data pipeline maps over a split's indices."""

from collections.abc import Callable, Sequence

import numpy as np
import tensorflow as tf

from kerasvision.augment import Transform
from kerasvision.data.decode import as_pixels, decode_file, fit_image
from kerasvision.data.inspect import BadFile, ImageInfo, inspect_file
from kerasvision.data.listing import bullet_list
from kerasvision.errors import DataError
from kerasvision.preprocessing import Preprocessing
from kerasvision.progress import progress

DECODE_CHUNK = 64

Reader = Callable[[tf.Tensor], tf.Tensor]


def reader(
    images: Sequence[str | np.ndarray],
    infos: dict[str, ImageInfo],
    image_size: tuple[int, int],
    channels: int,
    preprocessing: Preprocessing,
) -> Reader:
    """A function from index to pixels, for use inside tf.data.

    Args:
        images: all of them paths, or all of them pixels 0..255 [H, W] or [H, W, C].
        infos: path -> how to decode it; paths that are missing are inspected now.
        image_size: (H, W) of the result.
        channels: 1 or 3.
        preprocessing: how images are fitted into `image_size`.

    Returns:
        int64 scalar -> uint8 [H, W, channels].

    Raises:
        DataError: paths and pixels are mixed, or a file cannot be used.
    """
    paths = [image for image in images if isinstance(image, str)]
    arrays = [image for image in images if not isinstance(image, str)]
    if paths and arrays:
        raise DataError(f"Expected all images as paths or all as arrays, got {len(paths)} and {len(arrays)}.")
    load = _path_loader(paths, infos) if paths else _array_loader(arrays)
    return lambda index: fit_image(load(index), image_size, channels, preprocessing)


def _path_loader(paths: list[str], infos: dict[str, ImageInfo]) -> Reader:
    found = [infos.get(path) or inspect_file(path) for path in paths]
    bad = [info for info in found if isinstance(info, BadFile)]
    if bad:
        raise DataError(f"{len(bad)} of {len(paths)} image files cannot be used:\n{bullet_list(bad)}")
    names = tf.constant(paths)
    decoders = tf.constant([info.decoder for info in found if isinstance(info, ImageInfo)], tf.int32)
    orientations = tf.constant([info.orientation for info in found if isinstance(info, ImageInfo)], tf.int32)
    return lambda index: decode_file(names[index], decoders[index], orientations[index])


def _array_loader(arrays: list[np.ndarray]) -> Reader:
    """Images of any sizes in one flat tensor: shapes may differ, and no graph holds a constant for each."""
    pixels = [as_pixels(array) for array in arrays]
    channels = max(image.shape[-1] for image in pixels)
    pixels = [np.repeat(image, channels // image.shape[-1], axis=-1) for image in pixels]
    flat = tf.constant(np.concatenate([image.ravel() for image in pixels]))
    shapes = tf.constant([image.shape for image in pixels], tf.int64)
    starts = tf.constant(np.cumsum([0] + [image.size for image in pixels[:-1]]), tf.int64)

    def load(index: tf.Tensor) -> tf.Tensor:
        start = starts[index]
        image = tf.reshape(flat[start : start + tf.reduce_prod(shapes[index])], shapes[index])
        return tf.ensure_shape(image, [None, None, channels])

    return load


def already_fitted(
    images: Sequence[str | np.ndarray], shape: tuple[int, int, int], preprocessing: Preprocessing
) -> tf.Tensor | None:
    """The images as they are, where fitting them would change nothing.

    Args:
        images: paths, or pixels 0..255.
        shape: (H, W, C) wanted.
        preprocessing: how images are fitted.

    Returns:
        uint8 [N, H, W, C], or None where a file must be read or an image changed.
    """
    zooms = preprocessing.fit == "crop" and preprocessing.crop_fraction != 1
    if zooms or any(isinstance(image, str) or image.shape[:2] != shape[:2] for image in images):
        return None
    pixels = [as_pixels(np.asarray(image)) for image in images]
    return tf.constant(np.stack(pixels)) if all(image.shape == shape for image in pixels) else None


def decode_all(read: Reader, count: int, shape: tuple[int, int, int]) -> tf.Tensor:
    """Decodes every image of a split into memory.

    Args:
        read: index -> uint8 [H, W, C].
        count: number of images.
        shape: (H, W, C).

    Returns:
        uint8 [count, H, W, C].
    """
    images = np.empty((count, *shape), np.uint8)
    done = 0
    dataset = tf.data.Dataset.range(count).map(read, num_parallel_calls=tf.data.AUTOTUNE).batch(DECODE_CHUNK)
    with progress("Decoding images", count) as advance:
        for batch in dataset.prefetch(tf.data.AUTOTUNE).as_numpy_iterator():
            images[done : done + len(batch)] = batch
            done += len(batch)
            advance(len(batch))
    return tf.constant(images)


def augmented(example: dict[str, tf.Tensor], transforms: Sequence[Transform], seed: tf.Tensor) -> dict[str, tf.Tensor]:
    """Applies transforms one after the other, each with a seed of its own.

    Args:
        example: {"image": [B, H, W, C], ...}.
        transforms: what to apply.
        seed: integer scalar; decides every random draw.

    Returns:
        The transformed batch.
    """
    for position, transform in enumerate(transforms):
        example = transform(example, tf.stack([seed, position]))
    return example
