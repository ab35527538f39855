"""Batches: the right pixels with the right labels, in an order fixed by the seed."""

import os

import keras
import numpy as np
import pytest
import tensorflow as tf
from PIL import Image

from kerasvision.data import Data, load_data, load_image
from kerasvision.data import dataset as dataset_module
from kerasvision.errors import DataError, UnknownNameError
from kerasvision.preprocessing import Preprocessing


def array_data(count=20, multi_label=False):
    """Image i is filled with i, its label is i % 5."""
    key = "labels" if multi_label else "label"
    examples = [
        {"image": np.full((8, 8, 3), index, np.uint8), key: [index % 5] if multi_label else index % 5}
        for index in range(count)
    ]
    return Data(labels=tuple("abcde"), splits={"train": examples}, multi_label=multi_label)


def order(dataset):
    return np.concatenate([images.numpy()[:, 0, 0, 0] for images, _ in dataset]).astype(int).tolist()


@pytest.mark.parametrize("cache", [True, False])
def test_batches_pair_images_with_labels(cache):
    dataset = array_data().batches("train", image_size=(6, 4), batch_size=8, cache=cache)
    assert dataset.element_spec[0] == tf.TensorSpec([None, 6, 4, 3], tf.float32)
    assert dataset.element_spec[1] == {"label": tf.TensorSpec([None], tf.int32)}
    assert dataset.cardinality() == 3
    for images, targets in dataset:
        np.testing.assert_array_equal(images.numpy()[:, 0, 0, 0] % 5, targets["label"])
    assert order(dataset) == list(range(20))


@pytest.mark.parametrize("channels", [1, 3])
@pytest.mark.parametrize("fitting", [Preprocessing(fit=fit) for fit in ("stretch", "crop", "letterbox")])
def test_arrays_that_fit_are_taken_as_they_are(monkeypatch, channels, fitting):
    pixels = np.random.default_rng(0).integers(0, 256, (3, 7, 5, channels), np.uint8)
    data = Data(labels=("a",), splits={"train": [{"image": image, "label": 0} for image in pixels]})
    options = {"image_size": (7, 5), "channels": channels, "preprocessing": fitting}
    (images, _), *_ = data.batches("train", **options)
    np.testing.assert_array_equal(images, pixels)
    np.testing.assert_array_equal(images, [load_image(image, (7, 5), channels, fitting) for image in pixels])
    monkeypatch.setattr(dataset_module, "already_fitted", lambda *_: None)
    (decoded, _), *_ = data.batches("train", **options)
    np.testing.assert_array_equal(images, decoded)


@pytest.mark.parametrize("cache", [True, False])
def test_shuffling_is_seeded_and_new_in_every_epoch(cache):
    def make(seed):
        return array_data().batches("train", image_size=(8, 8), shuffle=True, seed=seed, cache=cache)

    dataset = make(3)
    first, second = order(dataset), order(dataset)
    assert first != second and sorted(first) == sorted(second) == list(range(20))
    again = make(3)
    assert [order(again), order(again)] == [first, second]
    assert order(make(4)) != first
    for images, targets in dataset:
        np.testing.assert_array_equal(images.numpy()[:, 0, 0, 0] % 5, targets["label"])


@pytest.mark.parametrize("cache", [True, False])
def test_augmentation_is_seeded_and_new_in_every_epoch(cache):
    data = array_data()
    data.splits["train"] = [
        {**example, "image": np.random.default_rng(0).integers(0, 256, (8, 8, 3), np.uint8)}
        for example in data.splits["train"]
    ]

    def make(seed):
        transforms = ["flip", {"name": "crop", "padding": 2}, "color"]
        return data.batches("train", image_size=(8, 8), augment=transforms, seed=seed, cache=cache)

    def pixels(dataset):
        return np.concatenate([images.numpy() for images, _ in dataset])

    dataset, again = make(0), make(0)
    first, second = pixels(dataset), pixels(dataset)
    assert (first != second).any()
    np.testing.assert_array_equal(pixels(again), first)
    np.testing.assert_array_equal(pixels(again), second)
    assert (pixels(make(1)) != first).any()
    # One image, augmented in twenty different ways.
    assert len({image.tobytes() for image in first}) > 15


def mixed_folder(root):
    """Files that take every decoder."""
    rng = np.random.default_rng(0)
    for label in ("a", "b"):
        (root / label).mkdir(parents=True)
        exif = Image.Exif()
        exif[0x0112] = 6
        for index, (mode, suffix) in enumerate(
            [
                ("RGB", "jpg"),
                ("L", "jpg"),
                ("CMYK", "jpg"),
                ("RGB", "png"),
                ("RGBA", "png"),
                ("P", "gif"),
                ("RGB", "webp"),
            ]
        ):
            size = tuple(rng.integers(20, 60, 2))
            image = Image.fromarray(rng.integers(0, 256, (5, 5, 3), np.uint8)).resize(size).convert(mode)
            image.save(root / label / f"{index}.{suffix}", **({"exif": exif} if suffix in ("jpg", "png") else {}))
        Image.fromarray(rng.integers(0, 65536, (30, 20)).astype(np.uint16)).save(root / label / "9.png")
    return root


