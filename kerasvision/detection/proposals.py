"""Proposals of a region proposal network, as one layer of static shapes (Ren et al., 2015, arXiv:1506.01497)."""

from collections.abc import Sequence
from typing import Any

import keras
from keras import layers, ops

from kerasvision.boxes.arrays import gather_rows
from kerasvision.boxes.coding import decode_deltas
from kerasvision.boxes.formats import box_areas, clip_boxes
from kerasvision.boxes.grid import Grid, anchor_sizes, make_grid, map_shapes
from kerasvision.boxes.overlap import pairwise, shared_area

RPN_VARIANCES = (1.0, 1.0, 1.0, 1.0)
# Smaller ones hold no place of any map (square pixels).
_LEAST_AREA = 1.0


def survivors(boxes: Any, iou: float, rounds: int = 6, classes: Any = None) -> Any:
    """Which boxes greedy suppression would keep, found in rounds: a box stays unless a better one that stays is near.

    After r rounds all chains of up to r boxes, each removed by the one before, are settled. An even number of rounds
    keeps what the greedy rule keeps, and at most a few of longer chains beside it.

    Args:
        boxes: xyxy [B, C, 4], by falling score.
        iou: overlap from which the worse of two goes.
        rounds: even.
        classes: int [B, C]; boxes of different classes do not remove one another. None where there are none.

    Returns:
        float32 [B, C] of zeros and ones.
    """
    areas = box_areas(boxes)
    # IoU > t without a division: shared * (1 + t) > t * (area + area). Minus minus, see `kerasvision.boxes.arrays`.
    near = pairwise(shared_area, boxes, boxes) * ((1 + iou) / iou) > areas[:, :, None] - -areas[:, None, :]
    # From the boxes, or a file would hold comparisons of ranks as constants of [C, C].
    rank = ops.cumsum(ops.cast(areas >= 0, "int32"), axis=1)
    near = ops.logical_and(near, rank[:, :, None] < rank[:, None, :])
    if classes is not None:
        near = ops.logical_and(near, ops.equal(classes[:, :, None], classes[:, None, :]))
    removes = ops.cast(near, "float32")
    kept = ops.ones_like(areas)[:, None, :]
    for _ in range(rounds):
        kept = ops.cast(ops.matmul(kept, removes) < 0.5, "float32")
    return kept[:, 0]


def proposal_grid(
    image_size: Sequence[int],
    strides: Sequence[int] = (4, 8, 16, 32, 64),
    anchor_size: float = 8.0,
    scales: Sequence[float] = (1.0,),
    ratios: Sequence[float] = (0.5, 1.0, 2.0),
) -> Grid:
    """Anchors of a region proposal network on a pyramid (Lin et al., 2017, arXiv:1612.03144).

    Args:
        image_size: (H, W) in pixels.
        strides: of the levels.
        anchor_size: side of an anchor of scale 1, in strides; 8 gives 32..512 pixels on P2..P6.
        scales: of the anchors of one level.
        ratios: height / width of the anchors.

    Returns:
        The anchors.
    """
    sizes = [anchor_sizes(anchor_size * stride, scales, ratios) for stride in strides]
    return make_grid(map_shapes((image_size[0], image_size[1]), strides), strides, sizes)


