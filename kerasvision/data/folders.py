"""A tree of class folders, with or without train/val/test above them."""

import os
from collections.abc import Iterator
from pathlib import Path

from kerasvision.data.listing import Item, Listing, bullet_list, in_natural_order, sorted_labels
from kerasvision.data.paths import SPLIT_NAMES, SPLIT_ORDER, is_clutter, subfolders
from kerasvision.data.storage import is_remote, walk
from kerasvision.errors import DataError


def load_folder(root: Path, multi_label: bool = False) -> Listing:
    """Lists a tree of class folders, with or without train/val/test folders above them.

    Every file below a class folder counts as an image; hidden files and the clutter of file managers are ignored.

    Args:
        root: the folder.
        multi_label: give each image a set of labels (here of one) instead of one label.

    Returns:
        The items, sorted by their path relative to `root`.

    Raises:
        DataError: no class folders, or a class folder without images.
    """
    folders = subfolders(root)
    trees = {folder: SPLIT_NAMES[folder.name.lower()] for folder in folders if folder.name.lower() in SPLIT_NAMES}
    # A class may be called "test": only with class folders inside are these folders splits.
    if not any(subfolders(folder) for folder in trees):
        items = _class_folders(root, root)
        return Listing({"train": items}, sorted_labels(items), multi_label)
    strays = [folder.name for folder in folders if folder not in trees]
    if strays:
        raise DataError(
            f"{root} holds split folders ({', '.join(folder.name for folder in trees)}) and beside them "
            f"{', '.join(strays)}. Expected only splits, or only classes: move the others out."
        )
    splits: dict[str, list[Item]] = {}
    for folder, split in trees.items():
        if split in splits:
            raise DataError(f"{root} has two folders for the {split} split: {', '.join(f.name for f in trees)}.")
        splits[split] = _class_folders(folder, root)
    splits = {name: splits[name] for name in SPLIT_ORDER if name in splits}
    return Listing(splits, sorted_labels(item for split in splits.values() for item in split), multi_label)


def _class_folders(folder: Path, root: Path) -> list[Item]:
    classes = subfolders(folder)
    if not classes:
        found = sum(1 for _ in _files(folder))
        raise DataError(
            f"No class folders in {folder} ({found} files directly in it). Expected one folder of images for each "
            "class, e.g. cats/ and dogs/, or a CSV file of path,label."
        )
    items = []
    empty = []
    for class_folder in classes:
        files = list(_files(class_folder))
        if not files:
            empty.append(str(class_folder))
        for file in files:
            items.append(Item(str(file), (class_folder.name,), file.relative_to(root).as_posix()))
    if empty:
        raise DataError(
            f"{len(empty)} class folders are empty:\n{bullet_list(empty)}\nPut images into them or remove them."
        )
    return sorted(items, key=lambda item: in_natural_order(item.key))


def _files(folder: Path) -> Iterator[Path]:
    """All files below a folder, clutter left out; links are followed, but never in a circle."""
    seen = set()
    for current, folders, files in walk(folder):
        real = str(current) if is_remote(current) else os.path.realpath(current)
        folders[:] = [] if real in seen else sorted(name for name in folders if not is_clutter(name))
        if real not in seen:
            yield from (current / name for name in sorted(files) if not is_clutter(name))
        seen.add(real)
