"""Reads a PyTorch state dict without PyTorch, and without running anything that is in the file.

Both formats of `torch.save` are read: the old stream (five pickles, then the raw storages) and the zip
(`data.pkl` and one record per storage). A pickle is a program; `pickle.Unpickler` with a restricted
`find_class` would still set attributes, hash what it is given and size its memo as the file asks. So the few
opcodes that a state dict needs are interpreted here, and everything else is refused by name.
"""

from __future__ import annotations

import io
import math
import pickletools
import struct
import zipfile
from collections.abc import Callable, Iterable
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np

from kerasvision.errors import WeightsError

_MAGIC = 0x1950A86A20F9469CFC6C
_PROTOCOL = 1001
_MAX_DIMENSIONS = 64  # numpy's own limit

# torch.<name>Storage -> dtype of the bytes in the file: little-endian, unless a record says otherwise.
_STORAGES: dict[str, np.dtype[Any]] = {
    "DoubleStorage": np.dtype("<f8"),
    "FloatStorage": np.dtype("<f4"),
    "HalfStorage": np.dtype("<f2"),
    "BFloat16Storage": np.dtype("<u2"),
    "LongStorage": np.dtype("<i8"),
    "IntStorage": np.dtype("<i4"),
    "ShortStorage": np.dtype("<i2"),
    "CharStorage": np.dtype("i1"),
    "ByteStorage": np.dtype("u1"),
    "BoolStorage": np.dtype("u1"),
}
_GLOBALS = {
    "collections.OrderedDict",
    "torch._utils._rebuild_tensor_v2",
    "torch._utils._rebuild_parameter",
    *(f"torch.{name}" for name in _STORAGES),
}
_LITERALS = {
    "BININT",
    "BININT1",
    "BININT2",
    "LONG1",
    "BINFLOAT",
    "BINUNICODE",
    "SHORT_BINUNICODE",
    "BINUNICODE8",
}
# What the interpreter and numpy raise when a file says something impossible.
_DAMAGE = (ValueError, IndexError, KeyError, OverflowError)
_FRESH: dict[str, Callable[[], Any]] = {
    "NONE": lambda: None,
    "NEWTRUE": lambda: True,
    "NEWFALSE": lambda: False,
    "EMPTY_TUPLE": tuple,
    "EMPTY_LIST": list,
    "EMPTY_DICT": dict,
}


class _Global(NamedTuple):
    name: str


class _Storage(NamedTuple):
    kind: str
    key: str
    numel: int
    start: int  # a view of a storage begins here ...
    size: int  # ... and has this many elements


class _Tensor(NamedTuple):
    storage: _Storage
    offset: int
    shape: tuple[int, ...]
    strides: tuple[int, ...]


def read_state_dict(path: str | Path) -> dict[str, np.ndarray]:
    """Reads the tensors of a file that `torch.save(model.state_dict(), path)` wrote, in either format.

    Strides and offsets are respected, bfloat16 becomes float32, parameters become arrays.

    Args:
        path: the `.pth`, `.pt` or `.bin` file.

    Returns:
        Tensor name to array, in the file's order. The arrays are read-only views; tensors that shared a
        storage still do.

    Raises:
        FileNotFoundError: there is no such file.
        WeightsError: the file is not a state dict, is damaged, or holds anything but tensors and plain
            containers. The message names the file.
    """
    path = Path(path)
    data = path.read_bytes()
    try:
        if data.startswith(b"PK\x03\x04"):
            return _read_zip(data)
        return _read_stream(data)
    except _RefusedError as error:
        raise WeightsError(f"{path}: {error}") from None
    except (*_DAMAGE, zipfile.BadZipFile, EOFError, RuntimeError, struct.error) as error:
        raise WeightsError(f"{path}: damaged PyTorch file ({error}); fetch or save it again.") from error


class _RefusedError(ValueError):
    """The file was understood and is not acceptable; the message is complete but for the file's name."""


