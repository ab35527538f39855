"""Moves of a whole example: its image, boxes, masks, keypoints and segmentation go the same way.

Coordinates are continuous: (0, 0) is the image's top left corner, and the first pixel's centre lies at (0.5, 0.5).
"""

import math
from collections.abc import Callable

import cv2
import numpy as np

from kerasvision.augment.base import Example, with_image
from kerasvision.masks import PackedMasks

VOID = 255
OBJECT_KEYS = ("boxes", "classes", "crowd", "difficult", "keypoints")
Fill = int | tuple[int, int, int]

_INTERPOLATIONS = {"nearest": cv2.INTER_NEAREST, "linear": cv2.INTER_LINEAR, "cubic": cv2.INTER_CUBIC}
_BORDERS = {"constant": cv2.BORDER_CONSTANT, "edge": cv2.BORDER_REPLICATE, "reflect": cv2.BORDER_REFLECT_101}
# Nothing visible lies farther out, and sums of such numbers stay finite in float32.
_FAR = 1e6
_NEAREST_DEPTH = 1e-6
_EDGE_POINTS = 9
_ROUNDS = 5


def rotation(degrees: float, center: tuple[float, float]) -> np.ndarray:
    """Matrix [3, 3] that turns counter-clockwise about a point (x, y)."""
    angle = math.radians(degrees)
    cos, sin = math.cos(angle), math.sin(angle)
    turn = np.array([[cos, sin, 0.0], [-sin, cos, 0.0], [0.0, 0.0, 1.0]])
    return about(turn, center)


def translation(x: float, y: float) -> np.ndarray:
    """Matrix [3, 3] that moves by (x, y) pixels."""
    return np.array([[1.0, 0.0, x], [0.0, 1.0, y], [0.0, 0.0, 1.0]])


def scaling(x: float, y: float, center: tuple[float, float] = (0.0, 0.0)) -> np.ndarray:
    """Matrix [3, 3] that enlarges by two factors about a point (x, y)."""
    return about(np.diag([x, y, 1.0]), center)


def shearing(x: float, y: float, center: tuple[float, float] = (0.0, 0.0)) -> np.ndarray:
    """Matrix [3, 3] that moves x by a share of y, and y by a share of x, about a point (x, y)."""
    return about(np.array([[1.0, x, 0.0], [y, 1.0, 0.0], [0.0, 0.0, 1.0]]), center)


def about(matrix: np.ndarray, center: tuple[float, float]) -> np.ndarray:
    """The matrix [3, 3] with a point (x, y) as its origin."""
    return translation(*center) @ matrix @ translation(-center[0], -center[1])


def center_of(example: Example) -> tuple[float, float]:
    """The middle (x, y) of the image."""
    height, width = example["image"].shape[:2]
    return width / 2, height / 2


def warp(
    example: Example,
    matrix: np.ndarray,
    size: tuple[int, int] | None = None,
    *,
    fill: Fill = 0,
    interpolation: str = "linear",
    border: str = "constant",
) -> Example:
    """Moves an example by an affine or projective map; boxes become the smallest ones around their moved corners.

    Args:
        example: see `kerasvision.augment`.
        matrix: float [3, 3], input coordinates (x, y, 1) -> output coordinates.
        size: (H, W) of the result; the image's where None.
        fill: value of the pixels that come in.
        interpolation: of the image: "nearest", "linear" or "cubic". Masks and segmentation take the nearest pixel.
        border: "constant" is `fill`; "edge" and "reflect" continue the image, not its masks.

    Returns:
        The moved example. Boxes may stick out: see `keep_visible`.
    """
    height, width = size or example["image"].shape[:2]
    # OpenCV counts from the centre of the first pixel.
    pixels = translation(-0.5, -0.5) @ matrix @ translation(0.5, 0.5)
    affine = bool(np.all(matrix[2] == (0, 0, 1)))

    def change(planes: np.ndarray, how: int, value: Fill, outside: int) -> np.ndarray:
        # A fill has at most four numbers; more channels are filled with 0 here.
        values = value if isinstance(value, tuple) else (value,) * min(planes.shape[-1] if planes.ndim > 2 else 1, 4)
        if affine and how == cv2.INTER_LINEAR and planes.ndim == 3 and planes.shape[-1] == 3:
            # OpenCV 5 moves four channels in half the time of three.
            four = cv2.cvtColor(planes, cv2.COLOR_RGB2RGBA)
            moved = cv2.warpAffine(four, pixels[:2], (width, height), None, how, outside, (*values, 0))
            return cv2.cvtColor(moved, cv2.COLOR_RGBA2RGB)
        if affine:
            return cv2.warpAffine(planes, pixels[:2], (width, height), None, how, outside, values)
        return cv2.warpPerspective(planes, pixels, (width, height), None, how, outside, values)

    image = change(example["image"], _INTERPOLATIONS[interpolation], fill, _BORDERS[border])
    return move_rest(
        with_image(example, image),
        lambda planes, value: change(planes, cv2.INTER_NEAREST, value, cv2.BORDER_CONSTANT),
        lambda points: move_points(points, matrix),
    )


