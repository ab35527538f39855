"""A detector's file beside its model: raw outputs number by number, detections each with its partner.

Where two scores are nearly equal, or a box overlaps a better one by nearly the limit, rounding decides which detection
comes first and which is suppressed, and whatever lies behind in the list moves. So slots cannot be compared.

The same goes for boxes that a net chooses inside, such as proposals. Each of them must have a partner among those that
the model chooses from the file's own raw outputs; and what the file makes of them is compared number by number with
what the model makes of the same boxes.
"""

import dataclasses
from pathlib import Path
from typing import Any

import numpy as np
import tensorflow as tf

from kerasvision.boxes.overlap import pairwise_iou
from kerasvision.choices import choice_of_outputs, choices_of
from kerasvision.errors import ExportError
from kerasvision.export.engines import Engine, open_engine
from kerasvision.export.join import show_raw_outputs
from kerasvision.export.onnx import show_raw_outputs_of_onnx
from kerasvision.export.parity import FLOAT_MAX, Outputs, check_parity, compare, figures_of, in_batches
from kerasvision.export.saved_model import decode_graph, graph_of_choices, net_graph

# Share of detections that may be without a partner, beside twice what noise of the size of rounding leaves without; and
# of a partner's mask, that may differ: a sample at the border of the image may fall to either side.
ALONE = 0.01
# Rounding in net and decoding, and in the decoding alone, as shares of the largest value of a raw output's channel.
NET_NOISE, DECODE_NOISE = 1e-5, 1e-6
# A partner overlaps so much.
NEAR = 0.5


@dataclasses.dataclass(frozen=True)
class Verdict:
    """What was found about a file.

    Args:
        parity: as of `parity.compare`: of the raw outputs where the file shows them, without chosen boxes, in steps of
            their 8 bits where the model says what a step is; of detections that have a partner with IoU >= 0.5.
        detections: {"file", "model": number of detections, "matched": share of the model's scores that have such a
            partner, "iou": mean of these pairs, "alone", "alone_allowed": share of the file's detections that the
            decoding of the file's own raw outputs, or where it does not show them of the model's, does not give}.
    """

    parity: dict[str, Any]
    detections: dict[str, float]


def check_detector(model: Any, engine: Engine, images: np.ndarray, scratch: Path, what: str, exact: bool) -> Verdict:
    """Refuse a file that does not find what the model finds.

    The raw outputs must be those of the model, for the boxes that the file has chosen, these boxes what the model would
    choose, and the detections what `decode` makes of the file's own raw outputs. Of a file that does not show its raw
    outputs, the detections must be those of the model.

    Args:
        model: TaskModel or QuantizedModel with a detector's task.
        engine: the opened file.
        images: pixels of 0..255, [N, H, W, C].
        scratch: folder for the file with its raw outputs shown.
        what: the file in words.
        exact: whether the file should compute what the model computes.

    Raises:
        ExportError: it says by how much.
    """
    pixels = np.clip(np.rint(images), 0, 255) if engine.input.dtype == "uint8" else images
    wanted = in_batches(tf.function(net_graph(model), autograph=False), pixels.astype(np.float32))
    decode = tf.function(decode_graph(model.task), autograph=False)
    reference, file = in_batches(lambda raw: decode(**raw), wanted), engine.run(images)
    shown = _show(engine, wanted, scratch)
    raw, expected, noise, figures = wanted, reference, NET_NOISE, {}
    if shown is not None:
        both = shown.run(images)
        raw, noise = {name: both[name] for name in wanted}, DECODE_NOISE
        expected = in_batches(lambda raw: decode(**raw), raw)
        figures = _check_raw(model, raw, _beside(model, pixels, raw, wanted), what, exact)
    alone = share_alone(file, expected)
    allowed = ALONE + 2 * share_alone(in_batches(lambda raw: decode(**raw), _moved(raw, noise)), expected)
    if (exact or shown is not None) and alone > allowed:
        raise ExportError(
            f"{what} does not find what the model finds: {alone:.1%} of the detections are without a partner of the "
            f"same class whose box and score differ by {FLOAT_MAX} at most, allowed {allowed:.1%}. The decoding was "
            "converted wrongly; please report it."
        )
    pairs, summary = _describe(file, reference)
    return Verdict({**figures, **pairs}, {**summary, "alone": alone, "alone_allowed": allowed})