def _read_stream(data: bytes) -> dict[str, np.ndarray]:
    """The old format: magic number, protocol, system, object, storage keys as pickles, then raw storages."""
    stream = io.BytesIO(data)
    if not data.startswith(b"\x80") or _first_pickle(stream) != _MAGIC:
        raise _RefusedError("not a file of torch.save: expected a zip archive or a pickle with PyTorch's magic number.")
    protocol = _interpret(stream)
    if protocol != _PROTOCOL:
        raise _RefusedError(f"written by another version of PyTorch's stream format than {_PROTOCOL}.")
    _interpret(stream)  # The writer's type sizes; torch itself writes storages little-endian whatever they say.
    tensors = _tensors(_interpret(stream))
    keys = _interpret(stream)
    storages = _by_key(tensors.values())
    if type(keys) is not list or any(type(key) is not str for key in keys) or set(keys) != set(storages):
        raise _RefusedError(
            f"damaged PyTorch file: its tensors need {len(storages)} storages, its list of keys names others."
        )
    flat = {}
    position = stream.tell()
    for key in keys:
        storage = storages[key]
        dtype = _STORAGES[storage.kind]
        stored = int.from_bytes(data[position : position + 8], "little")
        end = position + 8 + storage.numel * dtype.itemsize
        if end > len(data):
            raise _RefusedError(
                f"truncated: storage {key!r} of {storage.numel} x {dtype} should end at byte {end}, the file "
                f"has {len(data)} bytes."
            )
        if stored != storage.numel:
            raise _RefusedError(
                f"damaged PyTorch file: storage {key!r} has {stored} elements, its tensors expect {storage.numel}."
            )
        flat[key] = _decode(np.frombuffer(data[position + 8 : end], dtype), storage.kind)
        position = end
    return {name: _view(name, tensor, flat, len(data)) for name, tensor in tensors.items()}


def _read_zip(data: bytes) -> dict[str, np.ndarray]:
    """The zip format: `<folder>/data.pkl` and a record `<folder>/data/<key>` per storage, not compressed."""
    with zipfile.ZipFile(io.BytesIO(data)) as archive:
        sizes = {info.filename: info.file_size for info in archive.infolist()}
        # torch never compresses. What is not compressed cannot unpack to more than the file's own size.
        if any(info.compress_type != zipfile.ZIP_STORED for info in archive.infolist()):
            raise _RefusedError("a zip archive with compressed records, which torch.save does not write.")
        if sum(sizes.values()) > len(data):
            raise _RefusedError("a zip archive whose records claim more bytes than the file has.")
        objects = [name for name in sizes if name.count("/") == 1 and name.endswith("/data.pkl")]
        if len(objects) != 1:
            raise _RefusedError(
                f"a zip archive, but not one of torch.save: expected one <folder>/data.pkl, found {len(objects)}."
            )
        folder = objects[0].removesuffix("data.pkl")
        order = archive.read(folder + "byteorder") if folder + "byteorder" in sizes else b"little"
        if order not in (b"little", b"big"):
            raise _RefusedError(f"expected byteorder little or big, received {order!r}.")
        tensors = _tensors(_interpret(io.BytesIO(archive.read(objects[0]))))
        flat = {}
        for key, storage in _by_key(tensors.values()).items():
            record = f"{folder}data/{key}"
            dtype: np.dtype[Any] = _STORAGES[storage.kind].newbyteorder(">" if order == b"big" else "<")
            expected = storage.numel * dtype.itemsize
            if sizes.get(record, -1) < expected:
                raise _RefusedError(
                    f"damaged PyTorch file: record {record!r} should have {expected} bytes, it has "
                    f"{sizes.get(record, 'none at all')}."
                )
            flat[key] = _decode(np.frombuffer(archive.read(record), dtype, storage.numel), storage.kind)
    return {name: _view(name, tensor, flat, len(data)) for name, tensor in tensors.items()}


def _first_pickle(stream: io.BytesIO) -> Any:
    """The object of the first pickle, or None when there is none: any file may begin with a pickle's byte."""
    try:
        return _interpret(stream)
    except _RefusedError:
        raise
    except _DAMAGE:
        return None


