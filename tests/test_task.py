import keras
import numpy as np
import pytest
import tensorflow as tf

import kerasvision as kv

NON_DEFAULT = {
    "num_classes": 3,
    "labels": ["ant", "bee", "cow"],
    "input_shape": (9, 7, 3),
    "filters": [4, 5],
    "depth": 1,
    "dropout": 0.35,
    "label_smoothing": 0.15,
    "loss": "focal",
    "multi_label": True,
    "preprocessing": kv.Preprocessing(scale=(0.01, 0.02, 0.03), offset=(-1.0,), fit="crop", crop_fraction=0.5),
}


def batches(labels, shape=(8, 8, 1), batch=4):
    images = np.random.default_rng(0).integers(0, 256, (len(labels), *shape)).astype("uint8")
    return tf.data.Dataset.from_tensor_slices((images, {"label": np.asarray(labels)})).batch(batch)


@pytest.fixture
def model():
    keras.utils.set_random_seed(1)
    return kv.create_model("small_cnn", num_classes=3, input_shape=(8, 8, 1), filters=[4, 6], label_smoothing=0.1)


def test_keras_file_restores_task_and_behaviour(tmp_path):
    model = kv.create_model("small_cnn", **NON_DEFAULT)
    model.compile("adam")
    images = np.random.default_rng(0).uniform(0, 255, (4, 9, 7, 3)).astype("float32")
    targets = {"labels": np.eye(3)[[0, 1, 2, 0]]}
    model.fit(tf.data.Dataset.from_tensor_slices((images, targets)).batch(2), epochs=1, verbose=0)
    model.save(tmp_path / "model.keras")

    again = keras.saving.load_model(tmp_path / "model.keras")
    assert type(again) is kv.TaskModel
    assert again.get_config() == model.get_config()
    assert again.task.get_config() == model.task.get_config()
    assert again.preprocessing == NON_DEFAULT["preprocessing"]
    assert again.get_layer("dropout").rate == 0.35
    np.testing.assert_array_equal(
        again.predict(images, verbose=0)["logits"], model.predict(images, verbose=0)["logits"]
    )
    assert again.evaluate(images, targets, verbose=0) == model.evaluate(images, targets, verbose=0)
    np.testing.assert_array_equal(again.optimizer.iterations, model.optimizer.iterations)


def test_files_hold_each_weight_once(model, tmp_path):
    import h5py

    model.net  # noqa: B018
    model.save_weights(tmp_path / "model.weights.h5")
    with h5py.File(tmp_path / "model.weights.h5") as file:
        assert sorted(file.keys()) == ["layers", "vars"]


def test_fit_logs_every_named_loss_and_monitor(model):
    model.compile("adam")
    data = batches([0, 1, 2, 0, 1])
    history = model.fit(data, validation_data=data, epochs=2, verbose=0).history
    assert set(history) == {
        f"{prefix}{name}" for prefix in ("", "val_") for name in ("loss", "crossentropy", "accuracy")
    }
    assert history["loss"] == pytest.approx(history["crossentropy"])
    assert model.fit_data is data


def test_running_means_weigh_batches_by_their_size(model):
    model.compile("adam")
    result = model.evaluate(batches([0, 1, 2, 0, 1], batch=4), return_dict=True, verbose=0)
    whole = model.evaluate(batches([0, 1, 2, 0, 1], batch=5), return_dict=True, verbose=0)
    assert result == pytest.approx(whole, rel=1e-5)


def test_gradients_reach_every_weight(model):
    images, targets = next(iter(batches([0, 1, 2, 0])))
    with tf.GradientTape() as tape:
        loss = model.compute_loss(images, targets, model(images, training=True))
    for weight, gradient in zip(
        model.trainable_weights, tape.gradient(loss, [w.value for w in model.trainable_weights]), strict=True
    ):
        assert np.abs(gradient).max() > 0, weight.path


def test_class_weight_and_regularizers_count(model):
    images, targets = next(iter(batches([0, 1, 2, 0])))
    outputs = model(images)
    once = float(model.compute_loss(images, targets, outputs))
    twice = float(model.compute_loss(images, targets, outputs, sample_weight=tf.fill([4], 2.0)))
    assert twice == pytest.approx(2 * once)


def test_mixed_precision_keeps_float32_logits():
    keras.config.set_dtype_policy("mixed_float16")
    try:
        model = kv.create_model("small_cnn", num_classes=3, input_shape=(8, 8, 1), filters=[4])
    finally:
        keras.config.set_dtype_policy("float32")
    assert model.get_layer("stage0_0_conv").compute_dtype == "float16"
    assert model(np.zeros((1, 8, 8, 1), "uint8"))["logits"].dtype == tf.float32
