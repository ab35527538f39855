"""A detector on two devices computes what it does on one, and trains in bfloat16. In a process of its own."""

import subprocess
import sys
from pathlib import Path

import pytest

SCRIPT = """
import sys
import numpy as np, tensorflow as tf
cpu = tf.config.list_physical_devices("CPU")[0]
tf.config.set_logical_device_configuration(cpu, [tf.config.LogicalDeviceConfiguration()] * 2)
import keras
from detection import contract
from kerasvision.data import Data
from kerasvision.recipe import *
from kerasvision.training.fit import train_model
from kerasvision.training.folder import RunFolder

images, targets = contract.rectangles(28)
targets["valid"][3] = False  # An image without objects.
# Six batches an epoch: of fewer, Keras's look at the first one would begin the order of another epoch.
examples = [
    {"image": image.astype(np.uint8), "boxes": boxes[valid], "classes": classes[valid], "crowd": 0 > classes[valid]}
    for image, boxes, classes, valid in zip(images, targets["boxes"], targets["classes"], targets["valid"])
]
data = Data(("red", "blue"), {"train": examples[:24], "validation": examples[24:]})

def run(name, arguments, **fields):
    model = ModelRecipe(name, (64, 64, 3), arguments={**contract.TINY, **arguments})
    train = TrainRecipe(epochs=2, batch_size=4, learning_rate=0.01, optimizer="sgd", keep="last", **fields)
    recipe = Recipe(DataRecipe("rectangles"), model, train, QuantizeRecipe(enabled=False), ExportRecipe(formats=()))
    folder = RunFolder(f"{sys.argv[1]}/{name}-{len(fields)}")
    folder.open(recipe, resume=True, overwrite=False)
    return train_model(recipe, data, folder, progress=False)["history"]

name, arguments = sys.argv[2], eval(sys.argv[3])
one, two = run(name, arguments), run(name, arguments, strategy="mirrored")
assert "val_AP" in one
for key in one:
    np.testing.assert_allclose(two[key], one[key], rtol=1e-3, atol=1e-4, err_msg=key)
half = run(name, arguments, mixed_precision="mixed_bfloat16", schedule="cosine")
print("loss", one["loss"][0], half["loss"][0])
assert abs(half["loss"][0] / one["loss"][0] - 1) < 0.1
"""


def check(tmp_path, name, arguments):
    tests = Path(__file__).parent.parent
    command = [sys.executable, "-c", SCRIPT, str(tmp_path), name, repr(arguments)]
    done = subprocess.run(command, capture_output=True, text=True, cwd=tests, check=False)
    assert done.returncode == 0, done.stderr[-3000:]
    assert "loss" in done.stdout


@pytest.mark.slow
def test_a_detector_with_synchronized_normalization(tmp_path):
    levels = {"levels": ["P2", "P3"], "filters": 16, "depth": 1, "separable": True, "normalized": True}
    check(tmp_path, "retinanet", levels)
