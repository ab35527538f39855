"""Boxes, masks, keypoints and class maps painted onto a picture, and the legend that names their colours."""

import colorsys
import dataclasses
from collections.abc import Sequence

import numpy as np
from PIL import Image, ImageDraw, ImageFont

from kerasvision.masks import PackedMasks
from kerasvision.tags import place_tags

VOID = 255
# Neighbours differ in hue and in lightness; all stand out on photographs.
_COLOURS = (
    "#e6194b 3cb44b 4363d8 ffe119 f58231 911eb4 42d4f4 f032e6 bfef45 fabed4 "
    "469990 dcbeff 9a6324 fffac8 800000 aaffc3 808000 ffd8b1 000075 a9a9a9"
).replace("#", "")
_FIXED = tuple(tuple(bytes.fromhex(code)) for code in _COLOURS.split())
_GOLDEN = 0.618033988749895
_FILL, _EDGE = 0.45, 0.95
_HATCH = (40, 40, 40)
_MOST_NAMES, _MOST_TAGS = 20, 60
_SMALLEST_TAG, _SMALLEST_SHARE = 11, 0.5
_MANY_BOXES = 40
_PER_OBJECT = ("boxes", "masks", "keypoints", "classes", "scores", "crowd")

Colour = tuple[int, int, int]


def colour(index: int) -> Colour:
    """The colour of a class: one of twenty that differ well, then hues a golden section apart."""
    if index < len(_FIXED):
        red, green, blue = _FIXED[index]
        return red, green, blue
    value = (0.95, 0.7)[index % 2]
    red_, green_, blue_ = colorsys.hsv_to_rgb(index * _GOLDEN % 1, 0.75, value)
    return round(255 * red_), round(255 * green_), round(255 * blue_)


@dataclasses.dataclass(frozen=True, eq=False)
class Objects:
    """What is in an image, in its pixels; a part that is None is not drawn.

    Args:
        labels: class names.
        boxes: [N, 4] xyxy.
        classes: [N], indices into `labels`; all 0 where None.
        scores: [N] in 0..1.
        crowd: bool [N]; crowds are dashed.
        masks: of N instances, packed or [N, H, W] of zeros and ones.
        keypoints: [N, K, 3] of (x, y, 0 absent, 1 hidden or 2 visible).
        edges: pairs of keypoints to join.
        segmentation: class of each pixel [H, W]; 255 is void.

    Raises:
        ValueError: parts that do not fit each other.
    """

    labels: Sequence[str] = ()
    boxes: np.ndarray | None = None
    classes: np.ndarray | None = None
    scores: np.ndarray | None = None
    crowd: np.ndarray | None = None
    masks: PackedMasks | np.ndarray | None = None
    keypoints: np.ndarray | None = None
    edges: Sequence[tuple[int, int]] = ()
    segmentation: np.ndarray | None = None

    def __post_init__(self) -> None:
        if self.boxes is not None and (np.ndim(self.boxes) != 2 or np.shape(self.boxes)[1] != 4):
            raise ValueError(f"Expected boxes as [N, 4], got the shape {list(np.shape(self.boxes))}.")
        parts = {name: getattr(self, name) for name in _PER_OBJECT}
        counts = {name: len(part) for name, part in parts.items() if part is not None}
        if len(set(counts.values())) > 1:
            raise ValueError(f"Expected as many of each part as there are objects, got {counts}.")

    def __len__(self) -> int:
        parts = (self.boxes, self.masks, self.keypoints)
        return next((len(part) for part in parts if part is not None), 0)

    def class_of(self, index: int) -> int:
        """Class index of an object."""
        return 0 if self.classes is None else int(self.classes[index])

    def colour_of(self, index: int) -> Colour:
        """Colour of an object: of its class, or its own where there is but one class to tell apart."""
        return colour(self.class_of(index) if len(self.labels) > 1 else index)

    def name(self, index: int) -> str:
        """Name of a class."""
        return str(self.labels[index]) if index < len(self.labels) else str(index)


def indexed(classes: np.ndarray) -> Image.Image:
    """A class map as a picture whose pixels are class indices, with the colours of `colour` as its palette.

    Args:
        classes: uint8 [H, W]; 255, void, is dark.
    """
    picture = Image.fromarray(np.asarray(classes, np.uint8))
    picture.putpalette([value for ink in (*(colour(index) for index in range(VOID)), _HATCH) for value in ink])
    return picture


