"""LR-ASPP, the light head of MobileNetV3 (Howard et al., 2019, arXiv:1905.02244)."""

from collections.abc import Mapping
from typing import Any

from keras import layers

from kerasvision.backbones.dilation import dilated_backbone
from kerasvision.layers.pyramid import LEVELS, select_levels, upsample_like
from kerasvision.layers.shared_convolution import shared_convolution
from kerasvision.registry import register
from kerasvision.segmentation.heads import class_logits
from kerasvision.segmentation.task import SegmentationTask
from kerasvision.task import Tensors


@register("lraspp", kind="segmentation", input_shape=(512, 512, 3))
def lraspp(
    x: Any,
    task: SegmentationTask,
    *,
    weights: str | None = None,
    backbone: str = "mobilenet_v3_large",
    backbone_arguments: Mapping[str, Any] | None = None,
    output_stride: int = 16,
    filters: int = 128,
) -> tuple[Tensors, Tensors]:
    """Coarse features times a gate that sees the whole image, and logits from them and from finer features.

    3,221,538 parameters with MobileNetV3-Large and 21 classes: those of torchvision, which does not count the
    statistics of batch normalizations. In the form of torchvision, the gate sees the mean of the whole image.

    Args:
        x: normalized image.
        task: that it is built for.
        weights: of the backbone.
        backbone: a name of the registry, with the levels P3 to P5.
        backbone_arguments: of its builder; when None, {"last_convolution": True} for MobileNetV3.
        output_stride: of the coarse features, 16 or 32.
        filters: channels of the coarse features behind the first convolution.

    Returns:
        Raw outputs "logits" [B, H/8, W/8, K], and the backbone's features.

    Raises:
        ValueError: another output stride, or a backbone without these levels.
    """
    if output_stride not in (16, 32):
        raise ValueError(f"output_stride must be 16 or 32, got {output_stride!r}: fine features have the stride 8.")
    if backbone_arguments is None:
        backbone_arguments = {"last_convolution": True} if backbone.startswith("mobilenet_v3") else {}
    features = dilated_backbone(backbone, x, output_stride, weights=weights, **backbone_arguments)
    fine, _, coarse = select_levels(features, LEVELS).values()
    x = shared_convolution(filters, 1, "head")(coarse)
    gate = layers.GlobalAveragePooling2D(keepdims=True, name="gate_pool")(coarse)  # [B, 1, 1, C]
    gate = layers.Conv2D(filters, 1, use_bias=False, name="gate_conv")(gate)
    x = layers.Multiply(name="head_scale")([x, layers.Activation("sigmoid", name="gate")(gate)])
    x = upsample_like(x, fine, "head", factor=output_stride // 8, interpolation="bilinear")
    classes = len(task.labels)
    parts = [class_logits(fine, classes, "fine_logits"), class_logits(x, classes, "coarse_logits")]
    return {"logits": layers.Add(dtype="float32", name="logits")(parts)}, features