def _show(engine: Engine, raw: Outputs, scratch: Path) -> Engine | None:
    """The file again, with its raw outputs among its outputs; None of a SavedModel."""
    target = scratch / f"shown.{engine.format}"
    if engine.format == "tflite":
        show_raw_outputs(engine.path, target)
    elif engine.format == "onnx":
        show_raw_outputs_of_onnx(engine.path, target, raw)
    else:
        return None
    return open_engine(target)


def _beside(model: Any, pixels: np.ndarray, raw: Outputs, wanted: Outputs) -> Outputs:
    """The model's raw outputs, where the net chooses boxes those for the file's boxes."""
    names = choices_of(model.net)
    if not names:
        return wanted
    graph = tf.function(graph_of_choices(model), autograph=False)
    given = {"image": pixels.astype(np.float32), **{name: raw[name] for name in names}}
    return in_batches(lambda given: graph(**given), given)


def _moved(raw: Outputs, noise: float) -> Outputs:
    """Raw outputs after as much rounding."""
    return {
        name: values + noise * np.abs(values).max(axis=tuple(range(values.ndim - 1))) * _signs(values)
        for name, values in raw.items()
    }


def _signs(values: np.ndarray) -> np.ndarray:
    """-1 or 1 at random, the same for equal values: rounding does not part what is equal, of which int8 has much."""
    mixed = values.astype(np.float32).view(np.uint32) * np.uint32(2654435761)
    return np.where(mixed >> np.uint32(31), np.float32(1), np.float32(-1))


def _check_raw(model: Any, file: Outputs, wanted: Outputs, what: str, exact: bool) -> dict[str, Any]:
    steps: dict[str, float] = getattr(model, "output_steps", dict)()
    figures = compare(file, wanted, {name: (step, 0) for name, step in steps.items()})
    for name, values in wanted.items():
        scale = 1.0 if name in steps else max(1.0, float(np.abs(values).max()))
        scaled = {**figures[name], "max": figures[name]["max"] / scale}
        check_parity({name: scaled}, name in steps, what, exact=exact)
    for name in choices_of(model.net) if exact else ():
        _check_choice(model.net, name, file, what)
    return figures


def _check_choice(net: Any, name: str, file: Outputs, what: str) -> None:
    made = choice_of_outputs(net, name)
    if made is None:
        return  # Of a layer that was left in float, the file shows what its 8 bits hold, and the net goes on with more.
    names, choose = made

    def chosen(outputs: Outputs) -> np.ndarray:
        graph = tf.function(lambda given: {name: choose(given, training=False)}, autograph=False)
        return in_batches(graph, [outputs[each] for each in names])[name]

    expected = chosen(file)
    alone = share_of_rows_alone(file[name], expected)
    allowed = ALONE + 2 * share_of_rows_alone(chosen(_moved(file, DECODE_NOISE)), expected)
    if alone > allowed:
        raise ExportError(
            f'{what} does not choose what the model chooses: {alone:.1%} of "{name}" are without a partner of the same '
            f"numbers among what the model makes of the file's own {', '.join(names)}, allowed {allowed:.1%}. A layer "
            "was converted wrongly; please report it."
        )


def share_of_rows_alone(file: np.ndarray, model: np.ndarray) -> float:
    """Share of all rows, of file and model, without a partner of equal numbers (FLOAT_MAX of a column's largest).

    Args:
        file: [N, D, V].
        model: [N, D, V].
    """
    scale = np.maximum(1.0, np.abs(model).max(axis=(0, 1)))
    paired = 0
    for one, other in zip(file / scale, model / scale, strict=True):
        paired += len(_pair(np.abs(other[:, None] - one[None]).max(axis=-1), FLOAT_MAX))
    return 1 - paired / (model.shape[0] * model.shape[1])


