"""Optimizers by name, with a warm-up, a schedule, and weight decay on the weights that should have it."""

from collections.abc import Iterable
from typing import Any, Literal

import keras
from keras import ops

from kerasvision.recipe import TrainRecipe

POLY = 0.9

_CLASSES = {
    "adam": keras.optimizers.Adam,
    "adamw": keras.optimizers.AdamW,
    "sgd": keras.optimizers.SGD,
    "lamb": keras.optimizers.Lamb,
    "lion": keras.optimizers.Lion,
    "rmsprop": keras.optimizers.RMSprop,
}


@keras.saving.register_keras_serializable("kerasvision")
class WarmUp(keras.optimizers.schedules.LearningRateSchedule):
    """Rises linearly to the first value of another schedule, which begins then.

    Args:
        schedule: the other one.
        steps: the first step has 1 / (steps + 1) of the schedule's first value, the one after them all of it.
    """

    def __init__(self, schedule: keras.optimizers.schedules.LearningRateSchedule, steps: int) -> None:
        super().__init__()
        self.schedule = schedule
        self.steps = steps

    def __call__(self, step: Any) -> Any:
        """Learning rate of a step."""
        step = ops.cast(step, "float32")
        share = ops.minimum((step + 1) / (self.steps + 1), 1.0)
        return share * self.schedule(ops.maximum(step - self.steps, 0.0))

    def get_config(self) -> dict[str, Any]:
        """The constructor's arguments."""
        return {"schedule": keras.saving.serialize_keras_object(self.schedule), "steps": self.steps}

    @classmethod
    def from_config(cls, config: dict[str, Any]) -> "WarmUp":
        """Made again, the other schedule too."""
        return cls(keras.saving.deserialize_keras_object(config["schedule"]), config["steps"])


def schedule(
    learning_rate: float,
    steps: int,
    warmup_steps: int = 0,
    final: float = 0.0,
    shape: Literal["cosine", "constant", "poly"] = "cosine",
) -> keras.optimizers.schedules.LearningRateSchedule:
    """Linear warm-up, then a fall.

    Args:
        learning_rate: highest value.
        steps: of the whole training, the warm-up included.
        warmup_steps: see `WarmUp`.
        final: last value as a share of the highest.
        shape: "cosine", half of one (Loshchilov & Hutter, 2017, arXiv:1608.03983); "poly", the share of the steps that
            are left to the power of 0.9 (Chen et al., 2017, arXiv:1606.00915); "constant" does not fall.
    """
    left = max(steps - warmup_steps, 1)
    if shape == "poly":
        rate = keras.optimizers.schedules.PolynomialDecay(learning_rate, left, final * learning_rate, power=POLY)
    else:
        rate = keras.optimizers.schedules.CosineDecay(learning_rate, left, alpha=1.0 if shape == "constant" else final)
    return WarmUp(rate, warmup_steps) if warmup_steps else rate


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
        recipe.final_learning_rate,
        recipe.schedule,
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
