"""Every segmenter in every format: int8 from training computes nothing in float, and files have the same names."""

import keras
import numpy as np
import pytest
import tensorflow as tf
from segmentation import contract

import kerasvision as kv
from kerasvision.export.coverage import float_ops, read_graph
from kerasvision.export.engines import open_engine

SHALLOW = {"levels": ("P1", "P2", "P3"), "filters": [16, 16, 8]}
# Name of the case -> of the net, its arguments, and what its int8 file must hold.
NETS = {
    "unet_transposed": ("unet", {"up": "transposed", **SHALLOW}, {"TRANSPOSE_CONV": 3, "CONCATENATION": 2}),
    "unet_resize": ("unet", {"up": "resize"}, {"RESIZE_BILINEAR": 5, "CONCATENATION": 4}),
    "attention_unet": ("attention_unet", {}, {"LOGISTIC": 4, "MUL": 4, "TRANSPOSE_CONV": 4}),
    "unet_valid": ("unet_valid", {"dropout": 0.1}, {"TRANSPOSE_CONV": 2}),
    "deeplabv3": ("deeplabv3", {"dropout": 0.0}, {"MEAN": 1, "CONCATENATION": 1}),
    "deeplabv3_plus": ("deeplabv3_plus", {"dropout": 0.0}, {"MEAN": 1, "CONCATENATION": 2, "DEPTHWISE_CONV_2D": 5}),
    "lraspp": ("lraspp", {}, {"MEAN": 1, "MUL": 1, "LOGISTIC": 1}),
    "fcn_8s": ("fcn_8s", {"dropout": 0.1}, {"TRANSPOSE_CONV": 3, "ADD": 2}),
}
FAST = {"tflite": ("unet_transposed", "deeplabv3_plus"), "others": ("lraspp",)}
COMPUTING = ("CONV_2D", "DEPTHWISE_CONV_2D", "TRANSPOSE_CONV", "FULLY_CONNECTED", "ADD", "MUL", "MEAN")


def each(kind):
    slow = [name if name in FAST[kind] else pytest.param(name, marks=pytest.mark.slow) for name in NETS]
    return pytest.mark.parametrize("case", slow)


def learned(case, **arguments):
    """A net that tells the colours apart, and what it has learned them from."""
    name, own, _ = NETS[case]
    model = contract.create(name, **{**own, **arguments})
    images, targets = contract.scene(model.image_size, 16)
    data = tf.data.Dataset.from_tensor_slices((images, targets)).batch(4)
    model.compile(keras.optimizers.Adam(3e-3 if name == "unet_valid" else 1e-2))
    model.fit(data.repeat(8), verbose=0)
    return model, data


@each("tflite")
def test_int8_from_training(case, tmp_path):
    model, data = learned(case, probabilities=True)
    quantized = kv.quantize(model)
    quantized.compile("adam", learning_rate=1e-4)
    history = quantized.fit(data, epochs=2, verbose=0).history
    assert np.isfinite(history["loss"]).all()
    report = kv.export(quantized, tmp_path, metric_data=data, samples=16, benchmark=False, explain=True)

    signature = report.signature
    assert signature["inputs"]["image"]["dtype"] == "uint8"
    outputs = {name: (spec["dtype"], spec["shape"]) for name, spec in signature["outputs"].items()}
    size = list(model.image_size)
    assert outputs == {"classes": ("uint8", [1, *size]), "probabilities": ("uint8", [1, *size, 3])}

    assert report.islands == () and report.float_ops == []
    graph, known = read_graph(report.path), {layer.name for layer in model.layers}
    assert float_ops(graph, known) == []
    assert not any(graph.floats.intersection([*op.inputs, *op.outputs]) for op in graph.ops if op.name in COMPUTING)
    assert {name: report.ops[name] for name in NETS[case][2]}.items() >= NETS[case][2].items()
    # Holes are a part of their convolution; no tensor is rescaled between two ops but at the ends.
    assert not {"SPACE_TO_BATCH_ND", "BATCH_TO_SPACE_ND"} & report.ops.keys()
    assert "ARG_MAX" in report.ops

    assert report.parity["classes"]["mean"] < 0.03
    assert report.parity["probabilities"]["lsb"]["mean"] < 1.5
    assert report.metrics["mIoU"] > 0.5
    assert report.metrics["mIoU"] == pytest.approx(report.reference_metrics["mIoU"], abs=0.02)
    # Each op computes what stands in its place in the fake-quantized net, up to a rounding.
    assert len(report.layers) > 15 and max(layer["alone_lsb"] for layer in report.layers) < 2.5


