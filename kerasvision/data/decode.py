"""From a file to pixels: one set of TensorFlow functions serves the input pipeline and `load_image` alike."""

import functools
import os

import numpy as np
import tensorflow as tf

from kerasvision.class_maps import VOID
from kerasvision.data.inspect import BadFile, Decoder, decode_with_pillow, inspect_file
from kerasvision.data.storage import read_bytes
from kerasvision.errors import DataError
from kerasvision.preprocessing import Preprocessing

LETTERBOX_GREY = 114


def load_image(
    image: str | os.PathLike[str] | np.ndarray,
    image_size: tuple[int, int],
    channels: int = 3,
    preprocessing: Preprocessing | None = None,
) -> np.ndarray:
    """Loads one image exactly as the input pipeline does, bit for bit.

    Args:
        image: path of an image file, or pixels 0..255: [H, W], [H, W, 1], [H, W, 3] or [H, W, 4] (laid over white).
        image_size: (H, W) of the result.
        channels: 3 for RGB, 1 for grey.
        preprocessing: how the image is fitted into `image_size`; stretched where None.

    Returns:
        float32 [H, W, channels], whole numbers 0..255.

    Raises:
        DataError: the file or the array is not a usable image.
    """
    # An accelerator's resizing kernel may round otherwise than the pipeline, which runs on the CPU.
    with tf.device("CPU"):
        pixels = tf.constant(read_image(image))
        return fit_image(pixels, image_size, channels, preprocessing or Preprocessing()).numpy().astype(np.float32)


def read_image(image: str | os.PathLike[str] | np.ndarray) -> np.ndarray:
    """Reads one image at its own size, upright.

    Args:
        image: path of an image file, or pixels 0..255: [H, W], [H, W, 1], [H, W, 3] or [H, W, 4] (laid over
            white).

    Returns:
        uint8 [H, W, 1] or [H, W, 3]; files always give three channels.

    Raises:
        DataError: the file or the array is not a usable image.
    """
    if isinstance(image, np.ndarray):
        return as_pixels(image)
    path = os.fspath(image)
    info = inspect_file(path)
    if isinstance(info, BadFile):
        raise DataError(f"Cannot read {info}.")
    with tf.device("CPU"):
        return decode_content(read_bytes(path), info.decoder, info.orientation).numpy()


