"""GoogLeNet, the first Inception net (Szegedy et al., 2015, arXiv:1409.4842), without its auxiliary classifiers.

Batch normalization behind every convolution takes the place of local response normalization and of biases, as in
torchvision. The widest branch is 5x5 as in the paper; torchvision's is 3x3 by mistake, so its weights do not fit and
its 6,624,904 trainable parameters are 7,005,832 here.
"""

from typing import Any, NamedTuple

from keras import layers

from kerasvision.layers.convolution import conv_bn
from kerasvision.registry import register


class Inception(NamedTuple):
    """Filters of one module's branches; `reduce` is the 1x1 convolution in front of the wider one."""

    one: int
    three_reduce: int
    three: int
    five_reduce: int
    five: int
    pool: int


# A max-pooling stands in front of the first module of every level.
MODULES = {
    "P3": {"3a": Inception(64, 96, 128, 16, 32, 32), "3b": Inception(128, 128, 192, 32, 96, 64)},
    "P4": {
        "4a": Inception(192, 96, 208, 16, 48, 64),
        "4b": Inception(160, 112, 224, 24, 64, 64),
        "4c": Inception(128, 128, 256, 24, 64, 64),
        "4d": Inception(112, 144, 288, 32, 64, 64),
        "4e": Inception(256, 160, 320, 32, 128, 128),
    },
    "P5": {"5a": Inception(256, 160, 320, 32, 128, 128), "5b": Inception(384, 192, 384, 48, 128, 128)},
}


def conv_bn_relu(x: Any, filters: int, kernel_size: int, stride: int, name: str) -> Any:
    """Convolution, batch normalization, ReLU: [B, H, W, C] -> [B, H/stride, W/stride, filters]."""
    return layers.ReLU(name=f"{name}_relu")(conv_bn(x, filters, kernel_size, stride, name))


def halve(x: Any, name: str) -> Any:
    """3x3 max-pooling; "same" begins at the first pixel and runs over the last, as the paper's rounding up does."""
    return layers.MaxPooling2D(3, 2, padding="same", name=name)(x)


def inception(x: Any, filters: Inception, name: str) -> Any:
    """Four branches side by side: 1x1, 3x3, 5x5, and a max-pooling.

    Args:
        x: [B, H, W, C].
        filters: of the branches.
        name: prefix of the layers' names.

    Returns:
        [B, H, W, one + three + five + pool].
    """
    one = conv_bn_relu(x, filters.one, 1, 1, f"{name}_1x1")
    three = conv_bn_relu(x, filters.three_reduce, 1, 1, f"{name}_3x3_reduce")
    three = conv_bn_relu(three, filters.three, 3, 1, f"{name}_3x3")
    five = conv_bn_relu(x, filters.five_reduce, 1, 1, f"{name}_5x5_reduce")
    five = conv_bn_relu(five, filters.five, 5, 1, f"{name}_5x5")
    pool = layers.MaxPooling2D(3, 1, padding="same", name=f"{name}_pool")(x)
    pool = conv_bn_relu(pool, filters.pool, 1, 1, f"{name}_pool_project")
    return layers.Concatenate(name=name)([one, three, five, pool])


@register("googlenet")
def googlenet(x: Any, *, weights: str | None = None) -> dict[str, Any]:
    """GoogLeNet.

    Args:
        x: normalized image, [B, H, W, C].
        weights: always None, there are no trained ones by name.

    Returns:
        P1 [B, H/2, W/2, 64] to P5 [B, H/32, W/32, 1024].
    """
    x = conv_bn_relu(x, 64, 7, 2, "conv1")
    features = {"P1": x}
    x = conv_bn_relu(halve(x, "pool1"), 64, 1, 1, "conv2_reduce")
    x = conv_bn_relu(x, 192, 3, 1, "conv2")
    features["P2"] = x
    for level, modules in MODULES.items():
        x = halve(x, f"pool{int(level[1:]) - 1}")
        for name, filters in modules.items():
            x = inception(x, filters, f"inception{name}")
        features[level] = x
    return features
