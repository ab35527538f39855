"""COCO JSON: boxes, polygons, run lengths, keypoints and crowds (Lin et al., 2014, arXiv:1405.0312)."""

from collections.abc import Sequence
from pathlib import Path

import numpy as np

from kerasvision.data.coco_files import assign_splits, find_indices, image_folder, locate
from kerasvision.data.coco_index import (
    NOTHING,
    Annotation,
    Category,
    Id,
    Index,
    IndexImage,
    decode_segmentation,
    read_index,
)
from kerasvision.data.inspect import BadFile
from kerasvision.data.listing import Item, Listing
from kerasvision.data.objects import Objects, box_problem
from kerasvision.data.paths import inside, split_of
from kerasvision.data.segmentations import Segmentations, check_segmentation, extent
from kerasvision.errors import DataError


def load_coco(source: Path) -> Listing:
    """Lists a COCO index, or a folder with one for each split.

    The classes are the categories in the order of their ids. Boxes [x, y, width, height] become xyxy.

    Args:
        source: a .json file; or a folder that holds them, directly, in annotations/ or in the folders of the splits.

    Returns:
        The images in the order of the index.

    Raises:
        DataError: no index, one that is not COCO's JSON, or indices that contradict each other.
    """
    if source.is_dir():
        files = assign_splits(find_indices(source), source)
        if not files:
            raise DataError(f"No COCO index in {source}. Expected .json files with images, annotations, categories.")
    else:
        files = {split_of(source.stem) or split_of(source.parent.name) or "train": source}
    indices = {split: read_index(file) for split, file in files.items()}
    categories = _merge_categories(files, indices)
    points = _keypoint_names(source, categories)
    listing = Listing({}, tuple(category.name for category in categories), kind="objects", locate=locate)
    listing.keypoint_names = points or ()
    classes = {category.id: position for position, category in enumerate(categories)}
    with_masks = any(
        annotation.segmentation != NOTHING and bytes(annotation.segmentation) not in (b"[]", b"null")
        for index in indices.values()
        for annotation in index.annotations or ()
    )
    for split, file in files.items():
        reader = _Reader(file, indices.pop(split), classes, with_masks, points)
        listing.splits[split] = reader.items()
        listing.problems += reader.problems
    return listing


def _merge_categories(files: dict[str, Path], indices: dict[str, Index]) -> list[Category]:
    """Categories of all indices, by id."""
    merged: dict[Id, Category] = {}
    for split, index in indices.items():
        own = set()
        for number, category in enumerate(index.categories):
            where = f"{files[split]}:categories:{number}"
            if category.id in own:
                raise DataError(f"{locate([where])[0]}: the category id {category.id!r} is used twice.")
            own.add(category.id)
            known = merged.setdefault(category.id, category)
            if known.name != category.name:
                raise DataError(
                    f"{locate([where])[0]}: category {category.id!r} is called {category.name!r}, in another index of "
                    f"the set {known.name!r}. Expected the same categories in each."
                )
    if not merged:
        raise DataError(
            f"{', '.join(str(file) for file in files.values())}: no categories. Expected one for each class."
        )
    return sorted(merged.values(), key=lambda category: (isinstance(category.id, str), category.id))


def _keypoint_names(source: Path, categories: Sequence[Category]) -> tuple[str, ...] | None:
    """Names of the keypoints all objects have, or None where no category has any."""
    names = {tuple(category.keypoints) for category in categories if category.keypoints}
    if len(names) > 1:
        raise DataError(f"{source}: categories with different keypoints. Expected the same keypoints for all of them.")
    return names.pop() if names else None