def share_alone(file: Outputs, model: Outputs) -> float:
    """Share of all detections, of file and model, that have no partner of equal class, box, score (FLOAT_MAX) and mask.

    Args:
        file: "boxes" [N, D, 4] as shares of the image, "scores", "classes" [N, D], "count" [N], masks [N, D, ...].
        model: the same.
    """
    total = paired = 0
    for one, other in zip(_images(file), _images(model), strict=True):
        apart = np.maximum(_distance(other, one), np.abs(other["scores"][:, None] - one["scores"][None]))
        total += len(one["scores"]) + len(other["scores"])
        paired += sum(_agree(other, one, *pair) for pair in _pair(_of_one_class(apart, other, one), FLOAT_MAX))
    return 1 - 2 * paired / total if total else 0.0


def _describe(file: Outputs, model: Outputs) -> tuple[dict[str, Any], dict[str, float]]:
    """Differences of detections that lie at the same place, and how many do."""
    boxes, scores, overlaps, weights = [np.zeros((0, 4))], [np.zeros(0)], [np.zeros(0)], [np.zeros(0)]
    for one, other in zip(_images(file), _images(model), strict=True):
        overlap = pairwise_iou(other["boxes"], one["boxes"])
        # Boxes that were cut to nothing at the image's border overlap nothing, not even themselves.
        overlap = np.where(_distance(other, one) <= FLOAT_MAX, 1.0, overlap)
        pairs = _pair(_of_one_class(1 - overlap, other, one), 1 - NEAR)
        left, right = np.array(pairs, int).reshape(-1, 2).T
        boxes.append(np.abs(other["boxes"][left] - one["boxes"][right]))
        scores.append(np.abs(other["scores"][left] - one["scores"][right]))
        overlaps.append(overlap[left, right])
        weights.append(other["scores"][left])
    difference = {"boxes": np.concatenate(boxes), "scores": np.concatenate(scores)}
    whole = float(sum(image["scores"].sum() for image in _images(model)))
    found = np.concatenate(overlaps)
    return {name: {**figures_of(values), "lsb": None} for name, values in difference.items() if values.size}, {
        "file": float(file["count"].sum()),
        "model": float(model["count"].sum()),
        "matched": float(np.concatenate(weights).sum()) / whole if whole else 1.0,
        "iou": float(found.mean()) if found.size else 1.0,
    }


def _distance(first: Outputs, second: Outputs) -> np.ndarray:
    """Largest difference of corners, of each with each."""
    return np.abs(first["boxes"][:, None] - second["boxes"][None]).max(axis=-1)


def _images(outputs: Outputs) -> list[Outputs]:
    """Detections of each image, without the empty slots behind them."""
    counts = np.rint(outputs["count"]).astype(int)
    return [
        {name: values[index, :count].astype(np.float64) for name, values in outputs.items() if name != "count"}
        for index, count in enumerate(counts)
    ]


def _agree(first: Outputs, second: Outputs, row: int, column: int) -> bool:
    """Whether two detections have nearly the same masks."""
    pairs = ((first[name][row], second[name][column]) for name in first)
    return all((np.abs(one - other) > FLOAT_MAX).mean() <= ALONE for one, other in pairs if one.ndim > 1)


def _of_one_class(apart: np.ndarray, first: Outputs, second: Outputs) -> np.ndarray:
    """The distances, infinite between different classes."""
    return np.where(first["classes"][:, None] == second["classes"][None], apart, np.inf)


def _pair(apart: np.ndarray, limit: float) -> list[tuple[int, int]]:
    """Each row with the nearest column that is not farther than that, and still free.

    Args:
        apart: distances [rows, columns], which are changed.
        limit: the largest.
    """
    pairs = []
    for row in range(len(apart)):
        column = int(apart[row].argmin()) if apart.shape[1] else -1
        if column >= 0 and apart[row, column] <= limit:
            pairs.append((row, column))
            apart[:, column] = np.inf
    return pairs
