"""Segmentation sets: a folder of images and a folder of masks, with the names of the classes in a file beside them."""

import csv
import dataclasses
import re
from pathlib import Path

from kerasvision.data.inspect import BadFile
from kerasvision.data.listing import Item, Listing
from kerasvision.data.mask_files import MAX_CLASSES, VOID, Color, MaskCoding, MaskFile
from kerasvision.data.paths import SPLIT_NAMES, SPLIT_ORDER, is_image, subfolders
from kerasvision.data.storage import walk
from kerasvision.errors import DataError

IMAGE_FOLDERS = ("images", "image", "imgs", "img", "jpegimages")
MASK_FOLDERS = ("masks", "mask", "labels", "label", "annotations", "annots", "segmentationclass", "gt", "groundtruth")
# What names of mask files have behind those of their images; SegNet's CamVid calls whole folders "trainannot".
SUFFIXES = ("", "_mask", "_masks", "-mask", "_L", "_label", "_labels", "_seg", "_segmentation", "_gt", "_annot")
FOLDER_SUFFIXES = ("annot", "_annot", "_labels", "_label", "_masks", "_mask", "masks", "labels", "_gt")
NAME_FILES = ("labels.txt", "classes.txt", "codes.txt")
COLOR_FILES = ("class_dict.csv", "label_colors.txt", "labelmap.txt")
VOID_NAMES = {"void", "ignore", "ignored"}


@dataclasses.dataclass(frozen=True)
class _Pair:
    split: str | None
    images: Path
    masks: Path


def is_mask_folder(root: Path) -> bool:
    """Whether a folder holds images and masks in folders that are called so."""
    return any(_has_images(pair.images) and _has_images(pair.masks) for pair in _pairs(root))


def _has_images(folder: Path) -> bool:
    return any(is_image(name) for _, _, names in walk(folder) for name in names)


def _pairs(root: Path) -> list[_Pair]:
    """Folders of images and of masks that belong together, in any of the usual orders.

    images/ + masks/, both with or without train/ and val/ inside; train/images/ + train/masks/; train/ + trainannot/.
    """
    folders = {folder.name.lower(): folder for folder in subfolders(root)}
    splits = {name: folder for name, folder in folders.items() if name in SPLIT_NAMES}
    pairs = [pair for name, folder in splits.items() if (pair := _side_by_side(folder, SPLIT_NAMES[name]))]
    for name, folder in splits.items():
        for suffix in FOLDER_SUFFIXES:
            if name + suffix in folders:
                pairs.append(_Pair(SPLIT_NAMES[name], folder, folders[name + suffix]))
    whole = None if pairs else _side_by_side(root, None)
    if whole is None:
        return pairs
    masks = {folder.name.lower(): folder for folder in subfolders(whole.masks)}
    below = [folder for folder in subfolders(whole.images) if folder.name.lower() in SPLIT_NAMES]
    divided = [
        _Pair(SPLIT_NAMES[folder.name.lower()], folder, masks[folder.name.lower()])
        for folder in below
        if folder.name.lower() in masks
    ]
    return divided or [whole]


def _side_by_side(folder: Path, split: str | None) -> _Pair | None:
    folders = {sub.name.lower(): sub for sub in subfolders(folder)}
    images = next((folders[name] for name in IMAGE_FOLDERS if name in folders), None)
    masks = next((folders[name] for name in MASK_FOLDERS if name in folders), None)
    return _Pair(split, images, masks) if images and masks else None


def load_mask_folders(
    root: Path, labels: tuple[str, ...] | None = None, values: tuple[tuple[int, int], ...] = ()
) -> Listing:
    """Lists images and the masks that are called like them.

    Masks hold class indices (grey or palette files; 255 = void), or colours where class_dict.csv (name,r,g,b) or
    label_colors.txt (r g b name) says what they mean; a colour called void or ignore is void. Names of the classes come
    from there or from labels.txt, classes.txt or codes.txt; else they are "0", "1", ...

    Args:
        root: the folder.
        labels: class names, where the caller knows them.
        values: (value in the files, class index or 255) where they differ.

    Returns:
        The images, sorted by path.

    Raises:
        DataError: no such folders, or files of names that cannot be read.
    """
    pairs = _pairs(root)
    if not pairs:
        raise DataError(f"{root}: expected images/ and masks/, with or without train/ and val/ in or above them.")
    found = _read_colors(root)
    coding = MaskCoding(found[1] if found else (), values)
    if labels is None:
        labels = found[0] if found else _read_names(root)
    listing = Listing({}, labels, kind="segmentation")
    for pair in sorted(pairs, key=lambda pair: SPLIT_ORDER.index(pair.split or "train")):
        split = pair.split or "train"
        if split in listing.splits:
            raise DataError(f"{root} has two folders for the {split} split. Put their files into one.")
        listing.splits[split] = _match(root, pair, coding, listing.problems)
    return listing


