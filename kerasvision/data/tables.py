"""CSV and TSV files of labelled images: path,label[,split][,group], or a column of 0 and 1 for each class."""

import csv
import dataclasses
import io
from collections.abc import Sequence
from pathlib import Path

from kerasvision.data.listing import Item, Listing, bullet_list, sorted_labels
from kerasvision.data.paths import SPLIT_NAMES, SPLIT_ORDER, inside
from kerasvision.data.storage import is_remote, join
from kerasvision.errors import DataError

PATH_COLUMNS = {"path", "file", "filename", "file_name", "filepath", "image", "image_path", "img"}
LABEL_COLUMNS = {"label", "labels", "class", "classes", "category", "target"}
SPLIT_COLUMNS = {"split", "set", "subset", "fold"}
GROUP_COLUMNS = {"group", "group_id"}
_MARKS = {
    b"\xff\xfe\0\0": "utf-32",
    b"\0\0\xfe\xff": "utf-32",
    b"\xff\xfe": "utf-16",
    b"\xfe\xff": "utf-16",
}
_CELLS = {"0": False, "1": True, "0.0": False, "1.0": True}


@dataclasses.dataclass(frozen=True)
class _Columns:
    """Where things stand; -1: nowhere. `classes` are the columns of 0 and 1."""

    path: int = 0
    label: int = 1
    split: int = 2
    group: int = -1
    classes: tuple[tuple[int, str], ...] = ()
    named: bool = False


def load_csv(file: Path, multi_label: bool = False) -> Listing:
    """Lists a CSV file (TSV where the suffix says so) of path,label and, if wanted, a third column split.

    A first line of column names is optional; with it, the columns may come in any order, a column "group" names what
    belongs into one split, and in place of labels there may be a column of 0 and 1 for each class. Relative paths
    start at the CSV's folder. Several labels of one image are joined with "|". Both make the whole set multi-label.

    Args:
        file: the CSV file, UTF-8, or UTF-16 with a byte order mark.
        multi_label: force a multi-label set where no line has more than one label.

    Returns:
        The items in the order of the file.

    Raises:
        DataError: lines that cannot be used; the message lists each as file:line.
    """
    rows = _read_rows(file)
    if not rows:
        raise DataError(f"{file} is empty. Expected lines of path,label.")
    columns = _find_columns(rows)
    rows = rows[columns.named :]
    multi_label = multi_label or bool(columns.classes)
    if not multi_label:
        multi_label = any("|" in cells[columns.label] for _, cells in rows if len(cells) > columns.label)
    splits: dict[str, list[Item]] = {}
    first_line: dict[str, int] = {}
    problems = []
    for line, cells in rows:
        where = f"{file}:{line}"
        item, split, reason = _read_line(file, where, cells, columns, multi_label)
        if item and item.image in first_line:
            reason = f"{cells[columns.path]} was listed before, in line {first_line[str(item.image)]}"
        if item is None or reason:
            problems.append(f"{where}: {reason}")
            continue
        first_line[str(item.image)] = line
        splits.setdefault(split, []).append(item)
    if problems:
        raise DataError(f"{len(problems)} lines of {file} cannot be used:\n{bullet_list(problems)}\nFix these lines.")
    if not splits:
        raise DataError(f"{file} has column names but no lines below them. Expected lines of path,label.")
    labels = tuple(name for _, name in columns.classes)
    splits = {name: splits[name] for name in SPLIT_ORDER if name in splits}
    return Listing(splits, labels or sorted_labels(item for split in splits.values() for item in split), multi_label)


