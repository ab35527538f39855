"""FCN: the published counts, bilinear enlargement, the weights of VGG, and what every net does."""

import keras
import numpy as np
import pytest
from segmentation import contract

import kerasvision as kv
from kerasvision.backbones import vgg
from kerasvision.segmentation import fcn

PUBLISHED = {"fcn_32s": 136_152_917, "fcn_16s": 134_815_994, "fcn_8s": 134_489_759}
CLASSES, NARROW = 21, 8


@pytest.mark.parametrize("name", PUBLISHED)
def test_published_counts(name):
    """Of a net with narrow fully connected layers, and what the wide ones have more."""
    model = kv.create_model(name, num_classes=CLASSES, input_shape=(64, 96, 3), filters=NARROW)
    assert model.output["logits"].shape == (None, 64, 96, CLASSES)

    def head(filters):
        return (49 * 512 + 1) * filters + (filters + 1) * filters + (filters + 1) * CLASSES

    assert model.count_params() - head(NARROW) + head(4096) == PUBLISHED[name]
    assert model.get_layer("fc6").kernel_size == (7, 7) and model.get_layer("fc7").kernel_size == (1, 1)
    taken = {level: model.get_layer(f"scale_{level}").input._keras_history.operation.name for level in fcn.SKIPS[name]}
    assert taken == {level: fcn.POOLINGS[level] for level in fcn.SKIPS[name]}
    assert all(model.get_layer(f"scale_{level}").scale == fcn.SCALES[level] for level in taken)


@pytest.mark.slow
def test_published_count_of_the_whole_net():
    model = kv.create_model("fcn_8s", num_classes=CLASSES, input_shape=(32, 32, 3))
    assert model.count_params() == PUBLISHED["fcn_8s"]


@pytest.mark.parametrize("factor", [2, 8, 32])
def test_enlargement_starts_as_a_bilinear_one(factor):
    x = keras.Input((6, 5, 2))
    net = keras.Model(x, fcn.enlarge(x, factor, "up"))
    values = np.random.default_rng(0).normal(size=(1, 6, 5, 2)).astype(np.float32)
    received = np.asarray(net(values))
    rows, columns = ((np.arange(side * factor) + 0.5) / factor - 0.5 for side in (6, 5))
    # Beyond the outermost centres the transposed convolution fades to zero.
    inner = np.ix_((rows >= 0) & (rows <= 5), (columns >= 0) & (columns <= 4))
    for channel in range(2):
        grid = values[0, :, :, channel]
        by_row = np.stack([np.interp(rows, range(6), grid[:, j]) for j in range(5)], axis=1)
        whole = np.stack([np.interp(columns, range(5), by_row[i]) for i in range(len(rows))])
        np.testing.assert_allclose(received[0, :, :, channel][inner], whole[inner], atol=1e-5)
    assert not np.allclose(received[0, 0, 0], values[0, 0, 0])


def test_scores_start_at_zero():
    model = contract.create("fcn_8s")
    images, _ = contract.scene(model.image_size, 2)
    assert not np.any(model(images)["logits"])


def test_imagenet_weights_of_the_fully_connected_layers(monkeypatch):
    """fc6 and fc7 compute at a place what VGG's fully connected layers compute of 224x224 pixels."""
    random = np.random.default_rng(0)
    dense = {"fc1": (7 * 7 * 512, 16), "fc2": (16, 16)}
    published = {name: [random.normal(0, 0.01, shape), random.normal(size=16)] for name, shape in dense.items()}
    asked = []

    def head(application, layer):
        asked.append((application, layer))
        return published[layer]

    monkeypatch.setattr(fcn, "head", head)
    x = keras.Input((7, 7, 512))
    net = keras.Model(x, fcn.fully_connected_head(x, 16, 7, 0.5, vgg.VARIANTS["vgg16"].application))
    values = random.normal(size=(1, 7, 7, 512)).astype(np.float32)
    wanted = values.reshape(1, -1)
    for kernel, bias in published.values():
        wanted = np.maximum(wanted @ kernel + bias, 0)
    assert wanted.max() > 0
    np.testing.assert_allclose(net(values)[0, 3, 3], wanted[0], rtol=1e-3, atol=1e-4)
    assert asked == [(keras.applications.VGG16, "fc1"), (keras.applications.VGG16, "fc2")]


def test_light_form_on_any_backbone():
    """One convolution in the place of two, finer features as they are."""
    model = contract.create("fcn_8s", filters=24, kernel_size=1)
    names = {layer.name for layer in model.layers}
    assert model.get_layer("head_conv").kernel.shape == (1, 1, 48, 24)
    assert not names & {"fc6", "fc7", "scale_P4", "scale_P3"}


def test_odd_sizes():
    assert contract.check_odd_size("fcn_8s", (45, 67)) == (45, 67)


def test_learns():
    assert contract.learn(contract.create("fcn_8s"), 25) > 0.8


def test_int8():
    ops = contract.check_int8(contract.create("fcn_8s", (45, 67)))
    assert ops["TRANSPOSE_CONV"] == 3


@pytest.mark.slow
def test_int8_of_the_published_form():
    keras.utils.set_random_seed(0)
    ops = contract.check_int8(
        kv.create_model("fcn_8s", labels=contract.LABELS, input_shape=(64, 64, 3), filters=NARROW)
    )
    assert ops["TRANSPOSE_CONV"] == 3
