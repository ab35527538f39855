"""Raw outputs that are a choice among boxes: which of them come first, and which come at all.

Where two scores are nearly equal, or two boxes overlap by nearly the limit, rounding decides, and whatever lies behind
in the list moves. Two nets that compute the same can therefore be compared number by number only where both go on with
the same choice. A layer whose result is such a list says so by an attribute `chooses`.
"""

from typing import Any


def choices_of(net: Any) -> tuple[str, ...]:
    """Names of the raw outputs that are choices.

    Args:
        net: functional model of Keras 3 or tf_keras with a dict of raw outputs.
    """
    return tuple(name for name, tensor in net.output.items() if getattr(tensor._keras_history[0], "chooses", False))


def net_of_choices(net: Any) -> Any:
    """The net with its choices given, on shared layers.

    Args:
        net: as in `choices_of`.

    Returns:
        [*inputs, *choices] -> the other raw outputs.
    """
    names = choices_of(net)
    others = {name: tensor for name, tensor in net.output.items() if name not in names}
    return type(net)([*net.inputs, *(net.output[name] for name in names)], others)


def choice_of_outputs(net: Any, name: str) -> tuple[tuple[str, ...], Any] | None:
    """How a choice follows from other raw outputs.

    Args:
        net: as in `choices_of`.
        name: of the choice.

    Returns:
        Names of those outputs, and a model on shared layers: [those outputs] -> the choice. None where it is made of
        more than outputs.
    """
    known = {id(tensor): given for given, tensor in net.output.items()}
    made_of: set[str] = set()
    seen, waiting = {id(net.output[name])}, [net.output[name]]
    while waiting:
        operation, index, _ = waiting.pop()._keras_history
        call = operation._inbound_nodes[index]
        if call.is_input:
            return None
        for tensor in call.keras_inputs if hasattr(call, "keras_inputs") else call.input_tensors:
            if id(tensor) in known:
                made_of.add(known[id(tensor)])
            elif id(tensor) not in seen:
                seen.add(id(tensor))
                waiting.append(tensor)
    names = tuple(given for given in net.output if given in made_of)
    return names, type(net)([net.output[given] for given in names], net.output[name])
