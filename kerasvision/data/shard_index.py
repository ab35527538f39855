"""index.json of a folder of TFRecord shards: what the set is, its files, and whether they are all there and sound."""

import hashlib
import itertools
from collections.abc import Iterator
from pathlib import Path

import msgspec
import tensorflow as tf

from kerasvision.data.storage import is_remote, size_of
from kerasvision.errors import DataError
from kerasvision.progress import progress

INDEX = "index.json"
VERSION = 1
KIND = "kerasvision shards"
_BLOCK = 1 << 20


class StoredFile(msgspec.Struct, forbid_unknown_fields=True):
    """A file of the set: its name, size in bytes and SHA-256."""

    name: str
    bytes: int
    sha256: str


class Shard(msgspec.Struct, forbid_unknown_fields=True):
    """Some examples of a split, in the order of the set."""

    examples: int
    records: StoredFile
    index: StoredFile


class ShardIndex(msgspec.Struct, forbid_unknown_fields=True):
    """The content of index.json.

    Args:
        kind: what the file is.
        version: of the format.
        source: where the set came from.
        labels: class names in the order of their indices.
        multi_label: an image may carry any number of labels.
        fields: keys of every example.
        keypoint_names: names of the points of an object.
        keypoints: how many they are.
        splits: name -> shards.
    """

    kind: str
    version: int
    source: str
    labels: list[str]
    multi_label: bool
    fields: list[str]
    keypoint_names: list[str]
    keypoints: int
    splits: dict[str, list[Shard]]

    def files(self) -> Iterator[StoredFile]:
        """All files of the set but index.json."""
        for shard in itertools.chain.from_iterable(self.splits.values()):
            yield from (shard.records, shard.index)


def sha256_of(file: Path) -> str:
    """SHA-256 of a file's content, in hexadecimal digits."""
    digest = hashlib.sha256()
    with file.open("rb") as stream:
        while block := stream.read(_BLOCK):
            digest.update(block)
    return digest.hexdigest()


def is_shard_folder(folder: Path) -> bool:
    """Whether a folder says of itself that it holds shards."""
    index = folder / INDEX
    return index.is_file() and KIND.encode() in index.read_bytes()[:200]


def read_index(folder: Path) -> ShardIndex:
    """Reads index.json, and compares the size of every file with it.

    Args:
        folder: of the set, from `storage.as_path`.

    Raises:
        DataError: index.json is damaged or of another version, or a file is missing or has another size.
    """
    file = folder / INDEX
    try:
        content = file.read_bytes()
        head = msgspec.json.decode(content)
        if isinstance(head, dict) and head.get("kind") == KIND and head.get("version") != VERSION:
            raise DataError(
                f"{file} is of version {head.get('version')}, but version {VERSION} is read here. Write the shards "
                "again, or use the kerasvision that wrote them."
            )
        index = msgspec.json.decode(content, type=ShardIndex)
    except OSError as error:
        raise DataError(f"No {INDEX} in {folder}: it is no folder of shards ({error.strerror or error}).") from error
    except (msgspec.DecodeError, UnicodeDecodeError) as error:
        raise DataError(f"{file} is damaged: {error}. Copy it again, or write the shards again.") from error
    problems = [problem for stored in index.files() if (problem := _size_problem(folder, stored))]
    if problems:
        raise DataError(f"{folder} is not whole:\n  " + "\n  ".join(problems) + "\nCopy these files again.")
    return index


def _size_problem(folder: Path, stored: StoredFile) -> str:
    if Path(stored.name).name != stored.name:
        return f"{stored.name!r} is not the name of a file in this folder"
    file = folder / stored.name
    if not file.is_file():
        return f"{stored.name}: missing"
    size = size_of(file)
    return "" if size == stored.bytes else f"{stored.name}: {size} bytes, expected {stored.bytes}"


def check_shards(folder: Path) -> ShardIndex:
    """Compares every byte of a set with its checksums.

    Args:
        folder: of the set, from `storage.as_path`.

    Returns:
        What stands in index.json.

    Raises:
        DataError: a file differs; the message names it and its first damaged record.
    """
    index = read_index(folder)
    files = list(index.files())
    problems = []
    with progress(f"Checking {folder}", sum(file.bytes for file in files)) as advance:
        for stored in files:
            if sha256_of(folder / stored.name) != stored.sha256:
                problems.append(f"{stored.name}: wrong checksum{_first_damage(folder / stored.name)}")
            advance(stored.bytes)
    if problems:
        raise DataError(f"{folder} is damaged:\n  " + "\n  ".join(problems) + "\nCopy these files again.")
    return index


def _first_damage(file: Path) -> str:
    if is_remote(file):
        return ""
    count = 0
    try:
        for _ in tf.data.TFRecordDataset(str(file)):
            count += 1
    except tf.errors.OpError:
        return f", record {count} is damaged"
    return ""
