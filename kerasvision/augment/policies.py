"""Policies that choose among many operations: RandAugment, TrivialAugment and AugMix.

Every operation grows evenly from changing nothing at magnitude 0 to its end of the range at magnitude 1, but for
autocontrast, equalize and invert, which have no magnitude. Shear and rotation are about the middle of the image.
"""

import abc
import dataclasses
from collections.abc import Callable
from typing import ClassVar

import cv2
import numpy as np

from kerasvision.augment.base import Example, chance, require, require_probability, with_image
from kerasvision.augment.color import brightness, contrast, saturation
from kerasvision.augment.moves import center_of, keep_visible, rotation, shearing, translation, warp
from kerasvision.augment.tone import autocontrast, equalize, invert, posterize, sharpness, solarize, solarize_add
from kerasvision.errors import UnknownNameError, closest


@dataclasses.dataclass(frozen=True)
class Ranges:
    """What the operations do at magnitude 1.

    Args:
        shear: shift of a row or column as a share of its distance from the middle.
        shift: translation as a share of the image's side.
        shift_pixels: translation in pixels, in addition.
        degrees: of rotation.
        enhance: change of the factors of brightness, color, contrast and sharpness from 1.
        bits: lost to posterize.
    """

    shear: float = 0.3
    shift: float = 150 / 331
    shift_pixels: float = 0.0
    degrees: float = 30.0
    enhance: float = 0.9
    bits: int = 4


PAPER = Ranges()
WIDE = Ranges(shear=0.99, shift=0.0, shift_pixels=32.0, degrees=135.0, enhance=0.99, bits=6)
AUGMIX = Ranges(shift=1 / 3)

# The share is the magnitude, negative where the operation goes the other way: [-1, 1].
_PIXELS: dict[str, Callable[[np.ndarray, float, Ranges], np.ndarray]] = {
    "identity": lambda image, share, ranges: image,
    "autocontrast": lambda image, share, ranges: autocontrast(image),
    "equalize": lambda image, share, ranges: equalize(image),
    "invert": lambda image, share, ranges: invert(image),
    "posterize": lambda image, share, ranges: posterize(image, 8 - round(abs(share) * ranges.bits)),
    "solarize": lambda image, share, ranges: solarize(image, 256 - round(abs(share) * 256)),
    "solarize_add": lambda image, share, ranges: solarize_add(image, round(abs(share) * 110)),
    "color": lambda image, share, ranges: saturation(image, 1 + share * ranges.enhance),
    "contrast": lambda image, share, ranges: contrast(image, 1 + share * ranges.enhance),
    "brightness": lambda image, share, ranges: brightness(image, 1 + share * ranges.enhance),
    "sharpness": lambda image, share, ranges: sharpness(image, 1 + share * ranges.enhance),
}
_MOVES: dict[str, Callable[[Example, float, Ranges], np.ndarray]] = {
    "rotate": lambda example, share, ranges: rotation(share * ranges.degrees, center_of(example)),
    "shear_x": lambda example, share, ranges: shearing(share * ranges.shear, 0, center_of(example)),
    "shear_y": lambda example, share, ranges: shearing(0, share * ranges.shear, center_of(example)),
    "translate_x": lambda example, share, ranges: translation(_offset(example, 1, share, ranges), 0),
    "translate_y": lambda example, share, ranges: translation(0, _offset(example, 0, share, ranges)),
}
KINDS = (
    "identity",
    "autocontrast",
    "equalize",
    "rotate",
    "solarize",
    "color",
    "posterize",
    "contrast",
    "brightness",
    "sharpness",
    "shear_x",
    "shear_y",
    "translate_x",
    "translate_y",
)
# AugMix leaves out what the corruptions of ImageNet-C are made of.
AUGMIX_KINDS = tuple(kind for kind in KINDS if kind not in ("identity", "color", "contrast", "brightness", "sharpness"))


def _offset(example: Example, axis: int, share: float, ranges: Ranges) -> int:
    return round(share * (ranges.shift * example["image"].shape[axis] + ranges.shift_pixels))


