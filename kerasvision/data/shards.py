"""Sets in TFRecord shards: few large files in place of many small ones, with an index and checksums.

A folder of shards holds index.json, the shards (train-00000-of-00008.tfrecord), and beside each shard an .index: a
TFRecord file too, with every example's fields and where in the shard its image lies. Loading a set reads the
indices; an image is read when it is needed, from its place, and checked.
"""

import contextlib
import gc
import hashlib
import itertools
import os
from collections.abc import Iterable, Iterator, Sequence
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import TYPE_CHECKING, Literal

import msgspec
import tensorflow as tf
from google.protobuf.message import DecodeError  # type: ignore[import-untyped]

from kerasvision.data.inspect import ImageInfo
from kerasvision.data.listing import Item, Listing
from kerasvision.data.mask_files import MaskFile
from kerasvision.data.objects import Objects
from kerasvision.data.records import (
    CONTENTS,
    FIELDS,
    Example,
    Features,
    Record,
    decode_features,
    decode_fields,
    decode_info,
    encode_example,
    read_text,
    serialize,
    text,
)
from kerasvision.data.segmentations import check_segmentation
from kerasvision.data.shard_index import (
    INDEX,
    KIND,
    VERSION,
    Shard,
    ShardIndex,
    StoredFile,
    check_shards,
    read_index,
    sha256_of,
)
from kerasvision.data.storage import slice_reference
from kerasvision.errors import DataError
from kerasvision.files import new_folder
from kerasvision.progress import progress

if TYPE_CHECKING:
    from kerasvision.data.dataset import Data

SHARD_MB = 128.0
# What the TFRecord format puts around a record: its length and a checksum before it, a checksum behind it.
_BEFORE, _AFTER = 12, 4
_CHUNK = 64
_OBJECTS = ("boxes", "classes", "crowd", "masks", "keypoints", "difficult")


def write_shards(
    data: "Data",
    folder: str | os.PathLike[str],
    *,
    shards: int | None = None,
    shard_mb: float = SHARD_MB,
) -> ShardIndex:
    """Writes every split of a set as TFRecord shards, which `load_data` reads back.

    Image files keep their bytes; arrays, masks and frames of videos become PNG files. The same set gives the same
    bytes. The folder appears whole or not at all.

    Args:
        data: the set.
        folder: a local folder that is not there yet, or empty.
        shards: how many for each split, at most one for each example; as many as `shard_mb` asks for when None.
        shard_mb: megabytes (10^6 bytes) after which a shard is full.

    Returns:
        What stands in index.json.

    Raises:
        DataError: the folder holds something, an image cannot be used, or an example has a field unknown here.
        OSError: the disk is full or the folder cannot be written to.
    """
    if (shards is not None and shards < 1) or not shard_mb > 0:
        raise DataError(f"Expected shards of at least 1 and shard_mb above 0, got {shards} and {shard_mb}.")
    index = _describe(data)
    target = Path(folder).expanduser().absolute()
    with new_folder(target) as staging:
        for split, examples in data.splits.items():
            if examples:
                index.splits[split] = _write_split(staging, split, examples, data.infos, shards, shard_mb)
        content = msgspec.json.format(msgspec.json.encode(index), indent=2)
        (staging / INDEX).write_bytes(content + b"\n")
    return index


def _describe(data: "Data") -> ShardIndex:
    examples = list(itertools.chain.from_iterable(data.splits.values()))
    if not examples:
        raise DataError(f"{data.source or 'The set'} has no examples to write.")
    fields = set(examples[0])
    for example in examples:
        if set(example) != fields:
            raise DataError(f"Expected examples with the same fields, got {sorted(fields)} and {sorted(example)}.")
    unknown = sorted(fields.difference(FIELDS))
    if unknown:
        raise DataError(f"Cannot write the fields {', '.join(unknown)}; known: {', '.join(FIELDS)}.")
    return ShardIndex(
        kind=KIND,
        version=VERSION,
        source=data.source,
        labels=list(data.labels),
        multi_label=data.multi_label,
        fields=[name for name in FIELDS if name in fields],
        keypoint_names=list(data.keypoint_names),
        keypoints=examples[0]["keypoints"].shape[1] if "keypoints" in fields else 0,
        splits={},
    )


