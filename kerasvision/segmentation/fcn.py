"""FCN-32s, FCN-16s and FCN-8s (Long et al., 2015, arXiv:1411.4038)."""

from collections.abc import Mapping, Sequence
from typing import Any

import keras
import numpy as np
from keras import layers

from kerasvision.backbones.applications import graft, head
from kerasvision.backbones.vgg import FULLY_CONNECTED, VARIANTS
from kerasvision.layers.pyramid import select_levels
from kerasvision.layers.shared_convolution import shared_convolution
from kerasvision.registry import build_backbone, register
from kerasvision.segmentation.task import SegmentationTask
from kerasvision.task import Tensors

STRIDE = 32
# Finer features that join in, from coarse to fine.
SKIPS = {"fcn_32s": (), "fcn_16s": ("P4",), "fcn_8s": ("P4", "P3")}
# The published form stands on VGG; its finer features are what these layers give.
POOLINGS = {"P4": "block4_pool", "P3": "block3_pool"}
SCALES = {"P4": 0.01, "P3": 0.0001}
WINDOW = 7


@keras.saving.register_keras_serializable("kerasvision")
class Bilinear(keras.initializers.Initializer):
    """Transposed convolution that enlarges each channel by itself, between its places, as bilinear resizing does."""

    def __call__(self, shape: Sequence[int], dtype: Any = None) -> Any:
        """Kernel [2 * stride, 2 * stride, K, K]."""
        size, _, channels, _ = shape
        ramp = 1 - np.abs((np.arange(size) + 0.5) / size * 2 - 1)
        kernel = np.einsum("i,j,kl->ijkl", ramp, ramp, np.eye(channels))
        return keras.ops.convert_to_tensor(kernel, dtype)


def enlarge(x: Any, factor: int, name: str, dtype: str | None = None) -> Any:
    """Learned enlargement that starts as a bilinear one: [B, h, w, K] -> [B, factor * h, factor * w, K]."""
    return layers.Conv2DTranspose(
        x.shape[-1],
        2 * factor,
        factor,
        padding="same",
        use_bias=False,
        kernel_initializer=Bilinear(),
        dtype=dtype,
        name=name,
    )(x)


def fully_connected_head(x: Any, filters: int, kernel_size: int, dropout: float, source: Any) -> Any:
    """VGG's fully connected layers as convolutions.

    Args:
        x: [B, h, w, C].
        filters: of both.
        kernel_size: of the first.
        dropout: share of the values that are dropped behind each.
        source: the application whose ImageNet weights they get; None for fresh ones.

    Returns:
        [B, h, w, filters].
    """
    for name, size, dense in (("fc6", kernel_size, "fc1"), ("fc7", 1, "fc2")):
        layer = layers.Conv2D(
            filters, size, padding="same", activation="relu", kernel_initializer="he_normal", name=name
        )
        if source is None:
            x = layer(x)
        else:
            kernel, bias = head(source, dense)
            x = graft(layer, x, [kernel.reshape(size, size, -1, filters), bias])
        x = layers.Dropout(dropout, name=f"{name}_dropout")(x)
    return x


def light_head(x: Any, filters: int, kernel_size: int, dropout: float) -> Any:
    """One convolution with batch normalization: [B, h, w, C] -> [B, h, w, filters]."""
    x = shared_convolution(filters, kernel_size, "head")(x)
    return layers.Dropout(dropout, name="head_dropout")(x)


def fcn(
    x: Any,
    task: SegmentationTask,
    skips: Sequence[str],
    *,
    weights: str | None,
    backbone: str,
    backbone_arguments: Mapping[str, Any] | None,
    filters: int | None,
    kernel_size: int | None,
    dropout: float,
) -> tuple[Tensors, Tensors]:
    """Class scores at 1/32, enlarged by transposed convolutions to the image's size.

    On VGG it is the published form: the fully connected layers are convolutions, and finer features are the poolings',
    times 0.01 and 0.0001. On any other backbone one convolution stands in their place, and finer features are taken as
    they are. Score convolutions start at zero. With VGG-16 and 21 classes 136,152,917, 134,815,994 and 134,489,759
    parameters. In the place of the published 100 pixels, an image whose sides are no multiples of 32 is padded at the
    bottom and the right.

    Args:
        x: normalized image.
        task: that it is built for.
        skips: levels of the finer features.
        weights: of the backbone; on VGG also of the fully connected layers, where filters and kernel_size are theirs.
        backbone: a name of the registry.
        backbone_arguments: of its builder.
        filters: of the head; None is 4096 on VGG, 512 elsewhere.
        kernel_size: of the head's first convolution; None is 7 on VGG, 3 elsewhere.
        dropout: share of the values that are dropped in the head.

    Returns:
        Raw output "logits" [B, H, W, K], and the backbone's features.

    Raises:
        ValueError: the backbone lacks P5, or a level of the finer features.
    """
    published = backbone in VARIANTS
    classes = len(task.labels)
    height, width = x.shape[1:3]
    missing = [(0, -size % STRIDE) for size in (height, width)]
    if any(map(any, missing)):
        x = layers.ZeroPadding2D(missing, name="border")(x)
    arguments = dict(backbone_arguments or {})
    if published:
        arguments.setdefault("fully_connected", False)
    features = build_backbone(backbone, x, weights=weights, **arguments)
    chosen = select_levels(features, [*reversed(skips), "P5"])
    filters = filters or (FULLY_CONNECTED if published else 512)
    kernel_size = kernel_size or (WINDOW if published else 3)
    fine = {level: chosen[level] for level in skips}
    if published:
        trained = weights is not None and (filters, kernel_size) == (FULLY_CONNECTED, WINDOW)
        source = VARIANTS[backbone].application if trained else None
        y = fully_connected_head(features["P5"], filters, kernel_size, dropout, source)
        net = keras.Model(x, features["P5"])
        fine = {level: net.get_layer(POOLINGS[level]).output for level in skips}
    else:
        y = light_head(features["P5"], filters, kernel_size, dropout)

    def score(features: Any, name: str) -> Any:
        return layers.Conv2D(classes, 1, kernel_initializer="zeros", name=name)(features)

    y = score(y, "score")
    for level, tensor in fine.items():
        y = enlarge(y, 2, f"score_to_{level}")
        if published:
            tensor = layers.Rescaling(SCALES[level], name=f"scale_{level}")(tensor)
        y = layers.Add(name=f"add_{level}")([y, score(tensor, f"score_{level}")])
    y = enlarge(y, STRIDE // 2 ** len(skips), "enlarged" if any(map(any, missing)) else "logits", "float32")
    if any(map(any, missing)):
        y = layers.Cropping2D(missing, dtype="float32", name="logits")(y)
    return {"logits": y}, features


def _register(name: str, skips: Sequence[str]) -> None:
    def builder(
        x: Any,
        task: SegmentationTask,
        *,
        weights: str | None = None,
        backbone: str = "vgg16",
        backbone_arguments: Mapping[str, Any] | None = None,
        filters: int | None = None,
        kernel_size: int | None = None,
        dropout: float = 0.5,
    ) -> tuple[Tensors, Tensors]:
        """See `fcn`."""
        return fcn(
            x,
            task,
            skips,
            weights=weights,
            backbone=backbone,
            backbone_arguments=backbone_arguments,
            filters=filters,
            kernel_size=kernel_size,
            dropout=dropout,
        )

    register(name, kind="segmentation", input_shape=(512, 512, 3))(builder)


for _name, _skips in SKIPS.items():
    _register(_name, _skips)
