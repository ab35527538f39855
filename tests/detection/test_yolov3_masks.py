"""YOLOv3 with masks: its loss and its masks against loops in NumPy, and what every detector must do."""

import keras
import numpy as np
import pytest
from detection import contract
from detection.instances import crop, give_masks
from detection.test_yolov3 import ANCHORS, answering, sigmoid

import kerasvision as kv
from kerasvision.detection import DetectionMetrics

TINY = {
    **contract.TINY,
    "labels": ["red", "blue"],
    "input_shape": (64, 64, 3),
    "filters": [16, 24],
    "levels": ["P3", "P4"],
    "anchors": ANCHORS,
    "prototypes": 8,
    "prototype_filters": 16,
}
PLACE = 4  # Pixels of a prototype's place.


def tiny(**arguments):
    return kv.create_model("yolov3_masks", **{**TINY, **arguments})


@pytest.fixture(scope="module")
def model():
    keras.utils.set_random_seed(0)
    return tiny()


@pytest.fixture(autouse=True)
def scenes_with_masks(monkeypatch):
    give_masks(monkeypatch, 1)


def test_net_of_the_paper():
    """YOLOv3 at 544 pixels, the paper's protonet beside it and 32 coefficients for each of three anchors."""
    with keras.StatelessScope(initialize_variables=False):
        net = kv.create_model("yolov3_masks", num_classes=80, input_shape=(544, 544, 3))
    assert net.output["prototypes"].shape[1:] == (136, 136, 32)
    assert net.output["mask_coefficients"].shape[1:] == (3 * (68**2 + 34**2 + 17**2), 32)
    head = sum((2 * width + 1) * 3 * 32 for width in (128, 256, 512))
    convolutions = 9 * 256 * (128 + 3 * 256) + 4 * 4 * 256 + (256 + 1) * 32
    assert net.count_params() == 62_001_757 + head + convolutions


@pytest.mark.parametrize(("stride", "shape"), [(8, (8, 8)), (4, (16, 16)), (2, (32, 32)), (1, (64, 64))])
def test_strides_of_prototypes(stride, shape):
    made = tiny(prototype_stride=stride, prototypes=3)
    assert made.output["prototypes"].shape[1:] == (*shape, 3)
    assert made.output["mask_coefficients"].shape[1:] == (2 * (64 + 16), 3)


@pytest.mark.parametrize("stride", [0, 3, 16])
def test_strides_that_no_doubling_leads_to(stride):
    with pytest.raises(ValueError, match="one of 8, 4, 2, 1"):
        tiny(prototype_stride=stride)


def mixture(outputs, image, anchor):
    """[h, w] of one anchor."""
    share = np.tanh(outputs["mask_coefficients"][image, anchor].astype(float))
    return (outputs["prototypes"][image].astype(float) * share).sum(axis=-1)


