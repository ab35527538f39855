import dataclasses
import json

import pytest

from kerasvision.errors import RecipeError
from kerasvision.recipe import DataRecipe, ModelRecipe, Recipe, TrainRecipe, load_recipe
from kerasvision.training.folder import RunFolder

RECIPE = Recipe(DataRecipe("digits"), ModelRecipe("small_cnn"))
OTHER = dataclasses.replace(RECIPE, train=TrainRecipe(epochs=3))


def test_recipe_is_kept_and_compared(tmp_path):
    folder = RunFolder(tmp_path / "run")
    folder.open(RECIPE, resume=True, overwrite=False)
    assert load_recipe(folder.recipe) == RECIPE
    folder.open(RECIPE, resume=True, overwrite=False)
    with pytest.raises(RecipeError, match=r"train\.epochs: 10 -> 3.*another folder.*overwrite"):
        folder.open(OTHER, resume=True, overwrite=False)
    with pytest.raises(RecipeError, match="resume=False"):
        folder.open(RECIPE, resume=False, overwrite=False)


def test_overwriting_spares_what_no_run_wrote(tmp_path):
    folder = RunFolder(tmp_path)
    folder.open(RECIPE, resume=True, overwrite=False)
    folder.mark_done("train", {"epochs": 10})
    folder.metrics.write_text("{}")
    (tmp_path / "notes.txt").write_text("mine")
    folder.open(OTHER, resume=True, overwrite=True)
    assert folder.done("train") is None
    assert not folder.metrics.exists()
    assert load_recipe(folder.recipe) == OTHER
    assert (tmp_path / "notes.txt").read_text() == "mine"


def test_overwriting_a_folder_without_a_run_deletes_nothing(tmp_path):
    (tmp_path / "exports").mkdir()
    (tmp_path / "exports" / "precious.tflite").write_text("x")
    RunFolder(tmp_path).open(RECIPE, resume=True, overwrite=True)
    assert (tmp_path / "exports" / "precious.tflite").exists()


def test_places_that_cannot_be_a_run(tmp_path):
    (tmp_path / "file").write_text("x")
    with pytest.raises(RecipeError, match="is a file"):
        RunFolder(tmp_path / "file").open(RECIPE, resume=True, overwrite=False)
    (tmp_path / "model.keras").write_text("x")
    with pytest.raises(RecipeError, match=r"no recipe\.yaml"):
        RunFolder(tmp_path).open(RECIPE, resume=True, overwrite=False)


def test_phases(tmp_path):
    folder = RunFolder(tmp_path)
    folder.open(RECIPE, resume=True, overwrite=False)
    assert folder.done("train") is None and not folder.finished
    folder.mark_done("train", {"epochs": 1})
    folder.mark_done("quantize", {})
    assert RunFolder(tmp_path).done("train") == {"epochs": 1}
    folder.metrics.write_text(json.dumps({"a": 1}))
    assert not folder.finished  # The report is still to be written.
    folder.finish()
    assert folder.finished and folder.read_metrics() == {"a": 1}
