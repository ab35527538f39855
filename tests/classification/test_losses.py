"""Losses for classes of unequal size, against their papers' formulas in NumPy."""

import keras
import numpy as np
import pytest

import kerasvision as kv
from kerasvision.classification import ClassificationTask, losses

RNG = np.random.default_rng(5)
LOGITS = RNG.normal(size=(6, 3)).astype("float32") * 2
LABEL = np.array([0, 1, 2, 0, 0, 1])
COUNTS = [500, 20, 3]
MIXED = RNG.dirichlet([1, 1, 1], 6).astype("float32")
ARGUMENTS = {
    "crossentropy": {},
    "focal": {},
    "class_balanced": {"class_counts": COUNTS, "beta": 0.99},
    "ldam": {"class_counts": COUNTS},
}


def log_softmax(x):
    return x - x.max(-1, keepdims=True) - np.log(np.exp(x - x.max(-1, keepdims=True)).sum(-1, keepdims=True))


def loss(task, targets, logits=LOGITS, weight=None):
    return float(task.loss(targets, {"logits": logits}, weight)[task.loss_name])


def test_effective_number_is_a_geometric_sum():
    expected = [sum(0.9**power for power in range(count)) for count in COUNTS]
    np.testing.assert_allclose(losses.effective_number(COUNTS, 0.9), expected)
    np.testing.assert_allclose(losses.effective_number(COUNTS, 0.0), [1, 1, 1])
    np.testing.assert_allclose(losses.effective_number(COUNTS, 1 - 1e-12), COUNTS, rtol=1e-6)


@pytest.mark.parametrize(("counts", "beta"), [([3, 1], 1.0), ([3, 1], -0.1), ([3, -1], 0.9), ([0, 0], 0.9), ([], 0.9)])
def test_impossible_counts(counts, beta):
    with pytest.raises(ValueError, match=r"beta must|number of images of each class"):
        losses.effective_number(counts, beta)


def test_class_weights_sum_to_the_number_of_classes():
    weights = losses.class_balanced_weights(COUNTS, 0.99)
    inverse = (1 - 0.99) / (1 - 0.99 ** np.array(COUNTS, float))
    np.testing.assert_allclose(weights, inverse / inverse.sum() * 3, rtol=1e-6)
    np.testing.assert_allclose(losses.class_balanced_weights([7, 0, 7]), [1, 0, 1])


@pytest.mark.parametrize("smoothing", [0.0, 0.1])
def test_class_balanced_is_the_formula(smoothing):
    task = ClassificationTask(3, loss="class_balanced", class_counts=COUNTS, beta=0.99, label_smoothing=smoothing)
    weights = losses.class_balanced_weights(COUNTS, 0.99)[LABEL]
    wanted = np.eye(3)[LABEL] * (1 - smoothing) + smoothing / 3
    expected = np.mean(-(wanted * log_softmax(LOGITS)).sum(-1) * weights)
    assert loss(task, {"label": LABEL}) == pytest.approx(expected, rel=1e-5)


@pytest.mark.parametrize("reweight", [False, True])
def test_ldam_is_the_authors_code(reweight):
    """What they compute from cosines, for the cosines that are our logits / 30."""
    task = ClassificationTask(3, loss="ldam", class_counts=COUNTS, reweight=reweight)
    margins = 1 / np.sqrt(np.sqrt(COUNTS))
    margins = margins * (0.5 / margins.max())
    cosines = LOGITS.astype("float64") / 30
    cosines[np.arange(6), LABEL] -= margins[LABEL]
    values = -log_softmax(30 * cosines)[np.arange(6), LABEL]
    if reweight:
        values = values * losses.class_balanced_weights(COUNTS)[LABEL]
    assert loss(task, {"label": LABEL}) == pytest.approx(values.mean(), rel=1e-5)


@pytest.mark.parametrize("name", ARGUMENTS)
def test_mixed_labels_replace_the_label(name):
    task = ClassificationTask(3, loss=name, **ARGUMENTS[name])
    sharp = np.eye(3, dtype="float32")[LABEL]
    plain = loss(task, {"label": LABEL})
    other = {"label": np.zeros(6, int)}  # What "label_weights" stand beside does not count.
    assert loss(task, {**other, "label_weights": sharp}) == pytest.approx(plain, rel=1e-6)
    assert loss(task, {**other, "label_weights": MIXED}) != pytest.approx(plain, rel=1e-2)
    assert float(task.monitors({"label": LABEL, "label_weights": MIXED}, {"logits": sharp})["accuracy"]) == 1


def test_mixed_labels_in_crossentropy_are_the_mixture_of_losses():
    task = ClassificationTask(3)
    each = [loss(task, {"label": LABEL, "label_weights": np.tile(row, (6, 1))}) for row in np.eye(3, dtype="float32")]
    share = np.array([0.2, 0.5, 0.3], "float32")
    mixed = loss(task, {"label": LABEL, "label_weights": np.tile(share, (6, 1))})
    assert mixed == pytest.approx(float(share @ each), rel=1e-5)


