"""ConvNeXt-Tiny (Liu et al., 2022, arXiv:2201.03545), from keras.applications, made of convolutions throughout."""

import dataclasses
from typing import Any

import keras
from keras import layers

from kerasvision.backbones.applications import (
    STANDARDIZED,
    automatic_names,
    build,
    graft,
    head,
    imagenet,
    transplant,
)
from kerasvision.registry import register

DEPTHS = (3, 3, 9, 3)
PREFIX = "convnext_tiny"


def layer_names(net: keras.Model) -> dict[str, str]:
    """Name in keras.applications -> readable name, for every operation without a name of its own."""
    blocks = [f"{PREFIX}_stage_{stage}_block_{block}" for stage, depth in enumerate(DEPTHS) for block in range(depth)]
    names = dict(zip(automatic_names(net, "Add"), [f"{block}_add" for block in blocks], strict=True))
    [pool], [norm] = automatic_names(net, "GlobalAveragePooling2D"), automatic_names(net, "LayerNormalization")
    return {**names, pool: "top_pool", norm: "top_layernorm"}


def as_convolution(operation: Any, x: Any, name: str) -> Any:
    """The same numbers from layers that have int8 kernels.

    Args:
        operation: a layer of keras.applications' ConvNeXt.
        x: what it takes, [B, H, W, C].
        name: of the new layer.

    Returns:
        Output of a depthwise convolution for one of C groups, of a 1x1 convolution for a Dense layer, and of a 1x1
        depthwise convolution for a factor on each channel; x itself for an identity; None for any other layer.
    """
    kind = type(operation).__name__
    if kind == "Activation" and operation.activation is keras.activations.linear:
        return x
    if kind == "Conv2D" and operation.groups > 1:
        kernel, bias = operation.get_weights()  # kernel [7, 7, 1, C]
        layer = layers.DepthwiseConv2D(operation.kernel_size, padding="same", name=name)
        return graft(layer, x, [kernel.transpose(0, 1, 3, 2), bias])
    if kind == "Dense":
        kernel, bias = operation.get_weights()  # kernel [C, F]
        return graft(layers.Conv2D(operation.units, 1, name=name), x, [kernel[None, None], bias])
    if kind == "LayerScale":
        [gamma] = operation.get_weights()  # [C]
        layer = layers.DepthwiseConv2D(
            1, use_bias=False, depthwise_initializer=keras.initializers.Constant(operation.init_values), name=name
        )
        return graft(layer, x, [gamma[None, None, :, None]])
    return None


@register(
    "convnext_tiny",
    load_head=lambda weights, **_: head(keras.applications.ConvNeXtTiny, f"{PREFIX}_head_dense"),
    weights={
        "imagenet": imagenet(
            "tensorflow/keras-applications/convnext",
            dataclasses.replace(STANDARDIZED, interpolation="bicubic"),
            parameters=28_589_128,
            top1=0.813,
            license="MIT",
        )
    },
)
def convnext_tiny(x: Any, *, weights: str | None = None, attention: str | None = None) -> dict[str, Any]:
    """ConvNeXt-Tiny: a convolutional net with the proportions of a transformer.

    Args:
        x: normalized image, [B, H, W, C], at least 32x32.
        weights: None or "imagenet".
        attention: a name of `kerasvision.layers.attention.ATTENTION` in front of every add, or "mhsa" in front of
            those at 1/32; always with fresh weights.

    Returns:
        P2 [B, H/4, W/4, 96], P3 [B, H/8, W/8, 192], P4 [B, H/16, W/16, 384], P5 [B, H/32, W/32, 768], and "top"
        [B, 768], pooled and then normalized. There is no P1: the stem has a stride of 4.
    """
    net = build(keras.applications.ConvNeXtTiny, x, weights, include_preprocessing=False, pooling="avg")
    made = transplant(
        net,
        x,
        names=layer_names(net),
        replace=as_convolution,
        attention=attention,
        self_attention=rf"{PREFIX}_stage_3_block_._add",
    )
    levels = {f"P{stage + 2}": f"{PREFIX}_stage_{stage}_block_{depth - 1}_add" for stage, depth in enumerate(DEPTHS)}
    return {**{level: made[name] for level, name in levels.items()}, "top": made["top_layernorm"]}
