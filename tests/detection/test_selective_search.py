"""Selective search: the same boxes for the same pixels, its cache, recall against a loop, and the layer."""

import keras
import numpy as np
import pytest
from detection import contract

from kerasvision.boxes.overlap import pairwise_iou
from kerasvision.detection.selective_search import (
    ProposalCache,
    SelectiveSearch,
    find_proposals,
    proposal_recall,
    selective_search,
    thin_out,
)


@pytest.fixture(scope="module")
def scene():
    images, targets = contract.rectangles(4, 64, seed=1)
    objects = [boxes[valid] for boxes, valid in zip(targets["boxes"], targets["valid"], strict=True)]
    return images.round().astype(np.uint8), objects


@pytest.mark.parametrize("mode", ["fast", "quality"])
def test_finds_the_rectangles(scene, mode):
    images, objects = scene
    found = find_proposals(list(images), mode=mode)
    assert proposal_recall(objects, found, counts=[2000], overlaps=[0.7])[2000, 0.7] == 1
    for boxes in found:
        assert boxes.dtype == np.float32 and boxes.min() >= 0 and boxes.max() <= 64
        sides = boxes[:, 2:] - boxes[:, :2]
        assert sides.min() >= 8
        assert (np.diff(sides.prod(axis=1)) <= 0).all()
        own = boxes.astype(np.float64)
        assert (pairwise_iou(own, own) - np.eye(len(own))).max() <= 0.8


def test_what_is_left_out_is_near_a_larger_box(scene):
    """The rule one box at a time."""
    image = scene[0][1]
    every = selective_search(image, overlap=1).astype(np.float64)
    kept = []
    for box in every:
        if all(pairwise_iou(box[None], other[None])[0, 0] <= 0.6 for other in kept):
            kept.append(box)
    assert len(kept) < len(every)
    np.testing.assert_allclose(selective_search(image, overlap=0.6), kept, atol=1e-4)


def test_the_same_pixels_give_the_same_boxes(scene):
    image = scene[0][0]
    first = selective_search(image)
    # Several at a time, and after others: OpenCV's order would differ.
    for again in find_proposals([image] * 4, threads=2):
        np.testing.assert_array_equal(again, first)


def test_large_images_are_searched_smaller(scene):
    small = scene[0][0]
    large = np.repeat(np.repeat(small, 3, axis=0), 2, axis=1)
    boxes = selective_search(large, side=48, least_side=10)
    # Steps of the grid that was searched: 32 x 48 pixels for 128 x 192.
    np.testing.assert_allclose(boxes % 4, 0, atol=1e-4)
    assert boxes[:, 2].max() == 128 and boxes[:, 3].max() == 192
    np.testing.assert_allclose(boxes[0], [0, 0, 128, 192])


def test_few_boxes_are_of_all_sizes():
    boxes = np.arange(40, dtype=np.float32).reshape(10, 4)
    np.testing.assert_array_equal(thin_out(boxes, 4), boxes[[0, 3, 6, 9]])
    assert thin_out(boxes, 10) is boxes
    assert len(thin_out(boxes, 1)) == 1


@pytest.mark.parametrize("shape", [(1, 1, 3), (1, 40, 3), (2, 2, 3), (3, 200, 1), (20, 20, 1)])
def test_odd_images(shape):
    boxes = selective_search(np.full(shape, 7, np.uint8), least_side=0)
    assert boxes.shape[1:] == (4,) and len(boxes) <= 1


@pytest.mark.parametrize(
    "image, settings, message",
    [
        (np.zeros((8, 8, 3), np.float32), {}, "uint8 .* got float32"),
        (np.zeros((8, 8), np.uint8), {}, r"got uint8 \[8, 8\]"),
        (np.zeros((8, 8, 3), np.uint8), {"mode": "best"}, "mode must"),
        (np.zeros((8, 8, 3), np.uint8), {"most": 0}, "most must"),
        (np.zeros((8, 8, 3), np.uint8), {"side": 0}, "side must"),
        (np.zeros((8, 8, 3), np.uint8), {"least_side": float("nan")}, "least_side must"),
        (np.zeros((8, 8, 3), np.uint8), {"overlap": 0}, "overlap must"),
    ],
)
def test_what_cannot_be(image, settings, message):
    with pytest.raises(ValueError, match=message):
        selective_search(image, **settings)