def coverage(mask, size, image):
    """The share of each of size x size places that a mask covers, pixel by pixel of an image of one size."""
    found, stride = np.zeros((size, size)), image // len(mask)
    for y, x in np.ndindex(size * PLACE, size * PLACE):
        row, column = min(y, image - 1) // stride, min(x, image - 1) // stride
        found[y // PLACE, x // PLACE] += mask[row, column] / PLACE**2
    return found


def mask_losses(outputs, targets, index):
    """Of each matched object of an image."""
    valid, losses = targets["valid"][index], []
    boxes, masks = targets["boxes"][index][valid].astype(float), targets["masks"][index][valid]
    for anchor, owner in answering(boxes).items():
        logits, wanted = mixture(outputs, index, anchor), coverage(masks[owner], 16, 64)
        x0, y0, x1, y1 = boxes[owner] / PLACE
        total = 0.0
        for y, x in np.ndindex(16, 16):
            if x0 - 1 <= x + 0.5 <= x1 + 1 and y0 - 1 <= y + 0.5 <= y1 + 1:
                total += np.logaddexp(0, logits[y, x]) - wanted[y, x] * logits[y, x]
        losses.append(6.125 * total / (x1 - x0) / (y1 - y0))
    return losses


@pytest.mark.parametrize("stride", [1, 2, 4, 8])
def test_mask_loss_equals_a_loop(model, stride):
    _, targets = contract.rectangles(6, most=4, seed=1)
    targets["masks"] = targets["masks"][:, :, stride // 2 :: stride, stride // 2 :: stride]
    targets["valid"][0] = False
    outputs = contract.random_outputs(model, 6, spread=1.0)
    received = np.asarray(model.task.method.losses(targets, outputs)["mask_loss"])
    expected = [np.mean(mask_losses(outputs, targets, index) or [0]) for index in range(6)]
    np.testing.assert_allclose(received, expected, rtol=1e-4)
    assert received[0] == 0 < received[1:].min()


def test_other_losses_are_those_of_yolov3(model):
    _, targets = contract.rectangles(4)
    outputs = contract.random_outputs(model, 4)
    plain = kv.create_model("yolov3", **{key: value for key, value in TINY.items() if not key.startswith("prototype")})
    received, expected = model.task.loss(targets, outputs), plain.task.loss(targets, outputs)
    assert list(received) == [*expected, "mask_loss"]
    assert all(float(received[name]) == pytest.approx(float(expected[name])) for name in expected)
    del targets["masks"]
    with pytest.raises(ValueError, match='Expected "masks".*yolov3'):
        model.task.loss(targets, outputs)


def test_too_many_objects_are_a_part_of_them():
    made = tiny(masks=2)
    _, targets = contract.rectangles(8, most=4, seed=1)
    outputs = contract.random_outputs(made, 8, spread=1.0)
    received = np.asarray(made.task.method.losses(targets, outputs)["mask_loss"])
    crowded = 0
    for index, value in enumerate(received):
        losses = mask_losses(outputs, targets, index)
        pairs = [(a + b) / 2 for i, a in enumerate(losses) for b in losses[:i]] or losses
        assert np.isclose(pairs, value, rtol=1e-4).sum() == 1
        crowded += len(losses) > 2
    assert crowded > 1


def test_small_objects_have_finite_losses(model):
    """A hundredth of a place would weigh a hundred times as much as a whole one."""
    _, targets = contract.rectangles(1)
    targets["boxes"][0, 0] = [20.1, 20.1, 20.4, 20.4]
    targets["valid"][0] = [True, False, False]
    outputs = contract.random_outputs(model, 1, spread=1.0)
    assert 0 < float(model.task.loss(targets, outputs)["mask_loss"]) < 6.125 * 9 * 10


def test_sides_that_the_stride_does_not_divide():
    made = tiny(input_shape=(52, 52, 3))
    assert made.output["prototypes"].shape[1:] == (14, 14, 8)
    mask = np.random.default_rng(0).integers(0, 2, (52, 52), np.uint8)
    received = np.asarray(made.task.method._covered(mask[None, None], (14, 14)))[0, 0]
    np.testing.assert_allclose(received, coverage(mask, 14, 52), atol=1e-6)


def logit(share):
    return np.log(share / (1 - share))


def test_masks_of_what_was_found(model):
    """Each has its own anchor's mixture, read within the part of its box that lies in the image."""
    outputs = contract.random_outputs(model, 2, spread=1.0)
    outputs["objectness_logits"][...] = -20
    for image, anchor in ((0, 7), (0, 100), (1, 140)):
        outputs["objectness_logits"][image, anchor] = 5
    found = {name: np.asarray(values) for name, values in model.task.decode(outputs).items()}
    assert found["box_masks"].shape == (2, 100, 28, 28)
    seen = set()
    boxes_of, scores = model.task.method.candidates(outputs)
    boxes = np.asarray(boxes_of(np.tile(np.arange(scores.shape[1]), (2, 1))))
    for image in range(2):
        for place in range(found["count"][image]):
            box = found["boxes"][image, place] * 64
            anchor = np.abs(np.clip(boxes[image], 0, 64) - box).sum(axis=-1).argmin()
            expected = sigmoid(crop(mixture(outputs, image, anchor), box / PLACE, 28))
            np.testing.assert_allclose(found["box_masks"][image, place], expected, atol=1e-4)
            seen.add((image, int(anchor)))
    assert seen == {(0, 7), (0, 100), (1, 140)}


def test_true_masks_come_back_as_they_were(model):
    """Where each prototype is one object's mask: places that are covered in part leave some loss, and fine outlines."""
    _, targets = contract.rectangles(8)
    outputs = {name: np.zeros_like(values) for name, values in contract.random_outputs(model, 8).items()}
    outputs["objectness_logits"] -= 20
    for image in range(8):
        valid = targets["valid"][image]
        boxes = targets["boxes"][image][valid].astype(float)
        for anchor, owner in answering(boxes).items():
            box, own = boxes[owner], model.task.method.grid.boxes[anchor]
            cell = np.array([8, 16])[int(anchor >= 128)]
            offset = (box[:2] + box[2:]) / 2 / cell % 1
            size = np.log((box[2:] - box[:2]) / (own[2:] - own[:2]))
            outputs["box_deltas"][image, anchor] = [*logit(np.clip(offset, 1e-3, 1 - 1e-3)), *size]
            outputs["objectness_logits"][image, anchor] = 5
            outputs["class_logits"][image, anchor, targets["classes"][image][owner]] = 5
            outputs["mask_coefficients"][image, anchor, owner] = 20
            share = coverage(targets["masks"][image, owner], 16, 64)
            outputs["prototypes"][image, ..., owner] = logit(np.clip(share, 1e-3, 1 - 1e-3))
    unknown = {**outputs, "mask_coefficients": np.zeros_like(outputs["mask_coefficients"])}
    losses = [float(model.task.loss(targets, each)["mask_loss"]) for each in (outputs, unknown)]
    assert losses[0] < 0.4 * losses[1]
    metrics = DetectionMetrics(model.labels, "masks", image_size=model.image_size)
    metrics.update(targets, model.task.decode(outputs))
    figures = metrics.result()
    assert figures["AP75"] > 0.99 and figures["AP"] > 0.9


def test_odd_targets(model):
    contract.check_odd_targets(model)


def test_learns_boxes_and_masks():
    keras.utils.set_random_seed(0)
    made = tiny()
    assert contract.learn(made, 18, rate=1e-2) > 0.8
    images, targets = contract.rectangles()
    metrics = DetectionMetrics(made.labels, "masks", image_size=made.image_size)
    metrics.update(targets, made.task.decode(made.predict(images, verbose=0)))
    assert metrics.result()["AP50"] > 0.7


def test_saves(model, tmp_path):
    contract.check_saves(model, tmp_path / "model.keras")


def test_quantizes(model):
    contract.check_quantizes(model)


@pytest.mark.slow
def test_jax(model, tmp_path):
    contract.check_jax(model, tmp_path)
