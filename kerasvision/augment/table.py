"""The table of transforms by name, and `build`, which makes them from names and configurations."""

import dataclasses
from collections.abc import Mapping, Sequence
from typing import Any

from kerasvision.augment import (
    autoaugment,
    color,
    corruptions,
    crops,
    degrade,
    geometry,
    illumination,
    mixing,
    mosaic,
    occlusion,
    policies,
    tone,
)
from kerasvision.augment.base import Augmentation, Mixing, Transform
from kerasvision.errors import RecipeError, UnknownNameError, closest

TRANSFORMS: dict[str, type] = {
    "affine": geometry.Affine,
    "aug_mix": policies.AugMix,
    "auto_augment": autoaugment.AutoAugment,
    "autocontrast": tone.AutoContrast,
    "brightness": color.Brightness,
    "channel_dropout": color.ChannelDropout,
    "channel_shuffle": color.ChannelShuffle,
    "clahe": tone.CLAHE,
    "color": color.Color,
    "contrast": color.Contrast,
    "copy_paste": mixing.CopyPaste,
    "corrupt": corruptions.Corrupt,
    "crop": crops.Crop,
    "cutmix": mixing.CutMix,
    "cutout": occlusion.Cutout,
    "defocus_blur": degrade.DefocusBlur,
    "downscale": degrade.Downscale,
    "elastic": geometry.Elastic,
    "equalize": tone.Equalize,
    "erase": occlusion.Erase,
    "expand": crops.Expand,
    "flip": geometry.Flip,
    "fog": degrade.Fog,
    "gamma": tone.Gamma,
    "gaussian_blur": degrade.GaussianBlur,
    "gaussian_noise": degrade.GaussianNoise,
    "grey": color.Grey,
    "grey_world": illumination.GreyWorld,
    "grid_mask": occlusion.GridMask,
    "hide_and_seek": occlusion.HideAndSeek,
    "hue": color.Hue,
    "color_cast": color.ColorCast,
    "impulse_noise": degrade.ImpulseNoise,
    "invert": tone.Invert,
    "jpeg_quality": degrade.JPEGQuality,
    "letterbox": crops.Letterbox,
    "local_contrast": illumination.LocalContrast,
    "mixup": mixing.MixUp,
    "mosaic": mosaic.Mosaic,
    "motion_blur": degrade.MotionBlur,
    "pad": crops.Pad,
    "perspective": geometry.Perspective,
    "posterize": tone.Posterize,
    "rand_augment": policies.RandAugment,
    "resized_crop": crops.ResizedCrop,
    "retinex": illumination.Retinex,
    "rot90": geometry.Rot90,
    "rotate": geometry.Rotate,
    "saturation": color.Saturation,
    "scale": geometry.Scale,
    "shadow": degrade.Shadow,
    "sharpness": tone.Sharpness,
    "shear": geometry.Shear,
    "shot_noise": degrade.ShotNoise,
    "solarize": tone.Solarize,
    "speckle_noise": degrade.SpeckleNoise,
    "ssd_crop": crops.SSDCrop,
    "standardize": illumination.Standardize,
    "translate": geometry.Translate,
    "trivial_augment": policies.TrivialAugment,
}


def build(augmentations: Sequence[Augmentation]) -> tuple[Transform | Mixing, ...]:
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


def _build_one(augmentation: Augmentation) -> Transform | Mixing:
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
    config = {key: _tuples(value) for key, value in config.items()}
    try:
        return TRANSFORMS[name](**config)
    except (TypeError, RecipeError) as error:
        raise RecipeError(f'The augmentation "{name}" cannot be made from {config}: {error}') from error


def _tuples(value: Any) -> Any:
    return tuple(_tuples(each) for each in value) if isinstance(value, list) else value
