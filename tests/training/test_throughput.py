"""Whether the step waits for images: figures against pipelines of known speed."""

import time

import numpy as np
import pytest

from kerasvision.data import Data
from kerasvision.errors import DataError
from kerasvision.recipe import DataRecipe, ModelRecipe, Recipe, TrainRecipe
from kerasvision.training import throughput as module
from kerasvision.training.throughput import throughput


def recipe(**data):
    return Recipe(
        DataRecipe("digits", **data),
        ModelRecipe("small_cnn", input_shape=(8, 8, 1)),
        TrainRecipe(batch_size=16),
    )


def digits(count=64):
    images = np.random.default_rng(0).integers(0, 256, (count, 8, 8, 1), np.uint8)
    examples = [{"image": image, "label": index % 2} for index, image in enumerate(images)]
    return Data(labels=("a", "b"), splits={"train": examples, "validation": examples[:4]})


def test_figures():
    figures = throughput(recipe(augment=("flip",)), seconds=0.3, data=digits())
    assert min(figures["reading"], figures["pipeline"], figures["training"]) > 0
    assert figures["ratio"] == figures["pipeline"] / figures["training"]
    assert figures["starves"] == (figures["ratio"] < module.RESERVE) == bool(figures["advice"])


def test_speed_counts_images_not_batches():
    def batches():
        while True:
            time.sleep(0.01)
            yield np.zeros((7, 1)), None

    assert 200 < module._speed(batches(), 0.3) <= 700


@pytest.mark.parametrize(
    ("reading", "cache", "expected"),
    [(50, True, "Store them smaller"), (50, False, "data.cache=true"), (900, True, "transforms are too slow")],
)
def test_advice_names_what_is_slow(reading, cache, expected):
    figures = {"reading": reading, "pipeline": 40, "training": 100}
    assert expected in module._advice(figures, recipe(cache=cache))


def test_no_images():
    with pytest.raises(DataError, match="no train images"):
        throughput(recipe(), data=Data(labels=("a", "b"), splits={"validation": digits().splits["validation"]}))
