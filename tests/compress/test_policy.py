"""Every layer the policy knows, in one int8 file: no float op, and the numbers of the fake-quantized net."""

import functools
import tempfile

import keras
import numpy as np
import pytest
import tensorflow as tf
from ai_edge_litert.interpreter import Interpreter
from keras import layers

from kerasvision.compress.bridge import build_twin
from kerasvision.compress.layers import InFloat
from kerasvision.compress.policy import fake_quantize
from kerasvision.compress.quantizers import RangeQuantizer, WeightQuantizer, observed
from kerasvision.errors import QuantizationError
from kerasvision.export.coverage import float_ops, read_graph

SIZE, CHANNELS = 8, 6


def conv(x, name, filters=CHANNELS, **arguments):
    return layers.Conv2D(filters, 3, padding="same", name=name, **arguments)(x)


def gate(x, function, name):
    y = layers.GlobalAveragePooling2D(keepdims=True, name=f"{name}_pool")(x)
    y = layers.Conv2D(2, 1, activation="relu", name=f"{name}_reduce")(y)
    y = layers.Conv2D(CHANNELS, 1, name=f"{name}_expand")(y)
    return layers.Multiply(name=f"{name}_multiply")([x, layers.Activation(function, name=f"{name}_{function}")(y)])


def shared_levels(x):
    shared = layers.Conv2D(CHANNELS, 3, padding="same", use_bias=False, name="shared")
    fine = layers.ReLU(name="shared_fine_relu")(layers.BatchNormalization(name="shared_fine_bn")(shared(x)))
    coarse = layers.BatchNormalization(name="shared_coarse_bn")(shared(layers.MaxPooling2D(2, name="shared_pool")(x)))
    coarse = layers.UpSampling2D(2, name="shared_up")(layers.ReLU(name="shared_coarse_relu")(coarse))
    return layers.Concatenate(name="shared_concat")([fine, coarse])


def dense_block(x):
    for index in range(2):
        y = layers.ReLU(name=f"dense{index}_relu")(layers.BatchNormalization(name=f"dense{index}_bn")(x))
        x = layers.Concatenate(name=f"dense{index}_concat")([x, conv(y, f"dense{index}_conv", 4)])
    return x


def transposed(x):
    y = layers.Conv2DTranspose(CHANNELS, 2, 2, name="transposed")(x)
    return layers.ReLU(name="transposed_relu")(layers.BatchNormalization(name="transposed_bn")(y))


def transposed_relu(x):
    return conv(layers.ReLU(name="up_relu")(layers.Conv2DTranspose(CHANNELS, 2, 2, name="up")(x)), "up_conv", strides=2)


def attention(x):
    q, k = (
        layers.Reshape((SIZE * SIZE, CHANNELS), name=f"attention_{n}_flat")(conv(x, f"attention_{n}")) for n in "qk"
    )
    weights = layers.Softmax(name="attention_softmax")(layers.Dot((2, 2), name="attention_dot")([q, k]))
    return layers.Dot((2, 1), name="attention_values")([weights, k])


def dilated(x):
    return layers.BatchNormalization(name="dilated_bn")(conv(x, "dilated", dilation_rate=2, use_bias=False))


def strided(x):
    y = layers.ZeroPadding2D(((0, 1), (0, 1)), name="strided_pad")(x)
    return layers.Conv2D(CHANNELS, 3, 2, name="strided")(y)


def separable(x):
    y = layers.SeparableConv2D(CHANNELS, 3, padding="same", use_bias=False, name="separable_plain")(x)
    y = layers.ReLU(name="separable_relu")(layers.BatchNormalization(name="separable_bn")(y))
    return layers.SeparableConv2D(CHANNELS, 3, padding="same", activation="relu", name="separable")(y)


def dead_channels(x):
    """`net_of` leaves nothing of every second channel's kernel: the channel is its bias."""
    y = layers.BatchNormalization(name="dead_bn")(conv(x, "dead_conv", use_bias=False))
    y = layers.DepthwiseConv2D(3, padding="same", use_bias=False, name="dead_dw")(layers.ReLU(6.0, name="dead_relu")(y))
    y = layers.ReLU(name="dead_dw_relu")(layers.BatchNormalization(name="dead_dw_bn")(y))
    return conv(y, "dead_biased", bias_initializer=keras.initializers.RandomUniform(-1, 1, seed=1))


