"""From masks of objects to class maps: borders between objects as a class, and weights for them."""

import dataclasses
import math
from collections.abc import Mapping
from typing import Any

import cv2
import numpy as np

from kerasvision.errors import RecipeError, closest
from kerasvision.masks import PackedMasks

VOID = 255
BACKGROUND = "background"
BORDER = "border"
# Beyond so many sigmas a border weight is below w0 / 250,000.
_FAR = 5
_NONE = 1e9


@dataclasses.dataclass(frozen=True)
class ClassMaps:
    """How the objects of an example become a class for each pixel, after augmentation.

    Args:
        border: whether pixels between objects are a class of their own, the last one.
        width: of `border_pixels`.
        outline: of `border_pixels`.
        weights: whether there are "pixel_weights" too, those of `border_weights`.
        class_weights: w_c of each class, of `border_weights`; 1 for all where None.
        w0: of `border_weights`.
        sigma: of `border_weights`.
    """

    border: bool = True
    width: float = 2.0
    outline: bool = True
    weights: bool = False
    class_weights: tuple[float, ...] | None = None
    w0: float = 10.0
    sigma: float = 5.0

    def __post_init__(self) -> None:
        if self.width < 1 or self.sigma <= 0 or self.w0 < 0:
            raise ValueError(
                "Expected a width of 1 pixel or more, a sigma above 0 and a w0 from 0, "
                f"got {self.width}, {self.sigma} and {self.w0}."
            )

    def spec(self, size: tuple[int, int]) -> dict[str, tuple[Any, tuple[int, ...]]]:
        """Name -> type and shape of the arrays of one example with an image of size (H, W)."""
        arrays: dict[str, tuple[Any, tuple[int, ...]]] = {
            "segmentation": (np.uint8, size),
            "instances": (np.int32, size),
        }
        return arrays | ({"pixel_weights": (np.float32, size)} if self.weights else {})

    def __call__(self, example: Mapping[str, Any], classes: int) -> dict[str, np.ndarray]:
        """The arrays of `spec`: classes, the number of the object from 1 (0 where there is none), and weights.

        Args:
            example: with "masks" and "classes", whose crowds become void; or with a "segmentation", whose objects are
                the connected pixels of each class but the first.
            classes: number of classes, with the border.
        """
        if "masks" in example:
            instances, segmentation = _of_masks(example)
        else:
            segmentation = example["segmentation"].copy()
            instances = components(segmentation)
        if self.border:
            between = border_pixels(instances, self.width, outline=self.outline)
            segmentation[between & (segmentation != VOID)] = classes - 1
        arrays = {"segmentation": segmentation, "instances": instances}
        if self.weights:
            table = np.ones(VOID + 1, np.float32)
            table[: len(self.class_weights or ())] = self.class_weights or ()
            arrays["pixel_weights"] = border_weights(instances, self.w0, self.sigma, table[segmentation])
        return arrays


def class_maps(options: Mapping[str, Any]) -> ClassMaps:
    """`ClassMaps` as a recipe asks for them.

    Raises:
        RecipeError: an unknown argument (the closest names are given), or a value that cannot be.
    """
    names = {field.name for field in dataclasses.fields(ClassMaps)}
    for name in options:
        if name not in names:
            raise RecipeError(f'data.class_maps has no argument "{name}".{closest(name, names)}')
    try:
        return ClassMaps(**options)
    except (TypeError, ValueError) as error:
        raise RecipeError(f"data.class_maps: {error}") from error


def _of_masks(example: Mapping[str, Any]) -> tuple[np.ndarray, np.ndarray]:
    """Number of the object and class of each pixel."""
    masks: PackedMasks = example["masks"]
    crowd = np.asarray(example.get("crowd", np.zeros(len(masks))), bool)
    instances = label_map(masks.select(~crowd))
    classes = np.append(0, example["classes"][~crowd]).astype(np.uint8)[instances]
    classes[(masks.union(crowd) > 0) & (instances == 0)] = VOID
    return instances, classes


