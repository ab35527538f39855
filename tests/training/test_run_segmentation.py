"""A whole run of a segmenter, from a file of coloured rectangles to its report."""

import dataclasses
import json
import re

import numpy as np
import pytest
from html_page import Page
from tensorboard.backend.event_processing.event_accumulator import EventAccumulator

import kerasvision as kv
from kerasvision.data import Data
from kerasvision.errors import DataError, RecipeError
from kerasvision.recipe import DataRecipe, ExportRecipe, ModelRecipe, QuantizeRecipe, Recipe, TrainRecipe, load_recipe
from kerasvision.run_data import load_recipe_data
from kerasvision.training.fit import build_model

EPOCHS = 2
SIZE = (32, 48)
LABELS = ["ground", "red", "blue"]
COLOURS = np.uint8([[90, 90, 90], [220, 60, 60], [60, 90, 220]])


def draw_set(path, count=24):
    """Images with rectangles whose class is their colour, and class maps with void in a corner."""
    random = np.random.default_rng(0)
    classes = np.zeros((count, *SIZE), np.uint8)
    for index in range(count):
        for _ in range(random.integers(1, 4)):
            sides = [int(random.integers(8, side // 2)) for side in SIZE]
            top, left = (int(random.integers(0, side - own)) for side, own in zip(SIZE, sides, strict=True))
            classes[index, top : top + sides[0], left : left + sides[1]] = random.integers(1, 3)
    images = COLOURS[classes] + random.integers(0, 30, (count, *SIZE, 3)).astype(np.uint8)
    classes[:, :3, :4] = 255
    np.savez(path, images=images, segmentation=classes, names=LABELS)
    return path


def make_recipe(path, **fields) -> Recipe:
    arguments = {
        "backbone": "small_cnn",
        "backbone_arguments": {"filters": [8, 8, 16, 16], "depth": 1},
        "levels": ["P1", "P2", "P3"],
        "filters": [16, 8],
    }
    defaults = {
        "data": DataRecipe(str(path), validation_fraction=0.3, augment=({"name": "flip"},)),
        "model": ModelRecipe("unet", (*SIZE, 3), arguments=arguments),
        "train": TrainRecipe(epochs=EPOCHS, batch_size=8, learning_rate=0.01, class_weights="balanced"),
        "quantize": QuantizeRecipe(epochs=1, learning_rate=1e-4, batch_size=8),
        "export": ExportRecipe(formats=()),
    }
    return Recipe(**{**defaults, **fields})


@pytest.fixture(scope="module")
def rectangles(tmp_path_factory):
    return draw_set(tmp_path_factory.mktemp("data") / "rectangles.npz")


@pytest.fixture(scope="module")
def run(rectangles, tmp_path_factory):
    folder = tmp_path_factory.mktemp("runs") / "rectangles"
    kv.train(make_recipe(rectangles), folder, progress=False)
    return folder


@pytest.fixture(scope="module")
def metrics(run):
    def refuse(name):
        raise AssertionError(f"{name} is no JSON")

    return json.loads((run / "metrics.json").read_text(), parse_constant=refuse)


def test_metrics_are_those_of_the_saved_model(run, metrics):
    assert metrics["task"] == "segmentation" and metrics["labels"] == LABELS
    figures = metrics["metrics"]
    assert {"mIoU", "Dice", "pixel_accuracy", "IoU/ground", "boundary_F1"} <= figures["float"].keys()
    history = metrics["training"]["history"]
    assert len(history["val_mIoU"]) == len(history["val_IoU/red"]) == EPOCHS
    assert figures["float"]["mIoU"] == pytest.approx(max(history["val_mIoU"]))
    assert metrics["training"]["best_epoch"] == 1 + np.argmax(history["val_mIoU"])
    assert metrics["training"]["qat_history"]["val_mIoU"] == [pytest.approx(figures["quantized"]["mIoU"])]


def test_confusions_agree_with_the_figures(metrics):
    for kind in ("float", "quantized"):
        matrix = np.array(metrics["segmentation"][kind]["confusion_matrix"])
        right = np.diag(matrix)
        ious = right / (matrix.sum(axis=0) + matrix.sum(axis=1) - right)
        assert np.nanmean(ious) == pytest.approx(metrics["metrics"][kind]["mIoU"])
        # Seven images, without their void.
        assert matrix.sum() == metrics["data"]["validation"] * (np.prod(SIZE) - 12)


def test_report_shows_classes_confusions_and_the_worst_images(run, metrics):
    page = Page((run / "report.html").read_text())
    text = "".join(page.text)
    for wanted in (
        "Classes",
        "Confusion matrix",
        "Worst images",
        "Example predictions",
        "mIoU, float",
        "IoU, quantized",
    ):
        assert wanted in text
    assert not re.search(r"Errors by their kind|\bnan\b|\bNone\b", text)
    alts = [image["alt"] for image in page.named("img")]
    assert len(alts) % 3 == 0 and len(alts) >= 18
    assert [alt.split(":")[0] for alt in alts[:3]] == ["true", "float", "quantized"]
    shown = [float(re.search(r"mIoU ([\d.]+) %", alt)[1]) for alt in alts if alt.startswith("float")]
    worst = shown[:6]
    assert worst == sorted(worst) and max(worst) >= worst[0] == min(shown)
    names = [chart["aria-label"] for chart in page.named("svg")]
    assert any(re.match(r"IoU by class by epoch: .*red ends at", name) for name in names)
    card = (run / "model_card.md").read_text()
    assert "A segmenter" in card and "`classes`" in card and "| mIoU |" in card and re.search(r"\(IoU [\d.]+ %\)", card)


def test_tensorboard_shows_class_maps_and_confusions(run):
    for folder, steps in ((run / "logs", EPOCHS), (run / "logs" / "quantization", 1)):
        events = EventAccumulator(str(folder / "validation"), size_guidance={"tensors": 0}).Reload()
        for tag in ("predictions", "confusion_matrix", "mIoU", "IoU/blue"):
            assert [event.step for event in events.Tensors(tag)] == list(range(1, steps + 1))


def test_classes_are_weighed_by_their_pixels(run, rectangles):
    """Median-frequency balancing of the training masks, in the loss alone; costs are taken as they are."""
    recipe = load_recipe(run / "recipe.yaml")
    data = load_recipe_data(recipe.data)
    (masks,) = [targets["segmentation"].numpy() for _, targets in data.batches("train", image_size=SIZE, batch_size=99)]
    frequencies = []
    for index in range(3):
        shown = masks[(masks == index).any(axis=(1, 2))]
        frequencies.append(np.mean(shown[shown != 255] == index))
    task = kv.load(run).task
    np.testing.assert_allclose(np.divide(task.class_weights, task.class_weights[0]), frequencies[0] / frequencies)
    weighed = dataclasses.replace(recipe, train=dataclasses.replace(recipe.train, class_weights={"blue": 7.0}))
    assert build_model(weighed, data).task.class_weights == (1, 1, 7)
    twice = dataclasses.replace(recipe.model, arguments={**recipe.model.arguments, "class_weights": [1, 2, 3]})
    with pytest.raises(RecipeError, match="are the same; leave one of them out"):
        build_model(dataclasses.replace(recipe, model=twice), data)


def test_classes_of_objects_are_not_weighed():
    boxes = {"boxes": np.float32([[1, 1, 9, 9]]), "classes": np.array([0]), "crowd": np.array([False])}
    data = Data(("cell",), {"train": [{"image": np.zeros((32, 32, 3), np.uint8), **boxes}]})
    train = TrainRecipe(class_weights="balanced")
    with pytest.raises(RecipeError, match="Leave it out for a detector"):
        build_model(Recipe(DataRecipe("cells"), ModelRecipe("retinanet", (32, 32, 3)), train), data)


def test_monitor_of_a_segmenter(rectangles, tmp_path):
    train = TrainRecipe(epochs=1, batch_size=8, learning_rate=0.003, monitor="val_mIuO")
    with pytest.raises(RecipeError, match="val_mIoU"):
        kv.train(make_recipe(rectangles, train=train), tmp_path / "run")


def test_other_data_is_refused(tmp_path):
    with pytest.raises(DataError, match='learns from "segmentation"'):
        kv.train(make_recipe("digits", data=DataRecipe("digits")), tmp_path / "run")
