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


def reduced_vgg(x: Any, variant: Variant, weights: str | None) -> dict[str, Any]:
    """VGG for SSD: its fully connected layers are convolutions at stride 16 (Liu et al., 2016, arXiv:1512.02325).

    Poolings round up, the last one is 3x3 with stride 1, "fc6" is 3x3 with holes (rate 6), "fc7" 1x1. Their published
    weights are every third place and every fourth channel of the fully connected layers' (Chen et al., 2015,
    arXiv:1412.7062).

    Args:
        x: normalized image, [B, H, W, C].
        variant: a row of `VARIANTS`.
        weights: None or "imagenet".

    Returns:
        P3 [B, H/8, W/8, 512], the fourth block, and P4 [B, H/16, W/16, 1024], fc7.

    Raises:
        WeightsError: no download.
    """
    whole = weights is not None
    net = build(variant.application, keras.Input((224, 224, x.shape[-1])), weights, include_top=whole)
    if whole:
        turn_to_rgb(net, "block1_conv1")

    def replace(operation: Any, operand: Any, name: str) -> Any:
        if not isinstance(operation, layers.MaxPooling2D):
            return None
        size, stride = (3, 1) if name == "block5_pool" else (2, 2)
        return layers.MaxPooling2D(size, stride, "same", name=name)(operand)

    made = transplant(net, x, end=net.get_layer("block5_pool").output, replace=replace)
    x = made["block5_pool"]
    # Window and rate; the fully connected layer it stands for, the side of its map, and every which input is left.
    for name, size, rate, source, places, inputs in (("fc6", 3, 6, "fc1", 7, 1), ("fc7", 1, 1, "fc2", 1, 4)):
        layer = layers.Conv2D(
            FULLY_CONNECTED // 4,
            size,
            padding="same",
            dilation_rate=rate,
            activation="relu",
            kernel_initializer="he_normal",
            name=name,
        )
        x = layer(x)
        if whole:
            kernel, bias = net.get_layer(source).get_weights()
            kernel = kernel.reshape(places, places, -1, FULLY_CONNECTED)[::3, ::3, ::inputs, ::4]
            layer.set_weights([kernel, bias[::4]])
    return {"P3": made[f"block4_conv{variant.depth}"], "P4": x}


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
