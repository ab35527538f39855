"""Mask R-CNN: published counts, masks cut and laid back, their loss one at a time, and what every detector does."""

import keras
import numpy as np
import pytest
from detection import contract
from detection.instances import crop, give_masks
from detection.two_stages import TINY as BOXES
from detection.two_stages import counted_by_torchvision, crowded, greedy

import kerasvision as kv
from kerasvision.boxes.overlap import pairwise_iou
from kerasvision.detection import DetectionMetrics
from kerasvision.detection.instance_masks import crop_masks
from kerasvision.detection.mask_rcnn import MaskRegions, Regroup
from kerasvision.detection.regions import read_regions

TINY = {**BOXES, "masks": 20, "mask_filters": 16, "mask_depth": 2}
STRIDE = 2


@pytest.fixture(scope="module")
def model():
    keras.utils.set_random_seed(0)
    return kv.create_model("mask_rcnn", **TINY)


@pytest.fixture(autouse=True)
def scenes_with_masks(monkeypatch):
    give_masks(monkeypatch, STRIDE)


def test_published_number_of_parameters():
    made = kv.create_model("mask_rcnn", num_classes=90, input_shape=(64, 64, 3))
    # torchvision's background has a box and a mask.
    assert counted_by_torchvision(made) == 44_401_393 - 4 * (1024 + 1) - (256 + 1)
    assert made.output["mask_logits"].shape[1:] == (100, 28, 28, 90)


def test_cropped_masks_equal_a_loop():
    random = np.random.default_rng(0)
    masks = random.integers(0, 2, (2, 3, 20, 30), np.uint8)
    low = random.uniform(-4, 20, (2, 6, 2))
    boxes = np.concatenate([low, low + random.uniform(0, 20, (2, 6, 2))], axis=-1).astype(np.float32)
    boxes[0, 0] = [0, 0, 30, 20]
    boxes[0, 1] = [50, 50, 60, 60]
    index = random.integers(0, 3, (2, 6))
    received = np.asarray(crop_masks(masks, index, boxes, 7))
    for image, region in np.ndindex(2, 6):
        expected = crop(masks[image, index[image, region]], boxes[image, region].astype(float), 7)
        np.testing.assert_allclose(received[image, region], expected, atol=1e-4)
    assert received[0, 1].max() == 0
    assert np.asarray(crop_masks(masks, index, np.full_like(boxes, np.nan), 7)).shape == (2, 6, 7, 7)


def test_regions_are_proposals_in_training_and_detections_otherwise():
    random = np.random.default_rng(0)
    proposals = np.stack([crowded(random, 40, objects=5) for _ in range(2)])
    logits = random.normal(0, 2, (2, 40, 3)).astype(np.float32)
    deltas = random.normal(0, 0.3, (2, 40, 8)).astype(np.float32)
    layer = MaskRegions((200, 220), regions=30, candidates=50, iou=0.5)
    trained = np.asarray(layer(proposals, logits, deltas, training=True))
    scores = np.exp(logits) / np.exp(logits).sum(-1, keepdims=True)
    for image in range(2):
        order = np.argsort(-scores[image, :, :2].max(-1))[:30]
        np.testing.assert_array_equal(trained[image, :, :4], proposals[image, order])
        np.testing.assert_allclose(trained[image, :, 4], scores[image, order, :2].max(-1), rtol=1e-5)
        np.testing.assert_array_equal(trained[image, :, 5], scores[image, order, :2].argmax(-1))
    found = np.asarray(layer(proposals, logits, deltas))
    outputs = {"class_logits": logits, "box_deltas": deltas}
    boxes, scores, classes = (np.asarray(each) for each in read_regions(proposals, outputs, 50))
    boxes = np.clip(boxes, 0, [220, 200, 220, 200])
    for image in range(2):
        kept = np.flatnonzero(greedy(boxes[image], 0.5, classes[image]))[:30]
        expected = np.concatenate([boxes[image], scores[image][:, None], classes[image][:, None]], axis=-1)[kept]
        assert 5 < len(kept) < 40
        np.testing.assert_allclose(found[image, : len(kept)], expected, rtol=1e-5, atol=1e-4)
        assert (found[image, len(kept) :, 4] == 0).all()


