"""Layers in float inside an integer file, and the table that says which layers those should be."""

import numpy as np
import pytest
from ai_edge_litert import schema_py_generated as schema

import kerasvision as kv
from kerasvision.errors import ExportError


@pytest.fixture(scope="module")
def spoiled(small_model, model, data):
    """Each filter of a convolution has a weight of 40 times the others, for a channel that is always 0: the weight does
    nothing but leave few of the 8 bits to the others."""
    spoiled = small_model((28, 28, 1), model.preprocessing)
    spoiled.set_weights(model.get_weights())
    dead = spoiled.get_layer("stage0_0_bn")
    gamma, beta, *statistics = dead.get_weights()
    gamma[0] = beta[0] = 0
    dead.set_weights([gamma, beta, *statistics])
    layer = spoiled.get_layer("stage1_0_conv")
    (kernel,) = layer.get_weights()
    kernel[0, 0, 0] = 40 * np.abs(kernel).max()
    layer.set_weights([kernel])
    return spoiled


def error(report, model, images):
    scores = model.task.decode(model.predict(images, verbose=0))["scores"]
    return float(np.mean(np.abs(kv.load(report.path).engine.run(images)["scores"] - scores)))


def test_the_worst_layer_stays_in_float16_and_is_named(spoiled, data, tmp_path):
    options = {"quantization": "int8", "data": data, "benchmark": False}
    plain = kv.export(spoiled, tmp_path / "plain", **options)
    mixed = kv.export(spoiled, tmp_path / "mixed", float_layers=1, **options)
    assert plain.islands == ()
    assert mixed.islands == ("stage1_0_bn", "stage1_0_conv", "stage1_0_relu")
    (convolution,) = (op for op in mixed.float_ops if op["op"] == "CONV_2D")
    assert set(convolution["layer"].split(", ")) <= set(mixed.islands)
    assert error(mixed, spoiled, data[0]) < 0.5 * error(plain, spoiled, data[0])

    graph = schema.ModelT.InitFromPackedBuf(mixed.path.read_bytes(), 0).subgraphs[0]
    shapes = [list(tensor.shape) for tensor in graph.tensors if tensor.type == schema.TensorType.FLOAT16]
    assert [shape for shape in shapes if shape[0] > 1] == [[16, 3, 3, 8]], "the kernel; activations have a batch of 1"
    assert mixed.size_bytes < plain.size_bytes + 16 * 3 * 3 * 8 + 2000


def test_layers_may_be_named(model, data, tmp_path):
    report = kv.export(model, tmp_path, quantization="int8", data=data, benchmark=False, float_layers=["stage0_0_conv"])
    assert "stage0_0_conv" in report.islands


def test_only_calibrated_files_choose_float_layers(model, quantized, data, tmp_path):
    with pytest.raises(ExportError, match=r"float_layers is for quantization \"int8\".*islands"):
        kv.export(quantized, tmp_path, data=data, float_layers=2)


def test_explain_compares_every_layer(quantized, data, tmp_path):
    report = kv.export(quantized, tmp_path, data=data, benchmark=False, explain=True)
    layers = {layer["tensor"]: layer for layer in report.layers}
    assert list(layers) == ["stage0_0_relu/output", "stage1_0_relu/output", "pool/output", "logits/output"]
    for name, layer in layers.items():
        low, high = quantized.ranges()[name]
        assert (layer["low"], layer["high"]) == (low, high)
        assert layer["mean_lsb"] <= 0.5 and layer["max_lsb"] <= 4
        assert layer["alone_lsb"] == pytest.approx(round(layer["alone_lsb"]), abs=1e-3) and layer["alone_lsb"] < 1.5
        assert layer["noise_db"] > 10
    assert layers["stage0_0_relu/output"]["op"] == "CONV_2D"


def test_explain_is_for_int8_files(model, data, tmp_path):
    with pytest.raises(ExportError, match="int8 TFLite file"):
        kv.export(model, tmp_path, data=data, explain=True)
