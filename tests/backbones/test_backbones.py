"""The nets of keras.applications, on our tensor: the same numbers, in named stock layers."""

import importlib
import re

import keras
import numpy as np
import pytest
from keras import layers

import kerasvision as kv
from kerasvision.backbones.applications import is_automatic, same_layer
from kerasvision.errors import WeightsError
from kerasvision.registry import get_entry

A = keras.applications

# Name -> application, and the side of the smallest image to test it with.
ALL = {
    "mobilenet_v2": (A.MobileNetV2, 48),
    "mobilenet_v3_small": (A.MobileNetV3Small, 48),
    "convnext_tiny": (A.ConvNeXtTiny, 32),
    "efficientnet_b0": (A.EfficientNetB0, 48),
    "resnet50": (A.ResNet50, 32),
    "vgg16": (A.VGG16, 32),
    "vgg19": (A.VGG19, 32),
    "resnet101": (A.ResNet101, 32),
    "resnet152": (A.ResNet152, 32),
    "resnet50_v2": (A.ResNet50V2, 48),
    "resnet101_v2": (A.ResNet101V2, 32),
    "resnet152_v2": (A.ResNet152V2, 32),
    "inception_v3": (A.InceptionV3, 96),
    "densenet121": (A.DenseNet121, 32),
    "densenet169": (A.DenseNet169, 32),
    "densenet201": (A.DenseNet201, 32),
    "mobilenet_v1": (A.MobileNet, 48),
    "mobilenet_v3_large": (A.MobileNetV3Large, 48),
    "efficientnet_b1": (A.EfficientNetB1, 32),
    "efficientnet_b2": (A.EfficientNetB2, 32),
    "efficientnet_b3": (A.EfficientNetB3, 32),
    "efficientnet_v2b0": (A.EfficientNetV2B0, 48),
    "xception": (A.Xception, 80),
}

# Sides of P1 to P5 of a 299x299 image.
UNPADDED = {"inception_v3": (147, 71, 35, 17, 8), "xception": (147, 74, 37, 19, 10)}


def every(*fast, names=tuple(ALL)):
    """All names, those that are not `fast` in the slow tier."""
    return [*fast, *(pytest.param(name, marks=pytest.mark.slow) for name in names if name not in fast)]


# Parameters with 1000 classes at the default input, as published by keras.applications and the papers; the seven
# numbers of the normalization inside of EfficientNet B0 to B3 are not counted here.
PUBLISHED = {
    "vgg16": 138_357_544,
    "vgg19": 143_667_240,
    "resnet50": 25_636_712,
    "resnet101": 44_707_176,
    "resnet152": 60_419_944,
    "resnet50_v2": 25_613_800,
    "resnet101_v2": 44_675_560,
    "resnet152_v2": 60_380_648,
    "inception_v3": 23_851_784,
    "densenet121": 8_062_504,
    "densenet169": 14_307_880,
    "densenet201": 20_242_984,
    "mobilenet_v1": 4_253_864,
    "mobilenet_v2": 3_538_984,
    "mobilenet_v3_small": 2_554_968,
    "mobilenet_v3_large": 5_507_432,
    "efficientnet_b0": 5_330_571 - 7,
    "efficientnet_b1": 7_856_239 - 7,
    "efficientnet_b2": 9_177_569 - 7,
    "efficientnet_b3": 12_320_535 - 7,
    "efficientnet_v2b0": 7_200_312,
    "xception": 22_910_480,
    "convnext_tiny": 28_589_128,
}


