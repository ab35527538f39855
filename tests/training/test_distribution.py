"""Two devices compute what one computes. Logical devices are set up once for a process: this needs its own."""

import subprocess
import sys

import pytest
from hypothesis import given
from hypothesis import strategies as st

from kerasvision.errors import RecipeError
from kerasvision.training.distribution import training_batch_size, validation_batch_size

SCRIPT = """
import sys
import numpy as np, tensorflow as tf
cpu = tf.config.list_physical_devices("CPU")[0]
tf.config.set_logical_device_configuration(cpu, [tf.config.LogicalDeviceConfiguration()] * 2)
import keras
from kerasvision.data import load_data
from kerasvision.recipe import *
from kerasvision.training.fit import train_model
from kerasvision.training.folder import RunFolder
from kerasvision.registry import register

@register("plain_cnn", input_shape=(8, 8, 1))
def plain_cnn(x, *, weights=None):
    x = keras.layers.Conv2D(6, 3, activation="relu", name="conv")(x)
    return {"P0": x, "top": x}

data = load_data("digits", limit=95)  # 5 batches of 16 and an odd one; validation batches are odd as well.
data.splits["train"] = data.splits["train"][:80]

def run(model, strategy, **fields):
    train = TrainRecipe(epochs=2, batch_size=16, learning_rate=0.01, strategy=strategy, keep="last", **fields)
    recipe = Recipe(DataRecipe("digits"), model, train, QuantizeRecipe(enabled=False), ExportRecipe(formats=()))
    folder = RunFolder(f"{sys.argv[1]}/{model.name}-{strategy}-{len(fields)}")
    folder.open(recipe, resume=True, overwrite=False)
    result = train_model(recipe, data, folder, progress=False)
    return result["history"], keras.saving.load_model(folder.model).get_weights()

cases = [
    (ModelRecipe("plain_cnn", arguments={"dropout": 0.0}), {}),
    (
        ModelRecipe("small_cnn", (8, 8, 1), arguments={"filters": [6], "depth": 1, "dropout": 0.0}),
        {
            "ema": 0.9,
            "weight_decay": 0.01,
            "optimizer": "sgd",
            "stages": (StageRecipe(1, "none"),),
            "bn_frozen": False,
            "layer_decay": 0.5,
        },
    ),
]
for model, fields in cases:
    (one, weights), (two, others) = run(model, None, **fields), run(model, "mirrored", **fields)
    for name in one:
        np.testing.assert_allclose(two[name], one[name], atol=1e-5, err_msg=name)
    for a, b in zip(weights, others, strict=True):
        np.testing.assert_allclose(b, a, atol=1e-5)
print("devices", tf.distribute.MirroredStrategy(["CPU:0", "CPU:1"]).num_replicas_in_sync)
"""


def test_two_devices_equal_one(tmp_path):
    """Losses and weights; and again with batch normalization, a moving average, two stages and layer-wise rates."""
    done = subprocess.run([sys.executable, "-c", SCRIPT, str(tmp_path)], capture_output=True, text=True)
    assert done.returncode == 0, done.stderr[-3000:]
    assert "devices 2" in done.stdout


@given(images=st.integers(1, 500), batch=st.integers(1, 64), replicas=st.integers(2, 8))
def test_every_replica_gets_an_image_of_the_last_validation_batch(images, batch, replicas):
    try:
        size = validation_batch_size(images, batch, replicas)
    except RecipeError:
        return
    assert size % replicas == 0 and size <= batch
    last = images % size or size
    share = -(-last // replicas)
    assert last > share * (replicas - 1)


def test_batches_that_cannot_be_shared_are_refused():
    with pytest.raises(RecipeError, match=r"batch_size is 15.*take 14"):
        training_batch_size(100, 15, 2)
    with pytest.raises(RecipeError, match="3 training images"):
        training_batch_size(3, 16, 4)
    assert training_batch_size(10, 16, 4) == 8
    assert training_batch_size(10, 15, 1) == 15
