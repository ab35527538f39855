"""Transforms that put several examples together."""

import abc
import dataclasses
import math
from collections.abc import Callable, Sequence
from typing import Any, ClassVar

import cv2
import numpy as np

from kerasvision.augment.base import Example, chance, require, require_probability, require_range, with_image
from kerasvision.augment.moves import (
    OBJECT_KEYS,
    areas,
    keep_visible,
    mirror,
    resize,
    scaling,
    select_objects,
    translation,
    warp,
    window,
)
from kerasvision.augment.occlusion import cover_keypoints, shares_left, visible_shares
from kerasvision.errors import RecipeError
from kerasvision.masks import PackedMasks

Draw = Callable[[], Example]
Range = tuple[float, float]


@dataclasses.dataclass(frozen=True, kw_only=True)
class Mixer(abc.ABC):
    """Puts examples together.

    Args:
        probability: of mixing anything.
        min_visible: objects are dropped of which a smaller share stays in sight.
        classes: number of classes K of sets with one label for each image: their examples get "label_weights",
            float32 [K] with the sum 1. The pipeline fills it in where it is None.
    """

    mixes: ClassVar[bool] = True
    # Examples that are put together.
    images: ClassVar[int] = 2
    probability: float = 1.0
    min_visible: float = 0.1
    classes: int | None = None

    def __post_init__(self) -> None:
        require_probability(self.probability)
        require(0 <= self.min_visible <= 1, "min_visible in 0..1", self.min_visible)
        require(self.classes is None or self.classes >= 1, "classes >= 1", self.classes)
        self.check()

    @abc.abstractmethod
    def check(self) -> None:
        """Raise a `RecipeError` where a parameter is out of range."""

    @abc.abstractmethod
    def mix(self, example: Example, rng: np.random.Generator, draw: Draw) -> Example:
        """The mixed example, with the first one's labels or `mix_labels`."""

    def __call__(self, example: Example, rng: np.random.Generator, draw: Draw) -> Example:
        """Transform one example; see `Mixing`."""
        chosen = chance(rng, self.probability)
        whole = {**example, **mix_labels([example], [1.0], self.classes)}
        return self.mix(whole, rng, draw) if chosen else whole


@dataclasses.dataclass(frozen=True)
class MixUp(Mixer):
    """Blends two images and their labels (Zhang et al., 2018, arXiv:1710.09412).

    Of images with objects, the objects of both are kept; of an image whose share is below `min_visible`, none.

    Args:
        alpha: the images' shares are drawn from Beta(alpha, alpha); 0 changes nothing.
    """

    alpha: float = 0.2

    def check(self) -> None:
        """Raise a `RecipeError` where a parameter is out of range."""
        require(self.alpha >= 0, "alpha >= 0", self.alpha)

    def mix(self, example: Example, rng: np.random.Generator, draw: Draw) -> Example:
        """Blend."""
        if "segmentation" in example:
            raise RecipeError("Expected images with labels or objects, got segmentation maps: use cutmix or mosaic.")
        share = float(rng.beta(self.alpha, self.alpha)) if self.alpha else 1.0
        if share == 1:
            return example
        other = fit(draw(), example["image"].shape[:2], self.min_visible)
        mixed = with_image(example, cv2.addWeighted(example["image"], share, other["image"], 1 - share, 0.0))
        seen = [
            each if weight >= self.min_visible else _without_objects(each)
            for each, weight in ((mixed, share), (other, 1 - share))
        ]
        return {**join_objects(*seen), **mix_labels([example, other], [share, 1 - share], self.classes)}


