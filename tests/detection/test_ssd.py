"""SSD: published counts, mining and loss one box at a time, the weights of VGG, and what every detector does."""

import keras
import numpy as np
import pytest
from detection import contract
from keras import layers, ops

import kerasvision as kv
from kerasvision.backbones import vgg
from kerasvision.boxes.grid import make_grid
from kerasvision.boxes.overlap import pairwise_iou
from kerasvision.detection.ssd import LEAST_NEGATIVES, MultiBox, hardest
from kerasvision.errors import UnknownNameError

CLASSES = 3
SMALL = {
    **contract.TINY,
    "levels": ["P3", "P4", "P5"],
    "extra_filters": [32],
    "scales": [0.2, 0.35, 0.5, 0.7, 0.9],
    "num_classes": len(contract.COLOURS),
    "input_shape": (64, 64, 3),
}


@pytest.fixture(scope="module")
def model():
    keras.utils.set_random_seed(0)
    return kv.create_model("ssdlite", **SMALL)


@pytest.mark.parametrize(
    ("name", "boxes", "parameters"), [("ssd300", 8732, 26_285_486), ("ssd512", 24_564, 27_188_676)]
)
def test_published_counts(name, boxes, parameters):
    model = kv.create_model(name, num_classes=20)
    assert model.count_params() == parameters
    assert {key: tensor.shape[1:] for key, tensor in model.output.items()} == {
        "box_deltas": (boxes, 4),
        "class_logits": (boxes, 21),
    }
    grid = model.task.method.grid
    cells = [model.get_layer(layer).output.shape[1:3] for layer in model.taps.values()]
    each = [4, *[6] * (len(cells) - 3), 4, 4]
    assert len(grid) == boxes == sum(rows * columns * count for (rows, columns), count in zip(cells, each, strict=True))


def test_ssd512_has_the_parameters_of_its_layers():
    """What SSD300 has, without two of its levels and its head, and three other levels and a larger head."""

    def level(inside, middle, outside, size):
        return inside * middle + middle + size * size * middle * outside + outside

    def head(widths, anchors):
        return sum((9 * width + 1) * count * 25 for width, count in zip(widths, anchors, strict=True))

    shared = 26_285_486 - 2 * level(256, 128, 256, 3) - head((512, 1024, 512, 256, 256, 256), (4, 6, 6, 6, 4, 4))
    own = 2 * level(256, 128, 256, 3) + level(256, 128, 256, 4)
    assert shared + own + head((512, 1024, 512, *[256] * 4), (4, 6, 6, 6, 6, 4, 4)) == 27_188_676


def test_ssd_on_images_of_another_size_or_another_net():
    with pytest.raises(ValueError, match=r'SSD300 takes images of 300x300 pixels, got 64x64.*"ssdlite"'):
        kv.create_model("ssd300", num_classes=2, input_shape=(64, 64, 3))
    with pytest.raises(UnknownNameError, match='not on "resnet50". Known: vgg16, vgg19. "ssdlite" takes any'):
        kv.create_model("ssd300", num_classes=2, backbone="resnet50")


def slim_vgg(include_top, weights, input_shape):
    """VGG-16 of four channels."""
    x = image = keras.Input(input_shape)
    for block, depth in enumerate((2, 2, 3, 3, 3), 1):
        for index in range(depth):
            x = layers.Conv2D(4, 3, padding="same", activation="relu", name=f"block{block}_conv{index + 1}")(x)
        x = layers.MaxPooling2D(2, name=f"block{block}_pool")(x)
    if include_top:
        x = layers.Flatten(name="flatten")(x)
        for name in ("fc1", "fc2"):
            x = layers.Dense(8, activation="relu", bias_initializer="normal", name=name)(x)
    slim_vgg.made = keras.Model(image, x)
    return slim_vgg.made


def test_reduced_vgg_has_the_weights_of_the_whole(monkeypatch):
    monkeypatch.setattr(vgg, "FULLY_CONNECTED", 8)
    image = keras.Input((300, 300, 3))
    features = vgg.reduced_vgg(image, vgg.VARIANTS["vgg16"]._replace(application=slim_vgg), "imagenet")
    assert {level: x.shape[1:] for level, x in features.items()} == {"P3": (38, 38, 4), "P4": (19, 19, 2)}
    net, whole = keras.Model(image, features), slim_vgg.made
    for block, depth in enumerate((2, 2, 3, 3, 3), 1):
        for index in range(depth):
            name = f"block{block}_conv{index + 1}"
            mine, theirs = (np.array(each.get_layer(name).kernel) for each in (net, whole))
            np.testing.assert_array_equal(mine, theirs)
    kernel, bias = net.get_layer("fc6").get_weights()
    dense, shift = whole.get_layer("fc1").get_weights()
    for row, column, channel, unit in np.ndindex(3, 3, 4, 2):
        # Flatten counts row by row, column by column, then channels.
        assert kernel[row, column, channel, unit] == dense[(3 * row * 7 + 3 * column) * 4 + channel, 4 * unit]
    np.testing.assert_array_equal(bias, shift[[0, 4]])
    kernel, bias = net.get_layer("fc7").get_weights()
    dense, shift = whole.get_layer("fc2").get_weights()
    np.testing.assert_array_equal(kernel[0, 0], dense[[0, 4]][:, [0, 4]])
    np.testing.assert_array_equal(bias, shift[[0, 4]])


