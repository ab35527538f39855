"""The stages of a net, from the image to the head, and what learns in them.

A net is cut at its taps: "P3" is what the tap P3 needs and P2 does not, and what no tap needs is the "head". The graph
decides, not the order in which layers were made.
"""

from collections.abc import Mapping
from typing import Any

import keras

from kerasvision.errors import RecipeError, closest
from kerasvision.task import TaskModel

HEAD = "head"


def stages(model: TaskModel) -> dict[str, tuple[str, ...]]:
    """Names of the layers of each stage, from the image to the head.

    Returns:
        {"P1": (layer, ...), ..., "head": (layer, ...)}; every layer stands in one of them. A tap that needs nothing
        beyond the one before it has an empty stage.
    """
    found: dict[str, tuple[str, ...]] = {}
    left = [layer.name for layer in model.layers]
    for tap, layer in model.taps.items():
        needed = _needed_by(model.get_layer(layer).output)
        found[tap] = tuple(name for name in left if name in needed)
        left = [name for name in left if name not in needed]
    return {**found, HEAD: tuple(left)}


def unfreeze(model: TaskModel, what: str = "all", *, freeze_batch_norm: bool = False) -> None:
    """Decide what learns, from the top of the net down; everything else is frozen. Call it before `compile`.

    Frozen batch normalization is in inference mode, and `fit` leaves its statistics as they are.

    Args:
        model: a task model.
        what: "all"; "none" (the head alone); a tap such as "P4": that stage and everything above it; or a layer: all
            that the layer does not depend on.
        freeze_batch_norm: freeze batch normalization everywhere but in the head: few images, or small batches, give
            worse statistics than the weights came with.

    Raises:
        RecipeError: no such tap or layer; the closest names are given.
    """
    frozen, head = frozen_layers(model, what), stages(model)[HEAD]
    for layer in model.layers:
        still = freeze_batch_norm and isinstance(layer, keras.layers.BatchNormalization) and layer.name not in head
        layer.trainable = layer.name not in frozen and not still


def frozen_layers(model: TaskModel, unfreeze: str) -> set[str]:
    """Names of the layers that do not learn.

    Args:
        model: a task model.
        unfreeze: as in `unfreeze`.

    Raises:
        RecipeError: no such tap or layer; the closest names are given.
    """
    parts = stages(model)
    order = {"all": 0, "none": len(parts) - 1, **{name: index for index, name in enumerate(parts)}}
    if unfreeze in order:
        return {layer for names in list(parts.values())[: order[unfreeze]] for layer in names}
    _check_known(model, unfreeze, ("all", "none", *parts))
    return _needed_by(model.get_layer(unfreeze).output) - {unfreeze}


def layer_factors(model: TaskModel, decay: float = 1.0, factors: Mapping[str, float] | None = None) -> dict[str, float]:
    """How much of the learning rate each layer gets.

    Args:
        model: a task model.
        decay: the head has the whole rate, and each stage below has `decay` times the rate of the one above it
            (Howard & Ruder, 2018, arXiv:1801.06146; Clark et al., 2020, arXiv:2003.10555).
        factors: tap, "head" or layer -> its share of the learning rate, in place of what `decay` gives it. A layer's
            own one goes before its stage's.

    Returns:
        Layer -> factor, for every layer with weights whose factor is not 1.

    Raises:
        RecipeError: a name that is no tap and no layer with weights, or a factor that is not positive.
    """
    factors = factors or {}
    parts = stages(model)
    weighted = {layer.name for layer in model.layers if layer.weights}
    for name, factor in {**factors, "decay": decay}.items():
        if not factor > 0:
            raise RecipeError(
                f'A share of the learning rate must be above 0, got {factor} for "{name}". What should not learn at '
                "all is frozen (unfreeze)."
            )
    for name in factors:
        _check_known(model, name, parts)
        if not weighted & {name, *parts.get(name, ())}:
            raise RecipeError(
                f'"{name}" has no weights, so a share of the learning rate changes nothing there. '
                f"Stages of {model.name}: {', '.join(parts)}."
            )
    found, share = {}, 1.0
    for stage, names in reversed(parts.items()):
        learning = [name for name in names if name in weighted]
        found.update({name: factors.get(name, factors.get(stage, share)) for name in learning})
        # A stage without weights is no step down.
        share *= decay if learning else 1.0
    return {name: factor for name, factor in found.items() if factor != 1}


def _check_known(model: TaskModel, name: str, others: Any) -> None:
    layers = [layer.name for layer in model.layers]
    if name not in (*others, *layers):
        near = closest(name, [*others, *layers])
        # Where nothing is near, a list of all the layers would bury the stages.
        hint = near if near.startswith(" Did") else ""
        raise RecipeError(f'{model.name} has no stage or layer "{name}"; stages: {", ".join(stages(model))}.{hint}')


def _needed_by(tensor: Any) -> set[str]:
    """Names of the layers that a tensor of the graph is computed by."""
    names: set[str] = set()
    waiting, seen = [tensor], set()
    while waiting:
        operation, index, _ = waiting.pop()._keras_history
        if (operation.name, index) not in seen:
            seen.add((operation.name, index))
            names.add(operation.name)
            waiting += operation._inbound_nodes[index].input_tensors
    return names
