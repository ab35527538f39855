"""YOLOv1: exact counts, its loss against loops in NumPy, and what every detector must do."""

import keras
import numpy as np
import pytest
from detection.contract import (
    TINY,
    check_jax,
    check_odd_targets,
    check_quantizes,
    check_saves,
    empty,
    learn,
    random_outputs,
    rectangles,
)

import kerasvision as kv
from kerasvision.boxes.overlap import iou
from kerasvision.errors import WeightsError

SIDE = 32


def tiny(**arguments):
    arguments = {**TINY, "filters": 32, "units": 64, "dropout": 0.0, "stride": SIDE, **arguments}
    return kv.create_model("yolov1", labels=["red", "blue"], input_shape=(64, 64, 3), **arguments)


@pytest.fixture(scope="module")
def model():
    return tiny()


def test_parameters_and_outputs_of_the_paper():
    """Weights are not drawn: the net is only described."""
    with keras.StatelessScope(initialize_variables=False):
        net = kv.create_model("yolov1", num_classes=20)
    assert net.count_params() == 271_703_550
    assert sum(isinstance(layer, keras.layers.Conv2D) for layer in net.layers) == 24
    shapes = {name: output.shape[1:] for name, output in net.output.items()}
    assert shapes == {"box_values": (98, 4), "confidences": (98, 1), "class_scores": (49, 20)}
    assert sum(int(np.prod(shape)) for shape in shapes.values()) == 7 * 7 * 30


def cells(size=64):
    """(x, y) of the upper left corner of every cell."""
    return [(x, y) for y in range(0, size, SIDE) for x in range(0, size, SIDE)]


def predicted(values):
    """Boxes [cells, 2, 4] of one image."""
    boxes = []
    for (left, top), pair in zip(cells(), values.reshape(-1, 2, 4).astype(float), strict=True):
        for x, y, w, h in pair:
            across, down, width, height = left + x * SIDE, top + y * SIDE, w * w * 64, h * h * 64
            boxes.append((across - width / 2, down - height / 2, across + width / 2, down + height / 2))
    return np.array(boxes).reshape(-1, 2, 4)


def likeness(box):
    """How much a box is like a cell in size."""
    width, height = box[2] - box[0], box[3] - box[1]
    shared = min(width, SIDE) * min(height, SIDE)
    return shared / (width * height + SIDE * SIDE - shared)


def losses(outputs, targets):
    """Class, box and confidence loss of each image, from the paper's equation 3."""
    images = []
    for index in range(len(targets["valid"])):
        valid = targets["valid"][index]
        boxes, classes = targets["boxes"][index][valid].astype(float), targets["classes"][index][valid]
        values = outputs["box_values"][index].reshape(-1, 2, 4).astype(float)
        found = predicted(outputs["box_values"][index])
        confidences = outputs["confidences"][index].reshape(-1, 2).astype(float)
        of_classes = of_boxes = of_objects = 0.0
        for cell, (left, top) in enumerate(cells()):
            inside = [
                m
                for m, box in enumerate(boxes)
                if left <= (box[0] + box[2]) / 2 < left + SIDE and top <= (box[1] + box[3]) / 2 < top + SIDE
            ]
            responsible = None
            if inside:
                m = max(inside, key=lambda m: likeness(boxes[m]))
                x0, y0, x1, y1 = boxes[m]
                overlaps = np.array([iou(boxes[m], box) for box in found[cell]])
                place = [((x0 + x1) / 2 - left) / SIDE, ((y0 + y1) / 2 - top) / SIDE]
                wanted = np.array([*place, np.sqrt((x1 - x0) / 64), np.sqrt((y1 - y0) / 64)])
                wrong = ((wanted - values[cell]) ** 2).sum(axis=1)
                responsible = overlaps.argmax() if overlaps.max() > 0 else wrong.argmin()
                of_boxes += 5 * wrong[responsible]
                of_objects += (overlaps[responsible] - confidences[cell, responsible]) ** 2
                scores = outputs["class_scores"][index, cell].astype(float)
                of_classes += (((np.arange(2) == classes[m]) - scores) ** 2).sum()
            of_objects += sum(0.5 * confidences[cell, k] ** 2 for k in range(2) if k != responsible)
        images.append((of_classes, of_boxes, of_objects))
    return np.array(images)