@keras.saving.register_keras_serializable("kerasvision")
class Proposals(layers.Layer):
    """The boxes that a region proposal network finds most likely to hold an object, a fixed number of them.

    Of each level the `candidates` of the highest logits are decoded, cut at the image's border, and suppressed among
    themselves; the best of all levels are handed on. Where fewer are left, the best suppressed ones fill up the number:
    every proposal is a box of the image. No gradient goes through.

    Args:
        image_size: (H, W) in pixels.
        strides: of the levels.
        anchor_size: as in `proposal_grid`, like `scales` and `ratios`.
        scales: of the anchors of one level.
        ratios: height / width of the anchors.
        proposals: an image, N; all candidates where there are fewer.
        candidates: of each level.
        iou: overlap from which a proposal gives way to a better one.
        rounds: of the suppression, see `survivors`.
        **kwargs: of `keras.layers.Layer`.

    Raises:
        ValueError: no proposals or candidates, an overlap outside of 0..1, or an odd number of rounds.
    """

    # Pixels need more than 8 bits: in float, its result too.
    quantization = "float"
    # See `kerasvision.choices`.
    chooses = True

    def __init__(
        self,
        image_size: Sequence[int],
        strides: Sequence[int] = (4, 8, 16, 32, 64),
        anchor_size: float = 8.0,
        scales: Sequence[float] = (1.0,),
        ratios: Sequence[float] = (0.5, 1.0, 2.0),
        proposals: int = 300,
        candidates: int = 300,
        iou: float = 0.7,
        rounds: int = 6,
        **kwargs: Any,
    ) -> None:
        super().__init__(**kwargs)
        for name, count in (("proposals", proposals), ("candidates", candidates)):
            if count < 1:
                raise ValueError(f"{name} must be at least 1, got {count}.")
        if not 0 < iou <= 1:
            raise ValueError(f"iou must lie above 0 and not above 1, got {iou}. Take 0.7.")
        if rounds < 2 or rounds % 2:
            raise ValueError(f"rounds must be an even number from 2, got {rounds}. Take 6.")
        self.autocast = False
        self.image_size = (int(image_size[0]), int(image_size[1]))
        self.strides = tuple(strides)
        self.anchor_size = anchor_size
        self.scales = tuple(scales)
        self.ratios = tuple(ratios)
        self.proposals = proposals
        self.candidates = candidates
        self.iou = iou
        self.rounds = rounds

    def call(self, deltas: Any, logits: Any) -> Any:
        """Proposals by falling score.

        Args:
            deltas: "rpn_deltas" [B, A, 4].
            logits: "rpn_logits" [B, A, 1].

        Returns:
            xyxy float32 [B, N, 4] in pixels.
        """
        shapes = map_shapes(self.image_size, self.strides)
        per_place = len(self.scales) * len(self.ratios)
        counts = [rows * columns * per_place for rows, columns in shapes]
        deltas, logits = (ops.stop_gradient(ops.cast(values, "float32")) for values in (deltas, logits))
        if deltas.shape[1] != sum(counts):
            raise ValueError(
                f"Expected deltas of the {sum(counts)} anchors of a {self.image_size} image, got {deltas.shape[1]}."
            )
        boxes, ranks, first = [], [], 0
        for (_, columns), stride, count in zip(shapes, self.strides, counts, strict=True):
            own = slice(first, first + count)
            first += count
            found, rank = self._of_level(deltas[:, own], logits[:, own, 0], columns, stride)
            boxes.append(found)
            ranks.append(rank)
        ranked = ops.concatenate(ranks, axis=1)
        order = ops.top_k(ranked, min(self.proposals, ranked.shape[1]))[1]
        return gather_rows(ops.concatenate(boxes, axis=1), order)

    def _of_level(self, deltas: Any, logits: Any, columns: int, stride: int) -> tuple[Any, Any]:
        """The candidates of one level: boxes [B, C, 4], and ranks [B, C], those that stay before all others."""
        logits, order = ops.top_k(logits, min(self.candidates, logits.shape[1]))
        order = ops.cast(order, "int32")
        anchors = self._anchors(order, columns, stride)
        boxes = clip_boxes(decode_deltas(gather_rows(deltas, order), anchors, RPN_VARIANCES), self.image_size)
        stays = survivors(boxes, self.iou, self.rounds)
        real = ops.cast(box_areas(boxes) >= _LEAST_AREA, "float32")
        return boxes, ops.sigmoid(logits) + real + real * stays

    def _anchors(self, index: Any, columns: int, stride: int) -> Any:
        """Anchors of a level by their index, [B, C] -> xyxy [B, C, 4]; a file need not hold a table of all."""
        sizes = anchor_sizes(self.anchor_size * stride, self.scales, self.ratios)
        cell = ops.floor_divide(index, len(sizes))
        row = ops.floor_divide(cell, columns)
        places = ops.cast(ops.stack([cell - row * columns, row], axis=-1), "float32")
        half = ops.take(ops.cast(sizes / 2, "float32"), index - cell * len(sizes), axis=0)
        centers = (places + 0.5) * float(stride)
        return ops.concatenate([centers - half, centers + half], axis=-1)

    def get_config(self) -> dict[str, Any]:
        """The constructor's arguments."""
        return {
            **super().get_config(),
            **{name: list(getattr(self, name)) for name in ("image_size", "strides", "scales", "ratios")},
            **{name: getattr(self, name) for name in ("anchor_size", "proposals", "candidates", "iou", "rounds")},
        }
