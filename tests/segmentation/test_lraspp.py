"""LR-ASPP: the published count, its two branches place by place, and what every net does."""

import keras
import numpy as np
import pytest
from segmentation import contract

import kerasvision as kv


def test_published_count():
    """That of torchvision, who does not count the statistics of normalizations."""
    model = kv.create_model("lraspp", num_classes=21, input_shape=(64, 64, 3))
    assert sum(int(np.prod(weight.shape)) for weight in model.trainable_weights) == 3_221_538
    assert model.output["logits"].shape == (None, 8, 8, 21)
    assert {level: model.features(level).output.shape[1:] for level in ("P3", "P5")} == {
        "P3": (8, 8, 40),
        "P5": (4, 4, 960),
    }


def test_head_place_by_place():
    """A gate for each channel of the coarse features, enlarged bilinearly, and the sum of two classifiers."""
    model = contract.create("lraspp")
    contract.randomize(model)
    images, _ = contract.scene(model.image_size, 2)
    features = model.features(["P3", "P5"])(images, training=False)
    fine, coarse = np.asarray(features["P3"]), np.asarray(features["P5"])
    weights = {layer.name: [np.asarray(weight) for weight in layer.weights] for layer in model.layers}
    gamma, beta, mean, variance = weights["head_bn"]
    x = coarse @ weights["head_conv"][0][0, 0]
    x = np.maximum((x - mean) / np.sqrt(variance + 1e-5) * gamma + beta, 0)
    gate = coarse.mean(axis=(1, 2), keepdims=True) @ weights["gate_conv"][0][0, 0]
    x = x / (1 + np.exp(-gate))
    for axis in (1, 2):
        places = (np.arange(8) + 0.5) / 2 - 0.5
        x = np.apply_along_axis(lambda line, at=places: np.interp(at, range(4), line), axis, x)
    wanted = sum(
        values @ weights[name][0][0, 0] + weights[name][1]
        for values, name in ((fine, "fine_logits"), (x, "coarse_logits"))
    )
    np.testing.assert_allclose(model(images, training=False)["logits"], wanted, rtol=1e-3, atol=1e-3)


def test_last_convolution_of_mobilenet_v3_is_asked_for():
    model = kv.create_model("lraspp", num_classes=3, input_shape=(64, 64, 3), backbone_arguments={"alpha": 0.75})
    assert model.taps["P5"] == "expanded_conv_14_add"
    assert contract.create("lraspp", output_stride=32).features("P5").output.shape == (None, 2, 2, 48)
    with pytest.raises(ValueError, match="output_stride must be 16 or 32, got 8"):
        contract.create("lraspp", output_stride=8)


def test_odd_sizes():
    assert contract.check_odd_size("lraspp", (45, 67)) == (6, 9)


def test_learns():
    assert contract.learn(contract.create("lraspp"), 20) > 0.7


def test_int8():
    ops = contract.check_int8(contract.create("lraspp"))
    assert ops["MUL"] == 1 and ops["RESIZE_BILINEAR"] == 1


@pytest.mark.slow
def test_int8_on_mobilenet_v3():
    keras.utils.set_random_seed(0)
    model = kv.create_model(
        "lraspp", labels=contract.LABELS, input_shape=(64, 64, 3), backbone="mobilenet_v3_small", filters=16
    )
    assert "SPACE_TO_BATCH_ND" not in contract.check_int8(model)
