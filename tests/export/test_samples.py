import keras
import numpy as np
import pytest
import tensorflow as tf
from hypothesis import given
from hypothesis import strategies as st

from kerasvision.errors import ExportError
from kerasvision.export.samples import batches_of, draw_samples, synthetic_images

SHAPE = (4, 4, 1)


def numbered(count):
    return np.broadcast_to(np.arange(count, dtype=np.float32)[:, None, None, None], (count, *SHAPE)).copy()


class Sequence(keras.utils.PyDataset):
    def __len__(self):
        return 2

    def __getitem__(self, index):
        return numbered(6)[index * 3 : index * 3 + 3], {"label": np.arange(3) + index * 3}


@pytest.mark.parametrize(
    "data",
    [
        (numbered(6), {"label": np.arange(6)}),
        tf.data.Dataset.from_tensor_slices((numbered(6), {"label": np.arange(6)})),
        tf.data.Dataset.from_tensor_slices((numbered(6), {"label": np.arange(6)})).batch(4),
        [(numbered(6)[:2], {"label": np.arange(2)}), (numbered(6)[2:], {"label": np.arange(2, 6)})],
        Sequence(),
    ],
    ids=["arrays", "single", "batched", "list", "sequence"],
)
def test_all_that_fit_takes(data):
    images, targets = zip(*batches_of(data, SHAPE), strict=True)
    np.testing.assert_array_equal(np.concatenate(images), numbered(6))
    np.testing.assert_array_equal(np.concatenate([each["label"] for each in targets]), np.arange(6))


def test_images_alone():
    assert sum(len(images) for images, _ in batches_of(numbered(5), SHAPE)) == 5
    assert draw_samples(tf.data.Dataset.from_tensor_slices(numbered(5)).batch(2), 9, SHAPE).shape == (5, *SHAPE)


@given(st.integers(1, 60), st.integers(1, 20))
def test_samples_are_different_images(size, count):
    values = draw_samples(numbered(size), count, SHAPE)[:, 0, 0, 0]
    assert len(values) == len(set(values)) == min(size, count)


def test_samples_come_from_all_of_a_sorted_set():
    values = draw_samples(numbered(250), 50, SHAPE)[:, 0, 0, 0]
    assert np.histogram(values, bins=5, range=(0, 250))[0].min() >= 3
    np.testing.assert_array_equal(values, draw_samples(numbered(250), 50, SHAPE)[:, 0, 0, 0])


def test_endless_data_is_fine():
    endless = tf.data.Dataset.from_tensor_slices(numbered(3)).batch(3).repeat()
    assert len(draw_samples(endless, 2, SHAPE)) == 2


@pytest.mark.parametrize(
    ("images", "words"),
    [
        (np.zeros((2, 5, 4, 1)), r"\[N, 4, 4, 1\]"),
        (numbered(2) - 1, "raw pixels"),
        (numbered(2) + 255, "raw pixels"),
        (numbered(0), "no images"),
    ],
)
def test_wrong_images(images, words):
    with pytest.raises(ExportError, match=words):
        draw_samples(images, 4, SHAPE)


@pytest.mark.parametrize("shape", [(28, 28, 1), (9, 17, 3), (1, 1, 3)])
def test_synthetic_images(shape):
    images = synthetic_images(3, shape)
    assert images.shape == (3, *shape)
    assert images.dtype == np.float32
    np.testing.assert_array_equal(images, synthetic_images(3, shape))
    if shape[0] > 1:
        assert (images.min(axis=(1, 2, 3)).tolist(), images.max(axis=(1, 2, 3)).tolist()) == ([0.0] * 3, [255.0] * 3)
