"""Recipes: what they refuse and how they say so, and that nothing is lost on the way to YAML and back."""

import dataclasses
import json
import subprocess
import sys
import typing

import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from kerasvision.errors import RecipeError
from kerasvision.recipe import (
    DataRecipe,
    ExportRecipe,
    ModelRecipe,
    QuantizeRecipe,
    Recipe,
    StageRecipe,
    TrainRecipe,
    differences,
    from_dict,
    load_recipe,
    override,
    to_dict,
    to_yaml,
)

PLAIN = Recipe(DataRecipe("digits"), ModelRecipe("small_cnn"))

# A value other than the default for every field there is.
FULL = Recipe(
    data=DataRecipe(
        source="folder: with a colon",
        format="csv",
        validation_fraction=0.25,
        test_fraction=0.125,
        split_seed=3,
        split="group",
        group_pattern=r"patient_(\d+)",
        split_file="split.json",
        frame_step=10,
        on_bad_files="skip",
        multi_label=True,
        limit=500,
        sampling="repeat_factor",
        augment=("flip", {"name": "crop", "padding": 4}),
        max_objects=50,
        class_maps={"width": 1.5},
        cache=False,
    ),
    model=ModelRecipe(
        name="mobilenet_v2",
        input_shape=(96, 128, 3),
        weights="imagenet",
        task="classification",
        arguments={"alpha": 0.35, "dropout": 1e-3, "note": "1e-3", "flag": "yes", "filters": [8, 16], "nothing": None},
    ),
    train=TrainRecipe(
        epochs=7,
        batch_size=24,
        optimizer="sgd",
        learning_rate=3e-5,
        schedule="constant",
        warmup_epochs=1.5,
        final_learning_rate=0.01,
        momentum=0.8,
        nesterov=True,
        weight_decay=1e-4,
        clip_norm=1.0,
        ema=0.999,
        label_smoothing=0.1,
        monitor="val_loss",
        keep="last",
        early_stopping=4,
        mixed_precision="mixed_bfloat16",
        xla=True,
        freeze_epochs=2,
        freeze_learning_rate=0.01,
        freeze_passes=3,
        stages=(StageRecipe(3, "none"), StageRecipe(2, "P5", 1e-4)),
        unfreeze="block_12_add",
        layer_decay=0.75,
        layer_factors={"P1": 0.1, "block_3_expand": 1e-3},
        bn_frozen=False,
        checkpoint_steps=100,
        histograms=True,
    ),
    quantize=QuantizeRecipe(
        enabled=False,
        epochs=5,
        learning_rate=1e-5,
        optimizer="sgd",
        batch_size=8,
        islands=("a", "b"),
        weights="int4",
        keep="last",
        bn_frozen=False,
    ),
    export=ExportRecipe(
        formats=(("saved_model", "none"), ("onnx", "none")), samples=8, calibration=50, threads=4, benchmark=False
    ),
    seed=12,
)
# These exclude other fields above.
CHANGED_ELSEWHERE = {"train.class_weights", "train.strategy"}


def leaves(recipe):
    return {
        f"{part.name}.{field.name}" if dataclasses.is_dataclass(getattr(recipe, part.name)) else part.name: value
        for part in dataclasses.fields(recipe)
        for field, value in (
            [(f, getattr(getattr(recipe, part.name), f.name)) for f in dataclasses.fields(getattr(recipe, part.name))]
            if dataclasses.is_dataclass(getattr(recipe, part.name))
            else [(part, getattr(recipe, part.name))]
        )
    }


def test_full_recipe_really_changes_every_field():
    full, plain = leaves(FULL), leaves(PLAIN)
    assert {name for name in full if full[name] == plain[name]} == CHANGED_ELSEWHERE


@pytest.mark.parametrize(
    "recipe",
    [
        PLAIN,
        FULL,
        dataclasses.replace(PLAIN, train=TrainRecipe(class_weights="balanced", strategy="mirrored")),
        dataclasses.replace(PLAIN, train=TrainRecipe(class_weights={"a b": 2.5, "c": 0.0})),
    ],
)
def test_nothing_is_lost_in_yaml(recipe, tmp_path):
    path = tmp_path / "recipe.yaml"
    path.write_text(to_yaml(recipe), encoding="utf-8")
    assert load_recipe(path) == recipe
    assert from_dict(to_dict(recipe)) == recipe
    assert differences(recipe, load_recipe(path)) == []


