"""EfficientNet B0 to B3 (Tan & Le, 2019, arXiv:1905.11946) and V2-B0 (Tan & Le, 2021, arXiv:2104.00298).

From keras.applications, without the Rescaling and Normalization that are hidden in its graphs: they are the
preprocessing of the weights here.
"""

import dataclasses
from collections.abc import Callable
from typing import Any, NamedTuple

import keras

from kerasvision.backbones.applications import STANDARDIZED, build, head, imagenet, last_of, transplant
from kerasvision.registry import register


class Variant(NamedTuple):
    """The image size in pixels it was made for, and what is published."""

    application: Callable[..., keras.Model]
    resolution: int
    parameters: int
    top1: float
    top5: float


# Published counts of B0 to B3 are larger by 7: mean, variance and counter of the hidden normalization.
VERSION_1 = {
    "efficientnet_b0": Variant(keras.applications.EfficientNetB0, 224, 5_330_564, 0.771, 0.933),
    "efficientnet_b1": Variant(keras.applications.EfficientNetB1, 240, 7_856_232, 0.791, 0.944),
    "efficientnet_b2": Variant(keras.applications.EfficientNetB2, 260, 9_177_562, 0.801, 0.949),
    "efficientnet_b3": Variant(keras.applications.EfficientNetB3, 300, 12_320_528, 0.816, 0.957),
}
VERSION_2 = {"efficientnet_v2b0": Variant(keras.applications.EfficientNetV2B0, 224, 7_200_312, 0.787, 0.943)}
# The last stage of each resolution, and the residual adds at the lowest one.
LEVELS_1 = {"P1": "block1", "P2": "block2", "P3": "block3", "P4": "block5", "P5": "block7"}
LEVELS_2 = {"P1": "block1", "P2": "block2", "P3": "block3", "P4": "block5", "P5": "block6"}
LAST_STAGE_1 = r"block[67]._add"
LAST_STAGE_2 = r"block6._add"


def efficientnet(x: Any, variant: Variant, weights: str | None, attention: str | None) -> dict[str, Any]:
    """Inverted residual blocks with squeeze-and-excitation.

    Args:
        x: normalized image, [B, H, W, C], at least 32x32.
        variant: a row of `VERSION_1`.
        weights: None or "imagenet".
        attention: a name of `kerasvision.layers.attention.ATTENTION` in front of every add, or "mhsa" in front of
            those at 1/32; beside the net's own, and always with fresh weights.

    Returns:
        P1 [B, H/2, W/2, _] to P5 [B, H/32, W/32, _], and "top" [B, H/32, W/32, 1280 or more].
    """
    net = build(variant.application, x, weights)
    begin = net.get_layer("stem_conv_pad").input
    made = transplant(net, x, begin=begin, attention=attention, self_attention=LAST_STAGE_1)
    return _features(made, LEVELS_1)


def efficientnet_v2(x: Any, variant: Variant, weights: str | None, attention: str | None) -> dict[str, Any]:
    """The first stages of plain convolutions, the others of inverted residual blocks.

    Args:
        x: normalized image, [B, H, W, C], at least 32x32.
        variant: a row of `VERSION_2`.
        weights: None or "imagenet".
        attention: as in `efficientnet`.

    Returns:
        P1 [B, H/2, W/2, _] to P5 [B, H/32, W/32, _], and "top" [B, H/32, W/32, 1280].
    """
    net = build(variant.application, x, weights, include_preprocessing=False)
    return _features(transplant(net, x, attention=attention, self_attention=LAST_STAGE_2), LEVELS_2)


def _features(made: dict[str, Any], levels: dict[str, str]) -> dict[str, Any]:
    return {**{level: last_of(made, stage) for level, stage in levels.items()}, "top": made["top_activation"]}


def _register(name: str, variant: Variant) -> None:
    first = name in VERSION_1

    def builder(x: Any, *, weights: str | None = None, attention: str | None = None) -> dict[str, Any]:
        """See `efficientnet` and `efficientnet_v2`."""
        return (efficientnet if first else efficientnet_v2)(x, variant, weights, attention)

    size = variant.resolution
    weights = imagenet(
        "keras-applications" if first else "tensorflow/keras-applications/efficientnet_v2",
        # The official evaluation resizes to 32 pixels more than it cuts out.
        dataclasses.replace(STANDARDIZED, crop_fraction=size / (size + 32), interpolation="bicubic"),
        parameters=variant.parameters,
        top1=variant.top1,
        top5=variant.top5,
    )
    register(
        name,
        input_shape=(size, size, 3),
        weights={"imagenet": weights},
        load_head=lambda weights, **_: head(variant.application),
    )(builder)


for _name, _variant in {**VERSION_1, **VERSION_2}.items():
    _register(_name, _variant)
