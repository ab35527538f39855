"""NumPy arrays as a source: handed over in Python, or kept in an .npz file."""

import dataclasses
import zipfile
import zlib
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import numpy as np

from kerasvision.data.dataset import Data
from kerasvision.data.decode import as_pixels
from kerasvision.data.listing import Item, Listing
from kerasvision.data.mask_files import VOID
from kerasvision.data.objects import Objects, box_problem
from kerasvision.data.preparation import prepare
from kerasvision.data.splits import Division, SplitRule
from kerasvision.errors import DataError
from kerasvision.masks import encode_mask

# Names of (images, labels) in an .npz file: Keras's, MedMNIST's, and plain ones.
_SPLITS = {
    "train": (("x_train", "y_train"), ("train_images", "train_labels"), ("images", "labels"), ("x", "y")),
    "validation": (("x_val", "y_val"), ("x_validation", "y_validation"), ("val_images", "val_labels")),
    "test": (("x_test", "y_test"), ("test_images", "test_labels")),
}
_NAMES = ("names", "class_names", "label_names")
_MASKS = "segmentation"


def load_arrays(
    images: np.ndarray | Sequence[np.ndarray],
    labels: np.ndarray | Sequence[Any] | None = None,
    *,
    boxes: Sequence[np.ndarray] | None = None,
    classes: Sequence[np.ndarray] | None = None,
    crowd: Sequence[np.ndarray] | None = None,
    masks: Sequence[Any] | None = None,
    keypoints: Sequence[np.ndarray] | None = None,
    segmentation: np.ndarray | Sequence[np.ndarray] | None = None,
    names: Sequence[str] | None = None,
    keypoint_names: Sequence[str] = (),
    groups: Sequence[str] | None = None,
    validation_fraction: float = 0.1,
    test_fraction: float = 0.0,
    seed: int = 0,
    split: SplitRule = "stratified",
) -> Data:
    """Makes a set of arrays, as `load_data` does of files.

    Images have labels, or boxes, or a segmentation; boxes and a segmentation may stand together.

    Args:
        images: N images of 0..255, [H, W], [H, W, 1], [H, W, 3] or [H, W, 4]; an array, or a list of any sizes.
        labels: [N] class indices or names; or [N, K] of zeros and ones, which makes a multi-label set.
        boxes: for each image [M, 4] xyxy in pixels, (0, 0) the top left corner of the image.
        classes: of the boxes, [M] class indices for each image.
        crowd: of the boxes, bool [M] for each image; none where left out.
        masks: of the boxes, for each image [M, H, W] of zeros and ones, or M COCO segmentations.
        keypoints: of the boxes, [M, P, 3] of (x, y, visibility 0, 1 or 2) for each image.
        segmentation: class indices [H, W] for each image, 255 for void.
        names: of the classes, in the order of their indices; their numbers, or the sorted labels, when None.
        keypoint_names: names of the P keypoints.
        groups: names of N groups, none of which is divided.
        validation_fraction: as for `load_data`.
        test_fraction: as for `load_data`.
        seed: as for `load_data`.
        split: as for `load_data`.

    Returns:
        The set.

    Raises:
        DataError: lengths or shapes do not fit, or values are outside their range.
    """
    listing = array_listing({"train": (images, labels)}, names, segmentation)
    items = listing.splits["train"]
    for name, values in (("boxes", boxes), ("groups", groups)):
        if values is not None and len(values) != len(items):
            raise DataError(f"Expected {len(items)} {name}, one for each image, got {len(values)}.")
    if groups is not None:
        items = [dataclasses.replace(item, group=str(group)) for item, group in zip(items, groups, strict=True)]
    parts = {"classes": classes, "crowd": crowd, "masks": masks, "keypoints": keypoints}
    if boxes is None and any(values is not None for values in parts.values()):
        raise DataError(f"{', '.join(name for name, values in parts.items() if values is not None)} belong to boxes.")
    if boxes is not None:
        if labels is not None:
            raise DataError("Expected labels or boxes, got both; classes= are those of boxes.")
        items = _with_objects(items, boxes, parts)
        listing.kind = "objects"
        listing.keypoint_names = tuple(keypoint_names)
        found = max((int(item.objects.classes.max(initial=-1)) for item in items if item.objects), default=-1)
        count = max(found + 1, len(listing.labels))
        listing.labels = _names(names, count, "classes")
    listing.splits["train"] = items
    division = Division(validation_fraction, test_fraction, seed, split)
    return prepare(listing, "arrays", division)


