"""Attention plug-ins against their formulas in NumPy."""

import keras
import numpy as np
import pytest

from kerasvision.layers.attention import ATTENTION, PositionEncoding, attend, eca_kernel_size, multi_head_self_attention

SHAPE = (3, 5, 32)  # H, W, C; not a square
PLUGINS = {**ATTENTION, "mhsa": multi_head_self_attention}


def build(function, shape=SHAPE, **arguments):
    """The plug-in as a net, with weights drawn anew: fresh ones have zero biases and unit variances."""
    image = keras.Input(shape)
    net = keras.Model(image, function(image, "block", **arguments))
    random = np.random.default_rng(1)
    for weight in net.weights:
        weight.assign(
            random.uniform(0.1, 0.9, weight.shape) if "bn" in weight.path else random.normal(size=weight.shape)
        )
    return net


def weights(net, layer):
    return [np.asarray(weight, np.float64) for weight in net.get_layer(layer).get_weights()]


def sigmoid(x):
    return 1 / (1 + np.exp(-x))


def softmax(x):
    powers = np.exp(x - x.max(-1, keepdims=True))
    return powers / powers.sum(-1, keepdims=True)


@pytest.fixture
def x():
    return np.random.default_rng(0).normal(size=(2, *SHAPE)).astype("float32")


def channel_mlp(net, prefix, vector):
    """[B, C] -> [B, C]."""
    reduce, reduce_bias = weights(net, f"{prefix}_reduce")
    expand, expand_bias = weights(net, f"{prefix}_expand")
    return np.maximum(vector @ reduce[0, 0] + reduce_bias, 0) @ expand[0, 0] + expand_bias


def test_squeeze_excite(x):
    net = build(ATTENTION["se"])
    gate = sigmoid(channel_mlp(net, "block_se", x.mean((1, 2))))
    np.testing.assert_allclose(net(x), x * gate[:, None, None], atol=1e-5)


def test_efficient_channel(x):
    net = build(ATTENTION["eca"])
    (kernel,) = weights(net, "block_eca_conv")  # [1, 3, 1, 1]
    mean = np.pad(x.mean((1, 2)), ((0, 0), (1, 1)))
    gate = sigmoid(sum(kernel[0, tap, 0, 0] * mean[:, tap : tap + SHAPE[2]] for tap in range(3)))
    np.testing.assert_allclose(net(x), x * gate[:, None, None], atol=1e-5)


@pytest.mark.parametrize("channels,size", [(16, 3), (64, 3), (128, 5), (256, 5), (512, 5), (1024, 5), (2048, 7)])
def test_eca_kernel_sizes_are_those_of_the_paper(channels, size):
    assert eca_kernel_size(channels) == size


def test_cbam(x):
    net = build(ATTENTION["cbam"])
    mlp = [channel_mlp(net, "block_cbam_channel", vector) for vector in (x.mean((1, 2)), x.max((1, 2)))]
    y = x * sigmoid(mlp[0] + mlp[1])[:, None, None]
    (kernel,) = weights(net, "block_cbam_spatial_conv")  # [7, 7, 2, 1]
    maps = np.pad(np.stack([y.mean(-1), y.max(-1)], -1), ((0, 0), (3, 3), (3, 3), (0, 0)))
    height, width = SHAPE[:2]
    gate = sum(
        maps[:, row : row + height, column : column + width] @ kernel[row, column]
        for row in range(7)
        for column in range(7)
    )
    gamma, beta, mean, variance = weights(net, "block_cbam_spatial_bn")
    gate = sigmoid((gate - mean) / np.sqrt(variance + 1e-5) * gamma + beta)
    np.testing.assert_allclose(net(x), y * gate, atol=1e-5)


@pytest.mark.parametrize("heads", [1, 4])
def test_multi_head_self_attention(x, heads):
    net = build(multi_head_self_attention, heads=heads)
    height, width, channels = SHAPE
    flat = x.reshape(2, height * width, channels)
    expected = []
    for head in (f"block_mhsa_head{index}" for index in range(heads)):
        query, key, value = (flat @ weights(net, f"{head}_{role}")[0][0, 0] for role in ("query", "key", "value"))
        row, column = weights(net, f"{head}_position")
        key = key + (row + column).reshape(height * width, -1)
        expected.append(softmax(query @ key.transpose(0, 2, 1)) @ value)
    expected = np.concatenate(expected, -1).reshape(x.shape)
    np.testing.assert_allclose(net(x), expected, atol=1e-4)