def _match(root: Path, pair: _Pair, coding: MaskCoding, problems: list[BadFile]) -> list[Item]:
    images = _stems(pair.images)
    masks = _stems(pair.masks)
    suffix = max(SUFFIXES, key=lambda suffix: sum(stem + suffix in masks for stem in images))
    items = []
    for stem, files in images.items():
        own = masks.get(stem + suffix, [])
        if len(files) > 1 or len(own) > 1:
            names = ", ".join(str(file) for file in files + own)
            problems.append(BadFile(str(files[0]), f"which belongs to which cannot be said of {names}"))
        elif not own:
            problems.append(BadFile(str(files[0]), f"has no mask {pair.masks / (stem + suffix)}.png"))
        else:
            key = files[0].relative_to(root).as_posix()
            items.append(Item(str(files[0]), (), key, segmentation=MaskFile(str(own[0]), coding)))
    return items


def _stems(folder: Path) -> dict[str, list[Path]]:
    """Path below the folder, without suffix -> files; sorted."""
    files = sorted(place / name for place, _, names in walk(folder) for name in names if is_image(name))
    stems: dict[str, list[Path]] = {}
    for file in files:
        stems.setdefault(file.relative_to(folder).with_suffix("").as_posix(), []).append(file)
    return stems


def _read_text(file: Path) -> str:
    content = file.read_bytes()
    try:
        return content.decode("utf-8-sig")
    except UnicodeDecodeError as error:
        raise DataError(f"{file}:{content.count(10, 0, error.start) + 1}: not UTF-8 text. Save it as UTF-8.") from error


def _read_names(root: Path) -> tuple[str, ...]:
    file = next((root / name for name in NAME_FILES if (root / name).is_file()), None)
    names = [line.strip() for line in _read_text(file).splitlines() if line.strip()] if file else []
    if len(names) > MAX_CLASSES:
        raise DataError(f"{file}: {len(names)} classes; a mask can tell {MAX_CLASSES} apart.")
    return tuple(names)


def _read_colors(root: Path) -> tuple[tuple[str, ...], tuple[tuple[Color, int], ...]] | None:
    """Names and colours of the classes, or None without a file of them."""
    file = next((root / name for name in COLOR_FILES if (root / name).is_file()), None)
    if file is None:
        return None
    names: list[str] = []
    colors: dict[Color, int] = {}
    for number, line in enumerate(_read_text(file).splitlines(), 1):
        if (
            not line.strip()
            or line.startswith("#")
            or (number == 1 and line.lower().replace(" ", "").endswith("r,g,b"))
        ):
            continue
        name, color = _color_line(line, f"{file}:{number}")
        if color in colors or (name in names and name.lower() not in VOID_NAMES):
            raise DataError(f"{file}:{number}: the name {name!r} or the colour {color} is listed twice.")
        colors[color] = VOID if name.lower() in VOID_NAMES else len(names)
        if name.lower() not in VOID_NAMES:
            names.append(name)
    if not names or len(names) > MAX_CLASSES:
        raise DataError(f"{file}: {len(names)} classes; expected 1 to {MAX_CLASSES}.")
    return tuple(names), tuple(colors.items())


def _color_line(line: str, where: str) -> tuple[str, Color]:
    """Reads `name,r,g,b`, `r g b name` or CVAT's `name:r,g,b::`."""
    first = re.fullmatch(r"\s*(\d{1,3})\s+(\d{1,3})\s+(\d{1,3})\s+(\S.*?)\s*", line, re.ASCII)
    colon = re.fullmatch(r"\s*([^:]+):(\d{1,3}),(\d{1,3}),(\d{1,3}):.*", line, re.ASCII)
    if first:
        name, channels = first[4], (first[1], first[2], first[3])
    elif colon:
        name, channels = colon[1], (colon[2], colon[3], colon[4])
    else:
        try:
            cells = [cell.strip() for cell in next(csv.reader([line], strict=True))]
        except csv.Error:
            cells = []
        if len(cells) != 4 or not cells[0] or not all(re.fullmatch("[0-9]{1,3}", cell) for cell in cells[1:]):
            raise DataError(f"{where}: expected name,r,g,b or r g b name, got {line[:60]!r}.")
        name, channels = cells[0], (cells[1], cells[2], cells[3])
    red, green, blue = (int(channel) for channel in channels)
    if max(red, green, blue) > 255:
        raise DataError(f"{where}: a colour of {red}, {green}, {blue}; expected numbers 0..255.")
    return name.strip(), (red, green, blue)
