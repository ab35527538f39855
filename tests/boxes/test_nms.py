"""Suppression: equal to plain NumPy loops, for odd scores and boxes, symbolic, and in a TFLite file of builtin ops."""

import functools

import keras
import numpy as np
import pytest
import tensorflow as tf
from ai_edge_litert.interpreter import Interpreter
from hypothesis import given, settings
from hypothesis import strategies as st

from kerasvision.boxes import hard_nms, iou, matrix_nms, soft_nms

RULES = {
    "hard": hard_nms,
    "linear": functools.partial(soft_nms, decay="linear"),
    "gaussian": functools.partial(soft_nms, decay="gaussian"),
    "matrix_linear": functools.partial(matrix_nms, decay="linear"),
    "matrix": functools.partial(matrix_nms, decay="gaussian"),
}


def brute_greedy(boxes, scores, rule, detections=100, threshold=0.5, least=0.05, sigma=0.5, by_class=True):
    """One image, one detection after the other, over all pairs of box and class."""
    left = [[s, -n, n, k] for n, row in enumerate(scores) for k, s in enumerate(row) if s > least]
    found = []
    while left and len(found) < detections:
        left.sort(key=lambda pair: pair[0], reverse=True)
        score, _, best, k = left.pop(0)
        if score <= least:
            break
        found.append((score, best, k))
        for pair in left:
            overlap = iou(boxes[best], boxes[pair[2]])
            if by_class and pair[3] != k:
                continue
            if rule == "hard":
                pair[0] *= overlap <= threshold
            elif rule == "linear":
                pair[0] *= 1 - overlap if overlap > threshold else 1
            else:
                pair[0] *= np.exp(-(overlap**2) / sigma)
    return found


def brute_matrix(boxes, scores, rule, least=0.05, sigma=0.5):
    """One image, by the formula of the paper: the least of f(overlap) / f(largest overlap of the better one)."""
    pairs = sorted(((s, n, k) for n, row in enumerate(scores) for k, s in enumerate(row) if s > least), reverse=True)

    def f(x):
        return max(1 - x, 1e-6) if rule == "matrix_linear" else np.exp(-(x**2) / sigma)

    def overlap(a, b):
        return iou(boxes[pairs[a][1]], boxes[pairs[b][1]]) if pairs[a][2] == pairs[b][2] else 0.0

    found = []
    for j, (score, n, k) in enumerate(pairs):
        shares = [f(overlap(i, j)) / f(max((overlap(h, i) for h in range(i)), default=0)) for i in range(j)]
        found.append((score * min([*shares, 1]), n, k))
    return sorted((pair for pair in found if pair[0] > least), reverse=True)


def crowded(seed, images=2, count=30, classes=3):
    """Boxes in a few heaps, with scores that all differ."""
    rng = np.random.default_rng(seed)
    heaps = rng.uniform(0, 80, (images, 4, 2))
    low = heaps[:, rng.integers(0, 4, count)] + rng.normal(0, 4, (images, count, 2))
    boxes = np.concatenate([low, low + rng.uniform(8, 24, low.shape)], axis=-1).astype(np.float32)
    scores = rng.permutation(images * count * classes).reshape(images, count, classes) / (images * count * classes)
    return boxes, scores.astype(np.float32)


def check(result, boxes, expected):
    count = int(result["count"])
    assert count == len(expected)
    for row, (score, n, k) in enumerate(expected):
        assert result["scores"][row] == pytest.approx(score, abs=2e-5)
        assert result["classes"][row] == k
        assert np.allclose(result["boxes"][row], boxes[n], atol=1e-4)
    for name in ("boxes", "scores", "classes"):
        assert not result[name][count:].any()


def numpy_of(result):
    return {name: np.asarray(values) for name, values in result.items()}


@pytest.mark.parametrize("rule", ["hard", "linear", "gaussian"])
@pytest.mark.parametrize("by_class", [True, False])
def test_greedy_equals_a_plain_loop(rule, by_class):
    boxes, scores = crowded(3)
    options = {"iou": 0.4} if rule != "gaussian" else {}
    result = numpy_of(RULES[rule](boxes, scores, detections=40, by_class=by_class, **options))
    for image in range(len(boxes)):
        expected = brute_greedy(boxes[image], scores[image], rule, 40, threshold=0.4, by_class=by_class)
        check({name: values[image] for name, values in result.items()}, boxes[image], expected)
    assert result["count"][0] > 5


@pytest.mark.parametrize("rule", ["matrix", "matrix_linear"])
def test_matrix_equals_the_formula(rule):
    boxes, scores = crowded(5, count=16)
    result = numpy_of(RULES[rule](boxes, scores))
    for image in range(len(boxes)):
        check(
            {name: values[image] for name, values in result.items()},
            boxes[image],
            brute_matrix(boxes[image], scores[image], rule),
        )


@settings(deadline=None, max_examples=15)
@given(st.integers(0, 10_000), st.sampled_from([0.1, 0.5, 0.9]))
def test_hard_equals_a_plain_loop_for_any_heap(seed, threshold):
    boxes, scores = crowded(seed, images=1, count=12, classes=2)
    result = numpy_of(hard_nms(boxes, scores, iou=threshold, detections=24))
    check(
        {name: values[0] for name, values in result.items()},
        boxes[0],
        brute_greedy(boxes[0], scores[0], "hard", 24, threshold),
    )


