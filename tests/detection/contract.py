"""What every detector must do, on images of coloured rectangles that a tiny net learns in seconds."""

import json
import os
import subprocess
import sys

import keras
import numpy as np

import kerasvision as kv

COLOURS = ((230, 40, 40), (40, 60, 230))
TINY = {"backbone": "small_cnn", "backbone_arguments": {"filters": [8, 16, 16, 32, 32, 48], "depth": 1}}


def rectangles(count=16, size=64, most=3, seed=0):
    """Images float32 [count, size, size, 3] and their targets: 1 to `most` rectangles, a class is a colour."""
    random = np.random.default_rng(seed)
    images = random.uniform(90, 150, (count, size, size, 3)).astype(np.float32)
    targets = empty(count, most)
    for index in range(count):
        for slot in range(random.integers(1, most + 1)):
            sides = random.integers(size // 5, size // 2, 2)
            for _ in range(20):
                low = random.integers(0, size - sides + 1)
                box = np.concatenate([low, low + sides])
                if not overlapping(box, targets["boxes"][index, :slot]):
                    break
            else:
                break
            kind = random.integers(len(COLOURS))
            images[index, box[1] : box[3], box[0] : box[2]] = COLOURS[kind]
            targets["boxes"][index, slot] = box
            targets["classes"][index, slot] = kind
            targets["valid"][index, slot] = True
    return images, targets


def overlapping(box, others):
    return any((np.minimum(box[2:], other[2:]) > np.maximum(box[:2], other[:2])).all() for other in others)


def empty(count, most):
    """Targets without an object."""
    return {
        "boxes": np.zeros((count, most, 4), np.float32),
        "classes": np.zeros((count, most), np.int32),
        "valid": np.zeros((count, most), bool),
        "crowd": np.zeros((count, most), bool),
    }


def odd_targets(size=64):
    """{what is odd: targets of two images}, as data sets have them."""
    one = {"boxes": np.array([[[4, 4, 30, 40]], [[0, 0, size, size]]], np.float32), "valid": np.ones((2, 1), bool)}
    zeros = empty(2, 1)
    random = np.random.default_rng(0)
    low = random.uniform(0, size - 10, (2, 500, 2))
    many = np.concatenate([low, low + random.uniform(1, 30, (2, 500, 2))], axis=-1).astype(np.float32)
    return {
        "no slots": empty(2, 0),
        "no objects": empty(2, 3),
        "one object": {**zeros, **one},
        "without crowd": {key: value for key, value in {**zeros, **one}.items() if key != "crowd"},
        "without area": {**zeros, "boxes": np.full((2, 1, 4), 9, np.float32), "valid": np.ones((2, 1), bool)},
        "turned round": {**zeros, "boxes": one["boxes"][..., [2, 3, 0, 1]], "valid": np.ones((2, 1), bool)},
        "outside": {**zeros, "boxes": one["boxes"] + 5 * size, "valid": np.ones((2, 1), bool)},
        "NaN": {**zeros, "boxes": np.full((2, 1, 4), np.nan, np.float32), "valid": np.ones((2, 1), bool)},
        "NaN in a slot that is not valid": {**zeros, "boxes": np.full((2, 1, 4), np.nan, np.float32)},
        "infinite": {**zeros, "boxes": one["boxes"] + np.float32([0, 0, np.inf, 0]), "valid": np.ones((2, 1), bool)},
        "a crowd": {**zeros, **one, "crowd": np.ones((2, 1), bool)},
        "500 objects": {**empty(2, 500), "boxes": many, "valid": np.ones((2, 500), bool)},
    }


def random_outputs(model, images=2, spread=2.0, seed=0):
    """Raw outputs of a model, drawn at random."""
    random = np.random.default_rng(seed)
    shapes = {name: (images, *output.shape[1:]) for name, output in model.output.items()}
    return {name: random.normal(0, spread, shape).astype(np.float32) for name, shape in shapes.items()}


def check_odd_targets(model):
    """Whatever is to be found, the losses and their gradients are finite, and so is what is decoded."""
    import tensorflow as tf

    for spread in (1.0, 30.0):
        outputs = {name: tf.constant(values) for name, values in random_outputs(model, spread=spread).items()}
        for what, targets in odd_targets(model.image_size[0]).items():
            with tf.GradientTape() as tape:
                tape.watch(outputs)
                losses = model.task.loss(targets, outputs)
                total = sum(losses.values())
            gradients = [each for each in tape.gradient(total, outputs).values() if each is not None]
            assert list(losses) == list(model.task.loss_names), what
            assert all(np.isfinite(value) and value >= 0 for value in losses.values()), (what, losses)
            assert all(np.isfinite(gradient).all() for gradient in gradients), what
            assert any(np.abs(gradient).max() > 0 for gradient in gradients), what
        found = model.task.decode(outputs)
        assert all(np.isfinite(values).all() for values in found.values())


def learn(model, epochs, rate=5e-3, **scene):
    """AP50 on the images it was trained with."""
    images, targets = rectangles(size=model.image_size[0], **scene)
    keras.utils.set_random_seed(0)
    steps = epochs * -(-len(images) // 8)
    model.compile(keras.optimizers.Adam(keras.optimizers.schedules.CosineDecay(rate, steps), global_clipnorm=10.0))
    model.fit(images, targets, batch_size=8, epochs=epochs, verbose=0)
    found = model.task.decode(model.predict(images, verbose=0))
    return model.task.metrics(targets, {name: np.asarray(values) for name, values in found.items()})["AP50"]


def check_saves(model, path):
    """The file gives a model with the same outputs and the same settings."""
    images = np.random.default_rng(2).uniform(0, 255, (2, *model.image_size, 3)).astype(np.float32)
    model.save(path)
    again = keras.saving.load_model(path)
    assert again.get_config() == model.get_config()
    for name, values in model(images).items():
        np.testing.assert_array_equal(values, again(images)[name], err_msg=name)
    first, second = model.task.decode(model(images)), again.task.decode(again(images))
    assert all(np.array_equal(first[name], second[name]) for name in first)


def check_quantizes(model):
    """The fake-quantized twin trains a step; its loss is nearly that of the net, and it decodes."""
    images, targets = rectangles(8, model.image_size[0])
    quantized = kv.quantize(model)
    quantized.calibrate(images)
    exact = sum(model.task.loss(targets, model(images, training=False)).values())
    rounded = sum(model.task.loss(targets, quantized(images, training=False)).values())
    np.testing.assert_allclose(rounded, exact, rtol=0.2)
    quantized.compile("adam", learning_rate=1e-4)
    history = quantized.fit(images, targets, batch_size=8, epochs=2, verbose=0).history
    assert np.isfinite(history["loss"]).all() and set(model.task.loss_names) <= set(history)
    assert quantized.task.decode(quantized(images))["boxes"].shape == (8, model.task.detections, 4)


_CHILD = """
import json, sys
import jax, keras, numpy as np
from kerasvision.registry import create_model

folder, name, arguments = sys.argv[1], sys.argv[2], json.loads(sys.argv[3])
targets = dict(np.load(f"{folder}/given.npz"))
images = targets.pop("images")
model = create_model(name, **arguments)
model.load_weights(f"{folder}/model.weights.h5")
outputs = model(images, training=False)

def loss(outputs):
    return sum(model.task.loss(targets, outputs).values())

value, gradients = jax.jit(jax.value_and_grad(loss))(outputs)
found = jax.jit(model.task.decode)(outputs)
gradients = {f"{name}/gradient": gradient for name, gradient in gradients.items()}
np.savez(f"{folder}/results.npz", loss=value, **outputs, **gradients, **found)
print(json.dumps({"backend": keras.backend.backend(), "tensorflow": "tensorflow" in sys.modules}))
"""


def check_jax(model, folder):
    """Outputs, loss, its gradient and detections on JAX equal those on TensorFlow."""
    import tensorflow as tf

    images, targets = rectangles(4, model.image_size[0], seed=3)
    outputs = model(images, training=False)
    with tf.GradientTape() as tape:
        tape.watch(outputs)
        loss = sum(model.task.loss(targets, outputs).values())
    gradients = tape.gradient(loss, outputs, unconnected_gradients="zero")
    gradients = {f"{name}/gradient": each for name, each in gradients.items()}
    expected = {"loss": loss, **outputs, **gradients, **model.task.decode(outputs)}
    model.save_weights(folder / "model.weights.h5")
    np.savez(folder / "given.npz", images=images, **targets)
    config = model.get_config()
    fast = {"XLA_FLAGS": "--xla_backend_optimization_level=0", "KERAS_BACKEND": "jax", "JAX_PLATFORMS": "cpu"}
    child = subprocess.run(
        [sys.executable, "-c", _CHILD, str(folder), config["name"], json.dumps(config["arguments"])],
        env={**os.environ, **fast},
        capture_output=True,
        text=True,
        timeout=600,
    )
    assert child.returncode == 0, child.stderr
    assert json.loads(child.stdout.splitlines()[-1]) == {"backend": "jax", "tensorflow": False}
    received = np.load(folder / "results.npz")
    for name, values in expected.items():
        tolerance = 1e-4 * max(1.0, float(np.abs(values).max()))
        np.testing.assert_allclose(received[name], values, rtol=0, atol=tolerance, err_msg=name)
