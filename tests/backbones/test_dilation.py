"""Backbones with holes: every second place is what the net with strides computes there."""

import keras
import numpy as np
import pytest
from keras import layers

from kerasvision.backbones.dilation import dilated_backbone
from kerasvision.registry import build_backbone

SHAPE = (64, 96, 3)


def with_statistics(net):
    random = np.random.default_rng(0)
    for layer in net.layers:
        if isinstance(layer, layers.BatchNormalization):
            layer.set_weights([random.uniform(0.5, 1.5, weight.shape) for weight in layer.weights])
    return net


def dilated(name, output_stride, shape=SHAPE, **arguments):
    x = keras.Input(shape)
    return keras.Model(x, dilated_backbone(name, x, output_stride, **arguments))


# Where the first place of the net with strides is found: Keras's own "same" and MobileNets pad at the end alone.
@pytest.mark.parametrize(
    ("name", "arguments", "last"),
    [
        ("resnet18", {}, False),
        ("mobilenet_v2", {"alpha": 0.35}, True),
        pytest.param("resnet18_v2", {}, False, marks=pytest.mark.slow),
        pytest.param("resnet50", {}, False, marks=pytest.mark.slow),
        pytest.param("resnet50_v2", {}, False, marks=pytest.mark.slow),
        pytest.param("efficientnet_lite0", {}, True, marks=pytest.mark.slow),
        pytest.param("mobilenet_v1", {"alpha": 0.25}, True, marks=pytest.mark.slow),
        # Squeeze-and-excitation would average over more places.
        pytest.param("mobilenet_v3_small", {"minimalistic": True}, True, marks=pytest.mark.slow),
        pytest.param("mobilenet_v3_large", {"minimalistic": True}, True, marks=pytest.mark.slow),
    ],
)
def test_every_second_place_is_that_of_the_net_with_strides(name, arguments, last):
    x = keras.Input(SHAPE)
    net = with_statistics(keras.Model(x, build_backbone(name, x, **arguments)))
    image = np.random.default_rng(1).normal(size=(1, *SHAPE)).astype(np.float32)
    expected = net(image, training=False)
    for output_stride in (16, 8):
        with_holes = dilated(name, output_stride, **arguments)
        assert [layer.name for layer in with_holes.layers if layer.weights] == [
            layer.name for layer in net.layers if layer.weights
        ]
        with_holes.set_weights(net.get_weights())
        received = with_holes(image, training=False)
        for level in ("P3", "P4", "P5"):
            step = max(1, 2 ** int(level[1:]) // output_stride)
            start = step - 1 if last else 0
            assert received[level].shape[1:3] == (step * expected[level].shape[1], step * expected[level].shape[2])
            tolerance = 1e-5 * np.abs(expected[level]).max()
            np.testing.assert_allclose(
                received[level][:, start::step, start::step], expected[level], rtol=0, atol=tolerance, err_msg=level
            )


def rates(net):
    return {
        layer.name: layer.dilation_rate[0]
        for layer in net.layers
        if isinstance(layer, layers.Conv2D | layers.DepthwiseConv2D) and layer.dilation_rate != (1, 1)
    }


@pytest.mark.slow
def test_multi_grid_is_that_of_the_paper():
    """The 3x3 convolutions of the last stage: rate 2 (4 at output stride 8) times 1, 2, 4; nothing else is touched."""
    net = dilated("resnet50", 16, multi_grid=(1, 2, 4))
    assert rates(net) == {f"conv5_block{block}_2_conv": 2 * factor for block, factor in ((1, 1), (2, 2), (3, 4))}
    assert net.output["P5"].shape == (None, 4, 6, 2048)


@pytest.mark.slow
def test_multi_grid_at_output_stride_8_leaves_the_fourth_stage_alone():
    net = dilated("resnet50", 8, multi_grid=(1, 2, 4))
    last = {f"conv5_block{block}_2_conv": 4 * factor for block, factor in ((1, 1), (2, 2), (3, 4))}
    assert rates(net) == {**{f"conv4_block{block}_2_conv": 2 for block in range(1, 7)}, **last}
    assert net.output["P4"].shape == (None, 8, 12, 1024) and net.output["P5"].shape == (None, 8, 12, 2048)


def test_multi_grid_begins_anew_where_there_are_more_convolutions():
    made = rates(dilated("resnet18", 32, multi_grid=(1, 3)))
    assert made == {"conv5_block1_2_conv": 3, "conv5_block2_2_conv": 3}


def test_weights_are_kept():
    """What the builder has loaded stays in the net with holes."""
    keras.utils.set_random_seed(0)
    x = keras.Input(SHAPE)
    plain = keras.Model(x, build_backbone("small_cnn", x, filters=[4, 4, 4, 4, 4, 4], depth=1))
    keras.utils.set_random_seed(0)
    with_holes = dilated("small_cnn", 16, filters=[4, 4, 4, 4, 4, 4], depth=1)
    for expected, received in zip(plain.get_weights(), with_holes.get_weights(), strict=True):
        np.testing.assert_array_equal(expected, received)
    image = np.random.default_rng(1).normal(size=(1, *SHAPE)).astype(np.float32)
    coarse, fine = plain(image, training=False)["P5"], with_holes(image, training=False)["P5"]
    assert fine.shape[1:3] == (4, 6) and coarse.shape[1:3] == (2, 3)
    # The pooling of the last stage is side by side no more; its places without a stride are those with one.
    np.testing.assert_allclose(fine[:, ::2, ::2], coarse, atol=1e-6)


def test_bad_settings():
    x = keras.Input(SHAPE)
    with pytest.raises(ValueError, match="output_stride must be 8, 16 or 32, got 4"):
        dilated_backbone("resnet18", x, 4)
    with pytest.raises(ValueError, match="multi_grid must be factors"):
        dilated_backbone("resnet18", x, 16, multi_grid=(1, 0))
    with pytest.raises(ValueError, match='"small_cnn" cannot have this output stride.*"stage5_pool".*resnet50'):
        dilated_backbone("small_cnn", x, 8, filters=[4, 4, 4, 4, 4, 4], depth=1)
    with pytest.raises(TypeError, match='no argument "alfa"'):
        dilated_backbone("mobilenet_v2", x, 16, alfa=1)