def _tensors(state: Any) -> dict[str, _Tensor]:
    """Checks that the unpickled object is a state dict: names to tensors."""
    if type(state) is not dict or not state:
        raise _RefusedError(
            f"expected a dict of tensors, received {_describe(state)}; save it with "
            "torch.save(model.state_dict(), path)."
        )
    for name, value in state.items():
        if type(name) is not str or not isinstance(value, _Tensor):
            raise _RefusedError(
                f"expected a dict of tensors, but its entry {name!r} is {_describe(value)}; save the state "
                "dict alone with torch.save(model.state_dict(), path)."
            )
    return state


def _describe(value: Any) -> str:
    return f"an empty {type(value).__name__}" if value in ({}, [], ()) else f"a {type(value).__name__}"


def _by_key(tensors: Iterable[_Tensor]) -> dict[str, _Storage]:
    """The storages that the tensors lie in; one key means one type and one size."""
    storages: dict[str, _Storage] = {}
    for tensor in tensors:
        first = storages.setdefault(tensor.storage.key, tensor.storage)
        if (first.kind, first.numel) != (tensor.storage.kind, tensor.storage.numel):
            raise _RefusedError(
                f"damaged PyTorch file: storage {first.key!r} is {first.numel} x {first.kind} for one tensor "
                f"and {tensor.storage.numel} x {tensor.storage.kind} for another."
            )
    return storages


def _decode(flat: np.ndarray, kind: str) -> np.ndarray:
    """Raw elements [N] to the dtype they stand for, in native byte order and read-only."""
    if kind == "BFloat16Storage":
        flat = (flat.astype(np.uint32) << 16).view(np.float32)
    elif kind == "BoolStorage":
        flat = flat != 0
    else:
        flat = flat.astype(flat.dtype.newbyteorder("="), copy=False)
    flat.flags.writeable = False
    return flat


def _view(name: str, tensor: _Tensor, flat: dict[str, np.ndarray], file_size: int) -> np.ndarray:
    """Lays a tensor over its storage after checking that it stays inside."""
    storage, shape = tensor.storage, tensor.shape
    numel = math.prod(shape)
    elements = flat[storage.key][storage.start : storage.start + storage.size]
    # A stride of 0 can make a few bytes look like any number of elements.
    if numel * elements.itemsize > 2 * file_size:
        raise _RefusedError(f"tensor {name!r} of shape {shape} is larger than the file it comes from.")
    if numel == 0:
        return np.empty(shape, elements.dtype)
    last = tensor.offset + sum((n - 1) * stride for n, stride in zip(shape, tensor.strides, strict=True))
    if last >= len(elements):
        raise _RefusedError(
            f"tensor {name!r} of shape {shape}, offset {tensor.offset} and strides {tensor.strides} reaches "
            f"element {last} of a storage of {len(elements)}."
        )
    strides = [stride * elements.itemsize for stride in tensor.strides]
    return np.lib.stride_tricks.as_strided(elements[tensor.offset :], shape, strides, writeable=False)


