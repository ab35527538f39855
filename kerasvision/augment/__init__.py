"""Augmentation: transforms from example to example, made to run inside tf.data."""

from kerasvision.augment.base import Augmentation, Transform
from kerasvision.augment.geometry import Crop, Flip, ResizedCrop, Rotate, rotate
from kerasvision.augment.pixels import Color, Erase
from kerasvision.augment.table import TRANSFORMS, build

__all__ = [
    "TRANSFORMS",
    "Augmentation",
    "Color",
    "Crop",
    "Erase",
    "Flip",
    "ResizedCrop",
    "Rotate",
    "Transform",
    "build",
    "rotate",
]