def operate(
    example: Example, kind: str, share: float, ranges: Ranges = PAPER, fill: int = 128, interpolation: str = "linear"
) -> Example:
    """Applies one operation of the policies.

    Args:
        example: see `kerasvision.augment`.
        kind: name of the operation.
        share: magnitude from -1 to 1; below 0, operations that have two directions go the other way.
        ranges: what magnitude 1 means.
        fill: value of the pixels that come in when the image moves, 0..255.
        interpolation: of shear and rotation, "linear" or "nearest"; translations are by whole pixels.

    Returns:
        The changed example; boxes may stick out.
    """
    if kind in _PIXELS:
        return with_image(example, _PIXELS[kind](example["image"], share, ranges))
    if share == 0:
        return example
    whole = kind in ("translate_x", "translate_y")
    matrix = _MOVES[kind](example, share, ranges)
    return warp(example, matrix, fill=fill, interpolation="nearest" if whole else interpolation)


def _require_common(fill: int, interpolation: str, probability: float) -> None:
    """Requires values in range of the fields that all policies have."""
    require(0 <= fill <= 255, "fill in 0..255", fill)
    require(interpolation in ("linear", "nearest"), 'interpolation "linear" or "nearest"', interpolation)
    require_probability(probability)


def _require_kinds(kinds: tuple[str, ...]) -> None:
    require(len(kinds) > 0, "one or more kinds of operations", kinds)
    for kind in kinds:
        if kind not in _PIXELS and kind not in _MOVES:
            raise UnknownNameError(f'Unknown operation "{kind}".{closest(kind, [*_PIXELS, *_MOVES])}')


@dataclasses.dataclass(frozen=True, kw_only=True)
class Policy(abc.ABC):
    """Base of the policies that apply operations one after the other, to all that an example holds.

    Args:
        fill: value of the pixels that come in when the image moves, 0..255.
        interpolation: of shear and rotation, "linear" or "nearest".
        min_visible: objects are dropped of which a smaller share of the box stays inside the image.
        probability: of changing the image at all.
    """

    ranges: ClassVar[Ranges] = PAPER

    fill: int = 128
    interpolation: str = "linear"
    min_visible: float = 0.1
    probability: float = 1.0

    def __post_init__(self) -> None:
        _require_common(self.fill, self.interpolation, self.probability)
        require(0 <= self.min_visible <= 1, "min_visible in 0..1", self.min_visible)
        self.check()

    @abc.abstractmethod
    def check(self) -> None:
        """Raise a `RecipeError` where a parameter is out of range."""

    @abc.abstractmethod
    def draw(self, rng: np.random.Generator) -> list[tuple[str, float]]:
        """The operations for one example, each with its share of the magnitude as in `operate`."""

    def __call__(self, example: Example, rng: np.random.Generator) -> Example:
        """Transforms one example; see `Transform`."""
        chosen = chance(rng, self.probability)
        steps = self.draw(rng)
        if not chosen:
            return example
        for kind, share in steps:
            example = operate(example, kind, share, self.ranges, self.fill, self.interpolation)
        moved = any(kind in _MOVES and share for kind, share in steps)
        return keep_visible(example, self.min_visible) if moved else example


@dataclasses.dataclass(frozen=True)
class RandAugment(Policy):
    """Applies a few operations, drawn evenly, all at one magnitude (Cubuk et al., 2019, arXiv:1909.13719).

    Args:
        operations: number applied, one after the other.
        magnitude: 0..levels, of all of them; 0 changes nothing, whatever is drawn.
        levels: the strongest magnitude.
        kinds: operations to draw from; the paper's fourteen, and there are "invert" and "solarize_add".
    """

    operations: int = 2
    magnitude: float = 9
    levels: int = 30
    kinds: tuple[str, ...] = KINDS

    def check(self) -> None:
        """Raise a `RecipeError` where a parameter is out of range."""
        require(self.operations >= 0, "operations >= 0", self.operations)
        require(self.levels >= 1, "levels >= 1", self.levels)
        require(0 <= self.magnitude <= self.levels, f"magnitude in 0..{self.levels}", self.magnitude)
        _require_kinds(self.kinds)

    def draw(self, rng: np.random.Generator) -> list[tuple[str, float]]:
        """Kinds evenly, and a direction for each."""
        kinds = rng.integers(len(self.kinds), size=self.operations).tolist()
        signs = (2 * rng.integers(2, size=self.operations) - 1).tolist()
        if self.magnitude == 0:
            return []
        return [
            (self.kinds[kind], sign * self.magnitude / self.levels) for kind, sign in zip(kinds, signs, strict=True)
        ]


