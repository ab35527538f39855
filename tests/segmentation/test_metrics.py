"""Figures of class maps against loops over pixels."""

import math

import numpy as np
import pytest

from kerasvision.class_maps import ClassMaps
from kerasvision.masks import PackedMasks
from kerasvision.segmentation.metrics import SegmentationMeter, SegmentationMetrics, outline_scores

LABELS = ("sky", "road", "car", "never")
VOID = 255


def maps(count=5, size=(10, 13), seed=0):
    """True maps in blobs with void, and found ones that differ here and there; the last class never occurs."""
    rng = np.random.default_rng(seed)
    truth = np.kron(rng.integers(0, 3, (count, 5, 7)), np.ones((1, 2, 2), int))[:, : size[0], : size[1]]
    found = np.where(rng.random(truth.shape) < 0.3, rng.integers(0, 3, truth.shape), truth)
    truth[rng.random(truth.shape) < 0.1] = VOID
    return truth.astype(np.uint8), found.astype(np.int32)


def gathered(truth, found, sizes, **options):
    metrics = SegmentationMetrics(LABELS, **options)
    start = 0
    for size in sizes:
        part = slice(start, start + size)
        metrics.update({"segmentation": truth[part]}, {"classes": found[part]})
        start += size
    return metrics


def plain_figures(truth, found):
    """What the names say, pixel by pixel."""
    pairs = [(t, p) for t, p in zip(truth.ravel().tolist(), found.ravel().tolist(), strict=True) if t != VOID]
    ious, dices, recalls, weighted = {}, {}, {}, 0.0
    for index, label in enumerate(LABELS):
        both = sum(t == index and p == index for t, p in pairs)
        either = sum(t == index or p == index for t, p in pairs)
        true, guessed = sum(t == index for t, _ in pairs), sum(p == index for _, p in pairs)
        if either:
            ious[label], dices[label] = both / either, 2 * both / (true + guessed)
            weighted += true / len(pairs) * ious[label]
        if true:
            recalls[label] = both / true
    return {
        "mIoU": np.mean(list(ious.values())),
        "Dice": np.mean(list(dices.values())),
        "pixel_accuracy": sum(t == p for t, p in pairs) / len(pairs),
        "mean_accuracy": np.mean(list(recalls.values())),
        "frequency_weighted_IoU": weighted,
        **{f"IoU/{label}": value for label, value in ious.items()},
        **{f"Dice/{label}": value for label, value in dices.items()},
    }


def test_equals_plain_loops():
    truth, found = maps()
    received = gathered(truth, found, [5], tolerance=None).result()
    expected = plain_figures(truth, found)
    assert received.keys() == expected.keys()
    assert received == pytest.approx(expected, abs=1e-12)
    assert "IoU/never" not in received


def test_exact_over_batches_of_any_size():
    truth, found = maps(7)
    whole, parts = gathered(truth, found, [7]), gathered(truth, found, [1, 4, 2])
    assert whole.result() == pytest.approx(parts.result(), abs=1e-12)
    np.testing.assert_array_equal(whole.confusion, parts.confusion)
    assert whole.confusion.dtype == np.int64 and whole.confusion.sum() == (truth != VOID).sum()
    assert whole.confusion[0, 1] == ((truth == 0) & (found == 1)).sum()


def test_images_are_told_apart():
    truth, found = maps(3)
    found[1] = np.where(truth[1] == VOID, 0, truth[1])
    truth[2] = VOID
    good = gathered(truth, found, [3], tolerance=None).image_ious
    assert good[0] == pytest.approx(plain_figures(truth[:1], found[:1])["mIoU"])
    assert good[1] == 1 and math.isnan(good[2])


def plain_outline(classes, index):
    """Pixels of a class with a known neighbour of another one."""
    height, width = classes.shape
    found = []
    for y, x in np.argwhere(classes == index):
        around = [(y - 1, x), (y + 1, x), (y, x - 1), (y, x + 1)]
        inside = [classes[a, b] for a, b in around if 0 <= a < height and 0 <= b < width]
        if any(value not in (index, VOID) for value in inside):
            found.append((y, x))
    return np.array(found, float).reshape(-1, 2)


def plain_boundary_f1(truth, found, index, tolerance):
    radius = tolerance * math.hypot(*truth.shape)
    true, guessed = plain_outline(truth, index), plain_outline(np.where(truth == VOID, VOID, found), index)
    if not len(true) and not len(guessed):
        return math.nan
    if not len(true) or not len(guessed):
        return 0.0
    distances = np.hypot(*(true[:, None] - guessed[None]).transpose(2, 0, 1))
    recall, precision = (distances.min(axis=1) <= radius).mean(), (distances.min(axis=0) <= radius).mean()
    return 2 * precision * recall / (precision + recall) if precision + recall else 0.0


