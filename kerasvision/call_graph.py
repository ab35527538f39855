"""A model's graph as the calls of its operations: who reads whom, and what may be taken out."""

from typing import Any

from keras import layers

from kerasvision.task import TaskModel


class Call:
    """One call of an operation, and what is folded into it.

    Args:
        node: Keras's record of the call.
    """

    def __init__(self, node: Any) -> None:
        self.operation = node.operation
        self.arguments = node.arguments
        self.operands = list(node.input_tensors)
        self.outputs = list(node.outputs)
        self.gives = self.outputs[0]  # The tensor of the unfolded graph that has the values of the first output.
        self.changes: dict[str, Any] = {}  # Of the layer's config.
        self.behind: list[layers.BatchNormalization] = []
        self.in_front: list[layers.BatchNormalization] = []

    @property
    def name(self) -> str:
        """Of the operation."""
        return self.operation.name

    def is_a(self, *kinds: type) -> bool:
        """Whether the operation is of one of these very classes, and infers whenever the model does."""
        return type(self.operation) in kinds and not self.arguments.kwargs.get("training")


class Graph:
    """The calls of a functional model, in order of execution, of which some are taken out.

    Args:
        model: functional, with one input and features under names.
    """

    def __init__(self, model: TaskModel) -> None:
        self.model = model
        depths = sorted(model._nodes_by_depth, reverse=True)
        self.calls = [Call(node) for depth in depths for node in model._nodes_by_depth[depth] if not node.is_input]
        made = {call.name: call.outputs[0] for call in self.calls}
        self.taps = {tap: made[layer] for tap, layer in model.taps.items() if layer in made}
        self._same: dict[int, Any] = {}

    def now(self, tensor: Any) -> Any:
        """The tensor that stands in the place of one whose layer was taken out."""
        while id(tensor) in self._same:
            tensor = self._same[id(tensor)]
        return tensor

    def inputs(self, call: Call) -> list[Any]:
        """The tensors a call takes."""
        return [self.now(operand) for operand in call.operands]

    def giver(self, tensor: Any) -> Call | None:
        """The call that gives a tensor; None for the image."""
        return next((call for call in self.calls if any(each is tensor for each in call.outputs)), None)

    def readers(self, tensor: Any) -> list[Call]:
        """The calls that take a tensor."""
        return [call for call in self.calls if any(each is tensor for each in self.inputs(call))]

    def is_kept(self, tensor: Any) -> bool:
        """Whether the model hands the tensor out, as an output or as a feature."""
        return any(self.now(each) is tensor for each in (*self.model.outputs, *self.taps.values()))

    def is_called_once(self, call: Call) -> bool:
        """Whether no other call has the same weights."""
        return sum(other.operation is call.operation for other in self.calls) == 1

    def take_out(self, call: Call) -> None:
        """Hand the call's first operand to those who took its result."""
        self._same[id(call.outputs[0])] = call.operands[0]
        self.calls.remove(call)

    def forget_unread(self) -> None:
        """Take out all calls on which no output depends."""
        needed = {id(self.now(tensor)) for tensor in self.model.outputs}
        for call in reversed(self.calls):
            if any(id(tensor) in needed for tensor in call.outputs):
                needed |= {id(tensor) for tensor in self.inputs(call)}
        self.calls = [call for call in self.calls if any(id(tensor) in needed for tensor in call.outputs)]
