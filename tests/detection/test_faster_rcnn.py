"""Faster R-CNN: published counts, both losses one box at a time, and what every detector does."""

import keras
import numpy as np
import pytest
from detection import contract
from detection.two_stages import TINY, counted_by_torchvision

import kerasvision as kv
from kerasvision.boxes.coding import VARIANCES, decode_deltas
from kerasvision.boxes.overlap import pairwise_iou
from kerasvision.detection.faster_rcnn import RPN_SAMPLES
from kerasvision.detection.regions import read_regions, region_losses, sampling_weights
from kerasvision.errors import UnknownNameError


@pytest.fixture(scope="module")
def model():
    keras.utils.set_random_seed(0)
    return kv.create_model("faster_rcnn", **TINY)


def test_published_number_of_parameters():
    made = kv.create_model("faster_rcnn", num_classes=90, input_shape=(64, 64, 3))
    # torchvision's 91 classes are 90 and the background, for which it has a box, too.
    assert counted_by_torchvision(made) == 41_755_286 - 4 * (1024 + 1)
    assert {name: tuple(x.shape[1:]) for name, x in made.output.items()} == {
        "rpn_deltas": (1023, 4),
        "rpn_logits": (1023, 1),
        "proposals": (300, 4),
        "class_logits": (300, 91),
        "box_deltas": (300, 360),
    }


def test_weights_are_those_of_the_mean_sample():
    random = np.random.default_rng(0)
    for objects, others in ((3, 90), (40, 50), (40, 5), (0, 30), (30, 0), (0, 0)):
        kinds = random.permutation([1] * objects + [0] * others + [2] * 7)
        weights = np.asarray(sampling_weights((kinds == 1)[None], (kinds == 0)[None], 32, 0.25))[0]
        counts = np.zeros(len(kinds))
        rounds = 3000
        for _ in range(rounds):
            drawn = random.permutation(np.flatnonzero(kinds == 1))[:8]
            rest = random.permutation(np.flatnonzero(kinds == 0))[: 32 - len(drawn)]
            counts[np.concatenate([drawn, rest]).astype(int)] += 1
        np.testing.assert_allclose(weights, counts / rounds, atol=0.06)
        assert weights.sum() == pytest.approx(min(objects, 8) + min(others, 32 - min(objects, 8)), rel=1e-5)


def smooth_l1(difference, beta=1 / 9):
    difference = np.abs(difference)
    return np.where(difference < beta, difference**2 / (2 * beta), difference - beta / 2).sum()


def coded(box, anchor, variances):
    sizes, own = anchor[2:] - anchor[:2], box[2:] - box[:2]
    return np.concatenate([(box[:2] + box[2:] - anchor[:2] - anchor[2:]) / 2 / sizes, np.log(own / sizes)]) / variances


def mean_of_sample(values, positive, background, count, share):
    """Of the values of a sample: that of the positives, and that of the background, as many as there are drawn."""
    drawn = min(len(positive), count * share)
    others = min(len(background), count - drawn)
    total = sum(values[a] for a in positive) * (drawn / max(len(positive), 1))
    total += sum(values[a] for a in background) * (others / max(len(background), 1))
    return total / max(drawn + others, 1)


def second_stage(proposals, boxes, classes, logits, deltas, samples):
    overlap = pairwise_iou(proposals.astype(np.float64), boxes.astype(np.float64))
    shares = np.exp(logits - logits.max(-1, keepdims=True))
    shares /= shares.sum(-1, keepdims=True)
    positive, background, entropy, distance = [], [], {}, {}
    for index, row in enumerate(overlap):
        owner = int(row.argmax()) if len(row) else -1
        found = owner >= 0 and row[owner] >= 0.5
        (positive if found else background).append(index)
        entropy[index] = -np.log(shares[index, classes[owner] if found else -1])
        distance[index] = 0.0
        if found:
            own = deltas[index].reshape(-1, 4)[classes[owner]]
            distance[index] = smooth_l1(coded(boxes[owner], proposals[index], np.array(VARIANCES)) - own)
    return [mean_of_sample(each, positive, background, samples, 0.25) for each in (entropy, distance)]


def first_stage(anchors, boxes, logits, deltas):
    overlap = pairwise_iou(anchors.astype(np.float64), boxes.astype(np.float64))
    best = overlap.max(axis=0) if len(boxes) else None
    positive, background, entropy, distance = [], [], {}, {}
    for index, row in enumerate(overlap):
        kept = [n for n in range(len(boxes)) if best[n] > 0 and row[n] >= best[n] - 1e-5]
        owner = max(kept, key=lambda n: row[n]) if kept else int(row.argmax()) if len(boxes) else -1
        found = bool(kept) or (owner >= 0 and row[owner] >= 0.7)
        if not found and owner >= 0 and row[owner] >= 0.3:
            continue
        (positive if found else background).append(index)
        entropy[index] = np.logaddexp(0, -logits[index] if found else logits[index])
        distance[index] = smooth_l1(coded(boxes[owner], anchors[index], 1.0) - deltas[index]) if found else 0.0
    return [mean_of_sample(each, positive, background, RPN_SAMPLES, 0.5) for each in (entropy, distance)]


