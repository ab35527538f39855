"""What is folded, what must stay, and that the outputs are the same."""

import keras
import numpy as np
import pytest
import tensorflow as tf
from keras import layers

import kerasvision as kv
from kerasvision import registry
from kerasvision.compress.folding import fold
from kerasvision.compress.qat import quantize
from kerasvision.errors import FoldError
from kerasvision.folding import same_padding

NETS = {
    "small_cnn": {"input_shape": (16, 16, 3), "filters": [8, 12]},
    "mobilenet_v2": {"input_shape": (32, 32, 3), "alpha": 0.35},
    "resnet18": {"input_shape": (32, 32, 3)},
}
SIZE, CHANNELS = 9, 4


def randomize(model, seed=0):
    """Statistics and factors of normalization, and biases, that are not what they start as."""
    rng = np.random.default_rng(seed)
    for layer in model.layers:
        for weight in layer.weights:
            if weight.name in ("gamma", "moving_variance"):
                weight.assign(rng.uniform(0.5, 2.0, weight.shape))
            elif weight.name in ("beta", "moving_mean", "bias"):
                weight.assign(rng.normal(0.0, 0.3, weight.shape))
    return model


def pixels(model, seed=1):
    return np.random.default_rng(seed).uniform(0, 255, (3, *model.input_shape[1:])).astype("float32")


def assert_same(model, other, tolerance=1e-5):
    expected, received = model(pixels(model)), other(pixels(model))
    assert expected.keys() == received.keys()
    for name in expected:
        wanted = np.asarray(expected[name], "float32")
        np.testing.assert_allclose(received[name], wanted, rtol=0, atol=tolerance * np.abs(wanted).max())


def names(model, *kinds):
    return [layer.name for layer in model.layers if isinstance(layer, kinds)]


@pytest.fixture
def build(monkeypatch):
    """`build(body)`: a classifier on the features that `body(x)` gives, from x of [B, 9, 9, 4]."""
    registry.list_models()
    monkeypatch.setattr(registry, "_ENTRIES", dict(registry._ENTRIES))

    def make(body):
        @registry.register("custom", input_shape=(SIZE, SIZE, 3))
        def custom(x, *, weights=None):
            y = body(layers.Conv2D(CHANNELS, 1, name="stem")(x))
            return y if isinstance(y, dict) else {"P1": y, "top": y}

        return randomize(kv.create_model("custom", num_classes=3))

    return make


def bn(name="bn"):
    return layers.BatchNormalization(name=name)


def conv(name="conv", filters=CHANNELS, size=3, **arguments):
    return layers.Conv2D(filters, size, name=name, **{"padding": "same", "use_bias": False, **arguments})


@pytest.fixture(scope="module")
def nets():
    keras.utils.set_random_seed(0)
    models = {name: randomize(kv.create_model(name, num_classes=3, **arguments)) for name, arguments in NETS.items()}
    return {name: (model, fold(model)) for name, model in models.items()}


@pytest.mark.parametrize("name", NETS)
def test_registered_nets(nets, name, tmp_path):
    model, folded = nets[name]
    assert_same(model, folded)
    report = folded.fold_report
    assert report.difference < 1e-5
    normalizations = names(model, layers.BatchNormalization)
    assert sorted(report.normalizations) == sorted(normalizations)
    assert names(folded, layers.BatchNormalization, layers.Dropout) == []
    assert report.left == ()
    assert report.identities == ("dropout",)
    # Of the four numbers of each channel one is left, the bias.
    channels = sum(model.get_layer(each).gamma.shape[0] for each in normalizations)
    assert report.parameters == (model.count_params(), model.count_params() - 3 * channels)
    gone = len(normalizations) + len(report.paddings) + 1
    assert report.layers == (len(model.layers), len(model.layers) - gone) == (len(model.layers), len(folded.layers))
    assert folded.count_params() == report.parameters[1]
    folded.save(tmp_path / "folded.keras")
    loaded = keras.saving.load_model(tmp_path / "folded.keras")
    assert loaded.get_config() == folded.get_config() == {**model.get_config(), "folded": {"dead": []}}
    assert loaded.taps == folded.taps
    assert_same(folded, loaded, 0)


