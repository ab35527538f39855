"""Detectors through the Predictor: boxes in the image's own pixels, figures over a data set, and the verbs."""

import contextlib
import io
import json
import shutil
from pathlib import Path

import keras
import numpy as np
import pytest
from click.testing import CliRunner
from PIL import Image
from pycocotools.coco import COCO
from pycocotools.cocoeval import COCOeval

import kerasvision as kv
from kerasvision.cli import main
from kerasvision.data import load_data, load_image
from kerasvision.data.decode import placement, unfit_boxes
from kerasvision.detection import DetectionTask
from kerasvision.detections import Detections, Found
from kerasvision.errors import DataError, RecipeError
from kerasvision.preprocessing import Preprocessing
from kerasvision.runtime import Predictor, evaluate, load

LABELS = ("red", "green")
SIZE = (96, 128)
FITS = (
    Preprocessing(),
    Preprocessing(fit="letterbox"),
    Preprocessing(fit="crop", crop_fraction=0.875),
    Preprocessing(fit="crop"),
)


class Painted:
    """An engine that finds the rectangle of red and the rectangle of green in an image."""

    format = "keras"

    def __init__(self, preprocessing=FITS[0], masks=None, labels=LABELS, scores=(0.9, 0.4)):
        task = DetectionTask(labels=labels, image_size=SIZE)
        self.metadata = {
            "task": {"name": task.name, **task.get_config()},
            "name": "painted",
            "preprocessing": preprocessing.get_config(),
            "image_size": SIZE,
            "channels": 3,
            "quantization": "none",
        }
        self.masks = masks
        self.outputs = ("boxes", "scores", "classes", "count", *([] if masks is None else [masks]))
        self.scores = scores
        self.seen = []

    def run(self, images):
        self.seen.append(images.shape)
        found = [self.find(image) for image in images.astype(np.float32)]
        return {name: np.stack([each[name] for each in found]).astype(np.float32) for name in found[0]}

    def find(self, image):
        outputs = {"boxes": np.zeros((4, 4)), "scores": np.zeros(4), "classes": np.zeros(4), "count": np.zeros(())}
        if self.masks is not None:
            outputs[self.masks] = np.zeros((4, *((24, 32) if self.masks == "masks" else (7, 7))))
        for label, others in ((0, (1, 2)), (1, (0, 2))):
            painted = image[..., label] - image[..., list(others)].max(axis=-1) > 100
            if not painted.any():
                continue
            (y0, x0), (y1, x1) = np.argwhere(painted).min(axis=0), np.argwhere(painted).max(axis=0) + 1
            index = int(outputs["count"])
            outputs["boxes"][index] = np.array([x0, y0, x1, y1]) / [SIZE[1], SIZE[0], SIZE[1], SIZE[0]]
            outputs["scores"][index], outputs["classes"][index] = self.scores[label], label
            if self.masks == "masks":
                outputs["masks"][index] = painted.reshape(24, 4, 32, 4).mean(axis=(1, 3))
            elif self.masks:
                outputs["box_masks"][index] = 1
            outputs["count"] += 1
        return outputs


def painted(**arguments):
    return Predictor(Painted(**arguments), Path("painted.keras"), "keras")


def picture(size, boxes):
    """Grey, with red in the first box and green in the second."""
    pixels = np.full((*size, 3), 90, np.uint8)
    for (x0, y0, x1, y1), ink in zip(boxes, ((255, 0, 0), (0, 255, 0)), strict=False):
        pixels[y0:y1, x0:x1] = ink
    return pixels


def iou(first, second):
    low, high = np.maximum(first[:2], second[:2]), np.minimum(first[2:], second[2:])
    common = np.maximum(high - low, 0).prod()
    return common / ((first[2:] - first[:2]).prod() + (second[2:] - second[:2]).prod() - common)


