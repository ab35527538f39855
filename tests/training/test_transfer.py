"""A head on frozen features, then the rest; batch normalization stays as it came."""

import keras
import numpy as np
import pytest

import kerasvision as kv
from kerasvision.errors import RecipeError
from kerasvision.recipe import StageRecipe, TrainRecipe
from kerasvision.training.fit import train_model
from kerasvision.training.folder import RunFolder
from kerasvision.training.transfer import compute_features, split_model


@pytest.fixture
def model():
    return kv.create_model("small_cnn", num_classes=10, input_shape=(8, 8, 1), filters=[8, 16], depth=1)


def train(recipe, data, path, **fields):
    the_recipe = recipe(TrainRecipe(batch_size=25, **fields))
    folder = RunFolder(path)
    folder.open(the_recipe, resume=True, overwrite=False)
    result = train_model(the_recipe, data, folder, progress=False)
    return result, keras.saving.load_model(folder.model), the_recipe, folder


def test_halves_are_the_whole(model):
    images = np.random.default_rng(0).uniform(0, 255, (5, 8, 8, 1)).astype(np.float32)
    backbone, head = split_model(model)
    np.testing.assert_allclose(head(backbone(images))["logits"], model(images)["logits"], atol=1e-6)
    assert {layer.name for layer in head.layers} >= {"dropout", "logits"}
    assert head.get_layer("logits") is model.get_layer("logits")


def test_cut_that_cannot_be(model):
    with pytest.raises(RecipeError, match=r'no layer "poool".*"pool"'):
        split_model(model, "poool")


def test_features_are_those_of_inference(model, digits):
    backbone, _ = split_model(model)
    dataset = digits.batches("train", image_size=(8, 8), channels=1, batch_size=32)
    features, (targets,) = compute_features(backbone, [dataset, dataset], "Features")
    expected = np.concatenate([backbone(images, training=False) for images, _ in dataset])
    np.testing.assert_allclose(features, np.concatenate([expected, expected]), atol=1e-5)
    np.testing.assert_array_equal(targets["label"], np.tile(digits.targets("train")["label"], 2))


def test_only_the_head_changes_while_the_backbone_is_frozen(recipe, digits, tmp_path):
    result, trained, the_recipe, folder = train(
        recipe, digits, tmp_path / "head", epochs=0, freeze_epochs=3, freeze_passes=2, class_weights="balanced"
    )
    keras.utils.set_random_seed(the_recipe.seed)
    fresh = kv.create_model("small_cnn", labels=digits.labels, input_shape=(8, 8, 1), filters=[8, 16], depth=1)
    for layer in fresh.layers:
        for before, after in zip(layer.get_weights(), trained.get_layer(layer.name).get_weights(), strict=True):
            assert np.array_equal(before, after) == (layer.name != "logits"), layer.name
    assert len(result["head_history"]["val_loss"]) == 3
    assert (result["epochs"], result["history"]) == (0, {})
    # Done is done.
    folder.model.unlink()
    assert train_model(the_recipe, digits, folder, progress=False) == result
    assert not folder.model.exists()


def test_stages_unfreeze_from_the_top_down(recipe, digits, tmp_path, no_logs):
    """What a stage leaves frozen is as it was; history and learning rates are counted through."""
    settings = {"learning_rate": 0.01, "schedule": "constant", "keep": "last"}
    parts = (StageRecipe(2, "none", 0.02), StageRecipe(1, "P1"))
    learned = []
    for count, epochs in ((1, 0), (2, 0), (2, 1)):
        result, trained, the_recipe, _ = train(
            recipe, digits, tmp_path / f"{count}{epochs}", stages=parts[:count], epochs=epochs, **settings
        )
        keras.utils.set_random_seed(the_recipe.seed)
        fresh = kv.create_model("small_cnn", labels=digits.labels, input_shape=(8, 8, 1), filters=[8, 16], depth=1)
        pairs = zip(fresh.variables, trained.variables, strict=True)
        learned.append({a.path.split("/")[0] for a, b in pairs if not np.array_equal(a, b) and "seed" not in a.path})
    assert learned == [{"logits"}, {"logits", "stage1_0_conv"}, {"logits", "stage1_0_conv", "stage0_0_conv"}]
    np.testing.assert_allclose(result["history"]["learning_rate"], [0.02, 0.02, 0.01, 0.01])
    assert result["epochs"] == 4 == len(result["history"]["val_loss"])


def test_best_epoch_is_the_best_of_all_stages(recipe, digits, tmp_path, no_logs):
    result, trained, _, _ = train(
        recipe,
        digits,
        tmp_path,
        stages=(StageRecipe(3, "all", 0.01),),
        epochs=2,
        learning_rate=3.0,
        optimizer="sgd",
        monitor="val_loss",
    )
    assert result["epochs"] == 5 and result["best_epoch"] <= 3
    trained.compile()
    validation = digits.batches("validation", image_size=(8, 8), channels=1, batch_size=25)
    found = trained.evaluate(validation, verbose=0, return_dict=True)["loss"]
    assert found == pytest.approx(min(result["history"]["val_loss"]), rel=1e-4)


def test_stage_that_ends_early_is_followed_by_the_next(recipe, digits, tmp_path, no_logs):
    result, *_ = train(
        recipe,
        digits,
        tmp_path,
        stages=(StageRecipe(50, "none", 1e-12),),
        epochs=50,
        learning_rate=2e-12,
        unfreeze="none",
        schedule="constant",
        early_stopping=1,
    )
    np.testing.assert_allclose(result["history"]["learning_rate"], [1e-12, 1e-12, 2e-12])


@pytest.mark.parametrize(
    "fields",
    [{"unfreeze": "P7"}, {"stages": (StageRecipe(1, "none"), StageRecipe(1, "P7"))}, {"layer_factors": {"P7": 0.1}}],
)
def test_unknown_part_is_found_before_the_first_epoch(recipe, digits, tmp_path, fields):
    with pytest.raises(RecipeError, match='no stage or layer "P7"; stages: P0, P1'):
        train(recipe, digits, tmp_path, freeze_epochs=1, **fields)
    assert not (tmp_path / "checkpoint" / "state.npz").exists()
    assert not (tmp_path / "checkpoint" / "head.weights.h5").exists()


def test_fine_tuning_leaves_statistics_alone(recipe, digits, tmp_path):
    result, trained, the_recipe, _ = train(recipe, digits, tmp_path, epochs=1, freeze_epochs=1, learning_rate=0.01)
    assert result["epochs"] == 1 and len(result["head_history"]["loss"]) == 1
    for name in ("stage0_0_bn", "stage1_0_bn"):
        layer = trained.get_layer(name)
        np.testing.assert_array_equal(layer.moving_mean, np.zeros(layer.moving_mean.shape))
        np.testing.assert_array_equal(layer.gamma, np.ones(layer.gamma.shape))
    keras.utils.set_random_seed(the_recipe.seed)
    fresh = kv.create_model("small_cnn", labels=digits.labels, input_shape=(8, 8, 1), filters=[8, 16], depth=1)
    before, after = (m.get_layer("stage0_0_conv").get_weights()[0] for m in (fresh, trained))
    assert not np.array_equal(before, after)