@dataclasses.dataclass(frozen=True)
class TrivialAugment(Policy):
    """Applies one operation, drawn evenly as its magnitude is (Müller and Hutter, 2021, arXiv:2103.10158).

    The ranges are the wide ones of the paper.

    Args:
        levels: number of magnitudes above 0.
        kinds: operations to draw from; see `RandAugment`.
    """

    ranges: ClassVar[Ranges] = WIDE

    levels: int = 30
    kinds: tuple[str, ...] = KINDS

    def check(self) -> None:
        """Raise a `RecipeError` where a parameter is out of range."""
        require(self.levels >= 1, "levels >= 1", self.levels)
        _require_kinds(self.kinds)

    def draw(self, rng: np.random.Generator) -> list[tuple[str, float]]:
        """One kind, level and direction."""
        kind, level, sign = rng.integers((len(self.kinds), self.levels + 1, 2)).tolist()
        return [(self.kinds[kind], (2 * sign - 1) * level / self.levels)]


@dataclasses.dataclass(frozen=True)
class AugMix:
    """Mixes an image with chains of operations on itself (Hendrycks et al., 2020, arXiv:1912.02781).

    Images are mixed as pixels, before any normalisation. A mix has no one place for an object: examples with boxes,
    masks, keypoints or a segmentation get the operations that move nothing.

    Args:
        severity: largest magnitude, 0 (nothing changes) to 10.
        width: number of chains.
        depth: operations in a chain; -1 draws 1 to 3 for each.
        alpha: of the Dirichlet distribution of the chains' shares and the beta distribution of the image's own.
        kinds: operations to draw from; see `RandAugment`.
        fill: value of the pixels that come in when a chain moves the image, 0..255.
        interpolation: of shear and rotation, "linear" or "nearest".
        probability: of changing the image at all.
    """

    severity: float = 3
    width: int = 3
    depth: int = -1
    alpha: float = 1.0
    kinds: tuple[str, ...] = AUGMIX_KINDS
    fill: int = 128
    interpolation: str = "linear"
    probability: float = 1.0

    def __post_init__(self) -> None:
        require(0 <= self.severity <= 10, "severity in 0..10", self.severity)
        require(self.width >= 1, "width >= 1", self.width)
        require(self.depth == -1 or self.depth >= 1, "depth >= 1, or -1 for 1 to 3", self.depth)
        require(self.alpha > 0, "alpha > 0", self.alpha)
        _require_common(self.fill, self.interpolation, self.probability)
        _require_kinds(self.kinds)
        require(any(kind in _PIXELS for kind in self.kinds), "a kind that moves nothing among kinds", self.kinds)

    def __call__(self, example: Example, rng: np.random.Generator) -> Example:
        """Transforms one example; see `Transform`."""
        if not chance(rng, self.probability) or self.severity == 0:
            return example
        placed = any(key in example for key in ("boxes", "masks", "keypoints", "segmentation"))
        kinds = [kind for kind in self.kinds if kind in _PIXELS] if placed else self.kinds
        shares = rng.dirichlet([self.alpha] * self.width)
        mixed = float(rng.beta(self.alpha, self.alpha))
        image: np.ndarray = example["image"]
        total = image.astype(np.float32) * np.float32(1 - mixed)
        for weight in shares.tolist():
            chain: Example = {"image": image}
            for _ in range(self.depth if self.depth > 0 else int(rng.integers(1, 4))):
                kind = kinds[int(rng.integers(len(kinds)))]
                share = rng.uniform(min(0.1, self.severity), self.severity) / 10 * (1 if rng.random() < 0.5 else -1)
                chain = operate(chain, kind, share, AUGMIX, self.fill, self.interpolation)
            total = cv2.scaleAdd(chain["image"].astype(np.float32), mixed * weight, total).reshape(image.shape)
        return with_image(example, cv2.convertScaleAbs(total))
