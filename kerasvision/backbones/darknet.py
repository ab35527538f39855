"""Darknet-53, the backbone of YOLOv3 (Redmon & Farhadi, 2018, arXiv:1804.02767)."""

from typing import Any

from keras import layers

from kerasvision.layers.attention import attend
from kerasvision.layers.convolution import conv_bn_leaky
from kerasvision.registry import register

STEM_FILTERS = 32
# (filters, residual blocks) of each stage; a convolution with stride 2 stands in front of the blocks.
STAGES = ((64, 1), (128, 2), (256, 8), (512, 8), (1024, 4))


def residual(x: Any, attention: str | None, name: str) -> Any:
    """1x1 convolution to half the channels, 3x3 back to all of them, the input added: [B, H, W, C] -> the same."""
    channels = x.shape[-1]
    branch = conv_bn_leaky(x, channels // 2, 1, 1, f"{name}_1")
    branch = conv_bn_leaky(branch, channels, 3, 1, f"{name}_2")
    return layers.Add(name=f"{name}_out")([x, attend(branch, attention, name)])


@register("darknet53", input_shape=(256, 256, 3))
def darknet53(x: Any, *, weights: str | None = None, attention: str | None = None) -> dict[str, Any]:
    """Darknet-53: 52 convolutions here, the 53rd is the classifier.

    Args:
        x: normalized image, [B, H, W, C].
        weights: always None, there are no trained ones by name.
        attention: a name of `kerasvision.layers.attention.ATTENTION` in front of every add.

    Returns:
        P1 [B, H/2, W/2, 64] to P5 [B, H/32, W/32, 1024].

    Raises:
        ValueError: no such attention, or "mhsa", for which no convolution keeps its number of channels.
    """
    if attention == "mhsa":
        raise ValueError(
            'attention="mhsa" replaces a 3x3 convolution that keeps its number of channels, and darknet53 has none. '
            'Take "se", "eca" or "cbam", or one of the ResNets.'
        )
    x = conv_bn_leaky(x, STEM_FILTERS, 3, 1, "conv0")
    features = {}
    for stage, (filters, depth) in enumerate(STAGES, 1):
        x = conv_bn_leaky(x, filters, 3, 2, f"conv{stage}")
        for block in range(depth):
            x = residual(x, attention, f"conv{stage}_block{block + 1}")
        features[f"P{stage}"] = x
    return features
