"""Where a YOLO set keeps its images and labels: data.yaml as Ultralytics writes it, or folders by their names."""

import dataclasses
import re
from pathlib import Path
from typing import Any

import yaml

from kerasvision.data.inspect import BadFile
from kerasvision.data.paths import SPLIT_ORDER, inside, present, split_of, subfolders
from kerasvision.data.storage import as_path, join
from kerasvision.errors import DataError

DESCRIPTIONS = ("data.yaml", "data.yml", "dataset.yaml")
NAME_FILES = ("classes.txt", "obj.names", "labels.txt", "classes.names")
_MAX_BYTES = 4 << 20
_KEYS = {"train": "train", "val": "validation", "valid": "validation", "validation": "validation", "test": "test"}


@dataclasses.dataclass(frozen=True)
class Layout:
    """A YOLO set before its labels are read.

    Args:
        root: the folder that nothing may lead out of.
        names: class names in the order of their numbers.
        splits: split -> folders of images or .txt lists, each with the line that names it.
        keypoints: (K, 2 or 3), or None.
    """

    root: Path
    names: tuple[str, ...]
    splits: dict[str, list[tuple[Path, str]]]
    keypoints: tuple[int, int] | None = None

    def key(self, image: Path) -> str:
        """Name of an image that does not depend on where the set lies."""
        base = f"{self.root}/"
        return str(image).removeprefix(base) if str(image).startswith(base) else image.name

    def label_file(self, image: Path) -> Path:
        """The last folder called images becomes labels; without one, labels stand beside the images."""
        head, middle, tail = f"/{self.key(image)}".rpartition("/images/")
        name = f"{head}/labels/{tail}"[1:] if middle else self.key(image)
        return (self.root / name).with_suffix(".txt")

    def read_list(self, file: Path, problems: list[BadFile]) -> list[tuple[Path, str]]:
        """Images of a .txt list, with the lines that name them; paths start at the set's folder."""
        images = []
        for number, name in enumerate(_read_text(file).splitlines(), 1):
            if not name.strip():
                continue
            path = inside(self.root, name.strip(), self.root)
            if path:
                images.append((as_path(path), f"{file}:{number}"))
            else:
                problems.append(BadFile(name.strip(), f"leads out of the data folder {self.root}", f"{file}:{number}"))
        return images


def find_description(folder: Path) -> Path | None:
    """The data.yaml of a folder, or None."""
    return next((folder / name for name in DESCRIPTIONS if (folder / name).is_file()), None)


def is_yolo_folder(folder: Path) -> bool:
    """Whether a folder holds a data.yaml with names, or images/ and labels/ of .txt files."""
    file = find_description(folder)
    if file:
        with file.open("rb") as stream:
            return re.search(rb"^names\s*:", stream.read(_MAX_BYTES), re.MULTILINE) is not None
    return any(
        _has_texts(labels) for labels in (folder / "labels", *(sub / "labels" for sub in _split_folders(folder)))
    )


def _split_folders(folder: Path) -> list[Path]:
    return [sub for sub in subfolders(folder) if sub.name.lower() in _KEYS]


def _has_texts(labels: Path) -> bool:
    if not labels.is_dir():
        return False
    return any(any(file.suffix == ".txt" for file in place.iterdir()) for place in (labels, *subfolders(labels)))


def read_layout(source: Path) -> Layout:
    """Finds out where the parts of a set are.

    Args:
        source: data.yaml, or the set's folder.

    Raises:
        DataError: no description, or one that is not usable.
    """
    file = find_description(source) if source.is_dir() else source
    return _from_description(file) if file else _from_folders(source)


def _from_folders(root: Path) -> Layout:
    splits: dict[str, list[tuple[Path, str]]] = {}
    images = root / "images"
    folders = subfolders(images) if images.is_dir() else [sub / "images" for sub in _split_folders(root)]
    for folder in folders:
        split = split_of(folder.name if images.is_dir() else folder.parent.name)
        if split:
            splits.setdefault(split, []).append((folder, str(root)))
    if not splits and images.is_dir():
        splits = {"train": [(images, str(root))]}
    file = next((root / name for name in NAME_FILES if (root / name).is_file()), None)
    if not file or not splits:
        raise DataError(
            f"{root}: expected images/, labels/ and classes.txt with a class name in each line, or data.yaml."
        )
    names = tuple(line.strip() for line in _read_text(file).splitlines() if line.strip())
    return Layout(root, names, {split: splits[split] for split in SPLIT_ORDER if split in splits})


