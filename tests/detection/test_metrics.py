"""COCO figures beside pycocotools, Pascal VOC's beside plain NumPy, and sets with nothing in them."""

import math

import numpy as np
import pytest
from detection.scenes import SIZE, batch, boxes, pycocotools_figures, scene, with_masks

from kerasvision.detection import DetectionMetrics, coco_ap

LABELS = ("0", "1", "2")
BOX = (10, 10, 60, 60)


def measured(targets, predictions, labels=LABELS, kind="boxes", detections=(1, 10, 100), size=None):
    metrics = DetectionMetrics(labels, kind, detections)
    size = size or len(targets["valid"])
    for start in range(0, len(targets["valid"]), size):
        part = slice(start, start + size)
        metrics.update(
            {key: value[part] for key, value in targets.items()},
            {key: value[part] for key, value in predictions.items()},
        )
    return metrics


def assert_same(figures, expected):
    assert figures.keys() == expected.keys()
    for name, value in expected.items():
        assert figures[name] == pytest.approx(value, abs=1e-6, nan_ok=True), name


CASES = {
    "plain": {},
    "crowds": {"crowd": 0.5},
    "difficult": {"difficult": 0.4},
    "equal scores": {"ties": True, "images": 20},
    "class never seen": {"never": (1,)},
    "one class": {"classes": 1},
    "nothing found": {"objects": 5, "extra": 0, "images": 3},
    "no objects": {"objects": 0, "extra": 6},
}


@pytest.mark.parametrize("kind", ["boxes", "masks"])
@pytest.mark.parametrize("case", CASES)
def test_equal_to_pycocotools(case, kind):
    for seed in range(2):
        random = np.random.default_rng(seed)
        targets, predictions = scene(random, **CASES[case])
        if case == "nothing found":
            predictions["count"][:] = 0
        if kind == "masks":
            targets, predictions = with_masks(targets, predictions, random)
        labels = LABELS[: CASES[case].get("classes", 3)]
        expected = pycocotools_figures(targets, predictions, len(labels), kind)
        assert_same(measured(targets, predictions, labels, kind).result(), expected)
        if case not in ("nothing found", "no objects"):
            assert 0 < expected["AP"] < 1


@pytest.mark.parametrize("stride", [1, 4])
def test_masks_within_boxes_count_as_masks_of_the_image(stride):
    random = np.random.default_rng(0)
    targets, predictions = scene(random)
    places = (np.arange(0, SIZE, stride) + stride / 2).astype(np.float32)

    def filled(boxes):
        x0, y0, x1, y1 = np.moveaxis(boxes[..., None], 2, 0)
        columns, rows = (places >= x0) & (places < x1), (places >= y0) & (places < y1)
        return rows[..., :, None] & columns[..., None, :]

    targets["masks"] = filled(targets["boxes"])
    expected = DetectionMetrics(LABELS, "masks")
    expected.update(targets, {**predictions, "masks": filled(predictions["boxes"])})
    received = DetectionMetrics(LABELS, "masks", image_size=(SIZE, SIZE))
    within = {**predictions, "box_masks": np.full((*predictions["scores"].shape, 5, 7), 0.9)}
    received.update(targets, {**within, "boxes": predictions["boxes"] / SIZE})
    assert_same(received.result(), expected.result())
    assert 0 < expected.result()["AP"] < 1
    with pytest.raises(ValueError, match='Expected "box_masks" of the predictions'):
        received.update(targets, {**within, "box_masks": within["box_masks"][:, :2]})


def test_more_masks_than_fit_into_a_byte():
    corners = np.stack(np.meshgrid(np.arange(20), np.arange(15)), axis=-1).reshape(-1, 2) * 4
    found = [(np.concatenate([low, low + 3]), 0, 0.9) for low in corners]
    targets, predictions = batch([[each[:2] for each in found]], [found])
    masks = np.zeros((1, 300, 80, 80), np.uint8)
    for mask, (x, y) in zip(masks[0], corners, strict=True):
        mask[y : y + 3, x : x + 3] = 1
    metrics = DetectionMetrics(LABELS, "masks", (1, 10, 300))
    metrics.update({**targets, "masks": masks}, {**predictions, "masks": masks})
    assert metrics.result()["AP"] == pytest.approx(1)
    assert metrics.images[0].found.areas.tolist() == [9.0] * 300


