import keras
import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

import kerasvision as kv
from kerasvision.errors import ExportError, QuantizationError
from kerasvision.export.coverage import FloatOp, Graph, Op, check_coverage, float_ops, layers_of, op_histogram
from kerasvision.preprocessing import Preprocessing
from kerasvision.registry import register

SHAPE = (16, 16, 3)


def register_with(name, layer):
    @register(name, input_shape=SHAPE, preprocessing=Preprocessing())
    def build(x, *, weights=None):
        x = keras.layers.Conv2D(8, 3, name="conv")(x)
        return {"P5": keras.layers.Conv2D(8, 3, name="conv_1")(layer(x))}


register_with("test_with_sine", keras.layers.Activation(keras.ops.sin, name="wave"))
register_with("test_with_erfinv", keras.layers.Activation(keras.ops.erfinv, name="odd"))
register_with("test_with_norm", keras.layers.LayerNormalization(name="norm"))


@pytest.mark.parametrize(
    ("tensor", "layers"),
    [
        ("net/conv/convolution", ["conv"]),
        ("net_1/conv_1/convolution", ["conv"]),  # second trace of "conv"
        ("net_1/conv_1_1/convolution", ["conv_1"]),
        ("net/conv_1/convolution", ["conv_1"]),
        ("net/quant_conv/BiasAdd;net/quant_conv/Conv2D;net/quant_relu/Relu", ["conv", "relu"]),
        ("tfl.quantize", []),
        ("", []),
    ],
)
def test_tensor_names_lead_to_layers(tensor, layers):
    assert layers_of(tensor, {"conv", "conv_1", "relu"}) == layers


@given(st.text(max_size=40), st.sets(st.text(min_size=1, max_size=8)))
def test_any_tensor_name_is_read(tensor, known):
    assert set(layers_of(tensor, known)) <= known


def graph_of(*ops, floats, ends=(), names=None):
    size = 1 + max(index for op in ops for index in (*op.inputs, *op.outputs))
    names = names or tuple(f"net/layer{index}/x" for index in range(size))
    return Graph(ops, names, frozenset(floats), frozenset(ends), ())


def test_casts_at_the_ends_of_a_file_are_no_float_ops():
    graph = graph_of(
        Op("QUANTIZE", (0,), (1,)), Op("CONV_2D", (1,), (2,)), Op("DEQUANTIZE", (2,), (3,)), floats={0, 3}, ends={0, 3}
    )
    assert float_ops(graph) == []
    assert op_histogram(graph) == {"QUANTIZE": 1, "CONV_2D": 1, "DEQUANTIZE": 1}


def test_float_ops_inside_a_file_are_found_unless_declared():
    ops = Op("DEQUANTIZE", (0,), (1,)), Op("SIN", (1,), (2,)), Op("QUANTIZE", (2,), (3,)), Op("CONV_2D", (3,), (4,))
    graph = graph_of(*ops, floats={1, 2}, ends={0, 4})
    known = {"layer1", "layer2", "layer3", "layer4"}
    assert [op.op for op in float_ops(graph, known)] == ["DEQUANTIZE", "SIN", "QUANTIZE"]
    assert float_ops(graph, known, islands=["layer2"]) == []
    assert [op.op for op in float_ops(graph, known, islands=["layer4"])] == ["DEQUANTIZE", "SIN", "QUANTIZE"]


def test_a_layer_fused_into_a_declared_one_is_not_declared():
    names = ("a", "net/island/Relu;net/conv/Conv2D", "c")
    graph = graph_of(Op("CONV_2D", (0,), (1,)), Op("QUANTIZE", (1,), (2,)), floats={0, 1}, ends={2}, names=names)
    found = float_ops(graph, {"island", "conv"}, islands=["island"])
    assert FloatOp("CONV_2D", names[1], "island, conv") in found


def test_custom_ops_are_refused():
    graph = Graph((Op("FlexErf", (0,), (1,)),), ("a", "b"), frozenset(), frozenset({0, 1}), ("FlexErf",))
    with pytest.raises(ExportError, match="not built into LiteRT: FlexErf"):
        check_coverage(graph, [], "x.tflite")


def test_a_layer_without_int8_kernel_stops_the_export_and_is_named(images_and_targets, tmp_path):
    model = kv.create_model("test_with_sine", num_classes=4)
    with pytest.raises(QuantizationError, match=r"wave \(Activation\)"):
        kv.export(model, tmp_path, quantization="int8", data=images_and_targets(SHAPE, 8), benchmark=False)
    assert not list(tmp_path.iterdir())


def test_a_float_op_that_nobody_declared_stops_the_export_and_names_the_layer(images_and_targets, tmp_path):
    images, targets = images_and_targets(SHAPE, 8)
    quantized = kv.quantize(kv.create_model("test_with_sine", num_classes=4), islands=["wave"])
    quantized.calibrate(images)
    quantized.islands = ()  # As if the policy had believed in it.
    with pytest.raises(ExportError) as caught:
        kv.export(quantized, tmp_path, data=(images, targets), benchmark=False)
    assert "run 1 ops in float" in str(caught.value)
    assert "SIN -> " in str(caught.value)
    assert "(layer: wave)" in str(caught.value)
    assert "islands=['wave']" in str(caught.value)
    assert not list(tmp_path.iterdir())


def test_an_op_without_any_kernel_is_named_with_its_place(tmp_path):
    model = kv.create_model("test_with_erfinv", num_classes=4)
    with pytest.raises(ExportError, match=r"no kernel for Erfinv, used in test_with_erfinv\w*/odd"):
        kv.export(model, tmp_path, benchmark=False)
    assert not list(tmp_path.iterdir())


@pytest.mark.filterwarnings("ignore")
def test_a_declared_island_stays_in_float_and_is_reported(images_and_targets, tmp_path):
    images, targets = images_and_targets(SHAPE, 32)
    quantized = kv.quantize(kv.create_model("test_with_norm", num_classes=4), islands=["norm"])
    quantized.compile("adam")
    quantized.fit(images, targets, verbose=0)
    report = kv.export(quantized, tmp_path, benchmark=False)
    assert report.islands == ("norm",)
    computing = [op for op in report.float_ops if op["op"] not in ("QUANTIZE", "DEQUANTIZE")]
    assert computing
    assert {op["layer"] for op in computing} == {"norm"}
    assert np.isfinite(report.parity["scores"]["lsb"]["mean"])