def test_a_long_chain_is_exact():
    # Each box overlaps its neighbours alone: every second one stays, however long the chain.
    left = np.arange(40, dtype=np.float32) * 4
    boxes = np.stack([left, 0 * left, left + 10, 0 * left + 10], axis=-1)[None]
    scores = np.linspace(0.9, 0.1, 40, dtype=np.float32)[None, :, None]
    result = numpy_of(hard_nms(boxes, scores, iou=0.4, detections=40))
    assert result["count"][0] == 20
    assert np.allclose(result["boxes"][0, :20, 0], left[::2])


def test_fewer_detections_are_the_first_of_more():
    boxes, scores = crowded(1)
    many, few = numpy_of(hard_nms(boxes, scores, detections=20)), numpy_of(hard_nms(boxes, scores, detections=4))
    assert few["boxes"].shape == (2, 4, 4) and (few["count"] == 4).all()
    assert (few["boxes"] == many["boxes"][:, :4]).all() and (few["scores"] == many["scores"][:, :4]).all()


def test_few_candidates_are_the_best_pairs_of_all():
    boxes, scores = crowded(2, images=1, count=40, classes=5)
    kept = np.where(scores >= np.sort(scores, axis=None)[-10], scores, 0)
    few, expected = numpy_of(soft_nms(boxes, scores, candidates=10)), numpy_of(soft_nms(boxes, kept))
    for name in ("scores", "classes", "boxes"):
        assert np.allclose(few[name], expected[name], atol=1e-6)


@pytest.mark.parametrize("rule", RULES)
def test_shapes_when_there_are_fewer_boxes_than_detections(rule):
    boxes, scores = crowded(4, images=3, count=2, classes=1)
    result = numpy_of(RULES[rule](boxes, scores, least_score=0.0))
    assert {name: values.shape for name, values in result.items()} == {
        "boxes": (3, 100, 4),
        "scores": (3, 100),
        "classes": (3, 100),
        "count": (3,),
        "index": (3, 100),
    }
    assert result["classes"].dtype == result["count"].dtype == np.int32


@pytest.mark.parametrize("rule", RULES)
def test_nothing_found_and_odd_numbers(rule):
    boxes, scores = crowded(6)
    nothing = numpy_of(RULES[rule](boxes, scores * 0))
    assert not any(values.any() for values in nothing.values())
    odd_boxes, odd_scores = boxes.copy(), scores.copy()
    odd_scores[0, :5], odd_boxes[1, :5], odd_boxes[1, 5:9] = np.nan, np.nan, 0.0
    result = numpy_of(RULES[rule](odd_boxes, odd_scores))
    assert np.isfinite(result["scores"]).all() and (result["scores"] <= 1).all()
    assert (result["count"] > 0).all() and np.isfinite(result["boxes"][0]).all()
    # Without the boxes whose scores are NaN, the first image is as it was.
    clean = numpy_of(RULES[rule](boxes[:1, 5:], scores[:1, 5:]))
    assert np.allclose(clean["scores"], result["scores"][:1], atol=1e-6)


SMALL = {"detections": 6, "candidates": 16}


@pytest.mark.parametrize("rule", RULES)
def test_the_same_in_a_symbolic_model(rule):
    boxes, scores = crowded(7, images=1, count=20)
    inputs = keras.Input((20, 4)), keras.Input((20, 3))
    model = keras.Model(inputs, RULES[rule](*inputs, **SMALL))
    expected = numpy_of(RULES[rule](boxes, scores, **SMALL))
    # One image, and as many as detections: nothing may take one axis for another.
    for images in (1, 6):
        result = model([np.repeat(boxes, images, axis=0), np.repeat(scores, images, axis=0)])
        for name, values in expected.items():
            assert np.allclose(result[name], np.repeat(values, images, axis=0), atol=1e-5)


@pytest.mark.parametrize("rule", ["hard", "gaussian", "matrix"])
def test_the_same_in_a_tflite_file_of_builtin_operations(rule):
    boxes, scores = crowded(7, images=1, count=20)

    def decode(boxes, scores):
        return RULES[rule](boxes, scores, **SMALL)

    module = tf.Module()
    module.decode = tf.function(decode, input_signature=[tf.TensorSpec((1, 20, 4)), tf.TensorSpec((1, 20, 3))])
    converter = tf.lite.TFLiteConverter.from_concrete_functions([module.decode.get_concrete_function()], module)
    converter.target_spec.supported_ops = [tf.lite.OpsSet.TFLITE_BUILTINS]
    result = Interpreter(model_content=converter.convert()).get_signature_runner()(boxes=boxes, scores=scores)
    for name, values in numpy_of(decode(boxes, scores)).items():
        assert np.allclose(result[name], values, atol=1e-5)


@pytest.mark.parametrize(
    ("call", "message"),
    [
        (lambda b, s: hard_nms(b, s, iou=1.5), "iou must lie in 0..1, got 1.5"),
        (lambda b, s: hard_nms(b, s, detections=0), "detections must be at least 1"),
        (lambda b, s: soft_nms(b, s, decay="cubic"), "decay must be"),
        (lambda b, s: matrix_nms(b, s, sigma=0), "sigma must be above 0"),
    ],
)
def test_wrong_options(call, message):
    with pytest.raises(ValueError, match=message):
        call(*crowded(0))
