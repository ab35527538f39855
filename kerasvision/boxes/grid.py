"""Anchors on the grids of feature maps, as NumPy constants; one row an anchor, in the order of a head's outputs.

Order: level, row, column, anchor of the cell. It is that of [B, H, W, K * F] reshaped to [B, H * W * K, F] and
concatenated over the levels. How well anchors fit a data set: `kerasvision.boxes.measure_anchors`.
"""

import dataclasses
import itertools
import math
from collections.abc import Sequence

import numpy as np

RATIOS = (0.5, 1.0, 2.0)
RETINANET_SCALES = (1.0, 2 ** (1 / 3), 2 ** (2 / 3))
# Width and height in pixels of each level's anchors, k-means of COCO at 416 (Redmon & Farhadi, 2018).
YOLOV3_SIZES = (
    ((10, 13), (16, 30), (33, 23)),
    ((30, 61), (62, 45), (59, 119)),
    ((116, 90), (156, 198), (373, 326)),
)


@dataclasses.dataclass(frozen=True, eq=False)
class Grid:
    """Anchors of all levels, one below the other.

    Args:
        boxes: xyxy float32 [A, 4] in pixels.
        strides: side of each anchor's cell, float32 [A] in pixels.
    """

    boxes: np.ndarray
    strides: np.ndarray

    def __len__(self) -> int:
        return len(self.boxes)

    @property
    def centers(self) -> np.ndarray:
        """float32 [A, 2] in pixels."""
        return (self.boxes[:, :2] + self.boxes[:, 2:]) / 2

    @property
    def places(self) -> list[tuple[int, int]]:
        """(places, anchors at each of them) of neighbouring places that have as many, from the first anchor on."""
        where = np.column_stack([self.centers, self.strides])
        firsts = np.flatnonzero((np.abs(np.diff(where, axis=0)) > 0.01).any(axis=1)) + 1
        counts = np.diff([0, *firsts, len(self)])
        return [(len(list(group)), int(count)) for count, group in itertools.groupby(counts)]


def map_shapes(image_size: tuple[int, int], strides: Sequence[int]) -> list[tuple[int, int]]:
    """(rows, columns) of the feature maps of "same" padded nets.

    Args:
        image_size: (H, W) in pixels.
        strides: of the levels, in pixels.

    Returns:
        One shape a level, rounded up.
    """
    return [(math.ceil(image_size[0] / stride), math.ceil(image_size[1] / stride)) for stride in strides]


def anchor_sizes(size: float, scales: Sequence[float] = (1.0,), ratios: Sequence[float] = RATIOS) -> np.ndarray:
    """Sizes of every scale in every aspect ratio, with the area of the square.

    Args:
        size: side of the square of scale 1, in pixels.
        scales: factors.
        ratios: height / width.

    Returns:
        float64 [len(scales) * len(ratios), 2] width and height; the ratios of the first scale come first.
    """
    return np.array(
        [(size * scale / math.sqrt(ratio), size * scale * math.sqrt(ratio)) for scale in scales for ratio in ratios]
    )


def make_grid(
    shapes: Sequence[tuple[int, int]],
    strides: Sequence[float | tuple[float, float]],
    sizes: Sequence[Sequence[Sequence[float]] | np.ndarray],
) -> Grid:
    """Anchors of given sizes around the center of every cell of every level.

    Args:
        shapes: (rows, columns) of each level.
        strides: of each level, in pixels; (down, across) where they differ, whose geometric mean the grid keeps.
        sizes: of each level, [K, 2] width and height in pixels.

    Returns:
        The anchors.

    Raises:
        ValueError: the three differ in their number of levels, or a size is not above 0.
    """
    if not len(shapes) == len(strides) == len(sizes):
        raise ValueError(
            f"Expected shape, stride and sizes of every level, got {len(shapes)}, {len(strides)} and {len(sizes)}."
        )
    boxes, sides = [], []
    for (rows, columns), stride, level_sizes in zip(shapes, strides, sizes, strict=True):
        half = np.asarray(level_sizes, np.float64) / 2
        if half.ndim != 2 or half.shape[1] != 2 or not (half > 0).all():
            raise ValueError(f"Expected anchor sizes [K, 2] above 0, got {np.asarray(level_sizes).tolist()}.")
        down, across = np.broadcast_to(stride, 2)
        x, y = np.meshgrid((np.arange(columns) + 0.5) * across, (np.arange(rows) + 0.5) * down)
        # [rows, columns, 1, 2]
        centers = np.stack([x, y], axis=-1)[:, :, None]
        boxes.append(np.concatenate([centers - half, centers + half], axis=-1).reshape(-1, 4))
        sides.append(np.full(rows * columns * len(half), math.sqrt(down * across)))
    return Grid(np.concatenate(boxes).astype(np.float32), np.concatenate(sides).astype(np.float32))


def retinanet_grid(image_size: tuple[int, int], strides: Sequence[int] = (8, 16, 32, 64, 128)) -> Grid:
    """RetinaNet's nine anchors a cell, of 4 strides and more (Lin et al., 2017, arXiv:1708.02002).

    Args:
        image_size: (H, W) in pixels.
        strides: of P3..P7.

    Returns:
        The anchors; 201,600 for 800 x 1344 pixels.
    """
    sizes = [anchor_sizes(4 * stride, RETINANET_SCALES) for stride in strides]
    return make_grid(map_shapes(image_size, strides), strides, sizes)


