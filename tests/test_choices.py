"""Nets that choose boxes inside, with the choice given, and the choice from what it is made of."""

import keras
import numpy as np
from detection.two_stages import TINY

import kerasvision as kv
from kerasvision.choices import choice_of_outputs, choices_of, net_of_choices


def test_a_net_goes_on_with_given_choices():
    keras.utils.set_random_seed(0)
    model = kv.create_model("mask_rcnn", **{**TINY, "masks": 9, "mask_filters": 8, "mask_depth": 1})
    images = keras.ops.convert_to_tensor(np.random.default_rng(0).uniform(0, 1, (2, 64, 64, 3)), "float32")
    own = model.net(images, training=False)
    assert choices_of(model.net) == ("proposals", "regions")
    net = net_of_choices(model.net)
    again = net([images, own["proposals"], own["regions"]], training=False)
    assert set(again) == set(own) - {"proposals", "regions"}
    for name, values in again.items():
        np.testing.assert_array_equal(values, own[name])
    # In another order, what is made of each box is the same.
    turned = net([images, own["proposals"][:, ::-1], own["regions"]], training=False)
    np.testing.assert_allclose(turned["class_logits"][:, ::-1], own["class_logits"], atol=1e-6)
    for name, made_of in (
        ("proposals", ["rpn_deltas", "rpn_logits"]),
        ("regions", ["proposals", "class_logits", "box_deltas"]),
    ):
        names, choose = choice_of_outputs(model.net, name)
        assert set(names) == set(made_of)
        np.testing.assert_array_equal(choose([own[each] for each in names], training=False), own[name])


def test_other_nets_choose_nothing():
    model = kv.create_model("small_cnn", num_classes=3, input_shape=(16, 16, 3), filters=[4], depth=1)
    assert choices_of(model.net) == ()
    images = keras.ops.zeros((1, 16, 16, 3))
    np.testing.assert_array_equal(net_of_choices(model.net)([images])["logits"], model.net(images)["logits"])


def test_a_choice_of_more_than_outputs_cannot_be_repeated():
    image = keras.Input((8,))
    hidden = keras.layers.Dense(4)(image)
    layer = keras.layers.ReLU()
    layer.chooses = True
    net = keras.Model(image, {"hidden": keras.layers.Dense(2)(hidden), "chosen": layer(hidden)})
    assert choices_of(net) == ("chosen",) and choice_of_outputs(net, "chosen") is None