CASES = {
    "hard_silu": lambda x: layers.Activation("hard_silu", name="hard_silu")(x),
    "silu_inside": lambda x: conv(x, "silu_inside", activation="silu"),
    "gelu": lambda x: layers.Activation("gelu", name="gelu")(x),
    "tanh": lambda x: layers.Activation("tanh", name="tanh")(x),
    "leaky_relu": lambda x: layers.LeakyReLU(0.1, name="leaky")(
        layers.BatchNormalization(name="leaky_bn")(conv(x, "c1"))
    ),
    "prelu": lambda x: layers.PReLU(
        shared_axes=[1, 2], alpha_initializer=keras.initializers.RandomUniform(0.1, 0.4, seed=0), name="prelu"
    )(x),
    "squeeze_excite": lambda x: gate(x, "sigmoid", "se"),
    "hard_squeeze_excite": lambda x: gate(x, "hard_sigmoid", "hse"),
    "shared_levels": shared_levels,
    "dense_block": dense_block,
    "transposed": transposed,
    "transposed_relu": transposed_relu,
    "attention": attention,
    "dilated": dilated,
    "strided": strided,
    "separable": separable,
    "depthwise": lambda x: layers.ReLU(6.0, name="dw_relu")(layers.DepthwiseConv2D(3, padding="same", name="dw")(x)),
    "grouped": lambda x: conv(x, "grouped", groups=2),
    "bilinear": lambda x: layers.UpSampling2D(2, interpolation="bilinear", name="bilinear")(x),
    "average_pool": lambda x: layers.AveragePooling2D(2, name="average_pool")(x),
    "subtract": lambda x: layers.Subtract(name="subtract")([conv(x, "s1"), x]),
    "maximum": lambda x: layers.Maximum(name="maximum")([conv(x, "m1"), x]),
    "rescaling": lambda x: layers.Rescaling([0.5, 2.0, 1.0, 1.5, 0.1, 3.0], 0.25, name="rescaling")(x),
    "normalization": lambda x: layers.Normalization(mean=[0.1] * 6, variance=[0.4] * 6, name="normalization")(x),
    "operators": lambda x: (x * 0.5 + 1.0) * x,
    "dense": lambda x: layers.Dense(5, activation="hard_sigmoid", name="fc")(layers.GlobalMaxPooling2D(name="gmp")(x)),
    "late_bn": lambda x: layers.BatchNormalization(name="late_bn")(layers.GlobalAveragePooling2D(name="late_pool")(x)),
    "mixed_ranges": lambda x: layers.Concatenate(name="mix")([layers.Activation("sigmoid", name="mix_sigmoid")(x), x]),
    "permute": lambda x: layers.Permute((2, 1, 3), name="permute")(layers.Cropping2D(1, name="crop")(x)),
    "dead_channels": dead_channels,
    "layer_norm": lambda x: layers.LayerNormalization(name="layer_norm")(x),
}
ISLANDS = {"layer_norm"}


# The converter aborts on a graph of many outputs.
GROUPS = [tuple(list(CASES)[start::3]) for start in range(3)]
EACH_CASE = pytest.mark.parametrize(("names", "name"), [(names, name) for names in GROUPS for name in names])


@functools.cache
def net_of(names):
    keras.utils.set_random_seed(0)
    image = keras.Input((SIZE, SIZE, CHANNELS), name="image")
    x = layers.ReLU(name="first_relu")(conv(image, "first"))
    model = keras.Model(image, {name: CASES[name](conv(x, f"{name}_in")) for name in names})
    rng = np.random.default_rng(0)
    for layer in model.layers:
        if isinstance(layer, layers.BatchNormalization):
            layer.set_weights([rng.uniform(0.5, 2.0, weight.shape) for weight in layer.weights])
        elif layer.name.startswith("dead") and layer.weights:
            kernel, *bias = layer.get_weights()
            by_channel = kernel.reshape(*kernel.shape[:2], -1, CHANNELS)
            layer.set_weights([(by_channel * np.resize([1, 1e-9], CHANNELS)).reshape(kernel.shape), *bias])
    fake = fake_quantize(build_twin(model), (-1.0, 1.0))
    images = rng.uniform(-1, 1, (64, SIZE, SIZE, CHANNELS)).astype("float32")
    seen = {}

    def note(name, values, quantized):
        seen[name] = values
        return values

    with observed(note):
        plain = fake.net(images, training=False)
    expected = model.predict(images, verbose=0)
    for name, quantizer in fake.quantizers.items():
        if isinstance(quantizer, RangeQuantizer):
            quantizer.set_range(float(np.min(seen[name])), float(np.max(seen[name])))
    return fake, images, plain, expected


@functools.cache
def file_of(names):
    fake, *_ = net_of(names)
    spec = tf.TensorSpec((1, SIZE, SIZE, CHANNELS), tf.float32, name="image")
    function = tf.function(lambda image: fake.net(image, training=False), input_signature=[spec], autograph=False)
    module = tf.Module()
    module.read = list(function.get_concrete_function().graph.variables)
    with tempfile.TemporaryDirectory() as folder:
        tf.saved_model.save(module, folder, signatures=function)
        converter = tf.lite.TFLiteConverter.from_saved_model(folder)
        converter.optimizations = [tf.lite.Optimize.DEFAULT]
        return converter.convert()


