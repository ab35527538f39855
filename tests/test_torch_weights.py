"""Files as torch.save writes them are made here by pickle, with stand-ins for torch's classes."""

import io
import os
import pickle
import sys
import types
import zipfile
from collections import OrderedDict

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from kerasvision.errors import WeightsError
from kerasvision.torch_weights import read_state_dict

MAGIC = 0x1950A86A20F9469CFC6C
NAMES = {
    "float64": "DoubleStorage",
    "float32": "FloatStorage",
    "float16": "HalfStorage",
    "int64": "LongStorage",
    "int32": "IntStorage",
    "int16": "ShortStorage",
    "int8": "CharStorage",
    "uint8": "ByteStorage",
    "bool": "BoolStorage",
    "bfloat16": "BFloat16Storage",
    "complex64": "ComplexFloatStorage",
}


def fake_torch():
    """Modules and classes that pickle as torch's do."""
    torch, utils = types.ModuleType("torch"), types.ModuleType("torch._utils")
    for name in NAMES.values():
        setattr(torch, name, type(name, (), {"__module__": "torch"}))
    for name in ("_rebuild_tensor_v2", "_rebuild_parameter"):
        function = types.FunctionType((lambda *_: None).__code__, {}, name)
        function.__module__, function.__qualname__ = "torch._utils", name
        setattr(utils, name, function)
    return {"torch": torch, "torch._utils": utils}


MODULES = fake_torch()


class Storage:
    def __init__(self, key, values, kind=None, numel=None, view=None):
        self.key, self.values, self.view = key, values, view
        self.kind = NAMES[kind or values.dtype.name]
        self.numel = values.size if numel is None else numel


class Tensor:
    def __init__(self, storage, shape=None, strides=None, offset=0, parameter=False):
        self.storage, self.offset, self.parameter = storage, offset, parameter
        self.shape = storage.values.shape if shape is None else shape
        if strides is None:
            strides = tuple(int(np.prod(self.shape[axis + 1 :])) for axis in range(len(self.shape)))
        self.strides = strides

    def __reduce__(self):
        utils = MODULES["torch._utils"]
        arguments = (self.storage, self.offset, tuple(self.shape), tuple(self.strides), False, OrderedDict())
        if self.parameter:
            plain = Tensor(self.storage, self.shape, self.strides, self.offset)
            return utils._rebuild_parameter, (plain, True, OrderedDict())
        return utils._rebuild_tensor_v2, arguments


def tensor(key, values, **storage):
    return Tensor(Storage(key, values, **storage))


class Call:
    """Pickles as a call of a function."""

    def __init__(self, function, *arguments):
        self.call = function, arguments

    def __reduce__(self):
        return self.call


class Pickler(pickle.Pickler):
    """Writes storages as persistent ids and keeps them, in order, as torch.save does."""

    def __init__(self, buffer, protocol, stream):
        super().__init__(buffer, protocol)
        self.stream, self.storages = stream, {}

    def persistent_id(self, item):
        if not isinstance(item, Storage):
            return None
        self.storages.setdefault(item.key, item)
        identity = ("storage", getattr(MODULES["torch"], item.kind), item.key, "cpu", item.numel)
        return (*identity, item.view) if self.stream else identity


def dump(value, protocol=2, stream=False):
    """Pickles a value; returns the bytes and the storages it names, in order."""
    buffer = io.BytesIO()
    pickler = Pickler(buffer, protocol, stream)
    before = {name: sys.modules.get(name) for name in MODULES}
    sys.modules.update(MODULES)
    try:
        pickler.dump(value)
    finally:
        for name, module in before.items():
            sys.modules.pop(name)
            if module is not None:
                sys.modules[name] = module
    return buffer.getvalue(), pickler.storages


def stream_file(value, protocol=2):
    data, storages = dump(value, protocol, stream=True)
    system = {
        "protocol_version": 1001,
        "little_endian": True,
        "type_sizes": {"short": 2, "int": 4, "long": 4},
    }
    parts = [pickle.dumps(part, 2) for part in (MAGIC, 1001, system)]
    parts += [data, pickle.dumps(list(storages), 2)]
    for storage in storages.values():
        parts += [storage.numel.to_bytes(8, "little"), storage.values.tobytes()]
    return b"".join(parts)


