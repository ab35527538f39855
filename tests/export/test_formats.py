import json

import keras
import numpy as np
import pytest
from ai_edge_litert import schema_py_generated as schema

import kerasvision as kv
from kerasvision.errors import ExportError, QuantizationError, UnknownNameError
from kerasvision.export import exporter
from kerasvision.export.engines import open_engine
from kerasvision.export.metadata import read_metadata
from kerasvision.preprocessing import Preprocessing

NAMES = {
    ("saved_model", "none"): "model_saved_model",
    ("saved_model", "qat"): "model_qat_saved_model",
    ("tflite", "none"): "model_float32.tflite",
    ("tflite", "float16"): "model_float16.tflite",
    ("tflite", "dynamic"): "model_dynamic.tflite",
    ("tflite", "int8"): "model_int8_ptq.tflite",
    ("tflite", "int16x8"): "model_int16x8.tflite",
    ("tflite", "qat"): "model_int8.tflite",
    ("onnx", "none"): "model.onnx",
    ("onnx", "int8"): "model_int8_ptq.onnx",
    ("onnx", "qat"): "model_int8.onnx",
}
# Largest allowed mean difference of a score.
CLOSE = {"none": 1e-6, "float16": 1e-3, "dynamic": 5e-3, "int8": 8e-3, "int16x8": 2e-3, "qat": 4e-3}


def test_the_table_is_what_the_tests_run():
    assert {key: row.filename for key, row in exporter.FORMATS.items()} == NAMES


@pytest.mark.parametrize(("format", "quantization"), NAMES)
def test_a_file_takes_raw_pixels_and_does_what_the_model_does(
    format, quantization, model, quantized, data, labels, tmp_path
):
    if format == "onnx":
        pytest.importorskip("tf2onnx", reason="the extra onnx is not installed")
    source = quantized if quantization == "qat" else model
    images, targets = data
    report = kv.export(
        source, tmp_path, format=format, quantization=quantization, data=data, benchmark=False, metric_data=data
    )
    integer = quantization in ("int8", "qat") and format != "saved_model"

    assert report.path == tmp_path / NAMES[format, quantization]
    assert [path.name for path in tmp_path.iterdir()] == [report.path.name]
    assert json.loads(json.dumps(report.to_dict()))["path"] == str(report.path)
    assert (report.samples, report.samples_source) == (64, "data")
    assert report.parameters == model.count_params()
    assert report.labels == labels
    assert report.float_ops == []

    engine = open_engine(report.path)
    image = engine.signature["inputs"]["image"]
    assert (image["shape"], image["dtype"]) == ([1, 28, 28, 1], "uint8" if integer else "float32")
    assert set(engine.signature["outputs"]) == {"scores"}
    assert engine.signature == report.signature == engine.metadata["signature"]
    assert engine.metadata["labels"] == list(labels)
    assert engine.metadata["quantization"] == quantization
    assert Preprocessing.from_config(engine.metadata["preprocessing"]) == model.preprocessing
    assert engine.outputs_quantization["scores"] == ((1 / 256, 0) if integer else None)

    wanted = keras.ops.convert_to_numpy(source.task.decode(source(images, training=False))["scores"])
    scores = engine.run(images)["scores"]
    assert wanted.std(axis=0).max() > 0.1  # A model that says the same of every image would prove nothing.
    assert np.abs(scores - wanted).mean() < (1e-6 if quantization == "qat" and not integer else CLOSE[quantization])
    np.testing.assert_array_equal(engine.run(images.astype(np.uint8))["scores"], scores)
    assert report.parity["scores"]["mean"] < CLOSE[quantization]
    assert (report.parity["scores"]["lsb"] is None) == (not integer)
    assert report.metrics == source.task.metrics(targets, {"scores": scores})
    assert report.reference_metrics["accuracy"] == pytest.approx(report.metrics["accuracy"], abs=0.1)


@pytest.mark.parametrize(
    ("wrong", "reason"), [(lambda images: images, "dict of targets"), (lambda images: [], "no images")]
)
def test_metrics_need_images_and_targets(wrong, reason, model, data, tmp_path):
    with pytest.raises(ExportError, match=reason):
        kv.export(model, tmp_path, data=data, benchmark=False, metric_data=wrong(data[0]))
    assert not list(tmp_path.iterdir())


@pytest.mark.parametrize("quantization", ["int8", "qat"])
def test_the_uint8_input_carries_the_preprocessing(quantization, model, quantized, data, tmp_path):
    source = quantized if quantization == "qat" else model
    report = kv.export(source, tmp_path, quantization=quantization, data=data, benchmark=False)
    image = report.signature["inputs"]["image"]
    assert (image["scale"], image["zero_point"]) == (1 / 128, 128)
    # Dense is one of them, for the sake of a scale for each class.
    convolutions = sum(isinstance(layer, (keras.layers.Conv2D, keras.layers.Dense)) for layer in model.layers)
    assert report.ops["CONV_2D"] == convolutions
    assert set(report.ops) <= {"CONV_2D", "MAX_POOL_2D", "MEAN", "RESHAPE", "SOFTMAX", "QUANTIZE"}


