"""Codings of boxes: each decodes what it encodes, and has the numbers of its paper."""

import keras
import numpy as np
import pytest
from keras import ops

from kerasvision.boxes import coding, grid

GRID = grid.yolov3_grid((64, 96))


def some_boxes(seed=0, shape=(2,)):
    rng = np.random.default_rng(seed)
    low = rng.uniform(-5, 60, (*shape, len(GRID), 2))
    return np.concatenate([low, low + rng.uniform(0.5, 60, low.shape)], axis=-1).astype(np.float32)


@pytest.mark.parametrize("variances", [coding.VARIANCES, (1.0, 1.0, 1.0, 1.0)])
def test_deltas_invert(variances):
    boxes = some_boxes()
    deltas = coding.encode_deltas(boxes, GRID.boxes, variances)
    assert np.allclose(coding.decode_deltas(deltas, GRID.boxes, variances), boxes, atol=1e-3)


def test_deltas_by_hand():
    anchor, box = np.array([[0.0, 0, 10, 20]]), np.array([[2.0, 0, 22, 20]])
    # Faster R-CNN's weights (10, 10, 5, 5): 7 pixels of 10 wide, twice as wide.
    assert np.allclose(coding.encode_deltas(box, anchor), [[7, 0, 5 * np.log(2), 0]], atol=1e-5)
    assert np.allclose(coding.encode_deltas(anchor, anchor), 0)


def test_deltas_of_padding_are_finite_and_wild_deltas_give_finite_boxes():
    padding = np.zeros((len(GRID), 4), np.float32)
    assert np.isfinite(coding.encode_deltas(padding, GRID.boxes)).all()
    wild = coding.decode_deltas(np.full((len(GRID), 4), 1e4, np.float32), GRID.boxes)
    assert np.isfinite(wild).all()
    sides = np.asarray(wild)[:, 2] - np.asarray(wild)[:, 0]
    assert np.allclose(sides, 62.5 * (GRID.boxes[:, 2] - GRID.boxes[:, 0]), rtol=0.05)


def test_distances_invert_for_centers_inside_and_outside():
    boxes = some_boxes()
    distances = coding.encode_distances(boxes, GRID.centers, GRID.strides)
    assert np.allclose(coding.decode_distances(distances, GRID.centers, GRID.strides), boxes, atol=1e-4)
    by_hand = coding.encode_distances(np.array([[8.0, 0, 40, 32]]), np.array([[16.0, 16]]), np.array([8.0]))
    assert np.allclose(by_hand, [[1, 2, 3, 2]])


def test_mean_distances():
    logits = np.log(
        np.array([[0.5, 0.5, 1e-9, 1e-9], [1e-9, 1e-9, 1e-9, 1.0], [0.25] * 4, [0.0 + 1e-9, 0.1, 0.9, 1e-9]])
    )
    assert np.allclose(coding.mean_distances(logits), [0.5, 3, 1.5, 1.9], atol=1e-5)


def test_yolov3_inverts_for_centers_in_the_cell():
    rng = np.random.default_rng(1)
    centers = GRID.centers + rng.uniform(-0.49, 0.49, (len(GRID), 2)) * GRID.strides[:, None]
    half = rng.uniform(2, 100, (len(GRID), 2))
    boxes = np.concatenate([centers - half, centers + half], axis=-1)
    coded = np.asarray(coding.encode_yolov3(boxes, GRID.boxes, GRID.strides))
    assert (coded[:, :2] > 0).all() and (coded[:, :2] < 1).all()
    raw = np.concatenate([np.log(coded[:, :2] / (1 - coded[:, :2])), coded[:, 2:]], axis=-1)
    assert np.allclose(coding.decode_yolov3(raw, GRID.boxes, GRID.strides), boxes, atol=1e-2)


def test_yolov3_formula():
    # b = sigmoid(t) + the cell's corner, in cells; p * exp(t) in pixels: cell (2, 1) of stride 16, anchor 30 x 61.
    anchor = np.array([[40 - 15, 24 - 30.5, 40 + 15, 24 + 30.5]])
    found = np.asarray(coding.decode_yolov3(np.array([[1.0, -2, 0.5, -0.5]]), anchor, np.array([16.0])))[0]
    x, y = (2 + 1 / (1 + np.exp(-1))) * 16, (1 + 1 / (1 + np.exp(2))) * 16
    w, h = 30 * np.exp(0.5), 61 * np.exp(-0.5)
    assert np.allclose(found, [x - w / 2, y - h / 2, x + w / 2, y + h / 2], atol=1e-4)


def test_half_precision_outputs_are_decoded_in_float32():
    deltas = ops.cast(np.zeros((len(GRID), 4)), "bfloat16")
    assert np.allclose(coding.decode_deltas(deltas, GRID.boxes), GRID.boxes, atol=1e-4)


@pytest.mark.parametrize("images", [1, 3])
def test_decoders_are_the_same_in_a_symbolic_model(images):
    raw = np.random.default_rng(0).normal(size=(images, len(GRID), 4)).astype(np.float32)
    decoders = {
        "deltas": lambda raw: coding.decode_deltas(raw, GRID.boxes),
        "distances": lambda raw: coding.decode_distances(raw, GRID.centers, GRID.strides),
        "yolov3": lambda raw: coding.decode_yolov3(raw, GRID.boxes, GRID.strides),
        "mean": lambda raw: coding.mean_distances(keras.ops.stack([raw, -raw, 2 * raw], axis=-1)),
    }
    node = keras.Input((len(GRID), 4))
    model = keras.Model(node, {name: decode(node) for name, decode in decoders.items()})
    for name, values in model(raw).items():
        assert np.allclose(values, decoders[name](raw), atol=1e-4), name