@pytest.mark.parametrize("steps", [3, 10_000])
def test_exactly_so_many_of_the_hardest(steps):
    """Also where most values are equal, as those of an int8 net are."""
    random = np.random.default_rng(0)
    values = (random.integers(0, steps, (6, 200)) / steps).astype(np.float32)
    allowed = random.random((6, 200)) < 0.7
    count = np.array([0, 1, 3, 50, 130, 1000])
    chosen = np.asarray(hardest(values, allowed, count))
    for row in range(6):
        assert not (chosen[row] & ~allowed[row]).any()
        assert chosen[row].sum() == min(count[row], allowed[row].sum())
        left = values[row][allowed[row] & ~chosen[row]]
        assert not chosen[row].any() or not len(left) or values[row][chosen[row]].min() >= left.max()


def reference(grid, boxes, classes, valid, crowd, deltas, logits):
    """(class loss, box loss) of one image, one box at a time."""
    anchors = grid.boxes.astype(float)
    real = [
        i for i in range(len(boxes)) if valid[i] and np.isfinite(boxes[i]).all() and (boxes[i, 2:] > boxes[i, :2]).all()
    ]
    objects = [i for i in real if not crowd[i]]
    owner = {}
    overlap = {i: pairwise_iou(boxes[i : i + 1].astype(float), anchors)[0] for i in objects}
    for a in range(len(anchors)):
        best = max(objects, key=lambda i: overlap[i][a], default=None)
        if best is not None and overlap[best][a] >= 0.5:
            owner[a] = best
    for i in objects:
        owner[int(np.argmax(overlap[i]))] = i
    ignored = set()
    for i in set(real) - set(objects):
        for a, (x0, y0, x1, y1) in enumerate(anchors):
            width, height = min(x1, boxes[i, 2]) - max(x0, boxes[i, 0]), min(y1, boxes[i, 3]) - max(y0, boxes[i, 1])
            if max(width, 0) * max(height, 0) >= (x1 - x0) * (y1 - y0) / 2:
                ignored.add(a)
    shares = np.exp(logits.astype(float))
    shares /= shares.sum(-1, keepdims=True)
    hard = sorted(-np.log(shares[a, -1]) for a in range(len(anchors)) if a not in owner and a not in ignored)[::-1]
    entropy = sum(hard[: max(3 * len(owner), LEAST_NEGATIVES)])
    distance = 0.0
    for a, i in owner.items():
        entropy -= np.log(shares[a, classes[i]])
        size, own = anchors[a, 2:] - anchors[a, :2], boxes[i, 2:] - boxes[i, :2]
        middle = (boxes[i, 2:] + boxes[i, :2] - anchors[a, 2:] - anchors[a, :2]) / 2
        wanted = np.concatenate([middle / size / 0.1, np.log(own / size) / 0.2])
        for gap in np.abs(wanted - deltas[a]):
            distance += gap - 0.5 if gap >= 1 else gap**2 / 2
    return entropy / max(len(owner), 1), distance / max(len(owner), 1)


def scene(seed=0, images=6, slots=5):
    random = np.random.default_rng(seed)
    grid = make_grid([(8, 8), (4, 4)], [8, 16], [[(9, 9), (18, 9)], [(22, 22), (20, 40)]])
    low = random.uniform(0, 44, (images, slots, 2))
    targets = {
        "boxes": np.concatenate([low, low + random.uniform(5, 30, (images, slots, 2))], axis=-1).astype(np.float32),
        "classes": random.integers(0, CLASSES, (images, slots)).astype(np.int32),
        "valid": random.random((images, slots)) < 0.7,
        "crowd": random.random((images, slots)) < 0.25,
    }
    targets["valid"][0] = False
    targets["boxes"][1, 0, 2] = np.nan
    targets["boxes"][2, 0, 2:] = targets["boxes"][2, 0, :2]
    targets["valid"][1:3, 0] = True
    outputs = {
        "box_deltas": random.normal(size=(images, len(grid), 4)).astype(np.float32),
        "class_logits": random.normal(size=(images, len(grid), CLASSES + 1)).astype(np.float32) * 2,
    }
    return grid, targets, outputs


@pytest.mark.parametrize("seed", range(3))
def test_losses_are_those_of_one_box_at_a_time(seed):
    grid, targets, outputs = scene(seed)
    losses = MultiBox(grid, CLASSES).losses(targets, outputs)
    arrays = zip(*targets.values(), *outputs.values(), strict=True)
    expected = np.array([reference(grid, *each) for each in arrays])
    assert expected[0, 0] > 0 and expected[0, 1] == 0 and (expected[1:] > 0).any()
    np.testing.assert_allclose(losses["class_loss"], expected[:, 0], rtol=1e-4)
    np.testing.assert_allclose(losses["box_loss"], expected[:, 1], rtol=1e-4, atol=1e-6)


