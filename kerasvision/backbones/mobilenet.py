"""MobileNet V1, V2, V3-Small and V3-Large, from keras.applications."""

from collections.abc import Callable
from typing import Any, NamedTuple

import keras
from keras import layers

from kerasvision.backbones.applications import (
    SIGNED_RANGE,
    automatic_names,
    build,
    head,
    imagenet,
    is_automatic,
    transplant,
)
from kerasvision.registry import register

V1_TAPS = {
    "P1": "conv_pw_1_relu",
    "P2": "conv_pw_3_relu",
    "P3": "conv_pw_5_relu",
    "P4": "conv_pw_11_relu",
    "P5": "conv_pw_13_relu",
}
V2_TAPS = {
    "P1": "expanded_conv_project_BN",
    "P2": "block_2_add",
    "P3": "block_5_add",
    "P4": "block_12_add",
    "P5": "block_16_project_BN",
    "top": "out_relu",
}


@register(
    "mobilenet_v1",
    load_head=lambda weights, alpha=1.0: head(keras.applications.MobileNet, "conv_preds", alpha=alpha),
    weights={
        "imagenet": imagenet(
            "tensorflow/keras-applications/mobilenet", SIGNED_RANGE, parameters=4_253_864, top1=0.704, top5=0.895
        )
    },
)
def mobilenet_v1(x: Any, *, weights: str | None = None, alpha: float = 1.0) -> dict[str, Any]:
    """MobileNet (Howard et al., 2017, arXiv:1704.04861).

    Args:
        x: normalized image, [B, H, W, C], at least 32x32.
        weights: None or "imagenet".
        alpha: factor on the number of channels.

    Returns:
        P1 [B, H/2, W/2, 64] to P5 [B, H/32, W/32, 1024].
    """
    made = transplant(build(keras.applications.MobileNet, x, weights, alpha=alpha), x)
    return {level: made[name] for level, name in V1_TAPS.items()}


@register(
    "mobilenet_v2",
    load_head=lambda weights, alpha=1.0, **_: head(keras.applications.MobileNetV2, alpha=alpha),
    weights={
        "imagenet": imagenet(
            "tensorflow/keras-applications/mobilenet_v2", SIGNED_RANGE, parameters=3_538_984, top1=0.713, top5=0.901
        )
    },
)
def mobilenet_v2(
    x: Any, *, weights: str | None = None, alpha: float = 1.0, attention: str | None = None
) -> dict[str, Any]:
    """MobileNetV2 (Sandler et al., 2018, arXiv:1801.04381).

    Args:
        x: normalized image, [B, H, W, C], at least 32x32.
        weights: None or "imagenet".
        alpha: factor on the number of channels.
        attention: a name of `kerasvision.layers.attention.ATTENTION` in front of every add, or "mhsa" in front of
            those at 1/32; always with fresh weights.

    Returns:
        P1 to P5 and "top" [B, H/32, W/32, 1280].
    """
    net = build(keras.applications.MobileNetV2, x, weights, alpha=alpha)
    made = transplant(net, x, attention=attention, self_attention=r"block_1[45]_add")
    return {level: made[name] for level, name in V2_TAPS.items()}


class V3(NamedTuple):
    """Taps behind P1, the last residual adds, and what is published."""

    application: Callable[..., keras.Model]
    taps: dict[str, str]
    last_stage: str
    parameters: int
    top1: float


V3_VARIANTS = {
    "mobilenet_v3_small": V3(
        keras.applications.MobileNetV3Small,
        {
            "P2": "expanded_conv_project_bn",
            "P3": "expanded_conv_2_add",
            "P4": "expanded_conv_7_add",
            "P5": "expanded_conv_10_add",
        },
        r"expanded_conv_(9|10)_add",
        2_554_968,
        0.681,
    ),
    "mobilenet_v3_large": V3(
        keras.applications.MobileNetV3Large,
        {
            "P1": "expanded_conv_add",
            "P2": "expanded_conv_2_add",
            "P3": "expanded_conv_5_add",
            "P4": "expanded_conv_11_add",
            "P5": "expanded_conv_14_add",
        },
        r"expanded_conv_1[34]_add",
        5_507_432,
        0.756,
    ),
}


