"""The task: its settings, its losses over several heads, its decoding everywhere, and what it measures."""

import json
import math

import keras
import numpy as np
import pytest
import tensorflow as tf

import kerasvision as kv
from kerasvision.preprocessing import Preprocessing
from kerasvision.segmentation import SegmentationTask, losses
from kerasvision.task import TaskModel

LABELS = ("sky", "road", "car")
VOID = 255


def drawn(size=(16, 12), count=3, seed=0, images=2):
    """Class maps with void, logits of half the size, and auxiliary ones of a quarter."""
    rng = np.random.default_rng(seed)
    classes = rng.integers(0, count, (images, *size)).astype(np.uint8)
    classes[:, :2] = VOID
    outputs = {
        "logits": rng.normal(0, 2, (images, size[0] // 2, size[1] // 2, count)),
        "auxiliary_logits": rng.normal(0, 2, (images, size[0] // 4, size[1] // 4, count)),
    }
    return {"segmentation": classes}, {name: values.astype(np.float32) for name, values in outputs.items()}


def bilinear(values, size):
    """Half-pixel bilinear interpolation of [B, h, w, K], edges continued."""
    for axis, side in ((1, size[0]), (2, size[1])):
        own = values.shape[axis]
        places = np.clip((np.arange(side) + 0.5) * own / side - 0.5, 0, own - 1)
        low = np.floor(places).astype(int)
        shares = (places - low).reshape([-1 if each == axis else 1 for each in range(4)])
        high = np.minimum(low + 1, own - 1)
        values = np.take(values, low, axis) * (1 - shares) + np.take(values, high, axis) * shares
    return values.astype(np.float32)


def test_decode_is_the_best_class_of_enlarged_logits():
    _, outputs = drawn()
    for size in ((16, 12), (13, 19), (8, 6), (4, 3)):
        large = bilinear(outputs["logits"], size)
        found = SegmentationTask(labels=LABELS, image_size=size, probabilities=True).decode(outputs)
        assert found["classes"].dtype == "int32"
        best = np.sort(large, axis=-1)
        clear = best[..., -1] - best[..., -2] > 1e-5
        assert clear.mean() > 0.99
        np.testing.assert_array_equal(found["classes"].numpy()[clear], large.argmax(axis=-1)[clear])
        powers = np.exp(large)
        np.testing.assert_allclose(found["probabilities"], powers / powers.sum(axis=-1, keepdims=True), atol=1e-5)
    assert list(SegmentationTask(labels=LABELS, image_size=(16, 12)).decode(outputs)) == ["classes"]


def test_losses_are_weighted_and_summed_over_heads():
    targets, outputs = drawn()
    weights = {"dice": 1, "focal": {"weight": 0.5, "gamma": 3.0}}
    task = SegmentationTask(labels=LABELS, image_size=(16, 12), loss=weights, auxiliary_weight=0.3)
    assert task.loss_names == ("dice", "focal")
    received = task.loss(targets, outputs)
    classes = targets["segmentation"]
    for name, function in (
        ("dice", losses.dice),
        ("focal", lambda *given: 0.5 * losses.focal(*given, gamma=3.0)),
    ):
        heads = [function(classes, bilinear(outputs[key], (16, 12))) for key in ("logits", "auxiliary_logits")]
        expected = heads[0] + 0.3 * heads[1]
        np.testing.assert_allclose(received[name], np.mean(expected), rtol=1e-5)
        weighted = task.loss(targets, outputs, np.array([0.0, 2.0]))
        np.testing.assert_allclose(weighted[name], expected[1], rtol=1e-5)
    alone = task.loss(targets, {"logits": outputs["logits"]})
    assert alone["dice"] < received["dice"]


def test_weights_of_classes_and_pixels_reach_the_losses_that_take_them():
    targets, outputs = drawn()
    del outputs["auxiliary_logits"]
    large, classes = bilinear(outputs["logits"], (16, 12)), targets["segmentation"]
    factors = np.random.default_rng(1).uniform(0, 3, classes.shape).astype(np.float32)
    task = SegmentationTask(
        labels=LABELS, loss={"crossentropy": 1, "lovasz": 1}, class_weights={"car": 4}, label_smoothing=0.1
    )
    received = task.loss({**targets, "pixel_weights": factors}, outputs)
    expected = losses.crossentropy(classes, large, class_weights=(1, 1, 4), label_smoothing=0.1, pixel_weights=factors)
    np.testing.assert_allclose(received["crossentropy"], np.mean(expected), rtol=1e-5)
    np.testing.assert_allclose(received["lovasz"], np.mean(losses.lovasz(classes, large)), rtol=1e-5)
    assert task.class_weights == (1, 1, 4)


def test_a_margin_counts_nowhere():
    rng = np.random.default_rng(0)
    classes = rng.integers(0, 3, (2, 20, 18)).astype(np.uint8)
    logits = {"logits": rng.normal(size=(2, 12, 10, 3)).astype(np.float32)}
    task = SegmentationTask(labels=LABELS, image_size=(20, 18), probabilities=True)
    task.bind(4)
    inner = classes[:, 4:-4, 4:-4]
    np.testing.assert_allclose(
        task.loss({"segmentation": classes}, logits)["crossentropy"],
        np.mean(losses.crossentropy(inner, logits["logits"])),
        rtol=1e-6,
    )
    found = {name: values.numpy() for name, values in task.decode(logits).items()}
    assert found["classes"].shape == (2, 20, 18) and found["probabilities"].shape == (2, 20, 18, 3)
    np.testing.assert_array_equal(found["classes"][:, 4:-4, 4:-4], logits["logits"].argmax(axis=-1))
    assert (found["classes"][:, :4] == VOID).all() and (found["classes"][:, :, -4:] == VOID).all()
    assert not found["probabilities"][:, :4].any()
    accuracy = task.metrics({"segmentation": classes}, found)["pixel_accuracy"]
    assert accuracy == pytest.approx((logits["logits"].argmax(axis=-1) == inner).mean())
    monitors = task.monitors({"segmentation": classes}, logits)
    assert float(monitors["pixel_accuracy"]) == pytest.approx(accuracy)


def test_monitors_are_those_of_the_batch():
    targets, outputs = drawn(images=3)
    task = SegmentationTask(labels=LABELS, image_size=(16, 12))
    received = task.monitors(targets, outputs)
    found = {name: values.numpy() for name, values in task.decode(outputs).items()}
    exact = task.metrics(targets, found)
    assert tuple(received) == task.monitor_names
    np.testing.assert_allclose(received["pixel_accuracy"], exact["pixel_accuracy"], rtol=1e-6)
    np.testing.assert_allclose(received["batch_mIoU"], exact["mIoU"], rtol=1e-6)
    void = task.monitors({"segmentation": np.full((3, 16, 12), VOID)}, outputs)
    assert [float(value) for value in void.values()] == [0, 0]


def test_settings_survive_json():
    task = SegmentationTask(
        labels=LABELS,
        image_size=(16, 12),
        loss={"dice": {"squared": True}, "crossentropy": 2},
        class_weights=[1, 2, 3],
        label_smoothing=0.1,
        auxiliary_weight=0.2,
        probabilities=True,
        border="car",
        min_area=5,
        neck=1.5,
    )
    again = SegmentationTask(**json.loads(json.dumps(task.get_config())))
    assert again.get_config() == task.get_config()
    targets, outputs = drawn()
    assert task.loss(targets, outputs) == again.loss(targets, outputs)
    meter = again.meter()
    assert (meter.border, meter.min_area, meter.neck) == (2, 5, 1.5)


@pytest.mark.parametrize(
    ("settings", "words"),
    [
        ({}, "Give num_classes"),
        ({"num_classes": 1}, "2 to 255 classes, got 1"),
        ({"num_classes": 2, "labels": LABELS}, "num_classes is 2 but 3"),
        ({"labels": LABELS, "loss": "dise"}, 'no loss "dise".*dice'),
        ({"labels": LABELS, "loss": {}}, "one loss or more"),
        ({"labels": LABELS, "loss": {"focal": {"gama": 1}}}, '"focal" has no option "gama".*gamma'),
        ({"labels": LABELS, "loss": {"dice": -1}}, 'weight of the loss "dice"'),
        ({"labels": LABELS, "loss": "lovasz", "class_weights": [1, 2, 3]}, "class_weights is for the losses cross"),
        ({"labels": LABELS, "loss": "dice", "label_smoothing": 0.1}, "label_smoothing is for the losses crossentropy"),
        ({"labels": LABELS, "label_smoothing": 1}, r"\[0, 1\), got 1"),
        ({"labels": LABELS, "class_weights": [1, 2]}, "3 numbers from 0"),
        ({"labels": LABELS, "class_weights": {"cart": 2}}, '"cart", which is no label.*car'),
        ({"labels": LABELS, "auxiliary_weight": -1}, "must not be negative"),
        ({"labels": LABELS, "border": "sky"}, "behind the first"),
    ],
)
def test_settings_that_cannot_be(settings, words):
    with pytest.raises(ValueError, match=words):
        SegmentationTask(**settings)


def tiny(task, size=(32, 32)):
    """A net of a few convolutions with logits at half the size and an auxiliary head."""
    preprocessing = Preprocessing(scale=(1 / 128,), offset=(-1.0,))
    image = keras.Input((*size, 3), name="image")
    x = keras.layers.Rescaling(1 / 128, -1.0, name="preprocessing")(image)
    for index, stride in enumerate((2, 1)):
        x = keras.layers.Conv2D(12, 3, strides=stride, padding="same", name=f"conv_{index}")(x)
        x = keras.layers.ReLU(name=f"relu_{index}")(x)
    count = len(task.labels)
    outputs = {
        "logits": keras.layers.Conv2D(count, 1, dtype="float32", name="logits")(x),
        "auxiliary_logits": keras.layers.Conv2D(count, 1, strides=2, dtype="float32", name="auxiliary_logits")(x),
    }
    build = {"name": "tiny", "arguments": task.get_config()}
    return TaskModel(image, outputs, task=task, preprocessing=preprocessing, build=build)


def coloured(count=8, size=32, seed=0):
    """Images whose classes are colours."""
    rng = np.random.default_rng(seed)
    classes = np.kron(rng.integers(0, 3, (count, 4, 4)), np.ones((1, size // 4, size // 4), int)).astype(np.uint8)
    colours = np.array([[220, 40, 40], [40, 220, 40], [40, 40, 220]])
    images = (colours[classes] + rng.normal(0, 10, (count, size, size, 3))).clip(0, 255).astype(np.float32)
    classes[:, 0] = VOID
    return images, {"segmentation": classes}


def test_learns_and_quantizes():
    keras.utils.set_random_seed(0)
    images, targets = coloured()
    task = SegmentationTask(labels=LABELS, image_size=(32, 32), loss={"crossentropy": 1, "dice": 1, "boundary": 0.1})
    model = tiny(task)
    model.compile(keras.optimizers.Adam(2e-2))
    history = model.fit(images, targets, batch_size=8, epochs=40, verbose=0).history
    assert {"crossentropy", "dice", "boundary", "pixel_accuracy", "batch_mIoU"} <= set(history)
    figures = task.metrics(targets, task.decode(model.predict(images, verbose=0)))
    assert figures["mIoU"] > 0.9
    assert history["batch_mIoU"][-1] == pytest.approx(figures["mIoU"], abs=0.02)

    quantized = kv.quantize(model)
    quantized.calibrate(images)
    quantized.compile("adam", learning_rate=1e-4)
    losses_seen = quantized.fit(images, targets, batch_size=8, epochs=1, verbose=0).history
    assert math.isfinite(losses_seen["loss"][0]) and losses_seen["batch_mIoU"][0] > 0.85
    assert task.metrics(targets, task.decode(quantized(images)))["mIoU"] > 0.85


@pytest.mark.parametrize("margin", [0, 2])
def test_decoding_is_builtin_operations(margin, tmp_path):
    from ai_edge_litert.interpreter import Interpreter

    _, outputs = drawn(images=1)
    task = SegmentationTask(labels=LABELS, image_size=(19 + 2 * margin, 13 + 2 * margin), probabilities=True)
    task.bind(margin)
    spec = tf.TensorSpec((1, 8, 6, 3), tf.float32, name="logits")
    holder = tf.Module()
    holder.decode = tf.function(lambda logits: task.decode({"logits": logits}), input_signature=[spec])
    tf.saved_model.save(holder, str(tmp_path), signatures=holder.decode)
    interpreter = Interpreter(model_content=tf.lite.TFLiteConverter.from_saved_model(str(tmp_path)).convert())
    names = {item["op_name"] for item in interpreter._get_ops_details()}
    assert {"RESIZE_BILINEAR", "ARG_MAX", "SOFTMAX"} <= names and not any(name.startswith("Flex") for name in names)
    found = interpreter.get_signature_runner()(logits=outputs["logits"])
    for name, values in task.decode({"logits": outputs["logits"]}).items():
        np.testing.assert_allclose(found[name], values, atol=1e-6)


def test_decoding_of_symbolic_outputs():
    task = SegmentationTask(labels=LABELS, image_size=(32, 32))
    model = tiny(task)
    decoding = keras.Model(model.input, task.decode(model.output))
    images, _ = coloured(2)
    np.testing.assert_array_equal(decoding(images)["classes"], task.decode(model(images))["classes"])