def as_pixels(image: np.ndarray) -> np.ndarray:
    """Pixels in the form the pipeline stores them.

    Args:
        image: [H, W], [H, W, 1], [H, W, 3] or [H, W, 4]; uint8, or another type with values 0..255 (rounded).

    Returns:
        uint8 [H, W, 1] or [H, W, 3].

    Raises:
        DataError: another shape, or values outside 0..255.
    """
    pixels = image[..., None] if image.ndim == 2 else image
    if pixels.ndim != 3 or pixels.shape[-1] not in (1, 3, 4) or 0 in pixels.shape:
        raise DataError(f"An image array must be [H, W], [H, W, 1], [H, W, 3] or [H, W, 4], got {list(image.shape)}.")
    if pixels.dtype != np.uint8:
        if not (np.isfinite(pixels).all() and pixels.min() >= 0 and pixels.max() <= 255):
            raise DataError(
                f"Pixels must lie in 0..255, got {pixels.min()} to {pixels.max()} ({pixels.dtype}); scale them first."
            )
        pixels = np.rint(pixels).astype(np.uint8)
    if pixels.shape[-1] == 4:
        alpha = pixels[..., 3:].astype(np.int32)
        pixels = ((pixels[..., :3] * alpha + 255 * (255 - alpha) + 127) // 255).astype(np.uint8)
    return np.ascontiguousarray(pixels)


def decode_content(content: tf.Tensor | bytes, decoder: tf.Tensor | int, orientation: tf.Tensor | int) -> tf.Tensor:
    """Decodes the bytes of an image file, upright, with the decoder its inspection chose.

    Args:
        content: string scalar.
        decoder: a `Decoder` value, int32 scalar.
        orientation: EXIF orientation, 1..8, int32 scalar.

    Returns:
        uint8 [H, W, 3].
    """
    # NumPy would cut zeros off the end of bytes.
    content = tf.convert_to_tensor(content)
    pixels = tf.switch_case(
        tf.cast(decoder, tf.int32),
        {
            Decoder.JPEG: lambda: _decode_jpeg(content),
            Decoder.PNG: lambda: tf.io.decode_png(content, channels=3),
            Decoder.PNG16: lambda: _decode_png16(content),
            Decoder.PILLOW: lambda: tf.numpy_function(_decode_odd, [content], tf.uint8),
        },
    )
    pixels = tf.ensure_shape(pixels, [None, None, 3])
    return _turn_upright(pixels, tf.cast(orientation, tf.int32))


def _decode_jpeg(content: tf.Tensor) -> tf.Tensor:
    # The accurate DCT is what Pillow uses: both decoders then agree in every bit. Recovery is for a file that has
    # all its lines but a damaged end, which Pillow takes too; a line short is still an error.
    return tf.io.decode_jpeg(content, channels=3, dct_method="INTEGER_ACCURATE", try_recover_truncated=True)


def _decode_odd(content: bytes | np.ndarray) -> np.ndarray:
    # A graph hands over bytes, eager execution an array of one object.
    return decode_with_pillow(np.asarray(content, dtype=object).item())


def _decode_png16(content: tf.Tensor) -> tf.Tensor:
    """uint8 [H, W, 3] from a 16-bit PNG: laid over white, then 0..65535 scaled to 0..255."""
    rgba = tf.cast(tf.io.decode_png(content, channels=4, dtype=tf.uint16), tf.int64)
    color, alpha = rgba[..., :3], rgba[..., 3:]
    over_white = (color * alpha + 65535 * (65535 - alpha)) // 65535
    return tf.cast((over_white + 128) // 257, tf.uint8)


def _turn_upright(pixels: tf.Tensor, orientation: tf.Tensor) -> tf.Tensor:
    """Undoes an EXIF orientation (EXIF 2.3, tag 0x0112)."""

    def transpose(image: tf.Tensor) -> tf.Tensor:
        return tf.transpose(image, [1, 0, 2])

    turns = (
        lambda: pixels,
        lambda: pixels[:, ::-1],
        lambda: pixels[::-1, ::-1],
        lambda: pixels[::-1],
        lambda: transpose(pixels),
        lambda: transpose(pixels)[:, ::-1],
        lambda: transpose(pixels)[::-1, ::-1],
        lambda: transpose(pixels)[::-1],
    )
    return tf.switch_case(orientation - 1, turns)


def fit_image(pixels: tf.Tensor, image_size: tuple[int, int], channels: int, preprocessing: Preprocessing) -> tf.Tensor:
    """Brings decoded pixels to the size and the channels a net takes.

    Resizing uses a filter as wide as the shrinkage (antialiasing). The result is rounded to whole pixel values, so
    that a cached image, a float net and a uint8 file all see the same numbers.

    Args:
        pixels: uint8 [H, W, 1 or 3] of any size.
        image_size: (H', W') of the result.
        channels: 1 or 3.
        preprocessing: `fit`, `crop_fraction` and `interpolation` are used.

    Returns:
        uint8 [H', W', channels].
    """
    pixels = to_channels(pixels, channels)
    source = tf.shape(pixels)[:2]
    resized, offset = _placement(source, image_size, preprocessing)
    # One op resizes and crops: output pixel y looks at input (y + offset) * source / resized.
    fitted = tf.raw_ops.ScaleAndTranslate(
        images=pixels[None],
        size=tf.constant(image_size, tf.int32),
        scale=tf.cast(resized, tf.float32) / tf.cast(source, tf.float32),
        translation=tf.cast(offset, tf.float32),
        kernel_type="triangle" if preprocessing.interpolation == "bilinear" else "keyscubic",
        antialias=True,
    )[0]
    fitted = tf.cast(tf.clip_by_value(tf.round(fitted), 0.0, 255.0), tf.uint8)
    if preprocessing.fit == "letterbox":
        fitted = tf.where(
            _inside(image_size, offset, resized)[..., None], fitted, tf.constant(LETTERBOX_GREY, tf.uint8)
        )
    return tf.ensure_shape(fitted, [*image_size, channels])


def to_channels(pixels: tf.Tensor, channels: int) -> tf.Tensor:
    """uint8 [H, W, 1 or 3] with so many channels, 1 or 3."""
    if pixels.shape[-1] == channels:
        return pixels
    return _to_grey(pixels) if channels == 1 else tf.repeat(pixels, 3, axis=-1)


@functools.lru_cache(maxsize=1024)
def placement(
    source: tuple[int, int], image_size: tuple[int, int], preprocessing: Preprocessing
) -> tuple[tuple[int, int], tuple[int, int]]:
    """Where `fit_image` puts an image.

    Args:
        source: (H, W) of the image.
        image_size: (H', W') of the result.
        preprocessing: how it is fitted.

    Returns:
        (H, W) of the whole resized image, and the (y, x) of its upper left corner in the result.
    """
    with tf.device("CPU"):
        resized, offset = _placement(tf.constant(source, tf.int32), image_size, preprocessing)
    return tuple(resized.numpy().tolist()), tuple(offset.numpy().tolist())


def unfit_boxes(
    boxes: np.ndarray, source: tuple[int, int], image_size: tuple[int, int], preprocessing: Preprocessing
) -> np.ndarray:
    """Brings boxes in a fitted image back to the image it was, the inverse of what `fit_image` does to it.

    Args:
        boxes: [N, 4] xyxy, in pixels of the fitted image.
        source: (H, W) of the image before.
        image_size: (H', W') of the fitted image.
        preprocessing: how it was fitted.

    Returns:
        float32 [N, 4] xyxy in pixels of the image. What lies in the bars of a letterbox lies outside of it.
    """
    resized, offset = placement(source, image_size, preprocessing)
    factors = np.array([source[1] / resized[1], source[0] / resized[0]])
    moved = (np.asarray(boxes, np.float64) - np.tile(offset[::-1], 2)) * np.tile(factors, 2)
    return moved.astype(np.float32)


def unfit_classes(
    classes: np.ndarray, source: tuple[int, int], image_size: tuple[int, int], preprocessing: Preprocessing
) -> np.ndarray:
    """Brings the class map of a fitted image back to the image it was: each pixel has the class at its centre.

    Args:
        classes: [H', W'] class indices, in pixels of the fitted image.
        source: (H, W) of the image before.
        image_size: (H', W') of the fitted image.
        preprocessing: how it was fitted.

    Returns:
        uint8 [H, W]; 255, void, where the fitted image does not show the image.
    """
    resized, offset = placement(source, image_size, preprocessing)
    places = [
        np.floor((np.arange(own) + 0.5) * (whole / own)).astype(int) + begin
        for own, whole, begin in zip(source, resized, offset, strict=True)
    ]
    rows, columns = (np.clip(place, 0, side - 1) for place, side in zip(places, image_size, strict=True))
    result = np.asarray(classes)[rows[:, None], columns].astype(np.uint8)
    for axis, (place, side) in enumerate(zip(places, image_size, strict=True)):
        outside = (place < 0) | (place >= side)
        result[outside if axis == 0 else (slice(None), outside)] = VOID
    return result


def _placement(
    source: tf.Tensor, image_size: tuple[int, int], preprocessing: Preprocessing
) -> tuple[tf.Tensor, tf.Tensor]:
    """Size of the whole resized image and where its upper left corner lies in the result: two int32 (y, x)."""
    target = tf.constant(image_size, tf.int32)
    if preprocessing.fit == "stretch":
        return target, tf.zeros_like(target)
    ratios = tf.cast(target, tf.float64) / tf.cast(source, tf.float64)
    if preprocessing.fit == "crop":
        ratio = tf.reduce_max(ratios) / preprocessing.crop_fraction
        resized = tf.cast(tf.round(tf.cast(source, tf.float64) * ratio), tf.int32)
        resized = tf.maximum(resized, target)
    else:
        ratio = tf.reduce_min(ratios)
        resized = tf.cast(tf.round(tf.cast(source, tf.float64) * ratio), tf.int32)
        resized = tf.clip_by_value(resized, 1, target)
    return resized, (target - resized) // 2


def _inside(image_size: tuple[int, int], offset: tf.Tensor, resized: tf.Tensor) -> tf.Tensor:
    """bool [H, W]: where a letterboxed image lies in its frame."""
    rows, columns = tf.range(image_size[0]), tf.range(image_size[1])
    inside_rows = (rows >= offset[0]) & (rows < offset[0] + resized[0])
    inside_columns = (columns >= offset[1]) & (columns < offset[1] + resized[1])
    return inside_rows[:, None] & inside_columns[None, :]


def _to_grey(pixels: tf.Tensor) -> tf.Tensor:
    """uint8 [H, W, 1] luma (ITU-R 601) from uint8 [H, W, 3], in Pillow's whole-number arithmetic."""
    weights = tf.constant([19595, 38470, 7471], tf.int32)
    luma = tf.reduce_sum(tf.cast(pixels, tf.int32) * weights, axis=-1, keepdims=True)
    return tf.cast((luma + 32768) // 65536, tf.uint8)
