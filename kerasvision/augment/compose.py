"""Transforms one after the other, and their way into tf.data."""

import dataclasses
from collections.abc import Callable, Sequence
from typing import Any

import cv2
import numpy as np
import tensorflow as tf

from kerasvision.augment.base import Augmentation, Example, Mixing, Transform
from kerasvision.augment.table import build
from kerasvision.errors import RecipeError
from kerasvision.masks import PackedMasks

Transforms = Sequence[Transform | Mixing]


def apply(
    transforms: Transforms,
    example: Example,
    rng: np.random.Generator,
    source: Callable[[np.random.Generator], Example] | None = None,
) -> Example:
    """Applies transforms one after the other.

    Args:
        transforms: what to apply.
        example: see `kerasvision.augment`.
        rng: source of every random number.
        source: gives a random other example of the set, for transforms that mix several.

    Returns:
        The transformed example.

    Raises:
        RecipeError: a transform mixes examples, and there are no others.
    """
    for position, transform in enumerate(transforms):
        if not getattr(transform, "mixes", False):
            example = transform(example, rng)  # type: ignore[call-arg]
            continue
        if source is None:
            raise RecipeError(
                f"{type(transform).__name__} puts several examples together, and there is only this one. Use it in "
                "Data.batches, or give source=, a function that returns another example."
            )
        before = transforms[:position]

        def draw(before: Transforms = before, source: Callable[..., Example] = source) -> Example:
            return apply(before, source(rng), rng, source)

        example = transform(example, rng, draw)  # type: ignore[call-arg]
    return example


def bind(
    transforms: Transforms, size: tuple[int, int], classes: int, keypoint_names: Sequence[str] = ()
) -> tuple[Transform | Mixing, ...]:
    """Transforms that know what they must of net and data: their fields left at None are filled in.

    Args:
        transforms: what will be applied.
        size: (H, W) that the net takes.
        classes: number of labels.
        keypoint_names: of the set; "left" and "right" change places in a mirror.
    """
    order = mirrored_order(keypoint_names) if keypoint_names else None
    known = {"size": size, "classes": classes, "keypoint_order": order}

    def fill(transform: Any) -> Any:
        if not dataclasses.is_dataclass(transform):
            return transform
        names = {field.name for field in dataclasses.fields(transform)}
        missing = {name: value for name, value in known.items() if name in names and getattr(transform, name) is None}
        return dataclasses.replace(transform, **missing) if missing else transform  # type: ignore[type-var]

    return tuple(fill(transform) for transform in transforms)


def mirrored_order(names: Sequence[str]) -> tuple[int, ...]:
    """Which keypoint takes the place of each in a mirror: "left_eye" that of "right_eye"."""
    swapped = {"left": "right", "right": "left", "Left": "Right", "Right": "Left", "l": "r", "r": "l"}
    order = []
    for index, name in enumerate(names):
        parts = name.replace("-", "_").split("_")
        other = "_".join(swapped.get(part, part) for part in parts)
        matches = [i for i, each in enumerate(names) if each.replace("-", "_") == other]
        order.append(matches[0] if matches else index)
    return tuple(order)


def generator(salt: int, position: int) -> np.random.Generator:
    """The random numbers of one example: the same for the same two numbers, whichever thread asks."""
    return np.random.Generator(np.random.PCG64(np.random.SeedSequence((int(salt) & (2**63 - 1), int(position)))))


def augment(dataset: tf.data.Dataset, transforms: Sequence[Augmentation], seed: int = 0) -> tf.data.Dataset:
    """Applies transforms to a tf.data set of single examples.

    Examples differ from epoch to epoch, and are the same for the same seed in another run, whatever the parallelism.
    `Data.batches(augment=...)` does this for sets that kerasvision has loaded, and lets transforms mix them.

    Args:
        dataset: of dicts as in `kerasvision.augment`, with "masks" as [N, H, W]; other keys are passed on.
        transforms: transforms, their names, or {"name": ..., parameters}.
        seed: of all randomness.

    Returns:
        Data set of the same keys and types. Sizes that a transform may change are unknown in its specification.

    Raises:
        RecipeError: a transform mixes examples, or the examples are no dicts with an "image" of uint8.
    """
    cv2.setNumThreads(1)  # tf.data has a thread for every core already.
    spec = dataset.element_spec
    if not isinstance(spec, dict) or "image" not in spec or spec["image"].dtype != tf.uint8:
        raise RecipeError(f'Expected examples {{"image": uint8 [H, W, C], ...}}, got {spec}.')
    built = build(transforms)
    if any(getattr(transform, "mixes", False) for transform in built):
        apply(built, {}, generator(seed, 0))  # Raises the error that says what to do.
    keys = sorted(spec)

    def run(position: np.ndarray, salt: np.ndarray, *values: np.ndarray) -> list[np.ndarray]:
        example = dict(zip(keys, values, strict=True))
        if "masks" in example:
            example["masks"] = PackedMasks.pack(example["masks"])
        changed = apply(built, example, generator(int(salt), int(position)))
        if "masks" in changed:
            changed["masks"] = changed["masks"].unpack()
        return [np.asarray(changed[key], spec[key].dtype.as_numpy_dtype) for key in keys]

    def transform(position: tf.Tensor, salted: tuple[tf.Tensor, dict[str, tf.Tensor]]) -> dict[str, tf.Tensor]:
        salt, example = salted
        values = tf.numpy_function(
            run, [position, salt, *(example[key] for key in keys)], [spec[k].dtype for k in keys]
        )
        for key, value in zip(keys, values, strict=True):
            shape = spec[key].shape
            moved = key in ("image", "boxes", "classes", "crowd", "difficult", "masks", "keypoints", "segmentation")
            known = [None] * shape.rank if moved and shape.rank is not None else shape
            if key == "image":
                known[-1] = shape[-1]
            value.set_shape(known)
        return dict(zip(keys, values, strict=True))

    salts = tf.data.Dataset.random(seed=seed, rerandomize_each_iteration=True)
    return tf.data.Dataset.zip(salts, dataset).enumerate().map(transform, num_parallel_calls=tf.data.AUTOTUNE)
