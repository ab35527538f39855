"""COCO segmentations as they stand in a file: polygons and run lengths, checked before anything decodes them."""

from collections.abc import Iterable, Iterator, Sequence
from typing import Any, overload

import msgspec
import numpy as np


class Segmentations(Sequence[Any]):
    """COCO segmentations of the objects of one image, kept as JSON until they are looked at.

    A set of 100,000 images fits into memory that way: as Python lists, its polygons would take five times as much.
    """

    __slots__ = ("_count", "_text")

    def __init__(self, entries: Iterable[bytes | msgspec.Raw]) -> None:
        parts = [bytes(entry) for entry in entries]
        self._text = b"[" + b",".join(parts) + b"]"
        self._count = len(parts)

    @classmethod
    def of(cls, segmentations: Iterable[Any]) -> "Segmentations":
        """From lists of polygons and dicts of run lengths."""
        return cls(msgspec.json.encode(segmentation) for segmentation in segmentations)

    def __len__(self) -> int:
        return self._count

    @overload
    def __getitem__(self, index: int) -> Any: ...

    @overload
    def __getitem__(self, index: slice) -> list[Any]: ...

    def __getitem__(self, index: int | slice) -> Any:
        return msgspec.json.decode(self._text)[index]

    def __iter__(self) -> Iterator[Any]:
        return iter(msgspec.json.decode(self._text))

    def __eq__(self, other: object) -> bool:
        return isinstance(other, Sequence) and list(self) == list(other)

    def __hash__(self) -> int:
        return hash(self._text)

    def __repr__(self) -> str:
        return f"Segmentations of {self._count} objects"


def check_segmentation(segmentation: Any, size: tuple[int, int] | None = None) -> str:
    """What is wrong with the mask of one object.

    Decoders write past their arrays, or ask for gigabytes, where the numbers do not fit the image.

    Args:
        segmentation: list of polygons [x0, y0, x1, y1, ...] in pixels, or {"size": [H, W], "counts": ...}.
        size: (H, W) of the upright image; None leaves out what depends on it.

    Returns:
        The reason, or "" where the segmentation is sound.
    """
    if isinstance(segmentation, dict):
        return _check_runs(segmentation, size)
    for polygon in segmentation:
        if len(polygon) % 2 or len(polygon) < 6:
            return f"a polygon has {len(polygon)} numbers; expected x, y of three points or more"
        low, high = min(polygon), max(polygon)
        # A vertex may stick out, but one far away is a mistake.
        if size and not (-max(size) <= low <= high <= 2 * max(size)):
            return f"a polygon reaches from {low:g} to {high:g} in an image of {size[1]} x {size[0]} pixels"
        if not -1e7 < low <= high < 1e7:
            return "a polygon has points that are no pixels of any image"
    return ""


def _check_runs(segmentation: dict[str, Any], size: tuple[int, int] | None) -> str:
    stated = tuple(segmentation["size"])
    if len(stated) != 2 or min(stated) < 1:
        return f"run lengths of a mask of size {list(stated)}; expected [height, width]"
    if size and stated != tuple(size):
        return f"run lengths of a mask of {stated[1]} x {stated[0]} pixels in an image of {size[1]} x {size[0]}"
    counts = segmentation["counts"]
    try:
        runs = unpack_counts(counts) if isinstance(counts, str) else np.asarray(counts, np.int64)
    except (ValueError, OverflowError):
        return "run lengths that cannot be read"
    if len(runs) and (runs.min() < 0 or runs.max() > stated[0] * stated[1]):
        return "run lengths outside the mask"
    if runs.sum() != stated[0] * stated[1]:
        return f"run lengths add up to {runs.sum()} of {stated[0] * stated[1]} pixels"
    return ""


def unpack_counts(text: str) -> np.ndarray:
    """Run lengths from COCO's compressed text: five bits a character, differences to the run before the last.

    Args:
        text: the "counts" of a compressed mask.

    Returns:
        int64 [runs].

    Raises:
        ValueError: the text holds other characters, or ends within a number.
    """
    codes = np.frombuffer(text.encode(), np.uint8).astype(np.int64) - 48
    if not len(codes):
        return codes
    more = (codes & 32) > 0
    if codes.min() < 0 or codes.max() > 63 or more[-1]:
        raise ValueError("not COCO run lengths")
    ends = np.flatnonzero(~more)
    starts = np.append(0, ends[:-1] + 1)
    lengths = ends - starts + 1
    if lengths.max() > 12:
        raise ValueError("a run length of more than 60 bits")
    position = np.arange(len(codes)) - np.repeat(starts, lengths)
    values = np.add.reduceat((codes & 31) << (5 * position), starts)
    negative = (codes[ends] & 16) > 0
    values[negative] -= np.int64(1) << (5 * lengths[negative])
    # From the fourth number on, each is the difference to the one two before.
    values[1::2] = np.cumsum(values[1::2])
    values[2::2] = np.cumsum(values[2::2])
    return values


def extent(segmentation: Any) -> list[float]:
    """Smallest box xyxy around a sound segmentation; zeros where it is empty."""
    if isinstance(segmentation, dict):
        from pycocotools import mask as coco

        counts = segmentation["counts"]
        whole = coco.frPyObjects(segmentation, *segmentation["size"]) if isinstance(counts, list) else segmentation
        x, y, width, height = (float(value) for value in coco.toBbox(whole))
        return [x, y, x + width, y + height]
    points: Sequence[float] = [value for polygon in segmentation for value in polygon]
    if not points:
        return [0.0, 0.0, 0.0, 0.0]
    return [min(points[::2]), min(points[1::2]), max(points[::2]), max(points[1::2])]
