"""YOLOv3: exact counts, its loss against loops in NumPy, and what every detector must do."""

import keras
import numpy as np
import pytest
from detection.contract import (
    TINY,
    check_jax,
    check_odd_targets,
    check_quantizes,
    check_saves,
    learn,
    random_outputs,
    rectangles,
)

import kerasvision as kv
from kerasvision.boxes import fit_anchors
from kerasvision.boxes.overlap import iou

ANCHORS = [[14, 24], [24, 14], [18, 18], [28, 28]]


def tiny(**arguments):
    arguments = {**TINY, "filters": [16, 24], "levels": ["P3", "P4"], "anchors": ANCHORS, **arguments}
    return kv.create_model("yolov3", labels=["red", "blue"], input_shape=(64, 64, 3), **arguments)


@pytest.fixture(scope="module")
def model():
    return tiny()


def test_parameters_and_boxes_of_the_paper():
    """Weights are not drawn: the net is only described."""
    with keras.StatelessScope(initialize_variables=False):
        net = kv.create_model("yolov3", num_classes=80)
    assert net.count_params() == 62_001_757
    assert sum(int(np.prod(weight.shape)) for weight in net.trainable_weights) == 61_949_149
    assert {name: output.shape[1:] for name, output in net.output.items()} == {
        "box_deltas": (10_647, 4),
        "objectness_logits": (10_647, 1),
        "class_logits": (10_647, 80),
    }


def sigmoid(logits):
    return 1 / (1 + np.exp(-logits.astype(float)))


