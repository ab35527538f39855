"""Every registered backbone, each built once: a new registration is covered without an edit here."""

import gc

import keras
import numpy as np
import pytest

import kerasvision as kv
from kerasvision.export.samples import synthetic_images
from kerasvision.zoo import enliven, own_backbones

NAMES = own_backbones()
# One for each thing that is difficult: squeeze-and-excitation with hard functions, normalization that does not follow
# its convolution, no batch normalization at all but islands in float.
FAST = ("small_cnn", "mobilenet_v3_small", "resnet18_v2")
CLASSES = 10
# The smallest images that a net is tried with; the unpadded nets take no less than the second.
SIDES = (64, 96)


def marked(names):
    return [pytest.param(name, marks=() if name in FAST else pytest.mark.slow) for name in names]


@pytest.fixture(scope="module", params=marked(NAMES))
def model(request):
    """A classifier on small images that computes as a trained one does."""
    keras.utils.set_random_seed(0)
    made = smallest(request.param)
    enliven(made, synthetic_images(16, made.input_shape[1:]))
    yield made
    free()


@pytest.fixture(scope="module")
def images(model):
    """Pixels that the model has its batch statistics from, [16, H, W, C]."""
    return synthetic_images(16, model.input_shape[1:])


@pytest.fixture(scope="module")
def labels():
    """A class for each image."""
    return {"label": np.arange(16) % CLASSES}


def smallest(name):
    """The net on the smallest images that it takes."""
    for side in SIDES[:-1]:
        try:
            return kv.create_model(name, num_classes=CLASSES, input_shape=(side, side, 3), dropout=0.0)
        except ValueError:
            continue
    return kv.create_model(name, num_classes=CLASSES, input_shape=(SIDES[-1], SIDES[-1], 3), dropout=0.0)


def free():
    """Let go of what a model leaves behind."""
    keras.backend.clear_session()
    gc.collect()
