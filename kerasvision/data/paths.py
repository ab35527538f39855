"""Names of files written in other files, and which files of a folder are images."""

import os
import re
from pathlib import Path

from kerasvision.data.inspect import SUFFIXES
from kerasvision.data.storage import join

IMAGE_SUFFIXES = frozenset(suffix for suffixes in SUFFIXES.values() for suffix in suffixes)
SPLIT_NAMES = {
    "train": "train",
    "training": "train",
    "val": "validation",
    "valid": "validation",
    "validation": "validation",
    "dev": "validation",
    "test": "test",
    "testing": "test",
}
SPLIT_ORDER = ("train", "validation", "test")
CLUTTER = {"thumbs.db", "desktop.ini", "__macosx"}


def is_clutter(name: str) -> bool:
    """Whether a file or folder is hidden, or something a file manager left behind."""
    return name.startswith(".") or name.lower() in CLUTTER


def is_image(name: str) -> bool:
    """Whether a file is called like an image."""
    return os.path.splitext(name)[1].lower() in IMAGE_SUFFIXES and not is_clutter(name)  # noqa: PTH122


def split_of(name: str) -> str | None:
    """The split a file or folder name speaks of: "instances_val2017" -> "validation"; None where it names none."""
    words = [word for word in re.split(r"[^a-z]+", name.lower()) if word in SPLIT_NAMES]
    return SPLIT_NAMES[words[-1]] if words else None


def inside(folder: Path, name: str, root: Path | None = None) -> str | None:
    """A path that a file of a data set names, made whole.

    Args:
        folder: where relative names start, absolute.
        name: as written.
        root: folder of the whole set; `folder` where None.

    Returns:
        The path, or None where it leads out of the set. Links are not followed: a set may be put together of them.
    """
    whole = join(folder, name)
    base = join(root or folder, ".")
    return whole if whole.startswith(base.rstrip("/" + os.sep) + ("/" if "://" in base else os.sep)) else None


def present(path: Path) -> bool:
    """Whether there is such a file or folder; False for names that none can have (too long, a zero byte)."""
    try:
        return path.exists()
    except (OSError, ValueError):
        return False


def subfolders(folder: Path) -> list[Path]:
    """Folders directly in a folder, by name; clutter is left out."""
    return sorted(path for path in folder.iterdir() if not is_clutter(path.name) and path.is_dir())
