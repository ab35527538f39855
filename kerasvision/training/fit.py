"""The training phase: a recipe and data become model.keras, over any number of interruptions."""

import contextlib
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import keras
import numpy as np
import tensorflow as tf

from kerasvision.classification.task import COUNTING
from kerasvision.data import Data
from kerasvision.data.balance import class_weights, pixel_weights, sampler
from kerasvision.data.pipeline import epochs
from kerasvision.errors import DataError, RecipeError, closest
from kerasvision.files import replacing
from kerasvision.recipe import Recipe
from kerasvision.registry import create_model, get_entry
from kerasvision.task import TaskModel
from kerasvision.training import distribution
from kerasvision.training.callbacks import (
    Best,
    RunHistory,
    StopAtNaN,
    essentials,
    load_weights,
    save_weights,
)
from kerasvision.training.checkpoint import Checkpoint
from kerasvision.training.epoch_evaluation import EpochEvaluation
from kerasvision.training.folder import RunFolder
from kerasvision.training.layerwise import layerwise
from kerasvision.training.optimizers import make_optimizer
from kerasvision.training.progress import FitProgress
from kerasvision.training.stages import frozen_layers, layer_factors, unfreeze
from kerasvision.training.tensorboard import TensorBoard
from kerasvision.training.transfer import compute_features, freezes_batch_norm, split_model, split_schedule


def train_model(recipe: Recipe, data: Data, folder: RunFolder, progress: bool) -> dict[str, Any]:
    """Train, and leave the weights to keep in model.keras.

    Args:
        recipe: what to do.
        data: train and validation images.
        folder: of the run.
        progress: whether to show it on stderr.

    Returns:
        {"epochs", "best_epoch", "seconds", "history", "head_history"}; nothing is done where an earlier process did it.
    """
    if (result := folder.done("train")) is not None:
        return result
    strategy = distribution.make_strategy(recipe.train.strategy)
    # Checked before the model is built, which may take a download.
    distribution.training_batch_size(epoch_size(recipe, data), recipe.train.batch_size, strategy.num_replicas_in_sync)
    with _dtype_policy(recipe.train.mixed_precision), strategy.scope():
        keras.utils.set_random_seed(recipe.seed)
        model = build_model(recipe, data)
        if strategy.num_replicas_in_sync > 1:
            distribution.synchronize_batch_norm(model)
        check_monitor(recipe, model)
        check_stages(recipe, model)
        result = {"epochs": 0, "best_epoch": None, "seconds": 0.0, "history": {}, "head_history": {}}
        if recipe.train.freeze_epochs:
            result |= _train_head(recipe, data, model, folder, progress)
        if recipe.train.epochs or recipe.train.stages:
            seconds = result["seconds"]
            result |= _train_all(recipe, data, model, folder, progress)
            result["seconds"] += seconds
    _save(model, folder.model)
    folder.mark_done("train", result)
    return result


def build_model(recipe: Recipe, data: Data) -> TaskModel:
    """The recipe's model for the data's labels.

    Raises:
        RecipeError: `model.arguments` holds what comes from the data, or classes shall be weighed where nothing does.
        DataError: the data has other targets than the model's task learns from.
    """
    entry, task = get_entry(recipe.model.name, recipe.model.task)
    check_targets(data, task)
    arguments = dict(recipe.model.arguments)
    taken = {"labels", "num_classes", "multi_label", "class_counts"} & set(arguments)
    if taken:
        raise RecipeError(f"model.arguments.{min(taken)} comes from the data; leave it out.")
    if recipe.train.label_smoothing is not None:
        arguments["label_smoothing"] = recipe.train.label_smoothing
    if arguments.get("loss") in COUNTING and not data.multi_label:
        arguments["class_counts"] = np.bincount(data.targets("train")["label"], minlength=len(data.labels)).tolist()
    if task == "classification":
        arguments["multi_label"] = data.multi_label
    if task == "detection" and recipe.train.class_weights is not None:
        raise RecipeError(
            "train.class_weights weighs images or pixels by their one class, and the objects of an image have many. "
            "Leave it out for a detector."
        )
    if task == "segmentation" and recipe.train.class_weights is not None:
        if "class_weights" in arguments:
            raise RecipeError(
                "train.class_weights and model.arguments.class_weights are the same; leave one of them out."
            )
        pixels = data.pixel_counts("train", (recipe.model.input_shape or entry.input_shape)[:2])
        arguments["class_weights"] = pixel_weights(pixels, data.labels, recipe.train.class_weights).tolist()
    return create_model(
        recipe.model.name,
        input_shape=recipe.model.input_shape,
        weights=recipe.model.weights,
        task=recipe.model.task,
        labels=list(data.labels),
        **arguments,
    )


