"""Augmentation: transforms from example to example, made to run inside tf.data.

An example is a dict of what one image is and holds; all of its keys but "image" are optional. Coordinates are
continuous pixels, (0, 0) is the top left corner.

- "image": uint8 [H, W, 1 or 3].
- "label": class index; "labels": float32 [K] of 0..1; "label_weights": float32 [K], the shares of mixed images.
- "boxes": float32 [N, 4] xyxy; "classes": int32 [N]; "crowd", "difficult": bool [N].
- "masks": `kerasvision.masks.PackedMasks` of the N objects.
- "keypoints": float32 [N, P, 3] of (x, y, visibility); visibility 0 is absent, 1 covered, 2 visible.
- "segmentation": uint8 [H, W] of class indices; 255 is void.
"""

from kerasvision.augment.autoaugment import AutoAugment
from kerasvision.augment.base import Augmentation, Example, Mixing, Transform
from kerasvision.augment.color import (
    Brightness,
    ChannelDropout,
    ChannelShuffle,
    Color,
    ColorCast,
    Contrast,
    Grey,
    Hue,
    Saturation,
)
from kerasvision.augment.compose import apply, augment, bind, generator
from kerasvision.augment.corruptions import CORRUPTIONS, Corrupt, corrupt
from kerasvision.augment.crops import Crop, Expand, Letterbox, Pad, ResizedCrop, SSDCrop
from kerasvision.augment.degrade import (
    DefocusBlur,
    Downscale,
    Fog,
    GaussianBlur,
    GaussianNoise,
    ImpulseNoise,
    JPEGQuality,
    MotionBlur,
    Shadow,
    ShotNoise,
    SpeckleNoise,
)
from kerasvision.augment.geometry import (
    Affine,
    Elastic,
    Flip,
    Perspective,
    Rot90,
    Rotate,
    Scale,
    Shear,
    Translate,
)
from kerasvision.augment.illumination import GreyWorld, LocalContrast, Retinex, Standardize
from kerasvision.augment.mixing import CopyPaste, CutMix, MixUp
from kerasvision.augment.mosaic import Mosaic
from kerasvision.augment.moves import Fill, keep_visible, move_rest, warp, window
from kerasvision.augment.occlusion import Cutout, Erase, GridMask, HideAndSeek
from kerasvision.augment.policies import AugMix, RandAugment, TrivialAugment
from kerasvision.augment.table import TRANSFORMS, build
from kerasvision.augment.tone import CLAHE, AutoContrast, Equalize, Gamma, Invert, Posterize, Sharpness, Solarize

__all__ = [
    "CLAHE",
    "CORRUPTIONS",
    "TRANSFORMS",
    "Affine",
    "AugMix",
    "Augmentation",
    "AutoAugment",
    "AutoContrast",
    "Brightness",
    "ChannelDropout",
    "ChannelShuffle",
    "Color",
    "ColorCast",
    "Contrast",
    "CopyPaste",
    "Corrupt",
    "Crop",
    "CutMix",
    "Cutout",
    "DefocusBlur",
    "Downscale",
    "Elastic",
    "Equalize",
    "Erase",
    "Example",
    "Expand",
    "Fill",
    "Flip",
    "Fog",
    "Gamma",
    "GaussianBlur",
    "GaussianNoise",
    "Grey",
    "GreyWorld",
    "GridMask",
    "HideAndSeek",
    "Hue",
    "ImpulseNoise",
    "Invert",
    "JPEGQuality",
    "Letterbox",
    "LocalContrast",
    "MixUp",
    "Mixing",
    "Mosaic",
    "MotionBlur",
    "Pad",
    "Perspective",
    "Posterize",
    "RandAugment",
    "ResizedCrop",
    "Retinex",
    "Rot90",
    "Rotate",
    "SSDCrop",
    "Saturation",
    "Scale",
    "Shadow",
    "Sharpness",
    "Shear",
    "ShotNoise",
    "Solarize",
    "SpeckleNoise",
    "Standardize",
    "Transform",
    "Translate",
    "TrivialAugment",
    "apply",
    "augment",
    "bind",
    "build",
    "corrupt",
    "generator",
    "keep_visible",
    "move_rest",
    "warp",
    "window",
]