@dataclasses.dataclass(frozen=True)
class CutMix(Mixer):
    """Pastes a rectangle of another image at the same place (Yun et al., 2019, arXiv:1905.04899).

    Labels weigh as much as their image has pixels. Objects are cut back to what is seen of them.

    Args:
        alpha: the share of the first image is drawn from Beta(alpha, alpha); 0 changes nothing.
    """

    alpha: float = 1.0

    def check(self) -> None:
        """Raise a `RecipeError` where a parameter is out of range."""
        require(self.alpha >= 0, "alpha >= 0", self.alpha)

    def mix(self, example: Example, rng: np.random.Generator, draw: Draw) -> Example:
        """Paste."""
        height, width = size = example["image"].shape[:2]
        share = float(rng.beta(self.alpha, self.alpha)) if self.alpha else 1.0
        sides = np.array(size) * math.sqrt(1 - share)
        center = rng.random(2) * size
        (top, left), (bottom, right) = (
            np.clip(np.rint(center + sign * sides / 2), 0, size).astype(int).tolist() for sign in (-1, 1)
        )
        if bottom == top or right == left:
            return example
        other = fit(draw(), size, 0.0)
        part = keep_visible(window(other, left, top, bottom - top, right - left), self.min_visible)
        hidden = np.zeros(size, np.uint8)
        hidden[top:bottom, left:right] = 1
        mixed = hide_objects(_paste(example, other, hidden), hidden, self.min_visible)
        pasted = hidden.sum() / hidden.size
        return {
            **join_objects(mixed, window(part, -left, -top, height, width)),
            **mix_labels([example, other], [1 - pasted, pasted], self.classes),
        }


@dataclasses.dataclass(frozen=True)
class CopyPaste(Mixer):
    """Pastes objects of another image, cut out along their masks (Ghiasi et al., 2021, arXiv:2012.07177).

    Where the set has boxes only, it pastes rectangles. Objects behind them are cut back to what is seen of them.

    Args:
        share: probability of each object of the other image to be pasted; 0 changes nothing. Crowds never are.
        scale: smallest and largest size of the other image, relative to the size at which it fits into this one.
        flip: probability of mirroring the other image.
        keypoint_order: as in `Flip`; the pipeline finds it out.
    """

    share: float = 0.5
    scale: Range = (0.5, 1.5)
    flip: float = 0.5
    keypoint_order: tuple[int, ...] | None = None

    def check(self) -> None:
        """Raise a `RecipeError` where a parameter is out of range."""
        require(0 <= self.share <= 1, "share in 0..1", self.share)
        require_range("scale", self.scale, 0.01, 100)
        require(0 <= self.flip <= 1, "flip in 0..1", self.flip)

    def mix(self, example: Example, rng: np.random.Generator, draw: Draw) -> Example:
        """Paste."""
        if "boxes" not in example:
            raise RecipeError("Expected images with objects (boxes), got none: there is nothing to copy and paste.")
        if not self.share:
            return example
        other = draw()
        other = select_objects(other, (rng.random(len(other["boxes"])) < self.share) & ~other["crowd"])
        scale, places, mirrored = rng.uniform(*self.scale), rng.random(2), chance(rng, self.flip)
        if not len(other["boxes"]):
            return example
        if mirrored:
            other = mirror(other, 1, self.keypoint_order)
        size, source = (np.array(each["image"].shape[1::-1]) for each in (example, other))
        factor = scale * min(size / source)
        shift = places * (size - source * factor)
        matrix = translation(*shift) @ scaling(factor, factor)
        other = keep_visible(warp(other, matrix, example["image"].shape[:2]), self.min_visible)
        if "masks" in other:
            other = select_objects(other, other["masks"].extents()[:, 2] > 0)
        hidden = _covered_by(other)
        if not hidden.any():
            return example
        return join_objects(hide_objects(_paste(example, other, hidden), hidden, self.min_visible), other)


def mix_labels(examples: Sequence[Example], shares: Sequence[float], classes: int | None) -> dict[str, Any]:
    """Labels of a mixed image.

    Args:
        examples: the images that were mixed.
        shares: of the images; their sum is 1.
        classes: number of classes, needed where images have one label each.

    Returns:
        {"labels"} of sets with many labels, {"label", "label_weights"} of sets with one: the label of the largest
        share, and the weights of all, float32 [K]; {} of others.

    Raises:
        RecipeError: the number of classes is not known.
    """
    first = examples[0]
    if "labels" in first:
        return {"labels": np.sum([each["labels"] * np.float32(w) for each, w in zip(examples, shares, strict=True)], 0)}
    if "label" not in first:
        return {}
    if classes is None:
        raise RecipeError("Mixing images with one label each needs their number of classes: give classes.")
    weights = np.zeros(classes, np.float32)
    for each, share in zip(examples, shares, strict=True):
        if "label_weights" in each:
            weights += share * each["label_weights"]
        else:
            require(0 <= each["label"] < classes, f"a label in 0..{classes - 1}", each["label"])
            weights[each["label"]] += share
    return {"label": examples[int(np.argmax(shares))]["label"], "label_weights": weights}


