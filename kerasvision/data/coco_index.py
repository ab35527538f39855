"""The JSON of a COCO index, decoded into typed objects."""

import re
from pathlib import Path
from typing import Any

import msgspec

from kerasvision.data.coco_files import locate
from kerasvision.errors import DataError

Id = int | str
NOTHING = msgspec.Raw(b"null")


class IndexImage(msgspec.Struct, gc=False):
    """An image of an index."""

    id: Id
    file_name: str
    width: int | float | None = None
    height: int | float | None = None


class Annotation(msgspec.Struct, gc=False):
    """An object; its segmentation stays JSON until it is looked at."""

    image_id: Id
    category_id: Id
    id: Id | None = None
    bbox: list[float] | None = None
    segmentation: msgspec.Raw = NOTHING
    keypoints: list[float] | None = None
    iscrowd: int | bool | None = 0


class Category(msgspec.Struct):
    """A class of objects."""

    id: Id
    name: str
    keypoints: list[str] | None = None


class Index(msgspec.Struct):
    """What of an index is looked at."""

    images: list[IndexImage]
    categories: list[Category]
    annotations: list[Annotation] | None = None


class _Runs(msgspec.Struct):
    size: list[int]
    counts: str | list[int]


_INDEX = msgspec.json.Decoder(Index)
_SEGMENTATION = msgspec.json.Decoder(list[list[float]] | _Runs | None)


def read_index(file: Path) -> Index:
    """Decodes an index.

    Raises:
        DataError: it is not JSON, not COCO's, or has no annotations; the message names the line.
    """
    content = file.read_bytes().removeprefix(b"\xef\xbb\xbf")
    try:
        index = _INDEX.decode(content)
    except msgspec.ValidationError as error:
        match = re.search(r"\$\.(images|annotations|categories)\[(\d+)\]", str(error))
        where = locate([f"{file}:{match[1]}:{match[2]}"])[0] if match else f"{file}:1"
        raise DataError(f"{where}: not what COCO's JSON has there. {error}.") from error
    except msgspec.DecodeError as error:
        match = re.search(r"byte (\d+)", str(error))
        line = content.count(b"\n", 0, int(match[1])) + 1 if match else 1
        reason = "a number that is no JSON (NaN or Infinity)" if _names_nan(content, match) else str(error)
        raise DataError(f"{file}:{line}: {reason}. Write the file again, with whole JSON.") from error
    except (UnicodeError, RecursionError) as error:
        raise DataError(f"{file}:1: not JSON in UTF-8 ({type(error).__name__}). Write the file again.") from error
    if index.annotations is None:
        raise DataError(f"{file} has images but no annotations. Give another index, or remove this one.")
    return index


def _names_nan(content: bytes, match: re.Match[str] | None) -> bool:
    start = max(int(match[1]) - 1, 0) if match else 0
    return bool(match and re.match(rb"[\s:,\[-]*(-?Infinity|NaN|nan)", content[start : start + 20]))


def decode_segmentation(segmentation: msgspec.Raw) -> list[list[float]] | dict[str, Any] | None:
    """Polygons or run lengths, [] where there are none, None where it is something else."""
    try:
        found = _SEGMENTATION.decode(segmentation)
    except (msgspec.DecodeError, RecursionError):
        return None
    return {"size": found.size, "counts": found.counts} if isinstance(found, _Runs) else found or []
