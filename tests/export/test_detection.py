"""Detectors in files: an image goes in, boxes come out, whatever the format."""

import dataclasses

import keras
import numpy as np
import pytest
import tensorflow as tf
from ai_edge_litert import schema_py_generated as schema

import kerasvision as kv
from kerasvision.errors import ExportError
from kerasvision.export import detections
from kerasvision.export.coverage import DECODE, FloatOp, check_coverage, decode_part, float_ops, read_graph
from kerasvision.export.detections import check_detector, share_alone
from kerasvision.export.engines import open_engine
from kerasvision.export.join import RAW, join_decode
from kerasvision.export.rewrite import read_model, write_model
from kerasvision.export.samples import synthetic_images

LABELS = ("red", "green", "blue")
SHAPE = (64, 96, 3)
NAMES = ("boxes", "scores", "classes", "count")


@pytest.fixture(scope="module")
def images():
    return synthetic_images(12, SHAPE)


@pytest.fixture(scope="module")
def detector(images):
    """A RetinaNet whose fresh weights are scaled up until it finds something else in every image."""
    keras.utils.set_random_seed(0)
    model = kv.create_model(
        "retinanet",
        labels=LABELS,
        input_shape=SHAPE,
        backbone="small_cnn",
        backbone_arguments={"filters": (8, 8, 8, 16, 16), "depth": 1},
        levels=("P3", "P4"),
        filters=8,
        depth=1,
        separable=True,
        normalized=True,
    )
    raw = model.predict(images, verbose=0)
    for name, spread in (("box_deltas", 0.3), ("class_logits", 2.0)):
        layer = model.get_layer(f"head_{name}_conv")
        kernel, bias = layer.get_weights()
        layer.set_weights([kernel * spread / raw[name].std(), bias])
    model.task.detections = 10
    return model


@pytest.fixture(scope="module")
def files(detector, images, tmp_path_factory):
    """{"none": report, "int8": report} of `.tflite` files."""
    folder = tmp_path_factory.mktemp("files")
    return {
        name: kv.export(detector, folder, quantization=name, data=images, samples=8, benchmark=False)
        for name in ("none", "int8")
    }


def decoded(model, images):
    return {name: np.asarray(values) for name, values in model.task.decode(model(images, training=False)).items()}


def check_outputs(engine):
    assert {name: (spec.shape, spec.dtype) for name, spec in engine.outputs.items()} == {
        "boxes": ((1, 10, 4), "float32"),
        "scores": ((1, 10), "float32"),
        "classes": ((1, 10), "float32"),
        "count": ((1,), "float32"),
    }


def test_the_float_file_finds_what_the_model_finds(files, detector, images):
    report, engine = files["none"], open_engine(files["none"].path)
    check_outputs(engine)
    found, wanted = engine.run(images), decoded(detector, images)
    assert len(np.unique(wanted["scores"][:, 0])) == len(images) and wanted["count"].min() > 5
    assert share_alone(found, wanted) < 0.01
    assert report.detections["matched"] > 0.99 and report.detections["alone"] < 0.01
    assert report.detections["alone_allowed"] < 0.2
    assert report.parity["class_logits"]["max"] < 1e-4 and report.parity["class_logits"]["lsb"] is None


def test_the_net_of_the_int8_file_is_int8_and_its_decoding_float(files, detector, images):
    report, engine = files["int8"], open_engine(files["int8"].path)
    check_outputs(engine)
    assert (engine.input.dtype, engine.input.scale, engine.input.zero_point) == ("uint8", 1 / 128, 128)
    assert report.float_ops == [] and report.islands == ()
    assert report.decode_ops["TOPK_V2"] > 10 and "CONV_2D" not in report.decode_ops
    for name in ("box_deltas", "class_logits"):
        assert report.parity[name]["lsb"]["mean"] < 1.5
    graph = schema.Model.GetRootAs(report.path.read_bytes()).Subgraphs(0)
    tensors = [graph.Tensors(index) for index in range(graph.TensorsLength())]
    raw = [tensor.Name().decode() for tensor in tensors if RAW in tensor.Name().decode()]
    assert sorted(name.split(RAW)[1] for name in raw) == ["box_deltas", "class_logits"]
    ops = [graph.Operators(index) for index in range(graph.OperatorsLength())]
    ends = {int(op.Inputs(0)) for op in ops if tensors[op.Outputs(0)].Name().decode() in raw}
    assert {tensors[index].Type() for index in ends} == {schema.TensorType.INT8}
    assert len({float(tensors[index].Quantization().Scale(0)) for index in ends}) == 2
    # 8 bits move boxes and scores, and not by much.
    assert report.detections["matched"] > 0.9 and report.detections["iou"] > 0.9
    assert report.parity["scores"]["mean"] < 0.03


