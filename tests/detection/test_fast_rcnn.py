"""Fast R-CNN: shapes and counts, its loss one proposal at a time, and what every detector does."""

import keras
import numpy as np
import pytest
from detection import contract
from keras import ops

import kerasvision as kv
from kerasvision.boxes.overlap import pairwise_iou
from kerasvision.detection.fast_rcnn import GivenRegions
from kerasvision.errors import ExportError

NET = {
    **contract.TINY,
    "num_classes": 2,
    "input_shape": (64, 64, 3),
    "level": "P3",
    "proposals": 40,
    "head_widths": [64],
    "samples": 32,
}


@pytest.fixture(scope="module")
def model():
    keras.utils.set_random_seed(0)
    return kv.create_model("fast_rcnn", **NET)


def test_outputs(model):
    images, _ = contract.rectangles(2)
    outputs = model(images)
    assert {name: values.shape for name, values in outputs.items()} == {
        "proposals": (2, 40, 4),
        "class_logits": (2, 40, 3),
        "box_deltas": (2, 40, 8),
    }
    assert set(model.taps) == {"P0", "P1", "P2", "P3"}
    # 7 x 7 places of the level's 32 channels.
    head = 7 * 7 * 32 * 64 + 64 + 65 * 3 + 65 * 8
    features = kv.create_model("small_cnn", num_classes=2, input_shape=(64, 64, 3), **NET["backbone_arguments"])
    assert model.count_params() == head + features.features("P3").count_params()


def test_the_papers_net_has_its_parameters():
    # 13 convolutions of VGG-16, fc6 and fc7, then 21 classes and 20 boxes.
    convolutions = 14_714_688
    head = (7 * 7 * 512 + 1) * 4096 + 4097 * 4096 + 4097 * (21 + 80)
    assert convolutions + head == 134_674_341


def test_learns(model):
    assert contract.learn(kv.create_model("fast_rcnn", **NET), epochs=12) > 0.8


def test_odd_targets(model):
    contract.check_odd_targets(model)


def test_saves(model, tmp_path):
    contract.check_saves(model, tmp_path / "model.keras")
    images = contract.rectangles(2, seed=4)[0]
    found = kv.load(tmp_path / "model.keras").run(images)
    for name, values in model.task.decode(model(images)).items():
        np.testing.assert_allclose(found[name], values, atol=1e-5, err_msg=name)


def test_bfloat16(model):
    """The proposals are the same: pixels are no affair of the policy."""
    images, targets = contract.rectangles(2, seed=6)
    keras.config.set_dtype_policy("mixed_bfloat16")
    try:
        half = kv.create_model("fast_rcnn", **NET)
    finally:
        keras.config.set_dtype_policy("float32")
    half.set_weights(model.get_weights())
    outputs, exact = half(images), model(images)
    np.testing.assert_array_equal(outputs["proposals"], exact["proposals"])
    losses = [sum(model.task.loss(targets, each).values()) for each in (outputs, exact)]
    np.testing.assert_allclose(*losses, rtol=0.02)


@pytest.mark.slow
def test_jax(model, tmp_path):
    contract.check_jax(model, tmp_path)


def test_proposals_of_another_source(model):
    """The graph from features and proposals to outputs stands by itself."""
    images = ops.convert_to_tensor(contract.rectangles(2, seed=5)[0])
    rest = {name: output for name, output in model.output.items() if name != "proposals"}
    again = keras.Model([model.input, model.output["proposals"]], rest)
    outputs = model(images)
    received = again([images, outputs["proposals"]])
    np.testing.assert_array_equal(received["class_logits"], outputs["class_logits"])
    others = np.zeros((2, 40, 4), np.float32)
    others[:, 0] = (8, 8, 40, 40)
    others = ops.convert_to_tensor(others)
    found = model.task.decode({**again([images, others]), "proposals": others})
    # Both classes of the only proposal, at most.
    assert (ops.convert_to_numpy(found["count"]) <= 2).all()


def test_refused_as_a_file(model, tmp_path):
    for refused in (lambda: kv.export(model, tmp_path), lambda: kv.quantize(model)):
        with pytest.raises(ExportError, match='fast_rcnn cannot be .* runs in Python \\(layer "proposals"\\)'):
            refused()


