"""The callbacks of a user's own fit: averages, best epoch, NaN, resume."""

import keras
import numpy as np
import pytest

import kerasvision as kv
from kerasvision.errors import ArtifactError, RecipeError, TrainingDivergedError
from kerasvision.training.callbacks import Best, averaged_weights, essentials
from kerasvision.training.checkpoint import Checkpoint


@pytest.fixture
def model():
    keras.utils.set_random_seed(1)
    return kv.create_model("small_cnn", num_classes=3, input_shape=(8, 8, 1), filters=[4], depth=1)


@pytest.fixture(scope="module")
def arrays():
    random = np.random.default_rng(0)
    return random.uniform(0, 255, (24, 8, 8, 1)).astype(np.float32), {"label": random.integers(0, 3, 24)}


def test_a_script_run_again_goes_on_and_cleans_up(model, arrays, tmp_path):
    class Kill(keras.callbacks.Callback):
        def on_epoch_begin(self, epoch, logs=None):
            if epoch == 2:
                raise KeyboardInterrupt

    model.compile("adam")
    with pytest.raises(KeyboardInterrupt):
        model.fit(*arrays, validation_data=arrays, epochs=4, verbose=0, callbacks=[*kv.callbacks(tmp_path), Kill()])
    assert (tmp_path / "checkpoint" / "state.npz").exists()

    again = kv.create_model("small_cnn", num_classes=3, input_shape=(8, 8, 1), filters=[4], depth=1)
    again.compile("adam")
    history = again.fit(*arrays, validation_data=arrays, epochs=4, verbose=0, callbacks=kv.callbacks(tmp_path))
    assert history.epoch == [2, 3]
    assert int(again.optimizer.iterations) == 4
    assert not (tmp_path / "checkpoint").exists()
    saved = keras.saving.load_model(tmp_path / "model.keras")
    for kept, value in zip(saved.get_weights(), again.get_weights(), strict=True):
        np.testing.assert_array_equal(kept, value)
    # Finished, so that a further fit is a new one.
    assert len(again.fit(*arrays, epochs=1, verbose=0).epoch) == 1


def test_best_epoch_is_restored_and_training_stops_early(model, arrays, tmp_path):
    figures = iter([0.5, 0.3, 0.4, 0.35, 0.2])
    weights = []

    class Report(keras.callbacks.Callback):
        def on_epoch_end(self, epoch, logs=None):
            logs["val_loss"] = next(figures)
            weights.append(self.model.get_weights())

    model.compile(keras.optimizers.Adam(0.1))
    best = Best(tmp_path / "best.weights.h5", "val_loss", patience=2)
    history = model.fit(*arrays, epochs=5, verbose=0, callbacks=[Report(), best])
    assert len(history.epoch) == 4  # Epochs 3 and 4 were no better than epoch 2.
    assert best.state["epoch"] == 1
    for kept, value in zip(model.get_weights(), weights[1], strict=True):
        np.testing.assert_array_equal(kept, value)


def test_higher_accuracy_is_better_and_loss_breaks_ties(model):
    best = Best(None, "val_accuracy")
    best.set_model(model)
    for accuracy, loss, epoch in ((0.5, 1.0, 0), (0.9, 1.0, 1), (0.9, 0.5, 2), (0.9, 0.7, 3), (0.8, 0.1, 4)):
        best.on_epoch_end(epoch, {"val_accuracy": accuracy, "val_loss": loss})
    assert best.state["epoch"] == 2


def test_unknown_monitor_names_the_closest(model):
    best = Best(None, "val_acuracy")
    best.set_model(model)
    with pytest.raises(RecipeError, match='"val_accuracy"'):
        best.on_epoch_end(0, {"val_accuracy": 1.0, "val_loss": 1.0})


