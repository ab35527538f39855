"""A layer's step is that of the same optimizer at the layer's own learning rate."""

import importlib.util
import os
import subprocess
import sys

import keras
import numpy as np
import pytest

import kerasvision as kv
from kerasvision.errors import RecipeError
from kerasvision.training.layerwise import LayerwiseRates, layerwise, layerwise_class
from kerasvision.training.optimizers import schedule

SMALL = {"num_classes": 10, "input_shape": (8, 8, 1), "filters": [8, 16], "depth": 1, "dropout": 0.0}
KINDS = [
    kind
    for kind in vars(keras.optimizers).values()
    if isinstance(kind, type) and issubclass(kind, keras.optimizers.Optimizer) and "update_step" in vars(kind)
]


@pytest.fixture
def model():
    keras.utils.set_random_seed(0)
    return kv.create_model("small_cnn", **SMALL)


@pytest.fixture
def digits():
    random = np.random.default_rng(0)
    return random.uniform(0, 255, (32, 8, 8, 1)).astype(np.float32), {"label": random.integers(0, 10, 32)}


def values(model):
    return {v.path: keras.ops.convert_to_numpy(v) for v in model.trainable_variables}


def dense(name, value):
    layer = keras.layers.Dense(3, use_bias=False, name=name)
    layer.build((None, 4))
    layer.kernel.assign(value)
    return layer.kernel


@pytest.mark.parametrize("kind", [keras.optimizers.AdamW, *KINDS], ids=lambda kind: kind.__name__)
def test_every_optimizer_learns_as_at_a_rate_of_its_own(kind):
    """Three steps on two variables, with a schedule and with weight decay, against two plain optimizers."""
    if kind.__name__ == "Muon" and keras.__version__.startswith("3.12"):
        pytest.skip("Muon of Keras 3.12 asks TensorFlow's variables for a path, which they have not")
    random = np.random.default_rng(0)
    start = random.normal(size=(4, 3)).astype(np.float32)
    gradients = random.normal(size=(3, 4, 3)).astype(np.float32)

    def rates(highest):
        return keras.optimizers.schedules.CosineDecay(highest, 10)

    common = {"weight_decay": 0.1}
    low, high = dense("low", start), dense("high", start)
    both = layerwise_class(kind)(learning_rate=rates(0.1), layer_factors={"low": 0.25}, **common)
    for gradient in gradients:
        both.apply([gradient, gradient], [low, high])
    assert isinstance(both, kind)
    for found, highest in ((low, 0.025), (high, 0.1)):
        alone, variable = kind(learning_rate=rates(highest), **common), dense(found.path.split("/")[0], start)
        for gradient in gradients:
            alone.apply([gradient], [variable])
        np.testing.assert_allclose(found, variable, rtol=0, atol=1e-6)
    assert not np.allclose(low, high, atol=1e-4)


@pytest.mark.parametrize(
    "make",
    [
        lambda: keras.optimizers.SGD(0.1, momentum=0.9, nesterov=True),
        lambda: keras.optimizers.Adam(schedule(0.01, steps=10, warmup_steps=2), use_ema=True),
    ],
    ids=["sgd", "adam"],
)
def test_factor_scales_the_step_exactly(model, digits, make):
    """One step of `fit`, with and without factors."""
    before, steps = values(model), []
    for decay in (1.0, 0.5):
        for variable in model.trainable_variables:
            variable.assign(before[variable.path])
        model.compile(layerwise(make(), model, decay=decay, factors={"stage0_0_bn": 2.0} if decay != 1 else None))
        model.fit(*digits, batch_size=32, verbose=0)
        steps.append({path: value - before[path] for path, value in values(model).items()})
    plain, scaled = steps
    factors = {"stage0_0_conv": 0.25, "stage0_0_bn": 2.0, "stage1_0_conv": 0.5, "stage1_0_bn": 0.5, "logits": 1.0}
    for path, step in plain.items():
        assert np.abs(step).max() > 1e-4
        np.testing.assert_allclose(scaled[path], factors[path.split("/")[0]] * step, rtol=0, atol=3e-7, err_msg=path)


def test_weight_decay_that_was_excluded_stays_excluded(model):
    plain = keras.optimizers.SGD(1.0, weight_decay=0.5)
    plain.exclude_from_weight_decay(var_list=[model.get_layer("logits").kernel])
    before = values(model)
    found = layerwise(plain, model, decay=0.5)
    found.apply([np.zeros(v.shape, np.float32) for v in model.trainable_variables], model.trainable_variables)
    np.testing.assert_array_equal(values(model)["logits/kernel"], before["logits/kernel"])
    path = "stage1_0_conv/kernel"
    np.testing.assert_allclose(values(model)[path], before[path] * 0.75, rtol=1e-6)


