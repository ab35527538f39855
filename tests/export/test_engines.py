import flatbuffers
import keras
import numpy as np
import pytest
from ai_edge_litert import schema_py_generated as schema

import kerasvision as kv
from kerasvision.errors import ArtifactError
from kerasvision.export.engines import TensorSpec, open_engine


@pytest.fixture(scope="module")
def tflite(model, tmp_path_factory):
    return kv.export(model, tmp_path_factory.mktemp("files"), benchmark=False).path


def test_a_keras_file_runs_like_the_others(model, data, tflite, tmp_path):
    model.save(tmp_path / "model.keras")
    engine = open_engine(tmp_path / "model.keras")
    assert engine.input_shape == (28, 28, 1)
    assert engine.metadata["labels"] == list(model.labels)
    assert engine.outputs_quantization == {"scores": None}
    images = data[0][:40]
    np.testing.assert_allclose(engine.run(images)["scores"], open_engine(tflite).run(images)["scores"], atol=1e-6)


def test_images_of_another_shape_are_refused(tflite):
    engine = open_engine(tflite)
    with pytest.raises(ValueError, match=r"shape \[N, 28, 28, 1\], got \[2, 28, 28, 3\]"):
        engine.run(np.zeros((2, 28, 28, 3)))
    assert engine.run(np.zeros((0, 28, 28, 1)))["scores"].shape == (0, 4)


def test_a_file_of_somebody_else_runs_without_signature_and_labels(tflite, data, tmp_path):
    model = schema.ModelT.InitFromPackedBuf(tflite.read_bytes())
    model.signatureDefs = model.metadata = None
    builder = flatbuffers.Builder(1024)
    builder.Finish(model.Pack(builder), file_identifier=b"TFL3")
    foreign = tmp_path / "foreign.tflite"
    foreign.write_bytes(builder.Output())
    # The names still lie in an unreachable part of the buffers; a file of somebody else has none.
    foreign.write_bytes(foreign.read_bytes().replace(b"kerasvision.json", b"description.json"))
    engine = open_engine(foreign)
    assert engine.metadata is None
    (output,) = engine.outputs
    np.testing.assert_array_equal(engine.run(data[0][:3])[output], open_engine(tflite).run(data[0][:3])["scores"])


def test_integer_tensors_become_real_numbers():
    spec = TensorSpec((1, 3), "uint8", 0.5, 2)
    np.testing.assert_array_equal(spec.dequantize(np.array([0, 2, 255], np.uint8)), [-1.0, 0.0, 126.5])
    assert TensorSpec((1,), "float16").dequantize(np.ones(1, np.float16)).dtype == np.float32


def test_a_damaged_tflite_file_is_named(tflite, tmp_path):
    content = tflite.read_bytes()
    middle = bytearray(content)
    middle[8:2000] = bytes(1992)
    for name, bad in (("zeros.tflite", bytes(middle)), ("head.tflite", content[:100]), ("empty.tflite", b"")):
        (tmp_path / name).write_bytes(bad)
        with pytest.raises(ArtifactError, match=name):
            open_engine(tmp_path / name)


def test_what_is_no_model_is_named(tmp_path):
    (tmp_path / "x.onnx").write_bytes(b"\xff\xd8\xff a photo")
    (tmp_path / "x.h5").write_bytes(b"\x89HDF0000")
    (tmp_path / "x.keras").write_bytes(b"PK\x03\x04 and no more")
    (tmp_path / "folder").mkdir()
    (tmp_path / "damaged").mkdir()
    (tmp_path / "damaged" / "saved_model.pb").write_bytes(b"no protobuf")
    for name, words in (
        ("x.h5", "an HDF5 file"),
        ("x.keras", "a zip archive"),
        ("folder", "without a saved_model.pb"),
        ("damaged", "damaged SavedModel"),
        ("none.tflite", "does not exist"),
    ):
        with pytest.raises(ArtifactError, match=f"{name} .*{words}"):
            open_engine(tmp_path / name)
    pytest.importorskip("onnxruntime", reason="the extra onnx is not installed")
    with pytest.raises(ArtifactError, match=r"x\.onnx is a JPEG image"):
        open_engine(tmp_path / "x.onnx")


def test_a_keras_file_with_code_in_it_is_refused(tmp_path):
    image = keras.Input((4, 4, 1))
    keras.Model(image, keras.layers.Lambda(lambda x: x * 2)(image)).save(tmp_path / "code.keras")
    with pytest.raises(ArtifactError, match=r"code\.keras holds Python code .* was refused"):
        open_engine(tmp_path / "code.keras")


def test_a_keras_file_of_somebody_else_is_refused(tmp_path):
    keras.Sequential([keras.Input((4,)), keras.layers.Dense(1)]).save(tmp_path / "other.keras")
    with pytest.raises(ArtifactError, match="holds a Sequential"):
        open_engine(tmp_path / "other.keras")


def test_benchmark(tflite):
    result = kv.benchmark(tflite, threads=1, runs=3)
    assert (result["runs"], result["threads"], result["size_bytes"]) == (3, 1, tflite.stat().st_size)
    assert 0 < result["median_ms"] <= result["p90_ms"]
    with pytest.raises(ValueError, match="at least 1"):
        kv.benchmark(tflite, runs=0)