def paint(picture: Image.Image, size: tuple[int, int], objects: Objects, of: ImageFont.FreeTypeFont) -> Image.Image:
    """Paints what is in an image onto a copy of it.

    Args:
        picture: the image in RGB, at any scale.
        size: (H, W) in whose pixels the objects are given.
        objects: what to paint.
        of: font of the tags.

    Returns:
        A new RGB image of the same size.
    """
    picture = picture.copy()
    if objects.segmentation is not None:
        picture = _blend(picture, np.asarray(objects.segmentation), [colour(index) for index in range(VOID)], VOID)
    if objects.masks is not None and len(objects.masks):
        colours = [objects.colour_of(index) for index in range(len(objects.masks))]
        picture = _blend(picture, _instances(objects.masks), colours, len(objects.masks))
    scale = np.array([picture.width / size[1], picture.height / size[0]])
    pen = ImageDraw.Draw(picture)
    if objects.boxes is not None:
        _paint_boxes(pen, picture.size, objects, np.asarray(objects.boxes, np.float64) * np.tile(scale, 2), of)
    if objects.keypoints is not None:
        points = np.array(objects.keypoints, np.float64)
        points[..., :2] *= scale
        _paint_keypoints(pen, picture.size, objects, points)
    return picture


def legend_of(objects: Objects) -> list[tuple[str, Colour | None]]:
    """What a legend says: each class present with its number of objects or its share of the pixels, most first."""
    entries: list[tuple[str, Colour | None]] = []
    if objects.segmentation is not None:
        counts = np.bincount(np.asarray(objects.segmentation).ravel(), minlength=VOID + 1)
        shares = counts / max(counts.sum(), 1)
        present = [int(index) for index in np.argsort(-shares[:VOID], kind="stable") if shares[index]]
        entries = [(f"{objects.name(index)} {_share(shares[index])}", colour(index)) for index in present]
        if shares[VOID]:
            entries.append((f"void {_share(shares[VOID])}", _HATCH))
    elif len(objects) and objects.labels:
        counts = np.bincount([objects.class_of(index) for index in range(len(objects))])
        for index in np.argsort(-counts, kind="stable"):
            if counts[index]:
                entries.append((f"{objects.name(int(index))} {counts[index]}", colour(int(index))))
        if len(objects.labels) == 1:  # Every object has a colour of its own.
            entries = [(entries[0][0], None)]
    return entries


def _share(share: float) -> str:
    return f"{100 * share:.0f} %" if share >= 0.01 else "<1 %"


def _instances(masks: PackedMasks | np.ndarray) -> np.ndarray:
    """int [H, W]: the instance of each pixel, small ones over large ones; their number where there is none."""
    planes = masks.unpack() if isinstance(masks, PackedMasks) else np.asarray(masks)
    result = np.full(planes.shape[1:], len(planes), np.int32)
    for index in np.argsort(-planes.sum(axis=(1, 2), dtype=np.int64), kind="stable"):
        result[planes[index] > 0] = index
    return result


