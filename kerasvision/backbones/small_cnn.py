"""A small VGG-like net for small images: digits, garments, icons.

Pairs of 3x3 convolutions with batch normalization (Simonyan & Zisserman, 2015, arXiv:1409.1556;
Ioffe & Szegedy, 2015, arXiv:1502.03167), max-pooling between the stages.
"""

from collections.abc import Sequence
from typing import Any

from keras import layers

from kerasvision.registry import register


def conv_bn_relu(x: Any, filters: int, name: str) -> Any:
    """3x3 convolution, batch normalization, ReLU: [B, H, W, C] -> [B, H, W, filters]."""
    x = layers.Conv2D(filters, 3, padding="same", use_bias=False, kernel_initializer="he_normal", name=f"{name}_conv")(
        x
    )
    x = layers.BatchNormalization(momentum=0.9, name=f"{name}_bn")(x)
    return layers.ReLU(name=f"{name}_relu")(x)


@register("small_cnn", input_shape=(32, 32, 3))
def small_cnn(
    x: Any, *, weights: str | None = None, filters: Sequence[int] = (32, 64, 128), depth: int = 2
) -> dict[str, Any]:
    """Stages of `depth` convolutions each, the resolution halved between them.

    Args:
        x: normalized image, [B, H, W, C].
        weights: always None, there are no trained ones by name.
        filters: channels of each stage; their number is the number of stages.
        depth: convolutions in each stage.

    Returns:
        {"P0": [B, H, W, F0], "P1": [B, H/2, W/2, F1], ...} and the last of them as "top".
    """
    features = {}
    for stage, width in enumerate(filters):
        if stage:
            x = layers.MaxPooling2D(2, padding="same", name=f"stage{stage}_pool")(x)
        for block in range(depth):
            x = conv_bn_relu(x, width, f"stage{stage}_{block}")
        features[f"P{stage}"] = x
    return {**features, "top": x}
