"""One pass over the images of a set, on small copies of them: sizes, colours, and what recognises an image again."""

import dataclasses
import hashlib
import io
import itertools
import os
from collections.abc import Iterator, Mapping, Sequence
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import Any

import numpy as np
from PIL import Image

from kerasvision.data.decode import as_pixels
from kerasvision.data.inspect import MAX_PIXELS, SUFFIXES, BadFile, decode_with_pillow, inspect_file
from kerasvision.data.storage import is_plain, read_bytes
from kerasvision.progress import progress

SIDE = 32
# A JPEG is decoded no larger than it must be for a thumbnail twice as fine as what is compared.
_DRAFT = (2 * SIDE, 2 * SIDE)
_ORIENTATION = 0x0112
# What undoes an EXIF orientation (EXIF 2.3, tag 0x0112).
_UPRIGHT = {
    2: Image.Transpose.FLIP_LEFT_RIGHT,
    3: Image.Transpose.ROTATE_180,
    4: Image.Transpose.FLIP_TOP_BOTTOM,
    5: Image.Transpose.TRANSPOSE,
    6: Image.Transpose.ROTATE_270,
    7: Image.Transpose.TRANSVERSE,
    8: Image.Transpose.ROTATE_90,
}
_CHUNK = 256


@dataclasses.dataclass(frozen=True, eq=False)
class ImageScan:
    """What is known of every image of a set; about a kilobyte each, whatever the size of the image.

    Args:
        names: of N images: the path, or "split/position" of an array.
        splits: name of each image's split.
        positions: int64 [N], place in its split.
        sizes: int32 [N, 2], (H, W) upright; zeros where the image is broken.
        formats: file format, e.g. "JPEG", or "array".
        modes: how colours are stored, e.g. "RGB", "L" (grey), "P" (palette).
        orientations: uint8 [N], EXIF orientation 1..8.
        digests: uint64 [N], equal where the bytes of two files, or the pixels of two arrays, are equal.
        thumbnails: uint8 [N, 32, 32], grey, upright, stretched.
        broken: index -> what is wrong with the image.
    """

    names: tuple[str, ...]
    splits: tuple[str, ...]
    positions: np.ndarray
    sizes: np.ndarray
    formats: tuple[str, ...]
    modes: tuple[str, ...]
    orientations: np.ndarray
    digests: np.ndarray
    thumbnails: np.ndarray
    broken: dict[int, BadFile]

    def __len__(self) -> int:
        return len(self.names)


@dataclasses.dataclass(frozen=True)
class _Look:
    size: tuple[int, int]
    format: str
    mode: str
    orientation: int
    digest: int
    thumbnail: np.ndarray


def scan_images(splits: Mapping[str, Sequence[dict[str, Any]]]) -> ImageScan:
    """Looks at every image once, on all cores; memory does not grow with the size of the images.

    Args:
        splits: name -> examples; only "image" is used.

    Returns:
        What was seen. Files that cannot be read are listed in it, and do not stop the scan.
    """
    listed = [
        (split, position, example["image"])
        for split, examples in splits.items()
        for position, example in enumerate(examples)
    ]
    count = len(listed)
    names = tuple(image if isinstance(image, str) else f"{split}/{position}" for split, position, image in listed)
    sizes, orientations = np.zeros((count, 2), np.int32), np.ones(count, np.uint8)
    digests, thumbnails = np.zeros(count, np.uint64), np.zeros((count, SIDE, SIDE), np.uint8)
    formats, modes = [""] * count, [""] * count
    broken = {}
    for index, seen in enumerate(_look_at_all([image for _, _, image in listed], names)):
        if isinstance(seen, BadFile):
            broken[index] = seen
            continue
        sizes[index], orientations[index] = seen.size, seen.orientation
        digests[index], thumbnails[index] = seen.digest, seen.thumbnail
        formats[index], modes[index] = seen.format, seen.mode
    return ImageScan(
        names=names,
        splits=tuple(split for split, _, _ in listed),
        positions=np.array([position for _, position, _ in listed], np.int64),
        sizes=sizes,
        formats=tuple(formats),
        modes=tuple(modes),
        orientations=orientations,
        digests=digests,
        thumbnails=thumbnails,
        broken=broken,
    )


def misnamed(scan: ImageScan) -> list[int]:
    """Indices of files whose suffix belongs to another format than their content."""
    return [
        index
        for index, (name, kind) in enumerate(zip(scan.names, scan.formats, strict=True))
        if kind in SUFFIXES and is_plain(name) and Path(name).suffix.lower() not in SUFFIXES[kind]
    ]


def _look_at_all(images: Sequence[Any], names: Sequence[str]) -> Iterator[_Look | BadFile]:
    pairs = iter(zip(images, names, strict=True))
    with ThreadPoolExecutor(max_workers=os.cpu_count()) as pool, progress("Looking at images", len(images)) as advance:
        # In chunks: a pool takes all its work at once, and a hundred thousand waiting results are not small.
        while chunk := list(itertools.islice(pairs, _CHUNK)):
            yield from pool.map(lambda pair: _look(*pair), chunk)
            advance(len(chunk))


def _look(image: Any, name: str) -> _Look | BadFile:
    try:
        return _look_at_file(image) if isinstance(image, str) else _look_at_array(image)
    # Pillow's parsers raise whatever they stumble over (struct.error, SyntaxError, IndexError ...) on a damaged file.
    except Exception as error:
        if isinstance(image, str) and is_plain(image):
            reason = inspect_file(image)
            if isinstance(reason, BadFile):
                return reason
        return BadFile(name, f"cannot be read ({error})")


def _look_at_array(image: Any) -> _Look:
    pixels = as_pixels(np.asarray(image))
    digest = _digest(str(pixels.shape).encode() + pixels.tobytes())
    picture = Image.fromarray(pixels[..., 0] if pixels.shape[-1] == 1 else pixels)
    return _Look(pixels.shape[:2], "array", picture.mode, 1, digest, _thumbnail(picture, 1))


def _look_at_file(path: str) -> _Look:
    content = read_bytes(path)
    with Image.open(io.BytesIO(content)) as picture:
        width, height = picture.size
        if width * height > MAX_PIXELS:
            raise ValueError(f"{width} x {height} pixels, more than the limit of {MAX_PIXELS:,}")
        kind, mode = picture.format or "", picture.mode
        orientation = picture.getexif().get(_ORIENTATION, 1)
        if orientation not in range(1, 9):
            orientation = 1
        if kind in ("JPEG", "MPO") and mode in ("L", "RGB"):
            picture.draft("L", _DRAFT)
            small = _thumbnail(picture, orientation)
        elif mode in ("L", "RGB") and "transparency" not in picture.info:
            small = _thumbnail(picture, orientation)
        else:
            small = _thumbnail(Image.fromarray(decode_with_pillow(content)), orientation)
    size = (width, height) if orientation >= 5 else (height, width)
    return _Look(size, kind, mode, orientation, _digest(content), small)


def _thumbnail(picture: Image.Image, orientation: int) -> np.ndarray:
    """uint8 [32, 32]: grey, upright, stretched."""
    small = picture.convert("L").resize((SIDE, SIDE), Image.Resampling.BILINEAR, reducing_gap=2.0)
    return np.asarray(small.transpose(_UPRIGHT[orientation]) if orientation != 1 else small)


def _digest(content: bytes) -> int:
    return int.from_bytes(hashlib.blake2b(content, digest_size=8).digest(), "little")