def test_python_recipe(tmp_path):
    path = tmp_path / "run.py"
    path.write_text(
        "from kerasvision.recipe import *\n"
        "recipe = Recipe(DataRecipe('digits'), ModelRecipe('small_cnn', (8, 8, 1)), TrainRecipe(epochs=3))\n"
    )
    recipe = load_recipe(path)
    assert recipe.model.input_shape == (8, 8, 1) and recipe.train.epochs == 3


@pytest.mark.parametrize(
    ("text", "parts"),
    [
        ("x = 1\n", ["defines no `recipe`"]),
        ("recipe = 3\n", ["as int"]),
        ("import nowhere_to_be_found\n", ["line 1", "nowhere_to_be_found"]),
        ("recipe = (\n", ["line 1", "SyntaxError"]),
        (
            "from kerasvision.recipe import *\n\nr = TrainRecipe(epoch=3)\n",
            ["line 3", 'unknown key "epoch"', '"epochs"'],
        ),
        (
            "from kerasvision.recipe import *\n"
            "recipe = Recipe(DataRecipe('d'), ModelRecipe('m'), TrainRecipe(epochs='3'))\n",
            ["train.epochs"],
        ),
        (
            "from kerasvision.recipe import *\n"
            "recipe = Recipe(DataRecipe('d'), ModelRecipe('m', arguments={'x': object()}))\n",
            ["numbers, strings, lists and dicts only"],
        ),
    ],
)
def test_bad_python_names_file_and_line(tmp_path, text, parts):
    path = tmp_path / "run.py"
    path.write_text(text)
    with pytest.raises(RecipeError) as error:
        load_recipe(path)
    for part in [str(path), *parts]:
        assert part in str(error.value)


@pytest.mark.parametrize(
    ("text", "parts"),
    [
        ("", ["holds no recipe"]),
        ("- 1\n", ["holds no recipe", "list"]),
        ("data: {source: a\n", ["not valid YAML"]),
        ("data:\n  source: a\n", ['"model" is missing']),
        (
            "data:\n  source: a\nmodel:\n  name: m\ntrain:\n  epocs: 3\n",
            ["line 6", 'unknown key "train.epocs"', '"epochs"'],
        ),
        ("data:\n  source: a\nmodel:\n  name: m\ntrian: {}\n", ["line 5", '"train"']),
        (
            "data:\n  source: a\nmodel:\n  name: m\ntrain:\n  stages:\n"
            "  - {epochs: 2, unfreeze: P4}\n  - epochs: 2\n    unfreze: P5\n",
            ["line 9", 'unknown key "train.stages.1.unfreze"', '"unfreeze"'],
        ),
        ("data:\n  source: a\nmodel:\n  name: m\ntrain:\n  epochs: 3.7\n", ["line 6", "integer", "3.7"]),
        ('data:\n  source: a\nmodel:\n  name: m\ntrain:\n  epochs: "3"\n', ["line 6", "integer"]),
    ],
)
def test_bad_yaml_names_file_and_line(tmp_path, text, parts):
    path = tmp_path / "run.yaml"
    path.write_text(text)
    with pytest.raises(RecipeError) as error:
        load_recipe(path)
    for part in [str(path), *parts]:
        assert part in str(error.value)


@pytest.mark.parametrize("name", ["absent.yaml", "folder.py", "recipe.json"])
def test_what_is_no_recipe_file(tmp_path, name):
    (tmp_path / "folder.py").mkdir()
    (tmp_path / "recipe.json").write_text("{}")
    with pytest.raises(RecipeError, match=name):
        load_recipe(tmp_path / name)


@pytest.mark.parametrize(
    ("change", "key", "value"),
    [
        ("train.epochs=3", "train.epochs", 3),
        ("train.learning_rate=1e-2", "train.learning_rate", 0.01),
        ("train.learning_rate=1", "train.learning_rate", 1.0),
        ("train.ema=null", "train.ema", None),
        ("data.limit=5", "data.limit", 5),
        ("data.source=tfds:mnist", "data.source", "tfds:mnist"),
        ("data.source='2024'", "data.source", "2024"),
        ("data.augment=[flip, {name: crop, padding: 2}]", "data.augment", ("flip", {"name": "crop", "padding": 2})),
        ("model.arguments.alpha=0.5", "model.arguments", {"alpha": 0.5}),
        ("model.arguments.deep.er=1", "model.arguments", {"deep": {"er": 1}}),
        ("model.input_shape=[32, 32, 3]", "model.input_shape", (32, 32, 3)),
        ("export.formats=[[onnx, none]]", "export.formats", (("onnx", "none"),)),
        ("train.stages=[{epochs: 2, unfreeze: P5}]", "train.stages", (StageRecipe(2, "P5"),)),
        ("train.layer_factors.P1=0.1", "train.layer_factors", {"P1": 0.1}),
        ("seed=5", "seed", 5),
    ],
)
def test_override(change, key, value):
    changed = override(PLAIN, [change])
    assert leaves(changed) == {**leaves(PLAIN), key: value}


