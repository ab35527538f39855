"""Detectors that choose boxes inside of the net, as int8 files: nothing else is in float, and both stages are right."""

import keras
import numpy as np
import pytest
from detection.two_stages import TINY

import kerasvision as kv
from kerasvision.errors import ExportError
from kerasvision.export.coverage import float_ops, layers_of, read_graph
from kerasvision.export.detections import check_detector, share_of_rows_alone
from kerasvision.export.engines import open_engine
from kerasvision.export.rewrite import read_model, write_model
from kerasvision.export.samples import synthetic_images

SMALL = {**TINY, "levels": ["P3", "P4"], "filters": 16, "head_widths": [32], "proposals": 40, "candidates": 40}
MASKS = {"masks": 12, "mask_filters": 8, "mask_depth": 1}
# What chooses boxes, or takes features from where they are.
FLOAT = {"faster_rcnn": {"proposals", "region_align"}}
FLOAT["mask_rcnn"] = {*FLOAT["faster_rcnn"], "regions", "mask_align"}


@pytest.fixture(scope="module")
def images():
    return synthetic_images(16, (64, 64, 3))


def lively(name, images, **arguments):
    """A detector whose fresh weights are scaled up until it finds something else in every image."""
    keras.utils.set_random_seed(0)
    model = kv.create_model(name, **{**SMALL, **arguments})
    model.task.detections = 10
    for layer, output, spread in (
        ("rpn_deltas_conv", "rpn_deltas", 0.3),
        ("rpn_logits_conv", "rpn_logits", 2.0),
        ("box_deltas", "box_deltas", 0.5),
        ("class_logits", "class_logits", 1.0),
    ):
        kernel, bias = model.get_layer(layer).get_weights()
        own = np.std(model(images, training=False)[output])
        model.get_layer(layer).set_weights([kernel * spread / own, bias])
    return model


@pytest.fixture(scope="module")
def masks(images):
    return lively("mask_rcnn", images, **MASKS)


@pytest.fixture(scope="module")
def quantized(masks, images):
    """Calibrated, then trained for a step."""
    quantized = kv.quantize(masks)
    quantized.calibrate(images)
    targets = {
        "boxes": np.tile(np.float32([[8, 8, 40, 40]]), (len(images), 1, 1)),
        "classes": np.ones((len(images), 1), np.int32),
        "valid": np.ones((len(images), 1), bool),
        "masks": np.ones((len(images), 1, 64, 64), np.uint8),
    }
    quantized.compile("adam", learning_rate=1e-4)
    before = [weight.numpy() for weight in quantized.trainable_weights]
    assert np.isfinite(quantized.fit(images, targets, batch_size=16, verbose=0).history["loss"][0])
    assert all((weight.numpy() != old).any() for weight, old in zip(quantized.trainable_weights, before, strict=True))
    return quantized


@pytest.fixture(scope="module")
def file(quantized, images, tmp_path_factory):
    """The report of an int8 file."""
    folder = tmp_path_factory.mktemp("file")
    return kv.export(quantized, folder, data=images, samples=8, benchmark=False, explain=True)


def check_file(report, model):
    """The parts that choose are named and in float, and no others; all raw outputs agree for the same boxes."""
    assert set(report.islands) == FLOAT[model.name]
    # Casts in front of the parts that are in float bear the name of what is cast.
    assert {item["layer"] for item in report.float_ops if item["op"] not in ("DEQUANTIZE", "QUANTIZE")} == FLOAT[
        model.name
    ]
    graph, known = read_graph(report.path), {layer.name for layer in model.layers}
    assert float_ops(graph, known, report.islands) == []
    computing = [
        op for op in graph.ops if op.name in ("CONV_2D", "DEPTHWISE_CONV_2D", "FULLY_CONNECTED", "TRANSPOSE_CONV")
    ]
    named = {layer for op in computing for layer in layers_of(graph.names[op.outputs[0]], known)}
    weighted = {layer.name for layer in model.layers if isinstance(layer, keras.layers.Conv2D | keras.layers.Dense)}
    assert weighted <= named and not any(graph.floats.intersection(op.outputs) for op in computing)
    # Between the parts of the net, the 8 bits are handed on as they are.
    assert not [op for op in graph.ops if op.name == "QUANTIZE" and not graph.floats.intersection(op.inputs)][1:]
    raw = set(model.output) - {"proposals", "regions"}
    assert raw <= set(report.parity)
    for name in raw:
        assert report.parity[name]["lsb"]["mean"] < 1.0
    assert report.detections["alone"] < 0.02
    assert report.detections["matched"] > 0.8