def v3_layer_names(net: keras.Model) -> dict[str, str]:
    """Name in keras.applications -> readable name, for every operation without a name of its own."""
    names = {}
    for layer in net.layers:
        if is_automatic(layer) and isinstance(layer, layers.ReLU | layers.Activation):
            before = layer.input._keras_history.operation.name.removesuffix("_bn")
            names[layer.name] = f"{before}_{'relu' if isinstance(layer, layers.ReLU) else 'hard_silu'}"
    gates = [layer.name for layer in net.layers if layer.name.endswith("squeeze_excite_mul")]
    gates = [gate.replace("_mul", "_hard_sigmoid") for gate in gates]
    names.update(zip(automatic_names(net, "Multiply"), gates, strict=True))
    [pool] = automatic_names(net, "GlobalAveragePooling2D")
    return {**names, pool: "top_pool"}


def with_hard_sigmoid(operation: Any, x: Any, name: str) -> Any:
    """One layer for relu6(x + 3) * (1 / 6), which keras.applications spells out in three operations."""
    bare = not isinstance(operation, keras.Layer)
    if (bare and type(operation).__name__ == "Add") or (isinstance(operation, layers.ReLU) and operation.max_value):
        return x
    return layers.Activation("hard_sigmoid", name=name)(x) if bare else None


def mobilenet_v3(
    x: Any,
    variant: V3,
    weights: str | None,
    alpha: float,
    minimalistic: bool,
    attention: str | None,
    last_convolution: bool,
) -> dict[str, Any]:
    """MobileNetV3 (Howard et al., 2019, arXiv:1905.02244).

    Args:
        x: normalized image, [B, H, W, C], at least 32x32.
        variant: a row of `V3_VARIANTS`.
        weights: None or "imagenet".
        alpha: factor on the number of channels.
        minimalistic: without squeeze-and-excitation, hard swish and 5x5 convolutions.
        attention: a name of `kerasvision.layers.attention.ATTENTION` in front of every add, or "mhsa" in front of
            those at 1/32; beside the net's own, and always with fresh weights.
        last_convolution: whether P5 is what the last convolution in front of the pooling makes of it, 576 or 960
            channels, as segmentation takes it.

    Returns:
        P1 [B, H/2, W/2, 16] to P5 [B, H/32, W/32, _], and "top" [B, 1024 or 1280]: pooling and one more layer.
    """
    # The layer behind the pooling belongs to the application's top.
    net = build(
        variant.application,
        x,
        weights,
        include_top=True,
        include_preprocessing=False,
        dropout_rate=0.0,
        alpha=alpha,
        minimalistic=minimalistic,
    )
    end = net.get_layer("logits").input  # [B, 1, 1, C]
    made = transplant(
        net,
        x,
        end=end,
        names=v3_layer_names(net),
        replace=with_hard_sigmoid,
        attention=attention,
        self_attention=variant.last_stage,
    )
    activation = "relu" if minimalistic else "hard_silu"
    taps = {"P1": f"conv_{activation}", **variant.taps}
    if last_convolution:
        taps["P5"] = f"conv_1_{activation}"
    top = layers.Flatten(name="top_flatten")(made[f"conv_2_{activation}"])
    return {**{level: made[name] for level, name in taps.items()}, "top": top}


def _register_v3(name: str, variant: V3) -> None:
    def builder(
        x: Any,
        *,
        weights: str | None = None,
        alpha: float = 1.0,
        minimalistic: bool = False,
        attention: str | None = None,
        last_convolution: bool = False,
    ) -> dict[str, Any]:
        """See `mobilenet_v3`."""
        return mobilenet_v3(x, variant, weights, alpha, minimalistic, attention, last_convolution)

    def load_head(weights: str, alpha: float = 1.0, minimalistic: bool = False, **_: Any) -> list[Any]:
        return head(variant.application, "logits", alpha=alpha, minimalistic=minimalistic)

    weights = imagenet(
        "tensorflow/keras-applications/mobilenet_v3",
        SIGNED_RANGE,
        parameters=variant.parameters,
        top1=variant.top1,
        recipe="https://github.com/tensorflow/models/tree/master/research/slim/nets/mobilenet",
    )
    register(name, weights={"imagenet": weights}, load_head=load_head)(builder)


for _name, _variant in V3_VARIANTS.items():
    _register_v3(_name, _variant)
