"""Pascal VOC: a folder of XML files with boxes, and of masks in VOC's palette (Everingham et al., 2010)."""

import dataclasses
from collections.abc import Iterable
from pathlib import Path

import numpy as np

from kerasvision.data.inspect import BadFile
from kerasvision.data.listing import Item, Listing
from kerasvision.data.mask_files import VOID, MaskCoding, MaskFile
from kerasvision.data.objects import box_problem, sound_boxes
from kerasvision.data.paths import SPLIT_ORDER, inside, is_image
from kerasvision.data.voc_xml import AnnotationReader, VocError
from kerasvision.errors import DataError

ANNOTATIONS, IMAGES, MASKS, SETS = "Annotations", "JPEGImages", "SegmentationClass", "ImageSets"
CLASSES = (
    "background",
    "aeroplane",
    "bicycle",
    "bird",
    "boat",
    "bottle",
    "bus",
    "car",
    "cat",
    "chair",
    "cow",
    "diningtable",
    "dog",
    "horse",
    "motorbike",
    "person",
    "pottedplant",
    "sheep",
    "sofa",
    "train",
    "tvmonitor",
)


def is_voc_folder(root: Path) -> bool:
    """Whether a folder holds Annotations/ with .xml files."""
    folder = root / ANNOTATIONS
    return folder.is_dir() and any(file.suffix.lower() == ".xml" for file in folder.iterdir())


def is_voc_mask_folder(root: Path) -> bool:
    """Whether a folder holds JPEGImages/ and SegmentationClass/."""
    return (root / IMAGES).is_dir() and (root / MASKS).is_dir()


def load_voc(root: Path) -> Listing:
    """Lists a folder with Annotations/, JPEGImages/ and, if there are splits, ImageSets/Main/.

    VOC counts pixels from 1 and includes the last: xmin, ymin, xmax, ymax become xmin - 1, ymin - 1, xmax, ymax.
    Objects marked difficult stay; where a set marks any, every example says which ("difficult").

    Args:
        root: the folder.

    Returns:
        The images in the order of the splits' lists; classes by name.

    Raises:
        DataError: no such folders, or no annotations in them.
    """
    if not is_voc_folder(root):
        raise DataError(f"{root / ANNOTATIONS} holds no .xml files. Expected one for each image.")
    known = {file.stem: file for file in sorted((root / ANNOTATIONS).iterdir()) if file.suffix.lower() == ".xml"}
    listing = Listing({}, (), kind="objects")
    splits = _read_sets(root, "Main", listing.problems) or {"train": [(stem, "") for stem in known]}
    images = _images(root)
    reader = AnnotationReader()
    found: list[tuple[str, str, Path, str, tuple[int, int] | None, slice]] = []
    for split, names in splits.items():
        listing.splits[split] = []
        for stem, where in names:
            file = known.get(stem)
            if file is None:
                listing.problems.append(BadFile(f"{root / ANNOTATIONS / stem}.xml", "file not found", where))
                continue
            try:
                size, name, part = reader.read(file)
                found.append((split, stem, file, images.get(stem) or _named_image(root, file, name), size, part))
            except VocError as error:
                listing.problems.append(BadFile(str(file), error.reason, f"{file}:{error.line}"))
    every = reader.finish()
    sound = sound_boxes(every.boxes)
    with np.errstate(over="ignore"):
        every = dataclasses.replace(every, boxes=every.boxes.astype(np.float32))
    for split, stem, file, image, size, part in found:
        objects = every.part(part, str(file))
        if sound[part].all():
            listing.splits[split].append(Item(image, (), f"{IMAGES}/{stem}", str(file), size=size, objects=objects))
        else:
            first = int(np.argmin(sound[part]))
            listing.problems.append(BadFile(str(file), box_problem(objects.boxes[first]), objects.origin(first)))
    listing.labels = tuple(sorted(reader.classes))
    return listing


def _images(root: Path) -> dict[str, str]:
    """stem -> path of each file in JPEGImages/; one listing instead of a question for each image."""
    folder = root / IMAGES
    files = sorted(folder.iterdir()) if folder.is_dir() else []
    return {file.stem: str(file) for file in files if is_image(file.name)}