@pytest.mark.parametrize("quantization", ["int8", "qat"])
def test_channels_with_scales_of_their_own(quantization, colour_model, colour_data, train, tmp_path):
    source = train(kv.quantize(colour_model), colour_data) if quantization == "qat" else colour_model
    report = kv.export(source, tmp_path, quantization=quantization, data=colour_data, benchmark=False)
    image = report.signature["inputs"]["image"]
    assert (image["shape"], image["scale"], image["zero_point"]) == ([1, 24, 20, 3], 1.0, 0)
    assert report.parity["scores"]["lsb"]["mean"] < 1.5
    assert report.float_ops == []


def test_weights_are_quantized_per_channel(quantized, data, tmp_path):
    path = kv.export(quantized, tmp_path, data=data, benchmark=False).path
    graph = schema.Model.GetRootAs(path.read_bytes()).Subgraphs(0)
    scales = [
        graph.Tensors(index).Quantization().ScaleLength()
        for index in range(graph.TensorsLength())
        if graph.Tensors(index).ShapeLength() == 4 and graph.Tensors(index).Quantization().ScaleLength() > 1
    ]
    assert sorted(scales) == [4, 8, 16]


def test_several_labels_get_sigmoids(data, small_model, train, tmp_path):
    images, targets = data
    targets = {"labels": np.eye(4, dtype=np.float32)[targets["label"]]}
    model = train(small_model((28, 28, 1), Preprocessing(), multi_label=True), (images, targets))
    report = kv.export(model, tmp_path, quantization="int8", data=(images, targets), benchmark=False)
    image = report.signature["inputs"]["image"]
    assert (image["scale"], image["zero_point"]) == (pytest.approx(1 / 255), 0)
    assert report.ops["LOGISTIC"] == 1
    assert report.parity["scores"]["lsb"]["mean"] < 2


def test_a_mixed_precision_model_gives_a_float32_file(data, small_model, train, tmp_path):
    policy = keras.config.dtype_policy()
    keras.config.set_dtype_policy("mixed_float16")
    try:
        model = train(small_model((28, 28, 1), Preprocessing()), data)
        report = kv.export(model, tmp_path, data=data, benchmark=False)
        assert keras.config.dtype_policy().name == "mixed_float16"
    finally:
        keras.config.set_dtype_policy(policy)
    assert report.parity["scores"]["max"] < 1e-6
    scores = keras.ops.convert_to_numpy(model.task.decode(model(data[0], training=False))["scores"])
    np.testing.assert_allclose(open_engine(report.path).run(data[0])["scores"], scores, atol=0.02)


def test_samples_come_from_what_fit_was_given_or_are_synthetic(data, small_model, tmp_path):
    model = small_model((28, 28, 1), Preprocessing())
    assert kv.export(model, tmp_path, format="saved_model", benchmark=False).samples_source == "synthetic"
    model.compile("adam")
    model.fit(*data, verbose=0)
    report = kv.export(model, tmp_path, format="saved_model", benchmark=False, samples=7)
    assert (report.samples_source, report.samples, report.metrics, report.latency) == ("data", 7, {}, {})


def test_what_cannot_be_exported_says_what_can(model, quantized, data, tmp_path):
    with pytest.raises(UnknownNameError, match='no export format "tflit".*"tflite"'):
        kv.export(model, tmp_path, format="tflit")
    with pytest.raises(UnknownNameError, match='"float16" for "onnx"; there is: none, int8, qat'):
        kv.export(model, tmp_path, format="onnx", quantization="float16")
    with pytest.raises(ExportError, match="kerasvision.quantize"):
        kv.export(model, tmp_path, quantization="qat")
    with pytest.raises(ExportError, match="Export the model it was made from"):
        kv.export(quantized, tmp_path, quantization="none")
    with pytest.raises(ExportError, match="real images"):
        kv.export(model, tmp_path, quantization="int8")
    with pytest.raises(TypeError, match="got Sequential"):
        kv.export(keras.Sequential([keras.layers.Dense(1)]), tmp_path)
    with pytest.raises(QuantizationError, match="never observed"):
        kv.export(kv.quantize(model), tmp_path)
    with pytest.raises(ValueError, match="samples and calibration"):
        kv.export(model, tmp_path, samples=0)
    assert not list(tmp_path.iterdir())


def test_a_file_of_another_size_is_read_back_as_such(colour_model, colour_data, labels, tmp_path):
    path = kv.export(colour_model, tmp_path, format="saved_model", data=colour_data, benchmark=False).path
    facts = read_metadata(path)
    assert (facts["image_size"], facts["channels"]) == ([24, 20], 3)
    assert (path / "assets.extra" / "labels.txt").read_text("utf-8").split() == list(labels)


@pytest.mark.slow
@pytest.mark.parametrize("name", ["mobilenet_v2", "resnet50"])
def test_larger_nets(name, images_and_targets, tmp_path):
    data = images_and_targets((64, 64, 3), 32)
    preprocessing = Preprocessing(scale=(1.0,), offset=(-123.68, -116.779, -103.939))
    model = kv.create_model(name, num_classes=4, input_shape=(64, 64, 3), preprocessing=preprocessing)
    model.compile("adam")
    model.fit(*data, epochs=2, verbose=0)
    for quantization, close in (("none", 1e-6), ("int8", 0.02)):
        report = kv.export(model, tmp_path, quantization=quantization, data=data)
        assert report.parity["scores"]["mean"] < close
        assert report.latency["runs"] == 50
