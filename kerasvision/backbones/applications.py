"""MobileNetV2 and ResNet50 on keras.applications, built flat on the given tensor.

Graphs and ImageNet weights are those of keras.applications (Apache-2.0); here stand the names of the taps, the
preprocessing that belongs to the weights, and an error with a remedy where the download fails.
"""

from collections.abc import Callable
from typing import Any

import keras

from kerasvision.errors import WeightsError
from kerasvision.preprocessing import Preprocessing
from kerasvision.registry import Weights, register


def build(
    application: Callable[..., keras.Model], taps: dict[str, str], x: Any, weights: str | None, **arguments: Any
) -> tuple[keras.Model, dict[str, Any]]:
    """Build a keras.applications net on a tensor.

    Args:
        application: such as keras.applications.MobileNetV2.
        taps: feature name -> layer name.
        x: normalized image tensor.
        weights: None or "imagenet".
        **arguments: of the application.

    Returns:
        The net, and its feature maps by name.

    Raises:
        WeightsError: the weights could not be downloaded.
    """
    net = _download_or_explain(application, include_top=False, weights=weights, input_tensor=x, **arguments)
    return net, {name: net.get_layer(layer).output for name, layer in taps.items()}


def head(application: Callable[..., keras.Model], **arguments: Any) -> list[Any]:
    """[kernel, bias] of the ImageNet classifier that keras.applications publishes for the net.

    Raises:
        WeightsError: the weights could not be downloaded.
    """
    net = _download_or_explain(application, include_top=True, weights="imagenet", **arguments)
    return net.get_layer("predictions").get_weights()


def _download_or_explain(application: Callable[..., keras.Model], **arguments: Any) -> keras.Model:
    try:
        return application(**arguments)
    except Exception as error:
        # keras.utils.get_file raises a bare Exception for every way in which a download can fail.
        if "URL fetch failure" not in str(error) and "does not match" not in str(error):
            raise
        raise WeightsError(
            f"The ImageNet weights of {application.__name__} could not be downloaded ({error}). Connect this machine "
            "to the internet, or download that file elsewhere and put it into ~/.keras/models (or $KERAS_HOME/models), "
            "or train from fresh weights with weights=None."
        ) from error


MOBILENET_V2_TAPS = {
    "P1": "expanded_conv_project_BN",
    "P2": "block_2_add",
    "P3": "block_5_add",
    "P4": "block_12_add",
    "P5": "block_16_project_BN",
    "top": "out_relu",
}
RESNET50_TAPS = {
    "P1": "conv1_relu",
    "P2": "conv2_block3_out",
    "P3": "conv3_block4_out",
    "P4": "conv4_block6_out",
    "P5": "conv5_block3_out",
}
# The published ResNet50 takes BGR pixels minus these means; its first kernel is turned to RGB when it is loaded.
IMAGENET_MEANS = (123.68, 116.779, 103.939)


def _mobilenet_v2_head(weights: str, alpha: float = 1.0) -> list[Any]:
    return head(keras.applications.MobileNetV2, alpha=alpha)


@register(
    "mobilenet_v2",
    load_head=_mobilenet_v2_head,
    weights={
        "imagenet": Weights(
            source="https://storage.googleapis.com/tensorflow/keras-applications/mobilenet_v2/",
            sha256=None,
            preprocessing=Preprocessing(
                scale=(1 / 127.5,), offset=(-1.0,), fit="crop", crop_fraction=0.875, interpolation="bilinear"
            ),
            classes=1000,
            parameters=3_538_984,
            metrics={"imagenet_top1": 0.713, "imagenet_top5": 0.901},
            recipe="https://keras.io/api/applications/",
            license="Apache-2.0",
        )
    },
)
def mobilenet_v2(x: Any, *, weights: str | None = None, alpha: float = 1.0) -> dict[str, Any]:
    """MobileNetV2 (Sandler et al., 2018, arXiv:1801.04381).

    Args:
        x: normalized image, [B, H, W, C], at least 32x32.
        weights: None or "imagenet".
        alpha: factor on the number of channels.

    Returns:
        P1 to P5 and "top" [B, H/32, W/32, 1280].
    """
    return build(keras.applications.MobileNetV2, MOBILENET_V2_TAPS, x, weights, alpha=alpha)[1]


def _resnet50_head(weights: str) -> list[Any]:
    return head(keras.applications.ResNet50)


@register(
    "resnet50",
    load_head=_resnet50_head,
    weights={
        "imagenet": Weights(
            source="https://storage.googleapis.com/tensorflow/keras-applications/resnet/",
            sha256=None,
            preprocessing=Preprocessing(
                scale=(1.0,), offset=tuple(-mean for mean in IMAGENET_MEANS), fit="crop", crop_fraction=0.875
            ),
            classes=1000,
            parameters=25_636_712,
            metrics={"imagenet_top1": 0.749, "imagenet_top5": 0.921},
            recipe="https://keras.io/api/applications/",
            license="Apache-2.0",
        )
    },
)
def resnet50(x: Any, *, weights: str | None = None) -> dict[str, Any]:
    """ResNet-50 (He et al., 2016, arXiv:1512.03385).

    Args:
        x: normalized image, [B, H, W, C], at least 32x32.
        weights: None or "imagenet".

    Returns:
        P1 to P5; P5 is [B, H/32, W/32, 2048].
    """
    net, features = build(keras.applications.ResNet50, RESNET50_TAPS, x, weights)
    if weights == "imagenet":
        stem = net.get_layer("conv1_conv")
        kernel, bias = stem.get_weights()  # kernel [7, 7, 3, 64]
        stem.set_weights([kernel[:, :, ::-1], bias])
    return features