class TestCache:
    def test_searches_once(self, scene, tmp_path, monkeypatch):
        images = list(scene[0])
        first = find_proposals(images, cache=tmp_path / "found.npz", side=40)
        monkeypatch.setattr("kerasvision.detection.selective_search.selective_search", lambda *_, **__: 1 / 0)
        again = find_proposals(images[::-1], cache=tmp_path / "found.npz", side=40)
        for expected, received in zip(first, again[::-1], strict=True):
            np.testing.assert_array_equal(received, expected)
        fewer = find_proposals(images[:1], cache=tmp_path / "found.npz", side=40, most=5)
        np.testing.assert_array_equal(fewer[0], thin_out(first[0], 5))
        # Other settings, other pixels, or the same bytes in another shape are searched.
        for image, side in ((images[0], 41), (images[0] ^ 1, 40), (images[0].reshape(32, 128, 3), 40)):
            with pytest.raises(ZeroDivisionError):
                find_proposals([image], cache=tmp_path / "found.npz", side=side)

    def test_the_oldest_go_first(self, scene, monkeypatch):
        cache = ProposalCache(most=2)
        for image in scene[0][:3]:
            cache.search(image)
        monkeypatch.setattr("kerasvision.detection.selective_search.selective_search", lambda *_, **__: 1 / 0)
        cache.search(scene[0][2])
        with pytest.raises(ZeroDivisionError):
            cache.search(scene[0][0])
        assert len(cache) == 2


def test_recall_against_a_loop():
    random = np.random.default_rng(0)

    def boxes(count):
        low = random.uniform(0, 60, (count, 2))
        return np.concatenate([low, low + random.uniform(10, 40, (count, 2))], axis=1).astype(np.float32)

    objects, proposals = [boxes(5), boxes(0), boxes(3)], [boxes(30), boxes(4), boxes(0)]

    def overlap(a, b):
        low, high = np.maximum(a[:2], b[:2]), np.minimum(a[2:], b[2:])
        shared = np.prod(np.maximum(high - low, 0))
        return shared / (np.prod(a[2:] - a[:2]) + np.prod(b[2:] - b[:2]) - shared)

    for (count, least), received in proposal_recall(objects, proposals, counts=[7, 30], overlaps=[0.3, 0.5]).items():
        hit = [
            any(overlap(own, box) >= least for box in thin_out(found, count))
            for each, found in zip(objects, proposals, strict=True)
            for own in each
        ]
        assert received == np.mean(hit)
    assert np.isnan(proposal_recall([boxes(0)], [boxes(2)])[100, 0.5])


class TestLayer:
    def test_gives_padded_proposals(self, scene):
        images, _ = scene
        layer = SelectiveSearch(proposals=60, side=48)
        received = keras.ops.convert_to_numpy(layer(images.astype(np.float32)))
        for image, row in zip(images, received, strict=True):
            expected = selective_search(image, side=48, most=60)
            np.testing.assert_array_equal(row[: len(expected)], expected)
            assert not row[len(expected) :].any()

    def test_round_trip(self):
        layer = SelectiveSearch(proposals=9, mode="quality", side=77, least_side=3, overlap=0.9, name="found")
        again = SelectiveSearch.from_config(layer.get_config())
        assert again.get_config() == layer.get_config()
        assert (again.proposals, again.mode, again.side, again.least_side, again.overlap) == (9, "quality", 77, 3, 0.9)
        assert layer.compute_output_spec(keras.KerasTensor((None, 8, 8, 3))).shape == (None, 9, 4)
