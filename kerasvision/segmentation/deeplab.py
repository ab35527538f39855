"""DeepLabv3 (Chen et al., 2017, arXiv:1706.05587) and DeepLabv3+ (Chen et al., 2018, arXiv:1802.02611)."""

from collections.abc import Mapping, Sequence
from typing import Any

from keras import layers

from kerasvision.backbones.dilation import dilated_backbone
from kerasvision.layers.pyramid import upsample_like
from kerasvision.layers.shared_convolution import shared_convolution
from kerasvision.registry import register
from kerasvision.segmentation.heads import auxiliary_head, class_logits
from kerasvision.segmentation.task import SegmentationTask
from kerasvision.task import Tensors

RATES = (6, 12, 18)
# Of which the rates are those.
RATES_STRIDE = 16


def atrous_spatial_pyramid_pooling(
    x: Any,
    filters: int,
    rates: Sequence[int],
    name: str = "aspp",
    *,
    separable: bool = False,
    dropout: float = 0.0,
) -> Any:
    """ASPP: convolutions of several rates beside a 1x1 one and the mean of the image (Chen et al., 2017, 1706.05587).

    Args:
        x: [B, h, w, C], h and w known.
        filters: output channels of every branch, and of what joins them.
        rates: pixels between two places that the window of a branch sees.
        name: prefix of the layers' names.
        separable: whether the 3x3 convolutions are depthwise, then 1x1.
        dropout: share of the values that are dropped at the end.

    Returns:
        [B, h, w, filters].
    """
    branches = [shared_convolution(filters, 1, f"{name}_1x1")(x)]
    for rate in rates:
        block = shared_convolution(filters, 3, f"{name}_rate{rate}", dilation=rate, separable=separable)
        branches.append(block(x))
    mean = layers.GlobalAveragePooling2D(keepdims=True, name=f"{name}_pool")(x)  # [B, 1, 1, C]
    mean = shared_convolution(filters, 1, f"{name}_image")(mean)
    branches.append(layers.UpSampling2D(x.shape[1:3], name=f"{name}_image_repeat")(mean))
    x = layers.Concatenate(name=f"{name}_concat")(branches)
    x = shared_convolution(filters, 1, f"{name}_project")(x)
    return layers.Dropout(dropout, name=f"{name}_dropout")(x) if dropout else x


def _rates_at(output_stride: int, rates: Sequence[int]) -> list[int]:
    """Rates that see as much of the image at another output stride than 16: twice as large at 8."""
    return [max(1, rate * RATES_STRIDE // output_stride) for rate in rates]


@register("deeplabv3", kind="segmentation", input_shape=(513, 513, 3))
def deeplabv3(
    x: Any,
    task: SegmentationTask,
    *,
    weights: str | None = None,
    backbone: str = "resnet50",
    backbone_arguments: Mapping[str, Any] | None = None,
    output_stride: int = 16,
    multi_grid: Sequence[int] = (1, 2, 4),
    rates: Sequence[int] = RATES,
    filters: int = 256,
    separable: bool = False,
    dropout: float = 0.5,
    auxiliary: bool = False,
) -> tuple[Tensors, Tensors]:
    """DeepLabv3: a backbone with holes, ASPP, one more convolution, logits at the output stride.

    39,638,869 parameters with ResNet-50 and 21 classes, 42,004,074 with the auxiliary head: those of torchvision, whose
    numbers do not count the statistics of batch normalizations, and whose ResNet has no biases.

    Args:
        x: normalized image.
        task: that it is built for.
        weights: of the backbone.
        backbone: a name of the registry, with the levels P4 and P5.
        backbone_arguments: of its builder.
        output_stride: of the features and of the logits: 8, 16 or 32.
        multi_grid: factors on the rates of the last stage's convolutions, see `dilated_backbone`.
        rates: of ASPP at output stride 16; at 8 they are twice as large.
        filters: channels of ASPP.
        separable: whether 3x3 convolutions are depthwise, then 1x1: for phones.
        dropout: share of the values that are dropped behind ASPP.
        auxiliary: whether P4 gets a head of its own, for training.

    Returns:
        Raw outputs "logits" [B, h, w, K], and "auxiliary_logits" where asked for, and the backbone's features.
    """
    classes = len(task.labels)
    features = dilated_backbone(
        backbone, x, output_stride, weights=weights, multi_grid=multi_grid, **(backbone_arguments or {})
    )
    x = atrous_spatial_pyramid_pooling(
        features["P5"], filters, _rates_at(output_stride, rates), separable=separable, dropout=dropout
    )
    x = shared_convolution(filters, 3, "head", separable=separable)(x)
    outputs = {"logits": class_logits(x, classes)}
    if auxiliary:
        outputs["auxiliary_logits"] = auxiliary_head(features["P4"], classes)
    return outputs, features


@register("deeplabv3_plus", kind="segmentation", input_shape=(513, 513, 3))
def deeplabv3_plus(
    x: Any,
    task: SegmentationTask,
    *,
    weights: str | None = None,
    backbone: str = "resnet50",
    backbone_arguments: Mapping[str, Any] | None = None,
    output_stride: int = 16,
    multi_grid: Sequence[int] = (1,),
    rates: Sequence[int] = RATES,
    filters: int = 256,
    low_level: str = "P2",
    low_level_filters: int = 48,
    separable: bool = False,
    dropout: float = 0.1,
) -> tuple[Tensors, Tensors]:
    """DeepLabv3+: ASPP enlarged to the size of fine features, joined with them, two convolutions, logits at 1/4.

    Args:
        x: normalized image.
        task: that it is built for.
        weights: of the backbone.
        backbone: a name of the registry, with the levels P2 to P5.
        backbone_arguments: of its builder.
        output_stride: of the features that ASPP sees: 8, 16 or 32.
        multi_grid: factors on the rates of the last stage's convolutions, see `dilated_backbone`.
        rates: of ASPP at output stride 16; at 8 they are twice as large.
        filters: channels of ASPP and of the decoder.
        low_level: the fine features, "P1" to "P3".
        low_level_filters: to how many channels they are reduced.
        separable: whether 3x3 convolutions are depthwise, then 1x1, as in the paper's fastest form: for phones.
        dropout: share of the values that are dropped behind ASPP.

    Returns:
        Raw outputs "logits" [B, H/4, W/4, K], and the backbone's features.

    Raises:
        ValueError: features at the output stride are no coarser than the fine ones, or the backbone lacks those.
    """
    features = dilated_backbone(
        backbone, x, output_stride, weights=weights, multi_grid=multi_grid, **(backbone_arguments or {})
    )
    if low_level not in features:
        raise ValueError(f'"{backbone}" has no level {low_level}; low_level may be one of {", ".join(features)}.')
    factor = output_stride // 2 ** int(low_level[1:])
    if factor < 2:
        raise ValueError(
            f"low_level must be finer than the output stride {output_stride}, got {low_level}. Take P2, or a larger "
            "output_stride."
        )
    x = atrous_spatial_pyramid_pooling(
        features["P5"], filters, _rates_at(output_stride, rates), separable=separable, dropout=dropout
    )
    fine = shared_convolution(low_level_filters, 1, "decoder_low_level")(features[low_level])
    x = upsample_like(x, fine, "decoder", factor=factor, interpolation="bilinear")
    x = layers.Concatenate(name="decoder_concat")([x, fine])
    for index in range(2):
        x = shared_convolution(filters, 3, f"decoder_{index}", separable=separable)(x)
    return {"logits": class_logits(x, len(task.labels))}, features
