"""The table of transforms by name, and `build`, which makes them from names and configurations."""

import dataclasses
from collections.abc import Mapping, Sequence

from kerasvision.augment.base import Augmentation, Transform
from kerasvision.augment.geometry import Crop, Flip, ResizedCrop, Rotate
from kerasvision.augment.pixels import Color, Erase
from kerasvision.errors import RecipeError, UnknownNameError, closest

TRANSFORMS: dict[str, type] = {
    "color": Color,
    "crop": Crop,
    "erase": Erase,
    "flip": Flip,
    "resized_crop": ResizedCrop,
    "rotate": Rotate,
}


def build(augmentations: Sequence[Augmentation]) -> tuple[Transform, ...]:
    """Makes transforms.

    Args:
        augmentations: transforms as they are, names such as "flip", or {"name": "crop", "padding": 4}.

    Returns:
        The transforms, in the same order.

    Raises:
        UnknownNameError: there is no transform of that name.
        RecipeError: a parameter is unknown or out of range.
    """
    if isinstance(augmentations, str | Mapping):
        raise RecipeError(f"Expected a list of augmentations, got {augmentations!r}; put it in a list.")
    return tuple(_build_one(augmentation) for augmentation in augmentations)


def _build_one(augmentation: Augmentation) -> Transform:
    if not isinstance(augmentation, str | Mapping):
        if not callable(augmentation):
            raise RecipeError(f'Expected a transform, a name or {{"name": ...}}, got {augmentation!r}.')
        return augmentation
    config = {"name": augmentation} if isinstance(augmentation, str) else dict(augmentation)
    name = config.pop("name", None)
    if name not in TRANSFORMS:
        raise UnknownNameError(f'Unknown augmentation "{name}".{closest(str(name), TRANSFORMS)}')
    parameters = [field.name for field in dataclasses.fields(TRANSFORMS[name])]
    for key in config:
        if key not in parameters:
            raise RecipeError(f'The augmentation "{name}" has no parameter "{key}".{closest(key, parameters)}')
    # YAML knows lists only; a frozen dataclass wants tuples.
    config = {key: tuple(value) if isinstance(value, list) else value for key, value in config.items()}
    try:
        return TRANSFORMS[name](**config)
    except (TypeError, RecipeError) as error:
        raise RecipeError(f'The augmentation "{name}" cannot be made from {config}: {error}') from error
