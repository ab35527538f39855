"""RoIAlign and RoI max pooling against plain loops in NumPy."""

import itertools
import math

import keras
import numpy as np
import pytest
import tensorflow as tf
from ai_edge_litert.interpreter import Interpreter
from hypothesis import given, settings
from hypothesis import strategies as st

import kerasvision as kv
from kerasvision.export.coverage import read_graph
from kerasvision.layers.roi_align import RoIAlign, RoIPooling, assign_levels

STRIDES = (4, 8, 16, 32)
HEIGHT, WIDTH, CHANNELS = 100, 132, 3
EDGES = [
    [0, 0, WIDTH, HEIGHT],
    [10, 20, 10, 20],  # Without area.
    [-40, -60, 30, 20],  # Beyond the border.
    [100, 80, 180, 190],
    [500, 500, 600, 600],  # Nowhere.
    [WIDTH, HEIGHT, WIDTH, HEIGHT],
    [5.5, 7.25, 6.5, 8.0],  # Less than one place.
    [-100, -80, 170, 190],  # Of the level of stride 16,
    [-150, -180, 330, 320],  # and of 32.
]


def maps(strides=STRIDES, batch=2, seed=0):
    rng = np.random.default_rng(seed)
    shapes = [(batch, -(-HEIGHT // stride), -(-WIDTH // stride), CHANNELS) for stride in strides]
    return [rng.normal(size=shape).astype("float32") for shape in shapes]


def some_boxes(batch=2, count=24, seed=0, scale=1.0):
    """Of all sizes, the special ones among them."""
    rng = np.random.default_rng(seed)
    corner = rng.uniform(-10, 100, (batch, count, 2))
    size = scale * rng.uniform(1, 12, (batch, count, 2)) ** 2
    boxes = np.concatenate([corner, corner + size], -1)
    boxes[:, : len(EDGES)] = EDGES
    return boxes.astype("float32")


def level_of(box, strides):
    area = max(box[2] - box[0], 0) * max(box[3] - box[1], 0)
    if area == 0:
        return 0
    level = math.floor(4 + math.log2(math.sqrt(area) / 224))
    return int(np.clip(level - math.log2(strides[0]), 0, len(strides) - 1))


def bilinear(image, y, x):
    """Detectron2's rule for one sample."""
    height, width, channels = image.shape
    if not (-1 <= y <= height and -1 <= x <= width):
        return np.zeros(channels)
    y, x = min(max(y, 0), height - 1), min(max(x, 0), width - 1)
    top, left = int(y), int(x)
    bottom, right = min(top + 1, height - 1), min(left + 1, width - 1)
    upper = image[top, left] * (left + 1 - x) + image[top, right] * (x - left)
    lower = image[bottom, left] * (left + 1 - x) + image[bottom, right] * (x - left)
    return upper * (top + 1 - y) + lower * (y - top)


def roi_align(features, boxes, strides, size=7, ratio=2):
    output = np.zeros((*boxes.shape[:2], size, size, features[0].shape[-1]))
    for image, index in np.ndindex(boxes.shape[:2]):
        level = level_of(boxes[image, index].astype("float64"), strides)
        x0, y0, x1, y1 = boxes[image, index].astype("float64") / strides[level] - 0.5
        for row, column in np.ndindex(size, size):
            for i, j in np.ndindex(ratio, ratio):
                y = y0 + (row + (i + 0.5) / ratio) * (y1 - y0) / size
                x = x0 + (column + (j + 0.5) / ratio) * (x1 - x0) / size
                output[image, index, row, column] += bilinear(features[level][image], y, x) / ratio**2
    return output


def roi_pooling(features, boxes, stride, size=7):
    """Caffe's rule, on boxes cut at the border."""
    height, width, channels = features.shape[1:]
    output = np.zeros((*boxes.shape[:2], size, size, channels))
    for image, index in np.ndindex(boxes.shape[:2]):
        edges = np.clip(boxes[image, index].astype("float64") / stride, 0, [width, height] * 2)
        x0, y0, x1, y1 = np.floor(edges + 0.5).astype(int)
        rows, columns = max(y1 - y0 + 1, 1), max(x1 - x0 + 1, 1)
        for i, j in np.ndindex(size, size):
            top, bottom = y0 + i * rows // size, y0 - (-(i + 1) * rows // size)
            left, right = x0 + j * columns // size, x0 - (-(j + 1) * columns // size)
            window = features[image, top:bottom, left:right]
            if window.size:
                output[image, index, i, j] = window.max((0, 1))
    return output


@pytest.mark.parametrize("strides", [STRIDES, (8, 16), (16,)])
@pytest.mark.parametrize("size, ratio", [(7, 2), (5, 1), (3, 3)])
def test_align_equals_a_plain_loop(strides, size, ratio):
    features, boxes = maps(strides), some_boxes(count=16, scale=2.0)
    received = np.asarray(RoIAlign(strides, size, ratio)(features, boxes))
    expected = roi_align(features, boxes, strides, size, ratio)
    assert len({level_of(box, strides) for box in boxes.reshape(-1, 4).astype("float64")}) >= min(3, len(strides))
    np.testing.assert_allclose(received, expected, atol=1e-5)
    assert (received[:, EDGES.index([500, 500, 600, 600])] == 0).all()


@pytest.mark.parametrize("stride, size", [(4, 7), (8, 7), (16, 7), (8, 3), (32, 2)])
def test_pooling_equals_a_plain_loop(stride, size):
    (features,), boxes = maps((stride,)), some_boxes()
    received = np.asarray(RoIPooling(stride, size)(features, boxes))
    np.testing.assert_array_equal(received, roi_pooling(features, boxes, stride, size).astype("float32"))
    assert np.abs(received).sum() > 0


@settings(max_examples=40, deadline=None)
@given(
    corner=st.tuples(st.floats(4, 60), st.floats(4, 60)),
    size=st.tuples(st.floats(0, 60), st.floats(0, 30)),
    slope=st.tuples(st.floats(-2, 2), st.floats(-2, 2)),
)
def test_align_of_a_slope_is_its_value_at_the_centre_of_each_bin(corner, size, slope):
    """Bilinear sampling is exact for planes; the value of a place stands at its centre."""
    stride, bins = 4, 3
    y, x = np.meshgrid(np.arange(33) + 0.5, np.arange(33) + 0.5, indexing="ij")
    plane = (slope[0] * x + slope[1] * y).astype("float32")[None, ..., None]
    box = np.float32([[[*corner, corner[0] + size[0], corner[1] + size[1]]]])
    received = np.asarray(RoIAlign((stride,), bins)([plane], box))[0, 0, ..., 0]
    share = (np.arange(bins) + 0.5) / bins
    columns, rows = (corner[axis] + share * size[axis] for axis in range(2))
    expected = (slope[0] * columns[None, :] + slope[1] * rows[:, None]) / stride
    np.testing.assert_allclose(received, expected, atol=1e-3)


@settings(max_examples=40, deadline=None)
@given(power=st.integers(-3, 3), ratio=st.sampled_from([1 / 4, 1.0, 4.0]), below=st.booleans())
def test_levels_change_exactly_at_the_powers_of_two(power, ratio, below):
    side = 224 * 2.0**power * (1 - 1e-6 if below else 1)
    box = np.float32([[0, 0, side * ratio**0.5, side / ratio**0.5]])
    expected = np.clip(4 + power - below, 2, 5) - 2
    assert int(assign_levels(box, STRIDES)[0]) == expected
    assert int(assign_levels(box / 4, STRIDES, 56.0)[0]) == expected


def test_gradients_of_align_are_its_transpose():
    """The features' share in each bin is linear, so <g, align(d)> = <gradient(g), d> for every d; boxes get none."""
    features, boxes = maps(), tf.constant(some_boxes(scale=2.0))
    layer = RoIAlign(STRIDES)
    variables = [tf.Variable(x) for x in features]
    with tf.GradientTape() as tape:
        tape.watch(boxes)
        aligned = layer([variable.value() for variable in variables], boxes)
        upstream = np.random.default_rng(1).normal(size=aligned.shape).astype("float32")
        loss = tf.reduce_sum(aligned * upstream)
    *gradients, of_boxes = tape.gradient(loss, [*variables, boxes])
    assert of_boxes is None
    assert all(np.abs(tf.convert_to_tensor(gradient)).max() > 0 for gradient in gradients)
    direction = maps(seed=2)
    moved = np.sum(np.float64(roi_align(direction, boxes.numpy(), STRIDES)) * upstream)
    received = sum(np.sum(np.float64(g) * d) for g, d in zip(gradients, direction, strict=True))
    assert received == pytest.approx(moved, rel=1e-4)


def test_gradients_of_pooling_reach_the_maxima():
    (features,), boxes = maps((8,)), some_boxes(count=12)
    variable = tf.Variable(features)
    with tf.GradientTape() as tape:
        pooled = RoIPooling(8, 3)(variable.value(), boxes)
        loss = tf.reduce_sum(pooled)
    gradient = tf.convert_to_tensor(tape.gradient(loss, variable)).numpy()
    reference = np.zeros_like(features)
    for image, channel in itertools.product(range(2), range(CHANNELS)):
        values = pooled.numpy()[image, ..., channel]
        for value in values[values != 0]:
            reference[image, ..., channel][features[image, ..., channel] == value] += 1
    np.testing.assert_allclose(gradient, reference, atol=1e-5)


def test_what_is_not_a_number_stays_where_it_is():
    features, boxes = maps(), some_boxes()
    expected = np.asarray(RoIAlign(STRIDES)(features, boxes))
    boxes[0, 10] = np.nan
    boxes[1, 11] = [-1e30, 0, 1e30, np.inf]
    received = np.asarray(RoIAlign(STRIDES)(features, boxes))
    same = np.ones(boxes.shape[:2], bool)
    same[0, 10] = same[1, 11] = False
    np.testing.assert_array_equal(received[same], expected[same])
    (coarse,) = maps((16,))
    assert np.asarray(RoIPooling(16)(coarse, boxes)).shape == (2, 24, 7, 7, CHANNELS)


def net(kind):
    boxes = keras.Input((6, 4), name="boxes")
    features = [keras.Input(x.shape[1:], name=f"map{i}") for i, x in enumerate(maps())]
    aligned = RoIAlign(STRIDES, name="roi")(features, boxes) if kind == "align" else None
    if aligned is None:
        aligned = RoIPooling(4, name="roi")(features[0], boxes)
    return keras.Model([*features, boxes], aligned)


@pytest.mark.parametrize("kind", ["align", "pooling"])
def test_file_of_builtin_ops(kind, tmp_path):
    model = net(kind)
    assert model.output.shape == (None, 6, 7, 7, CHANNELS)
    given = [*(x[:1] for x in maps()), some_boxes()[:1, 3:9]]
    specs = [
        tf.TensorSpec(x.shape, tf.float32, name=tensor.name) for x, tensor in zip(given, model.inputs, strict=True)
    ]
    function = tf.function(lambda *inputs: {"out": model(list(inputs))}, input_signature=specs, autograph=False)
    converter = tf.lite.TFLiteConverter.from_concrete_functions([function.get_concrete_function()], model)
    path = tmp_path / "roi.tflite"
    path.write_bytes(converter.convert())
    assert read_graph(path).custom == ()
    runner = Interpreter(str(path)).get_signature_runner()
    received = runner(**{tensor.name: x for tensor, x in zip(model.inputs, given, strict=True)})["out"]
    np.testing.assert_allclose(received, model(given), atol=1e-5)


@pytest.mark.parametrize("kind", ["align", "pooling"])
def test_saved_and_loaded(kind, tmp_path):
    model = net(kind)
    model.save(tmp_path / "net.keras")
    again = keras.saving.load_model(tmp_path / "net.keras")
    given = [*maps(), some_boxes()[:, :6]]
    np.testing.assert_array_equal(again(given), model(given))


def test_config_round_trip():
    for layer in (RoIAlign((8, 16), 5, 3, 96.0, name="here"), RoIPooling(16, 6, name="here")):
        again = type(layer).from_config(layer.get_config())
        assert again.get_config() == layer.get_config()
        assert again.size == layer.size
        assert getattr(again, "canonical_size", None) == getattr(layer, "canonical_size", None)


def test_half_precision_keeps_coordinates_whole():
    features, boxes = maps(), some_boxes() * 1.0 + 0.37
    expected = RoIAlign(STRIDES)(features, boxes)
    halves = [keras.ops.cast(x, "float16") for x in features]
    received = RoIAlign(STRIDES, dtype="mixed_float16")(halves, boxes)
    assert received.dtype == "float16"
    np.testing.assert_allclose(np.asarray(received, "float32"), expected, atol=0.02)


def test_an_island_in_a_quantized_net():
    """The convolutions on both sides are int8, the sampling is not, and the report can name it."""
    task = kv.create_model("small_cnn", num_classes=2, input_shape=(32, 32, 3), filters=[4]).task
    image = keras.Input((32, 32, 3), name="image")
    x = keras.layers.Rescaling(1 / 128, -1.0, name="preprocessing")(image)
    fine = keras.layers.Conv2D(4, 3, 2, "same", activation="relu", name="fine")(x)
    coarse = keras.layers.Conv2D(4, 3, 2, "same", activation="relu", name="coarse")(fine)
    boxes = keras.layers.Conv2D(4, 3, 4, "same", activation="relu", name="box_conv")(coarse)
    boxes = keras.layers.Reshape((4, 4), name="boxes")(boxes)
    rois = RoIAlign((2, 4), 3, name="roi")([fine, coarse], boxes)
    rois = keras.layers.Reshape((4, 3 * 3 * 4), name="flat")(rois)
    outputs = {"logits": keras.layers.Dense(2, name="logits")(rois)}
    build = {"name": "two_stages", "arguments": {}}
    preprocessing = kv.Preprocessing(scale=(1 / 128,), offset=(-1.0,))
    model = kv.TaskModel(image, outputs, task=task, preprocessing=preprocessing, build=build)
    quantized = kv.quantize(model)
    assert quantized.islands == ("roi",)
    images = np.random.default_rng(0).integers(0, 256, (8, 32, 32, 3)).astype("float32")
    quantized.calibrate(images)
    expected = np.asarray(model(images)["logits"])
    difference = np.abs(np.asarray(quantized(images)["logits"]) - expected).max()
    assert difference < 0.05 * np.ptp(expected)


@pytest.mark.parametrize("strides", [(), (8, 4), (4, 16)])
def test_strides_of_a_pyramid(strides):
    with pytest.raises(ValueError, match="each twice the one before"):
        RoIAlign(strides)


def test_maps_that_do_not_fit():
    with pytest.raises(ValueError, match=r"Expected 2 feature maps, one for each stride \[8, 16\]; got 1"):
        RoIAlign((8, 16))(maps((8,)), some_boxes())
    with pytest.raises(ValueError, match="known height and width"):
        RoIPooling(8)(keras.Input((None, None, 3)), keras.Input((6, 4)))
