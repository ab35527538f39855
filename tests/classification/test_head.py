"""What stands between the backbone and the logits."""

import keras
import numpy as np
import pytest
from keras import layers

from kerasvision.classification import ClassificationTask
from kerasvision.classification.head import classifier
from kerasvision.errors import WeightsError
from kerasvision.layers.pooling import POOLING
from kerasvision.preprocessing import Preprocessing
from kerasvision.registry import FRESH, Entry, Weights

CHANNELS = 6


def map_backbone(x, *, weights=None):
    return {"P1": x, "P5": layers.Conv2D(CHANNELS, 1, name="last")(x)}


def vector_backbone(x, *, weights=None):
    x = layers.Conv2D(CHANNELS, 1, name="last")(x)
    return {"P5": x, "top": layers.Dense(8, name="fc")(layers.Flatten(name="flat")(x))}


def build(backbone, classes=4, weights=None, **arguments):
    trained = Weights("none", None, Preprocessing(), 4, 0, {}, "none", "none")
    entry = Entry(
        "toy",
        "backbone",
        backbone,
        (5, 7, 3),
        FRESH,
        {"known": trained},
        lambda weights: [np.ones((CHANNELS, 4), "float32"), np.full(4, 2, "float32")],
    )
    image = keras.Input((5, 7, 3))
    outputs, features = classifier(entry)(image, ClassificationTask(classes), weights=weights, **arguments)
    return keras.Model(image, outputs), features


@pytest.mark.parametrize("pooling", POOLING)
def test_pooling_is_a_choice(pooling):
    model, features = build(map_backbone, pooling=pooling)
    assert [layer.name for layer in model.layers[-3:]] == ["pool", "dropout", "logits"]
    assert list(features) == ["P1", "P5"]
    x = np.random.default_rng(0).uniform(-1, 1, (2, 5, 7, 3)).astype("float32")
    pooled = keras.Model(model.input, model.get_layer("pool").output)(x)
    assert pooled.shape == (2, CHANNELS * (21 if pooling == "spp" else 1))
    kernel, bias = model.get_layer("logits").get_weights()
    np.testing.assert_allclose(model(x)["logits"], np.asarray(pooled) @ kernel + bias, atol=1e-5)


def test_average_is_what_nobody_asked_for():
    model, _ = build(map_backbone)
    assert type(model.get_layer("pool")) is layers.GlobalAveragePooling2D


def test_a_vector_is_taken_as_it_is():
    model, features = build(vector_backbone)
    assert [layer.name for layer in model.layers[-3:]] == ["fc", "dropout", "logits"]
    assert model.get_layer("dropout").input is features["top"]


def test_a_vector_cannot_be_pooled():
    with pytest.raises(ValueError, match='"toy" hands a vector of 8 values.*Leave pooling out'):
        build(vector_backbone, pooling="max")


def test_an_unknown_pooling_gets_the_closest_names():
    with pytest.raises(ValueError, match='no pooling "gme". Did you mean "gem"'):
        build(map_backbone, pooling="gme")


def test_a_trained_classifier_is_loaded_for_its_own_classes_alone():
    model, _ = build(map_backbone, weights="known")
    np.testing.assert_array_equal(model.get_layer("logits").get_weights()[1], np.full(4, 2))
    model, _ = build(map_backbone, classes=3, weights="known")
    np.testing.assert_array_equal(model.get_layer("logits").get_weights()[1], np.zeros(3))


def test_a_trained_classifier_that_does_not_fit_is_never_left_out_silently():
    with pytest.raises(WeightsError, match='takes 6 features, and pooling="spp" gives it 126'):
        build(map_backbone, weights="known", pooling="spp")
    model, _ = build(map_backbone, classes=3, weights="known", pooling="spp")
    assert model.get_layer("logits").kernel.shape == (126, 3)
