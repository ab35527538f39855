"""Heads: exact parameter counts, the order of boxes, and int8 files of whole detectors without a float op."""

import functools
import tempfile

import keras
import numpy as np
import pytest
import tensorflow as tf
from ai_edge_litert.interpreter import Interpreter

import kerasvision as kv
from kerasvision.detection.heads import (
    decoupled_head,
    join_levels,
    prior_bias,
    retinanet_head,
    rpn_head,
    ssd_head,
    yolo_head,
)
from kerasvision.export.coverage import float_ops, read_graph
from kerasvision.layers.pyramid import downsampled_levels, feature_pyramid, path_aggregation, yolo_neck
from kerasvision.registry import get_entry

RESNET50 = 23_454_912  # Kernels and biases of ResNet-50 without its classifier; torchvision freezes the rest.
VGG16 = 14_714_688 + 9 * 512 * 1024 + 1024 + 1024 * 1024 + 1024  # Its convolutions, then fc6 and fc7 of SSD.


def maps(size=64, **channels):
    """{"P3": Input, ...} of an image of size x size."""
    return {level: keras.Input((*[-(-size // 2 ** int(level[1:]))] * 2, c)) for level, c in channels.items()}


def net(features, outputs):
    return keras.Model(list(features.values()), outputs)


def trainable(model):
    return sum(int(np.prod(weight.shape)) for weight in model.trainable_weights)


def test_parameters_of_retinanet():
    """34,014,999 in torchvision, with 91 classes."""
    features = maps(P3=512, P4=1024, P5=2048)
    model = net(features, retinanet_head(feature_pyramid(features, 256, "p5"), 91))
    tower = 4 * (9 * 256 * 256 + 256)
    head = 2 * tower + 9 * (9 * 256 * (91 + 4) + 91 + 4)
    assert model.count_params() == 3_868_672 + head == 34_014_999 - RESNET50


def test_parameters_of_faster_rcnn():
    """41,755,286 in torchvision, of which 14,362,055 belong to its second stage."""
    features = maps(P2=256, P3=512, P4=1024, P5=2048)
    model = net(features, rpn_head(feature_pyramid(features, 256, "pool", levels=tuple(features))))
    second_stage = 7 * 7 * 256 * 1024 + 1024 + 1024 * 1024 + 1024 + (1024 + 1) * 91 * 5
    assert second_stage == 14_362_055
    assert model.count_params() == 3_344_384 + 593_935 == 41_755_286 - RESNET50 - second_stage


def test_parameters_and_boxes_of_ssd300():
    """26,285,486 with 20 classes and the background, 512 of them the scales of conv4_3; 8,732 boxes."""
    fine, conv7 = keras.Input((38, 38, 512)), keras.Input((19, 19, 1024))
    features = {"P3": fine, "P4": conv7}
    pyramid = downsampled_levels(features, (512, 256, 256, 256), levels=("P3", "P4"), unpadded=2)
    model = net(features, ssd_head(pyramid, 21))
    assert model.count_params() == 26_285_486 - VGG16 - 512
    shapes = {name: tensor.shape[1:] for name, tensor in model.output.items()}
    assert shapes == {"box_deltas": (8732, 4), "class_logits": (8732, 21)}


def test_parameters_and_boxes_of_yolov3():
    """62,001,757, of which 61,949,149 are trained, with 80 classes; 10,647 boxes at 416 pixels."""
    image = keras.Input((416, 416, 3))
    model = keras.Model(image, yolo_head(yolo_neck(get_entry("darknet53")[0].builder(image)), 80))
    assert model.count_params() == 62_001_757
    assert trainable(model) == 61_949_149
    assert {name: tensor.shape[1:] for name, tensor in model.output.items()} == {
        "box_deltas": (10_647, 4),
        "objectness_logits": (10_647, 1),
        "class_logits": (10_647, 80),
    }


def test_parameters_of_yolov8n():
    """897,664 in Ultralytics' YOLOv8n, which counts the 16 numbers of the bins."""
    features = maps(P3=64, P4=128, P5=256)
    model = net(features, decoupled_head(features, 80))
    assert trainable(model) == 897_664 - 16
    assert model.output["box_bins"].shape == (None, 64 + 16 + 4, 64)


@pytest.mark.parametrize("separable", [False, True])
def test_parameters_of_a_normalized_shared_head(separable):
    features = maps(P3=8, P4=8, P5=8)
    model = net(features, retinanet_head(features, 5, 3, 8, 2, separable=separable, normalized=True))
    levels, bn = 3, 2 * 8
    inner = 9 * 8 + levels * bn if separable else 0  # A depthwise kernel, normalized on each level.
    tower = 2 * (inner + (1 if separable else 9) * 8 * 8 + levels * bn)
    last = sum(inner + (1 if separable else 9) * 8 * 3 * values + 3 * values for values in (4, 5))
    assert trainable(model) == 2 * tower + last


def test_parameters_of_ssd_lite():
    features = maps(P4=6, P5=10)
    model = net(features, ssd_head(features, 3, (4, 6), separable=True))
    expected = 0
    for channels, anchors in ((6, 4), (10, 6)):
        expected += 2 * (9 * channels + 2 * channels) + (channels + 1) * anchors * (4 + 3)
    assert trainable(model) == expected


def test_a_box_is_found_where_its_anchor_is():
    """Level by level, row by row, column by column, anchor by anchor."""
    anchors, values = 2, 3
    fine, coarse = keras.Input((4, 5, anchors * values)), keras.Input((2, 3, anchors * values))
    model = keras.Model([fine, coarse], join_levels([fine, coarse], values, "joined"))
    given = [np.random.default_rng(0).normal(size=(2, *x.shape[1:])).astype("float32") for x in (fine, coarse)]
    joined = np.asarray(model(given))
    assert joined.shape == (2, (20 + 6) * anchors, values)
    for row, column, anchor in np.ndindex(2, 3, anchors):
        index = 20 * anchors + (row * 3 + column) * anchors + anchor
        expected = given[1][:, row, column, anchor * values : (anchor + 1) * values]
        np.testing.assert_array_equal(joined[:, index], expected)


HEADS = {
    "retinanet": lambda f, prior: retinanet_head(f, 3, 2, 8, 2, prior=prior)["class_logits"],
    "yolo": lambda f, prior: yolo_head(f, 3, prior=prior)["objectness_logits"],
    "decoupled": lambda f, prior: decoupled_head(f, 3, 4, prior=prior)["class_logits"],
}


@pytest.mark.parametrize("prior", [0.01, 0.2])
@pytest.mark.parametrize("head", HEADS)
def test_a_fresh_net_gives_the_prior(head, prior):
    features = maps(P3=8, P4=8, P5=8)
    model = net(features, HEADS[head](features, prior))
    logits = np.asarray(model([np.zeros((1, *x.shape[1:]), "float32") for x in model.inputs]))
    np.testing.assert_allclose(1 / (1 + np.exp(-logits)), prior, rtol=1e-5)


def test_towers_start_differently():
    features = maps(P3=8, P4=8)
    model = net(features, retinanet_head(features, 3, 2, 8, 2))
    kernels = [layer.get_weights()[0] for layer in model.layers if "tower" in layer.name and layer.weights]
    assert len(kernels) == 4 and len({kernel.tobytes() for kernel in kernels}) == 4
    assert np.std(kernels) == pytest.approx(0.01, rel=0.1)


@pytest.mark.parametrize("policy", ["mixed_float16", "mixed_bfloat16"])
def test_outputs_of_half_precision_nets_are_float32(policy):
    keras.config.set_dtype_policy(policy)
    try:
        features = maps(P3=4, P4=4)
        outputs = retinanet_head(feature_pyramid(features, 4, levels=("P3", "P4")), 3, 2, 4, 1)
    finally:
        keras.config.set_dtype_policy("float32")
    model = net(features, outputs)
    assert model.get_layer("fpn_P3_smooth_conv").compute_dtype == policy.removeprefix("mixed_")
    assert {keras.backend.standardize_dtype(x.dtype) for x in outputs.values()} == {"float32"}


def test_arguments_that_do_not_fit():
    features = maps(P3=4, P4=6)
    for head in (lambda: retinanet_head(features, 3), lambda: rpn_head(features)):
        with pytest.raises(ValueError, match="needs maps of equal channels, got {'P3': 4, 'P4': 6}"):
            head()
    for head in (lambda: ssd_head(features, 3), lambda: yolo_head(features, 3)):
        with pytest.raises(ValueError, match="Expected a number of anchors for each of P3, P4, got"):
            head()
    with pytest.raises(ValueError, match="prior must lie between 0 and 1"):
        prior_bias(1.0)


# Whole detectors on a tiny backbone of two levels.
LEVELS = ("P2", "P3")
DETECTORS = {
    "retinanet": lambda f: retinanet_head(feature_pyramid(f, 6, "c5", levels=LEVELS), 3, 2, 6, 1),
    "retinanet_light": lambda f: retinanet_head(
        feature_pyramid(f, 6, levels=LEVELS, separable=True, normalized=True),
        3,
        2,
        6,
        1,
        separable=True,
        normalized=True,
    ),
    "rpn": lambda f: rpn_head(feature_pyramid(f, 6, "pool", levels=LEVELS), 3, 6),
    "ssd": lambda f: ssd_head(downsampled_levels(f, (8,), levels=LEVELS, unpadded=1), 4, (3, 4, 3)),
    "ssd_lite": lambda f: ssd_head(
        downsampled_levels(f, (8,), levels=LEVELS, separable=True, normalized=True), 4, (3, 4, 3), separable=True
    ),
    "yolo": lambda f: yolo_head(yolo_neck(f, (4, 6), levels=LEVELS), 3, (3, 3)),
    "anchor_free": lambda f: decoupled_head(
        path_aggregation(f, 8, levels=LEVELS), 3, 4, depth=1, box_filters=8, separable=True
    ),
}
# Shared kernels with a normalization for each level: the most difficult one.
FAST = ("retinanet_light",)
EACH_DETECTOR = pytest.mark.parametrize(
    "name", [pytest.param(name, marks=() if name in FAST else pytest.mark.slow) for name in DETECTORS]
)
SIDE = 36  # P3 has 5 places and P2 9, so that the way down has to cut.


@functools.cache
def quantized_net(name):
    """The float model, the calibrated fake-quantized one, images, and the int8 file's content."""
    keras.utils.set_random_seed(0)
    image = keras.Input((SIDE, SIDE, 3), name="image")
    x = keras.layers.Rescaling(1 / 128, -1.0, name="preprocessing")(image)
    features = {}
    for index, filters in enumerate((4, 6, 8), 1):
        x = keras.layers.Conv2D(filters, 3, 2, "same", name=f"conv{index}")(x)
        features[f"P{index}"] = x = keras.layers.ReLU(name=f"relu{index}")(x)
    task = kv.create_model("small_cnn", num_classes=2, input_shape=(16, 16, 3), filters=[4]).task
    preprocessing = kv.Preprocessing(scale=(1 / 128,), offset=(-1.0,))
    build = {"name": name, "arguments": {}}
    model = kv.TaskModel(image, DETECTORS[name](features), task=task, preprocessing=preprocessing, build=build)
    rng = np.random.default_rng(0)
    for weight in model.trainable_weights:
        if weight.name == "kernel":  # Such that the signal keeps its size on its way.
            weight.assign(rng.normal(size=weight.shape) * (1.5 / np.prod(weight.shape[:-1])) ** 0.5)
        elif weight.name == "gamma":
            weight.assign(rng.uniform(0.8, 1.2, weight.shape))
        else:
            weight.assign(rng.normal(size=weight.shape) / 10)
    images = rng.integers(0, 256, (8, SIDE, SIDE, 3)).astype("float32")
    model(images, training=True)
    quantized = kv.quantize(model)
    quantized.calibrate(images)
    spec = tf.TensorSpec((1, SIDE, SIDE, 3), tf.float32, name="normalized")
    function = tf.function(lambda x: quantized.net(x, training=False), input_signature=[spec], autograph=False)
    module = tf.Module()
    module.read = list(function.get_concrete_function().graph.variables)
    with tempfile.TemporaryDirectory() as folder:
        tf.saved_model.save(module, folder, signatures=function)
        converter = tf.lite.TFLiteConverter.from_saved_model(folder)
        converter.optimizations = [tf.lite.Optimize.DEFAULT]
        return model, quantized, images, converter.convert()


@EACH_DETECTOR
def test_no_op_stays_in_float(name, tmp_path):
    _, quantized, _, content = quantized_net(name)
    assert quantized.islands == ()
    path = tmp_path / "net.tflite"
    path.write_bytes(content)
    graph = read_graph(path)
    assert graph.custom == ()
    assert float_ops(graph) == []
    # A normalization that no convolution takes in would stand there as a depthwise convolution of its own.
    wrapped = [layer for layer in quantized.net.layers if hasattr(layer, "layer")]
    depthwise = [layer for layer in wrapped if type(layer.layer).__name__ == "DepthwiseConv2D"]
    calls = sum(len(layer.inbound_nodes) for layer in depthwise)
    assert sum(op.name == "DEPTHWISE_CONV_2D" for op in graph.ops) == calls


@EACH_DETECTOR
def test_the_file_computes_what_the_net_computes(name):
    """Boxes and classes have scales of their own, and the file is within a step of them of the fake-quantized net."""
    model, quantized, images, content = quantized_net(name)
    runner = Interpreter(model_content=content).get_signature_runner()
    fake, plain = quantized(images[:2]), model(images[:2])
    steps = quantized.output_steps()
    assert set(steps) == set(plain) and len(set(steps.values())) == len(steps)
    for output, step in steps.items():
        received = np.concatenate([runner(normalized=image[None] / 128 - 1)[output] for image in images[:2]])
        assert np.ptp(plain[output]) > 30 * step
        assert np.mean(np.abs(received - fake[output])) <= step
        assert np.mean(np.abs(fake[output] - plain[output])) <= 4 * step