@pytest.mark.parametrize("name", NETS)
def test_features_move(nets, name):
    model, folded = nets[name]
    assert list(folded.taps) == list(model.taps)
    images = pixels(model)
    expected, received = model.features(list(model.taps))(images), folded.features(list(model.taps))(images)
    for tap, wanted in expected.items():
        np.testing.assert_allclose(received[tap], wanted, rtol=0, atol=1e-5 * np.abs(wanted).max())


def test_padding_goes_where_same_is_the_same(nets):
    model, folded = nets["mobilenet_v2"]
    assert list(folded.fold_report.paddings) == names(model, layers.ZeroPadding2D)
    assert {layer.padding for layer in folded.layers if isinstance(layer, layers.DepthwiseConv2D)} == {"same"}
    model, folded = nets["resnet18"]
    assert names(folded, layers.ZeroPadding2D) == names(model, layers.ZeroPadding2D)


@pytest.mark.parametrize(
    ("size", "kernel", "stride", "dilation"), [(9, 3, 2, 1), (8, 3, 2, 1), (7, 2, 1, 3), (5, 1, 3, 1)]
)
def test_same_padding_is_that_of_convolutions(size, kernel, stride, dilation):
    x = np.arange(1.0, size + 1, dtype="float32")[None, :, None]
    weights = np.ones((kernel, 1, 1), "float32")
    padded = np.pad(x, [(0, 0), same_padding(size, kernel, stride, dilation), (0, 0)])
    same, valid = (
        tf.nn.conv1d(given, weights, stride, how, dilations=dilation) for given, how in ((x, "SAME"), (padded, "VALID"))
    )
    np.testing.assert_array_equal(same, valid)


BEHIND = {
    "transposed": lambda x: layers.ReLU()(bn()(layers.Conv2DTranspose(5, 2, 2, name="conv")(x))),
    "depthwise": lambda x: bn()(layers.DepthwiseConv2D(3, depth_multiplier=2, name="conv")(x)),
    "separable": lambda x: bn()(layers.SeparableConv2D(5, 3, use_bias=False, name="conv")(x)),
    "grouped": lambda x: bn()(conv(groups=2, use_bias=True)(x)),
    "dense": lambda x: bn()(layers.Dense(5, name="dense")(x)),
    "twice": lambda x: bn("bn2")(layers.Dropout(0.5, name="drop")(bn()(conv()(x)))),
    "without factor": lambda x: layers.BatchNormalization(scale=False, center=False)(conv()(x)),
    "shared normalization": lambda x: (
        lambda shared: layers.Concatenate()([shared(conv("conv1")(x)), shared(conv("conv2")(x))])
    )(bn()),
}
IN_FRONT = {
    "valid": lambda x: conv(padding="valid")(bn()(layers.ReLU()(x))),
    "pointwise": lambda x: conv(size=1, strides=2, use_bias=True)(bn()(layers.ReLU()(x))),
    "depthwise": lambda x: layers.DepthwiseConv2D(3, depth_multiplier=2)(bn()(layers.ReLU()(x))),
    "dense": lambda x: layers.Dense(5, activation="relu", name="dense")(bn()(layers.GlobalMaxPooling2D()(x))),
    "two readers": lambda x: (lambda y: layers.Concatenate()([conv("conv1", size=1)(y), conv("conv2", size=1)(y)]))(
        bn()(layers.ReLU()(x))
    ),
    "both sides": lambda x: bn("bn2")(conv(size=1)(bn("bn1")(bn("bn0")(layers.ReLU()(x))))),
    "padding between": lambda x: conv(padding="valid")(bn()(layers.ZeroPadding2D(1)(layers.ReLU()(x)))),
}


@pytest.mark.parametrize("body", [*BEHIND.values(), *IN_FRONT.values()], ids=[*BEHIND, *IN_FRONT])
def test_normalization_goes_into_weights(build, body):
    model = build(body)
    folded = fold(model)
    assert names(folded, layers.BatchNormalization) == []
    assert_same(model, folded)


def shared_with_a_normalization_for_each_level(x):
    shared = conv()
    fine, coarse = bn("bn1")(shared(x)), bn("bn2")(shared(layers.MaxPooling2D(3, name="coarse")(x)))
    return layers.Concatenate()([fine, layers.UpSampling2D(3)(coarse)])