def check_data(recipe: Recipe, data: Data) -> None:
    """Make sure that there is something to learn from and something to validate on.

    Raises:
        DataError: a split is empty.
    """
    for split in ("train", "validation"):
        if not data.splits.get(split):
            raise DataError(
                f"{data.source or recipe.data.source} has no {split} images. "
                + (
                    "Set data.validation_fraction above 0 (0.1 takes a tenth of the training images), or put images "
                    "into a folder val/."
                    if split == "validation"
                    else "Lower data.validation_fraction and data.test_fraction, or add images."
                )
            )


def check_targets(data: Data, task: str) -> None:
    """Make sure that the data has what a task learns from.

    Args:
        data: the data set.
        task: the name of a task.

    Raises:
        DataError: it has not; the message says what it has.
    """
    needed = {"classification": ("label", "labels"), "detection": ("boxes",), "segmentation": ("segmentation",)}[task]
    example = next(example for examples in data.splits.values() for example in examples)
    if any(key in example for key in needed) or (task == "segmentation" and data.class_maps is not None):
        return
    found = ", ".join(key for key in ("label", "labels", "boxes", "masks", "segmentation") if key in example)
    raise DataError(
        f'The task "{task}" learns from "{" or ".join(needed)}", {data.source or "the data"} has: {found or "nothing"}.'
        + (" Masks of objects become one by data.class_maps." if task == "segmentation" and "masks" in example else "")
    )


def check_monitor(recipe: Recipe, model: TaskModel) -> None:
    """Make sure before the first epoch that the recipe's monitor will exist after it.

    Raises:
        RecipeError: it will not; the closest names are given.
    """
    names = ("loss", *model.task.loss_names, *model.task.monitor_names)
    known = [*names, *(f"val_{name}" for name in (*names, *model.task.measured_names))]
    if recipe.train.monitor is not None and recipe.train.monitor not in known:
        raise RecipeError(f'train.monitor is "{recipe.train.monitor}".{closest(recipe.train.monitor, known)}')


def check_stages(recipe: Recipe, model: TaskModel) -> None:
    """Make sure before the first stage that the model has every part that a later one names.

    Raises:
        RecipeError: it has not; the closest names are given.
    """
    for stage in split_schedule(recipe.train):
        frozen_layers(model, stage.unfreeze)
    layer_factors(model, recipe.train.layer_decay, recipe.train.layer_factors)


def batches(recipe: Recipe, data: Data, model: Any, split: str, **options: Any) -> tf.data.Dataset:
    """Batches of a split as the model takes them; `options` are those of `Data.batches`."""
    options.setdefault("mask_stride", model.task.mask_stride)
    if split == "train":
        options.setdefault("max_objects", recipe.data.max_objects)
    return data.batches(
        split,
        image_size=model.image_size,
        channels=model.channels,
        preprocessing=model.preprocessing,
        cache=recipe.data.cache,
        **options,
    )


def training_batches(recipe: Recipe, data: Data, model: Any, batch_size: int) -> tf.data.Dataset:
    """Batches of the training images as the recipe wants them sampled, shuffled and augmented."""
    return batches(
        recipe,
        data,
        model,
        "train",
        batch_size=batch_size,
        augment=recipe.data.augment,
        shuffle=True,
        sampling=recipe.data.sampling,
        seed=recipe.seed,
    )


