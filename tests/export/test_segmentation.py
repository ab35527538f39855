"""Files of segmenters: bytes of pixels in, bytes of classes out, decided inside."""

import keras
import numpy as np
import pytest
import tensorflow as tf

import kerasvision as kv

SIZE = (32, 48)
LABELS = ("ground", "red", "blue")
COLOURS = np.float32([[90, 90, 90], [230, 40, 40], [40, 60, 230]])


@pytest.fixture(scope="module")
def trained():
    """A small net that has learned colours, and what it has learned from."""
    random = np.random.default_rng(0)
    classes = random.integers(0, 3, (16, 4, 6), np.uint8).repeat(8, axis=1).repeat(8, axis=2)
    classes[:, :2] = 255
    images = COLOURS[np.where(classes == 255, 0, classes)]
    data = tf.data.Dataset.from_tensor_slices((images, {"segmentation": classes})).batch(8)
    keras.utils.set_random_seed(0)
    model = kv.create_model(
        "lraspp",
        labels=LABELS,
        input_shape=(*SIZE, 3),
        backbone="small_cnn",
        backbone_arguments={"filters": [8, 8, 16, 16, 16, 16], "depth": 1},
        filters=16,
    )
    model.compile(keras.optimizers.Adam(0.01))
    model.fit(data.repeat(10), verbose=0)
    return model, data


@pytest.mark.parametrize("quantization", ["none", "int8"])
def test_classes_are_bytes(trained, quantization, tmp_path):
    model, data = trained
    report = kv.export(
        model, tmp_path, quantization=quantization, data=data, metric_data=data, samples=16, benchmark=False
    )
    output = report.signature["outputs"]["classes"]
    assert output["dtype"] == "uint8" and output["shape"] == [1, *SIZE]
    assert {"ARG_MAX", "RESIZE_BILINEAR"} <= report.ops.keys() and report.float_ops == []
    assert report.parity["classes"]["mean"] <= (1e-3 if quantization == "none" else 0.05)
    assert report.metrics["mIoU"] == pytest.approx(report.reference_metrics["mIoU"], abs=0.02)
    predictor = kv.load(report.path)
    images = np.concatenate([batch.numpy() for batch, _ in data])
    own = model.task.decode(model(images, training=False))["classes"]
    found = predictor.predict(list(images.astype(np.uint8)))
    share = np.mean(np.stack(found.maps) != np.asarray(own))
    assert share <= (1e-3 if quantization == "none" else 0.05)
