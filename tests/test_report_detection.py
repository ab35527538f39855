"""What the report says of a detector: hand-made scenes whose errors are known."""

import json

import numpy as np
import pytest
from html_page import NASTY, Page

from kerasvision.detection import DetectionMetrics
from kerasvision.detections import Found
from kerasvision.report import DetectorExample, choose_images, detector_facts, write_card, write_report
from kerasvision.report.detector import above, class_rows, error_rows, recall_chart, working_point
from kerasvision.report.detector_examples import show_example
from kerasvision.report.tables import cards, warnings

LEFT, RIGHT, BELOW = [2, 2, 12, 12], [20, 2, 30, 12], [2, 20, 12, 30]
LABELS = ("ant", "bee", "cow")


def batch(objects, found):
    """Targets and predictions of images; objects are (box, class), detections (box, class, score)."""
    most = max(max(map(len, objects)), max(map(len, found)), 1)

    def padded(rows, part, shape, dtype):
        values = np.zeros((len(rows), most, *shape), dtype)
        for target, row in zip(values, rows, strict=True):
            for index, each in enumerate(row):
                target[index] = each[part]
        return values

    targets = {"boxes": padded(objects, 0, (4,), np.float32), "classes": padded(objects, 1, (), np.int32)}
    targets["valid"] = np.arange(most) < np.array([[len(row)] for row in objects])
    predictions = {"boxes": padded(found, 0, (4,), np.float32), "classes": padded(found, 1, (), np.int32)}
    predictions["scores"] = padded(found, 2, (), np.float32)
    predictions["count"] = np.array([len(row) for row in found], np.int32)
    return targets, predictions


def measured(objects, found, labels=LABELS):
    metrics = DetectionMetrics(labels)
    metrics.update(*batch(objects, found))
    return metrics


@pytest.fixture
def metrics():
    """Three of four objects found; from 0.5 on one wrong class, one on nothing, and one object missed."""
    objects = [[(LEFT, 0), (RIGHT, 1)], [(BELOW, 0)], [], [(LEFT, 1)]]
    found = [
        [(LEFT, 0, 0.9), (RIGHT, 1, 0.75)],
        [(BELOW, 0, 0.5), (RIGHT, 1, 0.125)],
        [(LEFT, 0, 0.625)],
        [(LEFT, 0, 0.75), (BELOW, 1, 0.0625)],
    ]
    return measured(objects, found)


def test_working_point_is_of_all_classes_together(metrics):
    point = working_point(metrics.curves())
    assert (point.score, point.precision, point.recall) == (0.5, 3 / 5, 3 / 4)
    assert point.f1 == pytest.approx(2 * 3 / (5 + 4))


def test_facts(metrics):
    facts = detector_facts(metrics)
    json.dumps(facts, allow_nan=False)
    assert facts["right"] == 3
    counts = {kind: error["count"] for kind, error in facts["errors"].items()}
    assert counts == {
        "classification": 1,
        "localisation": 0,
        "both": 0,
        "duplicate": 0,
        "background": 1,
        "missed": 0,  # What was found as another class is an error of classification.
    }
    assert facts["errors"]["background"]["all"] == 3
    ant, cow = facts["classes"]["ant"], facts["classes"]["cow"]
    assert ant["curve"] == {"score": [0.9, 0.5], "precision": [1.0, 0.5], "recall": [0.5, 1.0]}
    assert ant["AP50"] == pytest.approx(metrics.result()["AP/ant"], abs=1e-5)  # All boxes fit exactly.
    assert cow == {
        "objects": 0,
        "AP50": None,
        "best": None,
        "curve": {"score": [], "precision": [], "recall": []},
    }


@pytest.mark.parametrize("objects", [[[]], [[(LEFT, 0)]]])
def test_facts_where_nothing_is_found_or_there(objects):
    facts = detector_facts(measured(objects, [[]]))
    json.dumps(facts, allow_nan=False)
    assert facts["working_point"] is None and facts["right"] == 0
    assert facts["errors"]["missed"]["count"] == len(objects[0])
    chart, left_out = recall_chart({"float": facts})
    assert chart == "" and left_out == 0
    assert [row["cells"][0][2] for row in error_rows({"float": facts})][:5] == [0] * 5


def test_long_curves_are_thinned_to_points_of_their_own():
    random = np.random.default_rng(0)
    boxes = [[index * 12, 0, index * 12 + 10, 10] for index in range(400)]
    scores = random.uniform(0.01, 1, 400)
    metrics = DetectionMetrics(("ant",), max_detections=(1, 10, 1000))
    wrong = [([0, 50, 9, 60], 0, score) for score in random.uniform(0, 0.6, 200)]
    metrics.update(
        *batch(
            [[(box, 0) for box in boxes]],
            [[*((box, 0, score) for box, score in zip(boxes, scores, strict=True)), *wrong]],
        )
    )
    curve, whole = detector_facts(metrics)["classes"]["ant"]["curve"], metrics.curves()["ant"]
    assert len(curve["recall"]) == 100
    assert curve["recall"][0] == 1 / 400 and curve["recall"][-1] == 1
    places = [int(np.argmin(abs(whole.recall - recall))) for recall in curve["recall"]]
    np.testing.assert_allclose(curve["precision"], whole.precision[places], atol=1e-4)