def with_class_weights(dataset: tf.data.Dataset, recipe: Recipe, data: Data) -> tf.data.Dataset:
    """Adds the sample weights that the recipe asks for; see `kerasvision.data.balance.class_weights`.

    Pixels have theirs in the loss: see `build_model`.

    Args:
        dataset: of (images, {"label": [B]}); an image with "label_weights", [B, K], has the mixture of their weights.
        recipe: whose `train.class_weights` decides.
        data: whose training images are counted.
    """
    if recipe.train.class_weights is None or "segmentation" in dataset.element_spec[1]:
        return dataset
    weights = tf.constant(class_weights(data.targets("train")["label"], data.labels, recipe.train.class_weights))

    def weigh(images: tf.Tensor, targets: dict[str, tf.Tensor]) -> tuple[tf.Tensor, dict[str, tf.Tensor], tf.Tensor]:
        if "label_weights" in targets:
            return images, targets, tf.linalg.matvec(targets["label_weights"], weights)
        return images, targets, tf.gather(weights, targets["label"])

    return dataset.map(weigh)


def epoch_size(recipe: Recipe, data: Data) -> int:
    """Training images in an epoch, which sampling may change."""
    draw = _sampler(recipe, data.targets("train"))
    return len(data.splits["train"]) if draw is None else len(draw(0))


def _sampler(recipe: Recipe, targets: dict[str, np.ndarray]) -> Callable[[int], np.ndarray] | None:
    """Number of an epoch -> its images, where the recipe asks for sampling and there is something to go by."""
    rule = recipe.data.sampling
    if rule is None or not targets:
        return None
    labels = targets["label"] if "label" in targets else targets["labels"]
    return lambda epoch: sampler(labels, rule, seed=recipe.seed, epoch=epoch)


def _train_all(recipe: Recipe, data: Data, model: TaskModel, folder: RunFolder, progress: bool) -> dict[str, Any]:
    train, replicas = recipe.train, distribution.replicas_of(model)
    images = epoch_size(recipe, data)
    size = distribution.training_batch_size(images, train.batch_size, replicas)
    held_out = len(data.splits["validation"])
    validation = batches(
        recipe, data, model, "validation", batch_size=distribution.validation_batch_size(held_out, size, replicas)
    )
    best_path = folder.checkpoint / "best.weights.h5" if train.keep == "best" else None
    best = Best(best_path, train.monitor, train.early_stopping)
    # The data that TensorBoard draws from has iterators of its own, so that the order of the images stays the run's.
    drawn = batches(recipe, data, model, "train", batch_size=16, augment=recipe.data.augment, shuffle=True, limit=64)
    measure = EpochEvaluation(validation)
    board = TensorBoard(
        folder.logs,
        train_data=drawn,
        validation_data=validation,
        histograms=train.histograms,
        evaluation=measure,
    )
    callbacks = essentials(folder.checkpoint / "state.npz", best, board, measure, train.checkpoint_steps)
    history, checkpoint = _find(callbacks, RunHistory), _find(callbacks, Checkpoint)
    stages = split_schedule(train)
    begun = (checkpoint.read() or {"stage": 0})["stage"]
    for index, stage in list(enumerate(stages))[begun:]:
        unfreeze(model, stage.unfreeze, freeze_batch_norm=freezes_batch_norm(train))
        # A data set of its own: how far the last one looked ahead, and so its next order of the images, is not known.
        augmented = training_batches(recipe, data, model, size)
        dataset, steps = distribution.whole_batches(with_class_weights(augmented, recipe, data), images, size, replicas)
        optimizer = make_optimizer(stage, steps, model.trainable_variables)
        if train.layer_decay != 1 or train.layer_factors:
            optimizer = layerwise(optimizer, model, decay=train.layer_decay, factors=train.layer_factors)
        model.compile(optimizer, jit_compile=train.xla)
        title = "Training" if len(stages) == 1 else f"Training ({stage.unfreeze})"
        figures = (*model.task.monitor_names, *model.task.measured_names)
        with _shown(callbacks, FitProgress(title, steps, figures), progress) as shown:
            _fit_resumably(model, dataset, validation, index, stage.epochs, steps, shown)
    return {
        "epochs": len(history.state["figures"]["loss"]),
        "best_epoch": best.state["epoch"] + 1 if train.keep == "best" else None,
        "seconds": history.state["seconds"],
        "history": history.state["figures"],
    }