@pytest.mark.parametrize("tolerance", [0.05, 0.1, 0.2])
def test_outlines_equal_all_distances(tolerance):
    truth, found = maps(4, seed=2)
    truth[3] = 1  # One class fills the image: it has no outline.
    scores = np.array(
        [[plain_boundary_f1(t, p, k, tolerance) for k in range(4)] for t, p in zip(truth, found, strict=True)]
    )
    for index in range(4):
        hidden = np.where(truth[index] == VOID, VOID, found[index]).astype(np.uint8)
        np.testing.assert_allclose(outline_scores(truth[index], hidden, 4, tolerance), scores[index])
    received = gathered(truth, found, [1, 3], tolerance=tolerance).result()
    for index, label in enumerate(LABELS[:3]):
        assert received[f"boundary_F1/{label}"] == pytest.approx(np.nanmean(scores[:, index]))
    assert received["boundary_F1"] == pytest.approx(np.mean([np.nanmean(row) for row in scores]))
    assert "boundary_F1/never" not in received


def test_a_line_shifted_by_less_than_the_tolerance_is_right():
    truth, found = np.zeros((1, 60, 80), np.uint8), np.zeros((1, 60, 80), np.uint8)
    truth[:, :, 40:], found[:, :, 42:] = 1, 1  # The diagonal has 100 pixels.
    assert gathered(truth, found, [1], tolerance=0.02).result()["boundary_F1"] == 1
    assert gathered(truth, found, [1], tolerance=0.0199).result()["boundary_F1"] == 0


def test_nothing_to_measure():
    empty = SegmentationMetrics(LABELS)
    assert empty.result() == {}
    empty.update({"segmentation": np.full((2, 4, 4), VOID)}, {"classes": np.zeros((2, 4, 4))})
    assert empty.result() == {} and not empty.confusion.any()


def test_predicted_void_counts_nowhere():
    truth, found = maps(2)
    hidden = found.copy()
    hidden[:, :2] = VOID
    cut = truth.copy()
    cut[:, :2] = VOID
    assert gathered(truth, hidden, [2]).result() == gathered(cut, found, [2]).result()


@pytest.mark.parametrize(
    ("truth", "found", "words"),
    [
        (np.zeros((1, 4, 4)), np.zeros((1, 4, 5)), r"\(1, 4, 4\) as the truth and \(1, 4, 5\)"),
        (np.zeros((4, 4)), np.zeros((4, 4)), "one shape"),
        (np.full((1, 4, 4), 4), np.zeros((1, 4, 4)), r"truth has the class 4; expected 0\.\.3"),
        (np.zeros((1, 4, 4)), np.full((1, 4, 4), -1), "prediction has the class -1"),
    ],
)
def test_bad_maps(truth, found, words):
    with pytest.raises(ValueError, match=words):
        SegmentationMetrics(LABELS).update({"segmentation": truth}, {"classes": found})
    with pytest.raises(ValueError, match='Expected "classes", got boxes'):
        SegmentationMetrics(LABELS).update({"segmentation": truth}, {"boxes": found})


def test_bad_settings():
    with pytest.raises(ValueError, match="each once"):
        SegmentationMetrics(("a", "a"))
    with pytest.raises(ValueError, match="share of the image's diagonal"):
        SegmentationMetrics(LABELS, tolerance=3)


def test_objects_are_measured_with_a_border_class():
    masks = np.zeros((3, 40, 40), np.uint8)
    masks[0, 2:18, 2:18] = masks[1, 2:18, 18:34] = masks[2, 25:37, 5:30] = 1
    example = {"masks": PackedMasks.pack(masks), "classes": np.ones(3, int)}
    arrays = {name: values[None] for name, values in ClassMaps(width=1)(example, 3).items()}
    meter = SegmentationMeter(("background", "cell", "border"), border="border")
    meter.update(arrays, {"classes": arrays["segmentation"]})
    perfect = meter.result()
    assert perfect["object_F1"] == perfect["object_AP"] == perfect["foreground_Dice"] == perfect["mIoU"] == 1
    # The first two objects grow together, the third is missed.
    found = np.where(arrays["segmentation"] == 2, 1, arrays["segmentation"])
    found[:, 20:] = 0
    meter.update(arrays, {"classes": found})
    joined = meter.result()
    assert joined["object_F1"] == pytest.approx(2 * 3 / (3 + 3 + 3 + 1))
    assert joined["foreground_Dice"] == pytest.approx(2 * (812 + 512) / (812 + 812 + 812 + 512))
    plain = SegmentationMeter(("background", "cell", "border"))
    plain.update(arrays, {"classes": found})
    assert "object_F1" not in plain.result()
