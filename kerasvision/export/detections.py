"""A detector's file beside its model: raw outputs number by number, detections each with its partner.

Where two scores are nearly equal, or a box overlaps a better one by nearly the limit, rounding decides which detection
comes first and which is suppressed, and whatever lies behind in the list moves. So slots cannot be compared.
"""

import dataclasses
from pathlib import Path
from typing import Any

import numpy as np
import tensorflow as tf

from kerasvision.boxes.overlap import pairwise_iou
from kerasvision.errors import ExportError
from kerasvision.export.engines import Engine, open_engine
from kerasvision.export.join import show_raw_outputs
from kerasvision.export.onnx import show_raw_outputs_of_onnx
from kerasvision.export.parity import FLOAT_MAX, Outputs, check_parity, compare, figures_of, in_batches
from kerasvision.export.saved_model import decode_graph, net_graph

# Share of detections that may be without a partner, beside twice what noise of the size of rounding leaves without.
ALONE = 0.01
# Rounding in net and decoding, and in the decoding alone, as shares of the largest raw output.
NET_NOISE, DECODE_NOISE = 1e-5, 1e-6
# A partner overlaps so much.
NEAR = 0.5


@dataclasses.dataclass(frozen=True)
class Verdict:
    """What was found about a file.

    Args:
        parity: as of `parity.compare`: of the raw outputs where the file shows them, in steps of their 8 bits where the
            model says what a step is; of detections that have a partner with IoU >= 0.5 in the model.
        detections: {"file", "model": number of detections, "matched": share of the model's scores that have such a
            partner, "iou": mean of these pairs, "alone", "alone_allowed": share of the file's detections that the
            decoding of the file's own raw outputs, or where it does not show them of the model's, does not give}.
    """

    parity: dict[str, Any]
    detections: dict[str, float]


def check_detector(model: Any, engine: Engine, images: np.ndarray, scratch: Path, what: str, exact: bool) -> Verdict:
    """Refuse a file that does not find what the model finds.

    The raw outputs must be those of the model, and the detections what `decode` makes of the file's own raw outputs. Of
    a file that does not show its raw outputs, the detections must be those of the model.

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
        figures = _check_raw(raw, wanted, getattr(model, "output_steps", dict)(), what, exact)
    alone = share_alone(file, expected)
    moved = {name: values + noise * np.abs(values).max() * _signs(values) for name, values in raw.items()}
    allowed = ALONE + 2 * share_alone(in_batches(lambda raw: decode(**raw), moved), expected)
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


def _signs(values: np.ndarray) -> np.ndarray:
    """-1 or 1 at random, the same for equal values: rounding does not part what is equal, of which int8 has much."""
    mixed = values.astype(np.float32).view(np.uint32) * np.uint32(2654435761)
    return np.where(mixed >> np.uint32(31), np.float32(1), np.float32(-1))


def _check_raw(file: Outputs, model: Outputs, steps: dict[str, float], what: str, exact: bool) -> dict[str, Any]:
    figures = compare(file, model, {name: (step, 0) for name, step in steps.items()})
    for name, values in model.items():
        scale = 1.0 if name in steps else max(1.0, float(np.abs(values).max()))
        scaled = {**figures[name], "max": figures[name]["max"] / scale}
        check_parity({name: scaled}, name in steps, what, exact=exact)
    return figures


def share_alone(file: Outputs, model: Outputs) -> float:
    """Share of all detections, of file and model, that have no partner of equal class, box and score (FLOAT_MAX).

    Args:
        file: "boxes" [N, D, 4] as shares of the image, "scores", "classes" [N, D], "count" [N].
        model: the same.
    """
    total = paired = 0
    for one, other in zip(_images(file), _images(model), strict=True):
        apart = np.maximum(_distance(other, one), np.abs(other["scores"][:, None] - one["scores"][None]))
        total += len(one["scores"]) + len(other["scores"])
        paired += len(_pair(apart, other, one, FLOAT_MAX))
    return 1 - 2 * paired / total if total else 0.0


def _describe(file: Outputs, model: Outputs) -> tuple[dict[str, Any], dict[str, float]]:
    """Differences of detections that lie at the same place, and how many do."""
    boxes, scores, overlaps, weights = [np.zeros((0, 4))], [np.zeros(0)], [np.zeros(0)], [np.zeros(0)]
    for one, other in zip(_images(file), _images(model), strict=True):
        overlap = pairwise_iou(other["boxes"], one["boxes"])
        # Boxes that were cut to nothing at the image's border overlap nothing, not even themselves.
        overlap = np.where(_distance(other, one) <= FLOAT_MAX, 1.0, overlap)
        left, right = np.array(_pair(1 - overlap, other, one, 1 - NEAR), int).reshape(-1, 2).T
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
        {name: outputs[name][index, :count].astype(np.float64) for name in ("boxes", "scores", "classes")}
        for index, count in enumerate(counts)
    ]


def _pair(apart: np.ndarray, first: Outputs, second: Outputs, limit: float) -> list[tuple[int, int]]:
    """Each of the first with the nearest of the second that is of its class, not farther than that, and still free."""
    apart = np.where(first["classes"][:, None] == second["classes"][None], apart, np.inf)
    pairs = []
    for row in range(len(apart)):
        column = int(apart[row].argmin()) if apart.shape[1] else -1
        if column >= 0 and apart[row, column] <= limit:
            pairs.append((row, column))
            apart[:, column] = np.inf
    return pairs
