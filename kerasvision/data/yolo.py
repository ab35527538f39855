"""YOLO text files: a label file for each image, with boxes, polygons or keypoints as shares of the image's size."""

import dataclasses
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import numpy as np

from kerasvision.data.inspect import BadFile
from kerasvision.data.listing import Item, Listing
from kerasvision.data.objects import Objects
from kerasvision.data.paths import is_image, present
from kerasvision.data.segmentations import Segmentations, extent
from kerasvision.data.storage import walk
from kerasvision.data.yolo_layout import Layout, read_layout
from kerasvision.errors import DataError

# Tools round: a box at the very edge may reach a little beyond.
_SLACK = 0.01
_MAX_BYTES = 32 << 20


def load_yolo(source: Path) -> Listing:
    """Lists a YOLO set: images/ and labels/ with the same names inside, one .txt for each image.

    A line is `class cx cy width height` (a box), `class x y x y x y ...` (a polygon, its box is the smallest around it)
    or, with `kpt_shape` in data.yaml, a box followed by keypoints. Numbers are shares of the upright image's width and
    height. An image without a label file has no objects.

    Args:
        source: data.yaml, or a folder that holds one, or a folder with images/, labels/ and classes.txt.

    Returns:
        The images, sorted by path within each split; classes in the order of the names.

    Raises:
        DataError: the set's description or its folders are not usable.
    """
    layout = read_layout(source)
    listing = Listing({}, layout.names, kind="objects")
    lines = _Lines(len(layout.names), layout.keypoints)
    labelled = 0
    first: dict[str, str] = {}
    found: list[tuple[str, Path, str, _Labels | None]] = []
    for split, places in layout.splits.items():
        listing.splits[split] = []
        for image, where in _images(layout, places, listing.problems):
            if str(image) in first:
                listing.problems.append(BadFile(str(image), f"is listed for the {first[str(image)]} split, too", where))
                continue
            first[str(image)] = split
            labels = None
            file = layout.label_file(image)
            if present(file):
                labelled += 1
                try:
                    labels = lines.read(file)
                except _LineError as error:
                    listing.problems.append(BadFile(str(image), error.reason, f"{file}:{error.line}"))
                    continue
            found.append((split, image, where, labels))
    if found and not labelled:
        raise DataError(
            f"{layout.root}: none of {len(found)} images has a label file. Expected labels/ beside images/."
        )
    with_masks = any(labels is not None and any(labels.polygons) for *_, labels in found)
    for split, image, where, labels in found:
        objects = (labels or _Labels("", np.zeros((0, 5)), [], [])).objects(with_masks, layout.keypoints)
        if isinstance(objects, BadFile):
            listing.problems.append(dataclasses.replace(objects, path=str(image)))
        else:
            listing.splits[split].append(Item(str(image), (), layout.key(image), where, objects=objects))
    if layout.keypoints:
        listing.keypoint_names = tuple(str(number) for number in range(layout.keypoints[0]))
    return listing


def _images(layout: Layout, places: Sequence[tuple[Path, str]], problems: list[BadFile]) -> list[tuple[Path, str]]:
    """Image files of folders and of .txt lists, each with the line that names it ("" where none does)."""
    images: list[tuple[Path, str]] = []
    for place, where in places:
        if not present(place):
            raise DataError(f"{where}: there is no {place}. Expected a folder of images or a .txt list of them.")
        if place.is_dir():
            files = (folder / name for folder, _, names in walk(place) for name in names if is_image(name))
            images += [(file, "") for file in sorted(files)]
        else:
            images += layout.read_list(place, problems)
    return images


class _LineError(Exception):
    def __init__(self, reason: str, line: int) -> None:
        super().__init__(reason)
        self.reason, self.line = reason, line


