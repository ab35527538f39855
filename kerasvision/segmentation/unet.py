"""U-Net on any backbone, padded and normalized, and attention U-Net; after Ronneberger et al. (2015, arXiv:1505.04597).

The original, of valid convolutions, is in `unet_valid`.
"""

from collections.abc import Mapping, Sequence
from typing import Any, Literal

from keras import layers

from kerasvision.layers.convolution import batch_norm
from kerasvision.layers.pyramid import cut_like, select_levels, upsample_like
from kerasvision.layers.shared_convolution import shared_convolution
from kerasvision.registry import build_backbone, register
from kerasvision.segmentation.heads import class_logits
from kerasvision.segmentation.task import SegmentationTask
from kerasvision.task import Tensors

Enlargement = Literal["resize", "transposed"]
ENLARGEMENTS = ("resize", "transposed")
LEVELS = ("P1", "P2", "P3", "P4", "P5")


def attention_gate(skip: Any, gating: Any, name: str) -> Any:
    """Fine features times a gate that coarser ones open where they matter (Oktay et al., 2018, arXiv:1804.03999).

    The gate sees both at the coarse resolution, has one value a place, and is enlarged bilinearly.

    Args:
        skip: fine features, [B, H, W, C].
        gating: coarse features, [B, H/2, W/2, _].
        name: prefix of the layers' names.

    Returns:
        [B, H, W, C].
    """
    channels = skip.shape[-1]
    hidden = max(1, channels // 2)
    # Nets that round down have a place less at the coarse resolution.
    rounds_up = [-(-fine // 2) for fine in skip.shape[1:3]] == list(gating.shape[1:3])
    local = layers.Conv2D(hidden, 2, 2, padding="same" if rounds_up else "valid", use_bias=False, name=f"{name}_local")(
        skip
    )
    wide = layers.Conv2D(hidden, 1, name=f"{name}_wide")(gating)
    x = layers.ReLU(name=f"{name}_relu")(layers.Add(name=f"{name}_add")([local, wide]))
    x = layers.Conv2D(1, 1, name=f"{name}_conv")(x)
    x = layers.Activation("sigmoid", name=f"{name}_sigmoid")(x)  # [B, H/2, W/2, 1]
    x = upsample_like(x, skip, name, interpolation="bilinear")
    x = layers.Multiply(name=f"{name}_scale")([skip, x])
    return shared_convolution(channels, 1, f"{name}_out", activation=None)(x)


def enlarge(x: Any, finer: Any, filters: int, up: Enlargement, name: str) -> Any:
    """Twice the size, and cut to that of finer features.

    Args:
        x: [B, h, w, C].
        finer: [B, H, W, _].
        filters: output channels of a transposed convolution.
        up: "transposed", a 2x2 transposed convolution with batch normalization and ReLU, or "resize", bilinear.
        name: prefix of the layers' names.

    Returns:
        [B, H, W, filters], or [B, H, W, C] where it is resized.
    """
    if up == "resize":
        return upsample_like(x, finer, name, interpolation="bilinear")
    x = layers.Conv2DTranspose(filters, 2, 2, use_bias=False, kernel_initializer="he_normal", name=f"{name}_up")(x)
    x = layers.ReLU(name=f"{name}_up_relu")(batch_norm(x, f"{name}_up"))
    return cut_like(x, finer, name)


def decoder(
    image: Any,
    features: Mapping[str, Any],
    filters: Sequence[int],
    *,
    levels: Sequence[str] = LEVELS,
    depth: int = 2,
    up: Enlargement = "resize",
    separable: bool = False,
    gated: bool = False,
) -> Any:
    """From the coarsest features up: enlarge, join the finer ones, convolve.

    Args:
        image: [B, H, W, _].
        features: of a backbone, {"P1": [B, H/2, W/2, C1], ...}.
        filters: output channels of each step; as many as there are finer levels, or one more, which is a step from P1
            to the image's size that joins nothing.
        levels: of the backbone, from fine to coarse.
        depth: 3x3 convolutions of each step.
        up: see `enlarge`.
        separable: whether 3x3 convolutions are depthwise, then 1x1.
        gated: whether finer features pass an attention gate.

    Returns:
        [B, h, w, filters[-1]], of the finest level's size or the image's.

    Raises:
        ValueError: a level is missing, another number of filters, or an unknown `up`.
    """
    if up not in ENLARGEMENTS:
        raise ValueError(f'up must be "resize" or "transposed", got {up!r}.')
    chosen = select_levels(features, levels)
    steps = list(reversed(levels[:-1]))
    if len(filters) == len(steps) + 1 and levels[0] == "P1":
        steps.append("P0")
    if len(filters) != len(steps):
        more = f" or {len(steps) + 1}" if levels[0] == "P1" else ""
        raise ValueError(f"Expected {len(steps)}{more} filters for the levels {', '.join(levels)}, got {len(filters)}.")
    x = chosen[levels[-1]]
    for level, width in zip(steps, filters, strict=True):
        name = f"decoder_{level}"
        skip = chosen.get(level)
        parts = [enlarge(x, image if skip is None else skip, width, up, name)]
        if skip is not None:
            parts.append(attention_gate(skip, x, f"{name}_gate") if gated else skip)
        x = layers.Concatenate(name=f"{name}_concat")(parts) if len(parts) > 1 else parts[0]
        for index in range(depth):
            x = shared_convolution(width, 3, f"{name}_{index}", separable=separable)(x)
    return x


def _register(name: str, gated: bool) -> None:
    def builder(
        x: Any,
        task: SegmentationTask,
        *,
        weights: str | None = None,
        backbone: str = "efficientnet_lite0",
        backbone_arguments: Mapping[str, Any] | None = None,
        filters: Sequence[int] = (256, 128, 64, 32, 16),
        levels: Sequence[str] = LEVELS,
        depth: int = 2,
        up: Enlargement = "resize",
        separable: bool = False,
    ) -> tuple[Tensors, Tensors]:
        """U-Net's decoder on any backbone, with batch normalization; "small_cnn" with P0 to P4 is the plain U-Net.

        Args:
            x: normalized image.
            task: that it is built for.
            weights: of the backbone.
            backbone: a name of the registry.
            backbone_arguments: of its builder.
            filters: of each step up, see `decoder`; with one step more than finer levels, logits have the image's size.
            levels: of the backbone, from fine to coarse.
            depth: 3x3 convolutions of each step.
            up: "resize", bilinear, or "transposed", by a 2x2 transposed convolution as in the paper.
            separable: whether 3x3 convolutions are depthwise, then 1x1: for phones.

        Returns:
            Raw output "logits" [B, h, w, K], of the size of the finest level or of the image; the backbone's features.
        """
        features = build_backbone(backbone, x, weights=weights, **(backbone_arguments or {}))
        y = decoder(x, features, filters, levels=tuple(levels), depth=depth, up=up, separable=separable, gated=gated)
        return {"logits": class_logits(y, len(task.labels))}, features

    register(name, kind="segmentation", input_shape=(256, 256, 3))(builder)


for _name, _gated in {"unet": False, "attention_unet": True}.items():
    _register(_name, _gated)
