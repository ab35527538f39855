"""tensorflow-addons as an oracle for what the library takes from Keras 3."""

import importlib.util
import sys
import types

import keras
import numpy as np
import pytest
import tensorflow as tf

from kerasvision.augment.moves import rotation, warp
from kerasvision.classification import ClassificationTask
from kerasvision.compat import addons

needs_addons = pytest.mark.skipif(
    importlib.util.find_spec("tensorflow_addons") is None,
    reason='tensorflow-addons is not installed (pip install "kerasvision[addons]", Python 3.10 or 3.11)',
)


def modules_of_others():
    return {name: module for name, module in sys.modules.items() if not name.startswith("tensorflow_addons")}


@pytest.fixture(scope="module")
def before_load():
    return modules_of_others(), tf.keras.Model


@pytest.fixture(scope="module")
def tfa(before_load):
    return addons.load()


@needs_addons
def test_load_leaves_keras_and_tensorflow_as_they_were(tfa, before_load):
    assert tfa.__version__ == "0.23.0"
    after = modules_of_others()
    changed = [name for name, module in before_load[0].items() if after.get(name) is not module]
    assert not changed
    added = after.keys() - before_load[0].keys()
    assert not [name for name in added if name.split(".")[0] == "keras" or name.startswith("tensorflow.keras")]
    assert sys.modules["keras"] is keras and keras.__version__.startswith("3.")
    assert sys.modules["tensorflow"] is tf
    assert tf.keras.Model is before_load[1]
    assert not issubclass(tfa.losses.SigmoidFocalCrossEntropy, keras.losses.Loss)
    assert addons.load() is tfa


def test_failed_import_leaves_nothing_behind(tmp_path, monkeypatch):
    package = tmp_path / "tensorflow_addons"
    package.mkdir()
    (package / "__init__.py").write_text("import keras\nassert keras.__name__ == 'tf_keras'\nfrom . import broken\n")
    (package / "broken.py").write_text("raise RuntimeError('no such symbol')\n")
    for name in [name for name in sys.modules if name.startswith("tensorflow_addons")]:
        monkeypatch.delitem(sys.modules, name)
    monkeypatch.syspath_prepend(tmp_path)
    before = modules_of_others()
    with pytest.raises(RuntimeError, match="no such symbol"):
        addons.load()
    assert not [name for name in sys.modules if name.startswith("tensorflow_addons")]
    assert all(sys.modules.get(name) is module for name, module in before.items())


@pytest.mark.parametrize(("python", "words"), [((3, 11), "not installed"), ((3, 13), "this is Python 3.13")])
def test_missing_package_names_the_extra(monkeypatch, python, words):
    for name in [name for name in sys.modules if name.startswith("tensorflow_addons")]:
        monkeypatch.delitem(sys.modules, name)
    monkeypatch.setattr(importlib.util, "find_spec", lambda name: None)
    monkeypatch.setattr(addons, "sys", types.SimpleNamespace(modules=sys.modules, version_info=(*python, 0)))
    with pytest.raises(ImportError, match=r'pip install "kerasvision\[addons\]"') as caught:
        addons.load()
    assert words in str(caught.value)


@needs_addons
@pytest.mark.parametrize("label_smoothing", [0.0, 0.1])
def test_binary_focal_loss(tfa, label_smoothing):
    random = np.random.default_rng(0)
    logits = random.normal(0, 3, (16, 5)).astype(np.float32)
    labels = random.integers(0, 2, (16, 5)).astype(np.float32)
    ours = keras.losses.BinaryFocalCrossentropy(
        apply_class_balancing=True, alpha=0.25, gamma=2.0, from_logits=True, label_smoothing=label_smoothing
    )
    theirs = tfa.losses.SigmoidFocalCrossEntropy(from_logits=True, alpha=0.25, gamma=2.0, reduction="none")
    # Addons has no smoothing of its own, and adds up the classes where Keras takes their mean.
    smooth = labels * (1 - label_smoothing) + 0.5 * label_smoothing
    expected = np.mean(theirs(smooth, logits).numpy() / 5)
    np.testing.assert_allclose(ours(labels, logits), expected, rtol=1e-4)
    task = ClassificationTask(5, multi_label=True, loss="focal", label_smoothing=label_smoothing)
    loss = task.loss({"labels": labels}, {"logits": keras.ops.convert_to_tensor(logits)})
    np.testing.assert_allclose(loss["focal"], expected, rtol=1e-4)