@dataclasses.dataclass(frozen=True)
class _Labels:
    """The objects of one image: rows [N, 5 + ...] of class, box and keypoints; polygons, or None; line numbers."""

    file: str
    rows: np.ndarray
    polygons: list[list[float] | None]
    lines: list[int]

    def objects(self, with_masks: bool, keypoints: tuple[int, int] | None) -> Objects | BadFile:
        """Objects in shares of the image; bad where some have polygons and others have not."""
        masks: Segmentations | None = None
        if with_masks:
            if not all(self.polygons):
                line = self.lines[self.polygons.index(None)]
                return BadFile("", "a box among polygons; expected a polygon for every object", f"{self.file}:{line}")
            masks = Segmentations.of([polygon] for polygon in self.polygons)
        points = None
        if keypoints:
            points = np.full((len(self.rows), keypoints[0], 3), 2.0)
            if len(self.rows):
                points[..., : keypoints[1]] = self.rows[:, 5:].reshape(len(self.rows), *keypoints)
            # Without visibilities, (0, 0) says that a point is not there.
            points[(points[..., :2] == 0).all(-1), 2] = 0
        half = self.rows[:, 3:5] / 2
        boxes = np.concatenate([self.rows[:, 1:3] - half, self.rows[:, 1:3] + half], axis=1)
        return Objects(
            boxes,
            self.rows[:, 0].astype(np.int32),
            np.zeros(len(boxes), bool),
            masks=masks,
            keypoints=points,
            relative=True,
            file=self.file,
            places=np.array(self.lines, np.int32),
        )


class _Lines:
    """Reads label files of one set."""

    def __init__(self, classes: int, keypoints: tuple[int, int] | None) -> None:
        self._classes = classes
        self._keypoints = keypoints
        self._width = 5 + (keypoints[0] * keypoints[1] if keypoints else 0)

    def read(self, file: Path) -> _Labels:
        content = file.read_bytes()
        if len(content) > _MAX_BYTES:
            raise _LineError(f"{len(content):,} bytes, more than the limit of {_MAX_BYTES:,}", 1)
        rows: list[list[float]] = []
        polygons: list[list[float] | None] = []
        numbers: list[int] = []
        for number, line in enumerate(content.removeprefix(b"\xef\xbb\xbf").splitlines(), 1):
            if not line.strip():
                continue
            try:
                # Bytes: float() of a text would take digits of other scripts, too.
                values = [float(word) for word in line.split()]
            except ValueError:
                reason = f"{line[:40]!r} is not a line of numbers"
                raise _LineError(reason, number) from None
            reason, polygon = self._check(values)
            if reason:
                raise _LineError(reason, number)
            if polygon:
                left, top, right, bottom = extent([polygon])
                values = [values[0], (left + right) / 2, (top + bottom) / 2, right - left, bottom - top]
            rows.append(values)
            polygons.append(polygon)
            numbers.append(number)
        return _Labels(str(file), np.array(rows, np.float64).reshape(-1, self._width), polygons, numbers)

    def _check(self, values: list[float]) -> tuple[str, list[float] | None]:
        """What is wrong with a line, or "" and its polygon where it is one."""
        index, numbers = values[0], values[1:]
        if not (0 <= index < self._classes and index == int(index)):
            return f"the class is {index:g}; expected a whole number in 0..{self._classes - 1}", None
        if self._keypoints or len(values) == 5:
            if len(values) != self._width:
                return f"{len(values)} numbers; expected {self._width}: class, box and keypoints", None
            return self._check_box(numbers) or self._check_points(numbers[4:]), None
        if len(numbers) < 6 or len(numbers) % 2:
            return f"{len(values)} numbers; expected class, cx, cy, width, height or class and x, y of each point", None
        if not (min(numbers) >= -_SLACK and max(numbers) <= 1 + _SLACK and sum(numbers) < len(numbers) * 2):
            return "a polygon beyond the image; expected shares of its width and height, 0..1", None
        polygon = [min(max(value, 0.0), 1.0) for value in numbers]
        left, top, right, bottom = extent([polygon])
        return ("" if left < right and top < bottom else "a polygon without width or height"), polygon

    def _check_box(self, box: Sequence[float]) -> str:
        x, y, width, height = box[:4]
        if not (
            -_SLACK <= x <= 1 + _SLACK and -_SLACK <= y <= 1 + _SLACK and width <= 1 + _SLACK and height <= 1 + _SLACK
        ):
            return "a box beyond the image; expected shares of its width and height, 0..1"
        return "" if width > 0 and height > 0 else f"a box {width:g} wide and {height:g} high; expected more than 0"

    def _check_points(self, numbers: Sequence[float]) -> str:
        if not self._keypoints:
            return ""
        points: Any = np.reshape(numbers, self._keypoints)
        if not (np.abs(points[:, :2]) <= 2).all():
            return "a keypoint beyond the image; expected shares of its width and height, 0..1"
        if self._keypoints[1] == 3 and not np.isin(points[:, 2], (0, 1, 2)).all():
            return "a keypoint with a visibility other than 0, 1, 2"
        return ""
