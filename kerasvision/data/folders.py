"""Sources a user keeps on disk: a tree of class folders, and a CSV of path,label."""

import csv
import os
from collections.abc import Iterator
from pathlib import Path

from kerasvision.data.listing import Item, Listing, bullet_list, sorted_labels
from kerasvision.errors import DataError

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
CLUTTER = {"thumbs.db", "desktop.ini", "__macosx"}
PATH_COLUMNS = {"path", "file", "filename", "file_name", "filepath", "image", "image_path", "img"}
LABEL_COLUMNS = {"label", "labels", "class", "classes", "category", "target"}
SPLIT_COLUMNS = {"split", "set", "subset", "fold"}


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
    folders = _subfolders(root)
    trees = {folder: SPLIT_NAMES[folder.name.lower()] for folder in folders if folder.name.lower() in SPLIT_NAMES}
    # A class may be called "test": only with class folders inside are these folders splits.
    if not any(_subfolders(folder) for folder in trees):
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
    splits = {name: splits[name] for name in ("train", "validation", "test") if name in splits}
    return Listing(splits, sorted_labels(item for split in splits.values() for item in split), multi_label)


def _class_folders(folder: Path, root: Path) -> list[Item]:
    classes = _subfolders(folder)
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
    return sorted(items, key=lambda item: item.key)


def _subfolders(folder: Path) -> list[Path]:
    return sorted(path for path in folder.iterdir() if path.is_dir() and not _is_clutter(path.name))


def _files(folder: Path) -> Iterator[Path]:
    """All files below a folder, clutter left out; links are followed, but never in a circle."""
    seen = set()
    for current, folders, files in os.walk(folder, followlinks=True):
        real = os.path.realpath(current)
        folders[:] = [] if real in seen else sorted(name for name in folders if not _is_clutter(name))
        if real not in seen:
            yield from (Path(current, name) for name in sorted(files) if not _is_clutter(name))
        seen.add(real)


def _is_clutter(name: str) -> bool:
    return name.startswith(".") or name.lower() in CLUTTER


def load_csv(file: Path, multi_label: bool = False) -> Listing:
    """Lists a CSV file (TSV where the suffix says so) of path,label and, if wanted, a third column split.

    A first line of column names is optional; with it, the columns may come in any order. Relative paths start at
    the CSV's folder. Several labels of one image are joined with "|", which makes the whole set multi-label.

    Args:
        file: the CSV file, UTF-8.
        multi_label: force a multi-label set where no line has more than one label.

    Returns:
        The items in the order of the file.

    Raises:
        DataError: lines that cannot be used; the message lists each as file:line.
    """
    rows = _read_rows(file)
    if not rows:
        raise DataError(f"{file} is empty. Expected lines of path,label.")
    columns = _columns([cell.strip().lower() for cell in rows[0][1]])
    if columns:
        rows = rows[1:]
    path_at, label_at, split_at = columns or (0, 1, 2)
    multi_label = multi_label or any("|" in cells[label_at] for _, cells in rows if len(cells) > label_at)
    splits: dict[str, list[Item]] = {}
    first_line: dict[str, int] = {}
    problems = []
    width = max(path_at, label_at) + 1
    for line, cells in rows:
        cells = [cell.strip() for cell in cells]
        where = f"{file}:{line}"
        if len(cells) < width or not cells[path_at]:
            problems.append(f"{where}: expected path,label, got {','.join(cells)!r}")
            continue
        if not columns and len(cells) > 3:
            problems.append(f"{where}: expected path,label[,split], got {len(cells)} columns; quote commas in names")
            continue
        name = cells[split_at].lower() if 0 <= split_at < len(cells) else ""
        if name and name not in SPLIT_NAMES:
            problems.append(f"{where}: unknown split {name!r}; expected train, validation or test")
            continue
        labels = tuple(dict.fromkeys(label.strip() for label in cells[label_at].split("|") if label.strip()))
        problem = _label_problem(labels, multi_label)
        path = os.path.normpath(file.parent / Path(cells[path_at]).expanduser())
        if path in first_line:
            problem = f"{cells[path_at]} was listed before, in line {first_line[path]}"
        if problem:
            problems.append(f"{where}: {problem}")
            continue
        first_line[path] = line
        item = Item(path, labels, Path(cells[path_at]).as_posix(), where)
        splits.setdefault(SPLIT_NAMES[name or "train"], []).append(item)
    if problems:
        raise DataError(f"{len(problems)} lines of {file} cannot be used:\n{bullet_list(problems)}\nFix these lines.")
    if not splits:
        raise DataError(f"{file} has column names but no lines below them. Expected lines of path,label.")
    splits = {name: splits[name] for name in ("train", "validation", "test") if name in splits}
    return Listing(splits, sorted_labels(item for split in splits.values() for item in split), multi_label)


def _read_rows(file: Path) -> list[tuple[int, list[str]]]:
    """(line number, cells) of every line that is not blank."""
    delimiter = "\t" if file.suffix.lower() == ".tsv" else ","
    rows = []
    with file.open(encoding="utf-8-sig", newline="") as stream:
        reader = csv.reader(stream, delimiter=delimiter, strict=True)
        try:
            for cells in reader:
                if any(cell.strip() for cell in cells):
                    rows.append((reader.line_num, cells))
        except csv.Error as error:
            raise DataError(f"{file}:{reader.line_num}: broken CSV ({error}). Fix this line.") from error
        except UnicodeDecodeError as error:
            raise DataError(
                f"{file}: not UTF-8 text after line {reader.line_num} ({error.reason}). Save it as UTF-8."
            ) from error
    return rows


def _columns(first: list[str]) -> tuple[int, int, int] | None:
    """Where path, label and split stand (-1: nowhere), or None where the first line is data."""

    def find(names: set[str]) -> int:
        return next((index for index, cell in enumerate(first) if cell in names), -1)

    path_at, label_at = find(PATH_COLUMNS), find(LABEL_COLUMNS)
    return None if path_at < 0 or label_at < 0 else (path_at, label_at, find(SPLIT_COLUMNS))


def _label_problem(labels: tuple[str, ...], multi_label: bool) -> str:
    if not labels and not multi_label:
        return "no label"
    for label in labels:
        if label.startswith("-") and label[1:].isdecimal():
            return f"label {label} is outside the range: class numbers start at 0"
    return ""
