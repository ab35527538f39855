"""What travels inside every exported file: labels, preprocessing and signature, written once, read by one function."""

import json
import zipfile
from pathlib import Path
from typing import Any

import kerasvision
from kerasvision.errors import ArtifactError

LABELS = "labels.txt"
FACTS = "kerasvision.json"
EXTRA_ASSETS = "assets.extra"  # SavedModel's own folder for files that TensorFlow neither reads nor minds.

_KINDS = (
    (b"PK\x03\x04", "a zip archive (a .keras file is one)"),
    (b"\x89HDF", "an HDF5 file (.h5)"),
    (b"\x89PNG", "a PNG image"),
    (b"\xff\xd8\xff", "a JPEG image"),
    (b"\x1f\x8b", "a gzip archive"),
    (b"<", "a web page or XML"),
    (b"{", "JSON text"),
    (b"\x08", "an ONNX or other protobuf file"),
)


def describe_file(path: Path) -> str:
    """What a file seems to be, from its first bytes, as words for an error message."""
    if path.is_dir():
        return "a folder"
    head = path.open("rb").read(16)
    if not head:
        return "an empty file"
    if head[4:8] == b"TFL3":
        return "a TFLite file"
    for magic, kind in _KINDS:
        if head.startswith(magic):
            return kind
    return "text" if head.isascii() and head.decode().isprintable() else "of no known kind"


def model_metadata(model: Any, quantization: str, signature: dict[str, Any] | None = None) -> dict[str, Any]:
    """The content of kerasvision.json.

    Args:
        model: TaskModel or QuantizedModel.
        quantization: "none", "float16", "dynamic", "int8" or "qat".
        signature: {"inputs": {name: TensorSpec config}, "outputs": {...}}.
    """
    return {
        "kerasvision": kerasvision.__version__,
        "name": model.name,
        "task": {"name": model.task.name, **model.task.get_config()},
        "preprocessing": model.preprocessing.get_config(),
        "image_size": list(model.image_size),
        "channels": model.channels,
        "labels": list(model.labels),
        "quantization": quantization,
        **({"signature": signature} if signature else {}),
    }


def facts_text(facts: dict[str, Any]) -> str:
    """kerasvision.json as it stands in the file."""
    return json.dumps(facts, indent=1, ensure_ascii=False)


def labels_text(facts: dict[str, Any]) -> str:
    """labels.txt: one class name a line, in the order of the scores."""
    return "".join(" ".join(label.split()) + "\n" for label in facts["labels"])


def read_metadata(path: str | Path) -> dict[str, Any] | None:
    """Read back what `export` packed into a file.

    Args:
        path: `.tflite` or `.onnx` file, or SavedModel folder.

    Returns:
        The content of kerasvision.json (labels, task, preprocessing, image_size, channels, quantization,
        signature), or None for a sound file that kerasvision did not write.

    Raises:
        ArtifactError: not such a file, or a damaged one.
    """
    path = Path(path)
    if path.is_dir():
        facts = path / EXTRA_ASSETS / FACTS
        return _parse(path, facts.read_text("utf-8")) if facts.exists() else None
    if not path.exists():
        raise ArtifactError(f"{path} does not exist.")
    if path.suffix == ".onnx":
        return _read_onnx(path)
    if path.open("rb").read(8)[4:] != b"TFL3":
        raise ArtifactError(
            f"{path} is {describe_file(path)}, not a TFLite file. Give a .tflite file that export wrote."
        )
    return _read_tflite(path)


def _read_tflite(path: Path) -> dict[str, Any] | None:
    if not zipfile.is_zipfile(path):
        if FACTS.encode() in path.read_bytes():
            raise ArtifactError(f"{path} is truncated: the labels at its end are missing. Copy or export it again.")
        return None
    try:
        with zipfile.ZipFile(path) as archive:
            if FACTS not in archive.namelist():
                return None
            return _parse(path, archive.read(FACTS).decode("utf-8"))
    except (zipfile.BadZipFile, UnicodeDecodeError) as error:
        raise ArtifactError(f"{path} is damaged: {error}. Copy or export it again.") from error


def _read_onnx(path: Path) -> dict[str, Any] | None:
    try:
        import onnx
    except ImportError as error:
        raise ImportError('Reading .onnx files needs onnx: pip install "kerasvision[onnx]"') from error
    try:
        model = onnx.load(str(path), load_external_data=False)
    except Exception as error:  # protobuf's DecodeError, whose class depends on its backend.
        raise ArtifactError(f"{path} is {describe_file(path)}, not a readable ONNX file. Export it again.") from error
    facts = {item.key: item.value for item in model.metadata_props}.get(FACTS)
    return None if facts is None else _parse(path, facts)


def _parse(path: Path, text: str) -> dict[str, Any]:
    try:
        return json.loads(text)
    except json.JSONDecodeError as error:
        raise ArtifactError(
            f"{path} is damaged: its {FACTS} is not JSON ({error}). Copy or export it again."
        ) from error