def zip_file(value, protocol=2, order=None, compression=zipfile.ZIP_STORED):
    data, storages = dump(value, protocol)
    buffer = io.BytesIO()
    with zipfile.ZipFile(buffer, "w", compression) as archive:
        archive.writestr("net/data.pkl", data)
        if order:
            archive.writestr("net/byteorder", order)
        for key, storage in storages.items():
            archive.writestr(f"net/data/{key}", storage.values.tobytes())
        archive.writestr("net/version", "3\n")
    return buffer.getvalue()


FORMATS = pytest.mark.parametrize("write", [stream_file, zip_file])


def small_state():
    state = OrderedDict()
    state["conv.weight"] = tensor("7", np.arange(24, dtype=np.float32).reshape(2, 3, 2, 2))
    state["bn.steps"] = tensor("8", np.asarray(5, np.int64))
    state._metadata = OrderedDict(version=1)  # torch hangs this on every state dict
    return state


@pytest.fixture
def read(tmp_path):
    def read_bytes(data):
        path = tmp_path / "net.pth"
        path.write_bytes(data)
        return read_state_dict(path)

    return read_bytes


def refused(read, data, *words):
    with pytest.raises(WeightsError) as caught:
        read(data)
    for word in ("net.pth", *words):
        assert word in str(caught.value)


@FORMATS
@pytest.mark.parametrize("protocol", [2, 4])
def test_reads_both_formats(read, write, protocol):
    state = read(write(small_state(), protocol))
    assert list(state) == ["conv.weight", "bn.steps"]
    np.testing.assert_array_equal(state["conv.weight"], np.arange(24, dtype=np.float32).reshape(2, 3, 2, 2))
    assert state["bn.steps"].shape == () and state["bn.steps"] == 5
    assert not state["conv.weight"].flags.writeable


@FORMATS
def test_plain_dict_and_parameters(read, write):
    values = np.ones(3, np.float16)
    parameter = Tensor(Storage("0", values), parameter=True)
    for value in ({"w": parameter}, Call(OrderedDict, [["w", parameter]])):
        np.testing.assert_array_equal(read(write(value))["w"], values)


