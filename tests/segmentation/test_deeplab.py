"""DeepLabv3 and v3+: published counts and shapes, ASPP place by place, and what every net does."""

import keras
import numpy as np
import pytest
from keras import layers
from segmentation import contract

import kerasvision as kv
from kerasvision.segmentation.deeplab import atrous_spatial_pyramid_pooling

MOBILE = {"backbone": "mobilenet_v2", "backbone_arguments": {"alpha": 0.35}}


def learned(chosen):
    return sum(int(np.prod(weight.shape)) for layer in chosen for weight in layer.trainable_weights)


@pytest.mark.slow
def test_published_counts():
    """Those of torchvision, whose ResNet has no biases, and who does not count the statistics of normalizations."""
    model = kv.create_model("deeplabv3", num_classes=21, input_shape=(512, 512, 3), auxiliary=True)
    assert model.features("P5").output.shape == (None, 32, 32, 2048)
    assert {key: value.shape for key, value in model.output.items()} == {
        "logits": (None, 32, 32, 21),
        "auxiliary_logits": (None, 32, 32, 21),
    }
    backbone = [layer for layer in model.layers if layer.name.startswith("conv")]
    biases = sum(layer.filters for layer in backbone if isinstance(layer, layers.Conv2D) and layer.use_bias)
    auxiliary = [layer for layer in model.layers if layer.name.startswith("auxiliary")]
    assert learned(model.layers) - biases == 42_004_074
    assert learned(model.layers) - biases - learned(auxiliary) == 39_638_869


def published_head(width, filters, classes):
    """ASPP, its projection, the last convolution and the logits."""
    aspp = 2 * (width * filters + 2 * filters) + 3 * (9 * width * filters + 2 * filters)
    return aspp + 5 * filters * filters + 2 * filters + 9 * filters**2 + 2 * filters + (filters + 1) * classes


def test_parameters_of_the_head():
    """Counted by hand; on ResNet-50, which learns 23,508,032 without biases, it is the published number."""
    assert 23_508_032 + published_head(2048, 256, 21) == 39_638_869
    model = contract.create("deeplabv3")
    head = [layer for layer in model.layers if layer.name.startswith(("aspp", "head", "logits"))]
    assert learned(head) == published_head(48, 24, 3)
    auxiliary = [layer for layer in model.layers if layer.name.startswith("auxiliary")]
    assert learned(auxiliary) == 9 * 32 * 8 + 2 * 8 + 9 * 3


def test_aspp_place_by_place():
    """Every branch by loops over the window, the mean over the whole image, and the projection of them all."""
    x = keras.Input((7, 9, 3))
    net = keras.Model(x, atrous_spatial_pyramid_pooling(x, 4, (1, 2, 5), "aspp", dropout=0.5))
    contract.randomize(net)
    values = np.random.default_rng(0).normal(size=(1, 7, 9, 3)).astype(np.float32)
    weights = {layer.name: [np.asarray(weight) for weight in layer.weights] for layer in net.layers}

    def normalized(y, name):
        gamma, beta, mean, variance = weights[f"{name}_bn"]
        return np.maximum((y - mean) / np.sqrt(variance + 1e-5) * gamma + beta, 0)

    branches = [normalized(values @ weights["aspp_1x1_conv"][0][0, 0], "aspp_1x1")]
    for rate in (1, 2, 5):
        padded = np.pad(values, ((0, 0), (rate, rate), (rate, rate), (0, 0)))
        kernel = weights[f"aspp_rate{rate}_conv"][0]
        y = sum(
            padded[:, i * rate : i * rate + 7, j * rate : j * rate + 9] @ kernel[i, j]
            for i in range(3)
            for j in range(3)
        )
        branches.append(normalized(y, f"aspp_rate{rate}"))
    mean = normalized(values.mean(axis=(1, 2), keepdims=True) @ weights["aspp_image_conv"][0][0, 0], "aspp_image")
    branches.append(np.broadcast_to(mean, (1, 7, 9, 4)))
    wanted = normalized(np.concatenate(branches, axis=-1) @ weights["aspp_project_conv"][0][0, 0], "aspp_project")
    np.testing.assert_allclose(net(values, training=False), wanted, rtol=1e-4, atol=1e-4)


@pytest.mark.parametrize(("output_stride", "rates"), [(16, (6, 12, 18)), (8, (12, 24, 36)), (32, (3, 6, 9))])
def test_rates_see_as_much_of_the_image_at_every_output_stride(output_stride, rates):
    arguments = {**MOBILE, "filters": 8, "output_stride": output_stride}
    model = kv.create_model("deeplabv3", num_classes=3, input_shape=(64, 64, 3), **arguments)
    assert model.output["logits"].shape[1] == 64 // output_stride
    made = [layer for layer in model.layers if layer.name.startswith("aspp_rate") and layer.name.endswith("_conv")]
    assert tuple(layer.dilation_rate[0] for layer in made) == rates


def test_low_level_features():
    model = contract.create("deeplabv3_plus", low_level="P3")
    assert model.output["logits"].shape == (None, 8, 8, 3)
    assert model.get_layer("decoder_low_level_conv").kernel.shape == (1, 1, 32, 12)
    with pytest.raises(ValueError, match='"small_cnn" has no level P9; low_level may be one of P0, P1'):
        contract.create("deeplabv3_plus", low_level="P9")
    with pytest.raises(ValueError, match="finer than the output stride 16, got P4"):
        contract.create("deeplabv3_plus", low_level="P4")


@pytest.mark.parametrize(("name", "logits"), [("deeplabv3", (3, 5)), ("deeplabv3_plus", (12, 17))])
def test_odd_sizes(name, logits):
    assert contract.check_odd_size(name, (45, 67)) == logits


@pytest.mark.parametrize(("name", "least"), [("deeplabv3", 0.5), ("deeplabv3_plus", 0.8)])
def test_learns(name, least):
    """Logits at 1/16 know no outlines."""
    assert contract.learn(contract.create(name), 20) > least


@pytest.mark.parametrize("name", ["deeplabv3", "deeplabv3_plus"])
def test_int8(name):
    """A convolution with holes is one op: no SPACE_TO_BATCH_ND around it."""
    ops = contract.check_int8(contract.create(name))
    assert set(ops) <= {
        *("CONV_2D", "DEPTHWISE_CONV_2D", "MAX_POOL_2D", "MEAN", "RESIZE_NEAREST_NEIGHBOR", "RESIZE_BILINEAR"),
        *("CONCATENATION", "QUANTIZE", "DEQUANTIZE"),
    }


@pytest.mark.slow
def test_int8_of_a_backbone_with_holes():
    model = kv.create_model(
        "deeplabv3", labels=contract.LABELS, input_shape=(64, 64, 3), **MOBILE, filters=16, output_stride=8
    )
    ops = contract.check_int8(model)
    assert "SPACE_TO_BATCH_ND" not in ops and ops["DEPTHWISE_CONV_2D"] == 17
