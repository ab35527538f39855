"""One contract for every registered backbone."""

import keras
import numpy as np
import pytest

import kerasvision as kv
from kerasvision.errors import WeightsError
from kerasvision.registry import get_entry

# Parameters with 1000 classes at the default input, as published by keras.applications and the papers.
PUBLISHED = {"mobilenet_v2": 3_538_984, "resnet50": 25_636_712, "efficientnet_lite0": 4_694_024}


@pytest.mark.parametrize("name", PUBLISHED)
def test_parameter_count(name):
    model = kv.create_model(name, num_classes=1000)
    assert model.count_params() == PUBLISHED[name]
    trained = get_entry(name)[0].weights["imagenet"]
    assert trained.parameters == PUBLISHED[name]


@pytest.mark.parametrize("name", ["mobilenet_v2", "resnet50", "efficientnet_lite0", "small_cnn"])
def test_taps_halve_the_resolution(name):
    entry, _ = get_entry(name)
    features = entry.builder(keras.Input((64, 96, 3)))
    levels = {key: value for key, value in features.items() if key != "top"}
    for key, value in levels.items():
        stride = 2 ** int(key[1:])
        assert value.shape[1:3] == (64 // stride, 96 // stride), key
    if name != "small_cnn":
        assert list(levels) == ["P1", "P2", "P3", "P4", "P5"]


def fake_download(monkeypatch, application, path):
    """Put a file made here where keras.applications looks for its download."""
    import importlib

    module = importlib.import_module(application)
    monkeypatch.setattr(module.file_utils, "get_file", lambda *args, **kwargs: str(path(args[0])))


def test_imagenet_weights_of_resnet50_are_turned_to_rgb(monkeypatch, tmp_path):
    keras.utils.set_random_seed(0)
    published = keras.applications.ResNet50(weights=None, classes=1000)
    headless = keras.applications.ResNet50(weights=None, include_top=False)
    headless.set_weights(published.get_weights()[:-2])
    published.save_weights(tmp_path / "top.weights.h5")
    headless.save_weights(tmp_path / "notop.weights.h5")
    fake_download(
        monkeypatch,
        "keras.src.applications.resnet",
        lambda name: tmp_path / ("notop.weights.h5" if "notop" in name else "top.weights.h5"),
    )
    model = kv.create_model("resnet50", weights="imagenet")
    pixels = np.random.default_rng(0).uniform(0, 255, (1, 224, 224, 3)).astype("float32")
    expected = published.predict(keras.applications.resnet.preprocess_input(pixels.copy()), verbose=0)
    received = keras.ops.convert_to_numpy(model.task.decode(model(pixels))["scores"])
    np.testing.assert_allclose(received, expected, atol=1e-5)
    assert len(model.labels) == 1000
    assert model.preprocessing.fit == "crop"


def test_a_failed_download_says_what_to_do(monkeypatch):
    def offline(*args, **kwargs):
        raise Exception("URL fetch failure on https://example.invalid/weights.h5: None -- unreachable")

    module = __import__("keras.src.applications.mobilenet_v2", fromlist=["file_utils"])
    monkeypatch.setattr(module.file_utils, "get_file", offline)
    with pytest.raises(WeightsError, match=r"could not be downloaded.*KERAS_HOME.*weights=None"):
        kv.create_model("mobilenet_v2", num_classes=5, weights="imagenet")
