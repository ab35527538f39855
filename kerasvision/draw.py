"""One function that draws what a model said onto the image it was said about."""

import functools
import math
from collections.abc import Collection, Sequence
from pathlib import Path

import numpy as np
from PIL import Image, ImageDraw, ImageFont

SMALLEST_SIDE = 320

_PANEL = "#0f172a"
_TEXT = "#f8fafc"
_TRACK = "#1e293b"
_NEUTRAL, _RIGHT, _WRONG, _OTHER = "#1d4ed8", "#15803d", "#b91c1c", "#475569"


def draw(
    image: Image.Image | np.ndarray,
    *,
    ranked: Sequence[tuple[str, float]] = (),
    truth: Collection[str] | None = None,
) -> Image.Image:
    """Draws ranked labels as bars under an image; the image's own pixels stay uncovered.

    Images smaller than 320 pixels are enlarged by a whole factor, so that the text is readable beside them;
    larger ones keep their size, and the text grows with them.

    Args:
        image: PIL image, or uint8 / float [H, W], [H, W, 1] or [H, W, 3] pixels of 0..255.
        ranked: (label, score in 0..1), best first.
        truth: the true labels, where known: right labels become green, wrong ones red, and missed ones are
            named below the bars.

    Returns:
        A new RGB image.
    """
    picture = _enlarge(_as_rgb(image))
    rows = [(label, score, _color(label, place, truth)) for place, (label, score) in enumerate(ranked)]
    missed = [] if truth is None else [label for label in truth if label not in dict(ranked[: len(truth)])]
    width = max(picture.width, SMALLEST_SIDE)
    text_size = round(max(SMALLEST_SIDE, min(width, 2 * picture.height)) / 21)
    panel = _panel(width, text_size, rows, f"true: {', '.join(missed)}" if missed else "")
    canvas = Image.new("RGB", (width, picture.height + panel.height), _PANEL)
    canvas.paste(picture, ((width - picture.width) // 2, 0))
    canvas.paste(panel, (0, picture.height))
    return canvas


def _color(label: str, place: int, truth: Collection[str] | None) -> str:
    if truth is None:
        return _NEUTRAL
    if label in truth:
        return _RIGHT
    return _WRONG if place < max(len(truth), 1) else _OTHER


def _as_rgb(image: Image.Image | np.ndarray) -> Image.Image:
    if isinstance(image, Image.Image):
        return image.convert("RGB")
    pixels = np.asarray(image)
    if pixels.ndim == 3 and pixels.shape[2] == 1:
        pixels = pixels[..., 0]
    if pixels.ndim not in (2, 3) or (pixels.ndim == 3 and pixels.shape[2] != 3) or 0 in pixels.shape:
        raise ValueError(f"Expected an image as [H, W], [H, W, 1] or [H, W, 3], got the shape {np.shape(image)}.")
    if pixels.dtype != np.uint8:
        pixels = np.clip(np.rint(pixels), 0, 255).astype(np.uint8)
    return Image.fromarray(pixels).convert("RGB")


def _enlarge(image: Image.Image) -> Image.Image:
    factor = math.ceil(SMALLEST_SIDE / max(image.size))
    if factor == 1:
        return image
    # The pixels of an icon are what the model saw: they stay visible. A photograph looks better smoothed.
    method = Image.Resampling.NEAREST if max(image.size) <= 64 else Image.Resampling.BICUBIC
    return image.resize((image.width * factor, image.height * factor), method)


def _panel(width: int, text_size: int, rows: Sequence[tuple[str, float, str]], note: str) -> Image.Image:
    if not rows and not note:
        return Image.new("RGB", (width, 0), _PANEL)
    margin, gap = round(text_size * 0.6), round(text_size * 0.35)
    row_height = round(text_size * 1.75)
    count = len(rows) + bool(note)
    panel = Image.new("RGB", (width, 2 * margin + count * row_height + (count - 1) * gap), _PANEL)
    pen = ImageDraw.Draw(panel)
    left, right = margin, width - margin
    for index, (label, score, color) in enumerate(rows):
        top = margin + index * (row_height + gap)
        _bar(pen, (left, top, right, top + row_height), score, color, radius=row_height // 5)
        number = f"{100 * score:.1f} %"
        pad, middle = round(text_size * 0.5), top + row_height / 2
        bold = font(text_size, bold=index == 0)
        pen.text((right - pad, middle), number, _TEXT, bold, anchor="rm")
        room = right - left - 3 * pad - pen.textlength(number, bold)
        pen.text((left + pad, middle), shorten(label, bold, room), _TEXT, bold, anchor="lm")
    if note:
        top = margin + len(rows) * (row_height + gap)
        regular = font(text_size)
        pen.text((left, top + row_height / 2), shorten(note, regular, right - left), _TEXT, regular, anchor="lm")
    return panel


def _bar(pen: ImageDraw.ImageDraw, box: tuple[int, int, int, int], share: float, color: str, radius: int) -> None:
    left, top, right, bottom = box
    pen.rounded_rectangle(box, radius, fill=_TRACK)
    filled = round((right - left) * min(max(share, 0.0), 1.0))
    if filled > 0:
        pen.rounded_rectangle((left, top, left + filled, bottom), min(radius, filled // 2), fill=color)


def shorten(text: str, of: ImageFont.FreeTypeFont, room: float) -> str:
    """Cuts a text's end off, marked by an ellipsis, until it is at most `room` pixels wide."""
    text = " ".join(text.split())
    if of.getlength(text) <= room:
        return text
    fits = [end for end in range(len(text)) if of.getlength(text[:end] + "…") <= room]
    return text[: max(fits)].rstrip() + "…" if fits else ""


@functools.lru_cache(maxsize=32)
def font(size: int, bold: bool = False) -> ImageFont.FreeTypeFont:
    """DejaVu Sans, which comes with matplotlib: Latin, Greek, Cyrillic, Arabic and signs on every machine."""
    import matplotlib

    name = "DejaVuSans-Bold.ttf" if bold else "DejaVuSans.ttf"
    return ImageFont.truetype(Path(matplotlib.get_data_path()) / "fonts" / "ttf" / name, size)