# (H, W), red, green; all of them in the middle, so that a crop shows them.
SCENES = [
    ((480, 640), (200, 150, 320, 260), (330, 280, 450, 420)),
    ((300, 120), (30, 115, 80, 150), (40, 160, 90, 185)),
    ((90, 400), (155, 20, 200, 50), (210, 30, 245, 70)),
    ((33, 44), (10, 8, 22, 16), (24, 18, 36, 28)),
]


@pytest.mark.parametrize("fitting", FITS, ids=["stretch", "letterbox", "crop 0.875", "crop"])
def test_boxes_come_back_to_the_image_s_own_pixels(fitting):
    images = [picture(size, boxes) for size, *boxes in SCENES]
    found = painted(preprocessing=fitting).predict(images)
    assert isinstance(found, Detections) and len(found) == 4
    for (size, *boxes), each in zip(SCENES, found, strict=True):
        assert each.size == size and each.classes.tolist() == [0, 1]
        pixel = max(np.divide(size, placement(size, SIZE, fitting)[0]).max(), 1)
        for box, wanted in zip(each.boxes, boxes, strict=True):
            np.testing.assert_allclose(box, wanted, atol=1.01 * pixel)


@pytest.mark.parametrize("fitting", FITS[:3], ids=["stretch", "letterbox", "crop"])
def test_unfitting_is_the_inverse_of_what_the_pipeline_does_to_boxes(fitting, tmp_path):
    size, *boxes = SCENES[0]
    Image.fromarray(picture(size, boxes)).save(tmp_path / "a.png")
    annotate(tmp_path / "train.json", ["a.png"], [SCENES[0]])
    data = load_data(tmp_path / "train.json", validation_fraction=0)
    _, targets = next(iter(data.batches("train", image_size=SIZE, preprocessing=fitting)))
    back = unfit_boxes(targets["boxes"][0].numpy(), size, SIZE, fitting)
    np.testing.assert_allclose(back, boxes, atol=1e-3)


def test_boxes_are_cut_at_the_image_and_those_beside_it_left_out():
    outputs = {
        # In the bars of a letterbox, half in them, over everything, without area, not a number, behind the count.
        "boxes": np.array([[0, 0, 0.1, 0.1], [0.3, 0, 0.5, 0.5], [0, 0, 1, 1], [0.5, 0.5, 0.5, 0.5], [np.nan] * 4] * 2),
        "scores": np.linspace(0.9, 0, 10),
        "classes": np.arange(10.0) % 2,
        "count": np.float32(5),
    }
    # 96 x 96 net pixels of the 128 are image, from the column 16.
    found = Found.from_outputs(outputs, (200, 200), SIZE, FITS[1])
    np.testing.assert_allclose(found.boxes, [[46.667, 0, 100, 100], [0, 0, 200, 200]], atol=1e-2)
    np.testing.assert_allclose(found.scores, [0.8, 0.7])
    assert found.classes.tolist() == [1, 0]


@pytest.mark.parametrize("kind", ["masks", "box_masks"])
@pytest.mark.parametrize("fitting", FITS, ids=["stretch", "letterbox", "crop 0.875", "crop"])
def test_masks_are_pasted_into_the_image(kind, fitting):
    size, *boxes = SCENES[0]
    found = painted(preprocessing=fitting, masks=kind).predict(picture(size, boxes))[0]
    masks = found.pasted()
    assert masks.size == size and len(masks) == 2
    for extent, (x0, y0, x1, y1), mask in zip(masks.extents(), boxes, masks.unpack(), strict=True):
        assert iou(extent, np.array([x0, y0, x1, y1])) > 0.8
        assert mask[y0 + 12 : y1 - 12, x0 + 12 : x1 - 12].all() and mask[: y0 - 12].sum() == 0


