"""A whole run of a detector, from a folder of drawn shapes to its report."""

import json
import math
import re
from pathlib import Path

import numpy as np
import pytest
from html_page import Page
from PIL import Image, ImageDraw
from tensorboard.backend.event_processing.event_accumulator import EventAccumulator

import kerasvision as kv
from kerasvision.errors import RecipeError
from kerasvision.recipe import DataRecipe, ExportRecipe, ModelRecipe, QuantizeRecipe, Recipe, TrainRecipe

EPOCHS = 2
SIZE = (64, 96)
LABELS = ["disc", "square"]


def draw_set(folder, counts):
    """A COCO set: discs and squares on a grey image; every fourth image has none."""
    random = np.random.default_rng(0)
    for split, count in counts.items():
        (folder / split).mkdir(parents=True)
        images, annotations = [], []
        for index in range(count):
            picture = Image.new("RGB", SIZE[::-1], (90, 90, 90))
            pen = ImageDraw.Draw(picture)
            for _ in range(0 if index % 4 == 3 else random.integers(1, 4)):
                side = int(random.integers(16, 33))
                left, top = (int(random.integers(0, length - side)) for length in SIZE[::-1])
                kind = int(random.integers(2))
                form = (pen.ellipse, pen.rectangle)[kind]
                form((left, top, left + side - 1, top + side - 1), fill=((220, 60, 60), (60, 90, 220))[kind])
                box = [left, top, side, side]
                annotations.append(
                    {"id": len(annotations) + 1, "image_id": index, "category_id": kind + 1, "bbox": box, "iscrowd": 0}
                    | {"area": side * side}
                )
            name = f"{split}_{index}.png"
            picture.save(folder / split / name)
            images.append({"id": index, "file_name": name, "width": SIZE[1], "height": SIZE[0]})
        categories = [{"id": number, "name": label} for number, label in enumerate(LABELS, 1)]
        content = {"images": images, "annotations": annotations, "categories": categories}
        (folder / f"{split}.json").write_text(json.dumps(content))
    return folder


def make_recipe(folder, **fields) -> Recipe:
    arguments = {
        "backbone": "small_cnn",
        "backbone_arguments": {"filters": [8, 8, 16, 16, 16], "depth": 1},
        "filters": 16,
        "depth": 1,
        "levels": ["P3", "P4"],
        "detections": 5,
        "candidates": 20,
    }
    defaults = {
        "data": DataRecipe(str(folder), augment=({"name": "flip"},)),
        "model": ModelRecipe("retinanet", (*SIZE, 3), arguments=arguments),
        "train": TrainRecipe(epochs=EPOCHS, batch_size=8, learning_rate=0.003),
        "quantize": QuantizeRecipe(epochs=1, learning_rate=1e-4, batch_size=8),
        "export": ExportRecipe(formats=()),
    }
    return Recipe(**{**defaults, **fields})


@pytest.fixture(scope="module")
def shapes(tmp_path_factory):
    return draw_set(tmp_path_factory.mktemp("data") / "shapes", {"train": 24, "val": 9})


@pytest.fixture(scope="module")
def run(shapes, tmp_path_factory):
    folder = tmp_path_factory.mktemp("runs") / "shapes"
    kv.train(make_recipe(shapes), folder, progress=False)
    return folder


@pytest.fixture(scope="module")
def metrics(run):
    def refuse(name):
        raise AssertionError(f"{name} is no JSON")

    return json.loads((run / "metrics.json").read_text(), parse_constant=refuse)


def test_metrics_are_those_of_the_saved_model(run, metrics):
    assert metrics["task"] == "detection" and metrics["labels"] == LABELS
    figures = metrics["metrics"]
    assert {"AP", "AP50", "AP75", "AR100", "AP/disc", "AP/square"} <= figures["float"].keys()
    assert figures["float"].keys() == figures["quantized"].keys()
    measured = kv.evaluate(run, metrics["data"]["source"], split=figures["split"])
    assert measured == pytest.approx(figures["float"])
    assert len(metrics["training"]["history"]["val_AP50"]) == EPOCHS