def test_int8_from_training(file, masks, images):
    check_file(file, masks)
    explained = {layer["tensor"].split("/")[0]: layer["mean_lsb"] for layer in file.layers}
    assert {"region_align", "region_0_relu", "class_logits", "mask_align", "mask_up_relu"} <= set(explained)
    assert max(explained.values()) < 2
    engine = open_engine(file.path)
    assert engine.outputs["box_masks"].shape == (1, 10, 28, 28)
    found = engine.run(images)
    assert found["count"].min() > 3 and len(np.unique(found["scores"][:, 0])) == len(images)


@pytest.mark.slow
def test_int8_by_calibration(images, tmp_path):
    boxes = lively("faster_rcnn", images)
    report = kv.export(boxes, tmp_path, quantization="int8", data=images, samples=8, benchmark=False)
    check_file(report, boxes)


@pytest.mark.slow
def test_float(masks, images, tmp_path):
    report = kv.export(masks, tmp_path, quantization="none", data=images, samples=8, benchmark=False)
    assert report.detections["matched"] > 0.99 and report.detections["alone_allowed"] < 0.1
    assert set(report.parity) == {*masks.output, "boxes", "scores"} - {"proposals", "regions"}


@pytest.mark.slow
def test_layers_in_float_in_front_of_a_choice(masks, images, tmp_path):
    chosen = ["class_logits", "mask_up"]
    report = kv.export(
        masks, tmp_path, quantization="int8", data=images, samples=8, benchmark=False, float_layers=chosen
    )
    assert set(report.islands) == {*FLOAT["mask_rcnn"], *chosen, "mask_up_relu"}


def check(model, path, images, scratch):
    return check_detector(model, open_engine(path), images[:4], scratch, "the file", True)


@pytest.mark.parametrize("layer", ["region_0", "mask_0_conv"])
def test_a_wrong_layer_is_noticed(layer, file, quantized, images, tmp_path):
    model = read_model(file.path)
    graph = model.subgraphs[0]
    names = [graph.tensors[op.outputs[0]].name.decode() for op in graph.operators]
    parts = [name.split("/")[0].split(";") for name in names]
    op = next(op for op, of in zip(graph.operators, parts, strict=True) if layer in of and len(op.inputs) == 3)
    weights = model.buffers[graph.tensors[op.inputs[1]].buffer]
    weights.data = np.roll(weights.data, len(weights.data) // 3)
    model.metadata = None
    model.buffers[-1].data = None
    write_model(tmp_path / "wrong.tflite", model)
    with pytest.raises(ExportError, match="differs from the fake-quantized model"):
        check(quantized, tmp_path / "wrong.tflite", images, tmp_path)


@pytest.mark.parametrize(("layer", "made_of"), [("proposals", "rpn_"), ("regions", "proposals, ")])
def test_a_wrong_choice_is_noticed(layer, made_of, file, masks, quantized, images, monkeypatch, tmp_path):
    monkeypatch.setattr(masks.get_layer(layer), "iou", 0.1)
    with pytest.raises(ExportError, match=f'does not choose.*"{layer}".*own {made_of}'):
        check(quantized, file.path, images, tmp_path)


def test_sixteen_bits_are_refused(masks, images, tmp_path):
    with pytest.raises(ExportError, match=r'\(proposals, regions\).*Take "int8"'):
        kv.export(masks, tmp_path, quantization="int16x8", data=images)


def test_partners_of_rows_by_hand():
    one, other = (
        np.float32([[0, 0, 100], [1, 1, 200], [2, 2, 300]]),
        np.float32([[2, 2, 300], [0, 0, 100.02], [1, 0, 200]]),
    )
    assert share_of_rows_alone(one[None], one[None, ::-1]) == 0
    assert share_of_rows_alone(other[None], one[None]) == pytest.approx(1 / 3)
    assert share_of_rows_alone(one[None, [0, 0, 2]], one[None]) == pytest.approx(1 / 3)  # A partner is taken once.