def test_accuracy_of_mixed_sets_of_labels_counts_what_is_mostly_there():
    task = ClassificationTask(2, multi_label=True)
    shares = np.array([[0.7, 0.2]], "float32")
    assert float(task.monitors({"labels": shares}, {"logits": np.array([[1.0, -1.0]])})["accuracy"]) == 1


@pytest.mark.parametrize("name", ["class_balanced", "ldam"])
def test_sample_weights_multiply(name):
    task = ClassificationTask(3, loss=name, **ARGUMENTS[name])
    alone = loss(task, {"label": LABEL[5:]}, LOGITS[5:])
    assert loss(task, {"label": LABEL}, weight=np.array([0, 0, 0, 0, 0, 6.0])) == pytest.approx(alone, rel=1e-5)


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        ({"loss": "ldam"}, "expects the 3 numbers of training images, got class_counts=None"),
        ({"loss": "class_balanced", "class_counts": [1, 2]}, "the 3 numbers"),
        ({"loss": "class_balanced", "class_counts": []}, "the 3 numbers"),
        ({"loss": "focal", "class_counts": COUNTS}, "expects no class_counts"),
        ({"loss": "ldam", "class_counts": COUNTS, "multi_label": True}, "one label an image"),
        ({"loss": "focal", "reweight": True}, 'reweight is for loss="ldam"'),
        ({"loss": "ldam", "class_counts": COUNTS, "beta": 1.0}, "beta must lie"),
    ],
)
def test_wrong_arguments(arguments, message):
    with pytest.raises(ValueError, match=message):
        ClassificationTask(3, **arguments)


def test_config_round_trip():
    task = ClassificationTask(3, loss="ldam", class_counts=np.array(COUNTS), beta=0.9, reweight=True)
    again = ClassificationTask(**task.get_config())
    assert again.get_config() == task.get_config()
    assert loss(again, {"label": LABEL}) == loss(task, {"label": LABEL})


def small(name, **arguments):
    keras.utils.set_random_seed(0)
    return kv.create_model(
        "small_cnn", num_classes=3, input_shape=(8, 8, 1), filters=[4], loss=name, **ARGUMENTS[name], **arguments
    )


@pytest.mark.parametrize("name", ["class_balanced", "ldam"])
def test_trains_saves_and_trains_as_a_twin(name, tmp_path):
    images = RNG.integers(0, 256, (6, 8, 8, 1)).astype("float32")
    model = small(name)
    model.compile(keras.optimizers.SGD(1e-2))
    model.fit(images, {"label": LABEL, "label_weights": MIXED}, epochs=1, verbose=0)
    model.save(tmp_path / "model.keras")
    again = keras.saving.load_model(tmp_path / "model.keras")
    assert again.task.get_config() == model.task.get_config()
    twin = kv.quantize(again)
    twin.compile("sgd", learning_rate=1e-3)
    history = twin.fit(images, {"label": LABEL, "label_weights": MIXED}, epochs=2, batch_size=6, verbose=0).history
    expected = loss(again.task, {"label": LABEL, "label_weights": MIXED}, again(images)["logits"])
    assert history[name][0] == pytest.approx(expected, rel=0.2)  # Eight bits, and batch statistics.


def test_weights_come_at_their_epoch():
    images = RNG.integers(0, 256, (6, 8, 8, 1)).astype("float32")
    model = small("ldam", dropout=0.0)
    for layer in model.layers[:-1]:
        layer.trainable = False  # Batch statistics, most of all.
    model.compile(keras.optimizers.SGD(0.0))
    given = {"x": images, "y": {"label": LABEL}, "batch_size": 6, "verbose": 0}
    given["validation_data"] = (images, {"label": LABEL})
    history = model.fit(**given, epochs=3, callbacks=[losses.DeferredReweighting(2)]).history
    logits = model(images)["logits"]
    expected = [
        loss(ClassificationTask(3, loss="ldam", class_counts=COUNTS, reweight=reweight), {"label": LABEL}, logits)
        for reweight in (False, False, True)
    ]
    assert history["ldam"] == pytest.approx(expected, rel=1e-4)
    assert history["val_ldam"] == pytest.approx(expected, rel=1e-4)
    again = model.fit(**given, callbacks=[losses.DeferredReweighting(1)]).history
    assert again["ldam"] == pytest.approx(expected[:1], rel=1e-4)


def test_deferred_weights_are_for_ldam():
    model = small("crossentropy")
    model.compile("sgd")
    callback = losses.DeferredReweighting(0)
    with pytest.raises(ValueError, match='this model has loss="crossentropy"'):
        model.fit(np.zeros((2, 8, 8, 1)), {"label": np.zeros(2)}, verbose=0, callbacks=[callback])
    with pytest.raises(ValueError, match="from 0, got -1"):
        losses.DeferredReweighting(-1)
