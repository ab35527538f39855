"""Xception (Chollet, 2017, arXiv:1610.02357), from keras.applications."""

from typing import Any

import keras

from kerasvision.backbones.applications import SIGNED_RANGE, automatic_names, build, head, imagenet, transplant
from kerasvision.registry import register

# Blocks with a stride, whose shortcut is a convolution, and all blocks with a shortcut.
STRIDED = (2, 3, 4, 13)
RESIDUAL = tuple(range(2, 14))
TAPS = {
    "P1": "block2_sepconv2_bn",
    "P2": "block3_sepconv2_bn",
    "P3": "block4_sepconv2_bn",
    "P4": "block13_sepconv2_bn",
    "P5": "block14_sepconv2_act",
}


def layer_names(net: keras.Model) -> dict[str, str]:
    """Name in keras.applications -> readable name, for every layer without a name of its own."""
    wanted = {
        "Conv2D": [f"block{block}_shortcut_conv" for block in STRIDED],
        "BatchNormalization": [f"block{block}_shortcut_bn" for block in STRIDED],
        "Add": [f"block{block}_add" for block in RESIDUAL],
    }
    names: dict[str, str] = {}
    for kind, readable in wanted.items():
        names.update(zip(automatic_names(net, kind), readable, strict=True))
    return names


@register(
    "xception",
    input_shape=(299, 299, 3),
    load_head=lambda weights, **_: head(keras.applications.Xception),
    weights={
        "imagenet": imagenet(
            "tensorflow/keras-applications/xception",
            SIGNED_RANGE,
            parameters=22_910_480,
            top1=0.790,
            top5=0.945,
            license="MIT",
        )
    },
)
def xception(x: Any, *, weights: str | None = None, attention: str | None = None) -> dict[str, Any]:
    """Xception: residual blocks of separable convolutions.

    The stem does not pad, so the maps are a little smaller or larger than H/2, H/4, ...: 147, 74, 37, 19 and 10 of 299.

    Args:
        x: normalized image, [B, H, W, C], at least 71x71.
        weights: None or "imagenet".
        attention: a name of `kerasvision.layers.attention.ATTENTION` in front of every add, or "mhsa" in front of the
            last one; always with fresh weights.

    Returns:
        The last map of each resolution, P1 of 128 channels to P5 of 2048; P1 to P4 before pooling and add.
    """
    net = build(keras.applications.Xception, x, weights)
    made = transplant(net, x, names=layer_names(net), attention=attention, self_attention="block13_add")
    return {level: made[name] for level, name in TAPS.items()}