@pytest.mark.parametrize("spread", [0.05, 0.5, 1.0])
def test_losses_are_those_of_the_paper(model, spread):
    """With small numbers no box touches an object, and the nearest answers."""
    _, targets = rectangles(24, most=5, seed=1)
    targets["valid"][0] = False
    outputs = random_outputs(model, 24, spread=spread)
    received = model.task.method.losses(targets, outputs)
    expected = losses(outputs, targets)
    found = np.stack([received[name] for name in ("class_loss", "box_loss", "confidence_loss")], axis=1)
    np.testing.assert_allclose(found, expected, rtol=1e-4, atol=1e-5)
    assert (expected[0, :2] == 0).all() and (expected[1:] > 0).all()


def test_perfect_outputs_have_no_loss_and_are_found(model):
    outputs = {name: np.zeros((1, *output.shape[1:]), np.float32) for name, output in model.output.items()}
    targets = empty(1, 2)
    targets["boxes"][0] = [(2, 4, 18, 40), (34, 40, 64, 60)]
    targets["classes"][0], targets["valid"][0] = (1, 0), True
    # The first object lies in the first cell, the second in the last; the second box of each is right.
    for cell, (left, top), (x0, y0, x1, y1), kind in zip(
        (0, 3), ((0, 0), (32, 32)), targets["boxes"][0], (1, 0), strict=True
    ):
        place = ((x0 + x1) / 2 - left) / SIDE, ((y0 + y1) / 2 - top) / SIDE
        outputs["box_values"][0, 2 * cell + 1] = (*place, np.sqrt((x1 - x0) / 64), np.sqrt((y1 - y0) / 64))
        outputs["confidences"][0, 2 * cell + 1] = 1
        outputs["class_scores"][0, cell, kind] = 1
    assert sum(map(float, model.task.loss(targets, outputs).values())) == pytest.approx(0, abs=1e-9)
    found = model.task.decode(outputs)
    assert int(found["count"][0]) == 2
    order = np.argsort(-np.asarray(found["classes"][0, :2]))
    np.testing.assert_allclose(np.asarray(found["boxes"])[0, order] * 64, targets["boxes"][0], atol=1e-3)
    np.testing.assert_allclose(found["scores"][0, :2], 1)


def test_cells_in_a_crowd_are_not_background(model):
    outputs = random_outputs(model, 1)
    whole = {"boxes": np.array([[[0, 0, 64, 64]]], np.float32), "classes": np.zeros((1, 1)), "valid": [[True]]}
    assert sum(map(float, model.task.loss({**whole, "crowd": [[True]]}, outputs).values())) == 0


def test_own_convolutions_of_a_small_net():
    """Without a backbone's name, with batch normalizations, on a size that no stride divides."""
    net = kv.create_model("yolov1", num_classes=2, input_shape=(70, 130, 3), filters=8, units=8, normalized=True)
    assert len(net.task.method.grid) == 2 * 3
    assert {name: output.shape[1:] for name, output in net.output.items()} == {
        "box_values": (12, 4),
        "confidences": (12, 1),
        "class_scores": (6, 2),
    }
    assert list(net.taps) == ["P1", "P2", "P3", "P4", "P5"]


def test_wrong_arguments():
    with pytest.raises(ValueError, match="stride must be"):
        tiny(stride=16)
    with pytest.raises(ValueError, match="needs a backbone with P5"):
        tiny(backbone_arguments={"filters": [8, 8]})
    with pytest.raises(WeightsError, match="none by name"):
        kv.create_model("yolov1", num_classes=2, weights="imagenet")


def test_odd_targets(model):
    check_odd_targets(model)


def test_learns(model):
    assert learn(tiny(), epochs=60, count=32, most=1) > 0.8


def test_saves(model, tmp_path):
    check_saves(model, tmp_path / "model.keras")


def test_quantizes(model):
    check_quantizes(model)


@pytest.mark.slow
def test_jax(model, tmp_path):
    check_jax(model, tmp_path)