@pytest.mark.parametrize(
    ("change", "part"),
    [
        ("train.epochs", "key=value"),
        ("=3", "key=value"),
        ("train.epocs=3", '"epochs"'),
        ("trian.epochs=3", '"train"'),
        ("model.alpha.beta=3", "unknown key"),
        ("seed.x=3", "single value"),
        ("train.epochs=3.7", "integer"),
        ("train.epochs=three", "integer"),
        ("train.epochs=true", "integer"),
        ("train.epochs=null", "integer"),
        ("train.epochs=-1", "greater"),
        ("train.epochs=[", "not valid YAML"),
        ("train.learning_rate=.nan", "train.learning_rate"),
        ("train.learning_rate=.inf", "train.learning_rate"),
        ("train.optimizer=adm", "'adam'"),
        ("train.xla=1", "boolean"),
        ("train=3", "train"),
        ("train.stages=[[2, P5]]", "train.stages.0"),
        ("train.stages=[{epochs: 2}]", '"train.stages.0.unfreeze" is missing'),
        ("train.layer_decay=1.5", "less than or equal to 1"),
        ("train.layer_factors.P1=0", "greater than 0"),
        ("data.source=2024", "in quotes"),
        ("data.augment=[3]", "data.augment.0"),
        ("model.input_shape=[3, 4]", "input_shape"),
        ("export.formats=[[tflite, int4]]", "'int8'"),
        ("seed=-1", "seed"),
    ],
)
def test_bad_override(change, part):
    with pytest.raises(RecipeError) as error:
        override(PLAIN, [change])
    assert part in str(error.value)


@pytest.mark.parametrize(
    ("changes", "part"),
    [
        (["quantize.enabled=false"], "quantize.enabled"),
        (["train.epochs=0"], "nothing would be trained"),
        (["train.epochs=3", "train.warmup_epochs=3"], "warmup_epochs"),
        (["train.stages=[{epochs: 1, unfreeze: none}]", "train.warmup_epochs=2"], r"train\.stages\.0\.epochs"),
        (["train.strategy=mirrored", "train.clip_norm=1"], "clip_norm"),
        (["data.multi_label=true", "train.class_weights=balanced"], "class_weights"),
        (["data.multi_label=true", "data.sampling=over"], 'take "repeat_factor"'),
    ],
)
def test_fields_that_exclude_each_other(changes, part):
    with pytest.raises(RecipeError, match=part):
        override(PLAIN, changes)


def test_differences_are_readable():
    other = override(PLAIN, ["train.epochs=3", "model.arguments.alpha=0.5"])
    assert differences(PLAIN, other) == [
        "model.arguments: {} -> null",
        "train.epochs: 10 -> 3",
        "model.arguments.alpha: null -> 0.5",
    ]


SCALARS = {int: st.integers(1, 10**6), float: st.floats(1e-9, 0.5), str: st.text(max_size=20), bool: st.booleans()}


@settings(suppress_health_check=[HealthCheck.too_slow], deadline=None)
@given(st.data())
def test_any_value_of_a_field_survives_override_and_yaml(data):
    hints = {
        f"{part}.{name}": hint
        for part, kind in (("data", DataRecipe), ("train", TrainRecipe), ("quantize", QuantizeRecipe))
        for name, hint in typing.get_type_hints(kind).items()
        if hint in SCALARS
    }
    # Fields that other fields forbid are left out.
    keys = sorted(set(hints) - {"quantize.enabled", "train.epochs", "train.warmup_epochs"})
    key = data.draw(st.sampled_from(keys))
    value = data.draw(SCALARS[hints[key]])
    changed = override(PLAIN, [f"{key}={json.dumps(value)}"])
    assert leaves(changed)[key] == value


@settings(suppress_health_check=[HealthCheck.too_slow], deadline=None)
@given(st.text(max_size=40))
def test_an_override_is_taken_or_refused_but_never_crashes(text):
    for change in (text, f"train.{text}", f"train.epochs={text}", f"model.arguments={text}"):
        try:
            changed = override(PLAIN, [change])
        except RecipeError:
            continue
        assert isinstance(changed, Recipe)


def test_no_tensorflow():
    code = "import sys, kerasvision.recipe; sys.exit(any(m in sys.modules for m in ('tensorflow', 'keras', 'numpy')))"
    assert subprocess.run([sys.executable, "-c", code]).returncode == 0
