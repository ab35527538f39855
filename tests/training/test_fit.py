"""Switches of the training phase."""

import keras
import numpy as np
import pytest
import tensorflow as tf

from kerasvision.data import Data
from kerasvision.errors import DataError, RecipeError
from kerasvision.recipe import DataRecipe, ModelRecipe, Recipe, TrainRecipe
from kerasvision.training import fit
from kerasvision.training.fit import (
    build_model,
    check_data,
    check_monitor,
    epoch_size,
    train_model,
    training_batches,
    with_class_weights,
)
from kerasvision.training.folder import RunFolder

SMALL = ModelRecipe("small_cnn", (8, 8, 1), arguments={"filters": [4], "depth": 1})


def train(recipe, data, path, model=SMALL, **fields):
    the_recipe = recipe(TrainRecipe(batch_size=25, **fields), model=model)
    folder = RunFolder(path)
    folder.open(the_recipe, resume=True, overwrite=False)
    result = train_model(the_recipe, data, folder, progress=False)
    return result, keras.saving.load_model(folder.model)


def test_mixed_precision_trains_and_leaves_no_trace(recipe, digits, tmp_path, monkeypatch):
    built = []
    monkeypatch.setattr(fit, "build_model", lambda *args: built.append(build_model(*args)) or built[0])
    before = keras.config.dtype_policy().name
    result, model = train(recipe, digits, tmp_path, epochs=1, mixed_precision="mixed_float16", ema=0.5)
    assert built[0].get_layer("stage0_0_conv").dtype_policy.name == "mixed_float16"
    assert keras.config.dtype_policy().name == before
    assert np.isfinite(result["history"]["val_loss"]).all()
    assert {layer.compute_dtype for layer in model.layers} == {"float32"}


def test_xla_computes_the_same(recipe, digits, tmp_path):
    # Without dropout, whose random numbers are XLA's own.
    model = ModelRecipe("small_cnn", (8, 8, 1), arguments={"filters": [4], "depth": 1, "dropout": 0.0})
    (plain, _), (compiled, _) = (
        train(recipe, digits, tmp_path / str(xla), model=model, epochs=1, xla=xla) for xla in (False, True)
    )
    np.testing.assert_allclose(compiled["history"]["loss"], plain["history"]["loss"], rtol=1e-4)


def test_early_stopping_ends_the_run(recipe, digits, tmp_path):
    result, _ = train(recipe, digits, tmp_path, epochs=50, early_stopping=1, learning_rate=1e-9, monitor="loss")
    assert result["epochs"] < 50
    assert result["best_epoch"] == result["epochs"] - 1


def test_balanced_weights():
    """The rarer the class, the heavier; on average 1, so that the loss keeps its size."""
    images = [{"image": np.zeros((8, 8, 1), np.uint8), "label": label} for label in [0] * 6 + [1] * 3 + [2] * 3]
    data = Data(("a", "b", "c", "never"), {"train": images})
    recipe = Recipe(DataRecipe("digits"), SMALL, TrainRecipe(class_weights="balanced"))
    dataset = with_class_weights(data.batches("train", image_size=(8, 8), channels=1, batch_size=12), recipe, data)
    _, targets, weights = next(iter(dataset))
    np.testing.assert_allclose(weights, np.choose(targets["label"], [12 / 18, 12 / 9, 12 / 9, 0]), rtol=1e-6)
    assert float(np.mean(weights)) == pytest.approx(1.0)


def test_costs_of_mixed_images_are_the_mixture_of_costs():
    images = [{"image": np.zeros((8, 8, 1), np.uint8), "label": label} for label in (0, 1)]
    recipe = Recipe(DataRecipe("digits"), SMALL, TrainRecipe(class_weights={"b": 5.0}))
    data = Data(("a", "b"), {"train": images})
    targets = {"label": np.array([0, 1]), "label_weights": np.array([[0.75, 0.25], [0.0, 1.0]], np.float32)}
    dataset = tf.data.Dataset.from_tensors((np.zeros((2, 8, 8, 1)), targets))
    _, _, weights = next(iter(with_class_weights(dataset, recipe, data)))
    np.testing.assert_allclose(weights, [2.0, 5.0])


