from pathlib import Path

import keras
import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

import kerasvision as kv
from kerasvision.classification import ClassificationTask
from kerasvision.errors import RecipeError, UnknownNameError
from kerasvision.masks import PackedMasks
from kerasvision.preprocessing import Preprocessing
from kerasvision.runtime import Predictor
from kerasvision.tta import VIEWS, View, five_crops, mean_maps, mean_scores, shifts, with_tta, zoomed

LABELS = ("left", "right", "top")


class Halves:
    """An engine that looks where an image is bright: the shares of its left, right and top half."""

    format = "keras"

    def __init__(self, size=(8, 8), multi_label=False, outputs=("scores",)):
        task = ClassificationTask(labels=LABELS, multi_label=multi_label)
        self.metadata = {
            "task": {"name": task.name, **task.get_config()},
            "name": "halves",
            "preprocessing": Preprocessing().get_config(),
            "image_size": size,
            "channels": 1,
            "quantization": "none",
        }
        self.outputs = outputs
        self.calls = 0

    def run(self, images):
        self.calls += 1
        images = images.astype(np.float32)
        middle = images.shape[2] // 2
        parts = (images[:, :, :middle], images[:, :, middle:], images[:, : images.shape[1] // 2])
        sums = np.stack([part.sum(axis=(1, 2, 3)) for part in parts], axis=-1) + 1
        values = {"scores": sums / sums.sum(axis=-1, keepdims=True), "probabilities": images / 255, "boxes": sums}
        return {name: values[name] for name in self.outputs}


def predictor(**arguments):
    return Predictor(Halves(**arguments), Path("halves.keras"), "keras")


def scene(height, width, seed=0, count=9):
    rng = np.random.default_rng(seed)
    corners = rng.random((count, 2, 2)) * (width, height)
    return {
        "image": rng.integers(0, 256, (height, width, 3), np.uint8),
        "boxes": np.concatenate([corners.min(axis=1), corners.max(axis=1)], axis=-1).astype(np.float32),
        "keypoints": np.concatenate([corners, np.full((count, 2, 1), 2)], -1).astype(np.float32),
        "masks": PackedMasks.pack(rng.random((count, height, width)) < 0.3),
        "segmentation": rng.integers(0, 5, (height, width), np.uint8),
        "scores": rng.random(count, np.float32),
    }


WINDOWS = st.tuples(*[st.floats(-0.3, 0.4)] * 2, *[st.floats(0.6, 1.3)] * 2)
DIHEDRAL = st.builds(
    View, mirrored=st.booleans(), turns=st.integers(-4, 7), keypoint_order=st.sampled_from([None, (1, 0)])
)


@given(DIHEDRAL, st.integers(1, 20), st.integers(1, 20), st.integers(0, 99))
@settings(max_examples=80, deadline=None)
def test_mirrors_and_turns_come_back_exactly(view, height, width, seed):
    example = scene(height, width, seed)
    predictions = {**view.apply(example)}
    predictions["probabilities"] = predictions.pop("image").astype(np.float32) / 255
    back = view.invert(predictions, (height, width))
    assert set(back) == set(example) - {"image"} | {"probabilities"}
    np.testing.assert_array_equal(back["probabilities"], example["image"].astype(np.float32) / 255)
    np.testing.assert_array_equal(back["segmentation"], example["segmentation"])
    np.testing.assert_array_equal(back["masks"].unpack(), example["masks"].unpack())
    np.testing.assert_allclose(back["boxes"], example["boxes"], atol=1e-4)
    np.testing.assert_allclose(back["keypoints"], example["keypoints"], atol=1e-4)
    np.testing.assert_array_equal(back["scores"], example["scores"])


@given(WINDOWS, st.booleans(), st.integers(0, 3), st.integers(2, 40), st.integers(2, 40))
@settings(max_examples=80, deadline=None)
def test_boxes_and_keypoints_come_back_from_any_window(window, mirrored, turns, height, width):
    view, example = View(window, mirrored, turns), scene(height, width)
    seen = view.apply(example)
    assert seen["image"].shape[:2] == ((height, width) if turns % 2 == 0 else (width, height))
    back = view.invert({key: seen[key] for key in ("boxes", "keypoints")}, (height, width))
    np.testing.assert_allclose(back["boxes"], example["boxes"], atol=1e-3)
    np.testing.assert_allclose(back["keypoints"], example["keypoints"], atol=1e-3)


@pytest.mark.parametrize("name", VIEWS)
def test_what_lies_at_a_place_is_seen_there(name):
    """A bright square's box goes where its pixels go, and its map comes back to where it was."""
    image = np.zeros((40, 40, 1), np.uint8)
    image[12:20, 8:28] = 255
    example = {"image": image, "boxes": np.float32([[8, 12, 28, 20]])}
    for view in VIEWS[name]:
        seen = view.apply(example)
        rows, columns = np.nonzero(seen["image"][..., 0] > 127)
        extent = np.clip(seen["boxes"][0], 0, 40)
        np.testing.assert_allclose([columns.min(), rows.min(), columns.max() + 1, rows.max() + 1], extent, atol=0.51)
        maps = {"probabilities": seen["image"].astype(np.float32), "segmentation": seen["image"][..., 0]}
        back = view.invert(maps, (40, 40))
        known = back["segmentation"] != 255
        inside = np.zeros((40, 40), bool)
        inside[13:19, 9:27] = True
        outside = np.zeros((40, 40), bool)
        outside[11:21, 7:29] = True
        shown = back["probabilities"][..., 0]
        assert (shown[inside & (shown > 0)] > 120).all() and (shown[~outside] < 1e-3).all()
        assert (back["segmentation"][~outside & known] == 0).all()


def test_views_by_name():
    assert [len(VIEWS[name]) for name in ("flip", "flips", "turns", "five_crops", "ten_crops")] == [2, 4, 8, 5, 10]
    image = np.random.default_rng(0).integers(0, 256, (7, 7, 3), np.uint8)
    for name, count in (("flips", 4), ("turns", 8)):
        assert len({view.apply({"image": image})["image"].tobytes() for view in VIEWS[name]}) == count
    assert five_crops(0.5)[0].window == (0, 0, 0.5, 0.5) and five_crops(0.5)[4].window == (0.25, 0.25, 0.75, 0.75)
    assert zoomed(2).window == (0.25, 0.25, 0.75, 0.75) and zoomed(0.5).window == (-0.5, -0.5, 1.5, 1.5)
    assert shifts(0.1)[1].window == (0.1, 0.0, 1.1, 1.0)


def test_scores_are_averaged_over_views():
    bright = np.zeros((3, 8, 8, 1), np.uint8)
    bright[:, :, :4] = 200
    once = predictor().run(bright)["scores"]
    both = with_tta(predictor(), "flip").run(bright)["scores"]
    np.testing.assert_allclose(both, (once + once[:, [1, 0, 2]]) / 2, rtol=1e-6)
    np.testing.assert_allclose(with_tta(predictor(), [View()]).run(bright)["scores"], once)
    np.testing.assert_allclose(with_tta(predictor(), "flip").run(bright.astype(np.int64))["scores"], both)
    assert with_tta(predictor(), "flip").run(bright[:0])["scores"].shape == (0, 3)


def test_predicts_and_evaluates_as_any_predictor():
    images = np.random.default_rng(0).integers(0, 256, (5, 20, 30, 1), np.uint8)
    plain, tta = predictor(), with_tta(predictor(), "ten_crops", mean="logits")
    predictions = tta.predict(images)
    assert predictions.labels == LABELS and predictions.scores.shape == (5, 3)
    assert tta.engine.calls == 10
    np.testing.assert_allclose(predictions.scores.sum(axis=-1), 1, rtol=1e-5)
    batches = [(images[:, :8, :8], np.zeros(5, int))]
    assert set(tta.evaluate(batches)) == set(plain.evaluate(batches))


def test_mean_of_logits_is_the_softmax_of_the_mean():
    logits = np.random.default_rng(0).normal(0, 2, (4, 6, 3))

    def softmax(values):
        return np.exp(values) / np.exp(values).sum(axis=-1, keepdims=True)

    np.testing.assert_allclose(mean_scores(softmax(logits), mean="logits"), softmax(logits.mean(axis=0)), rtol=1e-5)
    sigmoids = 1 / (1 + np.exp(-logits))
    np.testing.assert_allclose(mean_scores(sigmoids, True, "logits"), 1 / (1 + np.exp(-logits.mean(axis=0))), rtol=1e-5)
    np.testing.assert_allclose(mean_scores(sigmoids, True), sigmoids.mean(axis=0), rtol=1e-6)
    certain = np.float32([[[1, 0, 0]], [[0.5, 0.5, 0]]])
    assert np.isfinite(mean_scores(certain, mean="logits")).all()


def test_maps_are_averaged_where_they_were_seen():
    image = np.full((1, 16, 16, 2), 0.25, np.float32)
    for name in VIEWS:
        views = VIEWS[name]
        maps = np.stack([np.stack([view.apply({"image": image[0]})["image"]]) for view in views])
        np.testing.assert_allclose(mean_maps(views, maps, (16, 16)), image, rtol=1e-4)
    # Nobody saw the right half.
    left = mean_maps([View((0, 0, 0.5, 1))], image[None], (16, 16))
    assert (left[:, :, :7] > 0.24).all() and (left[:, :, 9:] == 0).all()
    result = with_tta(predictor(outputs=("probabilities",)), "turns").run(np.arange(64).reshape(1, 8, 8, 1))
    np.testing.assert_allclose(result["probabilities"].ravel(), np.arange(64) / 255, atol=1e-6)


def small_unet(**arguments):
    keras.utils.set_random_seed(0)
    backbone = {"backbone": "small_cnn", "backbone_arguments": {"filters": [8, 8], "depth": 1}}
    own = {"levels": ["P0", "P1"], "filters": [8], "input_shape": (16, 24, 3)}
    return kv.create_model("unet", labels=LABELS, **backbone, **own, **arguments)


@pytest.fixture(scope="module")
def segmenter():
    """A small net with fresh weights whose classes all occur."""
    model = small_unet()
    images = np.random.default_rng(0).integers(0, 256, (3, 16, 24, 3), np.uint8)
    kernel, bias = model.get_layer("logits").get_weights()
    logits = np.asarray(model(images, training=False)["logits"])
    model.get_layer("logits").set_weights([kernel, bias - np.median(logits, axis=(0, 1, 2))])
    return model, images


@pytest.mark.parametrize("probabilities", [False, True])
def test_classes_of_a_segmenter_are_those_of_the_mean_probabilities(segmenter, probabilities, tmp_path):
    """Whether its files give classes alone or not, a .keras file knows them."""
    model, images = segmenter
    same = small_unet(probabilities=probabilities)
    same.set_weights(model.get_weights())
    same.save(tmp_path / "model.keras")

    def chances(pixels):
        return np.asarray(keras.ops.softmax(model(pixels, training=False)["logits"]))

    seen = [chances(images), chances(images[:, :, ::-1])[:, :, ::-1]]
    seen += [chances(images[:, ::-1])[:, ::-1], chances(images[:, ::-1, ::-1])[:, ::-1, ::-1]]
    mean = np.mean(seen, axis=0)
    best = np.sort(mean, axis=-1)
    clear = best[..., -1] - best[..., -2] > 1e-4
    assert clear.mean() > 0.95 and len(np.unique(mean.argmax(axis=-1))) == 3
    assert np.mean(mean.argmax(axis=-1) != seen[0].argmax(axis=-1)) > 0.05
    tta = with_tta(tmp_path / "model.keras", "flips")
    found = tta.run(images)["classes"]
    np.testing.assert_array_equal(found[clear], mean.argmax(axis=-1)[clear])
    np.testing.assert_array_equal(tta.predict(images).maps, found)
    truth = {"segmentation": seen[0].argmax(axis=-1)}
    expected = model.task.metrics(truth, {"classes": found})
    assert tta.evaluate([(images, truth)]) == pytest.approx(expected)


def test_a_segmenters_file_has_to_give_probabilities(segmenter, tmp_path):
    model, images = segmenter
    options = {"samples": 2, "benchmark": False}
    file = kv.export(model, tmp_path, **options).path
    with pytest.raises(
        RecipeError, match=r"a \.keras file, or .* probabilities=True, got one that gives classes alone"
    ):
        with_tta(file)
    with pytest.raises(RecipeError, match='mean "probabilities" for a segmenter'):
        with_tta(file, mean="logits")
    same = small_unet(probabilities=True)
    same.set_weights(model.get_weights())
    file = kv.export(same, tmp_path, **options).path
    predictor, tta = kv.load(file), with_tta(file, "flip")
    mirrored = predictor.run(images[:, :, ::-1])["probabilities"][:, :, ::-1]
    mean = (predictor.run(images)["probabilities"] + mirrored) / 2
    found = tta.run(images)
    np.testing.assert_allclose(found["probabilities"], mean, atol=1e-6)
    np.testing.assert_array_equal(found["classes"], mean.argmax(axis=-1))


def test_what_cannot_be_done():
    with pytest.raises(UnknownNameError, match='no views "flop".*flip'):
        with_tta(predictor(), "flop")
    with pytest.raises(RecipeError, match="square model for quarter turns, got 8x6"):
        with_tta(predictor(size=(8, 6)), "turns")
    assert with_tta(predictor(size=(8, 6)), "flips")
    with pytest.raises(RecipeError, match="at least one view"):
        with_tta(predictor(), [])
    with pytest.raises(RecipeError, match='"logits", got'):
        with_tta(predictor(), "flip", mean="median")
    with pytest.raises(RecipeError, match="with an area"):
        View((0.5, 0, 0.5, 1))
    with pytest.raises(RecipeError, match="a map of the view's size"):
        View(turns=1).invert({"probabilities": np.zeros((4, 5, 1), np.float32)}, (4, 5))
    with pytest.raises(NotImplementedError, match="View.invert"):
        with_tta(predictor(outputs=("boxes",)), "flip").run(np.zeros((1, 8, 8, 1), np.uint8))
