"""Transfer learning: a head on frozen features first, then some or all of the backbone, in stages.

Features of a frozen backbone are the same in every epoch, so they are computed once.
"""

import dataclasses
from collections.abc import Sequence
from typing import Any

import keras
import numpy as np
import tensorflow as tf

from kerasvision.errors import RecipeError, closest
from kerasvision.progress import track
from kerasvision.recipe import TrainRecipe
from kerasvision.task import TaskModel

# A classifier's pool belongs to the backbone here: what comes out of it is small.
_POOL = "pool"


def split_model(model: TaskModel, cut: str | None = None) -> tuple[keras.Model, TaskModel]:
    """The two halves of a model, on the model's own layers.

    Args:
        model: a task model.
        cut: name of the backbone's last layer; what follows is the head. When None: "pool", or the last tap where
            there is no such layer.

    Returns:
        The backbone (pixels -> features), and the head (features -> raw outputs) with the model's task.

    Raises:
        RecipeError: no such layer, or the outputs do not depend on it alone.
    """
    names = [layer.name for layer in model.layers]
    if cut is None:
        cut = _POOL if _POOL in names else [*model.taps.values()][-1]
    if cut not in names:
        raise RecipeError(f'{model.name} has no layer "{cut}" to cut it at.{closest(cut, names)}')
    features = model.get_layer(cut).output
    build = {"name": f"{model.name}_head", "arguments": {}}
    try:
        head = TaskModel(features, model.output, task=model.task, preprocessing=model.preprocessing, build=build)
    except ValueError as error:
        raise RecipeError(
            f'{model.name} cannot be cut at "{cut}": its outputs do not depend on that layer alone ({error}).'
        ) from error
    return keras.Model(model.input, features), head


def compute_features(
    backbone: keras.Model, datasets: Sequence[tf.data.Dataset], description: str
) -> tuple[np.ndarray, tuple[Any, ...]]:
    """Features of every image, in inference mode.

    Args:
        backbone: pixels -> features.
        datasets: of (images, targets) or (images, targets, sample weights); one after the other.
        description: for the progress display.

    Returns:
        Features [N, ...] and what followed the images in the data sets, as arrays [N, ...].
    """
    spec = tf.TensorSpec(backbone.inputs[0].shape, tf.float32)
    infer = tf.function(lambda images: backbone(images, training=False), input_signature=[spec])
    features, others = [], []
    batches = [len(dataset) for dataset in datasets]
    for images, *rest in track((batch for dataset in datasets for batch in dataset), description, sum(batches)):
        features.append(infer(images).numpy().astype(np.float32))
        others.append(rest)
    joined = tf.nest.map_structure(lambda *parts: np.concatenate([part.numpy() for part in parts]), *others)
    return np.concatenate(features), tuple(joined)


def freezes_batch_norm(train: TrainRecipe) -> bool:
    """Whether batch normalization stays in inference mode where the net learns."""
    return bool(train.freeze_epochs or train.stages) if train.bn_frozen is None else train.bn_frozen


def split_schedule(train: TrainRecipe) -> list[TrainRecipe]:
    """The schedule of each stage, the one of `train.epochs` at the end."""
    parts = [
        dataclasses.replace(
            train,
            epochs=stage.epochs,
            unfreeze=stage.unfreeze,
            learning_rate=train.learning_rate if stage.learning_rate is None else stage.learning_rate,
        )
        for stage in train.stages
    ]
    return [*parts, train] if train.epochs else parts