def two_readers(x):
    y = conv()(x)
    return layers.Add()([y, bn()(y)])


def tapped(x):
    y = conv()(x)
    return {"P1": y, "top": bn()(y)}


STAYS = {
    "shared convolution": (shared_with_a_normalization_for_each_level, 2),
    "two readers": (two_readers, 1),
    "feature in between": (tapped, 1),
    "function in between": (lambda x: bn()(conv(activation="relu")(x)), 1),
    "zeros at the border": (lambda x: conv(activation="relu")(bn()(layers.ReLU()(x))), 1),
    "groups behind": (lambda x: conv(groups=2, size=1)(bn()(layers.ReLU()(x))), 1),
    "other axis": (lambda x: layers.BatchNormalization(axis=1)(conv()(x)), 1),
}


@pytest.mark.parametrize(("body", "count"), STAYS.values(), ids=STAYS)
def test_normalization_stays_where_folding_is_not_exact(build, body, count):
    model = build(body)
    folded = fold(model)
    assert len(names(folded, layers.BatchNormalization)) == count
    assert folded.fold_report.normalizations == ()
    assert len(folded.fold_report.left) == count
    assert_same(model, folded)


def test_dropout_that_is_always_on_stays(build):
    model = build(lambda x: layers.Dropout(0.0, name="always")(x, training=True))
    assert "always" in names(fold(model), layers.Dropout)


@pytest.mark.parametrize(
    ("padding", "reader"),
    [
        (((1, 0), (1, 0)), conv(padding="valid", use_bias=True)),
        (1, layers.MaxPooling2D(3)),
        (1, conv(padding="same")),
        (2, conv(padding="valid")),
    ],
    ids=["other side", "no convolution", "padded twice", "too wide"],
)
def test_padding_stays_where_same_is_another(build, padding, reader):
    clone = type(reader).from_config(reader.get_config())
    model = build(lambda x: clone(layers.ZeroPadding2D(padding, name="pad")(x)))
    folded = fold(model)
    assert names(folded, layers.ZeroPadding2D) == ["pad"]
    assert_same(model, folded)


def test_identities_go(build):
    def body(x):
        y = layers.Activation("linear")(layers.GaussianNoise(0.1)(layers.SpatialDropout2D(0.1)(x)))
        return layers.ZeroPadding2D(0, name="pad")(y)

    model = build(body)
    folded = fold(model)
    assert folded.taps == {"P1": "stem", "top": "stem"}
    assert len(folded.fold_report.identities) == 5
    assert_same(model, folded)


def residual(x):
    """Two blocks; the second has two branches."""
    y = layers.Dropout(0.5, name="drop")(bn("bn1")(conv("conv1")(layers.ReLU(name="relu1")(x))))
    x = layers.Add(name="add1")([x, y])
    left = layers.ReLU(name="left_relu")(bn("left_bn")(conv("left")(x)))
    right = layers.Multiply(name="right_scale")([conv("right")(x), conv("gate", size=1, activation="sigmoid")(x)])
    return layers.Add(name="add2")([left, x, right])


def set_zero(model, *layer_names):
    for name in layer_names:
        for weight in model.get_layer(name).trainable_weights:
            weight.assign(np.zeros(weight.shape))


@pytest.mark.parametrize(
    ("zero", "dead", "sums"),
    [
        ((), (), ["add1", "add2"]),
        (("bn1",), ("bn1",), ["add2"]),
        (("left_bn",), ("left_relu",), ["add1", "add2"]),
        (("right", "left_bn"), ("left_relu", "right_scale"), ["add1"]),
        (("bn1", "right", "left_bn"), ("bn1", "left_relu", "right_scale"), []),
        (("conv1", "gate"), (), ["add1", "add2"]),  # An addend behind the first; sigmoid(0) is a half.
    ],
)
def test_dead_branches_go(build, zero, dead, sums, tmp_path):
    model = build(residual)
    set_zero(model, *zero)
    folded = fold(model)
    assert folded.fold_report.dead == dead
    assert folded.get_config()["folded"] == {"dead": list(dead)}
    assert names(folded, layers.Add) == sums
    assert ("conv1" in names(folded, layers.Conv2D)) == ("bn1" not in zero)
    assert ("gate" in names(folded, layers.Conv2D)) == ("right" not in zero)
    assert folded.taps["P1"] == (sums[-1] if "add2" in sums else "add1" if "add1" in sums else "stem")
    assert_same(model, folded)
    folded.save(tmp_path / "folded.keras")
    assert_same(folded, keras.saving.load_model(tmp_path / "folded.keras"), 0)
    assert all(f"dead branch: {name}" in str(folded.fold_report) for name in dead)