def _blend(picture: Image.Image, indices: np.ndarray, colours: Sequence[Colour], nothing: int) -> Image.Image:
    """Lays colours over a picture: edges strong, areas so that the picture shows; void is hatched."""
    rows = (np.arange(picture.height) + 0.5) * indices.shape[0] // picture.height
    columns = (np.arange(picture.width) + 0.5) * indices.shape[1] // picture.width
    near = indices[rows.astype(int)[:, None], columns.astype(int)[None, :]].astype(np.int64)
    inside = (near >= 0) & (near < min(nothing, len(colours)))
    table = np.array([*colours, _HATCH], np.float32)
    alpha = np.where(inside, _FILL, 0.0)
    edge = np.zeros(near.shape, bool)
    edge[:, 1:] |= near[:, 1:] != near[:, :-1]
    edge[1:] |= near[1:] != near[:-1]
    alpha[edge & inside] = _EDGE
    if nothing == VOID:
        y, x = np.ogrid[: picture.height, : picture.width]
        alpha[(near == VOID) & ((x + y) // 4 % 2 == 0)] = _FILL
    alpha = alpha[..., None].astype(np.float32)
    laid = np.asarray(picture, np.float32) * (1 - alpha) + table[np.where(inside, near, len(colours))] * alpha
    return Image.fromarray(np.rint(laid).astype(np.uint8))


def _paint_boxes(
    pen: ImageDraw.ImageDraw, size: tuple[int, int], objects: Objects, boxes: np.ndarray, of: ImageFont.FreeTypeFont
) -> None:
    width = max(1 if len(boxes) > _MANY_BOXES else 2, round(max(size) / 300))
    shown = np.flatnonzero(np.isfinite(boxes).all(axis=1))
    boxes = np.concatenate([np.minimum(boxes[:, :2], boxes[:, 2:]), np.maximum(boxes[:, :2], boxes[:, 2:])], axis=1)
    # Large ones first: the small ones stay on top.
    order = np.argsort(-(boxes[shown, 2:] - boxes[shown, :2]).prod(axis=1), kind="stable")
    indices: list[int] = shown[order].tolist()
    for index in indices:
        left, top, right, bottom = np.clip(boxes[index], -4 * max(size), 5 * max(size))
        # The coordinates are edges between pixels; a pen paints the pixels themselves.
        corners = (round(left), round(top), round(max(right - 1, left)), round(max(bottom - 1, top)))
        if objects.crowd is not None and objects.crowd[index]:
            _dashed(pen, corners, objects.colour_of(index), width)
        else:
            pen.rectangle(corners, outline=objects.colour_of(index), width=width)
    _paint_tags(pen, size, objects, boxes, indices, of)


def _paint_tags(
    pen: ImageDraw.ImageDraw,
    size: tuple[int, int],
    objects: Objects,
    boxes: np.ndarray,
    indices: Sequence[int],
    of: ImageFont.FreeTypeFont,
) -> None:
    """Names and scores beside the boxes: of more than 20 boxes the scores alone, of more than 60 nothing."""
    named = len(indices) <= _MOST_NAMES and (len(objects.labels) > 1 or objects.scores is not None)
    if not indices or not (named or (objects.scores is not None and len(indices) <= _MOST_TAGS)):
        return
    texts = []
    for index in indices:
        score = "" if objects.scores is None else f"{100 * float(objects.scores[index]):.0f} %"
        texts.append(
            " ".join([*([objects.name(objects.class_of(index))] if named else ()), *([score] if score else ())])
        )
    # A name is about as wide as its box, a score half as wide, unless it could not be read then.
    wide = np.median([of.getlength(text) for text in texts]) / max(np.median(boxes[indices, 2] - boxes[indices, 0]), 1)
    wide *= 1 if named else 2
    if wide > 1:
        of = of.font_variant(size=round(max(of.size / wide, _SMALLEST_SHARE * of.size, min(_SMALLEST_TAG, of.size))))
    texts = [shorten(text, of, size[0] - 6) for text in texts]
    sizes = np.array([(round(of.getlength(text)) + 6, round(of.size * 1.25)) for text in texts])
    corners = place_tags(boxes[indices], sizes, size)
    for index, text, (left, top), (width, height) in zip(indices, texts, corners.tolist(), sizes.tolist(), strict=True):
        ink = objects.colour_of(index)
        pen.rectangle((left, top, left + width - 1, top + height - 1), fill=ink)
        pen.text((left + 3, top + height / 2), text, readable_on(ink), of, anchor="lm")


def _dashed(pen: ImageDraw.ImageDraw, corners: tuple[int, int, int, int], ink: Colour, width: int) -> None:
    left, top, right, bottom = corners
    for (x0, y0), (x1, y1) in (
        ((left, top), (right, top)),
        ((right, top), (right, bottom)),
        ((right, bottom), (left, bottom)),
        ((left, bottom), (left, top)),
    ):
        dashes = max(round(max(abs(x1 - x0), abs(y1 - y0)) / 6), 1)
        for start in range(0, dashes, 2):
            a, b = start / dashes, min((start + 1) / dashes, 1)
            ends = ((x0 + a * (x1 - x0), y0 + a * (y1 - y0)), (x0 + b * (x1 - x0), y0 + b * (y1 - y0)))
            pen.line(ends, fill=ink, width=width)


def readable_on(ink: Colour) -> Colour:
    """Black or white, whichever differs more from a colour (luma of ITU-R 601)."""
    luma = 0.299 * ink[0] + 0.587 * ink[1] + 0.114 * ink[2]
    return (0, 0, 0) if luma > 140 else (255, 255, 255)


def _paint_keypoints(pen: ImageDraw.ImageDraw, size: tuple[int, int], objects: Objects, points: np.ndarray) -> None:
    radius = max(2, round(max(size) / 130))
    for index, person in enumerate(points):
        ink = objects.colour_of(index)
        there = (person[:, 2] > 0) & np.isfinite(person).all(axis=1)
        for first, second in objects.edges:
            if there[first] and there[second]:
                pen.line((*person[first, :2], *person[second, :2]), fill=ink, width=max(1, radius // 2))
        for x, y, state in person[there]:
            spot = (x - radius, y - radius, x + radius, y + radius)
            pen.ellipse(spot, fill=ink if state >= 2 else None, outline=(255, 255, 255) if state >= 2 else ink, width=1)


def shorten(text: str, of: ImageFont.FreeTypeFont, room: float) -> str:
    """Cuts a text's end off, marked by an ellipsis, until it is at most `room` pixels wide."""
    text = " ".join(text.split())
    if of.getlength(text) <= room:
        return text
    fits = [end for end in range(len(text)) if of.getlength(text[:end] + "…") <= room]
    return text[: max(fits)].rstrip() + "…" if fits else ""
