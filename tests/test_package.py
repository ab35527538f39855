"""The package as a whole: what importing it costs, and what it offers."""

import subprocess
import sys

import pytest

import kerasvision as kv


def run(code: str) -> str:
    return subprocess.run([sys.executable, "-c", code], check=True, capture_output=True, text=True).stdout


def test_import_loads_neither_tensorflow_nor_keras():
    code = (
        "import sys, kerasvision; print([m for m in ('tensorflow', 'keras', 'tf_keras', 'numpy') if m in sys.modules])"
    )
    assert run(code).strip() == "[]"


@pytest.mark.parametrize("name", [name for name in kv.__all__ if name != "__version__"])
def test_every_public_name_exists_and_is_documented(name):
    value = getattr(kv, name)
    assert value.__doc__
    assert name in dir(kv)


def test_unknown_attribute():
    with pytest.raises(AttributeError, match="no attribute 'exprt'"):
        kv.exprt  # noqa: B018


def test_export_stays_the_function_after_its_room_was_imported():
    import kerasvision.export

    assert callable(kv.export)
    assert kerasvision.export is kv.export


def test_type_checkers_and_runtime_see_the_same_names():
    from pathlib import Path

    source = Path(kv.__file__).read_text()
    for name, home in kv._HOME.items():
        assert f"from {home} import {name} as {name}" in source