@st.composite
def strided(draw):
    """A flat storage, and a tensor in it with any offset, steps and order of axes."""
    dtype = draw(st.sampled_from([name for name in NAMES if name not in ("bfloat16", "complex64")]))
    shape = draw(st.lists(st.integers(0, 4), max_size=4))
    base = np.arange(int(np.prod(shape)) or 1).astype(dtype)
    array = base[: int(np.prod(shape))].reshape(shape)
    steps = [slice(draw(st.integers(0, n)), None, draw(st.integers(1, 2))) for n in shape]
    array = array[(*steps, ...)]
    array = array.transpose(draw(st.permutations(range(array.ndim))))
    start = array.__array_interface__["data"][0] - base.__array_interface__["data"][0]
    offset = start // base.itemsize if array.size else 0
    strides = [stride // base.itemsize for stride in array.strides]
    return base, array, offset, strides


@given(cases=st.lists(strided(), min_size=1, max_size=4), write=st.sampled_from([stream_file, zip_file]))
def test_round_trip(cases, write, tmp_path_factory):
    path = tmp_path_factory.mktemp("round") / "net.pth"
    state = OrderedDict()
    for index, (base, array, offset, strides) in enumerate(cases):
        state[f"t{index}"] = Tensor(Storage(str(index), base), array.shape, strides, offset)
    path.write_bytes(write(state))
    result = read_state_dict(path)
    assert list(result) == list(state)
    for (_, array, _, _), read_back in zip(cases, result.values(), strict=True):
        assert read_back.dtype == array.dtype
        np.testing.assert_array_equal(read_back, array)


@FORMATS
def test_tensors_that_share_a_storage(read, write):
    storage = Storage("0", np.arange(6, dtype=np.float32))
    state = read(write({"a": Tensor(storage, (6,)), "b": Tensor(storage, (3, 2), (1, 3))}))
    np.testing.assert_array_equal(state["b"], [[0, 3], [1, 4], [2, 5]])
    assert np.shares_memory(state["a"], state["b"])


@FORMATS
def test_bfloat16_becomes_float32(read, write):
    values = np.asarray([1.0, -2.5, 3e38, 0.0078125], np.float32)
    halves = (values.view(np.uint32) >> 16).astype(np.uint16)
    state = read(write({"w": tensor("0", halves, kind="bfloat16")}))
    assert state["w"].dtype == np.float32
    np.testing.assert_allclose(state["w"], values, rtol=2**-7)


def test_view_of_a_storage_in_the_old_format(read):
    values = np.arange(10, dtype=np.float32)
    view = Storage("0", values, view=("1", 4, 3))
    np.testing.assert_array_equal(read(stream_file({"w": Tensor(view, (3,))}))["w"], [4, 5, 6])
    refused(read, stream_file({"w": Tensor(view, (4,))}), "reaches element 3")
    outside = Storage("0", values, view=("1", 8, 3))
    refused(read, stream_file({"w": Tensor(outside, (3,))}), "outside storage")


def test_big_endian_zip(read):
    state = read(zip_file({"w": tensor("0", np.asarray([1, 2], ">i4"), kind="int32")}, order=b"big"))
    np.testing.assert_array_equal(state["w"], [1, 2])
    refused(read, zip_file(small_state(), order=b"middle"), "byteorder")


@pytest.mark.parametrize("write", [stream_file, zip_file, lambda value, _: pickle.dumps(value)])
@pytest.mark.parametrize("protocol", [2, 4])
def test_code_is_refused_and_not_run(read, write, protocol, tmp_path):
    trap = tmp_path / "trap"
    command = f"touch {trap}"
    calls = {
        f"{os.system.__module__}.system": Call(os.system, command),
        "builtin": Call(eval, f"open({str(trap)!r}, 'w')"),
        "getattr": Call(getattr, Call(OrderedDict), "clear"),
        "OrderedDict": Call(OrderedDict, [("w", Call(OrderedDict, [("x", Call(os.system, command))]))]),
        "torch._utils._rebuild": Call(MODULES["torch._utils"]._rebuild_parameter, Call(os.system, command)),
    }
    for name, call in calls.items():
        if write not in (stream_file, zip_file) and name.startswith("torch"):
            continue
        value = {"w": call} if name != "OrderedDict" else call
        with pytest.raises(WeightsError, match="refused: the file asks for '") as caught:
            read(write(value, protocol))
        assert "net.pth" in str(caught.value)
        assert not trap.exists()


STREAM_HEAD = pickle.dumps(MAGIC, 2) + pickle.dumps(1001, 2) + pickle.dumps({}, 2)


@pytest.mark.parametrize(
    ("program", "words"),
    [
        (b"ccollections\nOrderedDict.__init__.__globals__\n.", "OrderedDict.__init__.__globals__"),
        (b"\x8c\x02os\x8c\x06system\x93.", "os.system"),
        (b"ctorch\nload\n.", "torch.load"),
        (b"ctorch\nFloatStorage\n)R.", "type of storage"),
        (b"ctorch\nFloatStorage\n}b.", "damaged"),
        (b"ccollections\nOrderedDict\n)\x81.", "opcode NEWOBJ"),
        (b"(ios\nsystem\n.", "opcode INST"),
        (b"\x82\x01.", "opcode EXT1"),
        (b"\x96\xff\xff\xff\xff\xff\xff\xff\x00.", "damaged"),
        (b"}r\xff\xff\xff\xff.", "an empty dict"),
        (b"}))\x86K\x01s.", "dict key"),
        (b"K\x01" + b"\x85" * 200_000 + b".", "a tuple"),
        (b"}K\x01" + b"\x85" * 200_000 + b"K\x01s.", "dict key"),
        (b"K\x01Q.", "damaged"),
        (b"(K\x01ctorch\nFloatStorage\nK\x01K\x01K\x01tQ.", "malformed identity"),
        (b"R.", "damaged"),
        (b"h\x07.", "damaged"),
        (b"t.", "damaged"),
        (b"}K\x01a.", "damaged"),
        (b"ccollections\nOrderedDict\nK\x01R.", "damaged"),
    ],
)
def test_hostile_pickles(read, program, words):
    refused(read, STREAM_HEAD + b"\x80\x02" + program, words)


@FORMATS
def test_every_truncation_is_noticed(read, write):
    data = write(small_state())
    for length in range(len(data)):
        refused(read, data[:length])


@given(data=st.data())
def test_damage_never_ends_in_another_error(data, tmp_path_factory):
    content = bytearray(data.draw(st.sampled_from([stream_file, zip_file]))(small_state()))
    for _ in range(data.draw(st.integers(1, 4))):
        content[data.draw(st.integers(0, len(content) - 1))] = data.draw(st.integers(0, 255))
    path = tmp_path_factory.mktemp("fuzz") / "net.pth"
    path.write_bytes(content)
    try:
        state = read_state_dict(path)
    except WeightsError as error:
        assert "net.pth" in str(error)
    else:
        assert all(isinstance(value, np.ndarray) for value in state.values())


@FORMATS
@pytest.mark.parametrize(
    ("shape", "strides", "offset", "words"),
    [
        ((2, 3), (3, 1), 1, "reaches element 6 of a storage of 6"),
        ((6,), (2,), 0, "reaches element 10"),
        ((6,), (1,), -1, "do not fit"),
        ((2, 3), (3,), 0, "do not fit"),
        ((True,), (1,), 0, "do not fit"),
        ((1,) * 65, (1,) * 65, 0, "do not fit"),
        ((2**40, 2**40), (0, 0), 0, "larger than the file"),
        ((2**62, 0, 2**62), (0, 0, 0), 0, "damaged"),
    ],
)
def test_tensors_outside_their_storage(read, write, shape, strides, offset, words):
    storage = Storage("0", np.arange(6, dtype=np.float32))
    refused(read, write({"w": Tensor(storage, shape, strides, offset)}), words)


@FORMATS
def test_storage_that_claims_too_much(read, write):
    refused(read, write({"w": tensor("0", np.ones(4, np.float32), numel=2**50)}), "0")


@FORMATS
def test_storage_of_two_types(read, write):
    values = np.ones(4, np.float32)
    state = {"a": tensor("0", values), "b": tensor("0", values, kind="int32")}
    refused(read, write(state), "FloatStorage", "IntStorage")


@FORMATS
@pytest.mark.parametrize(
    ("value", "words"),
    [
        ([1, 2], "received a list"),
        ({}, "an empty dict"),
        ({"epoch": 3}, "'epoch' is a int"),
        ({"state_dict": {"w": tensor("0", np.ones(2, np.float32))}}, "'state_dict' is a dict"),
        ({1: tensor("0", np.ones(2, np.float32))}, "entry 1"),
        ({"w": tensor("0", np.ones(2, np.complex64))}, "torch.ComplexFloatStorage"),
    ],
)
def test_what_is_no_state_dict(read, write, value, words):
    refused(read, write(value), words)


@pytest.mark.parametrize("data", [b"", b"hello", b"\x80", b"\x80\x02.", b"\x89PNG\r\n\x1a\n", pickle.dumps([1])])
def test_other_files(read, data):
    refused(read, data, "not a file of torch.save")


def test_other_protocol_and_other_keys(read):
    data = stream_file(small_state())
    refused(read, data.replace(pickle.dumps(1001, 2), pickle.dumps(1002, 2), 1), "another version")
    keys = pickle.dumps(["7", "8"], 2)
    refused(read, data.replace(keys, pickle.dumps(["7", "9"], 2)), "list of keys")
    refused(read, data.replace(keys, pickle.dumps(["7", "8", "8"], 2)), "net.pth")


def test_storage_of_another_length_than_its_tensors_say(read):
    data = bytearray(stream_file({"w": tensor("0", np.ones(4, np.float32))}))
    data[-24:-16] = (3).to_bytes(8, "little")
    refused(read, bytes(data), "storage '0' has 3 elements, its tensors expect 4")


def test_zip_that_claims_more_than_it_has(read):
    data = bytearray(zip_file({"w": tensor("0", np.ones(4, np.float32))}))
    entry = data.rindex(b"PK\x01\x02")  # the last entry of the directory; its unpacked size is at 24
    data[entry + 24 : entry + 28] = (2**31).to_bytes(4, "little")
    refused(read, bytes(data), "claim more bytes")


def test_other_zips(read):
    refused(read, zip_file(small_state(), compression=zipfile.ZIP_DEFLATED), "compressed")
    buffer = io.BytesIO()
    with zipfile.ZipFile(buffer, "w") as archive:
        archive.writestr("readme.txt", "no tensors")
    refused(read, buffer.getvalue(), "data.pkl")
    buffer = io.BytesIO()
    with zipfile.ZipFile(buffer, "w") as archive:
        archive.writestr("net/data.pkl", dump(small_state())[0])
    refused(read, buffer.getvalue(), "net/data/7", "none at all")


def test_missing_file(tmp_path):
    with pytest.raises(FileNotFoundError, match="nowhere"):
        read_state_dict(tmp_path / "nowhere.pth")
