"""What a source lists before anything is checked, and the rules that split, thin out and verify it."""

import dataclasses
import hashlib
import os
import warnings
from collections import defaultdict
from collections.abc import Iterable, Sequence
from concurrent.futures import ThreadPoolExecutor

import numpy as np
from PIL import Image

from kerasvision.data.inspect import BadFile, ImageInfo, inspect_file
from kerasvision.errors import DataError
from kerasvision.progress import track

SHOWN = 20


@dataclasses.dataclass(frozen=True)
class Item:
    """One labelled image of a source.

    Args:
        image: absolute path, or uint8 pixels [H, W] or [H, W, C].
        labels: names of its classes; exactly one unless the set is multi-label.
        key: name that does not depend on where the set lies; it decides the split.
        origin: the list and line that named it, e.g. "labels.csv:12", or "".
    """

    image: str | np.ndarray
    labels: tuple[str, ...]
    key: str
    origin: str = ""


@dataclasses.dataclass
class Listing:
    """All items of a source.

    Args:
        splits: "train", "validation", "test" -> items; a split the source does not define is absent.
        labels: class names in the order of their indices.
        multi_label: an image may carry any number of labels.
        divide: whether missing validation and test splits may be taken out of "train".
    """

    splits: dict[str, list[Item]]
    labels: tuple[str, ...]
    multi_label: bool = False
    divide: bool = True


def sorted_labels(items: Iterable[Item]) -> tuple[str, ...]:
    """Class names in order: by number where all are whole numbers, else by name."""
    names = {label for item in items for label in item.labels}
    if all(name.isdecimal() for name in names):
        return tuple(sorted(names, key=lambda name: (int(name), name)))
    return tuple(sorted(names))


def bullet_list(lines: Sequence[object]) -> str:
    """The first lines, one under the other, and how many were left out."""
    shown = [f"  {line}" for line in lines[:SHOWN]]
    if len(lines) > SHOWN:
        shown.append(f"  ... and {len(lines) - SHOWN} more")
    return "\n".join(shown)


def divide(listing: Listing, validation_fraction: float, test_fraction: float, seed: int) -> None:
    """Takes missing validation and test splits out of "train", class by class.

    An item's place follows from a hash of seed and key, so it depends neither on the order of the files nor on the
    machine, and adding files moves few others. Every class with enough images gives at least one to each split.

    Args:
        listing: changed in place.
        validation_fraction: share of each class, 0..1.
        test_fraction: share of each class, 0..1.
        seed: another seed, another division.

    Raises:
        DataError: the fractions are impossible, or leave a split empty.
    """
    if not (0 <= validation_fraction <= 1 and 0 <= test_fraction <= 1 and validation_fraction + test_fraction <= 1):
        raise DataError(
            "validation_fraction and test_fraction must lie in 0..1 and sum to at most 1, "
            f"got {validation_fraction} and {test_fraction}."
        )
    wanted = {"test": test_fraction, "validation": validation_fraction}
    wanted = {name: share for name, share in wanted.items() if share > 0 and name not in listing.splits}
    if not listing.divide or not wanted or not listing.splits.get("train"):
        return
    groups: dict[tuple[str, ...], list[Item]] = defaultdict(list)
    for item in listing.splits["train"]:
        # Label sets are mostly unique in a multi-label set: one group keeps the shares right.
        groups[() if listing.multi_label else item.labels].append(item)
    reserve = int(sum(wanted.values()) < 1)  # images of each class that stay in "train" in any case
    taken: dict[str, set[str]] = {name: set() for name in wanted}
    for group in groups.values():
        ranked = sorted(group, key=lambda item: _rank(seed, item.key))
        start = 0
        for name, share in wanted.items():
            count = max(min(max(round(len(group) * share), 1), len(group) - start - reserve), 0)
            taken[name].update(item.key for item in ranked[start : start + count])
            start += count
    total = len(listing.splits["train"])
    for name, keys in taken.items():
        if not keys:
            raise DataError(
                f"The {name} split would be empty: no class has more than one image ({total} images). "
                f"Add images, name a {name} folder, or set {name}_fraction=0."
            )
        listing.splits[name] = [item for item in listing.splits["train"] if item.key in keys]
    gone = set().union(*taken.values())
    rest = [item for item in listing.splits["train"] if item.key not in gone]
    listing.splits.pop("train")
    if rest:
        listing.splits = {"train": rest, **listing.splits}


def _rank(seed: int, key: str) -> bytes:
    return hashlib.blake2b(f"{seed}:{key}".encode(), digest_size=8).digest()


def spread(count: int, limit: int | None) -> list[int]:
    """At most `limit` indices spread evenly over `count`, so that a list sorted by class keeps its mixture."""
    if limit is None or limit >= count:
        return list(range(count))
    if limit < 1:
        raise DataError(f"limit must be at least 1, got {limit}.")
    return [int(index) for index in (np.arange(limit) * count) // limit]


def verify(listing: Listing, on_bad_files: str) -> tuple[dict[str, ImageInfo], list[BadFile]]:
    """Reads every image file of a listing to its end.

    Args:
        listing: bad items are taken out of it in place.
        on_bad_files: "stop" raises where a file is bad, "skip" goes on without it.

    Returns:
        path -> how to decode it, and the files that were skipped.

    Raises:
        DataError: files are bad and `on_bad_files` is "stop"; the message lists them.
    """
    items = {item.image: item for split in listing.splits.values() for item in split if isinstance(item.image, str)}
    paths = sorted(items)
    with warnings.catch_warnings(), ThreadPoolExecutor(max_workers=os.cpu_count()) as pool:
        # The limit on pixels is ours and is enforced; Pillow's warning about large images would only repeat it.
        warnings.simplefilter("ignore", Image.DecompressionBombWarning)
        results = list(track(pool.map(inspect_file, paths), "Checking images", total=len(paths)))
    infos = {path: result for path, result in zip(paths, results, strict=True) if isinstance(result, ImageInfo)}
    bad = [
        dataclasses.replace(result, origin=items[result.path].origin)
        for result in results
        if isinstance(result, BadFile)
    ]
    _warn_misnamed(infos)
    if bad and on_bad_files == "stop":
        raise DataError(
            f"{len(bad)} of {len(paths)} image files cannot be used:\n{bullet_list(bad)}\n"
            "Fix or remove them, or leave them out with on_bad_files='skip' (--skip-bad-files)."
        )
    gone = {file.path for file in bad}
    for name, split in listing.splits.items():
        listing.splits[name] = [item for item in split if not (isinstance(item.image, str) and item.image in gone)]
    return infos, bad


def _warn_misnamed(infos: dict[str, ImageInfo]) -> None:
    misnamed = [f"{path}: is {info.format}" for path, info in infos.items() if info.misnamed]
    if misnamed:
        warnings.warn(
            f"{len(misnamed)} image files have a suffix of another format (they are read by their content):\n"
            + bullet_list(misnamed),
            stacklevel=4,
        )


def check_classes(listing: Listing, source: str) -> None:
    """Refuses a listing nothing can be learned from.

    Raises:
        DataError: no images, a single class, or a class without training images.
    """
    if not any(listing.splits.values()):
        raise DataError(f"No images in {source}.")
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
