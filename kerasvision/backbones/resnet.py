"""ResNet-50, 101 and 152, of bottleneck blocks, versions 1 and 2, from keras.applications.

Version 1 (He et al., 2016, arXiv:1512.03385) adds, then activates; version 2 (He et al., 2016, arXiv:1603.05027)
normalizes and activates before each convolution, and the sum goes on untouched.
"""

from collections.abc import Callable
from typing import Any, NamedTuple

import keras

from kerasvision.backbones.applications import (
    RGB_MINUS_MEANS,
    SIGNED_RANGE,
    automatic_names,
    build,
    head,
    imagenet,
    transplant,
    turn_to_rgb,
)
from kerasvision.registry import register


class Variant(NamedTuple):
    """Blocks in each stage, and what is published."""

    application: Callable[..., keras.Model]
    depths: tuple[int, int, int, int]
    parameters: int
    top1: float
    top5: float


VERSION_1 = {
    "resnet50": Variant(keras.applications.ResNet50, (3, 4, 6, 3), 25_636_712, 0.749, 0.921),
    "resnet101": Variant(keras.applications.ResNet101, (3, 4, 23, 3), 44_707_176, 0.764, 0.928),
    "resnet152": Variant(keras.applications.ResNet152, (3, 8, 36, 3), 60_419_944, 0.766, 0.931),
}
VERSION_2 = {
    "resnet50_v2": Variant(keras.applications.ResNet50V2, (3, 4, 6, 3), 25_613_800, 0.760, 0.930),
    "resnet101_v2": Variant(keras.applications.ResNet101V2, (3, 4, 23, 3), 44_675_560, 0.772, 0.938),
    "resnet152_v2": Variant(keras.applications.ResNet152V2, (3, 8, 36, 3), 60_380_648, 0.780, 0.942),
}
# What multi-head self-attention takes the place of: the 3x3 convolutions of the last stage (BoTNet, Srinivas et al.,
# 2021, arXiv:2101.11605). None of them has a stride here.
LAST_STAGE = r"conv5_block\d+_2_(pad|conv)"


def resnet(x: Any, variant: Variant, weights: str | None, attention: str | None) -> dict[str, Any]:
    """Version 1.

    Args:
        x: normalized image, [B, H, W, C], at least 32x32.
        variant: a row of `VERSION_1`.
        weights: None or "imagenet".
        attention: a name of `kerasvision.layers.attention.ATTENTION` in front of every add, or "mhsa" in the place
            of the 3x3 convolution of the last stage's blocks; always with fresh weights.

    Returns:
        P1 [B, H/2, W/2, 64], P2 [B, H/4, W/4, 256] to P5 [B, H/32, W/32, 2048].
    """
    net = build(variant.application, x, weights)
    if weights is not None:
        turn_to_rgb(net, "conv1_conv")
    made = transplant(net, x, attention=attention, self_attention=LAST_STAGE)
    stages = {f"P{stage}": made[f"conv{stage}_block{depth}_out"] for stage, depth in enumerate(variant.depths, 2)}
    return {"P1": made["conv1_relu"], **stages}


def resnet_v2(x: Any, variant: Variant, weights: str | None, attention: str | None) -> dict[str, Any]:
    """Version 2; its features are the sums where they are normalized and activated.

    The stride stands in the last block of a stage here, so the last sum of a resolution is what that block takes.

    Args:
        x: normalized image, [B, H, W, C], at least 32x32.
        variant: a row of `VERSION_2`.
        weights: None or "imagenet".
        attention: as in `resnet`.

    Returns:
        P1 [B, H/2, W/2, 64], P2 [B, H/4, W/4, 256] to P5 [B, H/32, W/32, 2048].
    """
    net = build(variant.application, x, weights)
    # The shortcuts of the strided blocks are the only layers without a name.
    shortcuts = [f"conv{stage}_block{depth}_0_pool" for stage, depth in enumerate(variant.depths[:3], 2)]
    names = dict(zip(automatic_names(net, "MaxPooling2D"), shortcuts, strict=True))
    made = transplant(net, x, names=names, attention=attention, self_attention=LAST_STAGE)
    stages = {
        f"P{stage}": made[f"conv{stage}_block{depth}_preact_relu"] for stage, depth in enumerate(variant.depths[:3], 2)
    }
    return {"P1": made["conv1_conv"], **stages, "P5": made["post_relu"]}


def _register(name: str, variant: Variant) -> None:
    first = name in VERSION_1

    def builder(x: Any, *, weights: str | None = None, attention: str | None = None) -> dict[str, Any]:
        """See `resnet` and `resnet_v2`."""
        return (resnet if first else resnet_v2)(x, variant, weights, attention)

    weights = imagenet(
        "tensorflow/keras-applications/resnet",
        RGB_MINUS_MEANS if first else SIGNED_RANGE,
        parameters=variant.parameters,
        top1=variant.top1,
        top5=variant.top5,
        license="MIT" if first else "Apache-2.0",
    )
    register(name, weights={"imagenet": weights}, load_head=lambda weights, **_: head(variant.application))(builder)


for _name, _variant in {**VERSION_1, **VERSION_2}.items():
    _register(_name, _variant)
