"""Transforms that cover parts of an image: the net has to do with the rest."""

import abc
import dataclasses
import math
from typing import Literal

import cv2
import numpy as np

from kerasvision.augment.base import Example, chance, require, require_probability, require_range
from kerasvision.augment.moves import rotation, select_objects, translation
from kerasvision.masks import PackedMasks

Range = tuple[float, float]
Cover = float | Literal["mean", "noise"]


@dataclasses.dataclass(frozen=True, kw_only=True)
class Occlusion(abc.ABC):
    """Covers pixels; boxes, masks and segmentation stay, keypoints under the cover become occluded (visibility 1).

    Args:
        probability: of covering anything.
        fill: of the covered pixels: a value 0..255, "mean" for the image's mean colour, or "noise".
        min_visible: objects are dropped of which a smaller share stays in sight; 0 keeps them all.
    """

    probability: float = 1.0
    fill: Cover = 128
    min_visible: float = 0.0

    def __post_init__(self) -> None:
        require_probability(self.probability)
        valid = self.fill in ("mean", "noise") if isinstance(self.fill, str) else 0 <= self.fill <= 255
        require(valid, 'fill in 0..255, "mean" or "noise"', self.fill)
        require(0 <= self.min_visible <= 1, "min_visible in 0..1", self.min_visible)
        self.check()

    @abc.abstractmethod
    def check(self) -> None:
        """Raise a `RecipeError` where a parameter is out of range."""

    @abc.abstractmethod
    def draw(self, size: tuple[int, int], rng: np.random.Generator) -> np.ndarray:
        """What to cover of an image of size (H, W): uint8 [H, W], 1 where it is hidden."""

    def __call__(self, example: Example, rng: np.random.Generator) -> Example:
        """Transform one example; see `Transform`."""
        image = example["image"]
        chosen = chance(rng, self.probability)
        hidden = self.draw(image.shape[:2], rng)
        if not chosen or not hidden.any():
            return example
        covered = cover_keypoints({**example, "image": paint(image, hidden, self.fill, rng)}, hidden)
        if self.min_visible and "boxes" in example:
            shares = visible_shares(example, hidden)
            covered = select_objects(covered, shares >= self.min_visible)
        return covered


@dataclasses.dataclass(frozen=True)
class Cutout(Occlusion):
    """Covers squares, which may stick out of the image (DeVries and Taylor, 2017, arXiv:1708.04552).

    Args:
        size: side of the squares: pixels where it is an int, a share of the image's shorter side where a float.
        count: number of squares.
    """

    size: int | float = 0.5
    count: int = 1

    def check(self) -> None:
        """Raise a `RecipeError` where a parameter is out of range."""
        _require_length("size", self.size)
        require(self.count >= 0, "count >= 0 squares", self.count)

    def draw(self, size: tuple[int, int], rng: np.random.Generator) -> np.ndarray:
        """Squares about random pixels."""
        side = round(_pixels(self.size, size))
        hidden = np.zeros(size, np.uint8)
        starts = np.floor(rng.random((self.count, 2)) * size - (side - 1) / 2).astype(int)
        for top, left in starts:
            hidden[max(top, 0) : max(top + side, 0), max(left, 0) : max(left + side, 0)] = 1
        return hidden


@dataclasses.dataclass(frozen=True)
class Erase(Occlusion):
    """Covers a random rectangle (Zhong et al., 2017, arXiv:1708.04896).

    Args:
        probability: of covering anything.
        area: smallest and largest share of the image's area.
        ratio: smallest and largest width / height of the rectangle.
    """

    probability: float = 0.25
    area: Range = (0.02, 0.2)
    ratio: Range = (0.3, 3.3)

    def check(self) -> None:
        """Raise a `RecipeError` where a parameter is out of range."""
        require_range("area", self.area, 0, 1)
        require_range("ratio", self.ratio, 0, math.inf)
        require(self.ratio[0] > 0, "ratio above 0", self.ratio)

    def draw(self, size: tuple[int, int], rng: np.random.Generator) -> np.ndarray:
        """A rectangle within the image."""
        area = rng.uniform(*self.area) * size[0] * size[1]
        ratio = math.exp(rng.uniform(*np.log(self.ratio)))
        places = rng.random(2)
        hidden = np.zeros(size, np.uint8)
        sides = math.sqrt(area / ratio), math.sqrt(area * ratio)
        rows, columns = (_span(*each) for each in zip(sides, size, places, strict=True))
        hidden[rows, columns] = 1
        return hidden