@pytest.mark.parametrize("cache", [True, False])
@pytest.mark.parametrize("channels", [1, 3])
@pytest.mark.parametrize(
    "preprocessing",
    [
        None,
        Preprocessing(fit="crop", crop_fraction=0.875, interpolation="bicubic"),
        Preprocessing(fit="letterbox"),
    ],
)
def test_load_image_gives_the_pipelines_pixels_bit_for_bit(tmp_path, cache, channels, preprocessing):
    data = load_data(mixed_folder(tmp_path / "mixed"), validation_fraction=0)
    options = {"image_size": (24, 32), "channels": channels, "preprocessing": preprocessing}
    images = np.concatenate([batch.numpy() for batch, _ in data.batches("train", cache=cache, **options)])
    assert images.dtype == np.float32 and len(images) == 16
    for example, image in zip(data.splits["train"], images, strict=True):
        alone = load_image(example["image"], **options)
        assert alone.dtype == np.float32
        np.testing.assert_array_equal(alone, image, err_msg=example["image"])
    np.testing.assert_array_equal(images, np.rint(images))


def test_photographs_bit_for_bit(real_data):
    data = load_data("imagenet_sample", limit=40)
    preprocessing = Preprocessing(fit="crop", crop_fraction=0.875, interpolation="bicubic")
    options = {"image_size": (224, 224), "preprocessing": preprocessing}
    images = np.concatenate([batch.numpy() for batch, _ in data.batches("test", cache=False, **options)])
    for example, image in zip(data.splits["test"], images, strict=True):
        np.testing.assert_array_equal(load_image(example["image"], **options), image)


def test_large_sets_are_not_kept_in_memory(monkeypatch):
    monkeypatch.setattr(dataset_module, "CACHE_BYTES", 100)
    monkeypatch.setattr(dataset_module, "decode_all", lambda *_: pytest.fail("decoded everything"))
    assert order(array_data().batches("train", image_size=(8, 8))) == list(range(20))


def test_limit_is_spread_over_the_split():
    data = array_data()
    assert order(data.batches("train", image_size=(8, 8), limit=5)) == [0, 4, 8, 12, 16]
    np.testing.assert_array_equal(data.targets("train", limit=5)["label"], [0, 4, 3, 2, 1])


def test_arrays_of_different_shapes():
    images = [np.full((4, 6), 10, np.uint8), np.full((9, 3, 1), 20, np.uint8), np.full((5, 5, 3), 30, np.uint8)]
    data = Data(("a", "b"), {"test": [{"image": image, "label": 0} for image in images]})
    assert order(data.batches("test", image_size=(7, 7))) == [10, 20, 30]
    assert order(data.batches("test", image_size=(7, 7), channels=1, cache=False)) == [10, 20, 30]


def test_multi_label_targets():
    _, targets = next(iter(array_data(5, multi_label=True).batches("train", image_size=(8, 8))))
    np.testing.assert_array_equal(targets["labels"], np.eye(5))


@pytest.mark.parametrize("label", [-1, 2, 1.5, None, "a"])
def test_labels_outside_the_range(label):
    with pytest.raises(DataError, match=r"photo\.jpg of the train split has the label .*expected label in 0\.\.1"):
        Data(("a", "b"), {"train": [{"image": "photo.jpg", "label": label}]})
    with pytest.raises(DataError, match=r"example 0 of the train split .*expected labels in 0\.\.1"):
        Data(("a", "b"), {"train": [{"image": np.zeros((2, 2)), "labels": [0, label]}]}, multi_label=True)


def test_split_that_is_missing_or_empty():
    data = array_data()
    with pytest.raises(DataError, match=r"no validation split.*train.*validation_fraction"):
        data.batches("validation", image_size=(8, 8))
    data.splits["test"] = []
    with pytest.raises(DataError, match="test split of the data is empty"):
        data.batches("test", image_size=(8, 8))


def test_unusable_examples(tmp_path):
    (tmp_path / "bad.png").write_text("bad")
    with pytest.raises(DataError, match=r"1 of 1 image files cannot be used:\n.*bad\.png"):
        Data(("a", "b"), {"train": [{"image": str(tmp_path / "bad.png"), "label": 0}]}).batches(
            "train", image_size=(8, 8)
        )
    mixed = [{"image": "a.png", "label": 0}, {"image": np.zeros((2, 2), np.uint8), "label": 0}]
    with pytest.raises(DataError, match="all as arrays, got 1 and 1"):
        Data(("a", "b"), {"train": mixed}).batches("train", image_size=(8, 8))
    with pytest.raises(UnknownNameError, match='"flip"'):
        array_data().batches("train", image_size=(8, 8), augment=["flipp"])


def test_fit_accepts_the_batches():
    data = array_data()
    inputs = keras.Input((8, 8, 3))
    model = keras.Model(inputs, {"label": keras.layers.Dense(5)(keras.layers.Flatten()(inputs))})
    model.compile("sgd", {"label": keras.losses.SparseCategoricalCrossentropy(from_logits=True)})
    history = model.fit(data.batches("train", image_size=(8, 8), shuffle=True, augment=["flip"]), epochs=2, verbose=0)
    assert np.isfinite(history.history["loss"]).all()


def test_nothing_is_written_to_stdout(image_folder, capfd):
    data = load_data(os.fspath(image_folder({"a": 3, "b": 3})), validation_fraction=0)
    list(data.batches("train", image_size=(8, 8)))
    assert capfd.readouterr().out == ""
