"""RetinaNet and the detection task around it."""

import keras
import numpy as np
import pytest

import kerasvision as kv
from kerasvision.boxes.grid import retinanet_grid
from kerasvision.boxes.overlap import pairwise_iou
from kerasvision.detection.losses import focal_loss, sigmoid_cross_entropy
from kerasvision.detection.retinanet import FocalAnchors
from kerasvision.detection.task import DetectionTask

SIZE = (64, 96)


@pytest.fixture(scope="module")
def model():
    keras.utils.set_random_seed(0)
    return kv.create_model(
        "retinanet",
        labels=["cell", "platelet"],
        backbone="mobilenet_v2",
        backbone_arguments={"alpha": 0.35},
        input_shape=(*SIZE, 3),
        filters=16,
        depth=1,
        separable=True,
        normalized=True,
        levels=("P3", "P4", "P5", "P6"),
    )


def batch(model, seed=0):
    rng = np.random.default_rng(seed)
    images = rng.uniform(0, 255, (3, *SIZE, 3)).astype(np.float32)
    corners = np.sort(rng.uniform(0, 60, (3, 4, 2, 2)), axis=2).reshape(3, 4, 4).astype(np.float32)
    targets = {
        "boxes": corners,
        "classes": rng.integers(0, 2, (3, 4)).astype(np.int32),
        "valid": np.array([[True, True, True, True], [True, False, False, False], [False] * 4]),
        "crowd": np.zeros((3, 4), bool),
    }
    return images, targets


def test_published_number_of_parameters():
    made = kv.create_model("retinanet", num_classes=91, input_shape=(64, 64, 3))
    # torchvision counts neither its frozen batch normalizations nor, as its convolutions have none, these biases.
    backbone = [layer for layer in made.layers if layer.name.startswith(("conv1", "conv2", "conv3", "conv4", "conv5"))]
    normal = sum(layer.count_params() for layer in backbone if isinstance(layer, keras.layers.BatchNormalization))
    biases = sum(layer.bias.shape[0] for layer in backbone if isinstance(layer, keras.layers.Conv2D) and layer.use_bias)
    assert made.count_params() - normal - biases == 34_014_999
    assert len(made.task.method.grid) == len(retinanet_grid((64, 64)))


def brute_force(model, targets, outputs):
    """The two losses of each image, anchor by anchor."""
    method, found = model.task.method, []
    for index in range(len(targets["boxes"])):
        keep = targets["valid"][index]
        boxes, classes = targets["boxes"][index][keep], targets["classes"][index][keep]
        overlap = pairwise_iou(method.grid.boxes.astype(np.float64), boxes.astype(np.float64))
        total = distance = positives = 0.0
        best = overlap.max(axis=0) if len(boxes) else None
        for anchor, logits, deltas in zip(
            range(len(method.grid)), outputs["class_logits"][index], outputs["box_deltas"][index], strict=True
        ):
            row = overlap[anchor]
            kept = [n for n in range(len(boxes)) if best[n] > 0 and row[n] >= best[n] - 1e-5]
            owner = max(kept, key=lambda n: row[n]) if kept else (int(row.argmax()) if len(boxes) else -1)
            iou = row[owner] if owner >= 0 else 0.0
            positive = bool(kept) or iou >= 0.5
            if not positive and iou >= 0.4:
                continue
            chance = 1 / (1 + np.exp(-logits.astype(np.float64)))
            wanted = np.array([positive and classes[owner] == k for k in range(2)])
            total += np.where(
                wanted, -0.25 * (1 - chance) ** 2 * np.log(chance), -0.75 * chance**2 * np.log(1 - chance)
            ).sum()
            if positive:
                positives += 1
                a, b = method.grid.boxes[anchor], boxes[owner]
                sizes, own = a[2:] - a[:2], b[2:] - b[:2]
                target = np.concatenate([((b[:2] + b[2:]) - (a[:2] + a[2:])) / 2 / sizes, np.log(own / sizes)])
                off = np.abs(target - deltas)
                distance += np.where(off < 0.11, off**2 / 0.22, off - 0.055).sum()
        found.append((total / max(positives, 1), distance / max(positives, 1)))
    return np.array(found)


