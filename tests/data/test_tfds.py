"""Sets of tensorflow-datasets, which a stand-in plays."""

import sys
import types

import numpy as np
import pytest

from kerasvision.data import load_data, tfds
from kerasvision.errors import DataError


def counts(data):
    return {split: len(examples) for split, examples in data.splits.items()}


class FakeSet:
    """As much of a tensorflow-datasets split as the loader touches."""

    def __init__(self, count):
        self.count = count

    def take(self, count):
        return FakeSet(min(count, self.count))

    def as_numpy_iterator(self):
        for index in range(self.count):
            yield {
                "image": np.full((6 + index, 5, 3), index, np.uint8),
                "label": np.int64(index % 2),
                "objects": {
                    "bbox": np.tile(np.array([[0.5, 0.2, 1.0, 0.6]], np.float32), (index % 3, 1)),
                    "label": np.arange(index % 3),
                    "is_difficult": np.arange(index % 3) == 1,
                },
                "segmentation_mask": np.full((6 + index, 5, 1), [0, 2, 255][index % 3], np.uint8),
            }


class FakeFeatures:
    """A FeaturesDict has keys and items, but no `get`."""

    def __init__(self, **features):
        self.features = features

    def keys(self):
        return self.features.keys()

    def __getitem__(self, name):
        return self.features[name]


FEATURES = {
    "label": types.SimpleNamespace(names=["sick", "well"]),
    "objects": types.SimpleNamespace(
        feature=FakeFeatures(bbox=object(), label=types.SimpleNamespace(names=["leaf", "pod", "stem"]))
    ),
    "segmentation_mask": object(),
    "caption": object(),
}
SETS = {
    "beans": ["label"],
    "voc": ["objects"],
    "roads": ["segmentation_mask"],
    "pets": ["label", "segmentation_mask"],
    "captions": ["caption"],
}


@pytest.fixture
def fake_tfds(monkeypatch):
    module = types.ModuleType("tensorflow_datasets")

    def load(name, with_info, shuffle_files):
        if name not in SETS:
            raise ValueError(f"Dataset {name} not found")
        info = types.SimpleNamespace(
            features=FakeFeatures(image=object(), **{part: FEATURES[part] for part in SETS[name]}),
            splits={split: types.SimpleNamespace(num_examples=20) for split in ("train", "test")},
        )
        return {"train": FakeSet(20), "test": FakeSet(20)}, info

    module.load = load
    monkeypatch.setitem(sys.modules, "tensorflow_datasets", module)
    monkeypatch.setattr("importlib.util.find_spec", lambda name: object())


def test_tfds(fake_tfds):
    data = load_data("tfds:beans")
    assert counts(data) == {"train": 18, "test": 20, "validation": 2} and data.labels == ("sick", "well")
    images, targets = next(iter(data.batches("test", image_size=(8, 8), batch_size=20)))
    np.testing.assert_array_equal(images.numpy()[:, 0, 0, 0], range(20))
    np.testing.assert_array_equal(targets["label"], np.arange(20) % 2)
    assert counts(load_data("tfds:beans", limit=4, validation_fraction=0)) == {"train": 4, "test": 4}


def test_tfds_that_cannot_be_loaded(fake_tfds, monkeypatch):
    with pytest.raises(DataError, match="cannot load 'beams'.*not found"):
        load_data("tfds:beams")
    monkeypatch.setattr(tfds, "MAX_BYTES", 1 << 10)
    with pytest.raises(DataError, match="in memory: give a limit"):
        load_data("tfds:beans")


def test_objects(fake_tfds):
    data = load_data("tfds:voc", validation_fraction=0)
    assert data.labels == ("leaf", "pod", "stem")
    for index, example in enumerate(data.splits["train"]):
        height = 6 + index
        expected = np.tile(np.array([[1, height / 2, 3, height]], np.float32), (index % 3, 1))
        np.testing.assert_allclose(example["boxes"], expected, atol=1e-5)
        np.testing.assert_array_equal(example["classes"], np.arange(index % 3))
        np.testing.assert_array_equal(example["difficult"], np.arange(index % 3) == 1)
        assert example["crowd"].shape == (index % 3,) and not example["crowd"].any()


def test_segmentation(fake_tfds):
    data = load_data("tfds:roads", validation_fraction=0)
    assert data.labels == ("0", "1", "2")
    for index, example in enumerate(data.splits["train"]):
        assert example["segmentation"].shape == (6 + index, 5)
        assert (example["segmentation"] == [0, 2, 255][index % 3]).all()


def test_a_set_with_labels_and_masks_gives_labels_unless_asked(fake_tfds):
    assert load_data("tfds:pets").labels == ("sick", "well")
    data = load_data("tfds:pets", format="tfds_segmentation")
    assert data.labels == ("0", "1", "2") and "segmentation" in data.splits["train"][0]


def test_features_that_are_not_there(fake_tfds):
    with pytest.raises(DataError, match="has the features caption, image; expected image and a class label, objects"):
        load_data("tfds:captions")
    with pytest.raises(DataError, match="expected image and segmentation_mask"):
        load_data("tfds:beans", format="tfds_segmentation")


def test_a_box_without_area_is_listed(fake_tfds, monkeypatch):
    make = FakeSet.as_numpy_iterator

    def with_flat_box(self):
        for index, example in enumerate(make(self)):
            if index == 4:
                example["objects"]["bbox"][0] = 0.5
            yield example

    monkeypatch.setattr(FakeSet, "as_numpy_iterator", with_flat_box)
    with pytest.raises(DataError, match=r"(?s)2 entries of tfds:voc cannot be used.*voc train/4: the box is 0 wide"):
        load_data("tfds:voc")
    data = load_data("tfds:voc", on_bad_files="skip", validation_fraction=0)
    assert counts(data) == {"train": 19, "test": 19} and len(data.skipped) == 2
