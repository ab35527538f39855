"""Where files lie: local paths stay pathlib's, and "PROTOCOL://..." goes through fsspec or tf.io.gfile.

A string that names an image may also point into a file: `slice_reference` gives bytes of a shard, and
`frame_reference` a frame of a video. `read_bytes` reads all of them.
"""

import functools
import os
import re
import zlib
from collections.abc import Iterator
from pathlib import Path, PurePosixPath
from typing import cast

from kerasvision.data.remote import RemotePath
from kerasvision.errors import DataError

_SLICE = re.compile(r"(.+\.tfrecord-\d{5}-of-\d{5}|.+\.tfrecord)#(\d+):(\d+)\+(\d+):([0-9a-f]{8})", re.DOTALL)
_FRAME = re.compile(r"(.+)#frame=(\d+)", re.DOTALL)


def is_remote(path: str | os.PathLike[str] | RemotePath) -> bool:
    """Whether a path is an address: it has "://" in it."""
    return "://" in str(path)


def as_path(path: str | os.PathLike[str] | RemotePath) -> Path:
    """The path of a file or folder, ready to be asked and opened.

    Args:
        path: a local path ("~" allowed), or "PROTOCOL://...".

    Returns:
        An absolute pathlib path; for an address a `RemotePath`, which has the methods that loaders use.

    Raises:
        DataError: nothing here opens that protocol.
        ImportError: a package that opens it is missing; the message names it.
    """
    if isinstance(path, RemotePath):
        return cast(Path, path)
    text = os.fspath(path)
    return cast(Path, RemotePath(text)) if is_remote(text) else Path(text).expanduser().absolute()


def size_of(file: Path) -> int:
    """Number of bytes of a file; `file` is from `as_path`."""
    return file.size() if isinstance(file, RemotePath) else file.stat().st_size


def join(folder: Path, relative: str) -> str:
    """A path as written in a file that lies in `folder`, made whole: absolute paths and addresses stay as they are.

    Args:
        folder: from `as_path`.
        relative: e.g. "images/1.jpg"; "." and ".." are resolved by their letters alone.

    Returns:
        The path, to be given to `as_path` or `read_bytes`.
    """
    if is_remote(relative):
        return relative
    if not is_remote(folder):
        return os.path.normpath(folder / Path(relative).expanduser())
    protocol, _, path = str(folder).partition("://")
    return f"{protocol}://{os.path.normpath(PurePosixPath(path) / relative)}"


def walk(folder: Path) -> Iterator[tuple[Path, list[str], list[str]]]:
    """As `os.walk`, links followed: (folder, names of folders in it, names of files in it), from the top.

    Args:
        folder: from `as_path`.

    Yields:
        The lists; folders taken out of the first are not entered.
    """
    if not isinstance(folder, RemotePath):
        yield from ((Path(current), folders, files) for current, folders, files in os.walk(folder, followlinks=True))
        return
    folders: list[str] = []
    files: list[str] = []
    for path in folder.iterdir():
        (folders if path.is_dir() else files).append(path.name)
    yield cast(Path, folder), folders, files
    for name in folders:
        yield from walk(cast(Path, folder / name))


def slice_reference(shard: str, record: int, offset: int, content: bytes) -> str:
    """Names bytes of a shard, with their checksum.

    Args:
        shard: path of a .tfrecord file.
        record: number of the record in the shard, from 0, for messages.
        offset: where the bytes begin in the file.
        content: the bytes.

    Returns:
        The reference, which `read_bytes` reads.
    """
    return f"{shard}#{record}:{offset}+{len(content)}:{zlib.crc32(content):08x}"


def frame_reference(video: str, index: int) -> str:
    """Names a frame of a video, counted from 0; `read_bytes` reads it."""
    return f"{video}#frame={index}"


def frame_of(image: str) -> tuple[str, int] | None:
    """Path of the video and number of the frame, or None where the string is not a frame's reference."""
    match = _FRAME.fullmatch(image)
    return (match[1], int(match[2])) if match else None


def is_reference(image: str) -> bool:
    """Whether a string points into a file: a `slice_reference` or `frame_reference`."""
    return "#" in image and bool(_SLICE.fullmatch(image) or _FRAME.fullmatch(image))


def is_plain(image: str) -> bool:
    """Whether a string names a whole local file, which every library can open by itself."""
    return not (is_remote(image) or is_reference(image))


def read_bytes(image: str | os.PathLike[str]) -> bytes:
    """The encoded bytes of an image, wherever it lies.

    Args:
        image: local path, address, `slice_reference` or `frame_reference`. A frame comes as a BMP file, which
            holds the pixels as they are.

    Returns:
        Content of an image file.

    Raises:
        OSError: the file cannot be read.
        DataError: the bytes of a shard are damaged, or a video has no such frame.
    """
    image = os.fspath(image)
    if "#" in image:
        if match := _SLICE.fullmatch(image):
            return _read_slice(match)
        if frame := frame_of(image):
            from kerasvision.data.video import encode_frame, read_frame

            return encode_frame(read_frame(*frame), ".bmp")
    return as_path(image).read_bytes() if is_remote(image) else Path(image).read_bytes()


class _Opened:
    """A shard that is open as long as this is wanted."""

    def __init__(self, shard: str) -> None:
        self._descriptor: int | None = None
        self._descriptor = os.open(shard, os.O_RDONLY)

    def __del__(self) -> None:
        if self._descriptor is not None:
            os.close(self._descriptor)

    def read(self, length: int, offset: int) -> bytes:
        return os.pread(self._descriptor, length, offset)  # type: ignore[arg-type]


_opened = functools.lru_cache(maxsize=64)(_Opened)


def _read_slice(match: re.Match[str]) -> bytes:
    shard, record, offset, length = match[1], int(match[2]), int(match[3]), int(match[4])
    wanted = int(match[5], 16)
    if is_remote(shard):
        content = RemotePath(shard).read_bytes(offset, offset + length)
    else:
        # One call that gives Python's lock back, where opening, seeking and closing would each fight for it.
        content = _opened(shard).read(length, offset)
        if zlib.crc32(content) != wanted:
            # What is open may be a file that another has replaced since.
            _opened.cache_clear()
            content = _opened(shard).read(length, offset)
    if len(content) < length:
        raise DataError(f"{shard}: truncated in record {record}. Copy the file again.")
    if zlib.crc32(content) != wanted:
        raise DataError(f"{shard}: record {record} is damaged (wrong checksum). Copy the file again.")
    return content