def test_losses_equal_a_loop_over_anchors(model):
    _, targets = batch(model)
    rng = np.random.default_rng(1)
    count = len(model.task.method.grid)
    outputs = {
        "class_logits": rng.normal(-1, 1, (3, count, 2)).astype(np.float32),
        "box_deltas": rng.normal(0, 0.3, (3, count, 4)).astype(np.float32),
    }
    losses = model.task.method.losses(targets, outputs)
    made = np.stack([keras.ops.convert_to_numpy(losses[name]) for name in ("class_loss", "box_loss")], axis=-1)
    np.testing.assert_allclose(made, brute_force(model, targets, outputs), rtol=2e-4, atol=1e-5)
    assert made[2, 1] == 0


def test_weights_of_images(model):
    images, targets = batch(model)
    outputs = model(images, training=False)
    parts = [keras.ops.convert_to_numpy(v) for v in model.task.method.losses(targets, outputs).values()]
    weighted = model.task.loss(targets, outputs, np.float32([2, 0, 1]))
    for part, value in zip(parts, weighted.values(), strict=True):
        assert float(value) == pytest.approx((2 * part[0] + part[2]) / 3, rel=1e-5)


def test_decoded_boxes_are_shares_of_the_image(model):
    images, _ = batch(model)
    predictions = {name: np.asarray(v) for name, v in model.task.decode(model(images, training=False)).items()}
    assert predictions["boxes"].shape == (3, 100, 4) and predictions["count"].shape == (3,)
    assert (predictions["boxes"] >= 0).all() and (predictions["boxes"] <= 1).all()
    anchor = model.task.method.grid.boxes[700]
    logits = np.full((1, len(model.task.method.grid), 2), -9, np.float32)
    logits[0, 700, 1] = 4
    outputs = {"box_deltas": np.zeros((1, len(model.task.method.grid), 4), np.float32), "class_logits": logits}
    found = {name: np.asarray(value) for name, value in model.task.decode(outputs).items()}
    assert found["count"][0] == 1 and found["classes"][0, 0] == 1
    assert found["scores"][0, 0] == pytest.approx(1 / (1 + np.exp(-4)), rel=1e-5)
    shares = np.clip(anchor / [SIZE[1], SIZE[0], SIZE[1], SIZE[0]], 0, 1)
    np.testing.assert_allclose(found["boxes"][0, 0], shares, atol=1e-6)
    true = {
        "boxes": (shares * [SIZE[1], SIZE[0], SIZE[1], SIZE[0]])[None, None].astype(np.float32),
        "classes": np.array([[1]]),
        "valid": np.array([[True]]),
    }
    assert model.task.metrics(true, found)["AP"] == 1


def test_fit_and_save(model, tmp_path):
    images, targets = batch(model)
    model.compile("adam")
    history = model.fit(images, targets, epochs=3, verbose=0).history
    assert set(history) == {"loss", "class_loss", "box_loss"}
    assert history["loss"][-1] < history["loss"][0]
    assert np.isfinite(model.evaluate(images, targets, verbose=0, return_dict=True)["loss"])
    model.save(tmp_path / "m.keras")
    again = keras.saving.load_model(tmp_path / "m.keras")
    assert again.task.get_config() == model.task.get_config()
    for name, values in model(images, training=False).items():
        np.testing.assert_array_equal(values, again(images, training=False)[name])


def test_odd_targets_train(model):
    images, targets = batch(model)
    odd = targets["boxes"].copy()
    odd[0] = [[5, 5, 5, 5], [np.nan, 0, 1, 1], [-50, -50, -10, -10], [0, 0, 1e6, 1e6]]
    for changed in (
        {**targets, "boxes": odd},
        {**targets, "valid": np.zeros((3, 4), bool)},
        {name: values[:, :1] for name, values in targets.items()},
        {**targets, "crowd": np.ones((3, 4), bool)},
        {name: np.repeat(values, 125, axis=1) for name, values in targets.items()},
    ):
        losses = model.task.loss(changed, model(images, training=False))
        assert all(np.isfinite(value) for value in losses.values())
    assert float(model.task.loss({**targets, "valid": np.zeros((3, 4), bool)}, model(images))["box_loss"]) == 0


