"""Parameters and multiply-accumulates of every backbone at its default image size with 1000 classes."""

import keras
import pytest
from keras import layers

import kerasvision as kv
from kerasvision.registry import get_entry
from kerasvision.zoo import count_macs, own_backbones

# Parameters that learn, of nets without trained weights by name.
PUBLISHED_TRAINABLE = {
    "resnet18": 11_689_512,  # torchvision
    "resnet34": 21_797_672,
    "resnet18_v2": 11_689_512 - 2 * (128 + 256 + 512),  # no normalized shortcuts
    "resnet34_v2": 21_797_672 - 2 * (128 + 256 + 512),
    "googlenet": 6_998_552 + 7_280,  # Caffe's bvlc_googlenet; two numbers for each filter here instead of one
    "darknet53": 40_584_928 + 1025 * 1000,  # YOLOv3's backbone (ultralytics, mmdetection), and the classifier
    "efficientnet_lite3": 8_197_096,  # tensorflow/tpu, models/official/efficientnet/lite: 8.2 M
    "efficientnet_lite4": 13_006_568,  # 13.0 M
    # Three stages of two 3x3 convolutions without bias, 32, 64 and 128 filters; scale and shift; the classifier.
    "small_cnn": 9 * (3 * 32 + 32 * 32 + 32 * 64 + 64 * 64 + 64 * 128 + 128 * 128) + 2 * 2 * 224 + 129 * 1000,
}

# In units of 1e9, from the papers unless a source stands there. Papers round, and some tools count the normalizations
# too, so these are bounds on gross mistakes: a forgotten stride, a dense convolution in the place of one in groups.
PUBLISHED_GMACS = {
    "mobilenet_v2": 0.300,
    "efficientnet_lite0": 0.407,  # tensorflow/tpu; normalizations counted
    "efficientnet_lite1": 0.631,
    "efficientnet_lite2": 0.899,
    "efficientnet_b0": 0.39,
    "mobilenet_v1": 0.569,
    "mobilenet_v3_small": 0.056,
    "mobilenet_v3_large": 0.219,
    "vgg16": 15.47,  # torchvision, as the following
    "vgg19": 19.63,
    "resnet18": 1.814,
    "resnet34": 3.664,
    "resnet50": 3.86,  # He et al. say 3.8; torchvision's 4.09 has the stride in the 3x3 convolution
    "resnet101": 7.6,
    "resnet152": 11.3,
    "densenet121": 2.834,  # torchvision, as the following
    "densenet169": 3.360,
    "densenet201": 4.291,
    "inception_v3": 5.713,
    "googlenet": 1.58,
    "convnext_tiny": 4.456,
    "xception": 8.4,
    "darknet53": 9.3,  # 18.6 billion operations
}
TOLERANCE = 0.06
FAST = ("mobilenet_v2", "efficientnet_lite0", "small_cnn")
NAMES = own_backbones()


@pytest.mark.parametrize("name", [pytest.param(name, marks=() if name in FAST else pytest.mark.slow) for name in NAMES])
def test_parameters_and_macs_are_the_published_ones(name):
    model = kv.create_model(name, num_classes=1000)
    trained = get_entry(name)[0].weights.get("imagenet")
    if trained:
        assert model.count_params() == trained.parameters
    else:
        learning = sum(weight.shape.num_elements() for weight in model.trainable_weights)
        assert learning == PUBLISHED_TRAINABLE[name]
    if name in PUBLISHED_GMACS:
        assert count_macs(model) / 1e9 == pytest.approx(PUBLISHED_GMACS[name], rel=TOLERANCE)
    assert count_macs(model) > 0
    keras.backend.clear_session()


def test_multiply_accumulates_of_each_kind_of_layer():
    """By hand: places of the output (of the input, where it is spread out) times what each of them takes."""
    image = keras.Input((8, 8, 4))

    def macs(*outputs):
        return count_macs(keras.Model(image, outputs))

    assert macs(layers.Conv2D(6, 3, 2, padding="same")(image)) == 4 * 4 * 3 * 3 * 4 * 6
    assert macs(layers.Conv2D(6, 3, groups=2)(image)) == 6 * 6 * 3 * 3 * 2 * 6
    assert macs(layers.DepthwiseConv2D(5, depth_multiplier=2, padding="same")(image)) == 64 * 25 * 4 * 2
    assert macs(layers.SeparableConv2D(6, 3, padding="same")(image)) == 64 * (9 * 4 + 4 * 6)
    assert macs(layers.Conv2DTranspose(6, 2, 2)(image)) == 64 * 2 * 2 * 4 * 6
    assert macs(layers.Dense(5)(layers.Flatten()(image))) == 256 * 5
    places = layers.Reshape((64, 4))(image)
    assert macs(layers.Dot(axes=2)([places, places])) == 64 * 64 * 4
    shared = layers.Conv2D(4, 1)
    assert macs(shared(shared(image))) == 2 * 64 * 4 * 4
    assert macs(layers.BatchNormalization()(layers.ReLU()(image))) == 0


def test_a_layer_that_nobody_can_count_is_an_error():
    image = keras.Input((8, 4))
    with pytest.raises(ValueError, match="kernel.*Conv1D.*not known"):
        count_macs(keras.Model(image, layers.Conv1D(3, 3)(image)))
