"""Weights, sampling and resampling for classes of unequal size."""

import sys

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from kerasvision.classification.losses import effective_number
from kerasvision.data.arrays import load_arrays
from kerasvision.data.balance import class_weights, pixel_weights, repeats, resample, sampler
from kerasvision.errors import DataError

LABEL = np.repeat([0, 1, 2], [900, 90, 10])
SINGLE = ["balanced", "square_root", "effective_number", "over", "under", "repeat_factor"]


def of_class(indices, label=LABEL):
    return np.bincount(label[indices], minlength=3)


def test_balanced_weights_are_one_on_average():
    weights = class_weights(LABEL, ["a", "b", "c", "never"], "balanced")
    np.testing.assert_allclose(weights, [1000 / 2700, 1000 / 270, 1000 / 30, 0], rtol=1e-6)
    assert weights[LABEL].mean() == pytest.approx(1)


def test_effective_number_weights():
    weights = class_weights(LABEL, ["a", "b", "c", "never"], "effective_number")
    numbers = effective_number([900, 90, 10])
    np.testing.assert_allclose(weights[:3] / weights[0], numbers[0] / numbers, rtol=1e-5)
    assert weights[3] == 0
    assert weights[LABEL].mean() == pytest.approx(1)


def test_costs_are_taken_as_they_are():
    np.testing.assert_array_equal(class_weights(LABEL, ["a", "b", "c"], {"c": 20, "a": 0.5}), [0.5, 1, 20])


# Three images of 100 pixels, some of them void; the second class is in the last one alone, the third in none.
PIXELS = np.array([[100, 0, 0, 0], [60, 0, 0, 20], [50, 10, 0, 40]])


def test_median_frequency_weights_of_pixels():
    """The median over the frequency, which counts only images that show the class; up to the factor that makes 1."""
    weights = pixel_weights(PIXELS, ["a", "b", "never", "c"], "balanced")
    frequencies = np.array([210 / 280, 10 / 100, 60 / 180])
    published = np.median(frequencies) / frequencies
    np.testing.assert_allclose(weights[[0, 1, 3]] / weights[0], published / published[0], rtol=1e-6)
    assert weights[2] == 0
    assert (weights * PIXELS.sum(axis=0)).sum() / PIXELS.sum() == pytest.approx(1)


def test_effective_number_weights_of_pixels():
    weights = pixel_weights(PIXELS, ["a", "b", "never", "c"], "effective_number")
    numbers = effective_number([3, 1, 0, 2])[[0, 1, 3]]
    np.testing.assert_allclose(weights[[0, 1, 3]] / weights[0], numbers[0] / numbers, rtol=1e-5)
    assert weights[2] == 0
    assert (weights * PIXELS.sum(axis=0)).sum() / PIXELS.sum() == pytest.approx(1)


def test_costs_of_pixels_are_taken_as_they_are():
    np.testing.assert_array_equal(pixel_weights(PIXELS, ["a", "b", "c", "d"], {"c": 20}), [1, 1, 20, 1])
    with pytest.raises(DataError, match="Every pixel of the training images is void"):
        pixel_weights(PIXELS * 0, ["a", "b", "c", "d"], "balanced")
    with pytest.raises(DataError, match='no class weighting "median"'):
        pixel_weights(PIXELS, ["a", "b", "c", "d"], "median")


@pytest.mark.parametrize("objects", [False, True])
def test_pixels_are_counted_as_a_net_sees_them(objects):
    random = np.random.default_rng(0)
    images = [np.zeros((*random.integers(12, 40, 2), 3), np.uint8) for _ in range(5)]
    maps = [random.choice([0, 1, 2, 255], image.shape[:2]).astype(np.uint8) for image in images]
    data = load_arrays(images, segmentation=maps, names=["a", "b", "c", "never"], validation_fraction=0)
    if objects:
        data = data.with_class_maps()
    counted = data.pixel_counts("train", (16, 24))
    ((_, targets),) = data.batches("train", image_size=(16, 24), batch_size=5)
    classes = targets["segmentation"].numpy()
    np.testing.assert_array_equal(
        counted, [[(each == index).sum() for index in range(len(data.labels))] for each in classes]
    )
    assert counted.shape == (5, 4 + objects) and (counted.sum(axis=1) < 16 * 24).all()


@pytest.mark.parametrize(
    ("rule", "message"),
    [
        ({"d": 2.0}, 'cost for "d", but no such class'),
        ({"a": -1.0}, 'cost of "a" must be'),
        ({"a": float("nan")}, "got nan"),
        ("balance", 'no class weighting "balance"'),
    ],
)
def test_wrong_weights(rule, message):
    with pytest.raises(DataError, match=message):
        class_weights(LABEL, ["a", "b", "c"], rule)


