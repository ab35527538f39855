import keras
import numpy as np
import pytest
from keras import layers

import kerasvision as kv
from kerasvision.compress.bridge import build_twin


def randomize(model, seed=0):
    """Batch statistics and scales away from their initial values, so that a mix-up shows."""
    rng = np.random.default_rng(seed)
    for layer in model.layers:
        if isinstance(layer, layers.BatchNormalization):
            size = layer.gamma.shape
            layer.set_weights(
                [
                    rng.uniform(0.8, 1.2, size),
                    rng.normal(0, 0.1, size),
                    rng.normal(0, 0.1, size),
                    rng.uniform(0.8, 1.2, size),
                ]
            )


@pytest.mark.parametrize("name", ["small_cnn", "mobilenet_v2", "resnet50", "efficientnet_lite0"])
def test_twin_computes_the_same(name):
    keras.utils.set_random_seed(0)
    model = kv.create_model(name, num_classes=7, input_shape=(64, 64, 3))
    randomize(model)
    twin = build_twin(model.net)
    image = np.random.default_rng(1).normal(size=(4, 64, 64, 3)).astype("float32")
    expected = model.net.predict(image, verbose=0)["logits"]
    received = twin.predict(image, verbose=0)["logits"]
    assert np.abs(received - expected).max() <= 1e-5
    assert np.abs(expected).max() > 1e-3
    assert [layer.name for layer in twin.layers][1:] == [layer.name for layer in model.net.layers][1:]


def test_layers_with_non_default_arguments():
    x = image = keras.Input((12, 12, 3))
    x = layers.Conv2D(
        8,
        (3, 5),
        strides=2,
        padding="same",
        groups=1,
        kernel_regularizer=keras.regularizers.L2(1e-3),
        activation="relu",
    )(x)
    x = layers.DepthwiseConv2D(3, depth_multiplier=2, dilation_rate=2, padding="same")(x)
    x = layers.LayerNormalization(epsilon=1e-2)(x)
    x = layers.LeakyReLU(negative_slope=0.17)(x)
    x = layers.Conv2DTranspose(4, 3, strides=2, kernel_constraint=keras.constraints.MaxNorm(2.0))(x)
    x = layers.BatchNormalization(epsilon=0.1, center=False)(x)
    x = layers.Concatenate()([x, layers.ReLU(max_value=3.0)(x)])
    x = layers.Multiply()([x, layers.Activation("sigmoid")(x)])
    x = layers.SeparableConv2D(5, 3)(x)
    x = layers.Flatten()(layers.Resizing(4, 4)(x))
    model = keras.Model(image, {"a": layers.Dense(3, activation="gelu")(x), "b": x})
    twin = build_twin(model)
    pixels = np.random.default_rng(0).normal(size=(2, 12, 12, 3)).astype("float32")
    for name, value in model.predict(pixels, verbose=0).items():
        np.testing.assert_allclose(twin.predict(pixels, verbose=0)[name], value, atol=1e-5)


def test_shared_layers_and_nested_models():
    inner_input = keras.Input((8, 8, 4))
    inner = keras.Model(inner_input, layers.Conv2D(4, 3, padding="same", name="inner_conv")(inner_input))
    image = keras.Input((8, 8, 4))
    shared = layers.Conv2D(4, 1, name="shared")
    model = keras.Model(image, {"out": layers.Add(name="sum")([shared(inner(image)), shared(image)])})
    twin = build_twin(model)
    assert [layer.name for layer in twin.layers].count("shared") == 1
    assert "inner_conv" in [layer.name for layer in twin.layers]


@keras.saving.register_keras_serializable("test_bridge")
class Odd(layers.Layer):
    """No layer of tf_keras: one weight that trains, one that does not."""

    def build(self, shape):
        self.factor = self.add_weight(shape=(shape[-1],), initializer="random_normal", name="factor")
        self.offset = self.add_weight(shape=(), initializer="random_normal", name="offset", trainable=False)

    def call(self, x):
        return keras.ops.sin(x * self.factor) + self.offset


def test_a_layer_without_a_twin_is_adopted():
    image = keras.Input((8, 8, 3))
    model = keras.Model(image, {"out": Odd(name="odd_one")(layers.Conv2D(3, 1, name="conv")(image))})
    twin = build_twin(model)  # Which compares the two.
    assert [tuple(weight.shape) for weight in twin.get_layer("odd_one").trainable_weights] == [(3,)]
    assert [tuple(weight.shape) for weight in twin.get_layer("odd_one").non_trainable_weights] == [()]
    twin.get_layer("odd_one").set_weights([np.zeros(3), np.float32(7)])
    np.testing.assert_allclose(twin(np.ones((1, 8, 8, 3), "float32"))["out"], 7.0)


def test_operators_on_tensors_are_adopted():
    image = keras.Input((8, 8, 2))
    model = keras.Model(image, {"out": (image * 3.0 + 1.0) * (2.0 - image)})
    twin = build_twin(model)
    np.testing.assert_allclose(twin(np.full((1, 8, 8, 2), 0.5, "float32"))["out"], 2.5 * 1.5)