@dataclasses.dataclass(frozen=True)
class GridMask(Occlusion):
    """Covers squares in a grid (Chen et al., 2020, arXiv:2001.04086).

    Args:
        ratio: share of each unit's side that stays free on both axes; 1 covers nothing.
        unit: smallest and largest distance between squares: pixels where they are ints, shares of the image's shorter
            side where floats.
        degrees: largest turn of the grid, each way.
    """

    ratio: float = 0.6
    unit: tuple[int, int] | tuple[float, float] = (0.4, 1.0)
    degrees: float = 0.0

    def check(self) -> None:
        """Raise a `RecipeError` where a parameter is out of range."""
        require(0 <= self.ratio <= 1, "ratio in 0..1", self.ratio)
        require_range("unit", self.unit, 0, math.inf)
        for unit in self.unit:
            _require_length("unit", unit)
        require(0 <= self.degrees <= 180, "degrees in 0..180", self.degrees)

    def draw(self, size: tuple[int, int], rng: np.random.Generator) -> np.ndarray:
        """A grid at a random offset, turned about the image's centre."""
        least, most = (_pixels(unit, size) for unit in self.unit)
        unit = max(round(rng.uniform(least, most)), 1)
        side = round(unit * (1 - self.ratio))
        offsets = rng.integers(unit, size=2)
        angle = rng.uniform(-self.degrees, self.degrees)
        # Enough for any turn.
        whole = (math.ceil(math.hypot(*size)),) * 2 if self.degrees else size
        rows, columns = (
            (np.arange(length) + offset) % unit < side for length, offset in zip(whole, offsets, strict=True)
        )
        hidden = (rows[:, None] & columns).view(np.uint8)
        if not self.degrees:
            return hidden
        turn = rotation(angle, (whole[1] / 2, whole[0] / 2))
        turn = translation((size[1] - whole[1]) / 2, (size[0] - whole[0]) / 2) @ turn
        return cv2.warpAffine(hidden, turn[:2], size[::-1], flags=cv2.INTER_NEAREST)


@dataclasses.dataclass(frozen=True)
class HideAndSeek(Occlusion):
    """Divides the image into patches and covers each by chance (Singh and Lee, 2017, arXiv:1704.04232).

    Args:
        grid: patches along the height and along the width.
        share: probability of covering a patch.
    """

    grid: tuple[int, int] = (4, 4)
    share: float = 0.5
    fill: Cover = "mean"

    def check(self) -> None:
        """Raise a `RecipeError` where a parameter is out of range."""
        require(len(self.grid) == 2 and min(self.grid) >= 1, "grid (rows, columns), both at least 1", self.grid)
        require(0 <= self.share <= 1, "share in 0..1", self.share)

    def draw(self, size: tuple[int, int], rng: np.random.Generator) -> np.ndarray:
        """Patches."""
        patches = (rng.random(self.grid) < self.share).view(np.uint8)
        rows, columns = (np.arange(side) * count // side for side, count in zip(size, self.grid, strict=True))
        return patches[rows[:, None], columns]


def paint(image: np.ndarray, hidden: np.ndarray, fill: Cover, rng: np.random.Generator) -> np.ndarray:
    """Covers pixels.

    Args:
        image: uint8 [H, W, C].
        hidden: uint8 [H, W], not 0 where the image is covered.
        fill: see `Occlusion`.
        rng: of the noise.

    Returns:
        uint8 [H, W, C].
    """
    if fill == "noise":
        cover = rng.integers(0, 256, image.shape, np.uint8)
    else:
        values = np.rint(cv2.mean(image)[: image.shape[-1]] if fill == "mean" else fill).astype(np.uint8)
        # A row first: numpy is slow where only the channels lie together.
        row = np.broadcast_to(values, image.shape[1:]).copy()
        cover = np.broadcast_to(row, image.shape).copy()
    painted = image.copy()
    cv2.copyTo(cover, hidden, painted)
    return painted


def visible_shares(example: Example, hidden: np.ndarray) -> np.ndarray:
    """Shares of the objects that stay in sight: of their masks where there are any, else of their boxes.

    Args:
        example: with boxes inside the image.
        hidden: uint8 [H, W], 1 where the image is covered.

    Returns:
        float64 [N] in 0..1; 1 for an object without any pixel.
    """
    if "masks" in example:
        return shares_left(example["masks"], example["masks"].without(hidden))
    low, high = np.floor(example["boxes"][:, :2]).astype(int), np.ceil(example["boxes"][:, 2:]).astype(int)
    # sums[y, x]: hidden pixels above and left of a corner.
    sums = cv2.integral(hidden)
    covered = sums[high[:, 1], high[:, 0]] - sums[low[:, 1], high[:, 0]]
    covered += sums[low[:, 1], low[:, 0]] - sums[high[:, 1], low[:, 0]]
    return 1 - covered / np.maximum(np.prod(high - low, axis=-1), 1)


def shares_left(whole: PackedMasks, seen: PackedMasks) -> np.ndarray:
    """Shares of masks that other masks have kept, float64 [N]; 1 where there was no pixel."""
    areas = whole.areas()
    return np.where(areas > 0, seen.areas() / np.maximum(areas, 1), 1.0)


def cover_keypoints(example: Example, hidden: np.ndarray) -> Example:
    """The example with visible keypoints (2) marked as occluded (1) where the image is covered, uint8 [H, W]."""
    if "keypoints" not in example:
        return example
    keypoints = example["keypoints"].copy()
    limits = np.array(hidden.shape[::-1]) - 1
    columns, rows = np.moveaxis(np.clip(keypoints[..., :2], 0, limits).astype(int), -1, 0)
    visibility = keypoints[..., 2]
    visibility[(hidden[rows, columns] != 0) & (visibility == 2)] = 1
    return {**example, "keypoints": keypoints}


def _require_length(name: str, length: int | float) -> None:
    valid = length >= 0 and (isinstance(length, int) or length <= 1)
    require(valid, f"{name}: pixels (int) or a share of the shorter side (float in 0..1)", repr(length))


def _pixels(length: int | float, size: tuple[int, int]) -> float:
    return length if isinstance(length, int) else length * min(size)


def _span(length: float, size: int, place: float) -> slice:
    """A stretch of a side, at a relative place in [0, 1)."""
    length = min(round(length), size)
    start = int(place * (size - length + 1))
    return slice(start, start + length)