def _fit_resumably(
    model: TaskModel,
    dataset: tf.data.Dataset,
    validation: tf.data.Dataset,
    stage: int,
    epochs: int,
    steps: int,
    callbacks: list[Any],
) -> None:
    """`fit`, from wherever the checkpoint is, on the images in the order that an uninterrupted run would see.

    Args:
        model: compiled.
        dataset: one epoch, shuffled; not used yet.
        validation: batches.
        stage: of the training.
        epochs: of this stage.
        steps: of an epoch.
        callbacks: with a checkpoint.
    """
    begin, done, step = _find(callbacks, Checkpoint).begin_stage(stage)
    # Each new iterator over a shuffled data set begins the next epoch's order. Under a strategy Keras makes one to look
    # at a batch; one device passes over that order as well, so that the run is the same on any number of devices.
    looked = distribution.replicas_of(model) == 1
    for _ in range(done + looked):
        iter(dataset)
    common = {"validation_data": validation, "callbacks": callbacks, "verbose": 0}
    if step:
        # The rest of the epoch that was cut off; the checkpoint at its end is where the next call goes on. The filter
        # hides the number of batches: Keras, or a look-ahead in repeat(), would begin another epoch's order too early.
        rest = dataset.skip(step).filter(lambda *_: True)
        model.fit(rest, epochs=done + 1, steps_per_epoch=steps - step, **common)
    model.fit(dataset.repeat(), epochs=begin + epochs, steps_per_epoch=steps, **common)


def _train_head(recipe: Recipe, data: Data, model: TaskModel, folder: RunFolder, progress: bool) -> dict[str, Any]:
    backbone, head = split_model(model)
    path = folder.checkpoint / "head.weights.h5"
    if (result := folder.done("head")) is not None:
        load_weights(head, path)
        return result
    train, replicas = recipe.train, distribution.replicas_of(model)
    common = {"batch_size": train.batch_size}
    passes = [batches(recipe, data, model, "train", **common)]
    for index in range(1, train.freeze_passes):
        # Not shuffled, but augmented anew by each seed.
        seed = recipe.seed + index
        passes.append(batches(recipe, data, model, "train", augment=recipe.data.augment, seed=seed, **common))
    weighted = [with_class_weights(dataset, recipe, data) for dataset in passes]
    features, targets = compute_features(backbone, weighted, "Computing features")
    held_out, wanted = compute_features(
        backbone, [batches(recipe, data, model, "validation", **common)], "Computing validation features"
    )
    examples = tf.nest.map_structure(tf.constant, (features, *targets))
    order = epochs(len(features), True, recipe.seed, _sampler(recipe, targets[0]))
    size = distribution.training_batch_size(len(order), train.batch_size, replicas)
    gathered = order.batch(size).map(lambda index: tf.nest.map_structure(lambda part: tf.gather(part, index), examples))
    dataset, steps = distribution.whole_batches(gathered, len(order), size, replicas)
    validation = tf.data.Dataset.from_tensor_slices((held_out, *wanted)).batch(
        distribution.validation_batch_size(len(held_out), size, replicas)
    )
    head.compile(keras.optimizers.Adam(train.freeze_learning_rate), jit_compile=train.xla)
    best, history = Best(path, train.monitor), RunHistory()
    callbacks = [StopAtNaN(path), history, best]
    with _shown(callbacks, FitProgress("Training the head", steps, model.task.monitor_names), progress) as shown:
        head.fit(dataset, epochs=train.freeze_epochs, validation_data=validation, callbacks=shown, verbose=0)
    with replacing(path) as temporary:
        save_weights(head, temporary)
    result = {"head_history": history.state["figures"], "seconds": history.state["seconds"]}
    folder.mark_done("head", result)
    return result


def _save(model: TaskModel, path: Path) -> None:
    """Save as one device with 32 bits would have built it, without the optimizer."""
    plain = TaskModel.from_config(model.get_config())
    for layer in plain.layers:
        layer.set_weights(model.get_layer(layer.name).get_weights())
    with replacing(path) as temporary:
        plain.save(temporary)


@contextlib.contextmanager
def _dtype_policy(name: str | None) -> Iterator[None]:
    before = keras.config.dtype_policy()
    if name:
        keras.config.set_dtype_policy(name)
    try:
        yield
    finally:
        keras.config.set_dtype_policy(before)


@contextlib.contextmanager
def _shown(callbacks: list[Any], display: FitProgress, progress: bool) -> Iterator[list[Any]]:
    try:
        yield [*callbacks, display] if progress else callbacks
    finally:
        display.close()


def _find(callbacks: list[Any], kind: type) -> Any:
    return next(callback for callback in callbacks if isinstance(callback, kind))
