"""Transfer learning: a head on frozen features first, then some or all of the backbone.

Features of a frozen backbone are the same in every epoch, so they are computed once. Batch normalization is in
inference mode while it is frozen: its statistics belong to the weights.
"""

from collections.abc import Sequence
from typing import Any

import keras
import numpy as np
import tensorflow as tf

from kerasvision.errors import RecipeError, closest
from kerasvision.progress import track
from kerasvision.recipe import TrainRecipe
from kerasvision.task import TaskModel

# task name -> layer behind which the head begins.
_CUTS = {"classification": "pool"}


def split_model(model: TaskModel, cut: str | None = None) -> tuple[keras.Model, TaskModel]:
    """The two halves of a model, on the model's own layers.

    Args:
        model: a task model.
        cut: name of the backbone's last layer; what follows is the head. The task's own cut when None.

    Returns:
        The backbone (pixels -> features), and the head (features -> raw outputs) with the model's task.

    Raises:
        RecipeError: no such layer, or the outputs do not depend on it alone.
    """
    cut = cut or _CUTS.get(model.task.name, "")
    names = [layer.name for layer in model.layers]
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
    """Whether batch normalization stays in inference mode once the whole net learns."""
    return train.freeze_epochs > 0 if train.bn_frozen is None else train.bn_frozen


def set_trainable(model: keras.Model, unfreeze: str, freeze_batch_norm: bool, head: Sequence[str]) -> None:
    """Decide which layers learn.

    Args:
        model: flat.
        unfreeze: "all", "none" (the head alone), or the name of the first layer that learns.
        freeze_batch_norm: keep batch normalization in inference mode everywhere.
        head: names of the head's layers, which always learn.

    Raises:
        RecipeError: no layer of that name.
    """
    names = [layer.name for layer in model.layers]
    if unfreeze not in ("all", "none", *names):
        raise RecipeError(
            f'train.unfreeze is "{unfreeze}": expected "all", "none" or a layer of {model.name}.'
            f"{closest(unfreeze, names)}"
        )
    first = {"all": 0, "none": len(names)}.get(unfreeze)
    first = names.index(unfreeze) if first is None else first
    for index, layer in enumerate(model.layers):
        frozen = freeze_batch_norm and isinstance(layer, keras.layers.BatchNormalization)
        layer.trainable = (index >= first and not frozen) or layer.name in head
