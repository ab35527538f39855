import contextlib
import errno
import os
import signal
from pathlib import Path

import pytest

import kerasvision as kv
from kerasvision.errors import ExportError
from kerasvision.export import exporter, onnx, saved_model, tflite
from kerasvision.export.atomic import staged
from kerasvision.export.process import Converter, converter


def names(folder):
    return sorted(str(path.relative_to(folder)) for path in folder.rglob("*"))


def test_a_file_appears_whole(tmp_path):
    target = tmp_path / "new" / "a.txt"
    with staged(target) as path:
        path.write_text("half")
        assert not target.exists()
    assert target.read_text() == "half"
    assert names(tmp_path) == ["new", "new/a.txt"]


@pytest.mark.parametrize("error", [KeyboardInterrupt, ValueError, OSError(errno.ENOSPC, "No space left on device")])
def test_a_failure_leaves_the_old_file(error, tmp_path):
    target = tmp_path / "a.txt"
    target.write_text("old")
    wanted = ExportError if isinstance(error, OSError) else error
    with pytest.raises(wanted), staged(target) as path:
        path.write_text("half")
        raise error
    assert target.read_text() == "old"
    assert names(tmp_path) == ["a.txt"]


def test_a_folder_is_replaced_or_comes_back(tmp_path, monkeypatch):
    target = tmp_path / "model"
    for content in ("first", "second"):
        with staged(target) as path:
            path.mkdir()
            (path / content).write_text(content)
    assert names(tmp_path) == ["model", "model/second"]

    replace, calls = Path.replace, []

    def fail_second(self, other):
        calls.append(other)
        if len(calls) == 2:
            raise OSError(errno.ENOSPC, "No space left on device")
        return replace(self, other)

    monkeypatch.setattr(Path, "replace", fail_second)
    with pytest.raises(ExportError, match="No space left"), staged(target) as path:
        path.mkdir()
        (path / "third").write_text("")
    assert names(tmp_path) == ["model", "model/second"]


def test_a_folder_that_cannot_be_written_to_is_named(tmp_path):
    (tmp_path / "file").write_text("")
    with (
        pytest.raises(ExportError, match=r"file/model\.onnx could not be written"),
        staged(tmp_path / "file" / "model.onnx"),
    ):
        pass


@pytest.mark.parametrize(
    ("format", "place", "function"),
    [
        ("tflite", tflite, "pack_tflite"),
        ("tflite", exporter, "open_engine"),
        ("onnx", onnx, "pack_onnx"),
        ("saved_model", saved_model, "facts_text"),
    ],
)
@pytest.mark.parametrize("error", [KeyboardInterrupt(), OSError(errno.ENOSPC, "No space left on device")])
def test_an_interrupted_export_leaves_no_half_file(format, place, function, error, model, tmp_path, monkeypatch):
    if format == "onnx":
        pytest.importorskip("tf2onnx", reason="the extra onnx is not installed")
    old = tmp_path / exporter.FORMATS[format, "none"].filename
    if format == "saved_model":
        old.mkdir()
        (old / "old").write_text("good")
    else:
        old.write_text("good")
    before = names(tmp_path)

    def fail(*_, **__):
        raise error

    monkeypatch.setattr(place, function, fail)
    with pytest.raises(ExportError if isinstance(error, OSError) else KeyboardInterrupt):
        kv.export(model, tmp_path, format=format, benchmark=False)
    assert names(tmp_path) == before


def test_a_file_that_differs_is_not_kept(model, tmp_path, monkeypatch):
    def wrong(_):
        return lambda image: {"scores": model.task.decode(model(image + 9.0, training=False))["scores"]}

    monkeypatch.setattr(exporter, "float_graph", wrong)
    with pytest.raises(ExportError, match='model_float32.tflite differs from the model: output "scores"'):
        kv.export(model, tmp_path, benchmark=False)
    assert not list(tmp_path.iterdir())


def test_a_killed_converter_is_an_error_and_the_next_one_works(model, tmp_path, monkeypatch):
    @contextlib.contextmanager
    def kill_while_waiting(*_):
        yield lambda steps: steps or os.kill(converter._process.pid, signal.SIGKILL)

    converter.stop()  # A fresh one imports TensorFlow first, so there is time to kill it.
    monkeypatch.setattr(exporter, "progress", kill_while_waiting)
    with pytest.raises(ExportError, match=r"small_cnn to TFLite \(none\) crashed: .*SIGKILL \(out of memory\?\)"):
        kv.export(model, tmp_path, benchmark=False)
    monkeypatch.undo()
    assert not list(tmp_path.iterdir())

    def interrupt():
        raise KeyboardInterrupt

    with pytest.raises(KeyboardInterrupt):
        converter.call("It", "saved_model_to_tflite", interrupt, saved_model=str(tmp_path))
    assert converter._process is None
    assert kv.export(model, tmp_path, benchmark=False).path.exists()


def test_a_failed_conversion_does_not_end_the_converter(tmp_path):
    target = str(tmp_path / "x")
    arguments = {"saved_model": str(tmp_path), "target": target, "quantization": "none", "calibration": None}
    with pytest.raises(ExportError, match="It failed: "):
        converter.call("It", "saved_model_to_tflite", **arguments)
    process = converter._process
    with pytest.raises(ExportError, match="It failed: "):
        converter.call("It", "saved_model_to_tflite", **arguments)
    assert converter._process is process


def test_a_crash_shows_the_end_of_the_log(tmp_path, monkeypatch):
    program = tmp_path / "python"
    program.write_text("#!/bin/sh\nread request\necho first >&2\necho last words >&2\nkill -SEGV $$\n")
    program.chmod(0o755)
    monkeypatch.setattr("sys.executable", str(program))
    crashing = Converter()
    with pytest.raises(ExportError, match=r"It crashed: the converter was ended by SIGSEGV.(.|\n)*last words"):
        crashing.call("It", "saved_model_to_tflite")