@pytest.fixture(scope="module")
def graph_of(tmp_path_factory):
    def read(names):
        path = tmp_path_factory.mktemp("policy") / "net.tflite"
        path.write_bytes(file_of(names))
        return read_graph(path)

    return read


@EACH_CASE
def test_without_quantization_the_net_is_the_model(names, name):
    _, _, plain, expected = net_of(names)
    np.testing.assert_allclose(plain[name], expected[name], atol=2e-3 * np.abs(expected[name]).max())


@EACH_CASE
def test_the_file_computes_what_the_fake_quantized_net_computes(names, name):
    fake, images, _, expected = net_of(names)
    runner = Interpreter(model_content=file_of(names)).get_signature_runner()
    received = np.concatenate([runner(image=image[None])[name] for image in images[:16]])
    wanted = fake.net(images[:16], training=False)[name].numpy()
    step = max(2 / 256 if name == "tanh" else 0, np.ptp(wanted) / 255)
    assert np.mean(np.abs(received - wanted)) <= (1.0 if name in ISLANDS else 0.5) * step
    assert np.mean(np.abs(wanted - expected[name][:16])) <= 3 * step


@pytest.mark.parametrize("names", GROUPS)
def test_no_op_computes_in_float_but_the_islands(names, graph_of):
    fake, *_ = net_of(names)
    graph = graph_of(names)
    known = {layer.name.removeprefix("quant_") for layer in fake.net.layers}
    assert set(fake.islands) == ISLANDS & known
    assert float_ops(graph, known, fake.islands) == []
    assert {op.layer for op in float_ops(graph, known)} >= set(fake.islands)
    # That behind the transposed convolution is where its 8 bits end.
    assert not any(op.name == "RELU" and "up_relu" in graph.names[op.outputs[0]] for op in graph.ops)
    # That of the strided convolution is a part of it.
    assert not {"PAD", "PADV2"} & {op.name for op in graph.ops}


def test_depthwise_kernels_have_a_scale_for_each_channel():
    kernel = np.random.default_rng(0).normal(size=(3, 3, CHANNELS, 2)).astype("float32")
    kernel *= np.logspace(-3, 0, CHANNELS)[:, None]
    quantized = WeightQuantizer("dw/depthwise_kernel", 2).quantize(tf.constant(kernel)).numpy()
    limits = np.abs(kernel).max(axis=(0, 1), keepdims=True)
    assert np.all(np.abs(quantized - kernel) <= limits / 127 / 2 + 1e-9)


def problem_net():
    x = image = keras.Input((SIZE, SIZE, 4))
    x = layers.Activation("softplus", name="soft")(layers.Conv2D(4, 3, padding="same", name="conv")(x))
    x = layers.ELU(name="elu")(x)
    return build_twin(keras.Model(image, {"out": layers.Conv2D(2, 1, name="last")(x)}))


def test_all_problems_are_listed_at_once():
    with pytest.raises(QuantizationError, match=r"(?s)elu \(ELU\).*soft \(Activation\).*islands"):
        fake_quantize(problem_net(), (-1.0, 1.0))


def test_islands_are_allowed_by_name():
    fake = fake_quantize(problem_net(), (-1.0, 1.0), islands=("soft", "elu"))
    assert fake.islands == ("elu", "soft")
    assert fake.net(np.zeros((1, SIZE, SIZE, 4), "float32"))["out"].shape == (1, SIZE, SIZE, 2)
    assert "soft/output" not in fake.quantizers, "between two float layers nothing is quantized"
    assert "elu/output" in fake.quantizers


def test_an_island_takes_along_what_is_fused_with_it():
    x = image = keras.Input((SIZE, SIZE, 3))
    x = layers.ReLU(name="relu")(layers.BatchNormalization(name="bn")(layers.Conv2D(4, 3, name="conv")(x)))
    twin = build_twin(keras.Model(image, {"out": layers.Conv2D(2, 1, name="last")(x)}))
    assert fake_quantize(twin, (-1.0, 1.0), islands=("conv",)).islands == ("bn", "conv", "relu")


def test_gradients_too_small_for_float16_pass_in_front_of_an_island():
    x = tf.constant([[0.1, 3.0, -70.0]])
    with tf.GradientTape() as tape:
        tape.watch(x)
        y = InFloat()(x)
        loss = tf.reduce_sum(y * 1e-9)
    np.testing.assert_array_equal(y, np.float32(np.float16(x)))
    np.testing.assert_array_equal(tape.gradient(loss, x), np.full((1, 3), 1e-9, np.float32))


def test_an_unknown_island_gives_the_closest():
    with pytest.raises(QuantizationError, match='no layer "elo" to leave in float.*"elu"'):
        fake_quantize(problem_net(), (-1.0, 1.0), islands=("elo",))