class _Reader:
    """Turns one decoded index into items; numbers are checked as arrays, hundreds of thousands at once."""

    def __init__(
        self, file: Path, index: Index, classes: dict[Id, int], with_masks: bool, points: tuple[str, ...] | None
    ) -> None:
        self.problems: list[BadFile] = []
        self._file = file
        self._images = index.images
        self._annotations: list[Annotation] = index.annotations or []
        self._classes = classes
        self._with_masks = with_masks
        self._points = points
        self._bad: set[int] = set()  # rows of images with an entry that cannot be used
        self._base, self._root = image_folder(file, [image.file_name for image in index.images])

    def items(self) -> list[Item]:
        rows, paths = self._place_images()
        row = np.fromiter((rows.get(entry.image_id, -1) for entry in self._annotations), np.int64)
        kinds = np.fromiter((self._classes.get(entry.category_id, -1) for entry in self._annotations), np.int32)
        crowd = np.fromiter((bool(entry.iscrowd) for entry in self._annotations), bool)
        boxes = self._boxes(row)
        if self._with_masks:
            self._check_masks(row)
        points = self._keypoints(row) if self._points else None
        self._check(row, kinds)
        order = np.argsort(row, kind="stable")
        bounds = np.searchsorted(row[order], np.arange(len(self._images) + 1))
        boxes, kinds, crowd = boxes[order].astype(np.float32), kinds[order], crowd[order]
        points = points if points is None else points[order]
        items = []
        for number, image in enumerate(self._images):
            if number in self._bad:
                continue
            part = slice(bounds[number], bounds[number + 1])
            objects = Objects(
                boxes[part],
                kinds[part],
                crowd[part],
                masks=self._masks(order[part]),
                keypoints=None if points is None else points[part],
                file=f"{self._file}:annotations",
                places=order[part],
            )
            where = f"{self._file}:images:{number}"
            size = (int(image.height), int(image.width)) if image.height and image.width else None
            items.append(Item(paths[number], (), self._key(image), where, size=size, objects=objects))
        return items

    def _key(self, image: IndexImage) -> str:
        return Path(image.file_name).as_posix()

    def _place_images(self) -> tuple[dict[Id, int], list[str]]:
        """id -> row, and the path of each image."""
        rows: dict[Id, int] = {}
        names: dict[str, int] = {}
        paths = []
        for number, image in enumerate(self._images):
            path = inside(self._base, image.file_name, self._root) if image.file_name else None
            paths.append(path or image.file_name)
            reason = ""
            if path is None:
                reason = f"the path {image.file_name!r} leads out of the data folder {self._root}"
            elif image.id in rows:
                # Whose objects these are cannot be said for either image.
                reason = f"the image id {image.id!r} is used twice"
                self._bad.add(rows[image.id])
            elif path in names:
                reason = f"the file is listed twice, before as images[{names[path]}]"
                self._bad.add(names[path])
            elif not _is_length(image.width) or not _is_length(image.height):
                reason = f"a size of {image.width} x {image.height}; expected whole numbers of pixels from 1"
            if reason:
                self._bad.add(number)
                self.problems.append(BadFile(paths[number], reason, f"{self._file}:images:{number}"))
            rows.setdefault(image.id, number)
            names.setdefault(paths[number], number)
        return rows, paths

    def _complain(self, number: int, row: np.ndarray, reason: str) -> None:
        path = str(self._file)
        if row[number] >= 0:
            self._bad.add(int(row[number]))
            path = str(self._base / self._images[row[number]].file_name)
        self.problems.append(BadFile(path, reason, f"{self._file}:annotations:{number}"))

    def _check(self, row: np.ndarray, kinds: np.ndarray) -> None:
        for number in np.flatnonzero(row < 0).tolist():
            reason = f"there is no image with the id {self._annotations[number].image_id!r}"
            self._complain(number, row, reason)
        for number in np.flatnonzero(kinds < 0).tolist():
            reason = f"there is no category with the id {self._annotations[number].category_id!r}"
            self._complain(number, row, reason)
        seen: set[Id] = set()
        for number, entry in enumerate(self._annotations):
            if entry.id is not None and entry.id in seen:
                self._complain(number, row, f"the annotation id {entry.id!r} is used twice")
            elif entry.id is not None:
                seen.add(entry.id)

    def _boxes(self, row: np.ndarray) -> np.ndarray:
        """float64 [M, 4] xyxy; an object without a box gets that of its mask."""
        boxes = np.zeros((len(self._annotations), 4))
        for number, entry in enumerate(self._annotations):
            if entry.bbox and len(entry.bbox) == 4:
                boxes[number] = entry.bbox
            elif entry.bbox:
                self._complain(number, row, f"a box of {len(entry.bbox)} numbers; expected x, y, width, height")
                boxes[number] = 0, 0, 1, 1
            elif (mask := decode_segmentation(entry.segmentation)) and not check_segmentation(mask):
                left, top, right, bottom = extent(mask)
                boxes[number] = left, top, right - left, bottom - top
        # A width that vanishes beside a large x must not pass, so width and height are looked at themselves.
        sound = np.isfinite(boxes).all(1) & (np.abs(boxes) < 1e7).all(1) & (boxes[:, 2:] > 0).all(1)
        boxes[:, 2:] += boxes[:, :2]
        for number in np.flatnonzero(~sound).tolist():
            self._complain(number, row, box_problem(boxes[number]) or "a box without width or height")
        boxes[~sound] = 0, 0, 1, 1
        return boxes

    def _check_masks(self, row: np.ndarray) -> None:
        for number, entry in enumerate(self._annotations):
            mask = decode_segmentation(entry.segmentation)
            if mask is None:
                self._complain(number, row, "a segmentation that is neither polygons nor run lengths")
            elif not mask:
                self._complain(number, row, "no segmentation, which other objects of the set have")
            elif reason := check_segmentation(mask):
                self._complain(number, row, reason)

    def _masks(self, numbers: np.ndarray) -> Segmentations | None:
        """Segmentations of the objects of one image, or None where the set has none."""
        if not self._with_masks:
            return None
        return Segmentations(self._annotations[number].segmentation for number in numbers)

    def _keypoints(self, row: np.ndarray) -> np.ndarray:
        """float32 [M, K, 3]; zeros for objects without keypoints."""
        count = len(self._points or ())
        points = np.zeros((len(self._annotations), count, 3), np.float32)
        for number, entry in enumerate(self._annotations):
            if not entry.keypoints:
                continue
            values = np.asarray(entry.keypoints)
            if len(values) != 3 * count:
                self._complain(
                    number, row, f"{len(values)} numbers of keypoints; expected {count} times x, y, visibility"
                )
                continue
            points[number] = values.reshape(count, 3)
            if not (np.isin(points[number, :, 2], (0, 1, 2)).all() and (np.abs(values) < 1e7).all()):
                self._complain(
                    number, row, "keypoints with a visibility other than 0, 1, 2 or points far from any image"
                )
        return points


def _is_length(value: int | float | None) -> bool:
    return value is None or (value >= 1 and value == int(value))
