"""R-CNN, the whole chain on rectangles."""

import keras
import numpy as np
import pytest
from detection import contract

from kerasvision.boxes.overlap import pairwise_iou
from kerasvision.data import Data
from kerasvision.detection.rcnn import RCNN
from kerasvision.errors import ArtifactError, DataError

# The images are few, and the loose margins of the tests need no exact solution.
pytestmark = pytest.mark.filterwarnings("ignore::sklearn.exceptions.ConvergenceWarning")

NET = {
    "backbone": "small_cnn",
    "weights": None,
    "backbone_arguments": {"filters": [8, 16, 16], "depth": 1},
    "level": "P2",
    "size": 32,
    "context": 4,
    "proposals": 60,
    "search": "fast",
    "ridge": 1.0,
    "c": 0.1,
}


def scenes(count, seed, **changes):
    """A split of images of rectangles."""
    images, targets = contract.rectangles(count, 64, seed=seed)
    examples = []
    for index, image in enumerate(images.round().astype(np.uint8)):
        valid = targets["valid"][index]
        example = {"image": image, "boxes": targets["boxes"][index][valid], "classes": targets["classes"][index][valid]}
        examples.append({**example, **changes})
    return examples


@pytest.fixture(scope="module")
def data():
    return Data(("red", "blue"), {"train": scenes(16, 0), "validation": scenes(8, 1)}, source="rectangles")


@pytest.fixture(scope="module")
def fitted(data):
    keras.utils.set_random_seed(0)
    return RCNN(data.labels, **NET).fit(data)


def test_finds_rectangles_it_has_not_seen(fitted, data):
    assert fitted.evaluate(data).result()["AP50"] > 0.7


def test_predictions_are_those_of_a_detector(fitted, data):
    images = [example["image"] for example in data.splits["validation"]]
    found = fitted.predict(images)
    assert {name: (values.shape, values.dtype.name) for name, values in found.items()} == {
        "boxes": ((8, 100, 4), "float32"),
        "scores": ((8, 100), "float32"),
        "classes": ((8, 100), "int32"),
        "count": ((8,), "int32"),
    }
    for boxes, scores, classes, count in zip(*found.values(), strict=True):
        assert 0 < count < 100 and not boxes[count:].any() and not scores[count:].any()
        assert boxes.min() >= 0 and boxes.max() <= 1
        assert (np.diff(scores[:count]) <= 0).all() and scores[:count].min() > fitted.least_score
        for kind in range(2):
            own = boxes[:count][classes[:count] == kind].astype(np.float64)
            assert (pairwise_iou(own, own) - np.eye(len(own))).max(initial=0) <= fitted.iou + 1e-6


def test_saves(fitted, data, tmp_path):
    fitted.save(tmp_path / "rcnn.npz")
    again = RCNN.load(tmp_path / "rcnn.npz")
    images = [example["image"] for example in data.splits["validation"]]
    for name, values in fitted.predict(images).items():
        np.testing.assert_array_equal(again.predict(images)[name], values, err_msg=name)
    assert again.weights == fitted.weights and again.labels == fitted.labels


def test_images_without_objects(data, fitted):
    """They are negatives, and nothing is there to be found in a flat one."""
    empty = {"boxes": np.zeros((0, 4), np.float32), "classes": np.zeros(0, int)}
    flat = {"image": np.full((40, 50, 3), 99, np.uint8), **empty}
    splits = {"train": [*scenes(4, 2), *scenes(2, 3, **empty), flat], "validation": [flat, *scenes(2, 4)]}
    detector = RCNN(data.labels, **NET).fit(Data(data.labels, splits))
    assert np.isfinite(detector.evaluate(Data(data.labels, splits)).result()["AP50"])
    with pytest.raises(DataError, match="No image"):
        fitted.predict([])


def test_a_class_never_seen_is_never_found(data):
    one = Data(("red", "blue", "green"), data.splits)
    detector = RCNN(one.labels, **NET).fit(one)
    found = detector.predict([example["image"] for example in data.splits["validation"]])
    assert 2 not in found["classes"] and {0, 1} <= set(found["classes"].ravel())


def test_no_object_at_all():
    empty = {"boxes": np.zeros((0, 4), np.float32), "classes": np.zeros(0, int)}
    nothing = Data(("red",), {"train": scenes(2, 0, **empty)})
    detector = RCNN(nothing.labels, **NET).fit(nothing)
    assert not detector.predict([example["image"] for example in nothing.splits["train"]])["count"].any()


class TestErrors:
    def test_before_it_has_learned(self, tmp_path):
        with pytest.raises(ValueError, match="has not learned yet"):
            RCNN(["a"], **NET).predict([np.zeros((8, 8, 3), np.uint8)])
        with pytest.raises(ValueError, match="has learned"):
            RCNN(["a"], **NET).save(tmp_path / "a.npz")

    @pytest.mark.parametrize("settings, message", [({"context": 16}, "below half"), ({"labels": []}, "at least one")])
    def test_settings_that_cannot_be(self, settings, message):
        with pytest.raises(ValueError, match=message):
            RCNN(**{"labels": ["a"], **NET, **settings})

    def test_bins_must_divide_the_map(self):
        with pytest.raises(ValueError, match="8 x 8 places, which 3 bins"):
            RCNN(["a"], **NET, bins=3).features(np.zeros((8, 8, 3), np.uint8), np.array([[0, 0, 8, 8]]))

    def test_data_without_boxes(self):
        images = Data(("a", "b"), {"train": [{"image": np.zeros((8, 8, 3), np.uint8), "label": 1}]}, source="labels")
        with pytest.raises(DataError, match='labels has none in a split "train"'):
            RCNN(images.labels, **NET).fit(images)

    def test_no_file_of_it(self, tmp_path):
        np.savez(tmp_path / "other.npz", a=np.zeros(3))
        (tmp_path / "text.npz").write_text("text")
        for name in ("other.npz", "text.npz", "missing.npz"):
            with pytest.raises(ArtifactError, match=name):
                RCNN.load(tmp_path / name)