def label_map(masks: PackedMasks) -> np.ndarray:
    """Number of the object at each pixel.

    Args:
        masks: of N objects; where they overlap, the smaller one lies on top.

    Returns:
        int32 [H, W]: 1..N, 0 where there is none.
    """
    labels = np.zeros(masks.size, np.int32)
    extents = masks.extents().astype(int)
    for index in np.argsort(-masks.areas(), kind="stable"):
        left, top, right, bottom = extents[index]
        part = masks.planes[top:bottom, left:right, index // 8] & np.uint8(1 << index % 8)
        labels[top:bottom, left:right][part > 0] = index + 1
    return labels


def border_pixels(instances: np.ndarray, width: float = 2.0, *, outline: bool = True) -> np.ndarray:
    """Pixels that keep objects apart.

    Args:
        instances: int [H, W], number of the object, 0 where there is none.
        width: in pixels.
        outline: pixels of an object within `width` of one that is not of the object; else pixels, also of the
            background, within `width` of two objects or more. What lies outside the image is nothing.

    Returns:
        bool [H, W].
    """
    labels, around = instances.astype(np.float32), disc(width)
    highest = cv2.dilate(labels, around)
    if outline:
        return (highest != cv2.erode(labels, around)) & (instances > 0)
    lowest = cv2.erode(np.where(instances == 0, np.float32(_NONE), labels), around)
    return (highest > 0) & (lowest < highest)


def disc(radius: float) -> np.ndarray:
    """Pixels whose centres lie within a radius of that in the middle: uint8 [2 r + 1, 2 r + 1] of zeros and ones."""
    across = np.arange(-int(radius), int(radius) + 1)
    return (across**2 + across[:, None] ** 2 <= radius**2).astype(np.uint8)


def border_weights(
    instances: np.ndarray, w0: float = 10.0, sigma: float = 5.0, class_weights: np.ndarray | None = None
) -> np.ndarray:
    """U-Net's weights, w_c + w0 exp(-(d1 + d2)^2 / (2 sigma^2)), d1 and d2 the distances to the two nearest objects.

    Ronneberger et al., 2015, arXiv:1505.04597: pixels of the background between objects that touch weigh most. On
    objects there is only w_c. What lies below w0 / 250,000 is left out.

    Args:
        instances: int [H, W], number of the object, 0 where there is none; see `label_map`, and `components` for a
            map without objects.
        w0: largest addend.
        sigma: in pixels.
        class_weights: w_c of each pixel, [H, W]; 1 where None.

    Returns:
        float32 [H, W].
    """
    height, width = instances.shape
    reach = math.ceil(_FAR * sigma)
    # d1 <= d2 of each pixel, to the objects so far.
    nearest = np.full((2, height, width), np.inf, np.float32)
    for number, (top, bottom, left, right) in _extents(instances).items():
        rows, columns = slice(max(top - reach, 0), bottom + reach), slice(max(left - reach, 0), right + reach)
        away = cv2.distanceTransform(
            (instances[rows, columns] != number).astype(np.uint8), cv2.DIST_L2, cv2.DIST_MASK_PRECISE
        )
        first, second = nearest[:, rows, columns]
        np.minimum(second, np.maximum(first, away), out=second)
        np.minimum(first, away, out=first)
    weights = w0 * np.exp(-((nearest[0] + nearest[1]) ** 2) / (2 * sigma**2))
    weights[instances > 0] = 0
    return (weights + (1 if class_weights is None else class_weights)).astype(np.float32)


def components(classes: np.ndarray, background: int = 0, connectivity: int = 8) -> np.ndarray:
    """Connected pixels of one class as objects, for sets without masks of objects.

    Args:
        classes: uint8 [H, W]; 255 is void.
        background: the class that holds no object.
        connectivity: 8 where pixels that touch at a corner are connected, else 4.

    Returns:
        int32 [H, W]: 1..N, 0 at the background and at void.
    """
    labels = np.zeros(classes.shape, np.int32)
    count = 0
    for index in np.unique(classes):
        if index in (background, VOID):
            continue
        found, numbers = cv2.connectedComponents((classes == index).astype(np.uint8), connectivity=connectivity)
        labels[numbers > 0] = numbers[numbers > 0] + count
        count += found - 1
    return labels


def _extents(instances: np.ndarray) -> dict[int, tuple[int, int, int, int]]:
    """Number of each object -> its (top, bottom, left, right)."""
    rows, columns = np.nonzero(instances)
    numbers = instances[rows, columns]
    order = np.argsort(numbers, kind="stable")
    numbers, rows, columns = numbers[order], rows[order], columns[order]
    found, starts = np.unique(numbers, return_index=True)
    if not len(found):
        return {}
    parts = [function.reduceat(values, starts) for values in (rows, columns) for function in (np.minimum, np.maximum)]
    return {
        int(number): (int(top), int(bottom) + 1, int(left), int(right) + 1)
        for number, top, bottom, left, right in zip(found, *parts, strict=True)
    }
