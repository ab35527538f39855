"""The anchor-free detector: its loss against loops in NumPy, its sizes, and what every detector must do."""

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
from kerasvision.boxes.overlap import ciou, giou, iou
from kerasvision.detection.anchor_free import SIZES, AlignedCenters
from kerasvision.detection.anchor_free import __doc__ as SIZES_DOC
from kerasvision.zoo import count_macs

BINS = 8


def tiny(name="anchor_free_n", **arguments):
    arguments = {**TINY, "filters": 16, "bins": BINS, "levels": ["P3", "P4"], **arguments}
    return kv.create_model(name, labels=["red", "blue"], input_shape=(64, 64, 3), **arguments)


@pytest.fixture(scope="module")
def model():
    return tiny()


def softmax(logits):
    shares = np.exp(logits - logits.max(axis=-1, keepdims=True))
    return shares / shares.sum(axis=-1, keepdims=True)


def places(size=64, strides=(8, 16)):
    """(x, y, stride) of every output, in the order of the outputs."""
    return [
        ((column + 0.5) * stride, (row + 0.5) * stride, stride)
        for stride in strides
        for row in range(size // stride)
        for column in range(size // stride)
    ]


def predicted(bins, size=64):
    """Boxes [A, 4] of one image, place by place."""
    boxes = []
    for (x, y, stride), logits in zip(places(size), bins, strict=True):
        left, top, right, bottom = (softmax(logits.reshape(4, -1)) * np.arange(BINS)).sum(axis=-1) * stride
        boxes.append((x - left, y - top, x + right, y + bottom))
    return np.array(boxes)


def aligned(found, scores, boxes, classes, top=10):
    """{place: (object, wanted score)}, by the rules of TOOD."""
    alignment, overlaps = np.zeros((len(boxes), len(found))), np.zeros((len(boxes), len(found)))
    for m, (box, kind) in enumerate(zip(boxes, classes, strict=True)):
        for a, (x, y, _) in enumerate(places()):
            if box[0] < x < box[2] and box[1] < y < box[3]:
                overlaps[m, a] = iou(box, found[a])
                alignment[m, a] = scores[a, kind] ** 0.5 * overlaps[m, a] ** 6
    chosen = {m: [a for a in np.argsort(-row)[:top] if row[a] > 0] for m, row in enumerate(alignment)}
    owner = {}
    for a in range(len(found)):
        wanting = [m for m in chosen if a in chosen[m]]
        if wanting:
            owner[a] = max(wanting, key=lambda m: overlaps[m, a])
    result = {}
    for m in range(len(boxes)):
        own = [a for a in owner if owner[a] == m]
        for a in own:
            result[a] = m, alignment[m, a] / alignment[m, own].max() * overlaps[m, own].max()
    return result


def losses(outputs, targets, measure):
    """Class, box and distribution loss of each image, from the formulas."""
    images = []
    for index in range(len(targets["valid"])):
        valid = targets["valid"][index]
        boxes, classes = targets["boxes"][index][valid].astype(float), targets["classes"][index][valid]
        bins, logits = outputs["box_bins"][index].astype(float), outputs["class_logits"][index].astype(float)
        found, scores = predicted(bins), 1 / (1 + np.exp(-logits))
        match = aligned(found, scores, boxes, classes)
        wanted = np.zeros_like(scores)
        of_boxes, of_bins = 0.0, 0.0
        for a, (m, quality) in match.items():
            wanted[a, classes[m]] = quality
            of_boxes += quality * (1 - measure(boxes[m], found[a]))
            x, y, stride = places()[a]
            distances = np.array([x - boxes[m][0], y - boxes[m][1], boxes[m][2] - x, boxes[m][3] - y]) / stride
            sides = 0.0
            for distance, side in zip(distances.clip(0, BINS - 1), bins[a].reshape(4, -1), strict=True):
                low = min(int(distance), BINS - 2)
                shares = np.log(softmax(side))
                sides -= (low + 1 - distance) * shares[low] + (distance - low) * shares[low + 1]
            of_bins += quality * sides / 4
        of_classes = -(wanted * np.log(scores) + (1 - wanted) * np.log(1 - scores)).sum()
        whole = max(wanted.sum(), 1.0)
        images.append((0.5 * of_classes / whole, 7.5 * of_boxes / whole, 1.5 * of_bins / whole))
    return np.array(images)


@pytest.mark.parametrize(("name", "measure"), [("ciou", ciou), ("giou", giou)])
def test_losses_are_those_of_the_formulas(model, name, measure):
    _, targets = rectangles(6, most=4, seed=1)
    outputs = random_outputs(model, 6, spread=1.5)
    expected = losses(outputs, targets, measure)
    received = AlignedCenters(model.task.method.grid, 2, box_loss=name).losses(targets, outputs)
    assert np.stack([received[loss] for loss in AlignedCenters.loss_names], axis=1) == pytest.approx(expected, rel=1e-4)
    assert (expected > 0).all()


def test_candidates_are_the_means_of_the_distributions(model):
    outputs = random_outputs(model, 1)
    boxes_of, scores = model.task.method.candidates(outputs)
    some = np.array([[5, 0, 5, 20]])
    np.testing.assert_allclose(boxes_of(some)[0], predicted(outputs["box_bins"][0])[some[0]], atol=1e-3)
    np.testing.assert_allclose(scores, 1 / (1 + np.exp(-outputs["class_logits"])), atol=1e-6)


def test_perfect_outputs_have_no_box_loss(model):
    """A box whose sides lie whole strides from the places: one bin each."""
    grid = model.task.method.grid
    box = np.array([4, 4, 36, 52], np.float32)
    distances = np.concatenate([grid.centers - box[:2], box[2:] - grid.centers], axis=1) / grid.strides[:, None]
    bins = -1000.0 * np.abs(np.arange(BINS) - distances[..., None].clip(0, BINS - 1)).astype(np.float32)
    inside = (distances > 0).all(axis=1) & (grid.strides == 8)
    outputs = {
        "box_bins": bins.reshape(1, -1, 4 * BINS),
        "class_logits": np.where(inside[:, None] & (np.arange(2) == 1), 100.0, -100.0).astype(np.float32)[None],
    }
    targets = {"boxes": box[None, None], "classes": np.array([[1]]), "valid": np.ones((1, 1), bool)}
    received = model.task.loss(targets, outputs)
    assert float(received["box_loss"]) == pytest.approx(0, abs=1e-4)
    assert float(received["distribution_loss"]) == pytest.approx(0, abs=1e-4)
    # All places inside are aligned equally well, and more than ten have a wanted score of 1.
    assert inside.sum() > 10 and float(received["class_loss"]) == pytest.approx(0, abs=1e-4)
    outputs["class_logits"][0, np.flatnonzero(~inside)[:3], 0] = 100.0
    wrong = model.task.loss(targets, outputs)["class_loss"]
    assert float(wrong) == pytest.approx(0.5 * 3 * 100 / inside.sum(), rel=1e-4)


def test_places_in_a_crowd_are_not_background(model):
    outputs = random_outputs(model, 1)
    whole = {"boxes": np.array([[[0, 0, 64, 64]]], np.float32), "classes": np.zeros((1, 1)), "valid": [[True]]}
    assert float(model.task.loss({**whole, "crowd": [[True]]}, outputs)["class_loss"]) == 0
    assert float(model.task.loss({**whole, "crowd": [[False]]}, outputs)["class_loss"]) > 0


@pytest.mark.parametrize("name", SIZES)
def test_sizes_are_those_of_the_table(name):
    [row] = [line for line in SIZES_DOC.splitlines() if line.startswith(f"| {name} ")]
    nets = [kv.create_model(name, num_classes=80, input_shape=(size, size, 3)) for size in (320, 416)]
    figures = [f"{nets[0].count_params():,}", *(f"{count_macs(net) / 1e9:.2f} G" for net in nets)]
    assert [cell.strip() for cell in row.split("|")[3:6]] == figures
    assert nets[0].output["class_logits"].shape == (None, 40**2 + 20**2 + 10**2, 80)


def test_another_backbone_does_not_get_the_arguments_of_the_size():
    """That of anchor_free_n is `alpha`, which small_cnn does not know."""
    with pytest.raises(TypeError, match="alpha"):
        tiny(backbone_arguments={"alpha": 0.5})
    arguments = {"backbone": "small_cnn", "levels": ["P1", "P2"], "filters": 16}
    net = kv.create_model("anchor_free_n", num_classes=2, input_shape=(32, 32, 3), **arguments)
    assert net.output["class_logits"].shape == (None, 16**2 + 8**2, 2)


def test_levels_are_a_choice():
    fine = tiny(levels=["P2", "P3"])
    assert list(fine.taps) == ["P0", "P1", "P2", "P3"]
    assert fine.output["box_bins"].shape == (None, 16**2 + 8**2, 4 * BINS)
    for tap in fine.taps:
        fine.features(tap)


@pytest.mark.parametrize(
    ("arguments", "message"),
    [({"bins": 1}, "bins must be"), ({"box_loss": "l1"}, "box_loss must be"), ({"top": 0}, "top must be")],
)
def test_wrong_arguments(arguments, message):
    with pytest.raises(ValueError, match=message):
        tiny(**arguments)


def test_odd_targets(model):
    check_odd_targets(model)


def test_learns():
    assert learn(tiny(), epochs=25, rate=1e-2) > 0.8


def test_saves(model, tmp_path):
    check_saves(model, tmp_path / "model.keras")


def test_quantizes(model):
    check_quantizes(model)


@pytest.mark.slow
def test_jax(model, tmp_path):
    check_jax(model, tmp_path)
