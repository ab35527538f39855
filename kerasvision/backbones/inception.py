"""Inception-V3 (Szegedy et al., 2016, arXiv:1512.00567), from keras.applications."""

from typing import Any

import keras

from kerasvision.backbones.applications import SIGNED_RANGE, automatic_names, build, head, imagenet, transplant
from kerasvision.registry import register

# The convolutions of each block in the order in which keras.applications makes them; it gives them no names.
STEM = ("1", "2", "3", "4", "5")
FACTORIZED_5X5 = ("1x1", "5x5_1", "5x5_2", "3x3dbl_1", "3x3dbl_2", "3x3dbl_3", "pool")
FACTORIZED_7X7 = ("1x1", *(f"7x7_{i}" for i in (1, 2, 3)), *(f"7x7dbl_{i}" for i in (1, 2, 3, 4, 5)), "pool")
WIDE = ("1x1", "3x3_1", "3x3_2a", "3x3_2b", "3x3dbl_1", "3x3dbl_2", "3x3dbl_3a", "3x3dbl_3b", "pool")
BLOCKS = {
    "stem": STEM,
    "mixed0": FACTORIZED_5X5,
    "mixed1": FACTORIZED_5X5,
    "mixed2": FACTORIZED_5X5,
    "mixed3": ("3x3", "3x3dbl_1", "3x3dbl_2", "3x3dbl_3"),
    "mixed4": FACTORIZED_7X7,
    "mixed5": FACTORIZED_7X7,
    "mixed6": FACTORIZED_7X7,
    "mixed7": FACTORIZED_7X7,
    "mixed8": ("3x3_1", "3x3_2", "7x7x3_1", "7x7x3_2", "7x7x3_3", "7x7x3_4"),
    "mixed9": WIDE,
    "mixed10": WIDE,
}
TAPS = {"P1": "stem_3_relu", "P2": "stem_5_relu", "P3": "mixed2", "P4": "mixed7", "P5": "mixed10"}


def layer_names(net: keras.Model) -> dict[str, str]:
    """Name in keras.applications -> readable name, for every layer without a name of its own."""
    convolutions = [f"{block}_{convolution}" for block, names in BLOCKS.items() for convolution in names]
    averages = [f"{block}_pool" for block, names in BLOCKS.items() if "pool" in names]
    wanted = {
        "Conv2D": [f"{name}_conv" for name in convolutions],
        "BatchNormalization": [f"{name}_bn" for name in convolutions],
        "Activation": [f"{name}_relu" for name in convolutions],
        "MaxPooling2D": ["stem_pool1", "stem_pool2", "mixed3_pool", "mixed8_pool"],
        "AveragePooling2D": averages,
        "Concatenate": ["mixed9_3x3dbl", "mixed10_3x3dbl"],
    }
    names = {"mixed9_0": "mixed9_3x3", "mixed9_1": "mixed10_3x3"}
    for kind, readable in wanted.items():
        names.update(zip(automatic_names(net, kind), readable, strict=True))
    return names


@register(
    "inception_v3",
    input_shape=(299, 299, 3),
    load_head=lambda weights: head(keras.applications.InceptionV3),
    weights={
        "imagenet": imagenet(
            "tensorflow/keras-applications/inception_v3",
            SIGNED_RANGE,
            parameters=23_851_784,
            top1=0.779,
            top5=0.937,
        )
    },
)
def inception_v3(x: Any, *, weights: str | None = None) -> dict[str, Any]:
    """Inception-V3: 5x5 and 7x7 convolutions factorized into smaller ones.

    Stem and reductions do not pad, so the maps are a little smaller than H/2, H/4, ...: 147, 71, 35, 17 and 8 of 299.

    Args:
        x: normalized image, [B, H, W, C], at least 75x75.
        weights: None or "imagenet".

    Returns:
        The last map of each resolution, P1 of 64 channels to P5 of 2048.
    """
    net = build(keras.applications.InceptionV3, x, weights)
    made = transplant(net, x, names=layer_names(net))
    return {level: made[name] for level, name in TAPS.items()}