def test_zeros_that_give_the_sum_its_shape_stay(build):
    model = build(lambda x: layers.Add()([conv()(x), layers.GlobalAveragePooling2D(keepdims=True)(x)]))
    set_zero(model, "conv")
    folded = fold(model)
    assert folded.fold_report.dead == ()
    assert_same(model, folded)


def test_mixed_precision_is_folded_in_float32(tmp_path):
    keras.config.set_dtype_policy("mixed_float16")
    try:
        model = randomize(kv.create_model("small_cnn", num_classes=3, input_shape=(8, 8, 1), filters=[8, 8]))
        folded = fold(model)
        folded.save(tmp_path / "folded.keras")
        loaded = keras.saving.load_model(tmp_path / "folded.keras")
        received = loaded(pixels(model))["logits"]
    finally:
        keras.config.set_dtype_policy("float32")
    exact = kv.create_model("small_cnn", num_classes=3, input_shape=(8, 8, 1), filters=[8, 8])
    exact.set_weights(model.get_weights())
    assert_same(exact, folded)
    np.testing.assert_array_equal(received, folded(pixels(model))["logits"])


def test_a_folded_model_quantizes_and_trains(nets):
    model, folded = nets["small_cnn"]
    twins = [quantize(each) for each in (model, folded)]
    for twin in twins:
        twin.calibrate(pixels(model))
    expected, received = (np.asarray(twin(pixels(model))["logits"]) for twin in twins)
    # Both are the int8 file's numbers: the same ranges, kernels that differ by rounding.
    assert np.abs(expected - received).max() <= 0.02 * np.abs(expected).max()
    again = type(twins[1]).from_config(twins[1].get_config())
    assert [layer.name for layer in again.net.layers] == [layer.name for layer in twins[1].net.layers]
    copy = type(folded).from_config(folded.get_config())
    copy.compile("sgd")
    copy.fit(pixels(model), {"label": np.array([0, 1, 2])}, verbose=0)


@pytest.mark.slow
@pytest.mark.parametrize("quantization", ["none", "int8"])
def test_a_folded_model_exports(nets, quantization, tmp_path):
    folded = nets["small_cnn"][1]
    images = pixels(folded).repeat(8, 0).astype("uint8")
    data = tf.data.Dataset.from_tensor_slices((images, {"label": np.zeros(len(images), "int64")})).batch(8)
    report = kv.export(folded, tmp_path, quantization=quantization, data=data, benchmark=False)
    assert kv.load(report.path).labels == folded.labels


def test_a_difference_names_the_layer_where_it_begins():
    model = randomize(kv.create_model("small_cnn", num_classes=3, input_shape=(8, 8, 1), filters=[4, 4]))
    # A mean that the addend cancels in exact numbers, but not in 32 bits.
    layer = model.get_layer("stage0_1_bn")
    layer.moving_mean.assign(np.full(4, 1e9))
    layer.beta.assign(1e9 * np.asarray(layer.gamma) / np.sqrt(np.asarray(layer.moving_variance) + layer.epsilon))
    with pytest.raises(FoldError, match='small_cnn .* begins at "stage0_1_conv"'):
        fold(model)
    model.get_layer("stage0_0_bn").moving_mean.assign(np.full(4, np.nan))
    with pytest.raises(FoldError, match='begins at "stage0_0_conv" .* not finite'):
        fold(model)


def test_what_cannot_be_folded(nets):
    with pytest.raises(ValueError, match="is folded already"):
        fold(nets["small_cnn"][1])
    with pytest.raises(TypeError, match="got Functional"):
        fold(nets["small_cnn"][0].net)