def fit(example: Example, size: tuple[int, int], min_visible: float) -> Example:
    """Brings an example to a size (H, W) that it covers; what is too long is cut off on both sides."""
    height, width = example["image"].shape[:2]
    if (height, width) == tuple(size):
        return example
    factor = max(size[0] / height, size[1] / width)
    rows, columns = max(round(height * factor), size[0]), max(round(width * factor), size[1])
    large = resize(example, (rows, columns))
    return keep_visible(window(large, (columns - size[1]) // 2, (rows - size[0]) // 2, *size), min_visible)


def hide_objects(example: Example, hidden: np.ndarray, min_visible: float) -> Example:
    """Cuts objects back to what is not hidden, uint8 [H, W], and drops those of which too little is left."""
    if "boxes" not in example:
        return example
    boxes = example["boxes"].copy()
    cut = cover_keypoints({**example, "boxes": boxes}, hidden)
    if "masks" in example:
        cut["masks"] = example["masks"].without(hidden)
        shares = shares_left(example["masks"], cut["masks"])
        changed = (shares > 0) & (shares < 1)
        extents = cut["masks"].extents()[changed]
    else:
        shares = visible_shares(example, hidden)
        changed = (shares > 0) & (shares < 1)
        extents = np.array([_extent(box, hidden) for box in boxes[changed]], np.float32).reshape(-1, 4)
    boxes[changed, :2] = np.maximum(boxes[changed, :2], extents[:, :2])
    boxes[changed, 2:] = np.minimum(boxes[changed, 2:], extents[:, 2:])
    return select_objects(cut, (shares > 0) & (shares >= min_visible) & (areas(boxes) > 0))


def join_objects(first: Example, second: Example) -> Example:
    """The first example with the objects of the second, of the same size, after its own."""
    joined = dict(first)
    for key in OBJECT_KEYS:
        if key in first:
            joined[key] = np.concatenate([first[key], second[key]])
    if "masks" in first:
        joined["masks"] = PackedMasks.join(first["masks"], second["masks"])
    return joined


def _without_objects(example: Example) -> Example:
    return select_objects(example, np.zeros(len(example["boxes"]), bool)) if "boxes" in example else example


def _paste(example: Example, other: Example, where: np.ndarray) -> Example:
    """The example with the other's pixels where uint8 [H, W] is not 0."""
    pasted = dict(example)
    for key in ("image", "segmentation"):
        if key in example:
            pasted[key] = example[key].copy()
            cv2.copyTo(other[key], where, pasted[key])
    return pasted


def _covered_by(example: Example) -> np.ndarray:
    """Pixels of the objects, uint8 [H, W] of zeros and ones: of their masks, or of their boxes."""
    if "masks" in example:
        return example["masks"].union(np.ones(len(example["boxes"]), bool))
    covered = np.zeros(example["image"].shape[:2], np.uint8)
    for left, top, right, bottom in np.rint(example["boxes"]).astype(int):
        covered[top:bottom, left:right] = 1
    return covered


def _extent(box: np.ndarray, hidden: np.ndarray) -> tuple[float, float, float, float]:
    """Smallest rectangle around the pixels of a box [4] that are not hidden; there are some."""
    left, top = np.floor(box[:2]).astype(int)
    right, bottom = np.ceil(box[2:]).astype(int)
    seen = hidden[top:bottom, left:right] == 0
    rows, columns = np.flatnonzero(seen.any(axis=1)), np.flatnonzero(seen.any(axis=0))
    return left + columns[0], top + rows[0], left + columns[-1] + 1, top + rows[-1] + 1
