"""Prediction by tiles: equal to the whole image where it can be, to a plain sum elsewhere, and small in memory."""

import json
import math
import tracemalloc
from pathlib import Path

import cv2
import keras
import numpy as np
import pytest
from click.testing import CliRunner
from hypothesis import given, settings
from hypothesis import strategies as st
from PIL import Image

import kerasvision as kv
from kerasvision import registry
from kerasvision.class_maps import VOID
from kerasvision.classification import ClassificationTask
from kerasvision.cli import main
from kerasvision.data import Data
from kerasvision.errors import RecipeError
from kerasvision.preprocessing import Preprocessing
from kerasvision.runtime import Predictor
from kerasvision.segmentation import SegmentationMetrics, SegmentationTask
from kerasvision.segmentations import Segmentations
from kerasvision.tiles import lay_out, with_tiles
from kerasvision.tta import with_tta

LABELS = ("ground", "red", "blue")
TILE = (32, 48)
KERNELS = np.random.default_rng(0).normal(0, 1, (2, 3, 3, 3)).astype(np.float32)
CONSTANTS = 0.0


def logits_of(image):
    """Logits [H, W, 3] of two 3x3 convolutions that pad zeros: each pixel looks 2 pixels far."""
    values = np.float32(image[..., 0] / 255)
    parts = []
    for first, second in zip(*KERNELS, strict=True):
        hidden = np.tanh(cv2.filter2D(values, -1, first, borderType=cv2.BORDER_CONSTANT))
        parts.append(4 * cv2.filter2D(hidden, -1, second, borderType=cv2.BORDER_CONSTANT))
    return np.stack(parts, axis=-1) - CONSTANTS


def softmax(logits):
    return np.exp(logits) / np.exp(logits).sum(axis=-1, keepdims=True)


def network(image):
    return softmax(logits_of(image))


def biased(image):
    """A net that prefers other classes at other places of its tile, as nets do that know where its edges are."""
    height, width = image.shape[:2]
    slope = 2 * np.arange(height)[:, None] / height - np.arange(width) / width
    return softmax(logits_of(image) / 4 + np.stack([slope, 0 * slope, -slope], axis=-1))


# Every class is to be somewhere.
CONSTANTS = np.median(logits_of(np.random.default_rng(1).integers(0, 256, (99, 99, 1))), axis=(0, 1))


class Net:
    """An engine of `network`, or of another function, that says nothing about a margin."""

    format = "keras"

    def __init__(self, function=network, size=TILE, margin=0, probabilities=True, labels=LABELS, channels=1):
        task = SegmentationTask(labels=labels, image_size=size)
        self.function, self.margin, self.channels = function, margin, channels
        self.outputs = ("classes", "probabilities") if probabilities else ("classes",)
        self.most = 0
        self.metadata = {
            "task": {"name": task.name, **task.get_config()},
            "name": "net",
            "preprocessing": Preprocessing().get_config(),
            "image_size": size,
            "channels": channels,
            "quantization": "none",
        }

    def with_probabilities(self):
        return self

    def run(self, images):
        self.most = max(self.most, len(images))
        maps = np.stack([self.function(image) for image in images]).astype(np.float32)
        classes = maps.argmax(axis=-1).astype(np.float32)
        m = self.margin
        if m:
            inside = np.zeros(classes.shape[1:], bool)
            inside[m:-m, m:-m] = True
            classes[:, ~inside], maps[:, ~inside] = VOID, 0
        return {name: {"classes": classes, "probabilities": maps}[name] for name in self.outputs}


def predictor(**arguments):
    return Predictor(Net(**arguments), Path("net.keras"), "keras")


def noise(height, width, channels=1, seed=0):
    return np.random.default_rng(seed).integers(0, 256, (height, width, channels), np.uint8)