def test_layers_come_back_from_their_configs():
    for layer in (MaskRegions((64, 32), 7, 9, 0.6, 4, name="a"), Regroup((7, 7, 3), name="b")):
        assert type(layer).from_config(layer.get_config()).get_config() == layer.get_config()
    x = np.arange(2 * 3 * 4, dtype=np.float32).reshape(2, 3, 2, 2)
    np.testing.assert_array_equal(Regroup((2, 2))(x), x.reshape(6, 2, 2))


def test_mask_loss_equals_a_loop(model):
    _, targets = contract.rectangles(3, seed=5)
    targets["valid"][2] = False
    outputs = contract.random_outputs(model, 3)
    random = np.random.default_rng(0)
    near = targets["boxes"][:, random.integers(0, 3, 20)]
    outputs["regions"][..., :4] = near + random.normal(0, 3, near.shape)
    received = np.asarray(model.task.method.losses(targets, outputs)["mask_loss"])
    for index in range(3):
        keep = targets["valid"][index]
        boxes, classes = targets["boxes"][index][keep], targets["classes"][index][keep]
        losses = []
        for region, logits in zip(outputs["regions"][index, :, :4], outputs["mask_logits"][index], strict=True):
            overlap = pairwise_iou(region[None].astype(float), boxes.astype(float))[0]
            if len(boxes) and overlap.max() >= 0.5:
                owner = overlap.argmax()
                wanted = crop(targets["masks"][index][keep][owner], region / STRIDE, 28)
                own = logits[..., classes[owner]]
                losses.append(np.mean(np.logaddexp(0, own) - wanted * own))
        assert received[index] == pytest.approx(np.mean(losses) if losses else 0, rel=1e-3)
    assert received[0] > 0
    del targets["masks"]
    with pytest.raises(ValueError, match='Expected "masks".*faster_rcnn'):
        model.task.loss(targets, outputs)


def test_each_detection_has_the_mask_of_its_class(model):
    outputs = contract.random_outputs(model)
    outputs["regions"][...] = 0
    # A class is a number that rounding has touched.
    outputs["regions"][0, :3] = [[0, 0, 20, 20, 0.5, 1 - 1e-6], [30, 30, 60, 60, 0.9, 1e-6], [1, 0, 20, 20, 0.4, 1]]
    found = {name: np.asarray(values) for name, values in model.task.decode(outputs).items()}
    assert found["count"].tolist() == [2, 0]
    np.testing.assert_array_equal(found["classes"][0, :2], [0, 1])
    assert found["box_masks"].shape == (2, 100, 28, 28)
    for place, (region, kind) in enumerate(((1, 0), (0, 1))):
        expected = 1 / (1 + np.exp(-outputs["mask_logits"][0, region, :, :, kind]))
        np.testing.assert_allclose(found["box_masks"][0, place], expected, rtol=1e-4)


@pytest.mark.slow
def test_learns_boxes_and_masks():
    keras.utils.set_random_seed(0)
    made = kv.create_model("mask_rcnn", **TINY)
    assert contract.learn(made, 25, rate=8e-3) > 0.5
    images, targets = contract.rectangles()
    metrics = DetectionMetrics(made.labels, "masks", image_size=made.image_size)
    metrics.update(targets, made.task.decode(made.predict(images, verbose=0)))
    assert metrics.result()["AP50"] > 0.5


def test_odd_targets(model):
    contract.check_odd_targets(model)


def test_saves(model, tmp_path):
    contract.check_saves(model, tmp_path / "model.keras")


def test_quantizes(model):
    contract.check_quantizes(model)


def test_twin_has_masks_of_proposals_in_training(model):
    quantized = kv.quantize(model)
    assert quantized.islands == ("mask_align", "proposals", "region_align", "regions")
    images, _ = contract.rectangles(2)
    quantized.calibrate(images)
    outputs = quantized(images, training=True)
    proposals = {tuple(box) for box in np.asarray(outputs["proposals"][0])}
    assert all(tuple(box) in proposals for box in np.asarray(outputs["regions"][0, :, :4]))
    outputs = quantized(images, training=False)
    assert not all(tuple(box) in proposals for box in np.asarray(outputs["regions"][0, :, :4]))


@pytest.mark.slow
def test_jax(model, tmp_path):
    contract.check_jax(model, tmp_path)
