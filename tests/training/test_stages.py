"""The stages of a net, and what is frozen in them: the graph decides."""

import keras
import numpy as np
import pytest

import kerasvision as kv
from kerasvision.errors import RecipeError
from kerasvision.task import TaskModel
from kerasvision.training.stages import frozen_layers, layer_factors, stages, unfreeze

SMALL = {"num_classes": 10, "input_shape": (8, 8, 1), "filters": [8, 16], "depth": 1}


@pytest.fixture
def model():
    return kv.create_model("small_cnn", **SMALL)


@pytest.fixture(scope="module")
def mobilenet():
    return kv.create_model("mobilenet_v2", num_classes=3, input_shape=(32, 32, 3), alpha=0.35)


def test_every_layer_is_in_one_stage(mobilenet):
    parts = stages(mobilenet)
    assert list(parts) == [*mobilenet.taps, "head"]
    assert sorted(name for names in parts.values() for name in names) == sorted(x.name for x in mobilenet.layers)
    for tap, layer in mobilenet.taps.items():
        assert layer in parts[tap]
    assert {"image", "preprocessing", "Conv1"} <= set(parts["P1"])
    assert {"block_13_expand", "block_15_add"} <= set(parts["P5"])
    assert set(parts["head"]) == {"pool", "dropout", "logits"}


def test_graph_decides_and_not_the_order_of_the_layers():
    """A branch that was built early and used late belongs to where it is used."""
    image = keras.Input((8, 8, 1), name="image")
    late = keras.layers.Conv2D(4, 1, strides=2, name="late")(image)
    tap = keras.layers.Conv2D(4, 3, strides=2, padding="same", name="early")(image)
    joined = keras.layers.Add(name="join")([tap, late])
    logits = keras.layers.Dense(3, name="logits")(keras.layers.GlobalAveragePooling2D(name="pool")(joined))
    task = kv.create_model("small_cnn", **SMALL).task
    build = {"name": "forked", "arguments": {}}
    model = TaskModel(
        image,
        {"logits": logits},
        task=task,
        preprocessing=kv.Preprocessing(),
        build=build,
        taps={"P1": "early", "P2": "join"},
    )
    assert stages(model) == {"P1": ("image", "early"), "P2": ("late", "join"), "head": ("pool", "logits")}
    unfreeze(model, "P2")
    assert {v.path for v in model.trainable_variables} == {
        "late/kernel", "late/bias", "logits/kernel", "logits/bias"
    }  # fmt: skip


@pytest.mark.parametrize(
    ("what", "freeze_batch_norm", "learning"),
    [
        ("all", False, {"stage0_0_conv", "stage0_0_bn", "stage1_0_conv", "stage1_0_bn", "logits"}),
        ("all", True, {"stage0_0_conv", "stage1_0_conv", "logits"}),
        ("P0", False, {"stage0_0_conv", "stage0_0_bn", "stage1_0_conv", "stage1_0_bn", "logits"}),
        ("P1", False, {"stage1_0_conv", "stage1_0_bn", "logits"}),
        ("stage1_0_conv", False, {"stage1_0_conv", "stage1_0_bn", "logits"}),
        ("stage1_0_conv", True, {"stage1_0_conv", "logits"}),
        ("stage1_0_bn", False, {"stage1_0_bn", "logits"}),
        ("head", False, {"logits"}),
        ("none", True, {"logits"}),
    ],
)
def test_what_learns(model, what, freeze_batch_norm, learning):
    unfreeze(model, "none")
    unfreeze(model, what, freeze_batch_norm=freeze_batch_norm)
    assert {variable.path.split("/")[0] for variable in model.trainable_variables} == learning


@pytest.mark.parametrize("freeze_batch_norm", [False, True])
def test_fit_leaves_what_is_frozen_as_it_was(model, freeze_batch_norm):
    """Weights and statistics; and a frozen normalization uses its statistics, in training too."""
    before = {v.path: keras.ops.convert_to_numpy(v) for v in model.variables}
    unfreeze(model, "P1", freeze_batch_norm=freeze_batch_norm)
    model.compile(keras.optimizers.SGD(0.1))
    random = np.random.default_rng(0)
    images = random.uniform(0, 255, (8, 8, 8, 1)).astype(np.float32)
    model.fit(images, {"label": random.integers(0, 10, 8)}, batch_size=8, verbose=0)
    changed = {v.path for v in model.variables if not np.array_equal(keras.ops.convert_to_numpy(v), before[v.path])}
    statistics = {"stage1_0_bn/moving_mean", "stage1_0_bn/moving_variance", "stage1_0_bn/gamma", "stage1_0_bn/beta"}
    learned = {"stage1_0_conv/kernel", "logits/kernel", "logits/bias"} | (set() if freeze_batch_norm else statistics)
    seeds = {v.path for v in model.variables if "seed" in v.path}
    assert changed - seeds == learned
    lower = keras.Model(model.input, model.get_layer("stage0_0_relu").output)
    np.testing.assert_array_equal(lower(images, training=True), lower(images, training=False))


@pytest.mark.parametrize("call", [unfreeze, frozen_layers, lambda m, name: layer_factors(m, factors={name: 0.5})])
@pytest.mark.parametrize(("name", "near"), [("stage1_conv", ' Did you mean "stage1_0_conv"'), ("P2", "$")])
def test_unknown_name_gets_the_closest(model, call, name, near):
    with pytest.raises(RecipeError, match=rf'no stage or layer "{name}"; stages: P0, P1, top, head\.{near}'):
        call(model, name)


def test_factors_fall_from_the_head_down(mobilenet):
    factors = layer_factors(mobilenet, 0.5)
    names = ("Conv1", "block_1_expand", "block_3_project", "block_12_expand_BN", "block_16_project", "Conv_1")
    expected = [0.5**depth for depth in (6, 5, 4, 3, 2, 1)]
    assert [factors[name] for name in names] == expected
    assert "logits" not in factors and "block_2_add" not in factors


def test_stage_without_weights_is_no_step_down(model):
    """small_cnn's "top" is its P1."""
    assert layer_factors(model, 0.5) == {
        "stage0_0_conv": 0.25, "stage0_0_bn": 0.25, "stage1_0_conv": 0.5, "stage1_0_bn": 0.5
    }  # fmt: skip


def test_own_factor_goes_before_the_stage_and_the_stage_before_the_decay(model):
    factors = {"P0": 0.01, "stage0_0_bn": 3.0, "head": 2.0}
    assert layer_factors(model, 0.5, factors) == {
        "stage0_0_conv": 0.01, "stage0_0_bn": 3.0, "stage1_0_conv": 0.5, "stage1_0_bn": 0.5, "logits": 2.0
    }  # fmt: skip


@pytest.mark.parametrize("name", ["preprocessing", "top", "dropout"])
def test_factor_that_would_change_nothing(model, name):
    with pytest.raises(RecipeError, match=rf'"{name}" has no weights'):
        layer_factors(model, factors={name: 0.5})


@pytest.mark.parametrize("arguments", [{"factors": {"P0": 0.0}}, {"decay": -1.0}, {"factors": {"P0": float("nan")}}])
def test_factor_must_be_positive(model, arguments):
    with pytest.raises(RecipeError, match="above 0"):
        layer_factors(model, **arguments)
