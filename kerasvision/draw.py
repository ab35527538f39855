"""One function that draws what is in an image, or what a model said about it: onto the image, and below it."""

import functools
import math
from collections.abc import Collection, Sequence
from pathlib import Path

import numpy as np
from PIL import Image, ImageDraw, ImageFont

from kerasvision.masks import PackedMasks
from kerasvision.overlay import Colour, Objects, legend_of, paint, shorten

SMALLEST_SIDE = 320

_LEGEND_ROWS = 4
_PANEL = "#0f172a"
_TEXT = "#f8fafc"
_TRACK = "#1e293b"
_NEUTRAL, _RIGHT, _WRONG, _OTHER = "#1d4ed8", "#15803d", "#b91c1c", "#475569"


def draw(
    image: Image.Image | np.ndarray,
    *,
    ranked: Sequence[tuple[str, float]] = (),
    truth: Collection[str] | None = None,
    labels: Sequence[str] = (),
    boxes: np.ndarray | None = None,
    classes: np.ndarray | None = None,
    scores: np.ndarray | None = None,
    crowd: np.ndarray | None = None,
    masks: PackedMasks | np.ndarray | None = None,
    keypoints: np.ndarray | None = None,
    edges: Sequence[tuple[int, int]] = (),
    segmentation: np.ndarray | None = None,
    side: int | None = None,
) -> Image.Image:
    """Draws boxes, masks, keypoints and class maps onto an image, and below it a legend and ranked labels.

    Nothing but those objects covers the image's own pixels. Images smaller than 320 pixels are enlarged by a whole
    factor, so that the text is readable beside them; larger ones keep their size, unless `side` is given, and the
    text grows with them.

    Args:
        image: PIL image, or uint8 / float [H, W], [H, W, 1] or [H, W, 3] pixels of 0..255.
        ranked: (label, score in 0..1), best first.
        truth: the true labels, where known: right labels become green, wrong ones red, and missed ones are
            named below the bars.
        labels: class names of boxes, masks and class maps; with a single one, each object has its own colour.
        boxes: [N, 4] xyxy in pixels of the image.
        classes: [N], indices into `labels`.
        scores: [N] in 0..1, written beside the names of boxes.
        crowd: bool [N]; boxes of crowds are dashed.
        masks: of N instances, packed or [N, H, W] of zeros and ones.
        keypoints: [N, K, 3] of (x, y, 0 absent, 1 hidden or 2 visible); hidden ones are hollow.
        edges: pairs of keypoints to join by a line.
        segmentation: class of each pixel [H, W]; 255, void, is hatched.
        side: the picture is shrunk to at most so many pixels a side before anything is drawn.

    Returns:
        A new RGB image.

    Raises:
        ValueError: no image, or parts whose counts do not fit each other.
    """
    objects = Objects(labels, boxes, classes, scores, crowd, masks, keypoints, edges, segmentation)
    original = _as_rgb(image)
    picture = _enlarge(original if side is None else _shrink(original, side))
    width = max(picture.width, SMALLEST_SIDE)
    text_size = round(max(SMALLEST_SIDE, min(width, 2 * picture.height)) / 21)
    picture = paint(picture, (original.height, original.width), objects, font(round(text_size * 0.8), bold=True))
    rows = [(label, score, _color(label, place, truth)) for place, (label, score) in enumerate(ranked)]
    missed = [] if truth is None else [label for label in truth if label not in dict(ranked[: len(truth)])]
    panels = [
        _legend(width, text_size, legend_of(objects)),
        _panel(width, text_size, rows, f"true: {', '.join(missed)}" if missed else ""),
    ]
    canvas = Image.new("RGB", (width, picture.height + sum(panel.height for panel in panels)), _PANEL)
    canvas.paste(picture, ((width - picture.width) // 2, 0))
    top = picture.height
    for panel in panels:
        canvas.paste(panel, (0, top))
        top += panel.height
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


def _shrink(image: Image.Image, side: int) -> Image.Image:
    small = image.copy()
    small.thumbnail((side, side))
    return small


def _legend(width: int, text_size: int, entries: Sequence[tuple[str, Colour | None]]) -> Image.Image:
    """Swatches with names, side by side in as many rows as they need, four at most."""
    margin, row_height = round(text_size * 0.6), round(text_size * 1.5)
    of = font(text_size)
    swatch = round(text_size * 0.8)
    room = width - 2 * margin
    placed: list[tuple[int, int, str, Colour | None]] = []
    left, row = 0, 0
    for index, (name, ink) in enumerate(entries):
        name = shorten(name, of, room - 2 * swatch)
        wide = round((2.4 if ink else 1) * swatch + of.getlength(name))
        rest = f"+ {len(entries) - index} more"
        # The last row keeps room for the rest, unless this is all of it.
        last = index == len(entries) - 1
        spare = 0 if last or row < _LEGEND_ROWS - 1 else round(of.getlength(rest)) + swatch
        if left and left + wide + spare > room:
            if row == _LEGEND_ROWS - 1:
                placed.append((left, row, rest, None))
                break
            left, row = 0, row + 1
        placed.append((left, row, name, ink))
        left += wide
    panel = Image.new("RGB", (width, 2 * margin + (row + 1) * row_height if placed else 0), _PANEL)
    pen = ImageDraw.Draw(panel)
    for left, row, name, ink in placed:
        x, middle = margin + left, margin + row * row_height + row_height / 2
        if ink is not None:
            square = (x, round(middle - swatch / 2), x + swatch, round(middle + swatch / 2))
            pen.rectangle(square, fill=ink, outline=_OTHER)
            x += round(1.4 * swatch)
        pen.text((x, middle), name, _TEXT, of, anchor="lm")
    return panel


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


@functools.lru_cache(maxsize=32)
def font(size: int, bold: bool = False) -> ImageFont.FreeTypeFont:
    """DejaVu Sans, which comes with matplotlib: Latin, Greek, Cyrillic, Arabic and signs on every machine."""
    import matplotlib

    name = "DejaVuSans-Bold.ttf" if bold else "DejaVuSans.ttf"
    return ImageFont.truetype(Path(matplotlib.get_data_path()) / "fonts" / "ttf" / name, size)