def test_task_settings(model):
    images, _ = batch(model)
    outputs = model(images, training=False)
    config = DetectionTask(
        labels=["a"], suppression="matrix", iou=0.3, sigma=0.7, least_score=0.2, detections=7, candidates=20
    ).get_config()
    assert DetectionTask(**config).get_config() == config
    for suppression in ("hard", "soft", "soft_linear", "matrix"):
        task = DetectionTask(num_classes=2, image_size=SIZE, suppression=suppression, detections=7)
        task.bind(model.task.method)
        assert task.decode(outputs)["boxes"].shape == (3, 7, 4)
    with pytest.raises(ValueError, match="suppression must be one of"):
        DetectionTask(num_classes=2, suppression="best")
    with pytest.raises(ValueError, match="belongs to no net"):
        DetectionTask(num_classes=2).decode(outputs)
    with pytest.raises(ValueError, match="at least one class"):
        DetectionTask(labels=[])


def test_focal_loss():
    rng = np.random.default_rng(0)
    wanted, logits = rng.integers(0, 2, 50).astype(np.float32), rng.normal(0, 5, 50).astype(np.float32)
    chance = 1 / (1 + np.exp(-logits.astype(np.float64)))
    plain = -np.where(wanted, np.log(chance), np.log1p(-chance))
    np.testing.assert_allclose(sigmoid_cross_entropy(wanted, logits), plain, rtol=1e-4, atol=1e-6)
    np.testing.assert_allclose(focal_loss(wanted, logits, 0.5, 0.0), plain / 2, rtol=1e-4, atol=1e-6)
    assert np.isfinite(focal_loss(np.float32([0, 1]), np.float32([1e4, -1e4]))).all()


def test_backbones():
    with pytest.raises(kv.registry.UnknownNameError, match="mobilenet_v2"):
        kv.create_model("retinanet", num_classes=2, backbone="mobilenet_v22")
    with pytest.raises(TypeError, match="alpha"):
        kv.create_model("retinanet", num_classes=2, backbone="mobilenet_v2", backbone_arguments={"alfa": 1})
    with pytest.raises(kv.registry.WeightsError, match='no weights "coco"'):
        kv.create_model("retinanet", num_classes=2, backbone="efficientnet_lite0", weights="coco")


def test_a_place_gives_its_best_anchor_of_each_class_to_the_suppression():
    method = FocalAnchors(retinanet_grid((64, 64)), 2)
    logits = np.random.default_rng(0).normal(size=(2, len(method.grid), 2)).astype(np.float32)
    deltas = np.zeros((2, len(method.grid), 4), np.float32)
    scores = np.asarray(method.candidates({"class_logits": logits, "box_deltas": deltas})[1])
    all_scores = (1 / (1 + np.exp(-logits))).reshape(2, -1, 9, 2)
    best = all_scores == all_scores.max(axis=2, keepdims=True)
    np.testing.assert_allclose(scores, np.where(best, all_scores, 0).reshape(scores.shape), rtol=1e-6)


def test_many_rivals_of_one_object_leave_room_for_another():
    """A clear object that thousands of anchors find, and a faint one that is found by one."""
    task, grid = DetectionTask(num_classes=1, image_size=(128, 128)), retinanet_grid((128, 128))
    task.bind(FocalAnchors(grid, 1))
    overlap = pairwise_iou(grid.boxes.astype(float), np.float64([[10, 10, 42, 42], [96, 96, 128, 128]]))
    logits = np.where(overlap[:, 0] > 0.05, 2 + overlap[:, 0], -9.0)
    logits[overlap[:, 1].argmax()] = -3
    outputs = {"class_logits": logits[None, :, None], "box_deltas": np.zeros((1, len(grid), 4))}
    assert (logits > 0).sum() > task.candidates
    found = task.decode({name: values.astype(np.float32) for name, values in outputs.items()})
    boxes, scores = (np.asarray(found[name])[0] for name in ("boxes", "scores"))
    assert pairwise_iou(boxes[scores > 0] * 128.0, np.float64([[96, 96, 128, 128]])).max() > 0.6
