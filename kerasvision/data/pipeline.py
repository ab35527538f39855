"""Index -> pixels, and index -> augmented example: the functions a tf.data pipeline maps over a split's indices."""

import dataclasses
from collections.abc import Callable, Sequence
from typing import Any

import cv2
import numpy as np
import tensorflow as tf

from kerasvision.augment import Example, Mixing, Transform, apply, generator
from kerasvision.data.decode import as_pixels, decode_content, fit_image
from kerasvision.data.inspect import ImageInfo
from kerasvision.data.loading import Loader, Targets, fit, inspected
from kerasvision.data.storage import is_plain, read_bytes
from kerasvision.errors import DataError
from kerasvision.preprocessing import Preprocessing
from kerasvision.progress import progress

DECODE_CHUNK = 64

Reader = Callable[[tf.Tensor], tf.Tensor]
Sampler = Callable[[int], np.ndarray]


def reader(
    images: Sequence[str | np.ndarray],
    infos: dict[str, ImageInfo],
    image_size: tuple[int, int],
    channels: int,
    preprocessing: Preprocessing,
) -> Reader:
    """A function from index to pixels, for use inside tf.data.

    Args:
        images: all of them names of files, or all of them pixels 0..255 [H, W] or [H, W, C].
        infos: name -> how to decode it; files that are missing are inspected now.
        image_size: (H, W) of the result.
        channels: 1 or 3.
        preprocessing: how images are fitted into `image_size`.

    Returns:
        int64 scalar -> uint8 [H, W, channels].

    Raises:
        DataError: files and pixels are mixed, or a file cannot be used.
    """
    names = [image for image in images if isinstance(image, str)]
    arrays = [image for image in images if not isinstance(image, str)]
    if names and arrays:
        raise DataError(f"Expected all images as paths or all as arrays, got {len(names)} and {len(arrays)}.")
    load = _file_loader(names, infos) if names else _array_loader(arrays)
    return lambda index: fit_image(load(index), image_size, channels, preprocessing)


def _file_loader(images: list[str], infos: dict[str, ImageInfo]) -> Reader:
    found = [info for info in inspected(images, infos) if info is not None]
    names = tf.constant(images)
    decoders = tf.constant([info.decoder for info in found], tf.int32)
    orientations = tf.constant([info.orientation for info in found], tf.int32)
    plain = all(is_plain(image) for image in images)

    def read(index: tf.Tensor) -> tf.Tensor:
        # Bytes inside another file, a frame of a video, or an address.
        return tf.ensure_shape(tf.numpy_function(lambda place: read_bytes(images[place]), [index], tf.string), [])

    def load(index: tf.Tensor) -> tf.Tensor:
        content = tf.io.read_file(names[index]) if plain else read(index)
        return decode_content(content, decoders[index], orientations[index])

    return load


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
) -> np.ndarray | None:
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
    return np.stack(pixels) if all(image.shape == shape for image in pixels) else None


def decode_all(read: Reader, count: int, shape: tuple[int, int, int]) -> np.ndarray:
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
    return images


def epochs(count: int, shuffle: bool, seed: int, sampler: Sampler | None) -> tf.data.Dataset:
    """The indices of one epoch after the other, a new order for each iterator over the data set.

    Args:
        count: number of examples.
        shuffle: whether to shuffle.
        seed: of the orders.
        sampler: number of the epoch, drawn at random -> indices of its examples, in any number; None: each once.
    """
    if sampler is None:
        indices = tf.data.Dataset.range(count)
        return indices.shuffle(count, seed=seed, reshuffle_each_iteration=True) if shuffle else indices
    sampled = len(sampler(0))

    def draw(salt: tf.Tensor) -> tf.data.Dataset:
        chosen = tf.numpy_function(lambda value: sampler(int(value) % 2**31).astype(np.int64), [salt], tf.int64)
        return tf.data.Dataset.from_tensor_slices(tf.ensure_shape(chosen, [sampled]))

    drawn = tf.data.Dataset.random(seed=seed, rerandomize_each_iteration=True).take(1).flat_map(draw)
    return drawn.apply(tf.data.experimental.assert_cardinality(sampled))