@pytest.mark.parametrize("name", every("mobilenet_v2", "mobilenet_v3_small"))
def test_structure(name):
    """The published number of parameters, taps of the right strides, and nothing but named stock layers, flat."""
    height, width = (224, 224) if name.startswith("vgg") else (299, 299) if name in UNPADDED else (64, 96)
    model = kv.create_model(name, num_classes=1000, input_shape=(height, width, 3))
    assert model.count_params() == PUBLISHED[name]
    assert get_entry(name)[0].weights["imagenet"].parameters == PUBLISHED[name]

    levels = {level: model.get_layer(layer).output.shape for level, layer in model.taps.items() if level != "top"}
    assert list(levels) == ["P1", "P2", "P3", "P4", "P5"][name == "convnext_tiny" :]
    expected = {level: (height // 2 ** int(level[1:]), width // 2 ** int(level[1:])) for level in levels}
    if name in UNPADDED:
        expected = {level: (side, side) for level, side in zip(levels, UNPADDED[name], strict=True)}
    assert {level: shape[1:3] for level, shape in levels.items()} == expected

    assert all(type(operation).__module__.startswith("keras.src.layers.") for operation in model.operations)
    assert not any(getattr(layer, "groups", 1) > 1 for layer in model.layers)
    named_here = {"flatten", "dropout"}
    assert not [layer.name for layer in model.layers if is_automatic(layer) and layer.name not in named_here]


def features_of(name, shape=(64, 96, 3), **arguments):
    x = keras.Input(shape, name="normalized")
    features = get_entry(name)[0].builder(x, **arguments)
    return features, keras.Model(x, features)


@pytest.mark.parametrize("name", every("mobilenet_v3_small", names=["inception_v3"]))
def test_names_do_not_depend_on_what_was_built_before(name):
    first, second = (features_of(name, (96, 96, 3))[1] for _ in range(2))
    assert [layer.name for layer in first.layers] == [layer.name for layer in second.layers]


@pytest.mark.parametrize("name", every("mobilenet_v3_small"))
def test_every_argument_of_a_layer_is_kept(name):
    application, side = ALL[name]
    net = application(weights=None, include_top=False, input_shape=(side, side, 3))
    for layer in net.layers:
        # Normalization is preprocessing, and left out.
        left_out = isinstance(layer, layers.InputLayer | layers.Normalization)
        if type(layer).__module__.startswith("keras.src.layers.") and not left_out:
            assert same_layer(layer, "other").get_config() == {**layer.get_config(), "name": "other"}


def fake_download(monkeypatch, get_file):
    """Let keras.applications get its files from here: `get_file(name)` gives the path."""
    utils = importlib.import_module("keras.src.utils.file_utils")
    monkeypatch.setattr(utils, "get_file", lambda name, *args, **kwargs: str(get_file(name)))


def randomize(net):
    """Numbers that show it when a layer is left out or two are exchanged."""
    random = np.random.default_rng(0)
    for weight in net.weights:
        shape = tuple(weight.shape)
        if weight.name in ("beta", "bias", "moving_mean"):
            weight.assign(random.normal(0, 0.2, shape))
        elif weight.name in ("gamma", "moving_variance"):
            weight.assign(random.uniform(0.7, 1.3, shape))
        elif type(weight.shape) is tuple and len(shape) == 1:  # ConvNeXt's factor on each channel.
            weight.assign(random.uniform(0.5, 1, shape))


def published(monkeypatch, tmp_path, application, side):
    """The application with "ImageNet" weights, which are random ones in a file, and the function before it."""
    arguments = {"include_top": application in (A.MobileNetV3Small, A.MobileNetV3Large)}
    if application is A.ConvNeXtTiny:
        arguments["pooling"] = "avg"
    net = application(weights=None, input_shape=(side, side, 3), **arguments)
    randomize(net)
    fake_download(monkeypatch, lambda name: tmp_path / "net.weights.h5")
    if application.__name__.startswith("EfficientNetB"):
        # What the published files hold: the deviation where the variance should be. The net divides by it once more.
        normalization = next(layer for layer in net.layers if isinstance(layer, layers.Normalization))
        values = [(0.485, 0.456, 0.406), (0.229, 0.224, 0.225), 0]
        normalization.set_weights([np.asarray(value, "float32") for value in values])
        net.save_weights(tmp_path / "net.weights.h5")
        net = application(weights="imagenet", input_shape=(side, side, 3), **arguments)
    net.save_weights(tmp_path / "net.weights.h5")
    if arguments["include_top"]:
        net = keras.Model(net.input, layers.Flatten()(net.get_layer("logits").input))
    return net, importlib.import_module(application.__module__).preprocess_input


# The fast tier compares ResNet-50 with its classifier, below.
@pytest.mark.parametrize("name", every("mobilenet_v2", "mobilenet_v3_small", "convnext_tiny", "efficientnet_b0"))
def test_the_numbers_are_those_of_keras_applications(name, monkeypatch, tmp_path):
    """From raw pixels on: hidden preprocessing, order of the colors, every layer."""
    application, side = ALL[name]
    net, preprocess_input = published(monkeypatch, tmp_path, application, side)
    pixels = np.random.default_rng(1).uniform(0, 255, (2, side, side, 3)).astype("float32")
    expected = net(preprocess_input(pixels.copy()), training=False)

    entry = get_entry(name)[0]
    image = keras.Input((side, side, 3))
    preprocessing = entry.weights["imagenet"].preprocessing
    x = layers.Rescaling(preprocessing.scale, preprocessing.offset)(image)
    features = entry.builder(x, weights="imagenet", **({"fully_connected": False} if name.startswith("vgg") else {}))
    received = keras.Model(image, features.get("top", features["P5"]))(pixels, training=False)
    expected, received = keras.ops.convert_to_numpy(expected), keras.ops.convert_to_numpy(received)
    assert expected.std() > 0.01 * np.abs(expected).max()
    np.testing.assert_allclose(received, expected, atol=1e-5 * np.abs(expected).max(), rtol=0)


def test_imagenet_weights_of_resnet50_bring_their_classifier(monkeypatch, tmp_path):
    keras.utils.set_random_seed(0)
    published = A.ResNet50(weights=None, classes=1000)
    headless = A.ResNet50(weights=None, include_top=False)
    headless.set_weights(published.get_weights()[:-2])
    published.save_weights(tmp_path / "top.weights.h5")
    headless.save_weights(tmp_path / "notop.weights.h5")
    files = {True: tmp_path / "notop.weights.h5", False: tmp_path / "top.weights.h5"}
    fake_download(monkeypatch, lambda name: files["notop" in name])
    model = kv.create_model("resnet50", weights="imagenet")
    pixels = np.random.default_rng(0).uniform(0, 255, (1, 224, 224, 3)).astype("float32")
    expected = published.predict(A.resnet.preprocess_input(pixels.copy()), verbose=0)
    received = keras.ops.convert_to_numpy(model.task.decode(model(pixels))["scores"])
    np.testing.assert_allclose(received, expected, atol=1e-5)
    assert len(model.labels) == 1000
    assert model.preprocessing.fit == "crop"


@pytest.mark.slow
@pytest.mark.parametrize("name", ["vgg16", "mobilenet_v1", "mobilenet_v3_small", "convnext_tiny"])
def test_published_classifiers_of_other_kinds_fit(name, monkeypatch, tmp_path):
    """Two fully connected layers, a 1x1 convolution, a convolution behind the pooling, a normalized vector."""
    application = ALL[name][0]
    published = application(weights=None)
    randomize(published)
    classifier = next(layer for layer in reversed(published.layers) if layer.weights)
    classifier.set_weights([10 * weight for weight in classifier.get_weights()])  # Scores that differ.
    published.save_weights(tmp_path / "top.weights.h5")
    top = name in ("vgg16", "mobilenet_v3_small")
    headless = application(weights=None, include_top=top, **({"pooling": "avg"} if name == "convnext_tiny" else {}))
    headless.set_weights(published.get_weights()[: len(headless.weights)])
    headless.save_weights(tmp_path / "notop.weights.h5")
    fake_download(
        monkeypatch,
        lambda file: tmp_path / ("notop.weights.h5" if "no" in file.replace("conv", "") else "top.weights.h5"),
    )
    model = kv.create_model(name, weights="imagenet")
    pixels = np.random.default_rng(0).uniform(0, 255, (1, 224, 224, 3)).astype("float32")
    preprocess_input = importlib.import_module(application.__module__).preprocess_input
    expected = published.predict(preprocess_input(pixels.copy()), verbose=0)
    received = keras.ops.convert_to_numpy(model.task.decode(model(pixels))["scores"])
    assert expected.max() > 0.01
    np.testing.assert_allclose(received, expected, rtol=1e-3, atol=1e-6)


def test_published_fully_connected_layers_need_their_image_size():
    with pytest.raises(WeightsError, match=r"224x224x3, got \(64, 64, 3\).*fully_connected=False"):
        kv.create_model("vgg16", num_classes=5, input_shape=(64, 64, 3), weights="imagenet")


def test_without_fully_connected_layers_vgg_ends_at_its_last_map():
    features, net = features_of("vgg16", fully_connected=False)
    assert list(features) == ["P1", "P2", "P3", "P4", "P5"]
    assert net.count_params() == 14_714_688


def test_a_failed_download_says_what_to_do(monkeypatch):
    def offline(name):
        raise Exception(f"URL fetch failure on https://example.invalid/{name}: None -- unreachable")

    fake_download(monkeypatch, offline)
    with pytest.raises(WeightsError, match=r"could not be downloaded.*KERAS_HOME.*weights=None"):
        kv.create_model("mobilenet_v2", num_classes=5, weights="imagenet")


@pytest.mark.parametrize(
    ("name", "arguments"),
    [
        ("mobilenet_v3_small", {"alpha": 0.75, "minimalistic": True}),
        pytest.param("mobilenet_v1", {"alpha": 0.25}, marks=pytest.mark.slow),
        pytest.param("mobilenet_v2", {"alpha": 0.35}, marks=pytest.mark.slow),
        pytest.param("mobilenet_v3_large", {"alpha": 0.75}, marks=pytest.mark.slow),
    ],
)
def test_arguments_of_the_mobilenets(name, arguments):
    _, net = features_of(name, **arguments)
    expected = ALL[name][0](weights=None, classes=10, **arguments).count_params()
    width = net.output["top" if "top" in net.output else "P5"].shape[-1]
    assert net.count_params() + 10 * (width + 1) == expected


def ends_of_residual_branches(net):
    """Name of each residual add -> names of the layers whose outputs it adds."""
    return {
        layer.name: [operand._keras_history.operation.name for operand in layer.input]
        for layer in net.layers
        if isinstance(layer, layers.Add) and "cbam" not in layer.name
    }


# The papers' nets have no bias in their convolutions: 25,557,032 parameters that learn, and with attention these.
@pytest.mark.parametrize(
    ("attention", "end", "parameters"),
    [
        ("se", "_se_scale", 28_088_024),
        pytest.param("cbam", "_cbam_spatial_scale", 28_089_624, marks=pytest.mark.slow),
    ],
)
def test_attention_stands_on_every_residual_branch_of_resnet50(attention, end, parameters):
    _, net = features_of("resnet50", attention=attention)
    own = re.compile(r"conv\d_(block\d+_\d_)?conv")
    biases = sum(layer.filters for layer in net.layers if own.fullmatch(layer.name))
    trained = sum(int(np.prod(weight.shape)) for weight in net.trainable_weights)
    assert trained - biases + 2049 * 1000 == parameters
    adds = ends_of_residual_branches(net)
    assert len(adds) == 16
    for add, (shortcut, branch) in adds.items():
        assert branch == f"{add}{end}"
        assert shortcut.endswith("_0_bn" if "block1_" in add else "_out")


ATTENTIVE = (
    "mobilenet_v2",
    "resnet50_v2",
    "mobilenet_v3_small",
    "mobilenet_v3_large",
    "efficientnet_b0",
    "efficientnet_v2b0",
    "xception",
    "convnext_tiny",
)


@pytest.mark.parametrize("name", every("mobilenet_v2", names=ATTENTIVE))
@pytest.mark.parametrize("attention", ["eca", "mhsa"])
def test_attention_on_any_residual_family(name, attention):
    side = 96 if name == "xception" else 64
    features, net = features_of(name, (side, side, 3), attention=attention)
    plain, without = features_of(name, (side, side, 3))
    assert {level: value.shape for level, value in features.items()} == {
        level: value.shape for level, value in plain.items()
    }
    attended = {layer.name for layer in net.layers if f"_{attention}_" in layer.name}
    assert attended and not any(f"_{attention}_" in layer.name for layer in without.layers)
    if attention == "eca":
        for operands in ends_of_residual_branches(net).values():
            assert sum(operand.endswith("_eca_scale") for operand in operands) == 1


@pytest.mark.parametrize("name", every("resnet50", names=["resnet50_v2"]))
def test_self_attention_replaces_the_convolutions_of_the_last_stage(name):
    _, net = features_of(name, attention="mhsa")
    names = {layer.name for layer in net.layers}
    for block in (1, 2, 3):
        assert f"conv5_block{block}_2_mhsa_concat" in names and f"conv4_block{block}_2_conv" in names
        assert not {f"conv5_block{block}_2_conv", f"conv5_block{block}_2_pad"} & names


def test_unknown_attention():
    with pytest.raises(ValueError, match='no attention "sea".*Did you mean "se"'):
        features_of("mobilenet_v2", attention="sea")


@pytest.mark.parametrize("policy", ["mixed_float16", pytest.param("mixed_bfloat16", marks=pytest.mark.slow)])
@pytest.mark.parametrize("name", every("mobilenet_v3_small", names=["convnext_tiny", "densenet121"]))
def test_half_precision(name, policy):
    before = keras.config.dtype_policy()
    keras.config.set_dtype_policy(policy)
    try:
        model = kv.create_model(name, num_classes=3, input_shape=(32, 32, 3))
    finally:
        keras.config.set_dtype_policy(before)
    stem = next(layer for layer in model.layers if isinstance(layer, layers.Conv2D))
    assert stem.compute_dtype == policy.removeprefix("mixed_") and stem.variable_dtype == "float32"
    logits = keras.ops.convert_to_numpy(model(np.full((1, 32, 32, 3), 128.0))["logits"])
    assert logits.dtype == np.float32 and np.isfinite(logits).all()