@pytest.mark.parametrize(
    "arguments, message",
    [({"level": "P9"}, 'no level "P9"'), ({"background": 0.6}, "background must"), ({"search": "best"}, "mode must")],
)
def test_settings_that_cannot_be(arguments, message):
    with pytest.raises(ValueError, match=message):
        kv.create_model("fast_rcnn", **{**NET, **arguments})


class TestLoss:
    proposals = np.array([[0, 0, 20, 20], [0, 0, 20, 12], [0, 0, 20, 6], [40, 40, 60, 60], [0, 0, 0, 0]], np.float32)

    def loss(self, logits, deltas=None, boxes=((0, 0, 20, 20),), valid=True, **settings):
        count = len(self.proposals)
        outputs = {
            "proposals": self.proposals[None],
            "class_logits": np.asarray(logits, np.float32)[None],
            "box_deltas": np.zeros((1, count, 8), np.float32) if deltas is None else deltas[None],
        }
        targets = {
            "boxes": np.array([boxes], np.float32),
            "classes": np.ones((1, len(boxes)), np.int32),
            "valid": np.full((1, len(boxes)), valid),
        }
        losses = GivenRegions(2, **settings).losses(targets, outputs)
        return {name: float(values[0]) for name, values in losses.items()}

    def test_only_near_proposals_are_background(self):
        """IoU 1 and 0.6 are the object, 0.3 is background, 0 and what only fills up are nothing."""
        overlaps = pairwise_iou(self.proposals[:, :].astype(float), np.array([[0.0, 0, 20, 20]]))[:, 0]
        np.testing.assert_allclose(overlaps, [1, 0.6, 0.3, 0, 0])
        random = np.random.default_rng(0)
        logits = random.normal(size=(5, 3))
        entropy = -np.log(np.exp(logits) / np.exp(logits).sum(axis=1, keepdims=True))
        # A quarter of 64 has room for both objects: all three count once.
        expected = (entropy[0, 1] + entropy[1, 1] + entropy[2, 2]) / 3
        np.testing.assert_allclose(self.loss(logits)["class_loss"], expected, rtol=1e-5)
        # A quarter of four is one: each of two objects counts half, and there is one background alone.
        expected = ((entropy[0, 1] + entropy[1, 1]) / 2 + entropy[2, 2]) / 2
        np.testing.assert_allclose(self.loss(logits, samples=4)["class_loss"], expected, rtol=1e-5)

    def test_without_objects_all_real_proposals_are_background(self):
        logits = np.random.default_rng(1).normal(size=(5, 3))
        entropy = -np.log(np.exp(logits) / np.exp(logits).sum(axis=1, keepdims=True))
        losses = self.loss(logits, valid=False)
        np.testing.assert_allclose(losses["class_loss"], entropy[:4, 2].mean(), rtol=1e-5)
        assert losses["box_loss"] == 0

    def test_boxes_of_the_own_class_count(self):
        deltas = np.zeros((5, 8), np.float32)
        deltas[:, :4] = 9  # Of the other class.
        deltas[2:, 4:] = 9  # Of background.
        # The second proposal is moved up by a fifth of its height and lower by log(20 / 12), over (0.1, 0.2).
        deltas[1, 4:] = [0, (10 - 6) / 12 / 0.1, 0, np.log(20 / 12) / 0.2]
        np.testing.assert_allclose(self.loss(np.zeros((5, 3)), deltas)["box_loss"], 0, atol=1e-6)
        deltas[0, 4] = 1
        # Smooth L1 of 1 with beta 1/9, a third of the samples.
        np.testing.assert_allclose(self.loss(np.zeros((5, 3)), deltas)["box_loss"], (1 - 1 / 18) / 3, rtol=1e-5)


def test_what_fills_up_is_never_found():
    method = GivenRegions(2)
    outputs = {
        "proposals": np.array([[[0, 0, 10, 10], [0, 0, 0, 0]]], np.float32),
        "class_logits": np.array([[[0, 0, 0], [50, 50, 0]]], np.float32),
        "box_deltas": np.zeros((1, 2, 8), np.float32),
    }
    _, scores = method.candidates(outputs)
    np.testing.assert_allclose(sorted(ops.convert_to_numpy(scores).ravel())[-3:], [0, 1 / 3, 1 / 3], atol=1e-6)