def test_inside_a_loss_scale(model):
    """What mixed precision wraps around it."""
    before = values(model)
    outer = keras.optimizers.LossScaleOptimizer(layerwise(keras.optimizers.SGD(1.0), model, decay=0.5), 8.0)
    outer.build(model.trainable_variables)
    outer.apply([np.full(v.shape, 8.0, np.float32) for v in model.trainable_variables])
    steps = {path: float(np.mean(before[path] - value)) for path, value in values(model).items()}
    assert steps["logits/kernel"] == pytest.approx(1.0, abs=1e-6)
    assert steps["stage0_0_conv/kernel"] == pytest.approx(0.25, abs=1e-6)


def test_saved_and_loaded_with_the_model(model, digits, tmp_path):
    """In another process, and training goes on there as it does here."""
    model.compile(layerwise(keras.optimizers.Adam(0.01), model, decay=0.5))
    model.fit(*digits, batch_size=8, shuffle=False, verbose=0)
    model.save(tmp_path / "model.keras")
    np.savez(tmp_path / "digits.npz", images=digits[0], label=digits[1]["label"])
    model.fit(*digits, batch_size=8, shuffle=False, verbose=0)
    script = """
import sys, keras, kerasvision, numpy as np
data = np.load(sys.argv[1] + "/digits.npz")
model = keras.saving.load_model(sys.argv[1] + "/model.keras")
print(type(model.optimizer).__name__, model.optimizer.get_config()["layer_factors"]["stage0_0_conv"])
model.fit(data["images"], {"label": data["label"]}, batch_size=8, shuffle=False, verbose=0)
np.savez(sys.argv[1] + "/after.npz", *[np.asarray(v) for v in model.trainable_variables])
"""
    done = subprocess.run([sys.executable, "-c", script, str(tmp_path)], capture_output=True, text=True)
    assert done.returncode == 0, done.stderr[-3000:]
    assert done.stdout.split() == ["LayerwiseAdam", "0.25"]
    after = np.load(tmp_path / "after.npz")
    for name, value in zip(after.files, values(model).values(), strict=True):
        np.testing.assert_allclose(after[name], value, rtol=0, atol=1e-5)


@pytest.mark.skipif(importlib.util.find_spec("jax") is None, reason="JAX is not installed")
def test_jax_backend(model, digits, tmp_path):
    """The same step as on TensorFlow, in a process that has no TensorFlow."""
    np.savez(tmp_path / "given.npz", *model.get_weights(), images=digits[0], label=digits[1]["label"])
    model.compile(layerwise(keras.optimizers.AdamW(0.01, weight_decay=0.1), model, decay=0.5), jit_compile=False)
    model.fit(*digits, batch_size=16, shuffle=False, verbose=0)
    script = f"""
import sys, keras, kerasvision as kv, numpy as np
from kerasvision.training.layerwise import layerwise
given = np.load(sys.argv[1] + "/given.npz")
model = kv.create_model("small_cnn", **{SMALL})
model.set_weights([given[name] for name in given.files if name.startswith("arr")])
model.compile(layerwise(keras.optimizers.AdamW(0.01, weight_decay=0.1), model, decay=0.5))
model.fit(given["images"], {{"label": given["label"]}}, batch_size=16, shuffle=False, verbose=0)
np.savez(sys.argv[1] + "/after.npz", *model.get_weights())
print(keras.backend.backend(), "tensorflow" in sys.modules)
"""
    environment = {**os.environ, "KERAS_BACKEND": "jax"}
    done = subprocess.run(
        [sys.executable, "-c", script, str(tmp_path)], capture_output=True, text=True, env=environment
    )
    assert done.returncode == 0, done.stderr[-3000:]
    assert done.stdout.split() == ["jax", "False"]
    after = np.load(tmp_path / "after.npz")
    for name, value in zip(after.files, model.get_weights(), strict=True):
        np.testing.assert_allclose(after[name], value, rtol=0, atol=1e-4)


def test_what_cannot_be(model):
    used = keras.optimizers.SGD(0.1)
    used.build(model.trainable_variables)
    with pytest.raises(ValueError, match="SGD has been used already"):
        layerwise(used, model, decay=0.5)
    with pytest.raises(ValueError, match="LossScaleOptimizer only holds other optimizers"):
        layerwise(keras.optimizers.LossScaleOptimizer(keras.optimizers.SGD(0.1)), model, decay=0.5)
    with pytest.raises(RecipeError, match="stages: P0, P1"):
        layerwise("adam", model, factors={"P3": 0.5})
    assert isinstance(layerwise("adam", model), LayerwiseRates)