def load_npz(file: Path) -> Listing:
    """Lists an .npz file of images and labels.

    Known are images and labels; x_train, y_train, x_test, y_test (and x_val, y_val), as Keras names them; and
    train_images, train_labels, val_images ... as MedMNIST does. In place of labels, "segmentation" may hold a mask for
    each of the training images. Class names may stand in "names".

    Args:
        file: from `storage.as_path`.

    Returns:
        The items; a split the file does not have is absent.

    Raises:
        DataError: the file is damaged, holds Python objects, or no such arrays.
    """
    try:
        with file.open("rb") as stream, np.load(stream, allow_pickle=False) as archive:
            arrays = {name: archive[name] for name in archive.files}
    # Damage shows wherever the reader stumbles; a false shape asks for more memory than there is.
    except (OSError, ValueError, EOFError, KeyError, AttributeError, MemoryError) as error:
        raise DataError(f"Cannot read {file}: {error}. Expected arrays saved by numpy.savez.") from error
    except (zipfile.BadZipFile, zlib.error, NotImplementedError, RuntimeError, SyntaxError) as error:
        raise DataError(f"{file} is damaged: {error}. Expected arrays saved by numpy.savez.") from error
    found = {
        split: (arrays[images], arrays.get(labels))
        for split, pairs in _SPLITS.items()
        for images, labels in pairs
        if images in arrays and (labels in arrays or _MASKS in arrays)
    }
    if not found:
        raise DataError(
            f"{file} holds {', '.join(sorted(arrays)) or 'nothing'}; expected images and labels, or x_train, y_train, "
            "x_test, y_test."
        )
    names = next((arrays[name].astype(str).ravel().tolist() for name in _NAMES if name in arrays), None)
    try:
        return array_listing(found, names, arrays.get(_MASKS))
    except DataError as error:
        raise DataError(f"{file}: {error}") from error


def array_listing(
    splits: dict[str, tuple[Any, Any]], names: Sequence[str] | None, segmentation: Any | None = None
) -> Listing:
    """Lists arrays of images with labels, or with the segmentation of all images in "train".

    Args:
        splits: split -> (images, labels or None).
        names: of the classes.
        segmentation: class indices [H, W] for each image.

    Raises:
        DataError: lengths or shapes do not fit, or values are outside their range.
    """
    pixels = {split: _pixels(images, split) for split, (images, _) in splits.items()}
    given = {split: labels for split, (_, labels) in splits.items() if labels is not None}
    if segmentation is not None and given:
        raise DataError("Expected labels or a segmentation, got both.")
    for split, labels in given.items():
        if len(labels) != len(pixels[split]):
            raise DataError(f"Expected a label for each of {len(pixels[split])} {split} images, got {len(labels)}.")
    sets, known, multi_label = _label_sets({split: np.asarray(labels) for split, labels in given.items()}, names)
    listing = Listing({}, known, multi_label)
    for split, images in pixels.items():
        labels = sets.get(split, [()] * len(images))
        listing.splits[split] = [
            Item(image, label, f"{split}/{index}")
            for index, (image, label) in enumerate(zip(images, labels, strict=True))
        ]
    if segmentation is not None:
        _add_segmentation(listing, segmentation, names)
    return listing


def _pixels(images: Any, split: str) -> list[np.ndarray]:
    pixels = []
    for index, image in enumerate(images):
        array = np.asarray(image)
        shares = array.dtype.kind == "f" and array.size and array.max() <= 1 and (array % 1).any()
        if shares:
            raise DataError(f"Image {index} of {split} holds values up to {array.max():.3g}; multiply by 255.")
        try:
            pixels.append(as_pixels(array))
        except DataError as error:
            raise DataError(f"Image {index} of {split}: {error}") from error
    return pixels


def _label_sets(
    labels: dict[str, np.ndarray], names: Sequence[str] | None
) -> tuple[dict[str, list[tuple[str, ...]]], tuple[str, ...], bool]:
    """Names of every image's classes, names of all classes, and whether an image may have several."""
    flat = {
        split: values[:, 0] if values.ndim == 2 and values.shape[1] == 1 else values for split, values in labels.items()
    }
    shapes = {values.shape[1:] for values in flat.values()}
    if len(shapes) > 1 or any(len(shape) > 1 for shape in shapes):
        given = ", ".join(str(list(values.shape)) for values in labels.values())
        raise DataError(f"Expected labels [N], or [N, K] of zeros and ones, got {given}.")
    if not flat:
        return {}, tuple(names or ()), False
    every = np.concatenate(list(flat.values()))
    if every.ndim == 2:
        if not np.isin(every, (0, 1)).all():
            raise DataError("Expected labels [N, K] of zeros and ones, got other values.")
        known = _names(names, every.shape[1], "labels")
        sets = {split: [tuple(np.array(known)[row > 0].tolist()) for row in values] for split, values in flat.items()}
        return sets, known, True
    if every.dtype.kind in "US":
        texts = {split: values.astype(str).tolist() for split, values in flat.items()}
        known = tuple(names or sorted(set(every.astype(str).tolist())))
        strange = sorted({text for values in texts.values() for text in values}.difference(known))
        if strange:
            raise DataError(f"names lacks the labels {', '.join(strange[:5])}.")
        return {split: [(text,) for text in values] for split, values in texts.items()}, known, False
    indices = _indices(every, "labels")
    known = _names(names, int(indices.max(initial=-1)) + 1, "labels")
    return {split: [(known[int(label)],) for label in values] for split, values in flat.items()}, known, False


