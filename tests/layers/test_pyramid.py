"""Necks: shapes at any size, exact parameter counts, and what flows from which level to which."""

import keras
import numpy as np
import pytest
import tensorflow as tf

import kerasvision as kv
from kerasvision.layers.pyramid import (
    downsampled_levels,
    fast_spatial_pyramid_pooling,
    feature_pyramid,
    path_aggregation,
    upsample_like,
    yolo_neck,
)
from kerasvision.layers.shared_convolution import shared_convolution
from kerasvision.registry import get_entry

NECKS = {
    "fpn": lambda f: feature_pyramid(f, 8),
    "fpn_c5": lambda f: feature_pyramid(f, 8, "c5"),
    "fpn_light": lambda f: feature_pyramid(f, 8, "p5", separable=True, normalized=True),
    "pan": lambda f: path_aggregation(f, 8),
    "yolo": lambda f: yolo_neck(f, (4, 6, 8)),
}
EACH_NECK = pytest.mark.parametrize("neck", NECKS)


def inputs(height, width, **channels):
    """{"P3": Input, ...} of the sizes that stride-2 convolutions with "same" padding give."""
    made = {}
    for level, count in channels.items():
        stride = 2 ** int(level[1:])
        made[level] = keras.Input((-(-height // stride), -(-width // stride), count), name=f"in_{level}")
    return made


def net(neck, features):
    return keras.Model(list(features.values()), neck(features))


def trainable(model):
    return sum(int(np.prod(weight.shape)) for weight in model.trainable_weights)


def values(model, seed=0):
    rng = np.random.default_rng(seed)
    return [rng.normal(size=(2, *tensor.shape[1:])).astype("float32") for tensor in model.inputs]


@EACH_NECK
@pytest.mark.parametrize("size", [(64, 96), (75, 43)])
def test_every_level_keeps_its_size(neck, size):
    features = inputs(*size, P3=5, P4=7, P5=9)
    model = net(NECKS[neck], features)
    assert list(model.output)[:3] == ["P3", "P4", "P5"]
    for level, output in model(values(model)).items():
        stride = 2 ** int(level[1:])
        assert output.shape[1:3] == tuple(-(-side // stride) for side in size)
        assert output.shape[-1] == ({"P3": 4, "P4": 6, "P5": 8}[level] if neck == "yolo" else 8)
    assert ("P7" in model.output) == (neck in ("fpn_c5", "fpn_light"))


def reached(model):
    """{input level: output levels that it changes}."""
    before = values(model)
    plain = model(before)
    found = {}
    for index, tensor in enumerate(model.inputs):
        changed = [x + (i == index) for i, x in enumerate(before)]
        after = model(changed)
        found[tensor.name.removeprefix("in_")] = {
            level for level in plain if not np.array_equal(plain[level], after[level])
        }
    return found


@pytest.mark.parametrize(
    "neck, expected",
    [
        ("fpn", {"P3": {"P3"}, "P4": {"P3", "P4"}, "P5": {"P3", "P4", "P5"}}),
        ("fpn_c5", {"P3": {"P3"}, "P4": {"P3", "P4"}, "P5": {"P3", "P4", "P5", "P6", "P7"}}),
        ("pan", {level: {"P3", "P4", "P5"} for level in ("P3", "P4", "P5")}),
        ("yolo", {"P3": {"P3"}, "P4": {"P3", "P4"}, "P5": {"P3", "P4", "P5"}}),
    ],
)
def test_what_flows_where(neck, expected):
    keras.utils.set_random_seed(0)
    assert reached(net(NECKS[neck], inputs(64, 64, P3=5, P4=7, P5=9))) == expected


def test_top_down_way_of_the_pyramid():
    """With kernels that pass everything on, P3 is the sum of the levels, each repeated to its size."""
    features = inputs(32, 32, P3=4, P4=4, P5=4)
    model = net(lambda f: feature_pyramid(f, 4, "pool"), features)
    for layer in model.layers:
        if isinstance(layer, keras.layers.Conv2D):
            kernel = np.zeros(layer.kernel.shape)
            kernel[kernel.shape[0] // 2, kernel.shape[1] // 2] = np.eye(4)
            layer.kernel.assign(kernel)
    fine, middle, coarse = given = values(model)

    def repeated(x, times):
        return x.repeat(times, 1).repeat(times, 2)

    outputs = model(given)
    np.testing.assert_allclose(outputs["P3"], fine + repeated(middle, 2) + repeated(coarse, 4), atol=1e-5)
    np.testing.assert_allclose(outputs["P4"], middle + repeated(coarse, 2), atol=1e-5)
    np.testing.assert_array_equal(outputs["P6"], np.asarray(outputs["P5"])[:, ::2, ::2])


@pytest.mark.parametrize("size, expected", [((4, 6), "exact"), ((3, 5), "cut"), ((5, 7), "padded"), ((3, 7), "both")])
def test_upsampling_to_any_size(size, expected):
    x, finer = keras.Input((2, 3, 1)), keras.Input((*size, 1))
    model = keras.Model([x, finer], upsample_like(x, finer, "here"))
    image = np.arange(1, 7, dtype="float32").reshape(1, 2, 3, 1)
    grown = np.zeros((8, 8))
    grown[:4, :6] = image[0, ..., 0].repeat(2, 0).repeat(2, 1)
    output = np.asarray(model([image, np.zeros((1, *size, 1))]))
    np.testing.assert_array_equal(output[0, ..., 0], grown[: size[0], : size[1]])
    names = {layer.name for layer in model.layers}
    assert ("here_cut" in names) == (expected in ("cut", "both"))
    assert ("here_pad" in names) == (expected in ("padded", "both"))


@pytest.mark.parametrize("extra", ["p5", "c5"])
def test_parameters_of_retinanets_pyramid(extra):
    features = inputs(64, 64, P3=512, P4=1024, P5=2048)
    lateral = sum(channels * 256 + 256 for channels in (512, 1024, 2048))
    three_by_three = 9 * 256 * 256 + 256
    first = three_by_three if extra == "p5" else 9 * 2048 * 256 + 256
    model = net(lambda f: feature_pyramid(f, 256, extra), features)
    assert model.count_params() == lateral + 3 * three_by_three + first + three_by_three
    if extra == "p5":
        # Without it, its head and ResNet-50 there is nothing in torchvision's 34,014,999; see tests/detection.
        assert model.count_params() == 3_868_672


def test_parameters_of_faster_rcnns_pyramid():
    features = inputs(64, 64, P2=256, P3=512, P4=1024, P5=2048)
    model = net(lambda f: feature_pyramid(f, 256, "pool", levels=("P2", "P3", "P4", "P5")), features)
    assert list(model.output) == ["P2", "P3", "P4", "P5", "P6"]
    assert model.count_params() == (256 + 512 + 1024 + 2048) * 256 + 4 * 256 + 4 * (9 * 256 * 256 + 256) == 3_344_384


def test_parameters_of_the_light_pyramid():
    model = net(NECKS["fpn_light"], inputs(64, 64, P3=5, P4=7, P5=9))
    separable = 9 * 8 + 2 * 8 + 8 * 8 + 2 * 8
    assert trainable(model) == (5 + 7 + 9) * 8 + 3 * 2 * 8 + 5 * separable


def test_parameters_of_path_aggregation():
    width, kernel = 16, 5
    model = net(lambda f: path_aggregation(f, width, depth=2, kernel_size=kernel), inputs(64, 64, P3=5, P4=7, P5=10))
    bn = 2 * width
    sppf = 10 * 5 + 2 * 5 + 4 * 5 * width + bn
    laterals = (5 + 7) * width + 2 * bn
    separable = kernel**2 * width + bn + width * width + bn
    fuse = 2 * width * width + bn + 2 * separable
    assert trainable(model) == sppf + laterals + 4 * fuse + 2 * separable


def test_parameters_of_yolos_neck():
    model = net(yolo_neck, inputs(64, 64, P3=256, P4=512, P5=1024))

    def conv(given, filters, size):
        return given * filters * size**2 + 2 * filters

    expected = 0
    for width, given in ((512, 1024), (256, 256 + 512), (128, 128 + 256)):
        expected += conv(given, width, 1) + 2 * conv(width, 2 * width, 3) + 2 * conv(2 * width, width, 1)
    expected += conv(512, 256, 1) + conv(256, 128, 1)
    assert trainable(model) == expected


def test_the_further_levels_of_ssd300():
    fine, conv7 = keras.Input((38, 38, 512)), keras.Input((19, 19, 1024))
    pyramid = downsampled_levels({"P3": fine, "P4": conv7}, (512, 256, 256, 256), levels=("P3", "P4"), unpadded=2)
    assert [x.shape[1] for x in pyramid.values()] == [38, 19, 10, 5, 3, 1]
    assert [x.shape[3] for x in pyramid.values()] == [512, 1024, 512, 256, 256, 256]
    assert list(pyramid) == ["P3", "P4", "P5", "P6", "P7", "P8"]
    expected = 0
    for given, reduced, filters in ((1024, 256, 512), (512, 128, 256), (256, 128, 256), (256, 128, 256)):
        expected += given * reduced + reduced + 9 * reduced * filters + filters
    assert keras.Model([fine, conv7], pyramid).count_params() == expected == 2_459_520


def test_the_further_levels_of_ssd_lite():
    features = inputs(320, 320, P4=576, P5=1280)
    pyramid = downsampled_levels(features, (512, 256, 256, 128), separable=True, normalized=True)
    assert [x.shape[1] for x in pyramid.values()] == [20, 10, 5, 3, 2, 1]
    assert [x.shape[3] for x in pyramid.values()] == [576, 1280, 512, 256, 256, 128]


def test_maxima_of_three_windows():
    x = keras.Input((9, 11, 4))
    model = keras.Model(x, fast_spatial_pyramid_pooling(x, 6, "sppf"))
    inner = keras.Model(x, [model.get_layer(name).output for name in ("sppf_reduce_relu", "sppf_concat")])
    reduced, joined = (np.asarray(y) for y in inner(values(model)[0]))
    for index, window in enumerate((1, 5, 9, 13)):
        reach = window // 2
        padded = np.pad(reduced, ((0, 0), (reach, reach), (reach, reach), (0, 0)), constant_values=-np.inf)
        windows = np.lib.stride_tricks.sliding_window_view(padded, (window, window), (1, 2))
        np.testing.assert_array_equal(joined[..., 2 * index : 2 * index + 2], windows.max((-1, -2)))


@pytest.mark.parametrize("separable", [False, True])
def test_a_shared_convolution_has_one_kernel_and_a_normalization_for_each_level(separable):
    fine, coarse = keras.Input((8, 8, 3)), keras.Input((4, 4, 3))
    block = shared_convolution(5, 3, "both", separable=separable)
    model = keras.Model([fine, coarse], [block(fine, "P3"), block(coarse, "P4")])
    kernel = 9 * 3 + 3 * 5 if separable else 9 * 3 * 5
    normalization = 2 * (3 + 5 if separable else 5)
    assert trainable(model) == kernel + 2 * normalization
    assert {"both_P3_bn", "both_P4_bn", "both_P3_relu", "both_P4_relu"} <= {layer.name for layer in model.layers}


@EACH_NECK
def test_gradients_reach_every_weight(neck):
    model = net(NECKS[neck], inputs(64, 64, P3=5, P4=7, P5=9))
    with tf.GradientTape() as tape:
        outputs = model(values(model), training=True)
        loss = sum(tf.reduce_sum(x * np.random.default_rng(1).normal(size=x.shape)) for x in outputs.values())
    gradients = tape.gradient(loss, [weight.value for weight in model.trainable_weights])
    found = {weight.path: np.abs(g).max() for weight, g in zip(model.trainable_weights, gradients, strict=True)}
    assert found and [path for path, largest in found.items() if not largest > 0] == []


@pytest.mark.parametrize("backbone", ["mobilenet_v2", "resnet18"])
def test_takes_the_features_of_registered_backbones(backbone):
    features = get_entry(backbone)[0].builder(keras.Input((72, 96, 3)))
    for neck in NECKS.values():
        pyramid = neck(features)
        sizes = {level: tuple(pyramid[level].shape[1:3]) for level in ("P3", "P4", "P5")}
        assert sizes == {"P3": (9, 12), "P4": (5, 6), "P5": (3, 3)}


def test_takes_the_features_of_a_model_by_name():
    model = kv.create_model("mobilenet_v2", num_classes=2, input_shape=(64, 64, 3), alpha=0.35)
    features = model.features(["P3", "P4", "P5"]).output
    assert feature_pyramid(features, 8)["P3"].shape == (None, 8, 8, 8)


def test_unknown_levels_and_ways():
    features = inputs(64, 64, P3=5, P4=7, P5=9)
    with pytest.raises(ValueError, match="Expected features of the levels P2, P3; there are: P3, P4, P5"):
        feature_pyramid(features, levels=("P2", "P3"))
    with pytest.raises(ValueError, match="follow one another, from fine to coarse, got P5, P4"):
        path_aggregation(features, levels=("P5", "P4"))
    with pytest.raises(ValueError, match='no extra_levels "pol". Did you mean "pool"'):
        feature_pyramid(features, 8, "pol")
    with pytest.raises(ValueError, match=r"number of filters for each of P3, P4, P5, got \(8, 8\)"):
        yolo_neck(features, (8, 8))