def _named_image(root: Path, file: Path, name: str) -> str:
    path = inside(root / IMAGES, name or f"{file.stem}.jpg", root)
    if path is None:
        raise VocError(f"the path {name!r} leads out of the data folder {root}")
    return path


def _read_sets(root: Path, kind: str, problems: list[BadFile]) -> dict[str, list[tuple[str, str]]]:
    """split -> (name of an image, where it is listed), from ImageSets/KIND; {} without such lists."""
    folder = root / SETS / kind
    lists = {name: folder / f"{name}.txt" for name in ("train", "val", "test", "trainval")}
    found = {name: _read_list(file) for name, file in lists.items() if file.is_file()}
    both = found.pop("trainval", None)
    if both and "train" not in found:
        held = {stem for stem, _ in found.get("val", ())}
        found["train"] = [entry for entry in both if entry[0] not in held]
    elif both and "val" not in found:
        held = {stem for stem, _ in found["train"]}
        found["val"] = [entry for entry in both if entry[0] not in held]
    seen: dict[str, str] = {}
    splits: dict[str, list[tuple[str, str]]] = {}
    for name, split in zip(("train", "val", "test"), SPLIT_ORDER, strict=True):
        for stem, where in found.get(name, ()):
            if stem in seen:
                problems.append(BadFile(stem, f"listed before, in {seen[stem]}", where))
            elif "/" in stem or "\\" in stem:
                problems.append(BadFile(stem, "expected the name of an image without folders", where))
            else:
                splits.setdefault(split, []).append((stem, where))
            seen.setdefault(stem, where)
    return splits


def _read_list(file: Path) -> list[tuple[str, str]]:
    try:
        lines = file.read_bytes().decode("utf-8-sig").splitlines()
    except UnicodeDecodeError as error:
        line = error.object[: error.start].count(b"\n") + 1
        raise DataError(f"{file}:{line}: not UTF-8 text. Expected the name of an image in each line.") from error
    return [(line.split()[0], f"{file}:{number}") for number, line in enumerate(lines, 1) if line.split()]


def load_voc_masks(root: Path) -> Listing:
    """Lists the segmentation set of a VOC folder: JPEGImages/ and SegmentationClass/ in VOC's palette.

    Args:
        root: the folder; ImageSets/Segmentation/ gives the splits.

    Returns:
        The images; labels are VOC's 21 classes, or those of root/labels.txt.

    Raises:
        DataError: no such folders.
    """
    if not is_voc_mask_folder(root):
        raise DataError(f"{root}: expected {IMAGES}/ and {MASKS}/.")
    listing = Listing({}, _mask_labels(root), kind="segmentation")
    files = {file.stem: file for file in sorted((root / MASKS).iterdir()) if file.suffix.lower() == ".png"}
    images = _images(root)
    splits = _read_sets(root, "Segmentation", listing.problems) or {"train": [(stem, "") for stem in files]}
    # Palette files hold indices, and some tools turn them into colours: the palette reads both.
    coding = MaskCoding(colors=palette(len(listing.labels)))
    for split, names in splits.items():
        items = listing.splits.setdefault(split, [])
        for stem, where in names:
            image = images.get(stem, f"{root / IMAGES / stem}.jpg")
            mask = MaskFile(str(files.get(stem, f"{root / MASKS / stem}.png")), coding)
            items.append(Item(image, (), f"{IMAGES}/{stem}", where, segmentation=mask))
    return listing


def _mask_labels(root: Path) -> tuple[str, ...]:
    file = root / "labels.txt"
    names: Iterable[str] = file.read_text(encoding="utf-8-sig").splitlines() if file.is_file() else CLASSES
    return tuple(name.strip() for name in names if name.strip())


def palette(classes: int) -> tuple[tuple[tuple[int, int, int], int], ...]:
    """VOC's colours: bits 0, 3, 6 of a class index are the high bits of red, 1, 4, 7 of green, 2, 5 of blue.

    Args:
        classes: number of classes.

    Returns:
        (red, green, blue), class; the last is void's (224, 224, 192).
    """
    colors = []
    for index in [*range(classes), VOID]:
        channels = [sum(((index >> (3 * bit + channel)) & 1) << (7 - bit) for bit in range(3)) for channel in range(3)]
        colors.append(((channels[0], channels[1], channels[2]), index))
    return tuple(colors)