def test_a_mask_smaller_than_a_pixel_and_one_that_sticks_out():
    found = Found((10, 10), [[2, 2, 2.2, 2.2], [4, 4, 10, 10]], [0, 0], [1, 1], np.ones((2, 3, 3)))
    areas = found.pasted().areas()
    assert areas.tolist() == [0, 36]
    outside = Found((10, 10), [[4, 4, 10, 10]], [0], [1], np.ones((1, 3, 3)), np.array([[4.0, 4, 99, 99]]))
    assert outside.pasted().areas().tolist() == [36]


def test_threshold_of_what_is_shown():
    size, *boxes = SCENES[0]
    found = painted().predict([picture(size, boxes), picture(size, [])])
    assert len(found[0]) == 2 and len(found[0].above(0.5)) == 1 and len(found[1]) == 0
    shown = json.loads(json.dumps(found.to_dict()))
    assert shown["score"] == 0.5
    assert [each["label"] for each in shown["predictions"][0]["objects"]] == ["red"]
    assert shown["predictions"][1] == {"image": 1, "size": [480, 640], "objects": [], "best_score": None}
    assert len(found.to_dict(0.3)["predictions"][0]["objects"]) == 2
    lower = painted().predict(picture(size, boxes), score=0.3)
    assert len(lower.to_dict()["predictions"][0]["objects"]) == 2
    one, two = np.asarray(found.draw(0)), np.asarray(found.draw(0, score=0.3))
    _, top, right, bottom = found[0].boxes[1].round().astype(int)
    edge = (slice(top + 30, bottom - 30), slice(right - 1, right))
    assert (one[edge] != two[edge]).any(axis=-1).all()


def test_what_is_drawn_is_saved(tmp_path):
    size, *boxes = SCENES[0]
    files = painted(masks="masks").predict([picture(size, boxes)]).save(tmp_path)
    assert [file.name for file in files] == ["image0_prediction.png", "predictions.json"]
    assert Image.open(files[0]).size[0] == 640
    assert json.loads(files[1].read_text())["predictions"][0]["drawn"] == "image0_prediction.png"


def test_classes_beyond_the_labels_and_parts_that_do_not_fit():
    found = Found((9, 9), np.zeros((1, 4)), [2], [0.5])
    with pytest.raises(ValueError, match=r"classes in 0\.\.1, got 2"):
        Detections(("a.png",), (found,), LABELS)
    with pytest.raises(ValueError, match=r"in 2 images, got it of 1"):
        Detections(("a.png", "b.png"), (found,), LABELS)
    for changes, message in (
        ({"boxes": np.zeros((2, 4))}, r"boxes as \[1, 4\], got \[2, 4\]"),
        ({"scores": [np.nan]}, r"0\.\.1"),
        ({"boxes": np.full((1, 4), np.inf)}, "finite"),
        ({"masks": np.zeros((3, 3))}, r"masks as \[1, h, w\]"),
    ):
        with pytest.raises(ValueError, match=message):
            Found(**({"size": (9, 9), "boxes": np.zeros((1, 4)), "classes": [0], "scores": [0.5]} | changes))


def annotate(path, files, scenes, labels=LABELS, more=()):
    """A COCO file of scenes; categories get the ids 7, 8, ... and images 100, 101, ..."""
    content = {
        "images": [
            {"id": 100 + index, "file_name": file, "height": scene[0][0], "width": scene[0][1]}
            for index, (file, scene) in enumerate(zip(files, scenes, strict=True))
        ],
        "categories": [{"id": 7 + index, "name": name} for index, name in enumerate([*labels, *more])],
        "annotations": [],
    }
    for index, (_, *boxes) in enumerate(scenes):
        for label, (x0, y0, x1, y1) in enumerate(boxes):
            content["annotations"].append(
                {
                    "id": len(content["annotations"]) + 1,
                    "image_id": 100 + index,
                    "category_id": 7 + label,
                    "bbox": [x0, y0, x1 - x0, y1 - y0],
                    "segmentation": [[x0, y0, x1, y0, x1, y1, x0, y1]],
                    "area": (x1 - x0) * (y1 - y0),
                    "iscrowd": 0,
                }
            )
    path.write_text(json.dumps(content))
    return path


