"""Segmenters through the Predictor: class maps in the image's own pixels, figures over a data set, and the verbs."""

import json
import math

import cv2
import keras
import numpy as np
import pytest
from click.testing import CliRunner
from PIL import Image

import kerasvision as kv
from kerasvision.class_maps import ClassMaps
from kerasvision.cli import main
from kerasvision.data.arrays import load_arrays
from kerasvision.data.decode import placement, unfit_classes
from kerasvision.errors import DataError
from kerasvision.overlay import colour
from kerasvision.preprocessing import Preprocessing
from kerasvision.runtime import Predictor
from kerasvision.segmentation import SegmentationMetrics, SegmentationTask, find_objects
from kerasvision.segmentations import Segmentations

LABELS = ("ground", "red", "blue")
COLOURS = np.uint8([[90, 90, 90], [230, 40, 40], [40, 60, 230]])
SIZE = (48, 64)
VOID = 255
FITS = (
    Preprocessing(),
    Preprocessing(fit="letterbox"),
    Preprocessing(fit="crop", crop_fraction=0.875),
    Preprocessing(fit="crop"),
)


class ByColour:
    """An engine that gives each pixel the class whose colour is nearest."""

    format = "keras"
    outputs = ("classes",)

    def __init__(self, preprocessing=FITS[0], labels=LABELS, colours=COLOURS, **arguments):
        task = SegmentationTask(labels=labels, image_size=SIZE, **arguments)
        self.colours = colours
        self.metadata = {
            "task": {"name": task.name, **task.get_config()},
            "name": "by_colour",
            "preprocessing": preprocessing.get_config(),
            "image_size": SIZE,
            "channels": 3,
            "quantization": "none",
        }

    def run(self, images):
        away = np.abs(images.astype(np.float32)[..., None, :] - self.colours.astype(np.float32)).sum(axis=-1)
        return {"classes": away.argmin(axis=-1).astype(np.float32)}


def predictor(tmp_path, *arguments, **options):
    return Predictor(ByColour(*arguments, **options), tmp_path / "by_colour.keras", "keras")


