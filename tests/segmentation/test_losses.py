"""Every loss against a plain NumPy form of its paper, and against what it must not depend on."""

import json
import os
import subprocess
import sys

import keras
import numpy as np
import pytest
from scipy.ndimage import distance_transform_edt

from kerasvision.segmentation import losses
from kerasvision.segmentation.losses import LOSSES, VOID


def scene(images=2, size=(12, 14), count=4, seed=0, spread=2.0):
    """Class maps in blobs with some void, and logits."""
    rng = np.random.default_rng(seed)
    coarse = rng.integers(0, count, (images, size[0] // 2, size[1] // 2))
    classes = np.kron(coarse, np.ones((1, 2, 2), int)).astype(np.uint8)
    classes[rng.random(classes.shape) < 0.1] = VOID
    return classes, rng.normal(0, spread, (*classes.shape, count)).astype(np.float32)


def probabilities(logits):
    powers = np.exp(logits.astype(np.float64) - logits.max(axis=-1, keepdims=True))
    return powers / powers.sum(axis=-1, keepdims=True)


def each_image(classes, logits):
    """Of each image: the true class [P] and the probabilities [P, K] of the pixels that are not void."""
    for truth, chance in zip(classes, probabilities(logits), strict=True):
        yield truth[truth != VOID].astype(int), chance[truth != VOID]


def test_crossentropy():
    classes, logits = scene()
    weights, epsilon = np.array([0.5, 1, 2, 3]), 0.1
    factors = np.random.default_rng(1).uniform(0, 3, classes.shape)
    for index, (truth, chance) in enumerate(each_image(classes, logits)):
        plain = -np.log(chance[np.arange(len(truth)), truth])
        wanted = np.eye(4)[truth] * (1 - epsilon) + epsilon / 4
        smoothed = -(wanted * np.log(chance)).sum(axis=-1)
        pixels = factors[index][classes[index] != VOID]
        for options, expected in (
            ({}, plain.mean()),
            ({"label_smoothing": epsilon}, smoothed.mean()),
            ({"class_weights": weights}, (plain * weights[truth]).mean()),
            ({"pixel_weights": factors}, (plain * pixels).mean()),
            (
                {"class_weights": weights, "pixel_weights": factors, "label_smoothing": epsilon},
                (smoothed * weights[truth] * pixels).mean(),
            ),
        ):
            np.testing.assert_allclose(losses.crossentropy(classes, logits, **options)[index], expected, rtol=1e-5)


def test_focal():
    classes, logits = scene()
    np.testing.assert_allclose(
        losses.focal(classes, logits, gamma=0.0), losses.crossentropy(classes, logits), rtol=1e-5
    )
    weights = np.array([0.25, 1, 1, 4])
    expected = []
    for truth, chance in each_image(classes, logits):
        right = chance[np.arange(len(truth)), truth]
        expected.append((-weights[truth] * (1 - right) ** 3 * np.log(right)).mean())
    np.testing.assert_allclose(losses.focal(classes, logits, gamma=3.0, class_weights=weights), expected, rtol=1e-4)


def test_dice_and_tversky():
    classes, logits = scene(count=4)
    classes[0][classes[0] == 2] = 1  # A class that one image does not have.
    weights = np.array([1.0, 2, 3, 4])
    tables = {"dice": [], "squared": [], "tversky": [], "focal_tversky": []}
    for truth, chance in each_image(classes, logits):
        present = np.unique(truth)
        rows = {name: [] for name in tables}
        for index in present:
            wanted, given = truth == index, chance[:, index]
            hits, false, missed = given[wanted].sum(), given[~wanted].sum(), (1 - given[wanted]).sum()
            rows["dice"].append(1 - (2 * hits + 2) / (given.sum() + wanted.sum() + 2))
            rows["squared"].append(1 - (2 * hits + 2) / ((given**2).sum() + wanted.sum() + 2))
            rows["tversky"].append(1 - (hits + 1) / (hits + 0.2 * false + 0.8 * missed + 1))
            rows["focal_tversky"].append(rows["tversky"][-1] ** 0.75)
        for name, row in rows.items():
            tables[name].append(np.average(row, weights=weights[present]))
    common = {"class_weights": weights}
    sided = {**common, "alpha": 0.2, "beta": 0.8}
    np.testing.assert_allclose(losses.dice(classes, logits, **common), tables["dice"], rtol=1e-5)
    np.testing.assert_allclose(losses.dice(classes, logits, squared=True, **common), tables["squared"], rtol=1e-5)
    np.testing.assert_allclose(losses.tversky(classes, logits, **sided), tables["tversky"], rtol=1e-5)
    np.testing.assert_allclose(losses.focal_tversky(classes, logits, **sided), tables["focal_tversky"], rtol=1e-5)
    halves = losses.tversky(classes, logits, alpha=0.5, beta=0.5)
    np.testing.assert_allclose(halves, losses.dice(classes, logits), rtol=1e-5)


def lovasz_extension(truth, chance):
    """Berman's: sum over falling errors of what each adds to the Jaccard loss of the set so far."""
    values = []
    for index in np.unique(truth):
        wanted = truth == index
        errors = np.where(wanted, 1 - chance[:, index], chance[:, index])
        value, last, mistaken = 0.0, 0.0, np.zeros(len(truth), bool)
        for place in np.argsort(-errors, kind="stable"):
            mistaken[place] = True
            guess = wanted ^ mistaken
            jaccard = 1 - (wanted & guess).sum() / (wanted | guess).sum() if (wanted | guess).any() else 1.0
            value += errors[place] * (jaccard - last)
            last = jaccard
        values.append(value)
    return np.mean(values)


def test_lovasz():
    classes, logits = scene()
    expected = [lovasz_extension(*image) for image in each_image(classes, logits)]
    np.testing.assert_allclose(losses.lovasz(classes, logits), expected, rtol=1e-5)


def test_lovasz_of_certain_predictions_is_one_minus_iou():
    classes, logits = scene(seed=3)
    found = logits.argmax(axis=-1)
    expected = []
    for truth, guess in zip(classes, found, strict=True):
        known = truth != VOID
        ious = [
            ((truth == k) & (guess == k) & known).sum() / (((truth == k) | (guess == k)) & known).sum()
            for k in np.unique(truth[known])
        ]
        expected.append(1 - np.mean(ious))
    np.testing.assert_allclose(losses.lovasz(classes, 1000 * np.eye(4, dtype=np.float32)[found]), expected, rtol=1e-5)


@pytest.mark.parametrize("reach", [3, 20])
def test_boundary(reach):
    classes, logits = scene()
    expected = []
    for truth, chance in zip(classes, probabilities(logits), strict=True):
        known, total = truth != VOID, 0.0
        for index in range(4):
            inside, outside = truth == index, known & (truth != index)
            to_class = np.minimum(distance_transform_edt(~inside), reach) if inside.any() else reach
            to_others = np.minimum(distance_transform_edt(~outside), reach) if outside.any() else reach
            signed = np.where(inside, -(to_others - 0.5), to_class - 0.5)
            total += (signed * (chance[..., index] - inside))[known].sum()
        expected.append(total / known.sum() / reach)
    np.testing.assert_allclose(losses.boundary(classes, logits, reach=reach), expected, rtol=1e-5)


@pytest.mark.parametrize("name", LOSSES)
def test_void_counts_nowhere(name):
    import tensorflow as tf

    classes, logits = scene()
    classes[1] = VOID
    void = classes == VOID
    changed = np.where(void[..., None], np.float32(7) - logits, logits)
    tensor = tf.constant(logits)
    with tf.GradientTape() as tape:
        tape.watch(tensor)
        values = LOSSES[name](classes, tensor)
    slopes = tape.gradient(values, tensor).numpy()
    assert values[0] > 0 and values[1] == 0
    np.testing.assert_allclose(LOSSES[name](classes, changed), values, rtol=1e-5)
    assert not slopes[void].any() and np.abs(slopes[~void]).max() > 0


@pytest.mark.parametrize("name", LOSSES)
def test_best_where_all_is_right_and_finite_where_all_is_wrong(name):
    import tensorflow as tf

    classes, _ = scene()
    right = np.eye(4, dtype=np.float32)[np.where(classes == VOID, 0, classes)]
    for logits, low, high in ((200 * right, 0, 1e-4), (-200 * right, 0.05, 1000)):
        tensor = tf.constant(logits)
        with tf.GradientTape() as tape:
            tape.watch(tensor)
            values = LOSSES[name](classes, tensor)
        assert (low <= values.numpy()).all() and (values.numpy() <= high).all()
        assert np.isfinite(tape.gradient(values, tensor)).all()


@pytest.mark.parametrize("name", LOSSES)
def test_a_step_against_the_slope_helps(name):
    import tensorflow as tf

    classes, logits = scene(seed=5)
    tensor = tf.constant(logits)
    with tf.GradientTape() as tape:
        tape.watch(tensor)
        values = LOSSES[name](classes, tensor)
    slopes = tape.gradient(values, tensor)
    step = 1e-2 / tf.reduce_max(tf.abs(slopes))
    better = LOSSES[name](classes, tensor - step * slopes)
    promised = step * tf.reduce_sum(slopes**2, axis=(1, 2, 3))
    np.testing.assert_allclose(values - better, promised, rtol=0.1)


_JAX = {"KERAS_BACKEND": "jax", "JAX_PLATFORMS": "cpu", "XLA_FLAGS": "--xla_backend_optimization_level=0"}
_CHILD = """
import json, sys
import jax, keras, numpy as np
from kerasvision.segmentation import SegmentationTask
from kerasvision.segmentation.losses import LOSSES

given = dict(np.load(sys.argv[1]))
classes, logits = given["classes"], given["logits"]
results = {}
for name, function in LOSSES.items():
    total = jax.jit(jax.value_and_grad(lambda each: function(classes, each).sum()))
    results[name], results[f"{name}/slopes"] = total(logits)
task = SegmentationTask(logits.shape[-1], image_size=(30, 21), probabilities=True)
results |= jax.jit(task.decode)({"logits": logits})
results |= jax.jit(task.monitors)({"segmentation": classes}, {"logits": logits[:, ::2, ::2]})
np.savez(sys.argv[2], **results)
print(json.dumps({"backend": keras.backend.backend(), "tensorflow": "tensorflow" in sys.modules}))
"""


def test_jax_gives_the_same(tmp_path):
    import tensorflow as tf

    from kerasvision.segmentation import SegmentationTask

    classes, logits = scene(seed=9)
    np.savez(tmp_path / "given.npz", classes=classes, logits=logits)
    child = subprocess.run(
        [sys.executable, "-c", _CHILD, str(tmp_path / "given.npz"), str(tmp_path / "results.npz")],
        env={**os.environ, **_JAX},
        capture_output=True,
        text=True,
        timeout=300,
    )
    assert child.returncode == 0, child.stderr
    assert json.loads(child.stdout.splitlines()[-1]) == {"backend": "jax", "tensorflow": False}
    received = np.load(tmp_path / "results.npz")
    for name, function in LOSSES.items():
        tensor = tf.constant(logits)
        with tf.GradientTape() as tape:
            tape.watch(tensor)
            total = tf.reduce_sum(function(classes, tensor))
        np.testing.assert_allclose(received[name], total, rtol=1e-4, err_msg=name)
        slopes = tape.gradient(total, tensor)
        np.testing.assert_allclose(received[f"{name}/slopes"], slopes, rtol=1e-3, atol=1e-5, err_msg=name)
    task = SegmentationTask(4, image_size=(30, 21), probabilities=True)
    monitors = task.monitors({"segmentation": classes}, {"logits": logits[:, ::2, ::2]})
    for name, values in {**task.decode({"logits": logits}), **monitors}.items():
        np.testing.assert_allclose(received[name], keras.ops.convert_to_numpy(values), atol=1e-5, err_msg=name)
