import numpy as np
import pytest
from keras import ops

from kerasvision.classification import ClassificationTask

RNG = np.random.default_rng(3)
LOGITS = RNG.normal(size=(6, 4)).astype("float32") * 3
LABEL = np.array([0, 1, 2, 3, 0, 1])
LABELS = RNG.integers(0, 2, (6, 4))


def softmax(x):
    e = np.exp(x - x.max(axis=-1, keepdims=True))
    return e / e.sum(axis=-1, keepdims=True)


def sigmoid(x):
    return 1 / (1 + np.exp(-x))


@pytest.mark.parametrize("smoothing", [0.0, 0.2])
def test_crossentropy_with_smoothing_is_the_formula(smoothing):
    task = ClassificationTask(4, label_smoothing=smoothing)
    wanted = np.eye(4)[LABEL] * (1 - smoothing) + smoothing / 4
    expected = -(wanted * np.log(softmax(LOGITS))).sum(axis=1).mean()
    assert float(task.loss({"label": LABEL}, {"logits": LOGITS})["crossentropy"]) == pytest.approx(expected, rel=1e-5)


@pytest.mark.parametrize("smoothing", [0.0, 0.2])
def test_multi_label_is_independent_sigmoids(smoothing):
    task = ClassificationTask(4, multi_label=True, label_smoothing=smoothing)
    wanted = LABELS * (1 - smoothing) + smoothing / 2
    p = sigmoid(LOGITS.astype("float64"))
    expected = -(wanted * np.log(p) + (1 - wanted) * np.log(1 - p)).mean()
    assert float(task.loss({"labels": LABELS}, {"logits": LOGITS})["crossentropy"]) == pytest.approx(expected, rel=1e-5)


def test_focal_is_the_formula():
    p = softmax(LOGITS.astype("float64"))[np.arange(6), LABEL]
    expected = (-0.25 * (1 - p) ** 2 * np.log(p)).mean()
    task = ClassificationTask(4, loss="focal")
    assert float(task.loss({"label": LABEL}, {"logits": LOGITS})["focal"]) == pytest.approx(expected, rel=1e-4)


def test_multi_label_focal_is_the_formula():
    p = sigmoid(LOGITS.astype("float64"))
    pt = np.where(LABELS == 1, p, 1 - p)
    alpha = np.where(LABELS == 1, 0.25, 0.75)
    expected = (-alpha * (1 - pt) ** 2 * np.log(pt)).mean()
    task = ClassificationTask(4, loss="focal", multi_label=True)
    assert float(task.loss({"labels": LABELS}, {"logits": LOGITS})["focal"]) == pytest.approx(expected, rel=1e-4)


def test_sample_weight():
    task = ClassificationTask(4)
    weight = np.array([0, 0, 0, 0, 0, 6.0])
    alone = task.loss({"label": LABEL[5:]}, {"logits": LOGITS[5:]})["crossentropy"]
    weighted = task.loss({"label": LABEL}, {"logits": LOGITS}, weight)["crossentropy"]
    assert float(weighted) == pytest.approx(float(alone), rel=1e-5)


def test_decode():
    np.testing.assert_allclose(
        ops.convert_to_numpy(ClassificationTask(4).decode({"logits": LOGITS})["scores"]), softmax(LOGITS), rtol=1e-5
    )
    many = ClassificationTask(4, multi_label=True)
    np.testing.assert_allclose(
        ops.convert_to_numpy(many.decode({"logits": LOGITS})["scores"]), sigmoid(LOGITS), rtol=1e-5
    )


def test_monitors():
    right = np.mean(LOGITS.argmax(axis=1) == LABEL)
    assert float(ClassificationTask(4).monitors({"label": LABEL}, {"logits": LOGITS})["accuracy"]) == pytest.approx(
        right
    )
    many = ClassificationTask(4, multi_label=True).monitors({"labels": LABELS}, {"logits": LOGITS})
    assert float(many["accuracy"]) == pytest.approx(np.mean((LOGITS > 0) == LABELS))


@pytest.mark.parametrize(
    "arguments, message",
    [
        ({}, "Give num_classes"),
        ({"num_classes": 1}, "at least two"),
        ({"num_classes": 3, "labels": ["a", "b"]}, "num_classes is 3 but 2 labels"),
        ({"num_classes": 3, "label_smoothing": 1.0}, "label_smoothing"),
        ({"num_classes": 3, "loss": "hinge"}, '"crossentropy" or "focal"'),
    ],
)
def test_wrong_arguments(arguments, message):
    with pytest.raises(ValueError, match=message):
        ClassificationTask(**arguments)


def test_config_round_trip():
    task = ClassificationTask(labels=["x", "y"], multi_label=True, label_smoothing=0.3, loss="focal")
    assert ClassificationTask(**task.get_config()).get_config() == task.get_config()
