"""The ends of segmentation nets: logits of the classes."""

from typing import Any

from keras import layers

from kerasvision.layers.shared_convolution import shared_convolution


def class_logits(x: Any, classes: int, name: str = "logits") -> Any:
    """1x1 convolution to the logits of the classes, in float32 whatever the policy: [B, h, w, C] -> [B, h, w, K]."""
    return layers.Conv2D(classes, 1, dtype="float32", name=name)(x)


def auxiliary_head(x: Any, classes: int, name: str = "auxiliary_logits") -> Any:
    """Logits from the middle of a net, for training alone (Zhao et al., 2017, arXiv:1612.01105).

    3x3 convolution to a quarter of the channels, batch normalization, ReLU, dropout of 0.1, logits: as torchvision's.

    Args:
        x: [B, h, w, C].
        classes: K.
        name: of the last layer, prefix of the others.

    Returns:
        [B, h, w, K].
    """
    x = shared_convolution(max(1, x.shape[-1] // 4), 3, f"{name}_head")(x)
    x = layers.Dropout(0.1, name=f"{name}_dropout")(x)
    return class_logits(x, classes, name)
