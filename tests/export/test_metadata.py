import json
import zipfile

import flatbuffers
import numpy as np
import pytest
from ai_edge_litert import schema_py_generated as schema

import kerasvision as kv
from kerasvision.errors import ArtifactError
from kerasvision.export.engines import open_engine
from kerasvision.export.metadata import labels_text, read_metadata
from kerasvision.export.tflite_metadata import IDENTIFIER


@pytest.fixture(scope="module")
def files(colour_model, colour_data, tmp_path_factory):
    """{"float": ..., "int8": ...}: exported .tflite files of a model with three channels."""
    folder = tmp_path_factory.mktemp("files")
    return {
        name: kv.export(colour_model, folder, quantization=quantization, data=colour_data, benchmark=False).path
        for name, quantization in (("float", "none"), ("int8", "int8"))
    }


def test_the_archive_behind_the_model_is_a_plain_zip(files, labels, metadata_buffer):
    with zipfile.ZipFile(files["int8"]) as archive:
        assert archive.namelist() == ["labels.txt", "kerasvision.json"]
        assert archive.read("labels.txt").decode().splitlines() == list(labels)
        assert {item.compress_type for item in archive.infolist()} == {zipfile.ZIP_STORED}
        assert json.loads(archive.read("kerasvision.json")) == read_metadata(files["int8"])
    assert metadata_buffer(files["int8"])[4:8] == IDENTIFIER


def test_weights_stay_aligned(files):
    content = files["float"].read_bytes()
    model = schema.Model.GetRootAs(content)
    start = np.frombuffer(content, np.uint8).ctypes.data
    data = [model.Buffers(i).DataAsNumpy() for i in range(model.BuffersLength()) if model.Buffers(i).DataLength()]
    assert len(data) > 5
    assert {(array.ctypes.data - start) % 16 for array in data} == {0}


def test_equal_vectors_are_stored_once(files):
    """The zero points of weights of as many channels are one vector, and other values are not touched."""
    content = files["int8"].read_bytes()
    graph = schema.Model.GetRootAs(content).Subgraphs(0)
    start = np.frombuffer(content, np.uint8).ctypes.data
    places, channels = {}, 0
    for index in range(graph.TensorsLength()):
        found = graph.Tensors(index).Quantization().ZeroPointAsNumpy()
        if isinstance(found, np.ndarray) and found.size > 1:
            assert not found.any() and found.size == graph.Tensors(index).Quantization().ScaleLength()
            places.setdefault(found.size, set()).add(found.ctypes.data - start)
            channels += 1
    assert channels > len(places) and {len(found) for found in places.values()} == {1}


def test_two_exports_are_the_same_bytes(files, metadata_buffer, colour_model, colour_data, tmp_path):
    again = kv.export(colour_model, tmp_path, quantization="int8", data=colour_data, benchmark=False).path
    assert read_metadata(again) == read_metadata(files["int8"])
    assert metadata_buffer(again) == metadata_buffer(files["int8"])
    assert again.stat().st_size == files["int8"].stat().st_size


@pytest.mark.parametrize("kind", ["float", "int8"])
def test_another_reader_of_the_standard_schema_agrees(kind, files, labels, metadata_buffer, mediapipe_schema):
    reader = mediapipe_schema
    model = reader.ModelMetadataT.InitFromPackedBuf(metadata_buffer(files[kind]))
    assert model.name == b"small_cnn"
    assert b"raw pixels" in model.description
    assert model.minParserVersion == b"1.0.0"
    (graph,) = model.subgraphMetadata
    (image,), (scores,) = graph.inputTensorMetadata, graph.outputTensorMetadata
    assert (image.name, scores.name) == (b"image", b"scores")
    properties = image.content.contentProperties
    assert properties.colorSpace == reader.ColorSpaceType.RGB
    assert (properties.defaultSize.height, properties.defaultSize.width) == (24, 20)
    (unit,) = image.processUnits
    assert (unit.options.mean, unit.options.std) == ([0.0], [1.0])
    assert (list(image.stats.min), list(image.stats.max)) == ([0.0], [255.0])
    assert (list(scores.stats.min), list(scores.stats.max)) == ([0.0], [1.0])
    (file,) = scores.associatedFiles
    assert (file.name, file.type) == (b"labels.txt", reader.AssociatedFileType.TENSOR_AXIS_LABELS)
    assert [file.name for file in graph.associatedFiles] == [b"kerasvision.json"]


