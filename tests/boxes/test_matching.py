"""Matching: hand-made cases, brute force in NumPy, and objects that must match nothing."""

import functools

import keras
import numpy as np
import pytest
import tensorflow as tf
from hypothesis import given, settings
from hypothesis import strategies as st

from kerasvision.boxes import (
    covered,
    gather_objects,
    grid,
    iou,
    match_aligned,
    match_best_size,
    match_overlaps,
    pairwise,
)

SSD = {"positive": 0.5, "negative": 0.5, "keep_best": "one"}
RPN = {"positive": 0.7, "negative": 0.3, "keep_best": "ties"}
YOLO = grid.yolov3_grid((64, 64))
CELLS = grid.center_grid((64, 64))


def numpy_of(match):
    return type(match)(*(np.asarray(values) for values in match))


def padded(*images, count=None):
    """(boxes [B, M, 4], valid [B, M])."""
    count = count or max(len(image) for image in images)
    boxes, valid = np.zeros((len(images), count, 4), np.float32), np.zeros((len(images), count), bool)
    for row, image in enumerate(images):
        boxes[row, : len(image)] = np.reshape(image, (-1, 4))
        valid[row, : len(image)] = True
    return boxes, valid


def some_objects(seed, images=2, count=4):
    rng = np.random.default_rng(seed)
    low = rng.uniform(0, 44, (images, count, 2))
    boxes = np.concatenate([low, low + rng.uniform(3, 20, low.shape)], axis=-1).astype(np.float32)
    return boxes, rng.random((images, count)) < 0.8


def brute_overlaps(anchors, boxes, valid, positive, negative, keep_best):
    """One image, one anchor and one object after the other: index (-1 background, -2 ignored)."""
    found = []
    for anchor in anchors:
        shares = [iou(anchor, box) if real else -1 for box, real in zip(boxes, valid, strict=True)]
        best = int(np.argmax(shares))
        found.append(best if shares[best] >= positive else -2 if shares[best] >= negative else -1)
    claims = {}
    for m in np.flatnonzero(valid):
        shares = np.array([iou(anchor, boxes[m]) for anchor in anchors])
        best = shares.max()
        if best > 0 and keep_best != "no":
            kept = np.flatnonzero(shares >= best - 1e-5) if keep_best == "ties" else [shares.argmax()]
            for a in kept:
                claims.setdefault(int(a), []).append((shares[a], -m))
    for a, wanting in claims.items():
        found[a] = -max(wanting)[1]
    return np.array(found)


@settings(deadline=None, max_examples=12)
@given(st.integers(0, 10_000), st.sampled_from(["no", "one", "ties"]))
def test_overlaps_equal_brute_force(seed, keep_best):
    # Whole numbers: overlaps that are equal are so in every precision.
    sizes = [[(12, 12), (8, 16), (16, 8)], [(24, 24), (16, 32)]]
    anchors = grid.make_grid([(4, 4), (2, 2)], [16, 32], sizes).boxes
    boxes, valid = some_objects(seed)
    boxes = boxes.round()
    found = numpy_of(match_overlaps(anchors, boxes, valid, positive=0.5, negative=0.3, keep_best=keep_best))
    for image in range(2):
        expected = brute_overlaps(anchors.astype(float), boxes[image], valid[image], 0.5, 0.3, keep_best)
        assert (found.positive[image] == (expected >= 0)).all()
        assert (found.ignored[image] == (expected == -2)).all()
        assert (found.index[image] == expected)[expected >= 0].all()


def test_thresholds_and_quality():
    anchors = np.array([[0, 0, 10, 10], [0, 0, 10, 20], [0, 0, 10, 30], [50, 50, 60, 60]], np.float32)
    boxes, valid = padded([[0, 0, 10, 10]])
    found = numpy_of(match_overlaps(anchors, boxes, valid, positive=0.7, negative=0.4, keep_best="no"))
    assert found.positive.tolist() == [[True, False, False, False]]
    assert found.ignored.tolist() == [[False, True, False, False]]
    assert found.quality.tolist() == [[1, 0, 0, 0]]


def test_an_object_that_fits_no_anchor_keeps_its_best():
    anchors = np.array([[0, 0, 30, 30], [0, 0, 40, 40], [0, 0, 30, 30]], np.float32)
    boxes, valid = padded([[5, 5, 10, 10]])
    for rule, expected in ((SSD, [1, 0, 0]), (RPN, [1, 0, 1]), ({"keep_best": "no"}, [0, 0, 0])):
        found = numpy_of(match_overlaps(anchors, boxes, valid, **rule))
        assert found.positive.astype(int).tolist() == [expected]
        assert found.quality[0] == pytest.approx(np.array(expected) * 25 / 900, abs=1e-5)


