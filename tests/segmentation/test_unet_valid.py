"""The original U-Net: published counts and sizes, what lies in the margin, and what every net does."""

import itertools

import keras
import numpy as np
import pytest
from segmentation import contract

import kerasvision as kv
from kerasvision.segmentation.unet_valid import check_sides, margin


@pytest.mark.slow
def test_published_counts():
    model = kv.create_model("unet_valid", num_classes=2)
    assert model.input_shape == (None, 572, 572, 1)
    assert model.output["logits"].shape == (None, 388, 388, 2)
    assert model.count_params() == 31_030_658
    sides = [model.get_layer(layer).output.shape[1] for layer in model.taps.values()]
    assert sides == [568, 280, 136, 64, 28]


def test_parameters_of_narrow_ones():
    """Counted by hand; with the paper's filters it is the published number."""

    def count(filters, channels, classes):
        total, before = 0, channels
        for width in filters:
            total += (9 * before + 1) * width + (9 * width + 1) * width
            before = width
        for fine, coarse in itertools.pairwise(filters):
            total += (4 * coarse + 1) * fine + (9 * 2 * fine + 1) * fine + (9 * fine + 1) * fine
        return total + (filters[0] + 1) * classes

    assert count((64, 128, 256, 512, 1024), 1, 2) == 31_030_658
    model = contract.create("unet_valid", (92, 76), 1, filters=(4, 6, 10))
    assert model.count_params() == count((4, 6, 10), 1, 3)
    assert model.output["logits"].shape == (None, 52, 36, 3)


@pytest.mark.parametrize("depth", [1, 2, 3, 4])
def test_sides_that_fit_are_those_where_every_pooling_takes_an_even_size(depth):
    def inner(side):
        for _ in range(depth):
            side -= 4
            if side <= 0 or side % 2:
                return None
            side //= 2
        side -= 4
        for _ in range(depth):
            side = 2 * side - 4
        return side if side > 0 else None

    assert inner(572) == 388 if depth == 4 else True
    for side in range(1, 600):
        if inner(side) is None:
            with pytest.raises(ValueError, match=f"with {depth} poolings.*got {side}"):
                check_sides((side,), depth)
        else:
            check_sides((side,), depth)
            assert side - inner(side) == 2 * margin(depth)


def test_the_nearest_sides_are_named():
    with pytest.raises(ValueError, match="got 570. Take 556 or 572."):
        kv.create_model("unet_valid", num_classes=2, input_shape=(572, 570, 1))
    with pytest.raises(ValueError, match="got 100. Take 188."):
        kv.create_model("unet_valid", num_classes=2, input_shape=(100, 572, 1))
    with pytest.raises(ValueError, match="filters must have two numbers at least"):
        kv.create_model("unet_valid", num_classes=2, filters=(8,))


def test_the_margin_is_neither_trained_nor_decoded():
    model = contract.create("unet_valid")
    images, targets = contract.scene(model.image_size, 2)
    outputs = model(images)
    edge = margin(2)
    assert edge == 20
    others = targets["segmentation"].copy()
    others[:, :edge], others[:, -edge:], others[:, :, :edge], others[:, :, -edge:] = 1, 2, 0, 1
    losses = [model.task.loss({"segmentation": each}, outputs) for each in (targets["segmentation"], others)]
    assert len(losses[0]) == 1 and losses[0] == losses[1]
    found = np.asarray(model.task.decode(outputs)["classes"])
    inside = found[:, edge:-edge, edge:-edge]
    assert (found == contract.VOID).sum() == found.size - inside.size and (inside < 3).all()
    np.testing.assert_array_equal(inside, np.argmax(outputs["logits"], axis=-1))


def test_every_logit_sees_the_margin_around_it():
    """The receptive field of a logit: the sides of the image minus those of the logits, and nothing beyond."""
    model = contract.create("unet_valid", dropout=0.0)
    images, _ = contract.scene(model.image_size, 1)
    changed = images.copy()
    changed[:, 0] = 255 - changed[:, 0]
    moved = np.abs(model(changed)["logits"] - model(images)["logits"]).max(axis=(0, 2, 3))
    assert moved[0] > 0
    assert not moved[len(moved) // 2 + 8 :].any()


def test_dropout_stands_at_the_end_of_the_way_down():
    names = [layer.name for layer in contract.create("unet_valid").layers if isinstance(layer, keras.layers.Dropout)]
    assert names == ["down1_dropout", "down2_dropout"]


def test_learns():
    assert contract.learn(contract.create("unet_valid", dropout=0.1), 20, 3e-3) > 0.8


def test_int8():
    assert contract.check_int8(contract.create("unet_valid"))["TRANSPOSE_CONV"] == 2
