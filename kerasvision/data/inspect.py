"""What one image file is: format, size, how to decode it, or why it cannot be used. No TensorFlow in here."""

import dataclasses
import enum
import io
import re
from pathlib import Path
from typing import IO

import numpy as np
from PIL import Image, UnidentifiedImageError

from kerasvision.data.storage import is_plain, is_reference, read_bytes
from kerasvision.errors import DataError

MAX_PIXELS = 100_000_000
SUFFIXES = {
    "JPEG": (".jpg", ".jpeg", ".jpe", ".jfif"),
    "MPO": (".jpg", ".jpeg", ".jpe", ".jfif", ".mpo"),
    "PNG": (".png", ".apng"),
    "BMP": (".bmp", ".dib"),
    "DIB": (".bmp", ".dib"),
    "WEBP": (".webp",),
    "GIF": (".gif",),
    "TIFF": (".tif", ".tiff"),
    "PPM": (".ppm", ".pgm", ".pbm", ".pnm"),
    "AVIF": (".avif", ".avifs"),
}
# What the installed Pillow can open of these; MPO (several JPEGs in one file) is opened as JPEG.
Image.init()
_OPENED = tuple(name for name in SUFFIXES if name in Image.OPEN)
_SIGNATURES = {b"\xff\xd8\xff": "JPEG", b"\x89PNG": "PNG", b"BM": "BMP", b"RIFF": "WebP", b"GIF8": "GIF"}
_ORIENTATION = 0x0112
# Of 16 bits a pixel. A file whose values stay below holds 12 bits or fewer: 16 grey levels of 256 would be left.
_DARK = 4096
# TensorFlow wants to see the end marker; Pillow reads an image that lacks nothing else. The marker is looked for in
# the last bytes only, since a thumbnail in the header has one too.
_TAIL = 64


class Decoder(enum.IntEnum):
    """Which decoder gives a file's right pixels; the fast ones are TensorFlow's."""

    JPEG = 0
    PNG = 1
    PNG16 = 2
    PILLOW = 3


@dataclasses.dataclass(frozen=True)
class ImageInfo:
    """A sound image file.

    Args:
        format: Pillow's name of the format found in the content, e.g. "JPEG".
        size: (H, W) as stored, before the orientation is applied.
        decoder: the decoder that gives the right pixels.
        orientation: EXIF orientation, 1..8.
        misnamed: the suffix belongs to another format.
    """

    format: str
    size: tuple[int, int]
    decoder: Decoder
    orientation: int = 1
    misnamed: bool = False

    @property
    def upright_size(self) -> tuple[int, int]:
        """(H, W) after the orientation is applied."""
        return self.size if self.orientation < 5 else (self.size[1], self.size[0])


@dataclasses.dataclass(frozen=True)
class BadFile:
    """A file that cannot be used.

    Args:
        path: the file.
        reason: what is wrong with it.
        origin: the list and line that named it, e.g. "labels.csv:12", or "".
    """

    path: str
    reason: str
    origin: str = ""

    def __str__(self) -> str:
        return f"{self.path}: {self.reason}" + (f" (named in {self.origin})" if self.origin else "")


def inspect_file(path: str, max_pixels: int = MAX_PIXELS) -> ImageInfo | BadFile:
    """Reads an image file to its end and says how to decode it, or why it is unusable.

    The size is read from the header, so an over-large image is never decoded. JPEG is decoded at 1/8 scale:
    the whole stream is still read, which finds truncation at a third of the cost.

    Args:
        path: the file, or whatever else `kerasvision.data.storage.read_bytes` reads.
        max_pixels: images with more pixels are refused.

    Returns:
        The file's `ImageInfo`, or a `BadFile` with the reason.
    """
    try:
        if is_plain(path) and not Path(path).is_file():
            return BadFile(path, "is a folder" if Path(path).is_dir() else "file not found")
        with _open(path) as file:
            if not file.read(1):
                return BadFile(path, "empty file (0 bytes)")
            file.seek(0)
            return _inspect(path, file, max_pixels)
    except UnidentifiedImageError:
        return BadFile(path, _describe_content(path))
    except Image.DecompressionBombError as error:
        return BadFile(path, _too_large(error, max_pixels))
    except PermissionError:
        return BadFile(path, "no permission to read it")
    except FileNotFoundError:
        return BadFile(path, "file not found")
    except DataError as error:
        return BadFile(path, str(error))
    # Pillow's parsers raise whatever they stumble over (struct.error, SyntaxError, IndexError ...) on a damaged file.
    except Exception as error:
        return BadFile(path, f"truncated or damaged ({error})")


def _open(path: str) -> IO[bytes]:
    return Path(path).open("rb") if is_plain(path) else io.BytesIO(read_bytes(path))