@pytest.mark.parametrize("kind", ["float", "int8"])
def test_a_phones_classifier_runs_the_file(kind, files, colour_data):
    mediapipe = pytest.importorskip("mediapipe", reason="mediapipe, the classifier of phones, is not installed")
    tasks = mediapipe.tasks
    options = tasks.vision.ImageClassifierOptions(
        base_options=tasks.BaseOptions(model_asset_path=str(files[kind])), max_results=4
    )
    engine = open_engine(files[kind])
    with tasks.vision.ImageClassifier.create_from_options(options) as classifier:
        for image in colour_data[0][:4].astype(np.uint8):
            shown = mediapipe.Image(image_format=mediapipe.ImageFormat.SRGB, data=image)
            found = classifier.classify(shown).classifications[0].categories
            scores = engine.run(image[None])["scores"][0]
            assert {item.category_name: item.score for item in found} == pytest.approx(
                dict(zip(engine.metadata["labels"], scores.tolist(), strict=True)), abs=1e-5
            )


def test_labels_stay_one_a_line():
    assert labels_text({"labels": ["a cat", "two\nlines", "ä"]}) == "a cat\ntwo lines\nä\n"


def test_a_sound_file_of_somebody_else_has_none(files, tmp_path):
    model = schema.ModelT.InitFromPackedBuf(files["float"].read_bytes())
    model.metadata = model.buffers = None
    builder = flatbuffers.Builder(1024)
    builder.Finish(model.Pack(builder), file_identifier=b"TFL3")
    foreign = tmp_path / "foreign.tflite"
    foreign.write_bytes(builder.Output())
    assert read_metadata(foreign) is None
    (tmp_path / "folder").mkdir()
    assert read_metadata(tmp_path / "folder") is None


def test_a_file_without_its_end_is_damaged(files, tmp_path):
    content = files["float"].read_bytes()
    for length in (
        len(content) - 1,
        len(content) - 400,
        content.index(b"labels.txt\n") if b"labels.txt\n" in content else 5000,
    ):
        cut = tmp_path / "cut.tflite"
        cut.write_bytes(content[:length])
        with pytest.raises(ArtifactError, match="cut.tflite is truncated"):
            read_metadata(cut)


def test_what_is_no_model_file(tmp_path):
    for name, content, kind in (
        ("a.tflite", b"", "an empty file"),
        ("b.tflite", b"\x89PNG\r\n\x1a\n0000", "a PNG image"),
        ("c.tflite", b"PK\x03\x04rest", "a zip archive"),
        ("d.tflite", b"hello", "text"),
        ("e.tflite", bytes(range(128, 200)), "of no known kind"),
        ("f.onnx", b"hello", "text"),
    ):
        (tmp_path / name).write_bytes(content)
        if name.endswith(".onnx"):
            pytest.importorskip("onnx", reason="the extra onnx is not installed")
        with pytest.raises(ArtifactError, match=f"{name} is {kind}"):
            read_metadata(tmp_path / name)
    with pytest.raises(ArtifactError, match="does not exist"):
        read_metadata(tmp_path / "none.tflite")
    folder = tmp_path / "damaged" / "assets.extra"
    folder.mkdir(parents=True)
    (folder / "kerasvision.json").write_text("{")
    with pytest.raises(ArtifactError, match="not JSON"):
        read_metadata(tmp_path / "damaged")