@pytest.fixture(scope="module")
def folder(tmp_path_factory):
    """A train and a test split; images of the test split have two boxes, one, or none."""
    root = tmp_path_factory.mktemp("boxes")
    for split, scenes in (("train", SCENES[:1]), ("test", [*SCENES, SCENES[0][:2], SCENES[0][:1]])):
        (root / split).mkdir()
        files = [f"{split}{index}.png" for index in range(len(scenes))]
        for file, (size, *boxes) in zip(files, scenes, strict=True):
            Image.fromarray(picture(size, boxes)).save(root / split / file)
        annotate(root / split / "annotations.json", files, scenes)
    return root


@pytest.mark.parametrize("fitting", FITS[:2], ids=["stretch", "letterbox"])
def test_evaluate_a_data_set(folder, fitting):
    predictor = painted(preprocessing=fitting)
    figures = predictor.evaluate(folder)
    assert figures["AP50"] == 1 and figures["AP"] > 0.75 and figures["AP/red"] > 0.75
    targets, predictions = predictor.collect(folder)
    assert targets["boxes"].shape == (6, 2, 4) and targets["valid"].sum() == 9
    assert set(predictions) == {"boxes", "scores", "classes", "count"}
    assert predictions["boxes"].shape == (6, 4, 4)
    assert evaluate(predictor, load_data(folder, validation_fraction=0), split="all")["AP50"] == 1


def test_masks_are_measured_where_model_and_data_have_them(folder):
    figures = painted(masks="box_masks").evaluate(folder)
    assert figures["mask_AP50"] == 1 and figures["mask_AP"] > 0.75 and figures["mask_AP/red"] > 0.75
    assert {name: value for name, value in figures.items() if "mask" not in name} == painted().evaluate(folder)
    targets, predictions = painted(masks="box_masks").collect(folder)
    assert not {"masks", "box_masks"} & {*targets, *predictions}


def test_batches_padded_to_different_lengths(folder):
    predictor = painted()
    expected = predictor.evaluate(folder)
    data = load_data(folder, validation_fraction=0)
    images, targets = next(iter(data.batches("test", image_size=SIZE)))
    targets = {name: values.numpy() for name, values in targets.items()}
    batches = [
        (images[:4], {name: values[:4] for name, values in targets.items()}),
        # Two slots, then one, then none, and no word about crowds.
        (images[4:5], {name: targets[name][4:5, :1] for name in ("boxes", "classes", "valid", "crowd")}),
        (images[5:], {name: targets[name][5:, :0] for name in ("boxes", "classes", "valid", "crowd")}),
    ]
    assert predictor.evaluate(batches) == expected


def test_labels_in_another_order_or_unused_are_aligned_by_name(folder, tmp_path):
    expected = painted().evaluate(folder)
    swapped = json.loads((folder / "test" / "annotations.json").read_text())
    swapped["categories"] = [
        {"id": 1, "name": "never seen"},
        {"id": 8, "name": "green"},
        {"id": 17, "name": "red"},
    ]
    for each in swapped["annotations"]:
        each["category_id"] = {7: 17, 8: 8}[each["category_id"]]
    for image in swapped["images"]:
        shutil.copy(folder / "test" / image["file_name"], tmp_path)
    (tmp_path / "test.json").write_text(json.dumps(swapped))
    data = load_data(tmp_path / "test.json", validation_fraction=0)
    assert data.labels == ("never seen", "green", "red")
    assert painted().evaluate(data, split="all") == pytest.approx(expected)


def test_boxes_of_classes_the_model_lacks_are_an_error(folder):
    with pytest.raises(DataError, match=r'does not know the labels "green" of .*It knows "red", "blue"'):
        painted(labels=("red", "blue")).evaluate(folder)


def test_numbered_labels_are_matched_by_position(folder):
    assert painted(labels=("0", "1")).evaluate(folder)["AP50"] == 1


