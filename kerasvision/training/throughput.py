"""Would the accelerator starve? Images a second of the input pipeline beside those of the training step."""

import dataclasses
import itertools
import time
from collections.abc import Iterable
from typing import Any

import tensorflow as tf

from kerasvision.data import Data
from kerasvision.recipe import Recipe
from kerasvision.run_data import load_recipe_data
from kerasvision.training.fit import batches, build_model, check_data
from kerasvision.training.optimizers import make_optimizer

# Below this many times the training's speed, an uneven machine lets the step wait for images.
RESERVE = 1.2
LOOKED_AT = 512
_WARM_UP = 2


def throughput(recipe: Recipe, *, seconds: float = 5.0, data: Data | None = None) -> dict[str, Any]:
    """Measure a recipe's input pipeline and its training step, each on its own.

    Args:
        recipe: whose data, augmentation, model and batch size are taken.
        seconds: of each measurement.
        data: in place of the recipe's, of which 512 images at most are looked at.

    Returns:
        {"reading", "pipeline", "training": images/s, "ratio": pipeline / training, "starves": bool, "advice": text}.
        "reading" is the pipeline without augmentation.

    Raises:
        DataError: the data cannot be used.
    """
    if data is None:
        limit = min(recipe.data.limit or LOOKED_AT, LOOKED_AT)
        data = load_recipe_data(dataclasses.replace(recipe.data, limit=limit))
    check_data(recipe, data)
    model = build_model(recipe, data)
    model.compile(make_optimizer(recipe.train, 100, model.trainable_variables))
    size = min(recipe.train.batch_size, len(data.splits["train"]))
    common: dict[str, Any] = {"batch_size": size, "shuffle": True, "seed": recipe.seed}
    augmented = batches(recipe, data, model, "train", augment=recipe.data.augment, **common)
    plain = batches(recipe, data, model, "train", **common)
    batch = next(iter(augmented))
    figures = {
        "reading": _speed(plain.repeat(), seconds),
        "pipeline": _speed(augmented.repeat(), seconds),
        "training": _speed(_steps(model, batch), seconds),
    }
    ratio = figures["pipeline"] / figures["training"]
    starves = ratio < RESERVE
    return {**figures, "ratio": ratio, "starves": starves, "advice": _advice(figures, recipe) if starves else ""}


def _speed(source: Iterable[Any], seconds: float) -> float:
    """Images a second; each element is a batch, or its number of images."""
    steps = iter(source)
    for _ in itertools.islice(steps, _WARM_UP):
        pass
    images, start = 0, time.perf_counter()
    for step in steps:
        images += step if isinstance(step, int) else len(step[0])
        elapsed = time.perf_counter() - start
        if elapsed >= seconds:
            return images / elapsed
    raise AssertionError("the batches ended")


def _steps(model: Any, batch: tuple[tf.Tensor, dict[str, tf.Tensor]]) -> Iterable[int]:
    images, targets = batch
    while True:
        model.train_on_batch(images, targets)
        yield len(images)


def _advice(figures: dict[str, float], recipe: Recipe) -> str:
    if figures["reading"] < RESERVE * figures["training"]:
        slow = "Reading the images is too slow."
        remedy = "Let them be kept in memory (data.cache=true)" if not recipe.data.cache else "Store them smaller"
        return f"{slow} {remedy}, write them as shards (`kerasvision convert`), or give the machine more cores."
    return "The transforms are too slow: take fewer or cheaper ones in data.augment, or give the machine more cores."