def move_rest(
    example: Example,
    change: Callable[[np.ndarray, int], np.ndarray],
    points: Callable[[np.ndarray], np.ndarray],
    edge_points: int = 2,
) -> Example:
    """Moves all of an example but its image.

    Args:
        example: with its new image.
        change: (planes uint8 [H, W] or [H, W, P], fill value) -> moved planes, without mixing pixels.
        points: float64 [N, 2] (x, y) -> moved points.
        edge_points: points on each side of a box that are moved; its corners are enough where sides stay straight.
    """
    moved = dict(example)
    if "segmentation" in example:
        moved["segmentation"] = change(example["segmentation"], VOID)
    if "masks" in example:
        moved["masks"] = example["masks"].move(lambda planes: change(planes, 0))
    if "boxes" in example:
        moved["boxes"] = _move_boxes(example["boxes"], points, edge_points)
    if "keypoints" in example:
        keypoints = example["keypoints"]
        places = points(keypoints[..., :2].reshape(-1, 2).astype(np.float64)).reshape(*keypoints.shape[:2], 2)
        places *= keypoints[..., 2:] > 0  # Absent ones stay at (0, 0, 0).
        moved["keypoints"] = np.concatenate([places, keypoints[..., 2:]], axis=-1).astype(np.float32)
    return moved


def move_points(points: np.ndarray, matrix: np.ndarray) -> np.ndarray:
    """Points [N, 2] (x, y) moved by a matrix [3, 3]; what a projection sends behind the viewer ends up far outside."""
    homogeneous = points @ matrix[:, :2].T + matrix[:, 2]
    depth = np.maximum(homogeneous[:, 2:], _NEAREST_DEPTH)
    return np.clip(homogeneous[:, :2] / depth, -_FAR, _FAR)


def _move_boxes(boxes: np.ndarray, points: Callable[[np.ndarray], np.ndarray], edge_points: int) -> np.ndarray:
    shares = np.linspace(0.0, 1.0, edge_points)
    # Points around the border of a unit box, [P, 2].
    around = np.concatenate([np.stack([a, b], axis=-1) for a, b in _sides(shares)])
    low, high = boxes[:, None, :2].astype(np.float64), boxes[:, None, 2:].astype(np.float64)
    moved = points((low * (1 - around) + high * around).reshape(-1, 2)).reshape(len(boxes), len(around), 2)
    return np.concatenate([moved.min(axis=1), moved.max(axis=1)], axis=-1).astype(np.float32)


def _sides(shares: np.ndarray) -> list[tuple[np.ndarray, np.ndarray]]:
    low, high = np.zeros_like(shares), np.ones_like(shares)
    return [(shares, low), (shares, high), (low, shares), (high, shares)]


def bend(example: Example, shift: np.ndarray, *, fill: Fill = 0, border: str = "constant") -> Example:
    """Moves every pixel by its own way.

    Args:
        example: see `kerasvision.augment`.
        shift: float32 [H, W, 2]; output pixel (x, y) shows input (x, y) + shift[y, x].
        fill: value of the pixels that come in.
        border: as in `warp`.
    """
    height, width = example["image"].shape[:2]
    map_x = shift[..., 0] + np.arange(width, dtype=np.float32)
    map_y = shift[..., 1] + np.arange(height, dtype=np.float32)[:, None]

    def change(planes: np.ndarray, how: int, value: Fill, outside: int) -> np.ndarray:
        values = value if isinstance(value, tuple) else (value,) * min(planes.shape[-1] if planes.ndim > 2 else 1, 4)
        return cv2.remap(planes, map_x, map_y, how, None, outside, values)

    def points(places: np.ndarray) -> np.ndarray:
        # Where a point p goes is the q with q + shift(q) = p.
        moved = places
        for _ in range(_ROUNDS):
            columns = np.clip(moved[:, 0].astype(int), 0, width - 1)
            rows = np.clip(moved[:, 1].astype(int), 0, height - 1)
            moved = places - shift[rows, columns]
        return moved

    image = change(example["image"], cv2.INTER_LINEAR, fill, _BORDERS[border])
    return move_rest(
        with_image(example, image),
        lambda planes, value: change(planes, cv2.INTER_NEAREST, value, cv2.BORDER_CONSTANT),
        points,
        _EDGE_POINTS,
    )


def mirror(example: Example, axis: int, keypoint_order: tuple[int, ...] | None = None) -> Example:
    """Mirrors left and right (axis 1) or top and bottom (axis 0).

    Args:
        example: see `kerasvision.augment`.
        axis: 0 or 1.
        keypoint_order: which old keypoint each new one is, as a left eye is a right eye in the mirror.
    """
    height, width = example["image"].shape[:2]
    scale, shift = ((-1.0, 1.0), (width, 0.0)) if axis else ((1.0, -1.0), (0.0, height))
    code = int(axis == 1)
    image = cv2.flip(example["image"], code)
    moved = move_rest(
        with_image(example, image),
        lambda planes, _: np.ascontiguousarray(np.flip(planes, axis)),
        lambda points: points * scale + shift,
    )
    if keypoint_order is not None and "keypoints" in moved:
        moved["keypoints"] = moved["keypoints"][:, list(keypoint_order)]
    return moved