def test_data_of_another_task(folder, image_folder):
    with pytest.raises(DataError, match=r"is a detector.* boxes of objects, .*has labels of whole images"):
        painted().evaluate(image_folder({"red": 3, "green": 3}))
    classifier = kv.create_model("small_cnn", labels=LABELS, input_shape=(12, 10, 3), filters=(4,), depth=1)
    engine = Painted()
    engine.metadata |= {"task": {"name": "classification", **classifier.task.get_config()}}
    with pytest.raises(DataError, match=r"is a classifier.* labels of whole images, .*has boxes of objects"):
        Predictor(engine, Path("c.keras"), "keras").evaluate(folder)
    images = np.zeros((2, *SIZE, 3), np.uint8)
    for targets in (np.zeros(2), {"label": np.zeros(2)}):
        with pytest.raises(DataError, match=r"judged by the targets boxes, classes, valid, and a batch has"):
            painted().evaluate([(images, targets)])
    assert not engine.seen


def test_views_of_a_detector_cannot_be_averaged():
    with pytest.raises(RecipeError, match="a classifier, got the detector painted.keras"):
        kv.with_tta(painted())


def test_coco_results_are_what_pycocotools_takes(folder):
    truth = folder / "test" / "annotations.json"
    found = painted().predict(sorted((folder / "test").glob("*.png")))
    results = found.to_coco(json.loads(truth.read_text()))
    with contextlib.redirect_stdout(io.StringIO()):
        judge = COCO(str(truth))
        scored = COCOeval(judge, judge.loadRes(results), "bbox")
        scored.evaluate()
        scored.accumulate()
        scored.summarize()
    assert scored.stats[1] == 1 and scored.stats[0] > 0.75
    assert {entry["category_id"] for entry in results} == {7, 8}


def test_coco_results_without_annotations(folder):
    predictor = painted(masks="masks")
    found = predictor.predict([folder / "test" / "test0.png", np.asarray(Image.open(folder / "test" / "test1.png"))])
    entries = found.to_coco()
    assert [entry["image_id"] for entry in entries] == ["test0.png", "test0.png", 1, 1]
    assert [entry["category_id"] for entry in entries] == [1, 2, 1, 2]
    assert entries[0]["bbox"] == pytest.approx([200, 150, 120, 110], abs=5)
    assert entries[0]["segmentation"]["size"] == [480, 640]
    twice = predictor.predict([folder / "test" / "test0.png"] * 2).to_coco()
    assert twice[0]["image_id"] == str(folder / "test" / "test0.png")
    truth = json.loads((folder / "test" / "annotations.json").read_text())
    with pytest.raises(DataError, match="name no images that could be 1"):
        found.to_coco(truth)
    with pytest.raises(DataError, match=r'no category "red"'):
        painted().predict(folder / "test" / "test0.png").to_coco({**truth, "categories": []})


def test_a_saved_net_finds_what_it_decodes_itself(tmp_path, folder):
    keras.utils.set_random_seed(0)
    model = kv.create_model(
        "retinanet",
        labels=list(LABELS),
        backbone="mobilenet_v2",
        backbone_arguments={"alpha": 0.35},
        input_shape=(*SIZE, 3),
        filters=16,
        depth=1,
        separable=True,
        normalized=True,
        candidates=40,
        detections=10,
    )
    for weight in model.weights:
        if "class" in weight.path and weight.path.endswith("bias"):
            weight.assign(weight * 0)  # A fresh net is sure of nothing.
    model.save(tmp_path / "detector.keras")
    predictor = load(tmp_path / "detector.keras")
    file = folder / "test" / "test1.png"
    found = predictor.predict(file)
    decoded = model.task.decode(model(load_image(file, SIZE)[None]))
    count = int(decoded["count"][0])
    shares = np.asarray(decoded["boxes"])[0, :count] * [120, 300, 120, 300]
    kept = (shares[:, 2:] > shares[:, :2]).all(axis=1)
    assert len(found[0]) == kept.sum() > 0
    np.testing.assert_allclose(found[0].boxes, shares[kept], atol=1e-2)
    np.testing.assert_allclose(found[0].scores, np.asarray(decoded["scores"])[0, :count][kept], atol=1e-5)
    data = load_data(folder, validation_fraction=0)
    figures = predictor.evaluate(data.batches("test", image_size=SIZE, batch_size=1, limit=2))
    assert {"AP", "AP50", "AP75", "AP/red", "AP/green", "AR100"} <= set(figures)