def _indices(values: np.ndarray, what: str) -> np.ndarray:
    if values.dtype.kind not in "iub" and not (values.dtype.kind == "f" and (values % 1 == 0).all()):
        raise DataError(f"Expected {what} as class indices, got {values.dtype}.")
    if values.size and values.min() < 0:
        raise DataError(f"Expected {what} of 0 and more, got {values.min()}.")
    return values.astype(np.int64)


def _names(names: Sequence[str] | None, count: int, what: str) -> tuple[str, ...]:
    if names is None:
        return tuple(str(index) for index in range(count))
    if len(names) < count:
        raise DataError(f"Expected a name for each of {count} classes of {what}, got {len(names)}.")
    return tuple(str(name) for name in names)


def _add_segmentation(listing: Listing, segmentation: Any, names: Sequence[str] | None) -> None:
    items = listing.splits["train"]
    if len(segmentation) != len(items) or len(listing.splits) > 1:
        raise DataError(f"Expected a segmentation for each of {len(items)} images, got {len(segmentation)}.")
    masks, count = [], 0
    for index, (item, values) in enumerate(zip(items, segmentation, strict=True)):
        mask = _indices(np.asarray(values), "segmentation")
        if mask.shape != np.shape(item.image)[:2]:
            raise DataError(f"The segmentation of image {index} is {list(mask.shape)}; expected the image's [H, W].")
        if mask.max(initial=0) > VOID:
            raise DataError(
                f"The segmentation of image {index} holds {mask.max()}; expected class indices, or 255 for void."
            )
        highest = int(mask[mask != VOID].max(initial=0))
        if names is not None and highest >= len(names):
            raise DataError(
                f"The segmentation of image {index} holds {highest}; there are names of {len(names)} classes."
            )
        count = max(count, highest + 1)
        masks.append(mask.astype(np.uint8))
    listing.splits["train"] = [
        dataclasses.replace(item, segmentation=mask) for item, mask in zip(items, masks, strict=True)
    ]
    listing.labels = _names(names, count, "segmentation")
    listing.kind = "segmentation"


def _with_objects(items: list[Item], boxes: Sequence[Any], parts: dict[str, Sequence[Any] | None]) -> list[Item]:
    for name, values in parts.items():
        if values is not None and len(values) != len(items):
            raise DataError(f"Expected {name} for each of {len(items)} images, got {len(values)}.")
    if parts["classes"] is None:
        raise DataError("Expected classes= of the boxes: an array [M] for each image.")
    whole = []
    for index, item in enumerate(items):
        given = {name: values[index] for name, values in parts.items() if values is not None}
        try:
            whole.append(dataclasses.replace(item, objects=_objects(np.asarray(boxes[index], np.float32), given, item)))
        except (DataError, ValueError) as error:
            raise DataError(f"Image {index}: {error}") from error
    return whole


def _objects(boxes: np.ndarray, given: dict[str, Any], item: Item) -> Objects:
    boxes = boxes.reshape(-1, 4) if not boxes.size else boxes
    count = len(boxes)
    if boxes.ndim != 2 or boxes.shape[1] != 4:
        raise DataError(f"expected boxes [M, 4], got {list(boxes.shape)}.")
    for name, values in given.items():
        if len(values) != count:
            raise DataError(f"expected {name} for each of {count} boxes, got {len(values)}.")
    reason = next((reason for box in boxes if (reason := box_problem(box))), "")
    if reason:
        raise DataError(f"{reason}.")
    keypoints = given.get("keypoints")
    if keypoints is not None:
        keypoints = np.asarray(keypoints, np.float32)
        if keypoints.ndim != 3 or keypoints.shape[2] != 3:
            raise DataError(f"expected keypoints [M, P, 3], got {list(keypoints.shape)}.")
    masks = given.get("masks")
    if isinstance(masks, np.ndarray):
        if masks.shape[1:] != np.shape(item.image)[:2]:
            raise DataError(f"expected masks [M, H, W] as large as the image, got {list(masks.shape)}.")
        masks = [encode_mask(mask != 0) for mask in masks]
    return Objects(
        boxes=boxes,
        classes=_indices(np.asarray(given["classes"]), "classes").astype(np.int32).reshape(-1),
        crowd=np.asarray(given.get("crowd", np.zeros(count)), bool),
        masks=None if masks is None else list(masks),
        keypoints=keypoints,
    )