@pytest.mark.parametrize("detections", [(1, 10, 100), (5, 600)])
def test_five_hundred_boxes_in_an_image(detections):
    random = np.random.default_rng(3)
    places = boxes(random, 500)
    labels = random.integers(0, 2, 500)
    moved = places + random.normal(0, 1, places.shape)
    moved[:, 2:] = np.maximum(moved[:, 2:], moved[:, :2])
    targets, predictions = batch(
        [list(zip(places, labels, strict=True))], [list(zip(moved, labels, random.random(500), strict=True))]
    )
    expected = pycocotools_figures(targets, predictions, 3, detections=detections)
    assert_same(measured(targets, predictions, detections=detections).result(), expected)


def test_any_batch_size_gives_the_same():
    targets, predictions = scene(np.random.default_rng(0), images=9, ties=True)
    whole = measured(targets, predictions).result()
    for size in (1, 4):
        assert measured(targets, predictions, size=size).result() == pytest.approx(whole, nan_ok=True, abs=0)


def test_classes_in_groups_give_the_same(monkeypatch):
    targets, predictions = scene(np.random.default_rng(0), images=9, crowd=0.3)
    whole = measured(targets, predictions).result()
    for most in (1, 30):
        monkeypatch.setattr(coco_ap, "_AT_ONCE", most)
        assert measured(targets, predictions).result() == pytest.approx(whole, nan_ok=True, abs=0)


def test_padding_is_not_looked_at():
    targets, predictions = batch([[(BOX, 1)]], [[(BOX, 1, 0.9)]], slots=(3, 4))
    targets["boxes"][~targets["valid"]] = np.nan
    targets["classes"][~targets["valid"]] = -1
    predictions["boxes"][:, 1:], predictions["classes"][:, 1:], predictions["scores"][:, 1:] = BOX, 77, 1.0
    figures = measured(targets, predictions).result()
    assert figures["AP"] == figures["AR1"] == figures["AP/1"] == 1
    assert math.isnan(figures["AP/0"])


def test_no_image_at_all():
    metrics = DetectionMetrics(LABELS)
    assert set(map(math.isnan, metrics.result().values())) == {True}
    assert math.isnan(metrics.voc()["AP"])
    assert metrics.curves()["0"].best() is None
    assert sum(metrics.breakdown().counts.values()) == 0


def test_slots_for_nothing():
    targets, predictions = batch([[], []], [[], []])
    assert targets["boxes"].shape == (2, 0, 4)
    assert math.isnan(measured(targets, predictions).result()["AP"])
    masks = np.zeros((2, 0, 8, 8))
    metrics = measured({**targets, "masks": masks}, {**predictions, "masks": masks}, kind="masks")
    assert math.isnan(metrics.result()["AP"])


def test_what_is_not_finite_counts_as_wrong_and_last():
    targets, predictions = batch([[(BOX, 0)]], [[(BOX, 0, 0.5), (BOX, 0, np.nan), ((np.nan,) * 4, 0, 0.4)]])
    curve = measured(targets, predictions).curves()["0"]
    assert curve.scores.tolist() == pytest.approx([0.5, 0.4, 0.0])
    assert curve.precision.tolist() == pytest.approx([1, 1 / 2, 1 / 3])
    assert measured(targets, predictions).result()["AP"] == 1


def test_a_box_with_its_corners_the_wrong_way_round_is_wrong():
    targets, predictions = batch([[(BOX, 0)]], [[((60, 10, 10, 60), 0, 0.9), (BOX, 0, 0.5)]])
    # pycocotools would not count it: its area is below that of any object.
    assert measured(targets, predictions).result()["AP"] == pytest.approx(0.5)


def test_objects_that_are_not_finite_are_left_out():
    targets, predictions = batch([[(BOX, 0), ((0, 0, np.nan, 5), 0)]], [[(BOX, 0, 0.5)]])
    figures = measured(targets, predictions).result()
    assert figures["AP"] == figures["AR1"] == 1


