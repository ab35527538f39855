"""The nets that keras.applications lacks, against the numbers of their papers and ports."""

import keras
import numpy as np
import pytest

import kerasvision as kv
from kerasvision.backbones import googlenet
from kerasvision.layers.convolution import conv
from kerasvision.registry import get_entry

NETS = ("resnet18", "resnet34", "resnet18_v2", "resnet34_v2", "googlenet", "darknet53")
RESIDUAL = ("resnet18", "resnet18_v2", "darknet53")


def features_of(name, shape=(64, 96, 3), **arguments):
    image = keras.Input(shape)
    return image, get_entry(name)[0].builder(image, **arguments)


def count(weights):
    return sum(int(np.prod(weight.shape)) for weight in weights)


def trainable(name, classes, **arguments):
    return count(kv.create_model(name, num_classes=classes, input_shape=(32, 32, 3), **arguments).trainable_weights)


def values(x):
    return np.asarray(keras.ops.convert_to_numpy(keras.ops.cast(x, "float32")))


# torchvision's, and for version 2 the same convolutions with these normalizations: the stem's, one in each block,
# one behind each block. Version 1 has two in each block and one in each of the three shortcuts.
BASIC = {"resnet18": 11_689_512, "resnet34": 21_797_672}
NORMALIZED_SHORTCUTS = 2 * (128 + 256 + 512)


@pytest.mark.parametrize("name", BASIC)
def test_basic_resnets_have_torchvisions_parameters(name):
    assert trainable(name, 1000) == BASIC[name]
    assert trainable(f"{name}_v2", 1000) == BASIC[name] - NORMALIZED_SHORTCUTS


def test_googlenet_has_the_papers_parameters():
    """Caffe's net has 6,998,552, with one bias for each filter where this one has a scale and a shift."""
    modules = [module for level in googlenet.MODULES.values() for module in level.values()]
    filters = 64 + 64 + 192 + sum(map(sum, modules))
    assert trainable("googlenet", 1000) == 6_998_552 + filters
    # torchvision's 5x5 branch is 3x3.
    smaller = sum(module.five_reduce * module.five * (25 - 9) for module in modules)
    assert trainable("googlenet", 1000) - smaller == 6_624_904


def test_googlenets_five_by_five_is_five_by_five():
    image, features = features_of("googlenet")
    kernels = [layer.kernel_size for layer in keras.Model(image, features).layers if layer.name.endswith("_5x5_conv")]
    assert kernels == [(5, 5)] * 9


def test_darknet53_has_yolov3s_parameters():
    image, features = features_of("darknet53")
    net = keras.Model(image, features["P5"])
    assert count(net.trainable_weights) == 40_584_928
    assert net.count_params() == 40_620_640  # of the ports, with the running statistics
    assert sum(isinstance(layer, keras.layers.Conv2D) for layer in net.layers) == 52
    assert get_entry("darknet53")[0].input_shape == (256, 256, 3)