def test_an_anchor_goes_to_the_object_that_has_no_other():
    # The anchor overlaps the large object more, and is the only one that touches the small one.
    anchors = np.array([[0, 0, 20, 20], [0, 0, 22, 22]], np.float32)
    boxes, valid = padded([[0, 0, 22, 22], [19.9, 19.9, 20, 20]])
    found = numpy_of(match_overlaps(anchors, boxes, valid, **SSD))
    assert found.positive.all() and found.index.tolist() == [[1, 0]]


NOTHING = {
    "no object": padded([], count=2),
    "not valid": (padded([[0, 0, 30, 30]])[0], np.zeros((1, 1), bool)),
    "no area": padded([[10, 10, 10, 40]]),
    "inside out": padded([[40, 40, 10, 10]]),
    "nan": padded([[np.nan, 0, 30, 30]]),
    "infinite": padded([[0, 0, np.inf, 30]]),
    "outside": padded([[900, 900, 950, 950]]),
}


def matchers(boxes, valid, crowd=None):
    """Each rule on one image, with predictions that lie on the anchors."""
    scores = np.full((len(boxes), len(CELLS), 3), 0.5, np.float32)
    cells, anchors = (np.repeat(made.boxes[None], len(boxes), axis=0) for made in (CELLS, YOLO))
    classes = np.zeros(valid.shape, np.int32)
    return {
        "overlaps": match_overlaps(YOLO.boxes, boxes, valid, crowd, **RPN),
        "best_size": match_best_size(YOLO.boxes, YOLO.strides, anchors, boxes, valid, crowd),
        "aligned": match_aligned(CELLS.centers, CELLS.strides, scores, cells, boxes, classes, valid, crowd),
    }


@pytest.mark.parametrize("name", NOTHING)
def test_what_is_no_object_matches_nothing(name):
    for found in map(numpy_of, matchers(*NOTHING[name]).values()):
        assert not found.positive.any() and not found.ignored.any() and not found.quality.any()
        assert (found.index >= 0).all() and (found.index < NOTHING[name][0].shape[1]).all()


def test_objects_do_not_see_other_images_or_padding():
    boxes, valid = padded([[3, 3, 30, 28], [30, 30, 60, 60]], [[10, 5, 22, 40]], [])
    together = {name: numpy_of(match) for name, match in matchers(boxes, valid).items()}
    for image, count in enumerate((2, 1)):
        own = boxes[image : image + 1, :count], valid[image : image + 1, :count]
        for name, match in matchers(*own).items():
            match = numpy_of(match)
            for before, after in zip(match, together[name], strict=True):
                if before.dtype != np.int32:
                    assert np.allclose(before[0], after[image], atol=1e-6), name
            assert together[name].positive[image].any(), name
            assert (match.index == together[name].index[image])[0][together[name].positive[image]].all()
            assert not together[name].positive[2].any()


def test_crowds_are_ignored_and_match_nothing():
    boxes, valid = padded([[0, 0, 40, 40], [44, 44, 60, 60]])
    crowd = np.array([[True, False]])
    alone = {name: numpy_of(match) for name, match in matchers(boxes[:, 1:], valid[:, 1:]).items()}
    for name, found in ((name, numpy_of(match)) for name, match in matchers(boxes, valid, crowd).items()):
        assert (found.positive == alone[name].positive).all(), name
        assert (found.index[found.positive] == 1).all()
        anchors = (CELLS if name == "aligned" else YOLO).boxes
        share = pairwise(covered, np.array([[0.0, 0, 40, 40]]), anchors)[0]
        expected = (alone[name].ignored[0] | (share >= 0.5)) & ~found.positive[0]
        assert (found.ignored[0] == expected).all(), name
        assert expected.sum() > alone[name].ignored.sum()