def drawn(size, seed=0):
    """A class map with a red and a blue rectangle."""
    random = np.random.default_rng(seed)
    classes = np.zeros(size, np.uint8)
    for kind in (1, 2):
        sides = [int(random.integers(side // 4, side // 2)) for side in size]
        top, left = (int(random.integers(0, side - own)) for side, own in zip(size, sides, strict=True))
        classes[top : top + sides[0], left : left + sides[1]] = kind
    return classes


@pytest.mark.parametrize("fit", FITS, ids=lambda fit: f"{fit.fit}_{fit.crop_fraction}")
@pytest.mark.parametrize("source", [(48, 64), (37, 91), (130, 70)])
def test_maps_come_back_to_the_image(fit, source):
    fitted = np.arange(SIZE[0] * SIZE[1]).reshape(SIZE) % 200
    found = unfit_classes(fitted, source, SIZE, fit)
    resized, offset = placement(source, SIZE, fit)
    assert found.shape == source and found.dtype == np.uint8
    for row, column in np.random.default_rng(0).integers(0, source, (200, 2)):
        y = math.floor((row + 0.5) * resized[0] / source[0]) + offset[0]
        x = math.floor((column + 0.5) * resized[1] / source[1]) + offset[1]
        inside = 0 <= y < SIZE[0] and 0 <= x < SIZE[1]
        assert found[row, column] == (fitted[y, x] if inside else VOID)
    assert (found == VOID).any() == (fit.fit == "crop" and (resized[0] > SIZE[0] or resized[1] > SIZE[1]))


@pytest.mark.parametrize("fit", FITS, ids=lambda fit: f"{fit.fit}_{fit.crop_fraction}")
def test_predictions_lie_where_the_image_has_them(tmp_path, fit):
    truths = [drawn(size, seed) for seed, size in enumerate([(48, 64), (40, 90), (120, 70)])]
    found = predictor(tmp_path, fit).predict([COLOURS[truth] for truth in truths])
    assert isinstance(found, Segmentations) and len(found) == 3
    for index, truth in enumerate(truths):
        assert found[index].shape == truth.shape
        # Blends of two colours at the outlines may be nearest to the third.
        inner = cv2.erode(truth, np.ones((7, 7))) == cv2.dilate(truth, np.ones((7, 7)))
        known = inner & (found[index] != VOID)
        assert known.any() and (found[index][known] == truth[known]).all()


def test_saved_pictures(tmp_path):
    truth = drawn(SIZE)
    Image.fromarray(COLOURS[truth]).save(tmp_path / "scene.png")
    found = predictor(tmp_path).predict(str(tmp_path / "scene.png"))
    files = found.save(tmp_path / "out")
    assert [file.name for file in files] == ["scene_prediction.png", "scene_classes.png", "predictions.json"]
    with Image.open(files[1]) as picture:
        assert picture.mode == "P" and picture.size == SIZE[::-1]
        np.testing.assert_array_equal(np.asarray(picture), truth)
        shown = np.asarray(picture.convert("RGB"))
    for index in range(3):
        assert (shown[truth == index] == colour(index)).all()
    with Image.open(files[0]) as drawing:
        assert drawing.height > drawing.width * SIZE[0] // SIZE[1]  # The legend.
    entry = json.loads(files[2].read_text())["predictions"][0]
    assert entry["drawn"] == "scene_prediction.png" and entry["classes_file"] == "scene_classes.png"
    assert entry["size"] == list(SIZE) and "objects" not in entry
    assert entry["classes"] == {
        label: pytest.approx(np.mean(truth == LABELS.index(label)), abs=1e-6) for label in entry["classes"]
    }
    assert list(entry["classes"].values()) == sorted(entry["classes"].values(), reverse=True)
    with pytest.raises(ValueError, match="no class for the borders"):
        found.objects(0)


def test_objects_by_their_border(tmp_path):
    truth = np.zeros(SIZE, np.uint8)
    truth[8:24, 8:40] = 1
    truth[8:24, 22:25] = 2
    found = predictor(tmp_path, labels=("background", "cell", "border"), border="border").predict(COLOURS[truth])
    np.testing.assert_array_equal(found.objects(0), find_objects(truth, border=2))
    assert found.objects(0).max() == 2 and found.to_dict()["predictions"][0]["objects"] == 2


def test_results_are_checked():
    image = np.zeros((4, 4, 3), np.uint8)
    with pytest.raises(ValueError, match="1 images, got 2"):
        Segmentations((image,), (np.zeros((4, 4), np.uint8),) * 2, LABELS)
    with pytest.raises(ValueError, match=r"0\.\.2, or 255, got 3"):
        Segmentations((image,), (np.full((4, 4), 3, np.uint8),), LABELS)
    with pytest.raises(ValueError, match='"edge"'):
        Segmentations((image,), (np.zeros((4, 4), np.uint8),), LABELS, border="edge")


def test_figures_of_a_data_set(tmp_path):
    truths = np.stack([drawn(SIZE, seed) for seed in range(5)])
    wrong = truths.copy()
    wrong[:, :9] = 1
    wrong[:, -4:] = VOID
    # The set has the model's labels in another order.
    order = np.full(256, VOID, np.uint8)
    order[:3] = [2, 0, 1]
    data = load_arrays(
        COLOURS[truths], segmentation=order[wrong], names=["red", "blue", "ground"], validation_fraction=0
    )
    model = predictor(tmp_path)
    expected = SegmentationMetrics(LABELS)
    expected.update({"segmentation": wrong}, {"classes": truths})
    assert model.evaluate(data, "train") == pytest.approx(expected.result())
    targets, predictions = model.collect(data, "train")
    assert targets["segmentation"].shape == predictions["classes"].shape == (5, *SIZE)
    batches = [(COLOURS[truths].astype(np.float32), wrong)]
    assert model.evaluate(batches)["mIoU"] == pytest.approx(expected.result()["mIoU"])
    with pytest.raises(DataError, match='does not know the labels "grass"'):
        model.evaluate(load_arrays(COLOURS[truths], segmentation=truths, names=["ground", "red", "grass"]), "train")
    with pytest.raises(DataError, match="is a segmenter: it is judged by labels of pixels.*labels of whole images"):
        model.evaluate(load_arrays(COLOURS[truths], [0, 1, 0, 1, 0]), "train")


def test_objects_of_a_data_set(tmp_path):
    truth = np.zeros((2, *SIZE), np.uint8)
    truth[:, 8:24, 8:20] = truth[:, 8:24, 24:40] = 1
    colours = np.concatenate([COLOURS[:1], COLOURS[1:2], COLOURS[2:]])
    np.savez(tmp_path / "cells.npz", images=colours[truth], segmentation=truth, names=["background", "cell"])
    model = predictor(tmp_path, labels=("background", "cell", "border"), border="border")
    data = model.load_data(tmp_path / "cells.npz")
    assert data.class_maps == ClassMaps()
    figures = model.evaluate(data, "train")
    assert figures["object_F1"] == figures["object_AP"] == figures["foreground_Dice"] == 1
    assert figures["IoU/border"] == 0


@pytest.fixture(scope="module")
def saved(tmp_path_factory):
    """A small net with fresh weights in a file, and a data set."""
    folder = tmp_path_factory.mktemp("segmenter")
    keras.utils.set_random_seed(0)
    model = kv.create_model(
        "unet",
        labels=LABELS,
        input_shape=(*SIZE, 3),
        backbone="small_cnn",
        backbone_arguments={"filters": [8, 8, 8], "depth": 1},
        levels=["P1", "P2"],
        filters=[8],
    )
    model.save(folder / "model.keras")
    truths = np.stack([drawn(SIZE, seed) for seed in range(6)])
    np.savez(folder / "set.npz", images=COLOURS[truths], segmentation=truths, names=LABELS)
    Image.fromarray(COLOURS[drawn((50, 90))]).save(folder / "scene.png")
    return folder


def call(*arguments):
    return CliRunner().invoke(main, [str(argument) for argument in arguments])


def test_verbs(saved, tmp_path):
    model = saved / "model.keras"
    measured = call("evaluate", model, "--data", saved / "set.npz", "--split", "all", "--json")
    assert measured.exit_code == 0, measured.stderr
    values = json.loads(measured.stdout)
    assert values["metrics"] == pytest.approx(kv.evaluate(model, saved / "set.npz", split="all"))
    assert sum(values["pixels"].values()) == 6 * SIZE[0] * SIZE[1] and list(values["pixels"]) == list(LABELS)
    shown = call("evaluate", model, "--data", saved / "set.npz", "--split", "all").stdout
    assert "Outline F1" in shown and f"{values['metrics']['IoU/red']:.6f}" in shown and "mIoU" in shown
    result = call("predict", model, saved / "scene.png", "--out", tmp_path / "out")
    assert result.exit_code == 0, result.stderr
    assert "2 pictures and predictions.json" in result.stdout.replace("\n", " ")
    with Image.open(tmp_path / "out" / "scene_classes.png") as picture:
        assert picture.size == (90, 50)
        np.testing.assert_array_equal(np.asarray(picture), kv.load(model).predict(str(saved / "scene.png"))[0])
    for option in (["--score", "0.3"], ["--top", "2"]):
        refused = call("predict", model, saved / "scene.png", *option)
        assert refused.exit_code == 2 and "is a segmenter" in refused.stderr


def test_objects_are_as_large_in_the_image_as_in_what_the_net_saw():
    """Two discs joined by a bridge, and a small one: sizes are those of a net that saw a quarter of each side."""
    small = np.zeros((32, 48), np.uint8)
    for x in (10, 24):
        cv2.circle(small, (x, 16), 7, 1, -1)
    cv2.circle(small, (40, 16), 2, 1, -1)
    large = np.kron(small, np.ones((4, 4), np.uint8))
    labels = ("background", "cell", "border")
    for maps, seen in ((small, None), (small, (32, 48)), (large, (32, 48))):
        found = Segmentations((maps,), (maps,), labels, "border", min_area=20, neck=1.0, seen=seen).objects(0)
        assert found.max() == 2 and not found[:, -maps.shape[1] // 5 :].any()
    assert Segmentations((large,), (large,), labels, "border", min_area=20).objects(0).max() == 2
    assert Segmentations((small,), (small,), labels, "border", min_area=1, neck=1.0).objects(0).max() == 3