@pytest.mark.parametrize("name", NETS)
def test_taps_halve_the_resolution(name):
    _, features = features_of(name)
    assert list(features) == ["P1", "P2", "P3", "P4", "P5"]
    for level, stride in (("P1", 2), ("P2", 4), ("P3", 8), ("P4", 16), ("P5", 32)):
        assert features[level].shape[1:3] == (64 // stride, 96 // stride), level


@pytest.mark.parametrize("kernel_size", [1, 3, 7])
def test_strided_convolution_sees_what_every_second_place_of_a_dense_one_sees(kernel_size):
    """So it is with padding by half a kernel on all sides, and not with Keras's "same"."""
    image = keras.Input((8, 12, 3))
    dense = keras.Model(image, conv(image, 4, kernel_size, 1, "dense"))
    strided = keras.Model(image, conv(image, 4, kernel_size, 2, "strided"))
    strided.set_weights(dense.get_weights())
    x = np.random.default_rng(0).normal(size=(1, 8, 12, 3)).astype("float32")
    np.testing.assert_allclose(values(strided(x)), values(dense(x))[:, ::2, ::2], atol=1e-5)


def test_stem_pools_like_a_padded_maximum():
    image, features = features_of("resnet18", (32, 32, 3))
    net = keras.Model(image, features)
    pooled = keras.Model(image, net.get_layer("pool1_pool").output)
    x = np.random.default_rng(0).normal(size=(1, 32, 32, 3)).astype("float32")
    half = values(net(x)["P1"])
    padded = np.pad(half, ((0, 0), (1, 1), (1, 1), (0, 0)), constant_values=-np.inf)
    windows = np.lib.stride_tricks.sliding_window_view(padded, (3, 3), axis=(1, 2))[:, ::2, ::2]
    np.testing.assert_array_equal(values(pooled(x)), windows.max((-2, -1)))


def test_preactivated_sums_go_on_untouched():
    """The sum of the last block is the stem's map and what every branch of the stage adds, nothing in between."""
    image, features = features_of("resnet18_v2", (32, 32, 3))
    net = keras.Model(image, features)
    parts = ["pool1_pool", "conv2_block1_2_conv", "conv2_block2_2_conv", "conv2_block2_out"]
    taken = keras.Model(image, [net.get_layer(name).output for name in parts])
    start, first, second, total = map(
        values, taken(np.random.default_rng(0).normal(size=(1, 32, 32, 3)).astype("float32"))
    )
    np.testing.assert_allclose(total, start + first + second, atol=1e-5)


# Channels of the branch at every add, in resnet18 and in darknet53.
ADDS = {
    "resnet18": [64, 64, 128, 128, 256, 256, 512, 512],
    "resnet18_v2": [64, 64, 128, 128, 256, 256, 512, 512],
    "darknet53": [64] + [128] * 2 + [256] * 8 + [512] * 8 + [1024] * 4,
}


@pytest.mark.parametrize("name", RESIDUAL)
def test_attention_stands_in_front_of_every_add(name):
    net = keras.Model(*features_of(name, (32, 32, 3), attention="se"))
    adds = [layer for layer in net.layers if isinstance(layer, keras.layers.Add)]
    branches = [add.input[1]._keras_history.operation.name for add in adds]
    assert len(adds) == len(ADDS[name])
    assert all(branch.endswith("_se_scale") for branch in branches)
    plain = keras.Model(*features_of(name, (32, 32, 3)))
    added = sum(2 * channels * (channels // 16) + channels // 16 + channels for channels in ADDS[name])
    assert count(net.trainable_weights) - count(plain.trainable_weights) == added


@pytest.mark.parametrize("name", ["resnet18", "resnet34_v2"])
def test_self_attention_replaces_the_second_convolution_of_the_last_stage(name):
    plain = keras.Model(*features_of(name))
    net = keras.Model(*features_of(name, attention="mhsa"))
    blocks = 3 if "34" in name else 2
    gone = {f"conv5_block{block}_2_conv" for block in range(1, blocks + 1)}
    assert gone == {layer.name for layer in plain.layers[1:]} - {layer.name for layer in net.layers}
    height, width, channels = 2, 3, 512
    change = blocks * (3 * channels**2 + (height + width) * channels - 9 * channels**2)
    assert count(net.trainable_weights) - count(plain.trainable_weights) == change


@pytest.mark.parametrize("name", RESIDUAL)
def test_unknown_attention_gets_the_closest_names(name):
    with pytest.raises(ValueError, match='no attention "ec". Did you mean "eca"'):
        features_of(name, attention="ec")


def test_darknet_has_no_place_for_self_attention():
    with pytest.raises(ValueError, match='Take "se", "eca" or "cbam"'):
        features_of("darknet53", attention="mhsa")


@pytest.mark.parametrize(
    "name,arguments",
    [
        ("resnet18", {"attention": "cbam"}),
        ("resnet18_v2", {"attention": "mhsa"}),
        ("googlenet", {}),
        pytest.param("resnet18", {"attention": "mhsa"}, marks=pytest.mark.slow),
        pytest.param("resnet18_v2", {"attention": "eca"}, marks=pytest.mark.slow),
        pytest.param("darknet53", {}, marks=pytest.mark.slow),
        pytest.param("darknet53", {"attention": "cbam"}, marks=pytest.mark.slow),
    ],
)
def test_gradients_reach_every_weight(name, arguments):
    keras.utils.set_random_seed(0)
    model = kv.create_model(name, num_classes=3, input_shape=(64, 64, 3), dropout=0.0, **arguments)
    model.compile(keras.optimizers.SGD(0.1), run_eagerly=True)  # One step; tracing would take the time.
    before = [np.array(weight) for weight in model.trainable_weights]
    images = np.random.default_rng(0).uniform(0, 255, (4, 64, 64, 3)).astype("float32")
    model.fit(images, {"label": np.array([0, 1, 2, 0])}, batch_size=4, verbose=0)
    still = [
        weight.path
        for weight, old in zip(model.trainable_weights, before, strict=True)
        if not np.abs(np.array(weight) - old).max() > 0
    ]
    assert not still


@pytest.mark.parametrize("name", [pytest.param(n, marks=pytest.mark.slow if n == "darknet53" else ()) for n in NETS])
def test_half_precision(name):
    images = np.random.default_rng(0).uniform(0, 255, (2, 32, 32, 3)).astype("float32")
    keras.config.set_dtype_policy("mixed_float16")
    try:
        half = kv.create_model(name, num_classes=3, input_shape=(32, 32, 3))
    finally:
        keras.config.set_dtype_policy("float32")
    full = kv.create_model(name, num_classes=3, input_shape=(32, 32, 3))
    full.set_weights(half.get_weights())
    expected, received = (values(model(images)["logits"]) for model in (full, half))
    assert half.get_layer("pool").compute_dtype == "float16"
    np.testing.assert_allclose(received, expected, atol=0.02 * np.abs(expected).max())


def test_arguments_come_back_from_the_file(tmp_path):
    arguments = {"attention": "mhsa", "pooling": "gem"}
    model = kv.create_model("resnet18_v2", num_classes=3, input_shape=(32, 64, 1), **arguments)
    model.save(tmp_path / "model.keras")
    twin = keras.saving.load_model(tmp_path / "model.keras")
    images = np.random.default_rng(0).uniform(0, 255, (2, 32, 64, 1)).astype("float32")
    np.testing.assert_array_equal(values(twin(images)["logits"]), values(model(images)["logits"]))