def quarter_turns(example: Example, turns: int) -> Example:
    """Turns an example counter-clockwise by 90 degrees, `turns` times; the sides of the image change places."""
    turns %= 4
    if not turns:
        return example
    height, width = example["image"].shape[:2]
    places: dict[int, Callable[[np.ndarray], np.ndarray]] = {
        1: lambda points: np.stack([points[:, 1], width - points[:, 0]], axis=-1),
        2: lambda points: np.stack([width - points[:, 0], height - points[:, 1]], axis=-1),
        3: lambda points: np.stack([height - points[:, 1], points[:, 0]], axis=-1),
    }
    return move_rest(
        with_image(example, np.ascontiguousarray(np.rot90(example["image"], turns))),
        lambda planes, _: np.ascontiguousarray(np.rot90(planes, turns)),
        places[turns],
    )


def window(example: Example, left: int, top: int, height: int, width: int, fill: Fill = 0) -> Example:
    """Cuts a window out; where it sticks out of the image, `fill` comes in.

    Args:
        example: see `kerasvision.augment`.
        left: of the window in pixels, may be negative.
        top: of the window in pixels, may be negative.
        height: of the window in pixels.
        width: of the window in pixels.
        fill: value of the pixels that come in.
    """
    rows, columns = example["image"].shape[:2]
    before = max(-top, 0), max(-left, 0)
    after = max(top + height - rows, 0), max(left + width - columns, 0)
    inside = not any((*before, *after))

    def cut(planes: np.ndarray, value: Fill) -> np.ndarray:
        part = planes[max(top, 0) : max(top + height, 0), max(left, 0) : max(left + width, 0)]
        if inside:
            return np.ascontiguousarray(part)
        whole = np.empty((height, width, *planes.shape[2:]), planes.dtype)
        whole[:] = value
        if part.size:
            whole[before[0] : height - after[0], before[1] : width - after[1]] = part
        return whole

    moved = with_image(example, cut(example["image"], fill))
    return move_rest(moved, cut, lambda points: points - (left, top))


def resize(example: Example, size: tuple[int, int]) -> Example:
    """Stretches an example to another size (H, W); to less than half, pixels are averaged."""
    height, width = example["image"].shape[:2]
    if (height, width) == tuple(size):
        return example
    flat = (size[1], size[0])
    factors = size[1] / width, size[0] / height
    image = cv2.resize(example["image"], flat, interpolation=shrinking(factors))
    return move_rest(
        with_image(example, image),
        lambda planes, _: cv2.resize(planes, flat, interpolation=cv2.INTER_NEAREST_EXACT),
        lambda points: points * factors,
    )


def shrinking(factors: tuple[float, float]) -> int:
    """OpenCV's interpolation that fits factors (x, y): pixels that linear interpolation would skip are averaged."""
    return cv2.INTER_AREA if max(factors) <= 0.5 else cv2.INTER_LINEAR


def keep_visible(example: Example, fraction: float) -> Example:
    """Clips boxes to the image and drops objects of which too little is left.

    Args:
        example: its boxes may stick out.
        fraction: smallest share of a box's area inside the image.

    Returns:
        The example; boxes lie inside and have an area, keypoints outside are marked as absent (0, 0, 0).
    """
    height, width = example["image"].shape[:2]
    kept = dict(example)
    if "keypoints" in example:
        keypoints = example["keypoints"]
        inside = (keypoints[..., :2] >= 0).all(axis=-1) & (keypoints[..., :2] <= (width, height)).all(axis=-1)
        kept["keypoints"] = np.where(inside[..., None], keypoints, 0).astype(np.float32)
    if "boxes" in example:
        boxes = example["boxes"]
        clipped = np.clip(boxes, 0, np.array([width, height, width, height], np.float32))
        left = areas(clipped)
        visible = (left > 0) & (left >= fraction * areas(boxes) * (1 - 1e-6))
        kept = select_objects({**kept, "boxes": clipped}, visible)
    return kept


def areas(boxes: np.ndarray) -> np.ndarray:
    """Areas [N] of boxes [N, 4] xyxy in pixels; 0 where a side is negative."""
    return np.prod(np.maximum(boxes[:, 2:] - boxes[:, :2], 0), axis=-1)


def select_objects(example: Example, kept: np.ndarray) -> Example:
    """The example with some of its objects, bool [N]."""
    if kept.all():
        return example
    selected: Example = {key: value[kept] if key in OBJECT_KEYS else value for key, value in example.items()}
    if "masks" in example:
        masks: PackedMasks = example["masks"]
        selected["masks"] = masks.select(kept)
    return selected