@pytest.mark.parametrize("frozen", [False, True])
def test_sampling_decides_what_an_epoch_is(frozen, tmp_path, monkeypatch):
    """The rare class as often as the other: 2 * 30 images in 4 batches."""
    images = [{"image": np.full((8, 8, 1), 9 * label, np.uint8), "label": label} for label in [0] * 30 + [1] * 2]
    data = Data(("a", "b"), {"train": images, "validation": images})
    phases = {"epochs": 0, "freeze_epochs": 2} if frozen else {"epochs": 2}
    recipe = Recipe(DataRecipe("digits", sampling="over"), SMALL, TrainRecipe(batch_size=16, **phases))
    assert epoch_size(recipe, data) == 60
    folder = RunFolder(tmp_path / "run")
    folder.open(recipe, resume=True, overwrite=False)
    steps = []

    class Shown(fit.FitProgress):
        def __init__(self, title, count, names):
            steps.append(count)
            super().__init__(title, count, names)

    monkeypatch.setattr(fit, "FitProgress", Shown)
    train_model(recipe, data, folder, progress=False)
    assert steps == [4]
    labels = np.concatenate(
        [targets["label"] for _, targets in training_batches(recipe, data, build_model(recipe, data), 16)]
    )
    assert np.bincount(labels).tolist() == [30, 30]


def test_losses_that_count_get_their_counts_from_the_data(digits, recipe):
    model = ModelRecipe("small_cnn", (8, 8, 1), arguments={"loss": "ldam"})
    task = build_model(recipe(TrainRecipe(), model=model), digits).task
    assert task.class_counts == tuple(np.bincount(digits.targets("train")["label"]))


def test_label_smoothing_of_the_schedule_goes_to_the_task(digits, recipe):
    model = build_model(recipe(TrainRecipe(label_smoothing=0.2)), digits)
    assert model.task.label_smoothing == 0.2
    assert model.labels == digits.labels


def test_arguments_that_come_from_the_data(digits, recipe):
    model = ModelRecipe("small_cnn", (8, 8, 1), arguments={"num_classes": 3})
    with pytest.raises(RecipeError, match="num_classes comes from the data"):
        build_model(recipe(TrainRecipe(), model=model), digits)


def test_monitor_is_checked_before_the_first_epoch(digits, recipe):
    the_recipe = recipe(TrainRecipe(monitor="val_acuracy"))
    with pytest.raises(RecipeError, match='"val_accuracy"'):
        check_monitor(the_recipe, build_model(the_recipe, digits))


@pytest.mark.parametrize(("split", "remedy"), [("validation", "data.validation_fraction above 0"), ("train", "Lower")])
def test_empty_split_is_found_before_training(split, remedy):
    images = [{"image": np.zeros((8, 8), np.uint8), "label": 0}]
    data = Data(("a", "b"), {"train": images, "validation": images} | {split: []}, source="photos")
    with pytest.raises(DataError, match=rf"photos has no {split} images.*{remedy}"):
        check_data(Recipe(DataRecipe("photos"), SMALL), data)


def test_masks_and_room_that_a_model_and_a_recipe_ask_for():
    example = {
        "image": np.zeros((64, 64, 3), np.uint8),
        "boxes": np.float32([[0, 0, 8, 8], [8, 8, 40, 40], [20, 0, 40, 30]]),
        "classes": np.zeros(3, int),
        "crowd": np.zeros(3, bool),
        "masks": [[[0, 0, 8, 0, 8, 8]]] * 3,
    }
    data = Data(labels=("a",), splits={"train": [example], "validation": [example]})
    net = {"backbone": "small_cnn", "levels": ["P2"], "filters": [8], "anchors": [[9, 9]]}

    def spec(name, split):
        recipe = Recipe(DataRecipe("x", max_objects=2), ModelRecipe(name, (64, 64, 3), arguments=net))
        return fit.batches(recipe, data, build_model(recipe, data), split).element_spec[1]

    assert spec("yolov3_masks", "train")["masks"].shape.as_list() == [None, 2, 64, 64]
    assert spec("yolov3_masks", "validation")["masks"].shape.as_list() == [None, 3, 64, 64]
    plain = spec("yolov3", "train")
    assert "masks" not in plain and plain["boxes"].shape.as_list() == [None, 2, 4]
