"""Optimizers by name, with a warm-up, a schedule, and weight decay on the weights that should have it."""

from collections.abc import Iterable
from typing import Any

import keras

from kerasvision.recipe import TrainRecipe

_CLASSES = {
    "adam": keras.optimizers.Adam,
    "adamw": keras.optimizers.AdamW,
    "sgd": keras.optimizers.SGD,
    "lamb": keras.optimizers.Lamb,
    "lion": keras.optimizers.Lion,
    "rmsprop": keras.optimizers.RMSprop,
}


def schedule(
    learning_rate: float, steps: int, warmup_steps: int = 0, final: float = 0.0
) -> keras.optimizers.schedules.LearningRateSchedule:
    """Linear warm-up, then half a cosine down (Loshchilov & Hutter, 2017, arXiv:1608.03983).

    Args:
        learning_rate: highest value.
        steps: of the whole training, the warm-up included.
        warmup_steps: the first step has 1/warmup_steps of the highest value, the one after them all of it.
        final: last value as a share of the highest; 1 stays at the highest.
    """
    if not warmup_steps:
        return keras.optimizers.schedules.CosineDecay(learning_rate, max(steps, 1), alpha=final)
    return keras.optimizers.schedules.CosineDecay(
        learning_rate / (warmup_steps + 1),
        max(steps - warmup_steps, 1),
        alpha=final,
        warmup_target=learning_rate,
        warmup_steps=warmup_steps,
    )


def make_optimizer(recipe: TrainRecipe, steps_per_epoch: int, variables: Iterable[Any]) -> keras.optimizers.Optimizer:
    """The optimizer of a recipe.

    Args:
        recipe: names and numbers.
        steps_per_epoch: for the schedule.
        variables: the model's; vectors among them (biases, normalization) are spared the weight decay.
    """
    rate = schedule(
        recipe.learning_rate,
        recipe.epochs * steps_per_epoch,
        round(recipe.warmup_epochs * steps_per_epoch),
        1.0 if recipe.schedule == "constant" else recipe.final_learning_rate,
    )
    arguments: dict[str, Any] = {"learning_rate": rate, "global_clipnorm": recipe.clip_norm}
    if recipe.weight_decay is not None:
        arguments["weight_decay"] = recipe.weight_decay
    if recipe.ema is not None:
        arguments |= {"use_ema": True, "ema_momentum": recipe.ema}
    if recipe.optimizer in ("sgd", "rmsprop"):
        arguments["momentum"] = recipe.momentum
    if recipe.optimizer == "sgd":
        arguments["nesterov"] = recipe.nesterov
    optimizer = _CLASSES[recipe.optimizer](**arguments)
    optimizer.exclude_from_weight_decay(var_list=[v for v in variables if len(v.shape) < 2])
    return optimizer