def test_labels_beyond_the_classes():
    with pytest.raises(DataError, match=r"0\.\.1, got \[0, 1, 2\]"):
        class_weights(LABEL, ["a", "b"], "balanced")


@pytest.mark.parametrize(
    ("rule", "expected"),
    [
        ("balanced", np.array([1000, 1000, 1000]) / 3),
        ("square_root", np.sqrt([900, 90, 10]) * 1000 / np.sqrt([900, 90, 10]).sum()),
        ("over", [900, 900, 900]),
        ("under", [10, 10, 10]),
    ],
)
def test_classes_come_as_often_as_the_rule_says(rule, expected):
    for epoch in range(3):
        found = of_class(sampler(LABEL, rule, seed=1, epoch=epoch))
        assert np.abs(found - expected).max() < 1


def test_effective_number_lies_between_plain_and_balanced():
    found = of_class(sampler(LABEL, "effective_number", seed=1))
    shares = np.array([900, 90, 10]) / effective_number([900, 90, 10])
    assert np.abs(found - shares * 1000 / shares.sum()).max() < 1
    assert 1000 / 3 < found[0] < 900


@pytest.mark.parametrize("rule", SINGLE)
def test_every_image_comes_as_often_as_any_other_of_its_class(rule):
    wanted = repeats(LABEL, rule)
    times = np.bincount(sampler(LABEL, rule, seed=3), minlength=len(LABEL))
    assert (np.abs(times - wanted) < 1).all()


@pytest.mark.parametrize("rule", ["under", "balanced"])
def test_over_the_epochs_every_image_is_seen(rule):
    label = np.repeat([0, 1, 2], [90, 30, 10])
    seen = np.concatenate([sampler(label, rule, seed=0, epoch=epoch) for epoch in range(400)])
    expected = 400 * repeats(label, rule)  # From 44 times up.
    assert np.abs(np.bincount(seen, minlength=len(label)) - expected).max() < 5 * np.sqrt(expected.min())


def test_seed_and_epoch_fix_the_order():
    first = sampler(LABEL, "balanced", seed=1, epoch=2)
    np.testing.assert_array_equal(first, sampler(LABEL, "balanced", seed=1, epoch=2))
    for seed, epoch in [(1, 3), (2, 2), (2, 1)]:
        assert (first != sampler(LABEL, "balanced", seed=seed, epoch=epoch)).mean() > 0.5


def test_the_order_is_shuffled():
    position = np.arange(1000)
    kept = np.corrcoef(position, sampler(np.zeros(1000, int), "balanced", seed=0))[0, 1]
    assert abs(kept) < 0.15


@given(
    counts=st.lists(st.integers(0, 60), min_size=1, max_size=6).filter(any),
    rule=st.sampled_from(SINGLE),
    seed=st.integers(0, 2**31 - 1),
    epoch=st.integers(0, 1000),
)
def test_any_set_of_one_label(counts, rule, seed, epoch):
    label = np.repeat(np.arange(len(counts)), counts)
    wanted = repeats(label, rule)
    indices = sampler(label, rule, seed=seed, epoch=epoch)
    assert len(indices) == round(wanted.sum()) and wanted.sum() == pytest.approx(len(indices))
    times = np.bincount(indices, minlength=len(label))
    assert len(times) == len(label) and (np.abs(times - wanted) < 1 + 1e-6).all()
    for index in range(len(counts)):
        assert abs(times[label == index].sum() - wanted[label == index].sum()) < 1 + 1e-6


def test_repeat_factors_are_those_of_lvis():
    marks = np.zeros((100, 4))
    marks[:, 0] = 1
    marks[:4, 1] = 1
    marks[:1, 2] = 1
    wanted = repeats(marks, "repeat_factor", threshold=0.25)
    raw = np.array([5.0] + [2.5] * 3 + [1.0] * 96)  # sqrt(0.25 / 0.01), sqrt(0.25 / 0.04)
    np.testing.assert_allclose(wanted, raw * np.ceil(raw.sum()) / raw.sum())
    np.testing.assert_array_equal(wanted, repeats(marks, "repeat_factor"))  # 1 / K
    times = np.bincount(sampler(marks, "repeat_factor", seed=0), minlength=100)
    assert times[0] in (5, 6) and set(times[1:4]) <= {2, 3} and times[4:].min() == 1