def test_detections_above_a_score(metrics):
    kept = above(metrics.images[1], 0.5)
    assert len(kept.found) == len(kept.scores) == len(kept.found_classes) == 1
    np.testing.assert_array_equal(kept.found.values, [[2, 20, 10, 10]])


def test_chosen_images_are_spread_and_have_the_most_errors(metrics):
    assert choose_images(metrics.images, 0.5, 2) == [(0, False), (2, False), (3, True), (2, True)]
    assert choose_images(metrics.images[:1], 0.5) == [(0, False)]


def example_of(metrics_index, pixels, found, mistake=False):
    objects = [[(LEFT, 0), (RIGHT, 1)], [(BELOW, 0)], [], [(LEFT, 1)]][metrics_index]
    example = {
        "image": pixels,
        "boxes": np.array([box for box, _ in objects], np.float32).reshape(-1, 4),
        "classes": np.array([label for _, label in objects], np.int64),
        "crowd": np.zeros(len(objects), bool),
    }
    boxes, classes, scores = (list(part) for part in zip(*found, strict=True)) if found else ([], [], [])
    return DetectorExample(example, {"float": Found((32, 32), np.reshape(boxes, (-1, 4)), classes, scores)}, mistake)


@pytest.mark.parametrize(
    ("index", "found", "truth", "verdict"),
    [
        (0, [(LEFT, 0, 0.9), (RIGHT, 1, 0.8)], "1 ant, 1 bee", "found 2 of 2"),
        (0, [(LEFT, 1, 0.9)], "1 ant, 1 bee", "found 0 of 2; missed 1 ant, 1 bee; wrong 1 bee"),
        (2, [], "nothing", "nothing to find"),
        (2, [(LEFT, 0, 0.9), (LEFT, 0, 0.8)], "nothing", "nothing to find; wrong 2 ant"),
    ],
)
def test_pictures_say_what_was_found(index, found, truth, verdict):
    shown = show_example(example_of(index, np.zeros((32, 32, 3), np.uint8), found), LABELS)
    assert [(panel["title"], panel["words"]) for panel in shown["panels"]] == [("true", truth), ("float", verdict)]


def write_run(folder, metrics, labels, **changes):
    facts, figures = detector_facts(metrics), metrics.result()
    content = {
        "kerasvision": "0.1.0",
        "date": "2026-11-23T18:00+00:00",
        "model": "retinanet",
        "task": "detection",
        "labels": list(labels),
        "data": {"source": "insects", "train": 20, "validation": 4, "test": 0, "skipped": []},
        "parameters": 1000,
        "training": {
            "epochs": 2,
            "seconds": 3.0,
            "history": {"loss": [2.0, 1.0], "val_AP": [0.1, 0.2], "val_AP50": [0.2, 0.4]},
        },
        "metrics": {"split": "validation", "float": {key: value for key, value in figures.items() if value == value}},
        "exports": [],
        "detection": {"float": facts, "image_size": [32, 32]},
        **changes,
    }
    (folder / "metrics.json").write_text(json.dumps(content))
    (folder / "recipe.yaml").write_text("data: {source: digits}\nmodel: {name: retinanet}\n")
    return content


def test_page(tmp_path, metrics):
    metrics.labels = labels = (NASTY, "bee", "cow")
    content = write_run(tmp_path, metrics, labels)
    found = [(LEFT, 0, 0.75)]
    pixels = np.zeros((32, 32, 3), np.uint8)
    page = Page(write_report(tmp_path, [example_of(0, pixels, found), example_of(3, pixels, found, True)]).read_text())
    text = "".join(page.text)
    assert NASTY in text and not page.named("script")
    assert "3 of 4 objects are found (recall 75.0 %), and 60.0 % of its boxes are right" in text
    assert "from a score of 0.5" in text
    assert all(image["src"].startswith("data:image/") and image["alt"] for image in page.named("img"))
    assert all("scope" in header for header in page.named("th"))
    assert "AP, cow" not in text  # Classes have a table of their own.
    assert {card["title"]: card["note"] for card in cards(content)} == {
        "AP, float": "4 validation images, 4 objects",
        "AP50, float": "4 validation images, 4 objects",
    }
    told = " ".join(warnings(content))
    assert "Only 4 validation images with 4 objects" in told and "bee (2)" in told and "cow" not in told
    card = write_card(tmp_path).read_text()
    assert "A detector" in card and "60.0 % of the boxes are right" in card and "The hardest class: " in card


def test_many_classes_begin_with_the_worst():
    labels = [f"class {index}" for index in range(30)]
    objects = [[(LEFT, index)] for index in range(29)]
    found = [[(LEFT if index != 7 else RIGHT, index, 0.5)] for index in range(29)]
    metrics = measured(objects, found, labels)
    facts, figures = {"float": detector_facts(metrics)}, metrics.result()
    known = {key: value for key, value in figures.items() if value == value}
    rows = class_rows(facts, {"float": known}, 20)
    assert rows[0]["label"] == "class 7" and rows[0]["cells"] == [0.0]
    assert rows[-1]["label"] == "class 29" and rows[-1]["cells"] == [None]
    assert [row["label"] for row in class_rows(facts, {"float": known}, 40)] == labels
    chart, left_out = recall_chart(facts)
    assert left_out == 20 and chart.count('class="legend"') == 8
