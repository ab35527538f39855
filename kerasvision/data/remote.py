"""Paths on other file systems, with as much of pathlib as loaders use; fsspec opens them, or tf.io.gfile."""

import functools
import io
from collections.abc import Iterator
from pathlib import PurePosixPath
from typing import IO, Any

from kerasvision.errors import DataError


class RemotePath:
    """A path on another file system, with as much of pathlib as loaders use.

    Args:
        url: "PROTOCOL://path".

    Raises:
        DataError: nothing here opens that protocol.
        ImportError: a package that opens it is missing; the message names it.
    """

    def __init__(self, url: str) -> None:
        self._protocol, _, path = url.partition("://")
        self._path = PurePosixPath(path)
        self._files = _file_system(self._protocol)

    def __str__(self) -> str:
        return f"{self._protocol}://{self._path}"

    def __repr__(self) -> str:
        return f"RemotePath({str(self)!r})"

    def __truediv__(self, other: object) -> "RemotePath":
        return RemotePath(f"{self._protocol}://{self._path / str(other)}")

    def __eq__(self, other: object) -> bool:
        return isinstance(other, RemotePath) and str(self) == str(other)

    def __hash__(self) -> int:
        return hash(str(self))

    def __lt__(self, other: "RemotePath") -> bool:
        return str(self) < str(other)

    @property
    def name(self) -> str:
        """Last part."""
        return self._path.name

    @property
    def stem(self) -> str:
        """Last part without its suffix."""
        return self._path.stem

    @property
    def suffix(self) -> str:
        """Last part from its last dot on."""
        return self._path.suffix

    @property
    def parts(self) -> tuple[str, ...]:
        """All parts below the protocol."""
        return self._path.parts

    @property
    def parent(self) -> "RemotePath":
        """The folder it lies in."""
        return RemotePath(f"{self._protocol}://{self._path.parent}")

    def as_posix(self) -> str:
        """The whole address."""
        return str(self)

    def with_suffix(self, suffix: str) -> "RemotePath":
        """The path with another suffix."""
        return RemotePath(f"{self._protocol}://{self._path.with_suffix(suffix)}")

    def with_name(self, name: str) -> "RemotePath":
        """The path with another last part."""
        return self.parent / name

    def relative_to(self, other: "RemotePath") -> PurePosixPath:
        """The path as seen from a folder above it."""
        return self._path.relative_to(other._path)

    def absolute(self) -> "RemotePath":
        """The path itself: an address is always absolute."""
        return self

    def expanduser(self) -> "RemotePath":
        """The path itself: "~" means nothing elsewhere."""
        return self

    def exists(self) -> bool:
        """Whether there is such a file or folder."""
        return self._files.exists(str(self))

    def is_file(self) -> bool:
        """Whether it is a file."""
        return self._files.isfile(str(self))

    def is_dir(self) -> bool:
        """Whether it is a folder."""
        return self._files.isdir(str(self))

    def iterdir(self) -> Iterator["RemotePath"]:
        """What lies in the folder."""
        found = (str(path).rpartition("://")[2].strip("/") for path in self._files.ls(str(self), detail=False))
        # Object stores list an empty marker of the folder itself, too.
        return iter([self / path.rpartition("/")[2] for path in found if path != str(self._path).strip("/")])

    def open(self, mode: str = "r", encoding: str | None = None, newline: str | None = None) -> IO[Any]:
        """Open the file as `open` does."""
        binary = self._files.open(str(self), mode.replace("t", "").rstrip("b") + "b")
        return binary if "b" in mode else io.TextIOWrapper(binary, encoding=encoding or "utf-8", newline=newline)

    def read_bytes(self, start: int | None = None, end: int | None = None) -> bytes:
        """The file's bytes, or some of them."""
        return bytes(self._files.cat_file(str(self), start=start, end=end))

    def size(self) -> int:
        """Number of bytes."""
        return int(self._files.size(str(self)))

    def read_text(self, encoding: str = "utf-8") -> str:
        """The file's text."""
        return self.read_bytes().decode(encoding)


class _TensorFlowFiles:
    """tf.io.gfile with the methods of an fsspec file system that are used here."""

    def __init__(self) -> None:
        import tensorflow as tf

        self._gfile = tf.io.gfile

    def exists(self, url: str) -> bool:
        return self._gfile.exists(url)

    def isdir(self, url: str) -> bool:
        return self._gfile.isdir(url)

    def isfile(self, url: str) -> bool:
        return self._gfile.exists(url) and not self._gfile.isdir(url)

    def ls(self, url: str, detail: bool) -> list[str]:
        return [f"{url}/{name}" for name in self._gfile.listdir(url)]

    def size(self, url: str) -> int:
        return self._gfile.stat(url).length

    def open(self, url: str, mode: str) -> IO[bytes]:
        # A GFile lacks what a text reader asks of a stream.
        return io.BytesIO(self.cat_file(url))

    def cat_file(self, url: str, start: int | None = None, end: int | None = None) -> bytes:
        with self._gfile.GFile(url, "rb") as file:
            file.seek(start or 0)
            return file.read(-1 if end is None else end - (start or 0))


@functools.cache
def _file_system(protocol: str) -> Any:
    import fsspec

    try:
        return fsspec.filesystem(protocol)
    except (ImportError, ValueError) as error:
        if _known_to_tensorflow(protocol):
            return _TensorFlowFiles()
        if isinstance(error, ImportError):
            raise ImportError(f"{protocol}:// cannot be opened yet: {error}.") from error
        raise DataError(
            f"{protocol}:// is not known to fsspec or TensorFlow. Expected a local path, or memory://, http://, "
            "https://, s3://, gs:// or another protocol whose fsspec package is installed."
        ) from error


def _known_to_tensorflow(protocol: str) -> bool:
    import tensorflow as tf

    # gs:// is only claimed where TensorFlow was built with it.
    return protocol in tf.io.gfile.get_registered_schemes()
