"""The contract of segmentation nets over one small net of every architecture."""

import json
import os
import subprocess
import sys

import keras
import numpy as np
import pytest
import tensorflow as tf
from segmentation import contract

import kerasvision as kv
from kerasvision.registry import list_models

EACH = pytest.mark.parametrize("name", contract.NETS)


def test_every_architecture_is_here():
    """FCN-32s and FCN-16s are FCN-8s with fewer steps."""
    assert {*contract.NETS, "fcn_16s", "fcn_32s"} == {*list_models("segmentation")}


@EACH
def test_outputs(name):
    contract.check_outputs(name)


@EACH
def test_saved_and_loaded(name, tmp_path):
    contract.check_saves(name, tmp_path / "model.keras")


@EACH
def test_trains_in_bfloat16(name):
    contract.check_half(name)


# Layers whose shapes depend on the number of classes, where it is not the one that gives the logits alone.
OF_CLASSES = {
    "fcn_32s": {"score", "logits"},
    "fcn_16s": {"score", "score_to_P4", "score_P4", "logits"},
    "fcn_8s": {"score", "score_to_P4", "score_P4", "score_to_P3", "score_P3", "logits"},
    "deeplabv3": {"logits", "auxiliary_logits"},
    "lraspp": {"fine_logits", "coarse_logits"},
}


@pytest.mark.parametrize("name", list_models("segmentation"))
def test_weights_of_other_classes(name, tmp_path, monkeypatch):
    """All layers take them but those that depend on the number of classes."""
    monkeypatch.setitem(contract.NETS, name, contract.NETS.get(name, contract.NETS["fcn_8s"]))
    trained = contract.create(name, class_weights=[1, 2, 3])
    contract.randomize(trained)
    trained.save(tmp_path / "trained.keras")
    with pytest.warns(UserWarning, match=r"trained.keras has 3 classes, this \w+ has 5") as told:
        model = contract.create(name, labels=list("abcde"), weights=str(tmp_path / "trained.keras"))
    fresh = OF_CLASSES.get(name, {"logits"})
    assert set(str(told[0].message).rstrip(".").split(": ")[-1].split(", ")) == fresh
    for layer in model.layers:
        own, wanted = layer.get_weights(), trained.get_layer(layer.name).get_weights()
        if layer.name in fresh:
            assert [each.shape for each in own] != [each.shape for each in wanted]
            continue
        for one, other in zip(own, wanted, strict=True):
            np.testing.assert_array_equal(one, other, err_msg=layer.name)
    images, _ = contract.scene(model.image_size, 1)
    assert model(images)["logits"].shape[-1] == 5


@pytest.mark.parametrize(
    ("name", "needed"),
    [
        ("fcn_32s", "P5"),
        ("fcn_8s", "P3, P4, P5"),
        ("unet", "P1, P2, P3, P4, P5"),
        ("attention_unet", "P1, P2, P3, P4, P5"),
        ("deeplabv3", "P4, P5"),
        ("deeplabv3_plus", "P4, P5"),
        ("lraspp", "P4, P5"),
    ],
)
def test_backbones_that_stop_too_early(name, needed):
    backbone = {"backbone": "small_cnn", "backbone_arguments": {"filters": [8] * 5, "depth": 1}}
    with pytest.raises(ValueError, match=rf"features of the levels {needed}; there are: P0, P1, P2, P3, P4\."):
        kv.create_model(name, num_classes=3, input_shape=(64, 64, 3), **backbone)


_CHILD = """
import json, sys
import jax, keras, numpy as np
from kerasvision.registry import create_model

folder = sys.argv[1]
for name, arguments in json.loads(sys.argv[2]).items():
    targets = dict(np.load(f"{folder}/{name}.npz"))
    images = targets.pop("images")
    model = create_model(name, **arguments)
    model.load_weights(f"{folder}/{name}.weights.h5")
    outputs = model(images, training=False)

    def loss(outputs):
        return sum(model.task.loss(targets, outputs).values())

    value, gradients = jax.value_and_grad(loss)(outputs)
    gradients = {f"{key}/gradient": gradient for key, gradient in gradients.items()}
    np.savez(f"{folder}/{name}_jax.npz", loss=value, **outputs, **gradients, **model.task.decode(outputs))
print(json.dumps({"backend": keras.backend.backend(), "tensorflow": "tensorflow" in sys.modules}))
"""


@pytest.mark.slow
def test_jax_computes_the_same(tmp_path):
    """Outputs, loss, its gradient and classes."""
    expected, builds = {}, {}
    for name in contract.NETS:
        model = contract.create(name)
        contract.randomize(model)
        images, targets = contract.scene(model.image_size, 2)
        outputs = model(images, training=False)
        with tf.GradientTape() as tape:
            tape.watch(outputs)
            loss = sum(model.task.loss(targets, outputs).values())
        gradients = {f"{key}/gradient": each for key, each in tape.gradient(loss, outputs).items()}
        expected[name] = {"loss": loss, **outputs, **gradients, **model.task.decode(outputs)}
        builds[name] = model.get_config()["arguments"]
        model.save_weights(tmp_path / f"{name}.weights.h5")
        np.savez(tmp_path / f"{name}.npz", images=images, **targets)
    fast = {"XLA_FLAGS": "--xla_backend_optimization_level=0", "KERAS_BACKEND": "jax", "JAX_PLATFORMS": "cpu"}
    child = subprocess.run(
        [sys.executable, "-c", _CHILD, str(tmp_path), json.dumps(builds)],
        env={**os.environ, **fast},
        capture_output=True,
        text=True,
        timeout=900,
    )
    assert child.returncode == 0, child.stderr
    assert json.loads(child.stdout.splitlines()[-1]) == {"backend": "jax", "tensorflow": False}
    for name, wanted in expected.items():
        received = np.load(tmp_path / f"{name}_jax.npz")
        for key, values in wanted.items():
            if key == "classes":
                assert np.mean(received[key] == values) > 0.999, name
                continue
            tolerance = 1e-4 * max(1.0, float(np.abs(values).max()))
            np.testing.assert_allclose(received[key], values, rtol=0, atol=tolerance, err_msg=f"{name} {key}")
    assert keras.backend.backend() == "tensorflow"
