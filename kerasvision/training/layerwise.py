"""Any Keras optimizer with a learning rate of its own for each layer."""

import functools
from collections.abc import Mapping
from typing import Any

import keras

from kerasvision.training.stages import layer_factors


def layerwise(
    optimizer: keras.optimizers.Optimizer | str,
    model: Any,
    *,
    decay: float = 1.0,
    factors: Mapping[str, float] | None = None,
) -> keras.optimizers.Optimizer:
    """The same optimizer, in which each layer has its share of the learning rate.

    A layer learns as if the optimizer had its learning rate times the layer's factor, weight decay included. That is
    not what scaled gradients do: Adam and its like divide by the size of the gradients.

    Args:
        optimizer: not used yet; or a name that Keras knows.
        model: a task model; see `kerasvision.training.stages`.
        decay: each stage has `decay` times the learning rate of the one above it; the head has the whole.
        factors: tap, "head" or layer -> its share of the learning rate, in place of what `decay` gives it.

    Returns:
        For `model.compile`. It is saved and loaded with the model.

    Raises:
        RecipeError: a name that is no tap and no layer with weights, or a factor that is not positive.
        ValueError: the optimizer has been used, or is a shell around others.
    """
    optimizer = keras.optimizers.get(optimizer)
    if optimizer.built:
        raise ValueError(f"{type(optimizer).__name__} has been used already; give a fresh one.")
    kind: Any = type(optimizer)
    if not _updates(kind):
        raise ValueError(f"{kind.__name__} only holds other optimizers; give the one inside it, and wrap the result.")
    shares = layer_factors(model, decay, factors)
    found = layerwise_class(kind).from_config({**optimizer.get_config(), "layer_factors": shares})
    # What was excluded from weight decay is no part of an optimizer's config (Keras 3.15).
    vars(found).update({key: value for key, value in vars(optimizer).items() if key.startswith("_exclude_from")})
    return found


class LayerwiseRates:
    """Put in front of an optimizer's class: multiplies the learning rate wherever the optimizer uses it.

    Args:
        layer_factors: layer -> share of the learning rate; 1 for the others.
        **arguments: of the optimizer.
    """

    def __init__(self, *, layer_factors: Mapping[str, float], **arguments: Any) -> None:
        super().__init__(**arguments)
        self._layer_factors = tuple(layer_factors.items())
        self._share = 1.0

    def update_step(self, gradient: Any, variable: Any, learning_rate: Any) -> None:
        """One variable's step, at its own learning rate."""
        super().update_step(gradient, variable, learning_rate * self._factor(variable))  # type: ignore[misc]

    def get_config(self) -> dict[str, Any]:
        """The optimizer's, and the factors."""
        return {**super().get_config(), "layer_factors": dict(self._layer_factors)}  # type: ignore[misc]

    def _apply_weight_decay(self, variables: list[Any]) -> None:
        # The share is set, never restored: under a strategy the replicas take turns here.
        for share in dict.fromkeys(map(self._factor, variables)):
            self._share = share
            super()._apply_weight_decay([v for v in variables if self._factor(v) == share])  # type: ignore[misc]
        self._share = 1.0

    def _get_current_learning_rate(self) -> Any:
        rate = super()._get_current_learning_rate()  # type: ignore[misc]
        return rate if self._share == 1 else rate * self._share

    def _factor(self, variable: Any) -> float:
        # A variable of one device knows no path; its twin in the model does.
        path = self._trainable_variables[self._get_variable_index(variable)].path  # type: ignore[attr-defined]
        return dict(self._layer_factors).get(path.split("/")[0], 1.0)


@functools.cache
def layerwise_class(optimizer: type[keras.optimizers.Optimizer]) -> Any:
    """The layer-wise kind of an optimizer's class, known to `keras.saving`."""
    kind = type(f"Layerwise{optimizer.__name__}", (LayerwiseRates, optimizer), {"__module__": __name__})
    return keras.saving.register_keras_serializable("kerasvision")(kind)


def _updates(optimizer: type) -> bool:
    return optimizer.update_step is not keras.optimizers.Optimizer.update_step  # type: ignore[attr-defined]


# Those of Keras itself: a saved model can then be loaded wherever this module was imported.
for _class in vars(keras.optimizers).values():
    if isinstance(_class, type) and issubclass(_class, keras.optimizers.Optimizer) and _updates(_class):
        layerwise_class(_class)