@dataclasses.dataclass
class Augmenter:
    """Makes the batches of a pipeline in which anything but pixels moves, or pixels move at random.

    Args:
        loader: of the split.
        transforms: bound to the set.
        targets: from examples to arrays.
        image_size: (H, W) of the net.
        fitting: how images are fitted.
        images: uint8 [N, H, W, C], fitted already and in memory; None where they are not.
        read: index -> fitted pixels, in TensorFlow.
    """

    loader: Loader
    transforms: Sequence[Transform | Mixing]
    targets: Targets
    image_size: tuple[int, int]
    fitting: Preprocessing
    images: np.ndarray | None
    read: Reader

    def __post_init__(self) -> None:
        cv2.setNumThreads(1)  # tf.data has a thread for every core already.
        first = self.transforms[0] if self.transforms else None
        self.own_size = bool(getattr(first, "takes_own_size", False))
        # The first transform may say which part of the image it wants, before the image is read.
        flat = not {"boxes", "segmentation"} & set(self.targets.spec)
        self.part = getattr(first, "part", None) if flat and getattr(first, "probability", 0) == 1 else None
        self.names = sorted(self.targets.spec)

    def batches(self, indices: tf.data.Dataset, batch_size: int, seed: int) -> tf.data.Dataset:
        """(images uint8 [B, H, W, C], {target: [B, ...]})."""
        salts = tf.data.Dataset.random(seed=seed, rerandomize_each_iteration=True)
        kinds = [tf.uint8, *(tf.as_dtype(self.targets.spec[name][0]) for name in self.names)]
        shape = (*self.image_size, self.loader.channels)
        shapes = [shape, *(self.targets.spec[name][1] for name in self.names)]

        def named(arrays: Sequence[tf.Tensor]) -> tuple[tf.Tensor, dict[str, tf.Tensor]]:
            image, *rest = (tf.ensure_shape(each, [None, *known]) for each, known in zip(arrays, shapes, strict=True))
            return image, dict(zip(self.names, rest, strict=True))

        # One call for a whole batch: a call for every image would cost more than a small image, and threads that take
        # Python's lock from each other too often do not help each other.
        if self.images is None and not self.own_size:
            pixels = indices.map(lambda index: (index, self.read(index)), num_parallel_calls=tf.data.AUTOTUNE)
            return tf.data.Dataset.zip(pixels.batch(batch_size), salts).map(
                lambda pair, salt: named(tf.numpy_function(self.many, [*pair, salt], kinds)),
                num_parallel_calls=tf.data.AUTOTUNE,
            )
        make = self.many_own if self.own_size else self.many_kept
        return tf.data.Dataset.zip(indices.batch(batch_size), salts).map(
            lambda index, salt: named(tf.numpy_function(make, [index, salt], kinds)),
            num_parallel_calls=tf.data.AUTOTUNE,
        )

    def many_own(self, indices: np.ndarray, salt: np.ndarray) -> list[np.ndarray]:
        """A batch of examples that the first transform brings to their size."""
        rows = [self.one(index, generator(int(salt), position)) for position, index in enumerate(indices.tolist())]
        return [np.stack(column) for column in zip(*rows, strict=True)]

    def one(self, index: int, rng: np.random.Generator) -> list[np.ndarray]:
        """An example that the first transform brings to its size."""
        if self.part is not None and self.loader.can_crop(index):
            rng.random()  # Whether to crop at all, which is certain here.
            part = self.part(self.loader.size(index), rng)
            example = fit(self.loader.cropped(index, part, self.image_size), self.image_size, Preprocessing())
            example = apply(self.transforms[1:], example, rng, self.draw)
        else:
            example = apply(self.transforms, self.loader(index), rng, self.draw)
        return self._arrays(example)

    def many(
        self, indices: np.ndarray, images: np.ndarray | Sequence[np.ndarray], salt: np.ndarray
    ) -> list[np.ndarray]:
        """A batch of fitted images."""
        rows = []
        for position, (index, image) in enumerate(zip(indices.tolist(), images, strict=True)):
            example = self.loader.fitted(index, image, self.fitting)
            rows.append(self._arrays(apply(self.transforms, example, generator(int(salt), position), self.draw)))
        return [np.stack(column) for column in zip(*rows, strict=True)]

    def many_kept(self, indices: np.ndarray, salt: np.ndarray) -> list[np.ndarray]:
        """A batch of images that are in memory."""
        assert self.images is not None
        return self.many(indices, [self.images[index] for index in indices], salt)

    def draw(self, rng: np.random.Generator) -> Example:
        """Another example of the split, at the size that the first transform takes."""
        index = int(rng.integers(len(self.loader.examples)))
        if self.own_size:
            return self.loader(index)
        image = self.read(tf.constant(index, tf.int64)).numpy() if self.images is None else self.images[index]
        return self.loader.fitted(index, image, self.fitting)

    def _arrays(self, example: Example) -> list[np.ndarray]:
        arrays = self.targets(example := fit(example, self.image_size, self.fitting))
        return [example["image"], *(arrays[name] for name in self.names)]


def most_objects(examples: Sequence[Example], transforms: Sequence[Any]) -> int:
    """Objects of one image that transforms can lead to: the most there are, times the images put together."""
    count = max((len(example["boxes"]) for example in examples if "boxes" in example), default=0)
    for transform in transforms:
        count *= transform.images if getattr(transform, "mixes", False) else 1
    return max(count, 1)
