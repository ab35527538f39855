"""A head on frozen features, then the rest; batch normalization stays as it came."""

import keras
import numpy as np
import pytest

import kerasvision as kv
from kerasvision.errors import RecipeError
from kerasvision.recipe import TrainRecipe
from kerasvision.training.fit import train_model
from kerasvision.training.folder import RunFolder
from kerasvision.training.transfer import compute_features, set_trainable, split_model


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


@pytest.mark.parametrize(
    ("unfreeze", "freeze_batch_norm", "learning"),
    [
        ("all", False, {"stage0_0_conv", "stage0_0_bn", "stage1_0_conv", "stage1_0_bn", "logits"}),
        ("all", True, {"stage0_0_conv", "stage1_0_conv", "logits"}),
        ("stage1_0_conv", False, {"stage1_0_conv", "stage1_0_bn", "logits"}),
        ("stage1_0_conv", True, {"stage1_0_conv", "logits"}),
        ("none", True, {"logits"}),
    ],
)
def test_what_learns(model, unfreeze, freeze_batch_norm, learning):
    set_trainable(model, unfreeze, freeze_batch_norm, ["logits"])
    assert {variable.path.split("/")[0] for variable in model.trainable_variables} == learning


def test_unknown_layer_to_unfreeze(model):
    with pytest.raises(RecipeError, match=r'"stage1_conv".*"stage1_0_conv"'):
        set_trainable(model, "stage1_conv", True, [])