def test_curves_and_errors_agree_with_the_figures(metrics):
    for kind in ("float", "quantized"):
        facts, figures = metrics["detection"][kind], metrics["metrics"][kind]
        known = [each["AP50"] for each in facts["classes"].values() if each["objects"]]
        assert np.mean(known) == pytest.approx(figures["AP50"], abs=1e-4)
        for each in facts["classes"].values():
            curve = each["curve"]
            assert len(curve["recall"]) == len(curve["precision"]) == len(curve["score"]) <= 100
            assert curve["recall"] == sorted(curve["recall"])
            assert all(0 < value <= 1 for value in (*curve["recall"], *curve["precision"], *curve["score"]))
        for error in facts["errors"].values():
            assert error["count"] >= 0
            assert 0 <= error["cost"] <= 1
    objects = sum(each["objects"] for each in metrics["detection"]["float"]["classes"].values())
    annotations = json.loads((Path(metrics["data"]["source"]) / "val.json").read_text())["annotations"]
    assert objects == len(annotations)


def test_metrics_are_readable(run):
    lines = (run / "metrics.json").read_text().splitlines()
    assert len(lines) < 600
    assert any(line.strip().startswith('"loss": [') and line.count(",") >= EPOCHS - 1 for line in lines)


def test_report_shows_pictures_curves_and_errors(run, metrics):
    page = Page((run / "report.html").read_text())
    text = "".join(page.text)
    for wanted in ("Classes", "Errors by their kind", "Example predictions", "Duplicate", "AP50, float"):
        assert wanted in text
    assert not re.search(r"Confusion matrix|\bnan\b|\bNone\b", text)
    pictures = [image["alt"] for image in page.named("img")]
    assert len(pictures) % 3 == 0 and len(pictures) >= 18
    assert [alt.split(":")[0] for alt in pictures[:3]] == ["true", "float", "quantized"]
    assert any("disc" in alt for alt in pictures) and "true: nothing" in pictures
    names = [chart["aria-label"] for chart in page.named("svg")]
    assert any(name.startswith("average precision by epoch: AP ends at") for name in names)
    card = (run / "model_card.md").read_text()
    assert "A detector" in card and "`boxes`" in card and "| AP50 |" in card


def read(folder):
    events = EventAccumulator(str(folder), size_guidance={"tensors": 0})
    events.Reload()
    return events


def pictures(events, tag):
    import tensorflow as tf

    return {
        event.step: tf.io.decode_png(tf.make_ndarray(event.tensor_proto)[2]).numpy() for event in events.Tensors(tag)
    }


def test_tensorboard_shows_pictures_curves_and_errors(run, metrics):
    train, validation = read(run / "logs" / "train"), read(run / "logs" / "validation")
    inputs = pictures(train, "inputs")
    assert list(inputs) == [0] and inputs[0].std() > 20
    for folder in (validation, read(run / "logs" / "quantization" / "validation")):
        for tag in ("predictions", "precision_recall", "errors"):
            found = pictures(folder, tag)
            assert max(found) == (EPOCHS if folder is validation else 1) and len(found) == max(found)
            assert min(found[1].shape[:2]) > 300 and found[1].std() > 10
    import tensorflow as tf

    values = [float(tf.make_ndarray(event.tensor_proto)) for event in validation.Tensors("AP50")]
    assert values == pytest.approx(metrics["training"]["history"]["val_AP50"], rel=1e-5)
    assert all(math.isfinite(value) for value in values)


def test_monitor_of_a_detector(shapes, tmp_path):
    train = TrainRecipe(epochs=1, batch_size=8, learning_rate=0.003, monitor="val_AP51")
    with pytest.raises(RecipeError, match="val_AP50"):
        kv.train(make_recipe(shapes, train=train, quantize=QuantizeRecipe(enabled=False)), tmp_path / "run")
