"""A net small enough to train in a test, on the digits that scikit-learn carries."""

import keras
import pytest

from kerasvision.data import load_data
from kerasvision.recipe import DataRecipe, ExportRecipe, ModelRecipe, QuantizeRecipe, Recipe, TrainRecipe
from kerasvision.training import fit


def make_recipe(train: TrainRecipe, **fields) -> Recipe:
    defaults = {
        "data": DataRecipe("digits", limit=100),
        "model": ModelRecipe("small_cnn", (8, 8, 1), arguments={"filters": [8, 16], "depth": 1}),
        "quantize": QuantizeRecipe(enabled=False),
        "export": ExportRecipe(formats=()),
    }
    return Recipe(train=train, **{**defaults, **fields})


@pytest.fixture
def recipe():
    return make_recipe


@pytest.fixture
def no_logs(monkeypatch):
    """Trainings without TensorBoard, whose pictures take longer than such a net."""
    monkeypatch.setattr(fit, "TensorBoard", lambda *args, **fields: keras.callbacks.Callback())


@pytest.fixture(scope="session")
def digits():
    return load_data("digits", limit=100)