def test_a_float_op_of_the_net_is_still_refused(files):
    graph = read_graph(files["int8"].path)
    first = next(index for index, op in enumerate(graph.ops) if op.name == "CONV_2D")
    floats = graph.floats | {graph.ops[first].outputs[0]}
    found = float_ops(dataclasses.replace(graph, floats=floats))
    assert FloatOp("CONV_2D", graph.names[graph.ops[first].outputs[0]], "") in found
    with pytest.raises(ExportError, match="CONV_2D"):
        check_coverage(graph, found, "the file")
    assert float_ops(graph) == []
    # A layer of that name does not hide behind the decoding.
    part = decode_part(graph)
    assert part.ops and all(graph.names[op.outputs[0]].startswith(DECODE) for op in part.ops)
    assert decode_part(graph, {"decode"}).ops == ()
    assert float_ops(graph, {"decode"})


@pytest.mark.parametrize("quantization", ["float16", "dynamic", "int16x8"])
def test_other_quantizations_leave_the_decoding_in_float32(quantization, detector, images, files, tmp_path):
    report = kv.export(detector, tmp_path, quantization=quantization, data=images, samples=4)
    check_outputs(open_engine(report.path))
    assert report.decode_ops == files["none"].decode_ops
    assert report.detections["alone"] < 0.02  # Of what the decoding makes of the file's own raw outputs.
    assert report.detections["matched"] > 0.9
    assert report.latency["runs"] == 50


@pytest.mark.parametrize(("format", "quantization"), [("saved_model", "none"), ("onnx", "none"), ("onnx", "int8")])
def test_other_formats_have_the_same_names(format, quantization, detector, images, files, tmp_path):
    if format == "onnx":
        pytest.importorskip("tf2onnx", reason="the extra onnx is not installed")
    report = kv.export(
        detector, tmp_path, format=format, quantization=quantization, data=images, samples=8, benchmark=False
    )
    engine = open_engine(report.path)
    check_outputs(engine)
    assert engine.metadata["signature"] == engine.signature
    assert share_alone(engine.run(images), open_engine(files[quantization].path).run(images)) < 0.05
    if format == "onnx":
        assert set(report.parity) == {"box_deltas", "class_logits", "boxes", "scores"}
    if quantization == "int8":
        assert report.parity["class_logits"]["lsb"]["mean"] < 1.5


def test_the_metrics_of_a_quantized_detectors_file(detector, images, tmp_path):
    quantized = kv.quantize(detector)
    quantized.calibrate(images)
    boxes = np.tile(np.float32([[8, 8, 40, 40]]), (len(images), 1, 1))
    targets = {"boxes": boxes, "classes": np.ones((len(images), 1), np.int32), "valid": np.ones((len(images), 1), bool)}
    report = kv.export(quantized, tmp_path, data=images, benchmark=False, metric_data=(images, targets))
    assert report.quantization == "qat" and report.float_ops == []
    assert report.parity["class_logits"]["lsb"]["mean"] < 1.5
    assert report.metrics["AP"] == pytest.approx(report.reference_metrics["AP"], abs=0.05)


@pytest.mark.parametrize("kind", ["none", "int8"])
def test_another_reader_of_the_standard_schema_agrees(kind, files, metadata_buffer, mediapipe_schema):
    reader = mediapipe_schema
    (graph,) = reader.ModelMetadataT.InitFromPackedBuf(metadata_buffer(files[kind].path)).subgraphMetadata
    boxes, classes, scores, count = graph.outputTensorMetadata
    assert [item.name for item in graph.outputTensorMetadata] == [
        b"location",
        b"category",
        b"score",
        b"number of detections",
    ]
    properties = boxes.content.contentProperties
    assert (list(properties.index), properties.type, properties.coordinateType) == (
        [0, 1, 2, 3],
        reader.BoundingBoxType.BOUNDARIES,
        reader.CoordinateType.RATIO,
    )
    assert (boxes.content.range.min, scores.content.range.max, count.content.range) == (2, 2, None)
    (labels,) = classes.associatedFiles
    assert (labels.name, labels.type) == (b"labels.txt", reader.AssociatedFileType.TENSOR_VALUE_LABELS)
    (group,) = graph.outputTensorGroups
    assert (group.name, group.tensorNames) == (b"detection_result", [b"location", b"category", b"score"])


