"""VGG-16 and VGG-19 (Simonyan & Zisserman, 2015, arXiv:1409.1556), from keras.applications."""

from collections.abc import Callable
from typing import Any, NamedTuple

import keras
from keras import layers

from kerasvision.backbones.applications import RGB_MINUS_MEANS, build, head, imagenet, transplant, turn_to_rgb
from kerasvision.errors import WeightsError
from kerasvision.registry import register

FULLY_CONNECTED = 4096


class Variant(NamedTuple):
    """Convolutions in the last three blocks, and what is published."""

    application: Callable[..., keras.Model]
    depth: int
    parameters: int
    top1: float
    top5: float


VARIANTS = {
    "vgg16": Variant(keras.applications.VGG16, 3, 138_357_544, 0.713, 0.901),
    "vgg19": Variant(keras.applications.VGG19, 4, 143_667_240, 0.713, 0.900),
}


def vgg(x: Any, variant: Variant, weights: str | None, fully_connected: bool) -> dict[str, Any]:
    """Five blocks of 3x3 convolutions, max-pooling behind each.

    Args:
        x: normalized image, [B, H, W, C], at least 32x32.
        variant: a row of `VARIANTS`.
        weights: None or "imagenet".
        fully_connected: whether "top" is what the two fully connected layers make of P5.

    Returns:
        P1 [B, H/2, W/2, 128] to P4 [B, H/16, W/16, 512] before the pooling, P5 [B, H/32, W/32, 512] behind the last
        one, and "top" [B, 4096] where it was asked for.

    Raises:
        WeightsError: no download, or published fully connected layers for an image of another size than 224x224.
    """
    whole = fully_connected and weights is not None
    if whole and tuple(x.shape[1:]) != (224, 224, 3):
        raise WeightsError(
            f"The published fully connected layers take images of 224x224x3, got {tuple(x.shape[1:])}. Give "
            "input_shape=(224, 224, 3), or fully_connected=False, which leaves the two layers out."
        )
    net = build(variant.application, x, weights, include_top=whole)
    if weights is not None:
        turn_to_rgb(net, "block1_conv1")
    made = transplant(net, x, end=net.get_layer("block5_pool").output)
    features = {
        "P1": made["block2_conv2"],
        "P2": made[f"block3_conv{variant.depth}"],
        "P3": made[f"block4_conv{variant.depth}"],
        "P4": made[f"block5_conv{variant.depth}"],
        "P5": made["block5_pool"],
    }
    if fully_connected:
        top = layers.Flatten(name="flatten")(features["P5"])  # [B, H/32 * W/32 * 512]
        for name in ("fc1", "fc2"):
            layer = layers.Dense(FULLY_CONNECTED, activation="relu", name=name)
            top = layer(top)
            if whole:
                layer.set_weights(net.get_layer(name).get_weights())
        features["top"] = top
    return features


def _register(name: str, variant: Variant) -> None:
    def builder(x: Any, *, weights: str | None = None, fully_connected: bool = True) -> dict[str, Any]:
        """See `vgg`."""
        return vgg(x, variant, weights, fully_connected)

    def load_head(weights: str, fully_connected: bool = True) -> list[Any]:
        if not fully_connected:
            raise WeightsError(
                "The published classifier of the 1000 classes stands on the fully connected layers. Leave "
                "fully_connected at True, or give labels or num_classes of your own."
            )
        return head(variant.application)

    weights = imagenet(
        f"tensorflow/keras-applications/{name}",
        RGB_MINUS_MEANS,
        parameters=variant.parameters,
        top1=variant.top1,
        top5=variant.top5,
        license="CC-BY-4.0",
    )
    register(name, weights={"imagenet": weights}, load_head=load_head)(builder)


for _name, _variant in VARIANTS.items():
    _register(_name, _variant)