def test_gradient_reaches_three_negatives_a_positive_and_nothing_in_a_crowd():
    import tensorflow as tf

    grid, targets, outputs = scene()
    logits = tf.constant(outputs["class_logits"])
    with tf.GradientTape() as tape:
        tape.watch(logits)
        losses = MultiBox(grid, CLASSES).losses(targets, {**outputs, "class_logits": logits})
        total = ops.sum(losses["class_loss"])
    touched = (np.abs(tape.gradient(total, logits)) > 0).any(-1).sum(axis=1)
    assert touched[0] == LEAST_NEGATIVES
    assert (touched[1:] % 4 == 0).all() and (touched[1:] > 0).any()
    everywhere = {**targets, "boxes": np.full_like(targets["boxes"], 0), "crowd": np.ones_like(targets["crowd"])}
    everywhere["boxes"][..., 2:] = 64
    everywhere["valid"] = np.ones_like(targets["valid"])
    inside = (grid.boxes[:, :2] + grid.boxes[:, 2:]) / 2
    assert ((inside > 0) & (inside < 64)).all()
    with tf.GradientTape() as tape:
        tape.watch(logits)
        total = ops.sum(MultiBox(grid, CLASSES).losses(everywhere, {**outputs, "class_logits": logits})["class_loss"])
    corners = np.minimum(grid.boxes, 64).clip(0)
    shares = np.prod(corners[:, 2:] - corners[:, :2], -1) / np.prod(grid.boxes[:, 2:] - grid.boxes[:, :2], -1)
    touched = (np.abs(tape.gradient(total, logits)) > 0).any(-1)
    assert not touched[:, shares >= 0.5].any()


def test_candidates_leave_the_background_out():
    grid, _, outputs = scene()
    outputs["box_deltas"][:] = 0
    outputs["class_logits"][:] = np.log([0.1, 0.2, 0.3, 0.4])
    boxes_of, scores = MultiBox(grid, CLASSES).candidates(outputs)
    np.testing.assert_allclose(scores, np.broadcast_to([0.1, 0.2, 0.3, 0], scores.shape), rtol=1e-5)
    some = np.array([[5, 0, 5], [1, 2, 3]])[: len(scores)]
    np.testing.assert_allclose(boxes_of(some), grid.boxes[some], atol=1e-4)


def test_ssdlite_on_a_phone_backbone():
    model = kv.create_model("ssdlite", num_classes=90)
    assert model.output["class_logits"].shape[1:] == (3234, 91)
    assert model.count_params() == 3_197_020
    assert list(model.taps)[-6:] == ["P4", "P5", "P6", "P7", "P8", "P9"]


@pytest.mark.parametrize("shape", [(20, 33, 3), (97, 64, 1), (130, 200, 3)])
def test_boxes_follow_the_maps_of_any_image(shape):
    model = kv.create_model("ssdlite", **{**SMALL, "input_shape": shape, "ratios": [2]})
    grid = model.task.method.grid
    assert model.output["box_deltas"].shape[1:] == grid.boxes.shape
    rows, columns = model.get_layer(model.taps["P3"]).output.shape[1:3]
    cells = grid.centers[: rows * columns * 4].reshape(rows, columns, 4, 2)
    # Equal cells, from edge to edge.
    np.testing.assert_allclose(cells[0, 0, 0] * 2, [shape[1] / columns, shape[0] / rows], rtol=1e-4)
    np.testing.assert_allclose(cells[0, 0] + cells[-1, -1], np.tile([[shape[1], shape[0]]], (4, 1)), rtol=1e-4)
    sides = grid.boxes[0, 2:] - grid.boxes[0, :2]
    np.testing.assert_allclose(sides, 0.2 * min(shape[:2]), rtol=1e-4)


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        ({"scales": [0.1, 0.5]}, "Expected 5 scales for 4 levels, got 2"),
        ({"loss": "hinge"}, 'loss must be "softmax" or "focal"'),
        ({"levels": ["P7"]}, "Expected features of the levels P7"),
    ],
)
def test_wrong_arguments(arguments, message):
    with pytest.raises(ValueError, match=message):
        kv.create_model("ssdlite", **{**SMALL, **arguments})


def test_focal_loss_has_no_background():
    model = kv.create_model("ssdlite", **SMALL, loss="focal")
    images, targets = contract.rectangles()
    outputs = model(images)
    assert outputs["class_logits"].shape[-1] == 2
    # The prior of a fresh net, and with it a loss that does not explode.
    assert np.median(ops.sigmoid(outputs["class_logits"])) == pytest.approx(0.01, rel=0.3)
    assert model.task.loss(targets, outputs)["class_loss"] < 5


def test_odd_targets(model):
    contract.check_odd_targets(model)


def test_saves(model, tmp_path):
    contract.check_saves(model, tmp_path / "ssd.keras")


def test_jax(model, tmp_path):
    contract.check_jax(model, tmp_path)


def test_learns_and_quantizes(model):
    assert contract.learn(model, 18) > 0.5
    contract.check_quantizes(model)
