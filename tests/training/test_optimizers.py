import keras
import numpy as np
import pytest

from kerasvision.recipe import TrainRecipe
from kerasvision.training.optimizers import make_optimizer, schedule


def test_schedule_rises_linearly_and_falls_as_half_a_cosine():
    rate = schedule(0.1, steps=110, warmup_steps=10, final=0.01)
    values = np.array([float(rate(step)) for step in range(111)])
    np.testing.assert_allclose(np.diff(values[:11]), np.diff(values[:2])[0], rtol=1e-4)
    assert 0 < values[0] < 0.011
    assert values[10] == pytest.approx(0.1)
    for step in (10, 35, 60, 85, 110):
        expected = 0.001 + 0.099 * (1 + np.cos(np.pi * (step - 10) / 100)) / 2
        assert values[step] == pytest.approx(expected, rel=1e-4)


def test_constant_schedule_stays_after_the_warm_up():
    rate = schedule(0.1, steps=50, warmup_steps=5, shape="constant")
    np.testing.assert_allclose([float(rate(step)) for step in range(5, 51)], 0.1, rtol=1e-5)


def test_poly_falls_to_the_last_value_and_is_saved():
    rate = schedule(0.1, steps=110, warmup_steps=10, final=0.1, shape="poly")
    again = keras.saving.deserialize_keras_object(keras.saving.serialize_keras_object(rate))
    for step in (0, 5, 10, 35, 60, 110, 200):
        left = max(1 - max(step - 10, 0) / 100, 0)
        expected = (0.01 + 0.09 * left**0.9) * min((step + 1) / 11, 1)
        assert float(rate(step)) == pytest.approx(expected, rel=1e-4)
        assert float(again(step)) == float(rate(step))


@pytest.mark.parametrize("name", ["adam", "adamw", "sgd", "lamb", "lion", "rmsprop"])
def test_weight_decay_spares_biases_and_normalization(name):
    model = keras.Sequential([keras.Input((4,)), keras.layers.Dense(3), keras.layers.BatchNormalization()])
    model.layers[0].bias.assign([1.0, 1.0, 1.0])
    before = [keras.ops.convert_to_numpy(v) for v in model.trainable_variables]
    recipe = TrainRecipe(
        epochs=1, optimizer=name, learning_rate=0.1, schedule="constant", weight_decay=0.5, clip_norm=1.0
    )
    optimizer = make_optimizer(recipe, 10, model.trainable_variables)
    optimizer.apply([np.zeros(v.shape, np.float32) for v in before], model.trainable_variables)
    for value, start in zip(model.trainable_variables, before, strict=True):
        factor = 0.95 if start.ndim == 2 else 1.0  # 1 - learning rate * weight decay, and no gradient.
        np.testing.assert_allclose(keras.ops.convert_to_numpy(value), start * factor, atol=1e-6)


def test_optimizer_takes_every_field():
    recipe = TrainRecipe(
        epochs=5,
        optimizer="sgd",
        learning_rate=0.2,
        momentum=0.8,
        nesterov=True,
        clip_norm=2.0,
        ema=0.95,
        warmup_epochs=0.5,
        final_learning_rate=0.1,
    )
    config = make_optimizer(recipe, 10, []).get_config()
    assert (config["momentum"], config["nesterov"], config["global_clipnorm"]) == (0.8, True, 2.0)
    assert (config["use_ema"], config["ema_momentum"]) == (True, 0.95)
    warm_up = config["learning_rate"]["config"]
    rate = warm_up["schedule"]["config"]
    assert (warm_up["steps"], rate["decay_steps"], rate["alpha"], rate["initial_learning_rate"]) == (5, 45, 0.1, 0.2)
