"""Proposals beside the greedy rule in NumPy, box after box."""

import keras
import numpy as np
import pytest
import tensorflow as tf
from ai_edge_litert.interpreter import Interpreter
from detection.two_stages import crowded, greedy

from kerasvision.boxes.coding import decode_deltas
from kerasvision.boxes.formats import box_areas, clip_boxes
from kerasvision.boxes.grid import pyramid_grid
from kerasvision.detection.proposals import RPN_VARIANCES, Proposals, proposal_grid, survivors

SIZE = (96, 128)
SETTINGS = {"image_size": SIZE, "strides": (8, 16, 32), "anchor_size": 3.0, "proposals": 40, "candidates": 60}


@pytest.mark.parametrize("iou", [0.5, 0.7])
@pytest.mark.parametrize("spread", [0.02, 0.08, 0.2])
def test_six_rounds_keep_what_the_greedy_rule_keeps(iou, spread):
    random = np.random.default_rng(0)
    boxes = np.stack([crowded(random, 150, spread=spread) for _ in range(4)])
    boxes[0, 7] = boxes[0, 3]
    boxes[1, 5, 2] = boxes[1, 5, 0]  # Without area.
    classes = random.integers(0, 2, (4, 150))
    for given in (None, classes):
        expected = np.stack([greedy(row, iou, None if given is None else given[i]) for i, row in enumerate(boxes)])
        np.testing.assert_array_equal(np.asarray(survivors(boxes, iou, classes=given)) > 0.5, expected)
    assert 0 < expected.mean() < 1


def test_an_even_number_of_rounds_keeps_too_many_rather_than_too_few():
    """Boxes in a row, each overlapping the next alone: a chain as long as the row."""
    left = np.arange(30, dtype=np.float32) * 3
    boxes = np.stack([left, 0 * left, left + 10, 0 * left + 10], axis=-1)[None]
    expected = greedy(boxes[0], 0.5)
    assert expected.sum() == 15
    for rounds in (2, 6, 12):
        kept = np.asarray(survivors(boxes, 0.5, rounds))[0] > 0.5
        assert kept[expected].all() and (kept == expected)[:rounds].all()
        assert kept.sum() == rounds // 2 + 30 - rounds
    np.testing.assert_array_equal(np.asarray(survivors(boxes, 0.5, 30))[0] > 0.5, expected)


def reference(deltas, logits, wanted, candidates):
    """Proposals of one image."""
    grid = proposal_grid(SIZE, (8, 16, 32), 3.0)
    decoded = np.asarray(decode_deltas(deltas, grid.boxes, RPN_VARIANCES))
    decoded = clip_boxes(decoded, SIZE)
    kept, rest, empty = [], [], []
    for stride in (8, 16, 32):
        rows = np.flatnonzero(grid.strides == stride)
        rows = rows[np.argsort(-logits[rows], kind="stable")][:candidates]
        for row, stays in zip(rows, greedy(decoded[rows], 0.7), strict=True):
            (empty if box_areas(decoded[row]) < 1 else kept if stays else rest).append(row)
    order = [row for rows in (kept, rest, empty) for row in sorted(rows, key=lambda row: -logits[row])]
    return decoded[order[:wanted]]


@pytest.mark.parametrize("proposals, candidates", [(40, 60), (150, 60), (20, 1000)])
def test_proposals_equal_a_loop(proposals, candidates):
    random = np.random.default_rng(1)
    layer = Proposals(**{**SETTINGS, "proposals": proposals, "candidates": candidates})
    count = len(proposal_grid(SIZE, (8, 16, 32), 3.0))
    deltas = random.normal(0, 0.3, (2, count, 4)).astype(np.float32)
    deltas[0, :50, 0] = 100.0  # Outside of the image.
    logits = random.permutation(2 * count).reshape(2, count, 1).astype(np.float32) / count - 1
    received = np.asarray(layer(deltas, logits))
    for image in range(2):
        expected = reference(deltas[image], logits[image, :, 0], proposals, candidates)
        assert len(expected) == received.shape[1]
        np.testing.assert_allclose(received[image], expected, atol=1e-3)


def test_anchors_are_those_of_the_pyramid_by_default():
    np.testing.assert_array_equal(proposal_grid(SIZE).boxes, pyramid_grid(SIZE).boxes)


def test_no_gradient_and_no_end_of_what_is_not_a_number():
    layer = Proposals(**SETTINGS)
    count = len(proposal_grid(SIZE, (8, 16, 32), 3.0))
    deltas, logits = tf.Variable(tf.zeros((1, count, 4))), tf.Variable(tf.zeros((1, count, 1)))
    with tf.GradientTape() as tape:
        total = tf.reduce_sum(layer(deltas.value(), logits.value()))
    assert tape.gradient(total, [deltas, logits]) == [None, None]
    assert layer(np.full((1, count, 4), np.nan, np.float32), np.full((1, count, 1), np.nan, np.float32)).shape[1] == 40


def test_config_and_arguments():
    config = Proposals(**SETTINGS, scales=(1.0, 2.0), ratios=(1.0,), iou=0.6, rounds=4, name="given").get_config()
    again = Proposals.from_config(config)
    assert again.get_config() == config and again.ratios == (1.0,) and again.iou == 0.6
    assert keras.saving.get_registered_object("kerasvision>Proposals") is Proposals
    for wrong, message in (
        ({"proposals": 0}, "proposals must be at least 1"),
        ({"iou": 0.0}, "iou must lie above 0"),
        ({"rounds": 3}, "even number"),
    ):
        with pytest.raises(ValueError, match=message):
            Proposals(**{**SETTINGS, **wrong})
    with pytest.raises(ValueError, match="deltas of the 756 anchors"):
        Proposals(**SETTINGS)(np.zeros((1, 9, 4), np.float32), np.zeros((1, 9, 1), np.float32))


def test_in_a_file_of_builtin_operations():
    layer = Proposals(**SETTINGS)
    count = len(proposal_grid(SIZE, (8, 16, 32), 3.0))
    specs = [tf.TensorSpec((1, count, values), name=name) for values, name in ((4, "deltas"), (1, "logits"))]
    call = tf.function(lambda deltas, logits: {"proposals": layer(deltas, logits)}, autograph=False)
    content = tf.lite.TFLiteConverter.from_concrete_functions([call.get_concrete_function(*specs)]).convert()
    # Neither anchors nor comparisons of ranks are constants in it.
    assert len(content) < 120_000
    random = np.random.default_rng(2)
    given = {"deltas": random.normal(0, 0.3, (1, count, 4)), "logits": random.normal(0, 2, (1, count, 1))}
    given = {name: values.astype(np.float32) for name, values in given.items()}
    interpreter = Interpreter(model_content=content)
    interpreter.allocate_tensors()
    for item in interpreter.get_input_details():
        interpreter.set_tensor(item["index"], given["deltas" if item["shape"][-1] == 4 else "logits"])
    interpreter.invoke()
    received = interpreter.get_tensor(interpreter.get_output_details()[0]["index"])
    np.testing.assert_allclose(received, np.asarray(layer(**given)), atol=1e-3)
