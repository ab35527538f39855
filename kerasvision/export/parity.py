"""The file is run again and compared with the model it came from."""

from collections.abc import Callable, Collection
from typing import Any

import numpy as np
import tensorflow as tf

from kerasvision.errors import ExportError

# Measured: float32 files of the package's models differ by 2e-6 at most (sums in another order); 1e-4 is a wrong op.
FLOAT_MAX = 1e-4
# Residual nets of 26 convolutions reach a mean of 1.2 steps; above 1.5 something is wrong. The steps are those of the
# net's raw output: decoding may turn one step of it into several of the file's (softmax of two classes: up to R / 4
# steps of a probability, where R is the range of the logits).
MEAN_LSB = 1.5
# Share of indices, such as classes of pixels, that may differ: where two logits are equal but for rounding.
INDEX_SHARE = 1e-3

Outputs = dict[str, np.ndarray]


def compare(
    file: Outputs,
    model: Outputs,
    quantization: dict[str, tuple[float, int] | None],
    indices: Collection[str] = (),
) -> dict[str, Any]:
    """Absolute differences of two sets of outputs.

    Args:
        file: name -> [N, ...], what the file says.
        model: the same, what the model says.
        quantization: name -> (scale, zero point) of the file's integer outputs.
        indices: names of outputs that are equal or not: their difference is 0 or 1, its mean the share that differs.

    Returns:
        name -> {"max", "mean", "p99", "lsb": the same in steps of the integer output, or None}.
    """
    result: dict[str, Any] = {}
    for name, wanted in model.items():
        difference = np.abs(file[name].astype(np.float64) - wanted.astype(np.float64))
        difference = np.minimum(difference, 1) if name in indices else difference
        steps = quantization.get(name)
        figures = figures_of(difference)
        lsb = {key: value / steps[0] for key, value in figures.items()} if steps else None
        result[name] = {**figures, "lsb": lsb}
    return result


def figures_of(difference: np.ndarray) -> dict[str, float]:
    """Largest, mean and 99th percentile of absolute differences."""
    return {
        "max": float(difference.max()),
        "mean": float(difference.mean()),
        "p99": float(np.percentile(difference, 99)),
    }


def carried_steps(
    decode: Callable[[Outputs], Outputs],
    raw: Outputs,
    steps: dict[str, float],
    quantization: dict[str, tuple[float, int] | None],
    indices: Collection[str] = (),
) -> dict[str, float]:
    """How many steps of a file's output one step of the net's raw outputs becomes, on average.

    Args:
        decode: the task's.
        raw: name -> [N, ...], raw outputs of the fake-quantized net.
        steps: name -> what one step of a raw output is worth.
        quantization: name -> (scale, zero point) of the file's integer outputs.
        indices: names of outputs that are equal or not.

    Returns:
        Name of the decoded output -> steps, 1 at least; of indices the share that changes.
    """
    signs = np.random.default_rng(0)
    moved = {
        name: (values + steps.get(name, 0.0) * signs.choice((-1.0, 1.0), values.shape)).astype(values.dtype)
        for name, values in raw.items()
    }
    before, after = decode(raw), decode(moved)
    result = {name: float(np.mean(np.asarray(before[name]) != np.asarray(after[name]))) for name in indices}
    for name, scale in quantization.items():
        if scale is not None:
            difference = np.abs(np.asarray(after[name]) - np.asarray(before[name]))
            result[name] = max(1.0, float(difference.mean()) / scale[0])
    return result


def check_parity(
    parity: dict[str, Any],
    integer: bool,
    what: str,
    carried: dict[str, float] | None = None,
    exact: bool = True,
    indices: Collection[str] = (),
) -> None:
    """Refuse a file that does not do what the model does.

    Float files must agree to FLOAT_MAX, integer files with the fake-quantized model to MEAN_LSB steps of the net's raw
    output on average, `carried` through the decoding. What float16, dynamic range and 16-bit activations cost is the
    net's own affair: it is reported, and refused only where the file gives no numbers at all.

    Args:
        parity: from `compare`.
        integer: whether the file gives bytes.
        what: the file in words.
        carried: from `carried_steps`.
        exact: whether the file should compute what the model computes.
        indices: names of outputs that are equal or not. A share of INDEX_SHARE may differ, and of an integer file what
            MEAN_LSB steps of the raw output change, and the rounding of what decoding makes of it.

    Raises:
        ExportError: it says by how much.
    """
    for name, figures in parity.items():
        if not np.isfinite(figures["max"]):
            raise ExportError(f'{what}: the output "{name}" is not finite where the model gives numbers.')
        if name in indices:
            share = max(INDEX_SHARE, 2 * MEAN_LSB * (carried or {}).get(name, 0.0))
            if exact and figures["mean"] > share:
                raise ExportError(
                    f'{what} differs from the model: {100 * figures["mean"]:.2f} % of "{name}", allowed '
                    f"{100 * share:.2f} %. `export --explain` shows where an int8 file begins to differ; give more "
                    "calibration images or fine-tune longer, so that the ranges settle."
                )
            continue
        if exact and not integer and figures["max"] > FLOAT_MAX:
            raise ExportError(
                f'{what} differs from the model: output "{name}" by {figures["max"]:.2g} at most, allowed {FLOAT_MAX}. '
                "A layer was converted wrongly; please report it."
            )
        allowed = MEAN_LSB * (carried or {}).get(name, 1.0)
        if exact and integer and figures["lsb"]["mean"] > allowed:
            raise ExportError(
                f'{what} differs from the fake-quantized model: output "{name}" by {figures["lsb"]["mean"]:.2f} steps '
                f"of its 8 bits on average, allowed {allowed:.2f}. `export --explain` shows where that begins; give "
                "more calibration images or fine-tune longer, so that the ranges settle, or leave the layers at fault "
                "in float."
            )


def in_batches(function: Callable[[Any], Any], inputs: Any, size: int = 32) -> Outputs:
    """Run a graph function over many inputs, the last batch filled up so that it is traced once.

    Args:
        function: of one batch.
        inputs: array [N, ...], or name -> such an array.
        size: of a batch.

    Returns:
        name -> [N, ...].
    """
    results: list[dict[str, np.ndarray]] = []
    count = len(tf.nest.flatten(inputs)[0])
    for start in range(0, count, size):
        index = np.minimum(np.arange(start, start + size), count - 1)
        answer = function(tf.nest.map_structure(lambda values, index=index: values[index], inputs))
        results.append({name: np.asarray(value)[: count - start] for name, value in answer.items()})
    return {name: np.concatenate([result[name] for result in results]) for name in results[0]}
