"""ResNet-18 and ResNet-34, of basic blocks, which keras.applications lacks.

Version 1 (He et al., 2016, arXiv:1512.03385) adds, then activates; version 2 (He et al., 2016, arXiv:1603.05027)
normalizes and activates before each convolution, and the sum goes on untouched. Weights could be exchanged with
torchvision: no bias, the same padding, shortcuts of a 1x1 convolution where the shape changes.
"""

from typing import Any

from keras import layers

from kerasvision.layers.attention import attend, multi_head_self_attention
from kerasvision.layers.convolution import batch_norm, conv, conv_bn
from kerasvision.registry import register

FILTERS = (64, 128, 256, 512)
DEPTHS_18 = (2, 2, 2, 2)
DEPTHS_34 = (3, 4, 6, 3)


def relu(x: Any, name: str) -> Any:
    """max(x, 0)."""
    return layers.ReLU(name=f"{name}_relu")(x)


def stem(x: Any) -> tuple[Any, Any]:
    """7x7 convolution and max-pooling: [B, H, W, C] -> [B, H/2, W/2, 64] and [B, H/4, W/4, 64]."""
    half = relu(conv_bn(x, FILTERS[0], 7, 2, "conv1"), "conv1")
    # Behind the ReLU, zeros at the border never win.
    padded = layers.ZeroPadding2D(1, name="pool1_pad")(half)
    return half, layers.MaxPooling2D(3, 2, name="pool1_pool")(padded)


def second_convolution(x: Any, name: str, self_attention: bool) -> Any:
    """A 3x3 convolution that keeps the shape, or self-attention in its place."""
    return multi_head_self_attention(x, name) if self_attention else conv(x, x.shape[-1], 3, 1, f"{name}_2")


def basic_block(x: Any, filters: int, stride: int, attention: str | None, self_attention: bool, name: str) -> Any:
    """Two 3x3 convolutions around which the input is added.

    Args:
        x: [B, H, W, C].
        filters: output channels.
        stride: of the first convolution and of the shortcut.
        attention: in front of the add, see `attend`.
        self_attention: in the place of the second convolution.
        name: prefix of the layers' names.

    Returns:
        [B, H/stride, W/stride, filters].
    """
    shortcut = x
    if stride > 1 or x.shape[-1] != filters:
        shortcut = conv_bn(x, filters, 1, stride, f"{name}_0")
    x = relu(conv_bn(x, filters, 3, stride, f"{name}_1"), f"{name}_1")
    x = batch_norm(second_convolution(x, name, self_attention), f"{name}_2")
    x = layers.Add(name=f"{name}_add")([shortcut, attend(x, attention, name)])
    return layers.ReLU(name=f"{name}_out")(x)


def resnet(x: Any, depths: tuple[int, ...], attention: str | None) -> dict[str, Any]:
    """Version 1.

    Args:
        x: normalized image, [B, H, W, C].
        depths: blocks in each stage.
        attention: a name of `kerasvision.layers.attention.ATTENTION` in front of every add, or "mhsa" in the place
            of the second convolution of the last stage's blocks.

    Returns:
        P1 [B, H/2, W/2, 64] to P5 [B, H/32, W/32, 512].
    """
    half, x = stem(x)
    features = {"P1": half}
    for stage, (filters, depth) in enumerate(zip(FILTERS, depths, strict=True), 2):
        for block in range(depth):
            stride = 2 if block == 0 and stage > 2 else 1
            self_attention = attention == "mhsa" and stage == 5
            x = basic_block(x, filters, stride, attention, self_attention, f"conv{stage}_block{block + 1}")
        features[f"P{stage}"] = x
    return features


def preactivated_block(
    x: Any, activated: Any, filters: int, stride: int, attention: str | None, self_attention: bool, name: str
) -> Any:
    """Two 3x3 convolutions around which the input is added, and nothing behind the add.

    Args:
        x: [B, H, W, C].
        activated: x, normalized and activated.
        filters: output channels.
        stride: of the first convolution and of the shortcut.
        attention: in front of the add, see `attend`.
        self_attention: in the place of the second convolution.
        name: prefix of the layers' names.

    Returns:
        [B, H/stride, W/stride, filters].
    """
    shortcut = x
    if stride > 1 or x.shape[-1] != filters:
        shortcut = conv(activated, filters, 1, stride, f"{name}_0")
    x = relu(conv_bn(activated, filters, 3, stride, f"{name}_1"), f"{name}_1")
    x = second_convolution(x, name, self_attention)
    return layers.Add(name=f"{name}_out")([shortcut, attend(x, attention, name)])


def resnet_v2(x: Any, depths: tuple[int, ...], attention: str | None) -> dict[str, Any]:
    """Version 2; its features are taken where they are normalized and activated.

    Args:
        x: normalized image, [B, H, W, C].
        depths: blocks in each stage.
        attention: as in `resnet`.

    Returns:
        P1 [B, H/2, W/2, 64] to P5 [B, H/32, W/32, 512].
    """
    half, x = stem(x)
    features = {"P1": half}
    activated = x  # The stem's activation serves the first block, as in the paper's appendix.
    for stage, (filters, depth) in enumerate(zip(FILTERS, depths, strict=True), 2):
        for block in range(depth):
            name = f"conv{stage}_block{block + 1}"
            stride = 2 if block == 0 and stage > 2 else 1
            self_attention = attention == "mhsa" and stage == 5
            x = preactivated_block(x, activated, filters, stride, attention, self_attention, name)
            activated = relu(batch_norm(x, f"{name}_post"), f"{name}_post")
        features[f"P{stage}"] = activated
    return features


@register("resnet18")
def resnet18(x: Any, *, weights: str | None = None, attention: str | None = None) -> dict[str, Any]:
    """ResNet-18, see `resnet`."""
    return resnet(x, DEPTHS_18, attention)


@register("resnet34")
def resnet34(x: Any, *, weights: str | None = None, attention: str | None = None) -> dict[str, Any]:
    """ResNet-34, see `resnet`."""
    return resnet(x, DEPTHS_34, attention)


@register("resnet18_v2")
def resnet18_v2(x: Any, *, weights: str | None = None, attention: str | None = None) -> dict[str, Any]:
    """ResNet-18 version 2, see `resnet_v2`."""
    return resnet_v2(x, DEPTHS_18, attention)


@register("resnet34_v2")
def resnet34_v2(x: Any, *, weights: str | None = None, attention: str | None = None) -> dict[str, Any]:
    """ResNet-34 version 2, see `resnet_v2`."""
    return resnet_v2(x, DEPTHS_34, attention)
