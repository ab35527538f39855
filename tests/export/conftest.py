"""Small trained models, so that outputs differ from image to image and parity means something."""

import importlib.util
from pathlib import Path

import keras
import numpy as np
import pytest
from ai_edge_litert import schema_py_generated as schema

import kerasvision as kv
from kerasvision.export.samples import synthetic_images
from kerasvision.export.tflite_metadata import BUFFER
from kerasvision.preprocessing import Preprocessing

LABELS = ("zero", "one", "two", "drei")
# Zero point 128: a uint8 tensor can carry it.
CARRIED = Preprocessing(scale=(1 / 128,), offset=(-1.0,))
# One scale for each channel: it needs an op.
BY_CHANNEL = Preprocessing(scale=(0.017, 0.0175, 0.0174), offset=(-2.1, -2.03, -1.8))


def small_model(shape, preprocessing, **arguments):
    keras.utils.set_random_seed(0)
    return kv.create_model(
        "small_cnn",
        labels=LABELS,
        input_shape=shape,
        preprocessing=preprocessing,
        filters=(8, 16),
        depth=1,
        **arguments,
    )


def images_and_targets(shape, count=96):
    images = synthetic_images(count, shape)
    brightness = images.mean(axis=(1, 2, 3))
    return images, {"label": np.searchsorted(np.quantile(brightness, (0.25, 0.5, 0.75)), brightness).astype(np.int32)}


def train(model, data):
    if isinstance(model, keras.Model):
        model.compile(keras.optimizers.Adam(0.01))
        model.fit(*data, epochs=12, verbose=0)
    else:
        model.compile("adam", learning_rate=1e-3)
        model.fit(*data, epochs=2, verbose=0)
    model.fit_data = None
    return model


@pytest.fixture(scope="session", name="small_model")
def small_model_fixture():
    return small_model


@pytest.fixture(scope="session", name="train")
def train_fixture():
    return train


@pytest.fixture(scope="session", name="images_and_targets")
def images_and_targets_fixture():
    return images_and_targets


@pytest.fixture(scope="session")
def labels():
    return LABELS


@pytest.fixture(scope="session")
def data():
    return images_and_targets((28, 28, 1))


@pytest.fixture(scope="session")
def model(data):
    return train(small_model((28, 28, 1), CARRIED), data)


@pytest.fixture(scope="session")
def quantized(model, data):
    return train(kv.quantize(model), data)


@pytest.fixture(scope="session")
def colour_data():
    return images_and_targets((24, 20, 3))


@pytest.fixture(scope="session")
def colour_model(colour_data):
    return train(small_model((24, 20, 3), BY_CHANNEL), colour_data)


@pytest.fixture(scope="session", name="metadata_buffer")
def metadata_buffer_fixture():
    """Path of a `.tflite` file -> the standard metadata in it."""

    def read(path):
        model = schema.Model.GetRootAs(path.read_bytes())
        entries = {model.Metadata(i).Name().decode(): model.Metadata(i).Buffer() for i in range(model.MetadataLength())}
        return model.Buffers(entries[BUFFER]).DataAsNumpy().tobytes()

    return read


@pytest.fixture(scope="session")
def mediapipe_schema():
    """Classes that read the standard metadata, by MediaPipe."""
    found = importlib.util.find_spec("mediapipe")
    if found is None or found.origin is None:
        pytest.skip("mediapipe, the other reader, is not installed")
    path = Path(found.origin).parent / "tasks" / "metadata" / "metadata_schema_py_generated.py"
    # The file alone: the package around it imports more than it installs.
    spec = importlib.util.spec_from_file_location("mediapipe_metadata_schema", path)
    module = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    return module