def _inspect(path: str, file: IO[bytes], max_pixels: int) -> ImageInfo | BadFile:
    with Image.open(file, formats=_OPENED) as image:
        width, height = image.size
        if width * height > max_pixels:
            return BadFile(path, f"{width} x {height} pixels, more than the limit of {max_pixels:,}")
        kind, mode = image.format or "", image.mode
        if kind in ("JPEG", "MPO"):
            image.draft(mode, (max(width // 8, 1), max(height // 8, 1)))
        image.load()
        if kind == "PNG":
            # Checks every chunk up to the end; loading alone is content with less than TensorFlow demands.
            file.seek(0)
            Image.open(file, formats=("PNG",)).verify()
        if mode == "F" or (mode == "I" and _beyond_16_bits(image)):
            return BadFile(path, f'pixels of mode "{mode}" have no known range; save the image with 8 or 16 bits')
        file.seek(0)
        header = file.read(33)
        if (brightest := _brightest_of_16_bits(image, header)) and brightest < _DARK:
            return BadFile(
                path,
                f"16 bits a pixel, but no value above {brightest} of 65535: few of 256 grey levels would be left. "
                "Make 8-bit images of the set first: kerasvision.medical.read_volume(path).images(Window(center, "
                "width))",
            )
        orientation = image.getexif().get(_ORIENTATION, 1)
        transparent = "transparency" in image.info
    file.seek(max(file.seek(0, io.SEEK_END) - _TAIL, 0))
    return ImageInfo(
        format=kind,
        size=(height, width),
        decoder=_decoder(kind, mode, transparent, header, file.read()),
        orientation=orientation if orientation in range(1, 9) else 1,
        misnamed=not is_reference(path) and Path(path).suffix.lower() not in SUFFIXES[kind],
    )


def _decoder(kind: str, mode: str, transparent: bool, header: bytes, tail: bytes) -> Decoder:
    if kind in ("JPEG", "MPO") and mode in ("L", "RGB") and b"\xff\xd9" in tail:
        return Decoder.JPEG
    if kind == "PNG" and b"\0\0\0\0IEND\xaeB`\x82" in tail:
        bits, color_type = header[24:26]
        if bits == 16:
            return Decoder.PNG16
        if bits == 8 and color_type in (0, 2) and not transparent:
            return Decoder.PNG
    return Decoder.PILLOW


def _brightest_of_16_bits(image: Image.Image, header: bytes) -> int:
    """Largest value of an image of 16 bits; 0 for any other."""
    if image.mode.startswith("I"):
        return int(image.getextrema()[1])  # type: ignore[arg-type]
    if not header.startswith(b"\x89PNG") or header[24] != 16:
        return 0
    # Pillow gives the upper 8 bits of colours.
    colours = image.getextrema()[: 1 if image.mode == "LA" else 3]
    return max(high for _, high in colours) * 256  # type: ignore[misc]


def _beyond_16_bits(image: Image.Image) -> bool:
    low, high = image.getextrema()
    return low < 0 or high > 65535  # type: ignore[operator]


def _too_large(error: Exception, max_pixels: int) -> str:
    found = re.search(r"(\d+) pixels", str(error))
    count = f"{int(found[1]):,}" if found else "too many"
    return f"{count} pixels, more than the limit of {max_pixels:,}"


def _describe_content(path: str) -> str:
    with _open(path) as file:
        start = file.read(256)
    for signature, name in _SIGNATURES.items():
        if start.startswith(signature):
            return f"truncated or damaged (a {name} file with an unreadable header)"
    if start[128:132] == b"DICM" or path.lower().endswith((".nii", ".nii.gz")):
        return "a medical volume: read it with kerasvision.medical.read_volume"
    text = start.decode("utf-8", errors="replace")
    if all(character.isprintable() or character.isspace() for character in text[:-1]) and "\ufffd" not in text[:-3]:
        return f"not an image: its content is text, {text.strip()[:30]!r}"
    return f"not an image in a supported format: it begins with the bytes {start[:8].hex(' ')}"


def decode_with_pillow(content: bytes) -> np.ndarray:
    """Decodes an image of any supported kind; colour profiles are ignored, the EXIF orientation is left to the caller.

    Palettes become colours, CMYK becomes RGB (Adobe's inverted JPEGs included), more than 8 bits are scaled to 8,
    animations give their first frame, and transparent pixels are laid over white.

    Args:
        content: the file's bytes.

    Returns:
        uint8 [H, W, 3].
    """
    with Image.open(io.BytesIO(content), formats=_OPENED) as image:
        if image.mode == "I" or image.mode.startswith("I;16"):
            grey = (np.asarray(image).astype(np.int64) + 128) // 257
            return np.repeat(grey.astype(np.uint8)[..., None], 3, axis=-1)
        if "transparency" in image.info or image.mode in ("LA", "La", "PA", "RGBA", "RGBa"):
            colour = image.convert("RGBA")
            image = Image.alpha_composite(Image.new("RGBA", colour.size, "white"), colour)
        return np.array(image.convert("RGB"))