def test_yolov3_takes_the_best_of_nine_sizes_in_the_cell_of_the_center():
    objects = [[2, 3, 12, 16], [20, 8, 52, 62], [5, 5, 60, 60]]
    boxes, valid = padded(objects)
    far = np.zeros((1, len(YOLO), 4), np.float32)
    found = numpy_of(match_best_size(YOLO.boxes, YOLO.strides, far, boxes, valid))
    expected = {}
    sizes, starts = np.array(grid.YOLOV3_SIZES, float), [0, 8 * 8 * 3, 8 * 8 * 3 + 4 * 4 * 3]
    for m, (x0, y0, x1, y1) in enumerate(objects):
        shared = np.minimum(sizes, [x1 - x0, y1 - y0]).prod(-1)
        level, k = np.unravel_index((shared / (sizes.prod(-1) + (x1 - x0) * (y1 - y0) - shared)).argmax(), (3, 3))
        stride = (8, 16, 32)[level]
        row, column = int((y0 + y1) / 2 // stride), int((x0 + x1) / 2 // stride)
        expected[starts[level] + (row * 64 // stride + column) * 3 + k] = m
    assert {int(a): int(found.index[0, a]) for a in np.flatnonzero(found.positive[0])} == expected
    assert len(expected) == 3 and not found.ignored.any()


def test_yolov3_ignores_good_predictions_that_are_not_the_one():
    boxes, valid = padded([[20, 8, 52, 62]])
    found = numpy_of(match_best_size(YOLO.boxes, YOLO.strides, np.repeat(boxes, len(YOLO), axis=1), boxes, valid))
    assert found.positive.sum() == 1 and (found.ignored == ~found.positive).all()


def test_a_cell_wanted_twice_goes_to_the_more_similar_object():
    boxes, valid = padded([[14, 14, 42, 74], [12, 13, 42, 74]])
    found = numpy_of(match_best_size(YOLO.boxes, YOLO.strides, np.zeros((1, len(YOLO), 4)), boxes, valid))
    assert found.positive.sum() == 1 and found.index[found.positive] == 1


def brute_aligned(scores, found, boxes, classes, valid, alpha, beta, top):
    """One image: {anchor: (object, wanted score)}."""
    owner, metrics = {}, {}
    for m in np.flatnonzero(valid):
        (x0, y0, x1, y1), k = boxes[m], classes[m]
        side = CELLS.strides.min()
        half = max(x1 - x0, side) / 2, max(y1 - y0, side) / 2
        near = [
            a
            for a, (x, y) in enumerate(CELLS.centers)
            if abs(x - (x0 + x1) / 2) < half[0] and abs(y - (y0 + y1) / 2) < half[1]
        ]
        metric = {a: scores[a, k] ** alpha * iou(found[a], boxes[m]) ** beta for a in near}
        for a in sorted((a for a in near if metric[a] > 0), key=lambda a: -metric[a])[:top]:
            if a not in owner or iou(found[a], boxes[m]) > iou(found[a], boxes[owner[a]]):
                owner[a] = m
            metrics[a, m] = metric[a]
    result = {}
    for a, m in owner.items():
        mine = [b for b in owner if owner[b] == m]
        best = max(iou(found[b], boxes[m]) for b in mine)
        result[a] = (m, metrics[a, m] / max(metrics[b, m] for b in mine) * best)
    return result


@pytest.mark.parametrize("options", [{}, {"alpha": 1.0, "beta": 6.0, "top": 13}, {"top": 2, "beta": 1.0}])
def test_aligned_equals_brute_force(options):
    rng = np.random.default_rng(2)
    boxes, valid = some_objects(3, images=2, count=5)
    classes = rng.integers(0, 3, valid.shape)
    scores = rng.uniform(0.01, 1, (2, len(CELLS), 3)).astype(np.float32)
    found = (CELLS.boxes + rng.normal(0, 4, (2, len(CELLS), 4)) + [-6, -6, 6, 6]).astype(np.float32)
    match = numpy_of(match_aligned(CELLS.centers, CELLS.strides, scores, found, boxes, classes, valid, **options))
    options = {"alpha": 0.5, "beta": 6.0, "top": 10, **options}
    for image in range(2):
        expected = brute_aligned(
            scores[image], found[image].astype(float), boxes[image], classes[image], valid[image], **options
        )
        assert set(np.flatnonzero(match.positive[image])) == set(expected)
        for a, (m, quality) in expected.items():
            assert match.index[image, a] == m
            assert match.quality[image, a] == pytest.approx(quality, abs=1e-4)


def test_aligned_finds_a_center_for_objects_smaller_than_a_cell():
    boxes, valid = padded([[8.5, 8.5, 10.5, 10.5]])
    assert numpy_of(matchers(boxes, valid)["aligned"]).positive.any()


def test_gather_objects():
    boxes, valid = padded([[3, 3, 30, 28], [30, 30, 60, 60]], [[10, 5, 22, 40]])
    match = match_overlaps(YOLO.boxes, boxes, valid)
    index = np.asarray(match.index)
    classes = np.array([[4, 7], [2, 0]], np.int32)
    assert (np.asarray(gather_objects(boxes, match)) == np.take_along_axis(boxes, index[..., None], 1)).all()
    assert (np.asarray(gather_objects(classes, match)) == np.take_along_axis(classes, index, 1)).all()


def test_in_a_graph_of_an_open_batch():
    boxes, valid = padded([[3, 3, 30, 28], [30, 30, 60, 60]], [[10, 5, 22, 40]])
    spec = [tf.TensorSpec((None, 2, 4)), tf.TensorSpec((None, 2), tf.bool)]
    matched = tf.function(functools.partial(match_overlaps, YOLO.boxes), input_signature=spec)
    for before, after in zip(match_overlaps(YOLO.boxes, boxes, valid), matched(boxes, valid), strict=True):
        assert np.allclose(keras.ops.convert_to_numpy(before), after)


@pytest.mark.parametrize(
    ("options", "message"),
    [({"positive": 0.3, "negative": 0.5}, "negative <= positive"), ({"keep_best": "all"}, "keep_best must be")],
)
def test_wrong_options(options, message):
    with pytest.raises(ValueError, match=message):
        match_overlaps(YOLO.boxes, *padded([[0, 0, 1, 1]]), **options)