@pytest.mark.parametrize("kind", ["none", "int8"])
def test_a_phones_detector_runs_the_file(kind, files, images):
    mediapipe = pytest.importorskip("mediapipe", reason="mediapipe, the detector of phones, is not installed")
    tasks = mediapipe.tasks
    options = tasks.vision.ObjectDetectorOptions(
        base_options=tasks.BaseOptions(model_asset_path=str(files[kind].path)), score_threshold=0.0
    )
    engine = open_engine(files[kind].path)
    with tasks.vision.ObjectDetector.create_from_options(options) as detector:
        for image in images[:4].astype(np.uint8):
            shown = mediapipe.Image(image_format=mediapipe.ImageFormat.SRGB, data=image)
            found = detector.detect(shown).detections
            ours = {name: values[0] for name, values in engine.run(image[None]).items()}
            assert len(found) == int(ours["count"]) > 0
            assert [item.categories[0].category_name for item in found] == [
                LABELS[int(index)] for index in ours["classes"][: len(found)]
            ]
            scores = [item.categories[0].score for item in found]
            np.testing.assert_allclose(scores, ours["scores"][: len(found)], atol=1e-6)
            corners = [
                (box.origin_x, box.origin_y, box.origin_x + box.width, box.origin_y + box.height)
                for box in (item.bounding_box for item in found)
            ]
            # MediaPipe cuts pixels off to whole ones, of the corner and of the size.
            np.testing.assert_allclose(corners, ours["boxes"][: len(found)] * (96, 64, 96, 64), atol=2.01)


def test_partners_by_hand():
    def found(*rows):
        boxes, scores, classes = zip(*rows, strict=True)
        return {
            "boxes": np.float32([boxes]),
            "scores": np.float32([scores]),
            "classes": np.float32([classes]),
            "count": np.float32([sum(score > 0 for score in scores)]),
        }

    one, two = ((0, 0, 0.5, 0.5), 0.8, 1), ((0.5, 0.5, 1, 1), 0.8 - 1e-6, 0)
    nothing = ((0, 0, 0, 0), 0, 0)
    assert share_alone(found(one, two), found(two, one)) == 0  # Nearly equal scores change places.
    assert share_alone(found(one, nothing), found(one, two)) == pytest.approx(1 / 3)
    assert share_alone(found(one, one), found(one, two)) == 0.5  # A partner is taken once.
    assert share_alone(found((one[0], 0.8, 0)), found(one)) == 1
    assert share_alone(found((one[0], 0.801, 1)), found(one)) == 1
    assert share_alone(found(((0, 0, 0.5, 0.501), 0.8, 1)), found(one)) == 1
    assert share_alone(found(nothing), found(nothing)) == 0
    masks = np.random.default_rng(0).uniform(0, 1, (1, 2, 5, 5)).astype(np.float32)
    both = {**found(one, two), "box_masks": masks}
    assert share_alone(both, both) == 0
    assert share_alone({**both, "box_masks": masks[:, ::-1]}, both) == 1


def check(detector, path, images, scratch):
    return check_detector(detector, open_engine(path), images[:4], scratch, "the file", True)


@pytest.mark.parametrize("wrong", ["corners", "classes", "suppression"])
def test_a_file_that_decodes_otherwise_than_the_model_is_refused(wrong, detector, files, images, monkeypatch, tmp_path):
    right = detections.decode_graph

    def decode_graph(task):
        decode = right(task)

        def changed(**raw):
            outputs = decode(**raw)
            if wrong == "corners":
                outputs["boxes"] = tf.gather(outputs["boxes"], [1, 0, 3, 2], axis=-1)
            if wrong == "classes":
                outputs["classes"] = 2 - outputs["classes"]
            return outputs

        return changed

    check(detector, files["none"].path, images, tmp_path)
    monkeypatch.setattr(detections, "decode_graph", decode_graph)
    if wrong == "suppression":
        monkeypatch.setattr(detector.task, "iou", 0.8)
    with pytest.raises(ExportError, match="does not find what the model finds"):
        check(detector, files["none"].path, images, tmp_path)


def test_a_file_of_another_net_is_refused(detector, files, images, tmp_path):
    model = read_model(files["none"].path)
    own = [tensor for tensor in model.subgraphs[0].tensors if not tensor.name.startswith(DECODE.encode())]
    weights = max((model.buffers[tensor.buffer] for tensor in own if tensor.shape.size == 4), key=filled)
    weights.data = np.roll(weights.data, 4)
    model.metadata = None
    model.buffers[-1].data = None
    write_model(tmp_path / "wrong.tflite", model)
    with pytest.raises(ExportError, match='output "(box_deltas|class_logits)"'):
        check(detector, tmp_path / "wrong.tflite", images, tmp_path)


def filled(buffer):
    return 0 if buffer.data is None else len(buffer.data)


def test_control_flow_in_a_decoding_is_refused(files, tmp_path):
    model = read_model(files["none"].path)
    model.subgraphs.append(model.subgraphs[0])
    write_model(tmp_path / "decode.tflite", model)
    with pytest.raises(ExportError, match="control flow"):
        join_decode(files["none"].path, tmp_path / "decode.tflite", tmp_path / "both.tflite", {})
