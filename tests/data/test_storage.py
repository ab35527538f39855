"""Files on other file systems, and references into files."""

import fsspec
import pytest
import tensorflow as tf

from kerasvision.data import remote, storage
from kerasvision.errors import DataError


@pytest.fixture
def memory():
    """A fresh in-memory file system of fsspec."""
    files = fsspec.filesystem("memory")
    files.store.clear()
    files.pseudo_dirs[:] = [""]
    yield files
    files.store.clear()


def write_memory(files, name: str) -> str:
    files.pipe_file(f"/{name}/cats/a.txt", b"miau")
    files.pipe_file(f"/{name}/cats/cats/b.txt", "größer\n".encode())
    return f"memory://{name}"


def write_ram(files, name: str) -> str:
    for path, content in {"cats/a.txt": b"miau", "cats/cats/b.txt": "größer\n".encode()}.items():
        tf.io.gfile.makedirs(f"ram://{name}/{path.rpartition('/')[0]}")
        with tf.io.gfile.GFile(f"ram://{name}/{path}", "wb") as file:
            file.write(content)
    return f"ram://{name}"


@pytest.mark.parametrize("write", [write_memory, write_ram], ids=["fsspec", "gfile"])
def test_a_remote_path_is_used_as_a_local_one(memory, write):
    root = storage.as_path(write(memory, "root"))
    cats = root / "cats"
    assert root.is_dir() and not root.is_file() and cats.exists() and not (root / "dogs").exists()
    assert sorted(path.name for path in cats.iterdir()) == ["a.txt", "cats"]
    file = cats / "a.txt"
    assert file.is_file() and not file.is_dir()
    assert (file.name, file.stem, file.suffix, file.parent) == ("a.txt", "a", ".txt", cats)
    assert file.relative_to(root).as_posix() == "cats/a.txt" and hash(file) == hash(cats / "a.txt") and cats < file
    assert file.read_bytes() == b"miau" == storage.read_bytes(str(file))
    with (cats / "cats/b.txt").open(encoding="utf-8", newline="") as stream:
        assert list(stream) == ["größer\n"]
    with file.open("rb") as stream:
        assert stream.read() == b"miau"
    walked = [(str(folder), folders, files) for folder, folders, files in storage.walk(root)]
    assert walked == [
        (str(root), ["cats"], []),
        (str(cats), ["cats"], ["a.txt"]),
        (str(cats / "cats"), [], ["b.txt"]),
    ]
    assert file.with_suffix(".png").name == "a.png" and file.with_name("c").parent == cats
    assert storage.as_path(file) is file and file.absolute() == file.expanduser() == file


def test_walk_of_a_local_folder_can_be_pruned(tmp_path):
    (tmp_path / "a/b").mkdir(parents=True)
    (tmp_path / "a/b/deep.txt").touch()
    seen = []
    for folder, folders, files in storage.walk(tmp_path):
        folders[:] = [name for name in folders if name != "b"]
        seen.append((folder, files))
    assert seen == [(tmp_path, []), (tmp_path / "a", [])]


def test_unknown_and_missing_protocols():
    with pytest.raises(DataError, match="gopher:// is not known to fsspec or TensorFlow. Expected a local path"):
        storage.as_path("gopher://host/folder")


def test_a_missing_package_is_named(monkeypatch):
    def fail(protocol: str) -> None:
        raise ImportError("Install s3fs to access S3")

    monkeypatch.setattr(fsspec, "filesystem", fail)
    remote._file_system.cache_clear()
    with pytest.raises(ImportError, match="s3:// cannot be opened yet: Install s3fs"):
        storage.as_path("s3://bucket/folder")


def test_join_resolves_dots(tmp_path):
    assert storage.join(tmp_path, "a/../b.png") == str(tmp_path / "b.png")
    assert storage.join(tmp_path, "/b.png") == "/b.png"
    assert storage.join(storage.as_path("memory://set"), "a/../b.png") == "memory://set/b.png"
    assert storage.join(tmp_path, "memory://set/b.png") == "memory://set/b.png"


@pytest.mark.parametrize("far", [False, True])
def test_slices_are_read_and_checked(tmp_path, memory, far):
    content = bytes(range(200))
    file = tmp_path / "train-00000-of-00001.tfrecord"
    shard = "memory://set/train-00000-of-00001.tfrecord" if far else str(file)

    def write(data: bytes) -> None:
        memory.pipe_file("/set/train-00000-of-00001.tfrecord", data)
        file.write_bytes(data)

    write(content)
    reference = storage.slice_reference(shard, 7, 50, content[50:60])
    assert storage.read_bytes(reference) == content[50:60]
    write(content[:55] + b"\0" + content[56:])
    with pytest.raises(DataError, match="00001.tfrecord: record 7 is damaged"):
        storage.read_bytes(reference)
    write(content[:55])
    with pytest.raises(DataError, match="truncated in record 7"):
        storage.read_bytes(reference)


def test_a_shard_that_was_replaced_is_opened_again(tmp_path):
    file = tmp_path / "train-00000-of-00001.tfrecord"
    for content in (b"first content", b"second content"):
        (tmp_path / "new").write_bytes(content)
        (tmp_path / "new").replace(file)
        assert storage.read_bytes(storage.slice_reference(str(file), 0, 3, content[3:9])) == content[3:9]


def test_only_whole_local_files_are_plain(tmp_path):
    assert storage.is_plain("/photos/a#1.png") and storage.is_plain(str(tmp_path / "x#frame=y.png"))
    assert not storage.is_plain("s3://bucket/a.png")
    assert not storage.is_plain(storage.frame_reference("clip.mp4", 3))
    assert not storage.is_plain(storage.slice_reference("train-00000-of-00001.tfrecord", 0, 12, b"abc"))
    assert storage.is_reference("s3://b/clip.mp4#frame=3") and not storage.is_reference("s3://b/clip.mp4")
    assert storage.frame_of("clip.mp4#frame=3") == ("clip.mp4", 3) and storage.frame_of("clip.mp4") is None
