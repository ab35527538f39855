"""Folding for deployment: batch normalization, padding, dropout and dead branches go, the outputs stay."""

import dataclasses

import keras
import numpy as np

from kerasvision.errors import FoldError
from kerasvision.export.saved_model import in_float32
from kerasvision.folding import Step, fold_graph, zero_branches
from kerasvision.task import TaskModel

# Largest difference between the model and the folded one, as a share of the largest value of the same tensor.
TOLERANCE = 1e-4


@dataclasses.dataclass(frozen=True)
class FoldReport:
    """What folding has done; as text, one line for each thing.

    Args:
        layers: (before, after), how many.
        parameters: (before, after), how many.
        normalizations: names of the batch normalizations that went into weights.
        left: names of the batch normalizations that stay, because folding them is not exact.
        paddings: names of the zero paddings that went into convolutions.
        identities: names of the layers, such as dropout, that do nothing in inference and were dropped.
        dead: names of the layers at the end of branches that only added zeros and were dropped.
        difference: the largest between the outputs on random pixels, as a share of the largest value of the output.
    """

    layers: tuple[int, int]
    parameters: tuple[int, int]
    normalizations: tuple[str, ...]
    left: tuple[str, ...]
    paddings: tuple[str, ...]
    identities: tuple[str, ...]
    dead: tuple[str, ...]
    difference: float

    def __str__(self) -> str:
        lines = [
            f"layers: {self.layers[0]:,} -> {self.layers[1]:,}",
            f"parameters: {self.parameters[0]:,} -> {self.parameters[1]:,}",
            f"folded: {len(self.normalizations)} batch normalizations ({len(self.left)} stay), "
            f"{len(self.paddings)} zero paddings",
            f"dropped: {len(self.identities)} identities, {len(self.dead)} dead branches",
            f"largest difference: {self.difference:.1e} of the largest output",
        ]
        return "\n".join([*lines, *(f"dead branch: {name}" for name in self.dead)])


def fold(model: TaskModel) -> TaskModel:
    """The same function in fewer layers, for deployment.

    Batch normalization goes into the layer with weights next to it, zero padding into the convolutions behind it
    where padding="same" is the same, dropout and other identities are dropped, and branches that only add zeros too.
    Layers stay where that is not exact: normalization between a sum and a ReLU, or one for each level behind a shared
    convolution, or behind a feature. `quantize` and `export` take the result as any model; so does `fit`, but there is
    no dropout and hardly any normalization left to train with. The model itself is not changed.

    Args:
        model: a trained model; what was trained in mixed precision is folded in float32.

    Returns:
        A model with the same task, preprocessing and features (but for those on dropped branches), and what was done
        as its `fold_report`, a FoldReport.

    Raises:
        TypeError: not a model of `create_model`.
        ValueError: the model is folded already.
        FoldError: the outputs differ; the first layer where they do is named.
    """
    if not isinstance(model, TaskModel):
        raise TypeError(f"fold expects a model made by kerasvision.create_model, got {type(model).__name__}.")
    if "folded" in model.get_config():
        raise ValueError(
            f"{model.name} is folded already. To fold it after more training, train the model it came from."
        )
    source = in_float32(model)
    dead = zero_branches(source)
    folding = fold_graph(source, dead)
    folded = folding.model
    folded.fold_report = FoldReport(
        layers=(len(source.layers), len(folded.layers)),
        parameters=(source.count_params(), folded.count_params()),
        normalizations=folding.normalizations,
        left=tuple(each.name for each in folded.layers if isinstance(each, keras.layers.BatchNormalization)),
        paddings=folding.paddings,
        identities=folding.identities,
        dead=tuple(dead),
        difference=_check(source, folded, folding.steps),
    )
    folded.fit_data = model.fit_data
    return folded


def _check(source: TaskModel, folded: TaskModel, steps: list[Step]) -> float:
    """The largest difference of the outputs, as a share of the largest value, on random pixels."""
    pixels = np.random.default_rng(0).uniform(0, 255, (2, *source.input_shape[1:])).astype("float32")
    expected, received = source(pixels, training=False), folded(pixels, training=False)
    # NumPy's maximum, because Python's may lose what is not a number.
    worst = float(np.max([_difference(expected[name], received[name]) for name in expected]))
    if worst <= TOLERANCE:
        return worst
    before = keras.Model(source.input, [step.before for step in steps])(pixels, training=False)
    after = keras.Model(folded.input, [step.after for step in steps])(pixels, training=False)
    differences = {step.name: _difference(*pair) for step, *pair in zip(steps, before, after, strict=True)}
    name = next((name for name, difference in differences.items() if not difference <= TOLERANCE), steps[-1].name)
    raise FoldError(
        f"The folded {source.name} computes something else: the outputs differ by {worst:.2g} of the largest value, "
        f'allowed is {TOLERANCE:g}. It begins at "{name}" ({differences[name]:.2g}); look there for weights or '
        "statistics of batch normalization that are not finite, or too large for 32 bits."
    )


def _difference(expected: object, received: object) -> float:
    """Largest difference, as a share of the largest expected value; not a number where one of them has such."""
    wanted, got = (np.float64(keras.ops.convert_to_numpy(values)) for values in (expected, received))
    with np.errstate(invalid="ignore"):
        return float(np.max(np.abs(wanted - got)) / (np.max(np.abs(wanted)) or 1.0))
