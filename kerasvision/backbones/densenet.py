"""DenseNet-121, 169 and 201 (Huang et al., 2017, arXiv:1608.06993), from keras.applications."""

from collections.abc import Callable
from typing import Any, NamedTuple

import keras

from kerasvision.backbones.applications import STANDARDIZED, automatic_names, build, head, imagenet, transplant
from kerasvision.registry import register


class Variant(NamedTuple):
    """What is published."""

    application: Callable[..., keras.Model]
    parameters: int
    top1: float
    top5: float


VARIANTS = {
    "densenet121": Variant(keras.applications.DenseNet121, 8_062_504, 0.750, 0.923),
    "densenet169": Variant(keras.applications.DenseNet169, 14_307_880, 0.762, 0.932),
    "densenet201": Variant(keras.applications.DenseNet201, 20_242_984, 0.773, 0.936),
}


def densenet(x: Any, variant: Variant, weights: str | None) -> dict[str, Any]:
    """Blocks in which every layer takes what all layers before it gave.

    Args:
        x: normalized image, [B, H, W, C], at least 32x32.
        variant: a row of `VARIANTS`.
        weights: None or "imagenet".

    Returns:
        P1 [B, H/2, W/2, 64], and the dense blocks, normalized and activated: P2 [B, H/4, W/4, 256] to
        P5 [B, H/32, W/32, 1024 or more].
    """
    net = build(variant.application, x, weights)
    names = dict(zip(automatic_names(net, "ZeroPadding2D"), ("conv1_pad", "pool1_pad"), strict=True))
    made = transplant(net, x, names=names)
    taps = {"P1": "conv1_relu", "P2": "pool2_relu", "P3": "pool3_relu", "P4": "pool4_relu", "P5": "relu"}
    return {level: made[name] for level, name in taps.items()}


def _register(name: str, variant: Variant) -> None:
    def builder(x: Any, *, weights: str | None = None) -> dict[str, Any]:
        """See `densenet`."""
        return densenet(x, variant, weights)

    weights = imagenet(
        "tensorflow/keras-applications/densenet",
        STANDARDIZED,
        parameters=variant.parameters,
        top1=variant.top1,
        top5=variant.top5,
        license="BSD-3-Clause",
    )
    register(name, weights={"imagenet": weights}, load_head=lambda weights: head(variant.application))(builder)


for _name, _variant in VARIANTS.items():
    _register(_name, _variant)