def test_moving_average_is_validated_kept_and_left_in_the_end(model, arrays, tmp_path):
    validated, trained, averages = [], [], []

    class Watch(keras.callbacks.Callback):
        def on_test_begin(self, logs=None):
            validated.append(self.model.get_layer("logits").get_weights()[0])

        def on_epoch_end(self, epoch, logs=None):
            trained.append(self.model.get_layer("logits").get_weights()[0])
            with averaged_weights(self.model):
                averages.append(self.model.get_layer("logits").get_weights()[0])
            np.testing.assert_array_equal(self.model.get_layer("logits").get_weights()[0], trained[-1])

    model.compile(keras.optimizers.SGD(0.1, use_ema=True, ema_momentum=0.5))
    best = Best(tmp_path / "b.weights.h5", "val_loss")
    callbacks = essentials(tmp_path / "state.npz", best, Watch())
    model.fit(*arrays, batch_size=8, validation_data=arrays, epochs=3, verbose=0, callbacks=callbacks)
    assert not np.allclose(averages[0], trained[0])
    np.testing.assert_array_equal(validated[:3], averages[:3])
    np.testing.assert_array_equal(model.get_layer("logits").get_weights()[0], averages[best.state["epoch"]])


def test_moving_average_follows_its_definition(model, arrays):
    """average <- momentum * average + (1 - momentum) * weight, beginning with the first weight."""
    weights = []

    class Watch(keras.callbacks.Callback):
        def on_train_batch_end(self, batch, logs=None):
            weights.append(self.model.get_layer("logits").get_weights()[0])

    model.compile(keras.optimizers.SGD(0.5, use_ema=True, ema_momentum=0.8))
    model.fit(*arrays, batch_size=8, epochs=1, verbose=0, callbacks=[Watch()])
    expected = weights[0]
    for weight in weights[1:]:
        expected = 0.8 * expected + 0.2 * weight
    np.testing.assert_allclose(model.get_layer("logits").get_weights()[0], expected, atol=1e-6)


def test_nan_loss_stops_and_keeps_the_checkpoint(model, arrays, tmp_path):
    class Break(keras.callbacks.Callback):
        def on_epoch_begin(self, epoch, logs=None):
            if epoch == 1:
                kernel = self.model.get_layer("logits").kernel
                kernel.assign(np.full(kernel.shape, np.nan))

    model.compile(keras.optimizers.Adam(0.02))
    path = tmp_path / "checkpoint" / "state.npz"
    with pytest.raises(TrainingDivergedError) as error:
        model.fit(*arrays, epochs=3, batch_size=8, verbose=0, callbacks=[Break(), *kv.callbacks(tmp_path)])
    for part in ("epoch 2, step 1", "0.02", str(path), "learning rate"):
        assert part in str(error.value)
    with np.load(path) as file:
        assert all(np.isfinite(file[name]).all() for name in file.files)


def test_weights_that_are_not_finite_are_never_written(model, arrays, tmp_path):
    class Break(keras.callbacks.Callback):
        def on_epoch_end(self, epoch, logs=None):
            self.model.get_layer("logits").bias.assign([np.inf, 0, 0])

    model.compile("adam")
    with pytest.raises(TrainingDivergedError, match="logits/bias"):
        model.fit(*arrays, epochs=1, verbose=0, callbacks=[Break(), Checkpoint(tmp_path / "state.npz", {})])
    assert list(tmp_path.iterdir()) == []


@pytest.mark.parametrize("damage", [b"", b"no archive", "truncated"])
def test_damaged_checkpoint_is_named(model, arrays, tmp_path, damage):
    model.compile("adam")
    path = tmp_path / "state.npz"
    if damage == "truncated":
        checkpoint = Checkpoint(path, {})
        checkpoint.set_model(model)
        model.optimizer.build(model.trainable_variables)
        checkpoint.on_epoch_end(0)
        damage = path.read_bytes()[:-200]
    path.write_bytes(damage)
    with pytest.raises(ArtifactError, match=r"state\.npz is damaged.*Remove it"):
        Checkpoint(path, {}).read()


def test_checkpoint_of_another_model_is_refused(model, arrays, tmp_path):
    model.compile("adam")
    model.fit(*arrays, epochs=1, verbose=0, callbacks=[Checkpoint(tmp_path / "state.npz", {})])
    other = kv.create_model("small_cnn", num_classes=3, input_shape=(8, 8, 1), filters=[5], depth=1)
    other.compile("adam")
    with pytest.raises(ArtifactError, match="belongs to another model"):
        other.fit(*arrays, epochs=1, verbose=0, callbacks=[Checkpoint(tmp_path / "state.npz", {})])
