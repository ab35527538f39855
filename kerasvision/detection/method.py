"""What a family of detectors adds to the task: its losses, and what its raw outputs stand for."""

import abc
from collections.abc import Callable, Sequence
from typing import Any

from keras import ops

from kerasvision.boxes.arrays import gather_rows, ratio
from kerasvision.boxes.coding import decode_deltas
from kerasvision.boxes.grid import Grid

Tensors = dict[str, Any]


class Method(abc.ABC):
    """How one family of detectors learns and reads its raw outputs, in `keras.ops` alone.

    A builder of the kind "detection" makes one for its net and gives it to the task with `DetectionTask.bind`.
    """

    loss_names: tuple[str, ...]
    # Pixels of the image for one of the masks that the losses take, each way; None where they take no masks.
    mask_stride: int | None = None

    @abc.abstractmethod
    def losses(self, targets: Tensors, outputs: Tensors) -> Tensors:
        """What is trained, for each image by itself.

        Args:
            targets: "boxes" float32 [B, M, 4] xyxy in pixels, "classes" int [B, M], "valid" and "crowd" bool [B, M];
                masks where the data has them.
            outputs: raw outputs of the net.

        Returns:
            One tensor [B] for each of `loss_names`. An image is divided by what it holds itself, not by what its
            batch holds: the loss does not depend on how a batch is spread over devices.
        """

    @abc.abstractmethod
    def candidates(self, outputs: Tensors) -> tuple[Any, Any]:
        """All boxes with their scores, before suppression.

        Args:
            outputs: raw outputs of the net.

        Returns:
            (xyxy float32 [B, N, 4] in pixels, scores of the classes in 0..1, float32 [B, N, K]). In place of the boxes
            a function of indices int32 [B, C] that gives [B, C, 4]: where there are many thousands, decoding only
            the few hundred that are compared saves most of the decoding's time.
        """

    def details(self, outputs: Tensors, found: Tensors) -> Tensors:
        """Further predictions of what was found, such as masks.

        Args:
            outputs: raw outputs of the net.
            found: "boxes" xyxy [B, D, 4] in pixels, "scores", "classes", "count", and "index" int32 [B, D], which of
                the candidates each is.

        Returns:
            name -> [B, D, ...]; nothing by default.
        """
        return {}


def per_positive(values: Any, positive: Any) -> Any:
    """Sum of an image's values over the number of its positives, or over 1 where it has none.

    Args:
        values: [B, A], already 0 where they do not count.
        positive: [B, A], bool or the weight of each.

    Returns:
        [B].
    """
    return ops.sum(values, axis=1) / ops.maximum(ops.sum(ops.cast(positive, "float32"), axis=1), 1.0)


def mean_over(values: Any, chosen: Any) -> Any:
    """Mean of an image's values where they are chosen, 0 where none is: [B, A] and bool [B, A] -> [B]."""
    chosen = ops.cast(chosen, "float32")
    return ratio(ops.sum(values * chosen, axis=1), ops.sum(chosen, axis=1))


def best_of_place(scores: Any, grid: Grid) -> Any:
    """Scores with 0 for the anchors that are not the best of their place, for each class by itself.

    Where every anchor that overlaps an object learns it, a dozen of them find it. What is compared by the suppression
    is a fixed number, which the rivals of a few clear objects would fill: faint objects would never be looked at.

    Args:
        scores: [B, A, K].
        grid: the A anchors.

    Returns:
        [B, A, K]; equal ones of a place all stay.
    """
    parts, start = [], 0
    for places, anchors in grid.places:
        own = scores[:, start : start + places * anchors]
        start += places * anchors
        table = ops.reshape(own, (-1, places, anchors, scores.shape[-1]))
        best = ops.cast(table >= ops.max(table, axis=2, keepdims=True), "float32")
        parts.append(ops.reshape(table * best, (-1, *own.shape[1:])))
    return ops.concatenate(parts, axis=1) if len(parts) > 1 else parts[0]


def chosen_boxes(deltas: Any, anchors: Any, variances: Sequence[float]) -> Callable[[Any], Any]:
    """What decodes the boxes of some anchors, for `Method.candidates`.

    Args:
        deltas: of all anchors, [B, A, 4], see `kerasvision.boxes.coding`.
        anchors: xyxy [A, 4].
        variances: what the deltas are divided by.

    Returns:
        int32 [B, C] -> xyxy float32 [B, C, 4].
    """

    def boxes(index: Any) -> Any:
        chosen = ops.take(ops.cast(anchors, "float32"), index, axis=0)
        return decode_deltas(gather_rows(deltas, index), chosen, variances)

    return boxes