def _read_line(
    file: Path, where: str, cells: Sequence[str], columns: _Columns, multi_label: bool
) -> tuple[Item | None, str, str]:
    """Item, split and ""; or None and what is wrong."""
    width = max(columns.path, columns.label, *(index for index, _ in columns.classes)) + 1
    if len(cells) < width or not cells[columns.path]:
        return None, "", f"expected path,label, got {','.join(cells)!r}"
    if not columns.named and len(cells) > 3:
        return None, "", f"expected path,label[,split], got {len(cells)} columns; quote commas in names"
    name = cells[columns.split].lower() if 0 <= columns.split < len(cells) else ""
    if name and name not in SPLIT_NAMES:
        return None, "", f"unknown split {name!r}; expected train, validation or test"
    wrong = [cells[index] for index, _ in columns.classes if cells[index] not in _CELLS]
    if wrong:
        return None, "", f"{wrong[0]!r} in the column of a class; expected 0 or 1"
    if columns.classes:
        labels = tuple(label for index, label in columns.classes if _CELLS[cells[index]])
    else:
        labels = tuple(dict.fromkeys(label.strip() for label in cells[columns.label].split("|") if label.strip()))
    reason = _label_problem(labels, multi_label)
    written = cells[columns.path]
    absolute = is_remote(written) or Path(written).expanduser().is_absolute()
    path = join(file.parent, written) if absolute else inside(file.parent, written)
    if path is None:
        return None, "", f"the path {written!r} leads out of the folder of the CSV file; write it as an absolute path"
    group = cells[columns.group] if 0 <= columns.group < len(cells) else ""
    item = Item(path, labels, Path(written).as_posix(), where, group=group or None)
    return item, SPLIT_NAMES[name or "train"], reason


def _read_rows(file: Path) -> list[tuple[int, list[str]]]:
    """(line it begins in, cells without white space around) of every row that is not blank."""
    text = _read_text(file)
    rows = []
    line = 1
    reader = csv.reader(
        io.StringIO(text, newline=""), delimiter="\t" if file.suffix.lower() == ".tsv" else ",", strict=True
    )
    try:
        for cells in reader:
            if any(cell.strip() for cell in cells):
                rows.append((line, [cell.strip() for cell in cells]))
            line = reader.line_num + 1
    except csv.Error as error:
        raise DataError(f"{file}:{line}: broken CSV ({error}). Fix this line.") from error
    return rows


def _read_text(file: Path) -> str:
    content = file.read_bytes()
    encoding = next((name for mark, name in _MARKS.items() if content.startswith(mark)), "utf-8-sig")
    try:
        text = content.decode(encoding)
    except UnicodeDecodeError as error:
        line = content[: error.start].decode(encoding, errors="ignore").count("\n") + 1
        raise DataError(
            f"{file}:{line}: not UTF-8 text ({error.reason}). Save it as UTF-8, or as UTF-16 with a byte order mark."
        ) from error
    if "\0" in text:
        line = text.count("\n", 0, text.index("\0")) + 1
        raise DataError(f"{file}:{line}: a zero byte, which text does not have. Save the file as UTF-8.")
    return text


def _find_columns(rows: Sequence[tuple[int, list[str]]]) -> _Columns:
    names = [cell.lower() for cell in rows[0][1]]

    def find(known: set[str]) -> int:
        return next((index for index, name in enumerate(names) if name in known), -1)

    path, label, split, group = (find(known) for known in (PATH_COLUMNS, LABEL_COLUMNS, SPLIT_COLUMNS, GROUP_COLUMNS))
    if path < 0:
        return _Columns()
    if label >= 0:
        return _Columns(path, label, split, group, named=True)
    # No column of labels: every other one is a class, if 0 and 1 stand in them.
    classes = tuple((index, cell) for index, cell in enumerate(rows[0][1]) if index not in (path, split, group))
    below = rows[1][1] if len(rows) > 1 else []
    if not classes or not all(index < len(below) and below[index] in _CELLS for index, _ in classes):
        return _Columns()
    return _Columns(path, -1, split, group, classes, named=True)


def _label_problem(labels: tuple[str, ...], multi_label: bool) -> str:
    if not labels and not multi_label:
        return "no label"
    for label in labels:
        if label.startswith("-") and label[1:].isdecimal():
            return f"label {label} is outside the range: class numbers start at 0"
    return ""
