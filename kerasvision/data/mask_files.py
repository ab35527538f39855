"""Mask files of segmentation sets: what their values mean, and reading them as class indices."""

import dataclasses
import functools
import io
from collections.abc import Sequence

import numpy as np
from PIL import Image, UnidentifiedImageError

from kerasvision.data.inspect import MAX_PIXELS, BadFile
from kerasvision.data.storage import read_bytes
from kerasvision.errors import DataError

VOID = 255
_UNKNOWN = 254
MAX_CLASSES = 254
# Formats that keep values as they are: JPEG and WebP blur class indices.
_FORMATS = ("PNG", "BMP", "DIB", "GIF", "TIFF", "PPM")

Color = tuple[int, int, int]


@dataclasses.dataclass(frozen=True)
class MaskCoding:
    """What the values of mask files mean; one for all files of a set.

    Args:
        colors: (red, green, blue) -> class, for masks in colours; empty where values are class indices.
        values: value -> class where they differ, e.g. ((11, 255),) for a set whose 11 is void.
    """

    colors: tuple[tuple[Color, int], ...] = ()
    values: tuple[tuple[int, int], ...] = ()


@dataclasses.dataclass(frozen=True)
class MaskFile:
    """The mask of an image: a file, and what its values mean.

    Args:
        path: a file `kerasvision.data.storage.read_bytes` reads.
        coding: shared by all masks of the set.
    """

    path: str
    coding: MaskCoding = MaskCoding()


def read_segmentation(mask: MaskFile | str) -> np.ndarray:
    """Reads a mask as class indices.

    Palette files are read as indices, unless the coding is one of colours. An alpha channel is ignored.

    Args:
        mask: the file; a plain path holds class indices.

    Returns:
        uint8 [H, W], 255 = void.

    Raises:
        DataError: the file is damaged, of a lossy format, or holds colours the coding does not know.
    """
    if isinstance(mask, str):
        mask = MaskFile(mask)
    try:
        with Image.open(io.BytesIO(read_bytes(mask.path)), formats=_FORMATS) as image:
            if image.width * image.height > MAX_PIXELS:
                raise DataError(
                    f"{mask.path}: {image.width} x {image.height} pixels, more than the limit of {MAX_PIXELS:,}"
                )
            values, colored = _pixels(image, bool(mask.coding.colors))
    except DataError:
        raise
    except UnidentifiedImageError as error:
        raise DataError(
            f"{mask.path}: not a mask. Expected a sound {', '.join(_FORMATS)} file, which keep values as they are."
        ) from error
    # Pillow's parsers raise whatever they stumble over on a damaged file.
    except Exception as error:
        raise DataError(f"{mask.path}: cannot be read as a mask ({error}).") from error
    if colored:
        return _from_colors(values, mask)
    if values.max(initial=0) > VOID:
        raise DataError(f"{mask.path}: the mask holds {values.max()}; expected class indices 0..253, or 255 for void.")
    indices = values.astype(np.uint8)
    return _table(mask.coding.values)[indices] if mask.coding.values else indices


def _pixels(image: Image.Image, in_colors: bool) -> tuple[np.ndarray, bool]:
    """Values [H, W], or colours [H, W, 3] and True."""
    if image.mode == "P" and not in_colors:
        return np.asarray(image), False
    if image.mode in ("1", "L", "I", "I;16", "I;16B", "I;16L"):
        return np.asarray(image).astype(np.int64), False
    if image.mode in ("LA", "La"):
        return np.asarray(image)[..., 0], False
    colors = np.asarray(image.convert("RGB"))
    grey = not in_colors and bool((colors == colors[..., :1]).all())
    return (colors[..., 0], False) if grey else (colors, True)


def _from_colors(colors: np.ndarray, mask: MaskFile) -> np.ndarray:
    if not mask.coding.colors:
        raise DataError(
            f"{mask.path}: the mask is in colours, and no file says which class each is. Put a class_dict.csv "
            "(name,r,g,b) beside the folders, or save class indices."
        )
    channels = colors.astype(np.uint32)
    codes = (channels[..., 0] << 16) | (channels[..., 1] << 8) | channels[..., 2]
    indices = _color_table(mask.coding.colors)[codes]
    unknown = indices == _UNKNOWN
    if unknown.any():
        row, column = np.argwhere(unknown)[0]
        raise DataError(
            f"{mask.path}: {np.count_nonzero(unknown)} pixels have colours that are not in the palette, the first "
            f"{tuple(int(value) for value in colors[row, column])} in row {row}, column {column}."
        )
    return indices


@functools.lru_cache(maxsize=4)
def _color_table(colors: tuple[tuple[Color, int], ...]) -> np.ndarray:
    table = np.full(1 << 24, _UNKNOWN, np.uint8)
    for (red, green, blue), index in colors:
        table[(red << 16) | (green << 8) | blue] = index
    return table


@functools.lru_cache(maxsize=4)
def _table(values: tuple[tuple[int, int], ...]) -> np.ndarray:
    table = np.arange(256, dtype=np.uint8)
    for value, index in values:
        table[value] = index
    return table


@dataclasses.dataclass(frozen=True)
class MaskInfo:
    """A sound mask file: size (H, W), and the classes in it, bool [256]."""

    size: tuple[int, int]
    present: np.ndarray


def inspect_mask(mask: MaskFile) -> MaskInfo | BadFile:
    """Reads a mask to its end and says what is in it, or why it cannot be used."""
    try:
        pixels = read_segmentation(mask)
    except DataError as error:
        return BadFile(mask.path, str(error).removeprefix(f"{mask.path}: "))
    return MaskInfo(pixels.shape, np.bincount(pixels.ravel(), minlength=256) > 0)


def settle_coding(
    coding: MaskCoding, found: Sequence[MaskInfo], labels: tuple[str, ...]
) -> tuple[MaskCoding, tuple[str, ...]]:
    """Finds out what the values of masks mean where no file says so.

    Masks of nothing but 0 and 255 are black and white pictures of one class: 255 is that class then, not void.

    Args:
        coding: as far as known.
        found: what is in the set's masks.
        labels: class names; () where unknown.

    Returns:
        The coding and the labels; unknown labels become "0", "1", ...
    """
    present = np.flatnonzero(np.any([info.present for info in found], axis=0)) if found else np.array([], int)
    plain = not coding.colors and not coding.values
    if plain and len(labels) in (0, 2) and VOID in present and set(present.tolist()) <= {0, VOID}:
        return MaskCoding(values=((VOID, 1),)), labels or ("0", "1")
    classes = present[present != VOID]
    return coding, labels or tuple(str(index) for index in range(int(classes.max(initial=0)) + 1))


def mask_problem(info: MaskInfo, coding: MaskCoding, classes: int, size: tuple[int, int]) -> str:
    """What is wrong with a mask that could be read.

    Args:
        info: what is in it, read before the coding was settled.
        coding: as settled.
        classes: number of classes.
        size: (H, W) of the upright image.

    Returns:
        The reason, or "".
    """
    if info.size != size:
        return f"the mask has {info.size[1]} x {info.size[0]} pixels, its image {size[1]} x {size[0]}"
    present = set(np.flatnonzero(info.present).tolist())
    if coding.values == ((VOID, 1),):
        return ""
    if max(present - {VOID}, default=0) >= classes:
        return f"the mask holds {max(present - {VOID})}; expected 0..{classes - 1}, or 255 for void"
    return "every pixel of the mask is void" if present == {VOID} else ""