def _read_text(file: Path) -> str:
    content = file.read_bytes()
    if len(content) > _MAX_BYTES * 16:
        raise DataError(f"{file}: {len(content):,} bytes are too many for a list.")
    try:
        return content.decode("utf-8-sig")
    except UnicodeDecodeError as error:
        raise DataError(f"{file}:{content.count(10, 0, error.start) + 1}: not UTF-8 text. Save it as UTF-8.") from error


def _from_description(file: Path) -> Layout:
    text = _read_text(file)
    if len(text) > _MAX_BYTES:
        raise DataError(f"{file}: {len(text):,} characters are too many for a description.")
    try:
        # Everything stays text: a class may be called "no" or "2024-01-01".
        content = yaml.load(text, Loader=yaml.BaseLoader)
    except yaml.YAMLError as error:
        mark = getattr(error, "problem_mark", None)
        problem = getattr(error, "problem", None) or "unreadable characters"
        raise DataError(f"{file}:{mark.line + 1 if mark else 1}: broken YAML ({problem}). Fix this line.") from error
    except RecursionError as error:
        raise DataError(f"{file}: YAML nested too deeply. Write names, train and val.") from error
    if not isinstance(content, dict):
        raise DataError(f"{file}:1: expected keys such as names, train and val.")
    root, splits = _places(file, text, content)
    return Layout(root, _names(file, text, content), splits, _keypoints(file, text, content))


def _line(file: Path, text: str, key: str) -> str:
    """Where a key stands, for messages."""
    match = re.search(rf"^[\"']?{re.escape(key)}[\"']?\s*:", text, re.MULTILINE)
    return f"{file}:{text.count(chr(10), 0, match.start()) + 1 if match else 1}"


def _names(file: Path, text: str, content: dict[str, Any]) -> tuple[str, ...]:
    names = content.get("names")
    where = _line(file, text, "names")
    if isinstance(names, dict):
        if set(names) != {str(number) for number in range(len(names))}:
            raise DataError(f"{where}: names must be numbered 0, 1, 2, ... without gaps.")
        names = [names[str(number)] for number in range(len(names))]
    if not isinstance(names, list) or not names or not all(isinstance(name, str) and name.strip() for name in names):
        raise DataError(f"{where}: expected names as a list, or as a table of number: name.")
    if content.get("nc", str(len(names))) != str(len(names)):
        raise DataError(f"{where}: {len(names)} names, but nc is another number. Make the two agree.")
    return tuple(name.strip() for name in names)


def _keypoints(file: Path, text: str, content: dict[str, Any]) -> tuple[int, int] | None:
    shape = content.get("kpt_shape")
    if shape is None:
        return None
    if (
        not isinstance(shape, list)
        or len(shape) != 2
        or not all(isinstance(number, str) and re.fullmatch("[0-9]{1,3}", number) for number in shape)
        or int(shape[1]) not in (2, 3)
        or not int(shape[0])
    ):
        raise DataError(f"{_line(file, text, 'kpt_shape')}: expected kpt_shape: [number of keypoints, 2 or 3].")
    return int(shape[0]), int(shape[1])


def _places(file: Path, text: str, content: dict[str, Any]) -> tuple[Path, dict[str, list[tuple[Path, str]]]]:
    """The set's folder, and the image folders or lists of each split."""
    stated = content.get("path") or "."
    if not isinstance(stated, str):
        raise DataError(f"{_line(file, text, 'path')}: expected path as text.")
    # A set that was moved often still names its old place: its own folder is then as good.
    own = file.parent
    root = as_path(join(own, stated))
    if not (
        present(root) and (Path(stated).is_absolute() or inside(own, stated, own) or join(own, stated) == str(own))
    ):
        root = own
    splits: dict[str, list[tuple[Path, str]]] = {}
    for key, split in _KEYS.items():
        entries = content.get(key)
        if not entries:
            continue
        where = _line(file, text, key)
        entries = entries if isinstance(entries, list) else [entries]
        if not all(isinstance(entry, str) for entry in entries):
            raise DataError(f"{where}: expected a folder, a .txt list, or a list of them.")
        splits.setdefault(split, []).extend((_place(root, entry, where), where) for entry in entries)
    if not splits:
        raise DataError(f"{file}:1: expected train, val or test with a folder of images.")
    return root, {split: splits[split] for split in SPLIT_ORDER if split in splits}


def _place(root: Path, entry: str, where: str) -> Path:
    path = str(root) if join(root, entry) == str(root) else inside(root, entry, root)
    if path is None or not present(as_path(path)):
        # Roboflow writes ../train/images beside data.yaml and means train/images.
        path = inside(root, entry.removeprefix("../"), root) or path
    if path is None:
        raise DataError(f"{where}: {entry!r} leads out of the data folder {root}. Name a folder inside it.")
    return as_path(path)