class TestVerbs:
    @pytest.fixture(autouse=True)
    def loaded(self, monkeypatch):
        monkeypatch.setattr("kerasvision.runtime.load", lambda *_: painted())

    def test_evaluate(self, folder):
        values = call_json("evaluate", "painted.keras", "--data", folder)
        assert values["images"] == 6 and values["objects"] == {"red": 5, "green": 4}
        assert values["metrics"]["AP50"] == 1
        shown = call("evaluate", "painted.keras", "--data", folder).stdout
        assert "painted.keras on 6 images" in shown and "input, 96x128" in shown
        lines = [line.split() for line in shown.splitlines()]
        assert ["AP50", "1.000000"] in lines and ["green", "4", f"{values['metrics']['AP/green']:.6f}"] in lines
        assert ["small", f"{values['metrics']['AP_small']:.6f}"] in lines

    def test_predict(self, folder, tmp_path):
        truth = folder / "test" / "annotations.json"
        arguments = ["predict", "painted.keras", folder / "test", "--out", tmp_path / "out", "--coco"]
        values = call_json(*arguments, tmp_path / "results.json", "--coco-ids", truth)
        assert len(values["predictions"]) == 6 and values["coco"] == str(tmp_path / "results.json")
        assert sum(len(entry["objects"]) for entry in values["predictions"]) == 5
        results = json.loads((tmp_path / "results.json").read_text())
        assert len(results) == 9 and {entry["image_id"] for entry in results} == set(range(100, 105))
        assert len(list((tmp_path / "out").glob("*_prediction.png"))) == 6 and len(values["files"]) == 7

    def test_predict_prints_how_many_there_are(self, folder):
        image = folder / "test" / "test0.png"
        for score, wanted in (
            (0.3, "red 1 (best 90.0 %), green 1 (best 40.0 %)"),
            (1, "nothing; the best score is 90.0 %"),
        ):
            shown = " ".join(call("predict", "painted.keras", image, "--score", score).stdout.split())
            assert wanted in shown

    def test_options_that_do_not_fit(self, folder, tmp_path, monkeypatch):
        image = folder / "test" / "test0.png"
        assert "--top is for classifiers" in call("predict", "painted.keras", image, "--top", 3).stderr
        assert "name that file, too" in call("predict", "painted.keras", image, "--coco-ids", image).stderr
        wrong = call("predict", "painted.keras", image, "--coco", tmp_path / "r.json", "--coco-ids", image)
        assert wrong.exit_code == 1 and "is no COCO annotation file" in wrong.stderr
        engine = Painted()
        engine.metadata |= {"task": {"name": "classification", "labels": list(LABELS)}}
        monkeypatch.setattr("kerasvision.runtime.load", lambda *_: Predictor(engine, Path("c.keras"), "keras"))
        for option in ("--score", "0.5"), ("--coco", str(tmp_path / "r.json")):
            assert "c.keras is a classifier" in call("predict", "c.keras", image, *option).stderr
        wrong = call("evaluate", "c.keras", "--data", folder)
        assert wrong.exit_code == 1 and "c.keras is a classifier" in wrong.stderr


def call(*arguments):
    return CliRunner().invoke(main, [str(argument) for argument in arguments])


def call_json(*arguments):
    result = call(*arguments, "--json")
    assert result.exit_code == 0, result.stderr
    return json.loads(result.stdout)
