"""Reads every file of a listing to its end, and fits objects and masks to the images they belong to."""

import dataclasses
import os
import warnings
from collections.abc import Callable, Iterable, Sequence
from concurrent.futures import ThreadPoolExecutor
from typing import TypeVar

import numpy as np
from PIL import Image

from kerasvision.data.inspect import BadFile, ImageInfo, inspect_file
from kerasvision.data.listing import Item, Listing, bullet_list
from kerasvision.data.mask_files import (
    MaskCoding,
    MaskFile,
    MaskInfo,
    inspect_mask,
    mask_problem,
    settle_coding,
)
from kerasvision.errors import DataError
from kerasvision.progress import track

_Key = TypeVar("_Key", str, MaskFile)
_Result = TypeVar("_Result")


def check_entries(listing: Listing, source: str, on_bad_files: str) -> None:
    """Refuses a listing some entries of which cannot be used.

    Raises:
        DataError: there are some, and `on_bad_files` is "stop" or nothing is left; the message lists them.
    """
    if listing.problems and (on_bad_files == "stop" or not any(listing.splits.values())):
        raise DataError(
            f"{len(listing.problems)} entries of {source} cannot be used:\n"
            f"{bullet_list(_located(listing, listing.problems))}\n"
            "Fix or remove them, or leave their images out with on_bad_files='skip' (--skip-bad-files)."
        )


def verify(listing: Listing, on_bad_files: str) -> tuple[dict[str, ImageInfo], list[BadFile]]:
    """Reads every image and mask file of a listing to its end.

    Args:
        listing: bad items are taken out of it in place; boxes are clipped to their images.
        on_bad_files: "stop" raises where a file or an object is bad, "skip" goes on without its image.

    Returns:
        path -> how to decode it, and what was skipped.

    Raises:
        DataError: something is bad and `on_bad_files` is "stop"; the message lists it.
    """
    items = [item for split in listing.splits.values() for item in split if not _known(item, listing)]
    images = _inspect_all(inspect_file, {item.image for item in items if isinstance(item.image, str)}, "images")
    infos = {path: found for path, found in images.items() if isinstance(found, ImageInfo)}
    _warn_misnamed(infos)
    masks = _read_masks(listing, items)
    bad: dict[str, BadFile] = {}
    for name, split in listing.splits.items():
        kept = []
        for item in split:
            if _known(item, listing):
                kept.append(item)
                continue
            found = images[item.image] if isinstance(item.image, str) else None
            if isinstance(found, BadFile):
                bad[found.path] = dataclasses.replace(found, origin=item.origin)
                continue
            checked = _fit(item, found, masks, listing)
            if isinstance(checked, BadFile):
                bad[checked.path] = checked
            else:
                kept.append(checked)
        listing.splits[name] = kept
    skipped = _located(listing, [bad[path] for path in sorted(bad)])
    if skipped and on_bad_files == "stop":
        raise DataError(
            f"{len(skipped)} of {len(images)} image files cannot be used:\n{bullet_list(skipped)}\n"
            "Fix or remove them, or leave them out with on_bad_files='skip' (--skip-bad-files)."
        )
    return listing.infos | infos, _located(listing, listing.problems) + skipped


def _known(item: Item, listing: Listing) -> bool:
    return isinstance(item.image, str) and item.image in listing.infos


def _inspect_all(inspect: Callable[[_Key], _Result], keys: Iterable[_Key], what: str) -> dict[_Key, _Result]:
    ordered = sorted(keys, key=str)
    with warnings.catch_warnings(), ThreadPoolExecutor(max_workers=os.cpu_count()) as pool:
        # The limit on pixels is ours and is enforced; Pillow's warning about large images would only repeat it.
        warnings.simplefilter("ignore", Image.DecompressionBombWarning)
        results = track(pool.map(inspect, ordered), f"Checking {what}", total=len(ordered))
        return dict(zip(ordered, results, strict=True))


@dataclasses.dataclass(frozen=True)
class _Masks:
    found: dict[MaskFile, MaskInfo | BadFile]
    coding: MaskCoding


def _read_masks(listing: Listing, items: Sequence[Item]) -> _Masks:
    """Reads the mask files, and lets them say what their values mean where nothing else does."""
    files = {item.segmentation for item in items if isinstance(item.segmentation, MaskFile)}
    found = _inspect_all(inspect_mask, files, "masks")
    coding = next((mask.coding for mask in files), MaskCoding())
    if files:
        sound = [info for info in found.values() if isinstance(info, MaskInfo)]
        coding, listing.labels = settle_coding(coding, sound, listing.labels)
    return _Masks(found, coding)


def _fit(item: Item, info: ImageInfo | None, masks: _Masks, listing: Listing) -> Item | BadFile:
    """The item as its image has it, or why the two do not belong together."""
    size = info.upright_size if info else np.shape(item.image)[:2]
    name = item.image if isinstance(item.image, str) else item.key
    if item.size and item.size != size:
        turned = f" (upright: EXIF orientation {info.orientation})" if info and info.orientation > 1 else ""
        reason = f"has {size[1]} x {size[0]} pixels{turned}, but is listed with {item.size[1]} x {item.size[0]}"
        return BadFile(name, reason, item.origin)
    if item.objects:
        objects = item.objects.scaled(size)
        problem = objects.problem(size)
        if problem:
            return BadFile(name, problem[1], objects.origin(problem[0]))
        return dataclasses.replace(item, objects=objects.clipped(size))
    if isinstance(item.segmentation, MaskFile):
        found = masks.found[item.segmentation]
        if isinstance(found, BadFile):
            return dataclasses.replace(found, origin=item.origin)
        reason = mask_problem(found, masks.coding, len(listing.labels), size)
        if reason:
            return BadFile(item.segmentation.path, reason, item.origin)
        return dataclasses.replace(item, segmentation=MaskFile(item.segmentation.path, masks.coding))
    return item


def _located(listing: Listing, bad: Sequence[BadFile]) -> list[BadFile]:
    if not listing.locate or not bad:
        return list(bad)
    origins = listing.locate([file.origin for file in bad])
    return [dataclasses.replace(file, origin=origin) for file, origin in zip(bad, origins, strict=True)]


def _warn_misnamed(infos: dict[str, ImageInfo]) -> None:
    misnamed = [f"{path}: is {info.format}" for path, info in infos.items() if info.misnamed]
    if misnamed:
        warnings.warn(
            f"{len(misnamed)} image files have a suffix of another format (they are read by their content):\n"
            + bullet_list(misnamed),
            stacklevel=4,
        )
