"""Sets of tensorflow-datasets, decoded into memory."""

import importlib.util
from typing import Any

import numpy as np

from kerasvision.data.inspect import BadFile
from kerasvision.data.listing import Item, Listing
from kerasvision.data.mask_files import VOID
from kerasvision.data.objects import Objects, box_problem
from kerasvision.errors import DataError
from kerasvision.progress import track

MAX_BYTES = 4 << 30


def load_tfds(name: str, limit: int | None = None, *, segmentation: bool = False) -> Listing:
    """A set of tensorflow-datasets with a label for each image, objects, or a segmentation.

    Args:
        name: the set's name there, e.g. "beans", "voc/2007" or "mnist:3.*.*".
        limit: at most so many images of each split.
        segmentation: take the feature "segmentation_mask" where the set has labels or objects, too.

    Raises:
        ImportError: tensorflow-datasets is missing.
        DataError: the set cannot be loaded, has none of these features, or is too large for memory.
    """
    if importlib.util.find_spec("tensorflow_datasets") is None:
        raise ImportError(f'tfds:{name} needs tensorflow-datasets: pip install "kerasvision[datasets]".')
    import tensorflow_datasets as tfds

    try:
        sets, info = tfds.load(name, with_info=True, shuffle_files=False)
    # An unknown name, a failed download and a checksum error each have a class of their own in there.
    except Exception as error:
        # For an unknown name the first line says so; a list of every set there is follows.
        raise DataError(f"tensorflow-datasets cannot load {name!r}: {str(error).partition(chr(10))[0]}") from error
    features = dict(info.features or {})
    listing = _empty_listing(name, features, segmentation)
    size = 0
    for split, dataset in sets.items():
        if split not in ("train", "validation", "test"):
            continue
        count = info.splits[split].num_examples
        dataset = dataset if limit is None else dataset.take(limit)
        total = count if limit is None else min(count, limit)
        items = listing.splits.setdefault(split, [])
        for index, example in enumerate(track(dataset.as_numpy_iterator(), f"Reading {name} {split}", total=total)):
            mask = example["segmentation_mask"].nbytes if listing.kind == "segmentation" else 0
            size += example["image"].nbytes + mask
            if size > MAX_BYTES:
                raise DataError(f"tfds:{name} needs more than {MAX_BYTES >> 30} GiB in memory: give a limit.")
            try:
                items.append(_item(example, listing, f"{split}/{index}"))
            except DataError as error:
                listing.problems.append(BadFile(f"tfds:{name} {split}/{index}", str(error)))
    if listing.kind == "segmentation" and not listing.labels:
        masks = [np.asarray(item.segmentation) for items in listing.splits.values() for item in items]
        highest = max((int(mask[mask != VOID].max(initial=0)) for mask in masks), default=-1)
        listing.labels = tuple(str(index) for index in range(highest + 1))
    return listing


def _empty_listing(name: str, features: dict[str, Any], segmentation: bool) -> Listing:
    """What kind of set the features make, and its labels."""
    labels = _names(features.get("label"))
    objects = dict(getattr(features.get("objects"), "feature", None) or {})
    classes = _names(objects["label"]) if "label" in objects and "bbox" in objects else ()
    if "image" in features:
        if "segmentation_mask" in features and (segmentation or not (labels or classes)):
            return Listing({}, _names(features["segmentation_mask"]), kind="segmentation")
        if labels and not segmentation:
            return Listing({}, labels)
        if classes and not segmentation:
            return Listing({}, classes, kind="objects")
    expected = "segmentation_mask" if segmentation else "a class label, objects (bbox, label) or segmentation_mask"
    raise DataError(f"tfds:{name} has the features {', '.join(sorted(features))}; expected image and {expected}.")


def _names(feature: Any) -> tuple[str, ...]:
    return tuple(getattr(feature, "names", None) or ())


def _item(example: dict[str, Any], listing: Listing, key: str) -> Item:
    image = example["image"]
    if listing.kind == "segmentation":
        mask = np.asarray(example["segmentation_mask"])
        mask = mask[..., 0] if mask.ndim == 3 else mask
        if mask.shape != image.shape[:2] or mask.min(initial=0) < 0 or mask.max(initial=0) > VOID:
            shape, low, high = list(mask.shape), mask.min(initial=0), mask.max(initial=0)
            raise DataError(f"the mask is {shape} with values {low} to {high}; expected the image's [H, W], 0..{VOID}")
        return Item(image, (), key, segmentation=mask.astype(np.uint8))
    if listing.kind == "objects":
        return Item(image, (), key, objects=_objects(example["objects"], key))
    return Item(image, (listing.labels[example["label"]],), key)


def _objects(objects: dict[str, np.ndarray], key: str) -> Objects:
    """Objects from boxes (top, left, bottom, right) in shares of the image, as tensorflow-datasets has them."""
    boxes = np.asarray(objects["bbox"], np.float64).reshape(-1, 4)[:, [1, 0, 3, 2]]
    for box in boxes:
        if reason := box_problem(box):
            raise DataError(reason)
    difficult = objects.get("is_difficult")
    return Objects(
        boxes=boxes,
        classes=np.asarray(objects["label"], np.int32).reshape(-1),
        crowd=np.asarray(objects.get("is_crowd", np.zeros(len(boxes))), bool).reshape(-1),
        difficult=None if difficult is None else np.asarray(difficult, bool).reshape(-1),
        relative=True,
        file=key,
    )
