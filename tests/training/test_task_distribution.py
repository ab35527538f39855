"""Detectors and segmenters on two devices learn what they learn on one. In processes of their own."""

import keras
import numpy as np
import pytest
import tensorflow as tf
from training import mirrored

import kerasvision as kv
from kerasvision.data import Data
from kerasvision.registry import list_models

NETS = (*mirrored.DETECTORS, *mirrored.SEGMENTERS)
FAST = ("unet",)


def test_every_family_is_here():
    """But the original U-Net, which has no batch normalization; and those that are others in another size."""
    of_another_size = {"anchor_free_n", "anchor_free_m", "anchor_free_l", "anchor_free_x", "ssd300", "ssd512"}
    of_another_size |= {"fcn_16s", "fcn_32s"}
    known = {*list_models("detection"), *list_models("segmentation")}
    assert known - {*NETS} - of_another_size == {"unet_valid"}


@pytest.mark.parametrize("name", NETS)
def test_a_batch_is_the_mean_of_its_halves(name):
    """Loss and gradient, whatever lies in each half: nothing is divided by what the whole batch holds."""
    labels, examples = mirrored.examples_of(name)
    keras.utils.set_random_seed(0)
    model = kv.create_model(name, labels=list(labels), input_shape=(*mirrored.SIZE, 3), **mirrored.arguments_of(name))
    data = Data(labels, {"train": examples[:4]})
    options = {"image_size": mirrored.SIZE, "batch_size": 4, "mask_stride": model.task.mask_stride}
    ((images, targets),) = data.batches("train", **options)
    weights = [weight.value for weight in model.trainable_weights]

    def learned(part):
        with tf.GradientTape() as tape:
            outputs = model(images[part], training=False)
            loss = sum(model.task.loss({key: each[part] for key, each in targets.items()}, outputs).values())
        gradients = tape.gradient(loss, weights, unconnected_gradients="zero")
        return float(loss), np.concatenate([np.ravel(gradient) for gradient in gradients])

    (whole, gradient), *halves = (learned(part) for part in (slice(0, 4), slice(0, 2), slice(2, 4)))
    assert abs(halves[0][0] / halves[1][0] - 1) > 0.01
    assert whole == pytest.approx(np.mean([loss for loss, _ in halves]), rel=1e-5)
    apart = np.linalg.norm(gradient - np.mean([each for _, each in halves], axis=0))
    assert apart < 1e-4 * np.linalg.norm(gradient)


@pytest.mark.parametrize(
    "name", [name if name in FAST else pytest.param(name, marks=pytest.mark.slow) for name in NETS]
)
def test_two_devices_equal_one(name, tmp_path):
    mirrored.check(tmp_path, name)
