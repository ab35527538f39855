"""Statistics of targets, each against the plainest loop that computes the same."""

import collections
import math

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from PIL import Image

from kerasvision.boxes import pairwise_iou
from kerasvision.data.statistics import (
    area_shares,
    box_problems,
    centre_map,
    collect_boxes,
    count_classes,
    count_keypoints,
    count_pixels,
    effective_classes,
    effective_numbers,
    imbalance_ratio,
)


def objects(boxes, classes=None, crowd=None, **fields):
    boxes = np.array(boxes, np.float32).reshape(-1, 4)
    return {
        "image": "a.png",
        "boxes": boxes,
        "classes": np.array([0] * len(boxes) if classes is None else classes, np.int32),
        "crowd": np.array([False] * len(boxes) if crowd is None else crowd, bool),
        **fields,
    }


@given(st.lists(st.lists(st.integers(0, 3), max_size=4), max_size=8), st.lists(st.integers(0, 3), max_size=5))
def test_class_counts(train, test):
    splits = {"train": [{"labels": labels} for labels in train], "test": [{"label": label} for label in test]}
    found = count_classes(splits, 4)
    seen = collections.Counter(label for labels in train for label in labels)
    assert found.objects.tolist() == [[seen[k] for k in range(4)], [test.count(k) for k in range(4)]]
    assert found.images[0].tolist() == [sum(k in labels for labels in train) for k in range(4)]
    assert found.splits == ("train", "test")


def test_classes_of_boxes_are_counted_by_box_and_by_image():
    found = count_classes({"train": [objects([[0, 0, 1, 1]] * 3, [1, 1, 0]), objects([])]}, 3)
    assert found.objects.tolist() == [[1, 2, 0]] and found.images.tolist() == [[1, 1, 0]]


@given(st.lists(st.integers(0, 1000), min_size=1, max_size=8))
def test_balance_figures(counts):
    counts = np.array(counts)
    present = [c for c in counts.tolist() if c]
    assert imbalance_ratio(counts) == (max(present) / min(present) if present else 1)
    entropy = -sum(c / sum(present) * math.log(c / sum(present)) for c in present)
    assert effective_classes(counts) == pytest.approx(math.exp(entropy) if present else 0)
    # The effective number is the sum of beta^0 .. beta^(n - 1).
    assert effective_numbers(counts, 0.9) == pytest.approx([sum(0.9**i for i in range(c)) for c in counts.tolist()])


number = st.one_of(st.integers(-8, 30).map(float), st.floats(-8, 30, width=32), st.just(float("nan")))
box_lists = st.lists(st.lists(st.tuples(number, number, number, number), max_size=4), min_size=1, max_size=4)


@settings(deadline=None)
@given(box_lists, st.integers(0, 1000))
def test_box_problems(images, seed):
    rng = np.random.default_rng(seed)
    examples = [objects(boxes, rng.integers(0, 2, len(boxes)), rng.random(len(boxes)) < 0.2) for boxes in images]
    sizes = rng.integers(0, 25, (len(images), 2))
    table = collect_boxes({"train": examples[:1], "test": examples[1:]})
    wanted = collections.defaultdict(list)
    index = 0
    for (height, width), example in zip(sizes.tolist(), examples, strict=True):
        clean = []
        for box, label, crowd in zip(example["boxes"], example["classes"], example["crowd"], strict=True):
            x0, y0, x1, y1 = map(float, box)
            if not all(map(math.isfinite, (x0, y0, x1, y1))) or x1 <= x0 or y1 <= y0:
                wanted["degenerate"].append(index)
            else:
                if height and width:
                    if x1 <= 0 or y1 <= 0 or x0 >= width or y0 >= height:
                        wanted["outside"].append(index)
                    elif min(x0, y0) < -0.5 or x1 > width + 0.5 or y1 > height + 0.5:
                        wanted["beyond"].append(index)
                if not crowd:
                    if min(x1 - x0, y1 - y0) < 4:
                        wanted["tiny"].append(index)
                    same = [other for other, b in clean if pairwise_iou(box[None], b[None])[0, 0] >= 0.95]
                    if label in same:
                        wanted["repeated"].append(index)
                    if any(other != label for other in same):
                        wanted["two classes"].append(index)
                    clean.append((label, box))
            index += 1
    found = box_problems(table, sizes)
    assert {kind: indices.tolist() for kind, indices in found.items() if len(indices)} == dict(wanted)
    assert table.per_image.tolist() == [len(boxes) for boxes in images]


def test_no_box_at_all():
    table = collect_boxes({"train": [objects([]), objects([])], "test": []})
    assert table.boxes.shape == (0, 4) and table.per_image.tolist() == [0, 0]
    assert all(len(indices) == 0 for indices in box_problems(table, np.ones((2, 2))).values())
    assert area_shares(table.sizes()) == {"small": 0.0, "medium": 0.0, "large": 0.0}
    assert centre_map(table, np.ones((2, 2))).sum() == 0


def test_area_shares_have_cocos_bounds():
    sizes = np.array([[31.9, 32], [32, 32], [95, 96], [96, 96]])
    assert area_shares(sizes) == {"small": 0.25, "medium": 0.5, "large": 0.25}


def test_centres_are_counted_in_the_cell_they_lie_in():
    rng = np.random.default_rng(0)
    sizes = rng.integers(10, 50, (6, 2))
    splits = {"train": [objects(rng.uniform(0, 10, (4, 4)).cumsum(axis=1)[:, [0, 1, 2, 3]]) for _ in range(6)]}
    wanted = np.zeros((8, 8), int)
    for (height, width), example in zip(sizes, splits["train"], strict=True):
        for x0, y0, x1, y1 in example["boxes"].astype(float):
            column, row = (x0 + x1) / 2 / width * 8, (y0 + y1) / 2 / height * 8
            if 0 <= column < 8 and 0 <= row < 8:
                wanted[int(row), int(column)] += 1
    assert (centre_map(collect_boxes(splits), sizes, bins=8) == wanted).all() and wanted.sum() > 5


def test_keypoints_are_counted_by_visibility():
    rng = np.random.default_rng(0)
    keypoints = [np.dstack([rng.uniform(0, 9, (n, 5, 2)), rng.integers(0, 3, (n, 5))]) for n in (0, 1, 3)]
    found = count_keypoints([{"keypoints": points} for points in keypoints], 5)
    for name in range(5):
        for state in range(3):
            assert found[name, state] == sum(int(o[name][2] == state) for points in keypoints for o in points)


def test_pixels_of_class_maps(tmp_path):
    rng = np.random.default_rng(0)
    maps = [rng.choice([0, 1, 2, 255], (7, 9)).astype(np.uint8) for _ in range(3)]
    Image.fromarray(maps[2]).save(tmp_path / "mask.png")
    splits = {
        "train": [{"segmentation": maps[0]}, {"segmentation": maps[1]}],
        "test": [{"segmentation": str(tmp_path / "mask.png")}, {"segmentation": str(tmp_path / "none.png")}],
    }
    found = count_pixels(splits, 4)
    train = np.concatenate(maps[:2])
    assert found.pixels.tolist() == [[int((m == k).sum()) for k in range(4)] for m in (train, maps[2])]
    assert found.images.tolist() == [[2, 2, 2, 0], [1, 1, 1, 0]]
    assert found.void[:3] == pytest.approx([float((m == 255).mean()) for m in maps])
    assert list(found.unreadable) == [3] and "none.png" in found.unreadable[3]
