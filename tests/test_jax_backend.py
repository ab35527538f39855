"""Nets, heads and losses on Keras's JAX backend: the same numbers as on TensorFlow, and no TensorFlow loaded.

Keras takes its backend once per process, so JAX runs in a child process on weights that TensorFlow saved.
"""

import importlib.util
import json
import os
import subprocess
import sys

import keras
import numpy as np
import pytest
import tensorflow as tf

from kerasvision.classification import ClassificationTask
from kerasvision.registry import create_model

pytestmark = [
    pytest.mark.skipif(importlib.util.find_spec("jax") is None, reason="JAX is not installed"),
    pytest.mark.skipif(keras.backend.backend() != "tensorflow", reason="compares TensorFlow with JAX"),
]

CLASSES = 5
MODELS = {
    "small_cnn": {"input_shape": (16, 16, 3), "filters": [8, 16]},
    "mobilenet_v2": {"input_shape": (64, 64, 3), "alpha": 0.35},
    "resnet50": {"input_shape": (64, 64, 3)},
    "efficientnet_lite0": {"input_shape": (64, 64, 3)},
}
COUNTS = [50, 20, 9, 3, 1]
TASKS = {
    "single": {"label_smoothing": 0.1},
    "multi": {"multi_label": True},
    "focal": {"loss": "focal"},
    "class_balanced": {"loss": "class_balanced", "class_counts": COUNTS},
    "ldam": {"loss": "ldam", "class_counts": COUNTS, "reweight": True},
}

CHILD = """
import json, sys
import jax, keras, numpy as np
from kerasvision.classification import ClassificationTask
from kerasvision.registry import create_model

folder, classes, models, tasks = sys.argv[1], *map(json.loads, sys.argv[2:])
given = dict(np.load(f"{folder}/given.npz"))
targets = {"label": given["label"], "labels": given["labels"]}
tasks = {name: ClassificationTask(classes, **arguments) for name, arguments in tasks.items()}
results = {}
for name, arguments in models.items():
    model = create_model(name, num_classes=classes, **arguments)
    model.load_weights(f"{folder}/{name}.weights.h5")
    trained, fixed = ([v.value for v in group] for group in (model.trainable_variables, model.non_trainable_variables))

    def forward(trained, images):
        return model.stateless_call(trained, fixed, images, training=False)[0]

    outputs = jax.jit(forward)(trained, given[name])
    results[f"{name}/logits"] = outputs["logits"]
    for key, task in tasks.items():
        results[f"{name}/{key}/scores"] = task.decode(outputs)["scores"]
        results[f"{name}/{key}/loss"] = sum(task.loss(targets, outputs).values())
        results[f"{name}/{key}/accuracy"] = task.monitors(targets, outputs)["accuracy"]
        if name == "small_cnn":
            loss = lambda trained: sum(task.loss(targets, forward(trained, given[name])).values())
            value, gradients = jax.jit(jax.value_and_grad(loss))(trained)
            results[f"{name}/{key}/value"] = value
            results.update({f"{name}/{key}/gradient{index}": g for index, g in enumerate(gradients)})
np.savez(f"{folder}/results.npz", **results)
print(json.dumps({"backend": keras.backend.backend(), "tensorflow": "tensorflow" in sys.modules}))
"""


def settle(model, images, random):
    """Gives scales and biases values of their own, and the normalizations the statistics of these images.

    With fresh ones the signal fades on its way, and any two deep nets would agree. With those of a few images
    the nets blow up rounding errors, and no two would.
    """
    for weight in model.trainable_weights:
        if len(weight.shape) == 1:
            centre = 1.0 if weight.name == "gamma" else 0.0
            weight.assign(random.uniform(centre - 0.3, centre + 0.3, weight.shape))
    for layer in model.layers:
        if isinstance(layer, keras.layers.BatchNormalization):
            layer.momentum = 0.0
    model(images, training=True)


def on_tensorflow(model, tasks, images, targets):
    """The numbers the child computes, computed here."""
    results = {}
    with tf.GradientTape(persistent=True) as tape:
        outputs = model(images, training=False)
        losses = {key: sum(task.loss(targets, outputs).values()) for key, task in tasks.items()}
    results["logits"] = outputs["logits"]
    for key, task in tasks.items():
        results[f"{key}/scores"] = task.decode(outputs)["scores"]
        results[f"{key}/loss"] = losses[key]
        results[f"{key}/accuracy"] = task.monitors(targets, outputs)["accuracy"]
        if model.name == "small_cnn":
            results[f"{key}/value"] = losses[key]
            gradients = tape.gradient(losses[key], [v.value for v in model.trainable_variables])
            results.update({f"{key}/gradient{index}": g for index, g in enumerate(gradients)})
    return {f"{model.name}/{key}": np.asarray(value) for key, value in results.items()}


@pytest.fixture(scope="module")
def both(tmp_path_factory):
    """Results of TensorFlow and of JAX by name, and what the child says of itself."""
    folder = tmp_path_factory.mktemp("jax")
    random = np.random.default_rng(0)
    tasks = {name: ClassificationTask(CLASSES, **arguments) for name, arguments in TASKS.items()}
    given = {"label": random.integers(0, CLASSES, 4), "labels": random.integers(0, 2, (4, CLASSES))}
    expected = {}
    for name, arguments in MODELS.items():
        model = create_model(name, num_classes=CLASSES, **arguments)
        images = random.integers(0, 256, (64, *arguments["input_shape"])).astype(np.float32)
        settle(model, images, random)
        given[name] = images[:4]
        model.save_weights(folder / f"{name}.weights.h5")
        expected.update(on_tensorflow(model, tasks, given[name], given))
    np.savez(folder / "given.npz", **given)
    # Compiling is what takes the time here.
    fast = {"XLA_FLAGS": "--xla_backend_optimization_level=0"}
    child = subprocess.run(
        [sys.executable, "-c", CHILD, str(folder), *map(json.dumps, (CLASSES, MODELS, TASKS))],
        env={**os.environ, **fast, "KERAS_BACKEND": "jax", "JAX_PLATFORMS": "cpu"},
        capture_output=True,
        text=True,
        timeout=300,
    )
    assert child.returncode == 0, child.stderr
    return expected, dict(np.load(folder / "results.npz")), json.loads(child.stdout.splitlines()[-1])


def test_jax_runs_without_tensorflow(both):
    assert both[2] == {"backend": "jax", "tensorflow": False}


@pytest.mark.parametrize("name", MODELS)
def test_outputs_and_losses_equal_those_of_tensorflow(both, name):
    expected, received, _ = both
    keys = [key for key in expected if key.startswith(f"{name}/")]
    assert keys and keys == [key for key in received if key.startswith(f"{name}/")]
    assert np.ptp(expected[f"{name}/logits"], axis=0).max() > 0.1  # the images make a difference
    for key in keys:
        tolerance = 1e-4 * max(1, np.abs(expected[key]).max())
        np.testing.assert_allclose(received[key], expected[key], rtol=0, atol=tolerance, err_msg=key)


@pytest.mark.parametrize("task", TASKS)
def test_gradients_reach_every_weight(both, task):
    gradients = [value for key, value in both[1].items() if key.startswith(f"small_cnn/{task}/gradient")]
    assert len(gradients) == 14
    assert all(np.abs(gradient).max() > 0 for gradient in gradients)