def test_fresh_scores_have_the_variance_of_scaled_dot_products():
    image = keras.Input((8, 8, 256))
    net = keras.Model(image, multi_head_self_attention(image, "block"))
    scores = keras.Model(image, net.get_layer("block_mhsa_head0_scores").output)
    for weight in net.get_layer("block_mhsa_head0_position").weights:
        weight.assign(weight * 0)
    values = np.asarray(scores(np.random.default_rng(0).normal(size=(2, 8, 8, 256)).astype("float32")))
    assert 0.8 < values.std() < 1.2


def test_heads_must_divide_the_channels():
    with pytest.raises(ValueError, match="32 channels cannot be shared out to 5 heads"):
        build(multi_head_self_attention, heads=5)


@pytest.mark.parametrize(
    "name,channels,expected",
    [
        ("se", 64, 2 * 64 * 4 + 4 + 64),
        ("se", 8, 2 * 8 * 1 + 1 + 8),  # never less than one hidden channel
        ("eca", 64, 3),
        ("eca", 512, 5),
        ("cbam", 64, 2 * 64 * 4 + 4 + 64 + 7 * 7 * 2 + 2),
        ("mhsa", 64, 3 * 64 * 64 + (3 + 5) * 64),
    ],
)
def test_trainable_parameters(name, channels, expected):
    net = build(PLUGINS[name], (3, 5, channels))
    assert sum(int(np.prod(weight.shape)) for weight in net.trainable_weights) == expected


@pytest.mark.parametrize("name,published", [("se", 28_088_024), ("cbam", 28_089_624)])
def test_resnet50_comes_to_the_published_number(name, published):
    plain = 25_557_032  # ResNet-50 without biases in its convolutions
    blocks = {256: 3, 512: 4, 1024: 6, 2048: 3}
    added = 0
    for channels, count in blocks.items():
        net = build(PLUGINS[name], (1, 1, channels))
        added += count * sum(int(np.prod(weight.shape)) for weight in net.trainable_weights)
    assert plain + added == published


@pytest.mark.parametrize("policy", ["mixed_float16", "mixed_bfloat16"])
@pytest.mark.parametrize("name", PLUGINS)
def test_half_precision_keeps_shape_and_values(x, name, policy):
    full = build(PLUGINS[name])
    keras.config.set_dtype_policy(policy)
    try:
        half = build(PLUGINS[name])
    finally:
        keras.config.set_dtype_policy("float32")
    output = half(x)
    assert keras.backend.standardize_dtype(output.dtype) == policy.removeprefix("mixed_")
    difference = np.abs(np.asarray(keras.ops.cast(output, "float32")) - np.asarray(full(x)))
    # Softmax of large scores picks a winner, and rounding may pick another one, rarely.
    assert np.median(difference) < 0.02


@pytest.mark.parametrize("name", PLUGINS)
def test_gradients_reach_every_weight(x, name):
    net = build(PLUGINS[name])
    net.compile(keras.optimizers.SGD(1e-2), loss="mse")
    before = [np.array(weight) for weight in net.trainable_weights]
    net.fit(x, x, verbose=0)
    moved = [np.abs(np.array(now) - old).max() for now, old in zip(net.trainable_weights, before, strict=True)]
    assert all(moved), dict(zip([weight.path for weight in net.trainable_weights], moved, strict=True))


@pytest.mark.parametrize("name", PLUGINS)
def test_saves_and_loads(x, name, tmp_path):
    net = build(PLUGINS[name])
    net.save(tmp_path / "net.keras")
    np.testing.assert_array_equal(keras.saving.load_model(tmp_path / "net.keras")(x), net(x))


def test_position_encoding_tells_places_apart():
    layer = PositionEncoding()
    output = np.asarray(layer(np.zeros((1, 2, 3, 4), "float32")))
    row, column = (np.asarray(weight) for weight in layer.get_weights())
    np.testing.assert_array_equal(output[0], row + column)
    assert len(np.unique(output.reshape(6, 4), axis=0)) == 6


def test_attend(x):
    image = keras.Input(SHAPE)
    assert attend(image, None, "block") is image
    assert attend(image, "mhsa", "block") is image
    assert keras.Model(image, attend(image, "eca", "block")).get_layer("block_eca_conv")
    with pytest.raises(ValueError, match='no attention "cbm". Did you mean "cbam"'):
        attend(image, "cbm", "block")