def _write_split(
    folder: Path,
    split: str,
    examples: Sequence[Example],
    infos: dict[str, ImageInfo],
    shards: int | None,
    shard_mb: float,
) -> list[Shard]:
    records = _encoded(split, examples, infos)
    written = []
    if shards is not None:
        bounds = [len(examples) * number // min(shards, len(examples)) for number in range(len(examples) + 1)]
        for number in range(min(shards, len(examples))):
            part = itertools.islice(records, bounds[number + 1] - bounds[number])
            written.append(_write_shard(folder, f"{split}-{number:05}", part, None))
    else:
        left = len(examples)
        while left:
            shard = _write_shard(folder, f"{split}-{len(written):05}", records, int(shard_mb * 1e6))
            written.append(shard)
            left -= shard.examples
    for shard in written:
        for file in (shard.records, shard.index):
            stem, _, suffix = file.name.partition(".")
            final = f"{stem}-of-{len(written):05}.{suffix}"
            (folder / file.name).replace(folder / final)
            file.name = final
    return written


def _encoded(split: str, examples: Sequence[Example], infos: dict[str, ImageInfo]) -> Iterator[Record]:
    def encode(numbered: tuple[int, Example]) -> Record:
        number, example = numbered
        image = example["image"]
        try:
            return encode_example(example, infos.get(image) if isinstance(image, str) else None)
        except (DataError, OSError) as error:
            raise DataError(f"Example {number} of the {split} split cannot be written: {error}") from error

    todo = enumerate(examples)
    with ThreadPoolExecutor(max_workers=os.cpu_count()) as pool, progress(f"Writing {split}", len(examples)) as done:
        # In chunks: a pool would take the whole set at once, with all its bytes.
        while chunk := list(itertools.islice(todo, _CHUNK)):
            yield from pool.map(encode, chunk)
            done(len(chunk))


def _write_shard(folder: Path, name: str, records: Iterable[Record], limit: int | None) -> Shard:
    """Writes records until there are none left, or `limit` bytes are reached."""
    shard, index = folder / f"{name}.tfrecord", folder / f"{name}.index"
    count = position = 0
    with tf.io.TFRecordWriter(str(shard)) as shard_file, tf.io.TFRecordWriter(str(index)) as index_file:
        for record in records:
            serialized = record.serialized()
            places = {}
            for content_name, content in record.contents.items():
                # The first bytes that are equal are as good as the others.
                offset = position + _BEFORE + serialized.find(content)
                places[f"{content_name}/slice"] = text(slice_reference("", count, offset, content))
            shard_file.write(serialized)
            index_file.write(serialize({**record.features, **places}))
            position += _BEFORE + len(serialized) + _AFTER
            count += 1
            if limit is not None and position >= limit:
                break
    return Shard(examples=count, records=_stored(shard), index=_stored(index))


def _stored(file: Path) -> StoredFile:
    return StoredFile(file.name, file.stat().st_size, sha256_of(file))


def load_shards(folder: Path, verify: bool = False) -> Listing:
    """Lists a folder of shards; no image is read, as all of them were verified when they were written.

    Args:
        folder: of the set, from `storage.as_path`.
        verify: compare every byte with the checksums first.

    Returns:
        The items, their images and masks as references into the shards.

    Raises:
        DataError: the set is damaged, or index.json is of another version.
    """
    index = check_shards(folder) if verify else read_index(folder)
    listing = Listing({}, tuple(index.labels), index.multi_label, kind=_kind_of(index))
    listing.keypoint_names = tuple(index.keypoint_names)
    with _no_collection():
        for split, shards in index.splits.items():
            items = listing.splits.setdefault(split, [])
            for shard in shards:
                records = str(folder / shard.records.name)
                for number, features in enumerate(_rows(folder / shard.index.name, shard)):
                    try:
                        info = decode_info(features)
                        item = _item(records, features, info, index, f"{split}/{len(items)}")
                    # What a file of this format may hold, but `write_shards` does not write.
                    except (KeyError, IndexError, ValueError, TypeError) as error:
                        raise DataError(
                            f"{folder / shard.index.name}: record {number} is unusable: {error}."
                        ) from error
                    items.append(item)
                    listing.infos[str(item.image)] = info
    return listing


@contextlib.contextmanager
def _no_collection() -> Iterator[None]:
    """Keeps Python from looking for garbage among millions of new objects, none of which is any."""
    enabled = gc.isenabled()
    gc.disable()
    try:
        yield
    finally:
        if enabled:
            gc.enable()


def _kind_of(index: ShardIndex) -> Literal["labels", "objects", "segmentation"]:
    if "label" in index.fields or "labels" in index.fields:
        return "labels"
    return "objects" if "boxes" in index.fields else "segmentation"


def _rows(file: Path, shard: Shard) -> Iterator[Features]:
    """The features of every record in an index."""
    content = file.read_bytes()
    if hashlib.sha256(content).hexdigest() != shard.index.sha256:
        raise DataError(f"{file} is damaged (wrong checksum). Copy the file again.")
    position = count = 0
    while position < len(content):
        start = position + _BEFORE
        end = start + int.from_bytes(content[position : position + 8], "little")
        try:
            yield decode_features(content[start:end])
        except DecodeError as error:
            raise DataError(f"{file}: record {count} is unusable: {error}.") from error
        position = end + _AFTER
        count += 1
    if count != shard.examples:
        raise DataError(f"{file} has {count} examples, expected {shard.examples}. Write the shards again.")


def _item(shard: str, features: Features, info: ImageInfo, index: ShardIndex, key: str) -> Item:
    fields = decode_fields(features, index.keypoints)
    labels = [fields["label"]] if "label" in fields else fields.get("labels", [])
    parts = {name: shard + read_text(features[f"{name}/slice"]) for name in CONTENTS if name in index.fields}
    of_objects = {name: fields[name] for name in _OBJECTS if name in fields}
    objects = Objects(**of_objects) if of_objects else None
    # Decoders of masks trust the numbers they are given.
    for mask in fields.get("masks", ()):
        if reason := check_segmentation(mask, info.upright_size):
            raise ValueError(reason)
    return Item(
        image=parts["image"],
        labels=tuple(index.labels[label] for label in labels),
        key=fields.get("key", key),
        group=fields.get("group"),
        size=info.upright_size,
        objects=objects,
        segmentation=MaskFile(parts["segmentation"]) if "segmentation" in parts else None,
    )