def voc_reference(targets, predictions, index, points):
    """Pascal VOC's development kit, written down again for continuous boxes."""
    ranked = []
    total = 0
    for image in range(len(targets["valid"])):
        own = targets["valid"][image] & (targets["classes"][image] == index)
        total += int((own & ~targets["difficult"][image] & ~targets["crowd"][image]).sum())
        for slot in range(predictions["count"][image]):
            if predictions["classes"][image, slot] == index:
                ranked.append((-predictions["scores"][image, slot], image, slot))
    ranked.sort(key=lambda entry: entry[0])
    claimed, hits, falls = set(), [], []
    for _, image, slot in ranked:
        best, chosen = -1.0, None
        x0, y0, x1, y1 = predictions["boxes"][image, slot].astype(float)
        for other in np.flatnonzero(targets["valid"][image] & (targets["classes"][image] == index)):
            a0, b0, a1, b1 = targets["boxes"][image, other].astype(float)
            shared = max(min(x1, a1) - max(x0, a0), 0) * max(min(y1, b1) - max(y0, b0), 0)
            union = (x1 - x0) * (y1 - y0) + (a1 - a0) * (b1 - b0) - shared
            if shared / union > best:
                best, chosen = shared / union, other
        if best >= 0.5 and targets["difficult"][image, chosen]:
            continue
        right = best >= 0.5 and (image, chosen) not in claimed
        if right:
            claimed.add((image, chosen))
        hits.append(right)
        falls.append(not right)
    if not total:
        return np.nan
    hits, falls = np.cumsum(hits, dtype=float), np.cumsum(falls, dtype=float)
    recall, precision = hits / total, hits / (hits + falls)
    if points == 11:
        levels = np.linspace(0, 1, 11)
        return sum(precision[recall >= level].max() if (recall >= level).any() else 0 for level in levels) / 11
    recall, precision = np.concatenate([[0], recall, [1]]), np.concatenate([[0], precision, [0]])
    for place in range(len(precision) - 1, 0, -1):
        precision[place - 1] = max(precision[place - 1], precision[place])
    steps = np.flatnonzero(recall[1:] != recall[:-1])
    return np.sum((recall[steps + 1] - recall[steps]) * precision[steps + 1])


@pytest.mark.parametrize("points", [11, None])
@pytest.mark.parametrize("case", ["plain", "difficult", "equal scores", "class never seen", "no objects"])
def test_voc_is_equal_to_the_development_kit(case, points):
    for seed in range(3):
        targets, predictions = scene(np.random.default_rng(seed), **{**CASES[case], "crowd": 0})
        figures = measured(targets, predictions).voc(points)
        expected = [voc_reference(targets, predictions, index, points) for index in range(3)]
        for label, value in zip(LABELS, expected, strict=True):
            assert figures[f"AP/{label}"] == pytest.approx(value, abs=1e-9, nan_ok=True)
        if case != "no objects":
            assert figures["AP"] == pytest.approx(np.nanmean(expected), abs=1e-9)
            assert 0 < figures["AP"] < 1


def test_voc_does_not_ask_for_difficult_objects():
    hard = (80, 80, 120, 120)
    objects = [[(BOX, 0), (hard, 0, {"difficult": True})]]
    for found in ([(BOX, 0, 0.5)], [(hard, 0, 0.9), (hard, 0, 0.8), (BOX, 0, 0.5)]):
        assert measured(*batch(objects, [found])).voc()["AP"] == 1


@pytest.mark.parametrize(
    ("arguments", "said"),
    [
        ({"labels": ()}, "one class or more"),
        ({"labels": ("a", "a")}, "each once"),
        ({"labels": LABELS, "kind": "polygons"}, '"boxes" or "masks"'),
        ({"labels": LABELS, "max_detections": (10, 1)}, "rising"),
        ({"labels": LABELS, "max_detections": ()}, "rising"),
    ],
)
def test_wrong_arguments(arguments, said):
    with pytest.raises(ValueError, match=said):
        DetectionMetrics(**arguments)


def test_wrong_batches():
    targets, predictions = batch([[(BOX, 1)]], [[(BOX, 1, 0.9)]])
    metrics = DetectionMetrics(LABELS)
    with pytest.raises(ValueError, match='predictions have no "count"'):
        metrics.update(targets, {key: value for key, value in predictions.items() if key != "count"})
    with pytest.raises(ValueError, match='"masks" takes|no "masks"'):
        DetectionMetrics(LABELS, "masks").update(targets, predictions)
    with pytest.raises(ValueError, match=r'"scores"|"boxes" of the predictions as \[1, 1, 4\]'):
        metrics.update(targets, {**predictions, "boxes": predictions["boxes"][..., :3]})
    with pytest.raises(ValueError, match='"count" for each of 1 images, got 2'):
        metrics.update(targets, {**predictions, "count": np.ones(2, np.int32)})
    with pytest.raises(ValueError, match=r"targets have the class 3; expected 0..2"):
        metrics.update({**targets, "classes": targets["classes"] + 2}, predictions)
    assert not metrics.images
