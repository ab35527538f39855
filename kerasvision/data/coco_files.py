"""Which files of a folder are COCO indices, which split each is, where its images lie, which line an entry is in."""

import re
from collections import defaultdict
from collections.abc import Sequence
from pathlib import Path

import msgspec

from kerasvision.data.paths import SPLIT_ORDER, inside, present, split_of, subfolders
from kerasvision.data.storage import as_path
from kerasvision.errors import DataError

_PEEK = 4096
_LOOKED_AT = 8


def find_indices(folder: Path) -> list[Path]:
    """COCO files of a folder, or of its folders one level down (annotations/, train/ ...).

    Args:
        folder: from `kerasvision.data.storage.as_path`.

    Returns:
        The .json files that begin like an index; [] where the folder is no COCO set.
    """
    places = [folder, *(place for place in subfolders(folder) if place.name == "annotations" or split_of(place.name))]
    return [file for place in places for file in sorted(filter(_is_index, place.iterdir()))]


def _is_index(file: Path) -> bool:
    if file.suffix.lower() != ".json" or not file.is_file():
        return False
    with file.open("rb") as stream:
        start = stream.read(_PEEK)
    return start.lstrip(b"\xef\xbb\xbf \t\r\n")[:1] == b"{" and bool(
        re.search(rb'"(images|annotations|categories)"\s*:\s*\[', start)
        or (re.search(rb'"info"\s*:\s*\{', start) and b"categor" in start)
    )


def assign_splits(files: Sequence[Path], folder: Path) -> dict[str, Path]:
    """The index of each split.

    The name of the file says which it is (instances_val2017.json), else that of its folder (valid/). Where a split
    has several, as in COCO's own annotations/, the one of instances counts.

    Args:
        files: from `find_indices`.
        folder: the set, for messages.

    Raises:
        DataError: a split has several indices.
    """
    found: dict[str, list[Path]] = defaultdict(list)
    for file in files:
        split = split_of(file.stem) or (split_of(file.parent.name) if file.parent != folder else None)
        found[split or "train"].append(file)
    chosen: dict[str, Path] = {}
    for split in SPLIT_ORDER:
        candidates = found[split]
        if len(candidates) > 1:
            candidates = [file for file in candidates if file.stem.startswith("instances")] or candidates
        if len(candidates) > 1:
            raise DataError(
                f"{folder} has {len(candidates)} indices for the {split} split: "
                f"{', '.join(file.name for file in candidates)}. Give the .json file itself as the source."
            )
        if candidates:
            chosen[split] = candidates[0]
    return chosen


def image_folder(file: Path, names: Sequence[str]) -> tuple[Path, Path]:
    """Where the images of an index lie.

    Args:
        file: the index.
        names: its file names; some are looked for.

    Returns:
        The folder they start from, and the folder of the whole set, which they must not leave.
    """
    root = file.parent.parent if file.parent.name == "annotations" else file.parent
    last_word = re.split(r"[_.]", file.stem)[-1]
    split = split_of(file.stem) or ""
    options = [file.parent, root]
    for base in dict.fromkeys((file.parent, root)):
        options += [base / name for name in ("images", "JPEGImages", last_word, file.stem)]
        options += [base / "images" / last_word]
        options += [base / name for name in _split_names(split)]
        options += [base / "images" / name for name in _split_names(split)]
    step = max(len(names) // _LOOKED_AT, 1)
    looked_at = names[::step][:_LOOKED_AT]
    best, most = root, 0
    for option in dict.fromkeys(options):
        paths = [inside(option, name, root) for name in looked_at]
        hits = sum(1 for path in paths if path and present(as_path(path)))
        if hits > most:
            best, most = option, hits
        if most == len(looked_at):
            break
    return best, root


def _split_names(split: str) -> tuple[str, ...]:
    return {"train": ("train",), "validation": ("val", "valid", "validation"), "test": ("test",)}.get(split, ())


class _Parts(msgspec.Struct):
    images: msgspec.Raw = msgspec.Raw(b"[]")
    annotations: msgspec.Raw = msgspec.Raw(b"[]")
    categories: msgspec.Raw = msgspec.Raw(b"[]")


def locate(origins: Sequence[str]) -> list[str]:
    """Turns "FILE:annotations:17", the entry with number 17 from 0, into "FILE:LINE, annotations[17]".

    The index is read again, so this is for messages only. What has another form is returned as it is.
    """
    matches = [re.fullmatch(r"(.*):(images|annotations|categories):(\d+)", origin, re.DOTALL) for origin in origins]
    wanted: dict[tuple[str, str], set[int]] = defaultdict(set)
    for match in filter(None, matches):
        wanted[match[1], match[2]].add(int(match[3]))
    lines = {key: _lines(as_path(key[0]), key[1], numbers) for key, numbers in wanted.items()}
    return [
        f"{match[1]}:{lines[match[1], match[2]].get(int(match[3]), 1)}, {match[2]}[{match[3]}]" if match else origin
        for origin, match in zip(origins, matches, strict=True)
    ]


def _lines(file: Path, part: str, numbers: set[int]) -> dict[int, int]:
    """number of an entry -> its line, from 1."""
    content = file.read_bytes().removeprefix(b"\xef\xbb\xbf")
    try:
        whole = bytes(getattr(msgspec.json.decode(content, type=_Parts), part))
        entries = msgspec.json.decode(whole, type=list[msgspec.Raw])
    except (msgspec.DecodeError, UnicodeError, RecursionError):  # broken further on
        return {}
    # Each entry is looked for behind the one before, so only white space and commas are passed over.
    end = content.rfind(whole)
    line, counted = 1, 0
    found = {}
    for number, raw in enumerate(entries):
        entry = bytes(raw)
        start = content.find(entry, end)
        end = start + len(entry)
        if number in numbers:
            line += content.count(b"\n", counted, start)
            counted = start
            found[number] = line
    return found
