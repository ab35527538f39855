"""What a source lists before anything is checked, and the rules that thin it out and check it."""

import dataclasses
import re
from collections import Counter
from collections.abc import Callable, Iterable, Sequence
from typing import Literal

import numpy as np

from kerasvision.data.inspect import BadFile, ImageInfo
from kerasvision.data.mask_files import MaskFile
from kerasvision.data.objects import Objects
from kerasvision.errors import DataError

SHOWN = 20


@dataclasses.dataclass(frozen=True, slots=True)
class Item:
    """One labelled image of a source.

    Args:
        image: absolute path, or uint8 pixels [H, W] or [H, W, C].
        labels: names of its classes; exactly one unless the set is multi-label. None in other kinds of sets.
        key: name that does not depend on where the set lies; it decides the split.
        origin: the list and line that named it, e.g. "labels.csv:12", or "".
        group: items of one group belong into one split; None where it stands alone.
        size: (H, W) the source states, of the upright image; None where it states none.
        objects: boxes and what belongs to them.
        segmentation: mask of classes, a file or int [H, W].
    """

    image: str | np.ndarray
    labels: tuple[str, ...]
    key: str
    origin: str = ""
    group: str | None = None
    size: tuple[int, int] | None = None
    objects: Objects | None = None
    segmentation: MaskFile | np.ndarray | None = None


@dataclasses.dataclass
class Listing:
    """All items of a source.

    Args:
        splits: "train", "validation", "test" -> items; a split the source does not define is absent.
        labels: class names in the order of their indices.
        multi_label: an image may carry any number of labels.
        divide: whether missing validation and test splits may be taken out of "train".
        kind: what every item has beside its image.
        keypoint_names: names of the K keypoints of each object.
        problems: entries that cannot be used, and have been left out.
        infos: image -> how to decode it, of images that were read to their end before; nothing of them is read again.
        locate: turns origins that count entries ("train.json:images:17") into ones that name lines.
    """

    splits: dict[str, list[Item]]
    labels: tuple[str, ...]
    multi_label: bool = False
    divide: bool = True
    kind: Literal["labels", "objects", "segmentation"] = "labels"
    keypoint_names: tuple[str, ...] = ()
    problems: list[BadFile] = dataclasses.field(default_factory=list)
    infos: dict[str, ImageInfo] = dataclasses.field(default_factory=dict)
    locate: Callable[[Sequence[str]], list[str]] | None = None


def sorted_labels(items: Iterable[Item]) -> tuple[str, ...]:
    """Class names in order: by number where all are whole numbers, else by name."""
    names = {label for item in items for label in item.labels}
    if all(name.isdecimal() for name in names):
        return tuple(sorted(names, key=lambda name: (int(name), name)))
    return tuple(sorted(names))


def in_natural_order(text: str) -> tuple[list[int | str], str]:
    """Key for sorting that takes runs of digits as numbers: "frame9" before "frame10"."""
    return [int(part) if part.isdecimal() else part for part in re.split(r"(\d+)", text)], text


def bullet_list(lines: Sequence[object]) -> str:
    """The first lines, one under the other, and how many were left out."""
    shown = [f"  {line}" for line in lines[:SHOWN]]
    if len(lines) > SHOWN:
        shown.append(f"  ... and {len(lines) - SHOWN} more")
    return "\n".join(shown)


def spread(count: int, limit: int | None) -> list[int]:
    """At most `limit` indices spread evenly over `count`, so that a list sorted by class keeps its mixture."""
    if limit is None or limit >= count:
        return list(range(count))
    if limit < 1:
        raise DataError(f"limit must be at least 1, got {limit}.")
    return [int(index) for index in (np.arange(limit) * count) // limit]


def check_classes(listing: Listing, source: str) -> None:
    """Refuses a listing nothing can be learned from.

    Raises:
        DataError: no images, two classes of one name, or, where images are to be told apart by class, a single class
            or a class without training images.
    """
    if not any(listing.splits.values()):
        raise DataError(f"No images in {source}.")
    twice = [label for label, count in Counter(listing.labels).items() if count > 1]
    if twice:
        raise DataError(f"{source} has several classes of one name: {', '.join(twice)}. Expected names that differ.")
    if listing.kind != "labels":
        return
    if len(listing.labels) < 2 and not listing.multi_label:
        raise DataError(
            f"{source} has a single class ({', '.join(listing.labels)}); classification needs two or more. "
            "Expected one folder (or one label) for each class."
        )
    if "train" in listing.splits:
        found = {label for item in listing.splits["train"] for label in item.labels}
        missing = [label for label in listing.labels if label not in found]
        if missing:
            raise DataError(
                f"{len(missing)} of {len(listing.labels)} classes of {source} have no training images:\n"
                f"{bullet_list(missing)}\nAdd images to them or remove the classes."
            )


def check_splits(listing: Listing, source: str) -> None:
    """Refuses empty splits.

    Raises:
        DataError: a split has no images.
    """
    for name, split in listing.splits.items():
        if not split:
            raise DataError(f"The {name} split of {source} has no usable images: add some or remove the split.")