def test_images_without_labels_stay_as_they_are():
    marks = np.zeros((10, 2))
    marks[0, 0] = 1
    assert np.bincount(sampler(marks, "repeat_factor", seed=0))[1:].min() == 1


@pytest.mark.parametrize(
    ("labels", "rule", "threshold", "message"),
    [
        (np.zeros(0, int), "over", None, "no images"),
        (LABEL, "blanced", None, 'Did you mean "balanced"'),
        (np.eye(3), "over", None, 'take "repeat_factor"'),
        (np.eye(3), "repeat_factor", 0.0, "above 0, got 0.0"),
    ],
)
def test_wrong_sampling(labels, rule, threshold, message):
    with pytest.raises(DataError, match=message):
        sampler(labels, rule, seed=0, threshold=threshold)


@pytest.fixture
def blobs():
    random = np.random.default_rng(0)
    label = np.repeat(np.array([0, 1], np.int32), [120, 20])
    return (random.normal(size=(140, 3)) + label[:, None]).astype("float32"), label


@pytest.fixture
def imblearn():
    return pytest.importorskip("imblearn", reason="imbalanced-learn is not installed: no SMOTE to test")


def test_smote_is_that_of_imbalanced_learn(blobs, imblearn):
    from imblearn.over_sampling import SMOTE

    features, label = resample(*blobs, method="smote", seed=4)
    expected, wanted = SMOTE(random_state=4).fit_resample(*blobs)
    np.testing.assert_array_equal(features, expected)
    np.testing.assert_array_equal(label, wanted)
    assert features.dtype == np.float32 and label.dtype == np.int32
    assert np.bincount(label).tolist() == [120, 120]


def test_smote_points_lie_between_neighbours_of_their_class(blobs, imblearn):
    features, label = resample(*blobs, method="smote", seed=1, neighbors=3)
    rare = blobs[0][blobs[1] == 1].astype("float64")
    distance = np.linalg.norm(rare[:, None] - rare, axis=-1)
    near = np.argsort(distance, axis=1)[:, 1:4]
    for point in features[140:]:
        # On the segment from one of the rare points to one of its three nearest ones.
        gaps = [
            np.linalg.norm(rare[i] - point) + np.linalg.norm(rare[j] - point) - distance[i, j]
            for i in range(len(rare))
            for j in near[i]
        ]
        assert min(gaps) < 1e-5
    assert (label[140:] == 1).all()


def tomek_pairs(features, label):
    """(i, j): of two classes, each the nearest of the other."""
    distance = np.linalg.norm(features[:, None].astype("float64") - features, axis=-1)
    np.fill_diagonal(distance, np.inf)
    nearest = distance.argmin(axis=1)
    return [(i, j) for i, j in enumerate(nearest) if nearest[j] == i and label[i] != label[j]]


def test_tomek_takes_the_larger_class_out_of_each_pair(blobs, imblearn):
    features, label = blobs
    pairs = tomek_pairs(features, label)
    gone = {i for i, _ in pairs if label[i] == 0}
    assert len(gone) > 3
    kept = [index for index in range(len(label)) if index not in gone]
    found, labels = resample(features, label, method="tomek")
    np.testing.assert_array_equal(found, features[kept])
    np.testing.assert_array_equal(labels, label[kept])


def test_smote_tomek_leaves_balanced_classes_without_a_pair_of_before(blobs, imblearn):
    larger, label = resample(*blobs, method="smote", seed=2)
    gone = {i for i, _ in tomek_pairs(larger, label)}
    kept = [index for index in range(len(label)) if index not in gone]
    found, labels = resample(*blobs, method="smote_tomek", seed=2)
    np.testing.assert_array_equal(found, larger[kept])
    np.testing.assert_array_equal(labels, label[kept])


def test_wrong_resampling(blobs):
    features, label = blobs
    with pytest.raises(DataError, match='Did you mean "smote"'):
        resample(features, label, method="smot")
    with pytest.raises(DataError, match="smallest class has 5 examples. Set neighbors to 4 or less"):
        resample(features[:125], label[:125], method="smote")
    with pytest.raises(DataError, match="smallest has 1"):
        resample(features[:121], label[:121], method="smote_tomek")
    with pytest.raises(DataError, match=r"features \[N, D\]"):
        resample(features[:-1], label, method="tomek")


def test_without_imbalanced_learn(blobs, monkeypatch):
    monkeypatch.setattr("importlib.util.find_spec", lambda name: None)
    monkeypatch.setitem(sys.modules, "imblearn", None)
    with pytest.raises(ImportError, match=r"kerasvision\[balance\]"):
        resample(*blobs, method="tomek")