@needs_addons
def test_categorical_focal_loss_of_two_classes(tfa):
    """The softmax of (0, z) is the sigmoid of z; Addons knows no softmax over more classes."""
    random = np.random.default_rng(1)
    z = random.normal(0, 3, (32, 1)).astype(np.float32)
    label = random.integers(0, 2, 32)
    logits = np.concatenate([np.zeros_like(z), z], axis=1)
    ours = keras.losses.CategoricalFocalCrossentropy(alpha=0.25, gamma=2.0, from_logits=True, reduction=None)
    one_hot = np.eye(2, dtype=np.float32)[label]
    # Keras weighs every class with alpha; Addons' alpha means "of the positives" and is left out.
    theirs = tfa.losses.SigmoidFocalCrossEntropy(from_logits=True, alpha=None, gamma=2.0, reduction="none")
    expected = 0.25 * theirs(label[:, None].astype(np.float32), z).numpy()
    np.testing.assert_allclose(ours(one_hot, logits), expected, rtol=1e-3, atol=1e-7)
    loss = ClassificationTask(2, loss="focal").loss({"label": label}, {"logits": keras.ops.convert_to_tensor(logits)})
    np.testing.assert_allclose(loss["focal"], expected.mean(), rtol=1e-4)


def optimize(optimizer, start, gradients, variable):
    weights = variable(start)
    for gradient in gradients:
        optimizer.apply_gradients([(tf.constant(gradient), weights)])
    return np.asarray(weights)


@needs_addons
def test_lamb(tfa):
    """Equal once Addons' epsilon (1e-6, Keras 1e-7) and betas are given."""
    random = np.random.default_rng(2)
    start = random.normal(size=(4, 3)).astype(np.float32)
    gradients = random.normal(size=(6, 4, 3)).astype(np.float32)
    settings = {"learning_rate": 0.05, "beta_1": 0.9, "beta_2": 0.99, "epsilon": 1e-6}
    ours = optimize(keras.optimizers.Lamb(**settings), start, gradients, keras.Variable)
    theirs = optimize(tfa.optimizers.LAMB(**settings), start, gradients, tf.Variable)
    np.testing.assert_allclose(ours, theirs, rtol=2e-5, atol=1e-6)
    assert np.abs(ours - start).max() > 0.05


@needs_addons
def test_lamb_decays_weights_differently(tfa):
    """Keras decays apart from the step, w * (1 - rate * decay); in Addons the decay passes the trust ratio.

    With a gradient of 0 the decay is Addons' whole update and is scaled to the weights' norm: w * (1 - rate).
    """
    start = np.asarray([3.0, 4.0], np.float32)
    still = np.zeros((1, 2), np.float32)
    ours = optimize(keras.optimizers.Lamb(0.1, weight_decay=0.01), start, still, keras.Variable)
    theirs = optimize(tfa.optimizers.LAMB(0.1, weight_decay=0.01), start, still, tf.Variable)
    np.testing.assert_allclose(ours, start * (1 - 0.1 * 0.01), rtol=1e-6)
    np.testing.assert_allclose(theirs, start * (1 - 0.1), rtol=1e-6)


@needs_addons
@pytest.mark.parametrize("degrees", [-137.0, -15.0, 0.0, 30.0, 90.0])
def test_rotation(tfa, degrees):
    """Where both show the image alone; OpenCV has 32 steps in a pixel."""
    rows, columns = np.mgrid[:24, :37]
    image = np.stack([4 * rows, 6 * columns, 2 * (rows + columns)], axis=-1).astype(np.uint8)
    matrix = rotation(degrees, (37 / 2, 24 / 2))
    moved = warp({"image": image}, matrix)["image"].astype(np.float32)
    theirs = tfa.image.rotate(image.astype(np.float32), np.deg2rad(degrees), interpolation="bilinear").numpy()
    inside = (warp({"image": np.full_like(image, 255)}, matrix)["image"] == 255).all(axis=-1)
    assert inside.mean() > 0.4
    assert np.abs(moved - theirs)[inside].max() <= 1