@pytest.mark.parametrize("samples", [512, 24])
def test_losses_equal_a_loop(model, samples):
    _, targets = contract.rectangles(3, seed=5)
    targets["valid"][2] = False
    outputs = contract.random_outputs(model, 3, spread=0.5)
    random = np.random.default_rng(0)
    outputs["proposals"][:, ::2] = random.uniform(0, 40, (3, 30, 4))
    outputs["proposals"][:, ::2, 2:] += 10
    near = targets["boxes"][:, random.integers(0, 3, 30)]
    outputs["proposals"][:, 1::2] = near + random.normal(0, 3, near.shape)
    method = model.task.method
    received = {
        **method.proposal_losses(targets, outputs),
        **region_losses(outputs["proposals"], outputs, targets, samples=samples),
    }
    received = np.stack([np.asarray(received[name]) for name in method.loss_names], axis=-1)
    for index in range(3):
        keep = targets["valid"][index]
        boxes, classes = targets["boxes"][index][keep], targets["classes"][index][keep]
        own = {name: values[index] for name, values in outputs.items()}
        expected = [
            *first_stage(method.grid.boxes, boxes, own["rpn_logits"][:, 0], own["rpn_deltas"]),
            *second_stage(own["proposals"], boxes, classes, own["class_logits"], own["box_deltas"], samples),
        ]
        np.testing.assert_allclose(received[index], expected, rtol=1e-4, atol=1e-5)
    assert (received[:2, 3] > 0).all() and received[2, 3] == received[2, 1] == 0


def test_every_class_of_a_proposal_has_its_own_box(model):
    random = np.random.default_rng(0)
    proposals = random.uniform(0, 30, (2, 7, 4)).astype(np.float32) + np.float32([0, 0, 31, 31])
    logits = random.normal(0, 2, (2, 7, 4)).astype(np.float32)
    deltas = random.normal(0, 1, (2, 7, 12)).astype(np.float32)
    shares = np.exp(logits) / np.exp(logits).sum(-1, keepdims=True)
    for wanted in (9, 100):
        outputs = {"class_logits": logits, "box_deltas": deltas}
        boxes, scores, classes = (np.asarray(each) for each in read_regions(proposals, outputs, wanted))
        assert boxes.shape == (2, min(wanted, 21), 4)
        for image in range(2):
            pairs = sorted(np.ndindex(7, 3), key=lambda pair: -shares[image][pair])[:wanted]
            np.testing.assert_array_equal(classes[image], [kind for _, kind in pairs])
            np.testing.assert_allclose(scores[image], [shares[image][pair] for pair in pairs], rtol=1e-5)
            own = np.stack([deltas[image, row].reshape(3, 4)[kind] for row, kind in pairs])
            expected = decode_deltas(own, proposals[image][[row for row, _ in pairs]])
            np.testing.assert_allclose(boxes[image], expected, rtol=1e-5, atol=1e-4)


def test_proposals_are_handed_out_as_they_are_used(model):
    images, _ = contract.rectangles(2)
    outputs = model(images, training=False)
    proposals = model.get_layer("proposals")(outputs["rpn_deltas"], outputs["rpn_logits"])
    np.testing.assert_array_equal(outputs["proposals"], proposals)


def test_levels_that_the_backbone_lacks_are_pooled():
    model = kv.create_model("faster_rcnn", **{**TINY, "levels": ["P3", "P4", "P5", "P6"]})
    assert model.taps["P6"] == "fpn_P6_pool"
    assert model.get_layer("region_align").strides == (8, 16, 32)
    with pytest.raises(UnknownNameError, match="small_cnn"):
        kv.create_model("faster_rcnn", num_classes=2, backbone="small_cn")


def test_learns():
    keras.utils.set_random_seed(0)
    assert contract.learn(kv.create_model("faster_rcnn", **TINY), 25, rate=8e-3) > 0.5


def test_odd_targets(model):
    contract.check_odd_targets(model)


def test_saves(model, tmp_path):
    contract.check_saves(model, tmp_path / "model.keras")


def test_quantizes(model):
    contract.check_quantizes(model)


@pytest.mark.slow
def test_jax(model, tmp_path):
    contract.check_jax(model, tmp_path)