@each("others")
@pytest.mark.parametrize("format", ["saved_model", "onnx"])
def test_other_formats_have_the_same_names(case, format, tmp_path):
    if format == "onnx":
        pytest.importorskip("tf2onnx", reason="the extra onnx is not installed")
    name, arguments, _ = NETS[case]
    model = contract.create(name, **arguments, probabilities=True)
    contract.randomize(model)
    images, targets = contract.scene(model.image_size, 4)
    report = kv.export(model, tmp_path, format=format, data=images, samples=4, benchmark=False)
    engine = open_engine(report.path)
    shapes = {key: spec.shape[1:] for key, spec in engine.outputs.items()}
    assert engine.input_name == "image" and shapes == {
        "classes": model.image_size,
        "probabilities": (*model.image_size, 3),
    }
    assert engine.outputs["classes"].dtype == "uint8"
    own = model.task.decode(model(images, training=False))
    found = engine.run(images)
    assert np.mean(found["classes"] != np.asarray(own["classes"])) < 1e-3
    np.testing.assert_allclose(found["probabilities"], own["probabilities"], atol=1e-4)
    predictor = kv.load(report.path)
    assert predictor.evaluate([(images, targets)]).keys() >= {"mIoU"}


@pytest.mark.slow
@pytest.mark.parametrize("format", ["saved_model", "onnx"])
def test_other_formats_of_a_quantized_net(format, tmp_path):
    if format == "onnx":
        pytest.importorskip("tf2onnx", reason="the extra onnx is not installed")
    model, data = learned("deeplabv3_plus")
    quantized = kv.quantize(model)
    quantized.compile("adam", learning_rate=1e-4)
    quantized.fit(data, verbose=0)
    report = kv.export(quantized, tmp_path, format=format, metric_data=data, samples=16, benchmark=False)
    assert list(report.signature["outputs"]) == ["classes"]
    assert report.parity["classes"]["mean"] < (0.03 if format == "onnx" else 1e-3)
    assert report.metrics["mIoU"] == pytest.approx(report.reference_metrics["mIoU"], abs=0.02)


@pytest.fixture(scope="module")
def valid():
    """The original U-Net says nothing about 20 pixels at each edge."""
    model, data = learned("unet_valid")
    return model, np.concatenate([images.numpy() for images, _ in data]), data


@pytest.mark.parametrize(
    ("format", "quantization"),
    [
        ("keras", "none"),
        ("tflite", "none"),
        ("tflite", "int8"),
        pytest.param("saved_model", "none", marks=pytest.mark.slow),
        pytest.param("onnx", "none", marks=pytest.mark.slow),
    ],
)
def test_margin_is_void_in_every_file(valid, format, quantization, tmp_path):
    model, images, data = valid
    if format == "onnx":
        pytest.importorskip("tf2onnx", reason="the extra onnx is not installed")
    if format == "keras":
        path = tmp_path / "model.keras"
        model.save(path)
    else:
        options = {"format": format, "quantization": quantization, "data": images, "samples": 8}
        path = kv.export(model, tmp_path, **options, benchmark=False).path
    predictor = kv.load(path)
    inner = (slice(None), slice(20, -20), slice(20, -20))
    wanted = np.asarray(model.task.decode(model(images, training=False))["classes"])
    found = predictor.run(images)["classes"]
    assert found.shape == wanted.shape == (16, 92, 92)
    assert (found[inner] < 3).all() and np.count_nonzero(found == 255) == found.size - found[inner].size
    assert np.mean(found[inner] != wanted[inner]) < (0.05 if quantization == "int8" else 1e-3)

    # Figures are of what the net speaks about; in an image twice as wide, its margin is twice as wide.
    assert predictor.evaluate(data)["mIoU"] > 0.5
    wide = images[0].astype(np.uint8).repeat(2, axis=1)
    results = predictor.predict(wide)
    assert results[0].shape == (92, 184)
    wider = found[0].astype(np.uint8).repeat(2, axis=1)
    np.testing.assert_array_equal(results[0] == 255, wider == 255)
    # The image is made narrow again with a filter.
    assert np.mean(results[0] != wider) < 0.02
    assert "255" not in results.shares(0) and sum(results.shares(0).values()) == pytest.approx((52 / 92) ** 2)
    drawing = np.asarray(results.draw(0))[:92, :184].astype(int)
    assert np.abs(drawing[:20] - wide[:20]).mean() > 5, "void is hatched"
    saved = results.save(tmp_path / "out")
    assert [file.name for file in saved] == ["image0_prediction.png", "image0_classes.png", "predictions.json"]