def brute_force(image, function, tile, inner, overlap, blend):
    """Sums of weighted probabilities over every tile of the mirrored image, written out."""
    (top, bottom), (left, right) = inner
    sides, pads = [], []
    for length, side, (begin, end) in zip(image.shape[:2], tile, inner, strict=True):
        missing = max(0, (end - begin) - length)
        pads.append((begin + missing // 2, side - end + missing - missing // 2))
        step = max(1, math.floor((end - begin) * (1 - overlap)))
        step = step // 16 * 16 if step > 16 else step
        total, starts, at = length + sum(pads[-1]), [], 0
        while at + side < total:
            starts.append(at)
            at += step
        sides.append([*starts, total - side])
    padded = np.pad(image, [*pads, (0, 0)], mode="reflect")
    sums = np.zeros((*padded.shape[:2], len(LABELS)))
    for y in sides[0]:
        for x in sides[1]:
            maps = function(padded[y : y + tile[0], x : x + tile[1]])
            for row in range(top, bottom):
                for column in range(left, right):
                    shares = []
                    for at, begin, end in ((row, top, bottom), (column, left, right)):
                        away = abs(at + 0.5 - (begin + end) / 2)
                        best = 0.5 if (end - begin) % 2 == 0 else 0.0
                        if blend == "gaussian":
                            scale = (end - begin) / 8
                            weight, most = math.exp(-(away**2) / (2 * scale**2)), math.exp(-(best**2) / (2 * scale**2))
                        else:
                            weight, most = (end - begin) / 2 - away, (end - begin) / 2 - best
                        shares.append(max(weight, most / 1000))
                    sums[y + row, x + column] += shares[0] * shares[1] * maps[row, column]
    rows, columns = (slice(pad[0], pad[0] + length) for pad, length in zip(pads, image.shape[:2], strict=True))
    return sums[rows, columns]


def agree(found, sums, least=1e-5):
    """Whether each class has the largest sum, or one that cannot be told from it."""
    chosen = np.take_along_axis(sums, found[..., None].astype(int), axis=-1)[..., 0]
    return bool((chosen >= sums.max(axis=-1) * (1 - least)).all())


@given(st.integers(1, 150), st.integers(1, 60), st.integers(0, 9), st.floats(0, 0.95))
@settings(max_examples=200, deadline=None)
def test_every_pixel_lies_in_a_tile(length, tile, margin, overlap):
    margin = min(margin, (tile - 1) // 2)
    inner = (margin, tile - margin)
    axis = lay_out(length, tile, inner, overlap, "linear")
    np.testing.assert_array_equal(axis.places[axis.first : axis.first + length], np.arange(length))
    covered = np.zeros(len(axis.places), int)
    for start in axis.starts:
        assert 0 <= start <= len(axis.places) - tile
        covered[start : start + tile] += axis.weights > 0
    assert (covered[axis.first : axis.first + length] > 0).all()
    assert axis.starts[-1] + tile == len(axis.places) and list(axis.starts) == sorted(set(axis.starts))
    widest = max(np.diff(axis.starts), default=0)
    assert widest <= max((inner[1] - inner[0]) * (1 - overlap), 1)
    if length >= tile and not margin:
        assert len(axis.places) == length


@given(st.integers(32, 90), st.integers(48, 110), st.sampled_from([0.25, 0.5, 0.7]), st.integers(0, 99))
@settings(max_examples=25, deadline=None)
def test_tiles_give_the_classes_of_the_whole_image(height, width, overlap, seed):
    """Neighbours overlap by 8 pixels and more, and each pixel looks 2 pixels far."""
    image = noise(height, width, seed=seed)
    whole = network(image).argmax(axis=-1)
    assert len(np.unique(whole)) == 3
    found = with_tiles(predictor(), overlap, "middle").run(image[None])["classes"]
    assert found.dtype == np.uint8
    np.testing.assert_array_equal(found[0], whole)
    alone = with_tiles(predictor(probabilities=False), overlap).run(image[None])["classes"]
    np.testing.assert_array_equal(alone[0], whole)


@pytest.mark.parametrize("blend", ["gaussian", "linear", "middle"])
@pytest.mark.parametrize("size", [(1, 1), (1, 90), (70, 3), (31, 49), (32, 48), (33, 97), (100, 50)])
def test_pixels_that_are_looked_at_alone_keep_their_class(blend, size):
    def alone(image):
        return np.eye(3)[image[..., 0] % 3] * 0.5 + 0.1

    image = noise(*size)
    for overlap in (0, 0.3, 0.9):
        found = with_tiles(predictor(function=alone), overlap, blend).run(image[None])["classes"][0]
        np.testing.assert_array_equal(found, image[..., 0] % 3)


@pytest.mark.parametrize("blend", ["gaussian", "linear"])
@pytest.mark.parametrize(("size", "overlap", "margin"), [((75, 110), 0.5, 0), ((20, 61), 0.3, 0), ((50, 70), 0.4, 5)])
def test_blends_are_the_weighted_sums_of_all_tiles(blend, size, overlap, margin):
    image = noise(*size)
    inner = tuple((margin, side - margin) for side in TILE)
    sums = brute_force(image, biased, TILE, inner, overlap, blend)
    plain = predictor(function=biased, margin=margin)
    model = with_tiles(plain, overlap, blend)
    found = model.run(image[None])["classes"][0]
    assert found.shape == size and found.max() < VOID and agree(found, sums)
    # The blend is no choice of one tile.
    assert (found != with_tiles(plain, overlap, "middle").run(image[None])["classes"][0]).any()
    assert model.engine.most <= 4


def test_predictions_of_images_of_several_sizes(tmp_path):
    images = [noise(40, 90), noise(10, 130, seed=1), noise(64, 64, 3, seed=2)]
    Image.fromarray(images[2]).save(tmp_path / "colour.png")
    model = with_tiles(predictor())
    found = model.predict([*images[:2], str(tmp_path / "colour.png")])
    assert isinstance(found, Segmentations) and found.labels == LABELS
    assert [each.shape for each in found.maps] == [(40, 90), (10, 130), (64, 64)]
    for image, classes in zip(images[:2], found.maps[:2], strict=True):
        np.testing.assert_array_equal(classes, model.run(image[None])["classes"][0])
    grey = np.asarray(Image.fromarray(images[2]).convert("L"))[None, ..., None]
    np.testing.assert_array_equal(found[2], model.run(grey)["classes"][0])
    assert model.run(np.zeros((0, 40, 40, 1)))["classes"].shape == (0, 40, 40)
    with pytest.raises(ValueError, match=r"\[N, any, any, 1\], got \[1, 8, 8, 3\]"):
        model.run(np.zeros((1, 8, 8, 3)))


def test_memory_does_not_grow_with_the_height():
    """Probabilities of the whole image would take 30 MB; a strip of tiles takes 0.25 MB."""
    labels = tuple(str(index) for index in range(16))

    def many(image):
        return np.eye(16, dtype=np.float32)[image[..., 0] % 16]

    peaks = []
    for height in (1500, 7500):
        image = noise(height, 64)
        model = with_tiles(predictor(function=many, size=(32, 32), labels=labels))
        model.run(image[None, :40])
        tracemalloc.start()
        found = model.run(image[None])["classes"][0]
        peaks.append(tracemalloc.get_traced_memory()[1])
        tracemalloc.stop()
        np.testing.assert_array_equal(found, image[..., 0] % 16)
    assert peaks[0] < 2 << 20
    # Beside the class maps of 64 bytes a row, of which there are three at a time, only indices grow.
    assert peaks[1] - peaks[0] < 6000 * 64 * 4


def test_figures_of_images_at_their_own_sizes():
    examples = [
        {"image": noise(*size, seed=seed), "segmentation": noise(*size, seed=seed + 9)[..., 0] % 3, "key": str(seed)}
        for seed, size in enumerate([(40, 60), (70, 50), (32, 48)])
    ]
    model = with_tiles(predictor())
    expected = SegmentationMetrics(LABELS)
    for example in examples:
        found = model.run(example["image"][None])
        expected.update({"segmentation": example["segmentation"][None]}, found)
    assert model.evaluate(Data(LABELS, {"test": examples})) == pytest.approx(expected.result())


def test_views_and_tiles_together():
    image = noise(60, 100)
    views = with_tta(predictor(), "flip")
    found = with_tiles(views, 0.5, "middle").run(image[None])["classes"][0]
    mean = (network(image) + network(image[:, ::-1])[:, ::-1]) / 2
    assert agree(found, mean)
    margin = with_tta(predictor(margin=3), "flip").run(image[None, :32, :48])["classes"][0]
    assert (margin[:3] == VOID).all() and (margin[3:-3, 3:-3] < 3).all()
    with pytest.raises(RecipeError, match=r"with_tiles goes around with_tta.*TiledPredictor"):
        with_tta(with_tiles(predictor()), "flip")
    with pytest.raises(RecipeError, match="classes alone"):
        with_tta(predictor(probabilities=False), "flip")


def test_what_cannot_be_done():
    for overlap in (1, -0.1, math.nan):
        with pytest.raises(RecipeError, match="from 0 and below 1, got"):
            with_tiles(predictor(), overlap)
    with pytest.raises(RecipeError, match="gaussian, linear, middle, got 'mean'"):
        with_tiles(predictor(), blend="mean")
    with pytest.raises(RecipeError, match="in tiles already"):
        with_tiles(with_tiles(predictor()))
    task = ClassificationTask(labels=["a", "b"])
    engine = Net()
    engine.metadata |= {"task": {"name": task.name, **task.get_config()}}
    with pytest.raises(RecipeError, match=r"a segmenter, got a classifier \(net.keras\)"):
        with_tiles(Predictor(engine, Path("net.keras"), "keras"))


def few_convolutions(x, task, *, weights=None):
    for index in range(2):
        x = keras.layers.Conv2D(6, 3, padding="same", activation="relu", name=f"convolution{index}")(x)
    return {"logits": keras.layers.Conv2D(len(task.labels), 1, name="logits")(x)}, {"P0": x}


def create(name, size, channels, **arguments):
    keras.utils.set_random_seed(1)
    return kv.create_model(name, labels=LABELS, input_shape=(*size, channels), **arguments)


def centred(model, image):
    """Sets the constants of the logits so that all classes occur."""
    values = model.predict(image[None], verbose=0)["logits"].reshape(-1, 3)
    last = next(layer for layer in reversed(model.layers) if layer.weights)
    kernel, bias = last.get_weights()
    last.set_weights([kernel, bias - np.median(values, axis=0)])


@pytest.fixture(scope="module")
def saved(tmp_path_factory):
    """A net of few convolutions for tiles as a file, an image, and what the net says of the whole image."""
    folder = tmp_path_factory.mktemp("tiles")
    image = cv2.GaussianBlur(noise(80, 112, 3), (5, 5), 1.5)
    with pytest.MonkeyPatch.context() as patch:
        registry.list_models()
        patch.setattr(registry, "_ENTRIES", dict(registry._ENTRIES))
        registry.register("few_convolutions", kind="segmentation", input_shape=(*TILE, 3))(few_convolutions)
        whole = create("few_convolutions", image.shape[:2], 3)
        model = create("few_convolutions", TILE, 3)
        centred(whole, image)
        model.set_weights(whole.get_weights())
        model.save(folder / "model.keras")
        Image.fromarray(image).save(folder / "scene.png")
        logits = whole.predict(image[None], verbose=0)["logits"][0]
        probabilities = np.asarray(keras.ops.softmax(logits))
        assert len(np.unique(probabilities.argmax(axis=-1))) == 3
        yield folder, image, probabilities


def test_a_net_of_few_convolutions(saved):
    folder, image, probabilities = saved
    plain = kv.load(folder / "model.keras")
    for blend in ("middle", "gaussian"):
        found = kv.with_tiles(plain, 0.5, blend).predict(str(folder / "scene.png"))[0]
        same = found == probabilities.argmax(axis=-1)
        # Blends also hear the tiles whose edge a pixel is near, a little.
        assert agree(found, probabilities) if blend == "middle" else same.mean() > 0.99
    # Probabilities are asked for without another file, and the plain predictor stays as it was.
    assert "probabilities" in kv.with_tiles(plain).engine.outputs and list(plain.engine.outputs) == ["classes"]
    assert with_tta(plain, "flip").predict(image)[0].shape == image.shape[:2]


def test_a_file_that_gives_classes_alone(saved, tmp_path):
    folder, image, probabilities = saved
    report = kv.export(kv.load(folder / "model.keras").engine.model, tmp_path / "net.tflite", format="tflite")
    model = kv.with_tiles(report.path)
    assert list(model.engine.outputs) == ["classes"]
    assert agree(model.predict(image)[0], probabilities)


def test_seamless_tiles_of_the_original_unet(tmp_path):
    """Ronneberger et al., 2015, figure 2: tiles of a mirrored image give what the whole of it would."""
    inner, margin = (64, 80), 20
    image = cv2.GaussianBlur(noise(*inner), (5, 5), 2)[..., None]
    mirrored = np.pad(image, [(margin, margin), (margin, margin), (0, 0)], mode="reflect")
    whole = create("unet_valid", mirrored.shape[:2], 1, filters=(4, 6, 8))
    centred(whole, mirrored)
    logits = whole.predict(mirrored[None], verbose=0)["logits"][0]
    assert logits.shape[:2] == inner and len(np.unique(logits.argmax(axis=-1))) == 3
    model = create("unet_valid", (68, 76), 1, filters=(4, 6, 8))
    model.set_weights(whole.get_weights())
    model.save(tmp_path / "unet_valid.keras")
    plain = kv.load(tmp_path / "unet_valid.keras")
    for overlap, blend in ((0, "middle"), (0.4, "gaussian"), (0.4, "linear")):
        found = with_tiles(plain, overlap, blend).run(image[None])["classes"][0]
        assert found.shape == inner and agree(found, np.asarray(keras.ops.softmax(logits)), 1e-4)


def test_verbs(saved, tmp_path):
    folder, image, _ = saved
    model, tiled = folder / "model.keras", kv.with_tiles(folder / "model.keras", 0.25)

    def call(*arguments):
        return CliRunner().invoke(main, [str(argument) for argument in arguments])

    result = call("predict", model, folder / "scene.png", "--tiles", "--overlap", "0.25", "--out", tmp_path)
    assert result.exit_code == 0, result.stderr
    with Image.open(tmp_path / "scene_classes.png") as picture:
        np.testing.assert_array_equal(np.asarray(picture), tiled.predict(image)[0])
    np.savez(tmp_path / "set.npz", images=image[None], segmentation=noise(80, 112)[None, ..., 0] % 3, names=LABELS)
    arguments = ("evaluate", model, "--data", tmp_path / "set.npz", "--split", "all")
    measured = [json.loads(call(*arguments, *more, "--json").stdout) for more in (("--tiles",), ())]
    assert measured[0]["metrics"] == pytest.approx(kv.with_tiles(model).evaluate(tmp_path / "set.npz", "all"))
    assert sum(measured[0]["pixels"].values()) == 80 * 112
    assert sum(measured[1]["pixels"].values()) == TILE[0] * TILE[1]
    refused = call("predict", model, folder / "scene.png", "--overlap", "0.3")
    assert refused.exit_code == 2 and "--overlap is of --tiles" in refused.stderr
