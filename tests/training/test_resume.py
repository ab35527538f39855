"""An interrupted training ends where the uninterrupted one does."""

import keras
import numpy as np
import pytest

from kerasvision.recipe import DataRecipe, StageRecipe, TrainRecipe
from kerasvision.training.checkpoint import Checkpoint
from kerasvision.training.fit import train_model
from kerasvision.training.folder import RunFolder


@pytest.fixture
def run(recipe, digits, tmp_path, monkeypatch):
    """Trains in a folder of that name; stops dead after so many writes of the checkpoint."""
    write = Checkpoint._write

    def run(name, settings, stop_after=None, **fields):
        folder = RunFolder(tmp_path / name)
        the_recipe = recipe(settings, **fields)
        folder.open(the_recipe, resume=True, overwrite=False)
        writes = 0

        def count(self, epoch, step):
            nonlocal writes
            write(self, epoch, step)
            writes += 1
            if writes == stop_after:
                raise KeyboardInterrupt

        monkeypatch.setattr(Checkpoint, "_write", count)
        result = train_model(the_recipe, digits, folder, progress=False)
        return result, keras.saving.load_model(folder.model).get_weights()

    return run


COMMON = {
    "batch_size": 25,
    "learning_rate": 0.01,
    "warmup_epochs": 0.5,
    "ema": 0.8,
    "weight_decay": 1e-3,
    "checkpoint_steps": 3,
    "keep": "last",
}
STAGES = (StageRecipe(1, "none", 0.02),)


# Each epoch writes twice: after step 3 and at its end.
@pytest.mark.parametrize(
    ("settings", "stops"),
    [
        # As far as the end of epoch 1, into epoch 2, to the end.
        (TrainRecipe(epochs=3, **COMMON), (2, 1)),
        # As far as the end of a stage, into the next one, to the end.
        (TrainRecipe(stages=STAGES, epochs=2, unfreeze="P1", layer_decay=0.5, **COMMON), (2, 1)),
    ],
    ids=["epochs", "stages"],
)
def test_resumed_run_equals_uninterrupted_run(run, settings, stops, request):
    if settings.stages:
        request.getfixturevalue("no_logs")
    data = DataRecipe("digits", limit=100, augment=({"name": "crop", "padding": 1},))
    whole, weights = run("whole", settings, data=data)
    for stop_after in stops:
        with pytest.raises(KeyboardInterrupt):
            run("cut", settings, stop_after, data=data)
    resumed, resumed_weights = run("cut", settings, data=data)
    for one, other in zip(weights, resumed_weights, strict=True):
        np.testing.assert_allclose(one, other, rtol=0, atol=1e-6)
    for name, values in whole["history"].items():
        np.testing.assert_allclose(resumed["history"][name], values, atol=1e-5, err_msg=name)
    assert resumed["epochs"] == 3
