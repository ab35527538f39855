"""U-Net on a backbone: its decoder, its attention gates, and what every net does."""

import itertools

import keras
import numpy as np
import pytest
from segmentation import contract

from kerasvision.segmentation.unet import attention_gate


def test_with_the_plain_encoder_it_is_u_net():
    """Two convolutions at each of five resolutions, and back: counted layer by layer."""
    filters = (4, 6, 8, 10, 12)
    model = contract.create(
        "unet",
        backbone_arguments={"filters": filters, "depth": 2},
        levels=("P0", "P1", "P2", "P3", "P4"),
        filters=tuple(reversed(filters[:-1])),
        up="transposed",
    )
    assert model.output["logits"].shape == (None, 64, 64, 3)

    def pair(inputs, outputs):
        return 9 * inputs * outputs + 9 * outputs * outputs + 2 * 4 * outputs

    wanted = sum(pair(before, after) for before, after in zip((3, *filters), filters, strict=False))
    for fine, coarse in itertools.pairwise(filters):
        wanted += 4 * coarse * fine + 4 * fine + pair(2 * fine, fine)
    assert model.count_params() == wanted + (filters[0] + 1) * 3


def test_steps_and_sizes():
    assert contract.create("unet", filters=(8, 8), levels=("P2", "P3", "P4")).output["logits"].shape[1] == 16
    assert contract.create("unet", filters=(8, 8, 8, 8)).output["logits"].shape[1] == 32
    assert contract.create("unet", separable=True, depth=1).output["logits"].shape[1] == 64
    with pytest.raises(ValueError, match="Expected 4 or 5 filters for the levels P1, P2, P3, P4, P5, got 3"):
        contract.create("unet", filters=(8, 8, 8))
    with pytest.raises(ValueError, match="Expected 2 filters for the levels P2, P3, P4, got 3"):
        contract.create("unet", filters=(8, 8, 8), levels=("P2", "P3", "P4"))
    with pytest.raises(ValueError, match='up must be "resize" or "transposed", got \'deconv\''):
        contract.create("unet", up="deconv")
    with pytest.raises(ValueError, match="features of the levels P5, P6"):
        contract.create("unet", levels=("P5", "P6"), filters=(8,))


def test_attention_gate_is_that_of_the_paper():
    """sigmoid(psi(relu(W_x x + W_g g))) for each coarse place, enlarged bilinearly, times x, then a 1x1 convolution."""
    skip, gating = keras.Input((6, 10, 4)), keras.Input((3, 5, 7))
    net = keras.Model([skip, gating], attention_gate(skip, gating, "gate"))
    contract.randomize(net)
    random = np.random.default_rng(0)
    fine, coarse = (random.normal(size=(1, *each.shape[1:])).astype(np.float32) for each in (skip, gating))
    weights = {layer.name: [np.asarray(weight) for weight in layer.weights] for layer in net.layers}
    blocks = fine.reshape(1, 3, 2, 5, 2, 4)
    hidden = np.einsum("biyjxc,yxch->bijh", blocks, weights["gate_local"][0])
    hidden = np.maximum(hidden + coarse @ weights["gate_wide"][0][0, 0] + weights["gate_wide"][1], 0)
    gate = 1 / (1 + np.exp(-(hidden @ weights["gate_conv"][0][0, 0] + weights["gate_conv"][1])))[0, ..., 0]
    for axis, side in ((0, 6), (1, 10)):
        places = (np.arange(side) + 0.5) / 2 - 0.5
        gate = np.apply_along_axis(lambda line, at=places: np.interp(at, range(len(line)), line), axis, gate)
    gamma, beta, mean, variance = weights["gate_out_bn"]
    wanted = (fine * gate[None, ..., None]) @ weights["gate_out_conv"][0][0, 0]
    wanted = (wanted - mean) / np.sqrt(variance + 1e-5) * gamma + beta
    np.testing.assert_allclose(net([fine, coarse]), wanted, rtol=1e-4, atol=1e-4)
    assert gate.std() > 0.1


@pytest.mark.parametrize(
    ("name", "arguments", "logits"),
    [
        ("unet", {}, (45, 67)),
        ("unet", {"up": "transposed", "separable": True}, (45, 67)),
        ("attention_unet", {}, (23, 34)),
    ],
)
def test_odd_sizes(name, arguments, logits, monkeypatch):
    given, size, _ = contract.NETS[name]
    monkeypatch.setitem(contract.NETS, name, ({**given, **arguments}, size, logits))
    assert contract.check_odd_size(name, (45, 67)) == logits


@pytest.mark.slow
@pytest.mark.parametrize("name", ["unet", "attention_unet"])
def test_backbones_that_round_down(name):
    """VGG's poolings leave out what is not divisible."""
    model = contract.create(name, (71, 90), backbone="vgg16", backbone_arguments={"fully_connected": False})
    outputs = model(contract.scene((71, 90), 1)[0])
    assert model.task.decode(outputs)["classes"].shape == (1, 71, 90)


@pytest.mark.parametrize("name", ["unet", "attention_unet"])
def test_learns(name):
    assert contract.learn(contract.create(name), 15) > 0.85


@pytest.mark.parametrize(
    ("name", "arguments"),
    [
        ("unet", {}),
        pytest.param("unet", {"up": "transposed", "separable": True}, marks=pytest.mark.slow),
        ("attention_unet", {}),
    ],
)
def test_int8(name, arguments):
    ops = contract.check_int8(contract.create(name, **arguments))
    assert ops.get("TRANSPOSE_CONV", 0) + ops.get("RESIZE_BILINEAR", 0) >= 4
    assert ops["QUANTIZE"] == 1, "the image's; nothing is rescaled inside, not even gates on their way up"