def _interpret(stream: io.BytesIO) -> Any:
    """Runs one pickle and leaves the stream behind it: containers, numbers, strings and tensors come out."""
    stack: list[Any] = []
    marks: list[int] = []
    memo: dict[int, Any] = {}

    def since_mark() -> list[Any]:
        mark = marks.pop()
        items = stack[mark:]
        del stack[mark:]
        return items

    opcodes: Iterable[tuple[pickletools.OpcodeInfo, Any, int | None]] = pickletools.genops(stream)
    for opcode, argument, _ in opcodes:
        match opcode.name:
            case name if name in _LITERALS:
                stack.append(argument)
            case name if name in _FRESH:
                stack.append(_FRESH[name]())
            case "PROTO" | "FRAME":
                pass
            case "MARK":
                marks.append(len(stack))
            case "BINPUT" | "LONG_BINPUT":
                memo[argument] = stack[-1]
            case "MEMOIZE":
                memo[len(memo)] = stack[-1]
            case "BINGET" | "LONG_BINGET":
                stack.append(memo[argument])
            case "TUPLE":
                stack.append(tuple(since_mark()))
            case "TUPLE1" | "TUPLE2" | "TUPLE3" as name:
                count = int(name[-1])
                stack[-count:] = [tuple(stack[-count:])]
            case "APPEND":
                _expect(stack[-2], list).append(stack.pop())
            case "APPENDS":
                items = since_mark()
                _expect(stack[-1], list).extend(items)
            case "SETITEM":
                value, key = stack.pop(), stack.pop()
                _set_items(stack[-1], [(key, value)])
            case "SETITEMS":
                items = since_mark()
                _set_items(stack[-1], zip(items[::2], items[1::2], strict=True))
            case "GLOBAL":
                stack.append(_find_global(argument.replace(" ", ".", 1)))
            case "STACK_GLOBAL":
                attribute, module = stack.pop(), stack.pop()
                stack.append(_find_global(f"{_expect(module, str)}.{_expect(attribute, str)}"))
            case "BINPERSID":
                stack.append(_storage(stack.pop()))
            case "REDUCE":
                arguments, function = stack.pop(), stack.pop()
                stack.append(_reduce(_expect(function, _Global), _expect(arguments, tuple)))
            case "BUILD":
                # torch hangs `_metadata` (module versions) on the OrderedDict; nobody needs it here.
                stack.pop()
                _expect(stack[-1], dict)
            case "STOP":
                return stack.pop()
            case name:
                raise _RefusedError(f"refused: the pickle opcode {name} does not occur in a state dict.")
    raise ValueError("a pickle without an end")


def _expect(value: Any, kind: type) -> Any:
    if type(value) is not kind:
        raise ValueError(f"a pickle that uses a {type(value).__name__} as a {kind.__name__.lstrip('_')}")
    return value


def _set_items(target: Any, items: Iterable[tuple[Any, Any]]) -> None:
    for key, value in items:
        # Only these are cheap to hash whatever the file says.
        if type(key) not in (str, int):
            raise ValueError(f"a dict key of type {type(key).__name__}")
        _expect(target, dict)[key] = value


def _find_global(name: str) -> _Global:
    if name not in _GLOBALS:
        raise _RefusedError(
            f"refused: the file asks for {name!r}; only tensors, storages and OrderedDict are loaded, as "
            "anything else could run code. Save the state dict alone: torch.save(model.state_dict(), path)."
        )
    return _Global(name)


def _reduce(function: _Global, arguments: tuple[Any, ...]) -> Any:
    """What calling the global with these arguments gives, computed here instead of called."""
    if function.name == "collections.OrderedDict":
        result: dict[Any, Any] = {}
        for pairs in arguments:
            _set_items(result, _expect(pairs, list))
        return result
    if function.name == "torch._utils._rebuild_parameter":
        return _expect(arguments[0], _Tensor)
    if function.name == "torch._utils._rebuild_tensor_v2":
        storage, offset, shape, strides = arguments[:4]
        sizes = (offset, *_expect(shape, tuple), *_expect(strides, tuple))
        if len(shape) != len(strides) or len(shape) > _MAX_DIMENSIONS or not all(map(_is_size, sizes)):
            raise ValueError("a tensor whose shape, strides and offset do not fit together")
        return _Tensor(_expect(storage, _Storage), offset, shape, strides)
    raise _RefusedError(f"refused: the file calls {function.name!r}, which is a type of storage.")


def _storage(identity: Any) -> _Storage:
    """A persistent id ("storage", type, key, location, elements[, view]) to the storage it means."""
    tag, kind, key, _, numel, *rest = _expect(identity, tuple)
    kind = _expect(kind, _Global).name.removeprefix("torch.")
    if tag != "storage" or kind not in _STORAGES or type(key) is not str or not _is_size(numel):
        raise ValueError(f"a malformed identity of a storage of kind {kind!r}")
    start, size = 0, numel
    if rest and rest[0] is not None:
        _, start, size = _expect(rest[0], tuple)
        if not _is_size(start) or not _is_size(size) or start + size > numel:
            raise _RefusedError(f"a view {start}+{size} outside storage {key!r} of {numel} elements.")
    return _Storage(kind, key, numel, start, size)


def _is_size(value: Any) -> bool:
    return type(value) is int and 0 <= value < 2**63