def cells(size=64, strides=(8, 16)):
    """(column, row, stride, width, height) of every anchor, in the order of the outputs."""
    return [
        (column, row, stride, *anchor)
        for level, stride in enumerate(strides)
        for row in range(size // stride)
        for column in range(size // stride)
        for anchor in ANCHORS[2 * level : 2 * level + 2]
    ]


def predicted(deltas):
    """Boxes [A, 4] of one image, anchor by anchor."""
    boxes = []
    for (column, row, stride, width, height), (x, y, w, h) in zip(cells(), deltas.astype(float), strict=True):
        across, down = (column + sigmoid(x)) * stride, (row + sigmoid(y)) * stride
        half = np.exp(w) * width / 2, np.exp(h) * height / 2
        boxes.append((across - half[0], down - half[1], across + half[0], down + half[1]))
    return np.array(boxes)


def same_center(first, second):
    shared = min(first[0], second[0]) * min(first[1], second[1])
    return shared / (first[0] * first[1] + second[0] * second[1] - shared)


def answering(boxes):
    """{anchor: object}: the anchor most like the object in its cell; the more similar object where two want it."""
    claims = {}
    for m, (x0, y0, x1, y1) in enumerate(boxes):
        x, y, likeness = (x0 + x1) / 2, (y0 + y1) / 2, {}
        for a, (column, row, stride, *anchor) in enumerate(cells()):
            if column <= x / stride < column + 1 and row <= y / stride < row + 1:
                likeness[a] = same_center(anchor, (x1 - x0, y1 - y0))
        best = max(likeness, key=likeness.get)
        if best not in claims or likeness[best] > claims[best][0]:
            claims[best] = likeness[best], m
    return {a: m for a, (_, m) in claims.items()}


def cross_entropy(wanted, share):
    return -(wanted * np.log(share) + (1 - wanted) * np.log(1 - share))


def losses(outputs, targets, ignore):
    """Class, box and objectness loss of each image, from the paper and Darknet."""
    images = []
    for index in range(len(targets["valid"])):
        valid = targets["valid"][index]
        boxes, classes = targets["boxes"][index][valid].astype(float), targets["classes"][index][valid]
        deltas, found = outputs["box_deltas"][index].astype(float), predicted(outputs["box_deltas"][index])
        objectness = sigmoid(outputs["objectness_logits"][index][:, 0])
        scores = sigmoid(outputs["class_logits"][index])
        match = answering(boxes)
        of_classes = of_boxes = of_objects = 0.0
        for a, (column, row, stride, width, height) in enumerate(cells()):
            if a not in match:
                if max((iou(box, found[a]) for box in boxes), default=0.0) <= ignore:
                    of_objects += cross_entropy(0, objectness[a])
                continue
            x0, y0, x1, y1 = boxes[match[a]]
            of_objects += cross_entropy(1, objectness[a])
            of_classes += cross_entropy(np.arange(2) == classes[match[a]], scores[a]).sum()
            place = np.array([(x0 + x1) / 2 / stride - column, (y0 + y1) / 2 / stride - row])
            size = np.log([(x1 - x0) / width, (y1 - y0) / height])
            scale = 2 - (x1 - x0) * (y1 - y0) / 64**2
            of_boxes += scale * cross_entropy(place, sigmoid(deltas[a, :2])).sum()
            of_boxes += scale * 0.5 * ((size - deltas[a, 2:]) ** 2).sum()
        images.append(np.array([of_classes, of_boxes, of_objects]) / max(len(match), 1))
    return np.array(images)


@pytest.mark.parametrize("ignore", [0.3, 0.5])
def test_losses_are_those_of_the_formulas(ignore):
    model = tiny(ignore=ignore)
    _, targets = rectangles(8, most=5, seed=1)
    targets["valid"][0] = False
    outputs = random_outputs(model, 8, spread=0.7)
    received = model.task.method.losses(targets, outputs)
    expected = losses(outputs, targets, ignore)
    found = np.stack([received[name] for name in ("class_loss", "box_loss", "objectness_loss")], axis=1)
    np.testing.assert_allclose(found, expected, rtol=1e-4)
    # Some predictions are ignored, or the test would not see whether they are.
    assert (losses(outputs, targets, 1.0)[1:, 2] > expected[1:, 2]).any()


def test_candidates_are_boxes_with_objectness_times_class(model):
    outputs = random_outputs(model, 1, spread=1.0)
    boxes_of, scores = model.task.method.candidates(outputs)
    some = np.array([[5, 0, 5, 20]])
    np.testing.assert_allclose(boxes_of(some)[0], predicted(outputs["box_deltas"][0])[some[0]], rtol=1e-4, atol=1e-3)
    expected = sigmoid(outputs["objectness_logits"]) * sigmoid(outputs["class_logits"])
    np.testing.assert_allclose(scores, expected, atol=1e-6)


def test_predictions_in_a_crowd_are_not_background(model):
    outputs = random_outputs(model, 1, spread=0.1)
    whole = {"boxes": np.array([[[-99, -99, 199, 199]]], np.float32), "classes": np.zeros((1, 1)), "valid": [[True]]}
    losses = model.task.loss({**whole, "crowd": [[True]]}, outputs)
    assert sum(map(float, losses.values())) == 0


def test_fitted_anchors_are_taken(tmp_path):
    _, targets = rectangles()
    boxes = targets["boxes"][targets["valid"]]
    anchors = fit_anchors(boxes[:, 2:] - boxes[:, :2], 4)
    model = tiny(anchors=anchors)
    own = model.task.method.grid.boxes
    np.testing.assert_allclose((own[:, 2:] - own[:, :2])[:2], anchors[:2], rtol=1e-5)
    np.testing.assert_allclose((own[:, 2:] - own[:, :2])[-2:], anchors[2:], rtol=1e-5)
    model.save(tmp_path / "fitted.keras")
    again = keras.saving.load_model(tmp_path / "fitted.keras")
    np.testing.assert_array_equal(again.task.method.grid.boxes, own)


@pytest.mark.parametrize("anchors", [[[10, 10]] * 3, [], [[10, 10, 20, 20]] * 4])
def test_anchors_that_levels_cannot_share(anchors):
    with pytest.raises(ValueError, match="fit_anchors"):
        tiny(anchors=anchors)


def test_odd_targets(model):
    check_odd_targets(model)


def test_learns(model):
    assert learn(tiny(), epochs=25, rate=1e-2) > 0.8


def test_saves(model, tmp_path):
    check_saves(model, tmp_path / "model.keras")


def test_quantizes(model):
    check_quantizes(model)


@pytest.mark.slow
def test_jax(model, tmp_path):
    check_jax(model, tmp_path)