def pyramid_grid(image_size: tuple[int, int], strides: Sequence[int] = (4, 8, 16, 32, 64)) -> Grid:
    """The RPN's anchors on a pyramid: 8 strides, in three ratios (Lin et al., 2017, arXiv:1612.03144).

    Args:
        image_size: (H, W) in pixels.
        strides: of P2..P6.

    Returns:
        The anchors, 32..512 pixels for the usual strides.
    """
    return make_grid(map_shapes(image_size, strides), strides, [anchor_sizes(8 * stride) for stride in strides])


def center_grid(image_size: tuple[int, int], strides: Sequence[int] = (8, 16, 32)) -> Grid:
    """One anchor a cell, the cell itself: the centers of anchor-free detectors.

    Args:
        image_size: (H, W) in pixels.
        strides: of the levels.

    Returns:
        The cells.
    """
    return make_grid(map_shapes(image_size, strides), strides, [[(stride, stride)] for stride in strides])


def yolov3_grid(
    image_size: tuple[int, int],
    sizes: Sequence[Sequence[Sequence[float]] | np.ndarray] = YOLOV3_SIZES,
    strides: Sequence[int] = (8, 16, 32),
) -> Grid:
    """YOLOv3's anchors, three a cell (Redmon & Farhadi, 2018, arXiv:1804.02767).

    Args:
        image_size: (H, W) in pixels.
        sizes: of each level, from fine to coarse, [K, 2] in pixels; `fit_anchors` finds those of a data set.
        strides: of the levels.

    Returns:
        The anchors; 10,647 for 416 x 416 pixels.
    """
    return make_grid(map_shapes(image_size, strides), strides, sizes)


def ssd_sizes(side: float, scales: Sequence[float], ratios: Sequence[Sequence[float]]) -> list[np.ndarray]:
    """Sizes of SSD's default boxes (Liu et al., 2016, arXiv:1512.02325).

    A level has a square of its scale, one of the geometric mean with the next scale, and each ratio lying and standing.

    Args:
        side: of the image, in pixels.
        scales: shares of the side, one more than there are levels.
        ratios: of each level, above 1.

    Returns:
        Of each level, float64 [2 + 2 * ratios, 2] width and height.

    Raises:
        ValueError: there is not one scale more than levels.
    """
    if len(scales) != len(ratios) + 1:
        raise ValueError(f"Expected {len(ratios) + 1} scales for {len(ratios)} levels, got {len(scales)}.")
    found = []
    for scale, following, level in zip(scales[:-1], scales[1:], ratios, strict=True):
        shapes = [each for ratio in level for each in (1 / ratio, ratio)]
        squares = anchor_sizes(side, (scale, math.sqrt(scale * following)), (1.0,))
        found.append(np.concatenate([squares, anchor_sizes(side, (scale,), shapes)]))
    return found


def ssd300_grid() -> Grid:
    """The 8,732 default boxes of SSD300."""
    ratios = ((2,), (2, 3), (2, 3), (2, 3), (2,), (2,))
    sizes = ssd_sizes(300, (0.1, 0.2, 0.37, 0.54, 0.71, 0.88, 1.05), ratios)
    return make_grid([(side, side) for side in (38, 19, 10, 5, 3, 1)], (8, 16, 32, 64, 100, 300), sizes)


def ssd512_grid() -> Grid:
    """The 24,564 default boxes of SSD512."""
    ratios = ((2,), (2, 3), (2, 3), (2, 3), (2, 3), (2,), (2,))
    sizes = ssd_sizes(512, (0.07, 0.15, 0.3, 0.45, 0.6, 0.75, 0.9, 1.05), ratios)
    return make_grid([(side, side) for side in (64, 32, 16, 8, 4, 2, 1)], (8, 16, 32, 64, 128, 256, 512), sizes)


def ssdlite_grid(
    image_size: tuple[int, int],
    shapes: Sequence[tuple[int, int]],
    scales: Sequence[float] | None = None,
    ratios: Sequence[float] = (2, 3),
) -> Grid:
    """SSD-Lite's default boxes for images of any size: equal cells that fill the image, all levels with all ratios.

    The scales are torchvision's (Sandler et al., 2018, arXiv:1801.04381, names none).

    Args:
        image_size: (H, W) in pixels.
        shapes: (rows, columns) of each level, from fine to coarse.
        scales: shares of the shorter side of the image, one more than there are levels; from 0.2 to 0.95 in even
            steps, then 1, when None.
        ratios: above 1; each lies and stands.

    Returns:
        The boxes; 3,234 for 320 x 320 pixels and strides from 16 to 512.

    Raises:
        ValueError: there is not one scale more than levels.
    """
    if scales is None:
        scales = [*np.linspace(0.2, 0.95, len(shapes)).tolist(), 1.0]
    height, width = image_size
    strides = [(height / rows, width / columns) for rows, columns in shapes]
    return make_grid(shapes, strides, ssd_sizes(min(image_size), scales, [ratios] * len(shapes)))
