"""KerasHub's RetinaNet with the backbone and the weights of ours: the peer of `detection.py`."""

from typing import Any

import keras
import numpy as np

import kerasvision as kv

LEVELS = ("P3", "P4", "P5")
TOWER = 4
# Raw output of ours -> KerasHub's.
OUTPUTS = {"box_deltas": "bbox_regression", "class_logits": "cls_logits"}
LARGEST_DIFFERENCE = 1e-3


def peer_of(model: kv.TaskModel, images: np.ndarray) -> keras.Model:
    """A `RetinaNetObjectDetector` that computes the same raw outputs, and suppresses with the same thresholds.

    Its backbone is a copy of the model's, its pyramid, heads, anchors, label encoder, losses and suppression are
    KerasHub's.

    Args:
        model: "retinanet" with its default pyramid, heads and anchors.
        images: [N, H, W, 3] on which the two are compared.

    Raises:
        AssertionError: they compute different things.
    """
    import keras_hub

    twin = kv.TaskModel.from_config(model.get_config())
    twin.set_weights(model.get_weights())
    encoder = twin.features(LEVELS)
    encoder.pyramid_outputs = encoder.output
    backbone = keras_hub.models.RetinaNetBackbone(
        encoder, min_level=3, max_level=7, use_p5=False, image_shape=model.input_shape[1:]
    )
    suppression = keras_hub.layers.NonMaxSuppression(
        "xyxy",
        from_logits=True,
        iou_threshold=model.task.iou,
        confidence_threshold=model.task.least_score,
        max_detections=model.task.detections,
    )
    peer = keras_hub.models.RetinaNetObjectDetector(
        backbone, len(model.labels), bounding_box_format="xyxy", prediction_decoder=suppression
    )
    for name, layer in _pyramid_and_heads(peer).items():
        layer.set_weights(model.get_layer(f"{name}_conv").get_weights())
    check(peer, model, images)
    return peer


def _pyramid_and_heads(peer: Any) -> dict[str, keras.Layer]:
    """Name in our model -> KerasHub's layer."""
    pyramid = peer.backbone.feature_pyramid
    found = {f"fpn_{level}_lateral": layer for level, layer in pyramid.lateral_conv_layers.items()}
    for level, layer in pyramid.output_conv_layers.items():
        found[f"fpn_{level}_smooth" if level in LEVELS else f"fpn_{level}"] = layer
    for output, head in (("box_deltas", peer.box_head), ("class_logits", peer.classification_head)):
        found |= {f"head_{output}_tower{index}": head.conv_layers[index] for index in range(TOWER)}
        found[f"head_{output}"] = head.prediction_layer
    return found


def check(peer: keras.Model, model: kv.TaskModel, images: np.ndarray) -> None:
    """Make sure that both nets compute the same."""
    expected, received = model(images, training=False), peer(images, training=False)
    for ours, theirs in OUTPUTS.items():
        wanted = keras.ops.convert_to_numpy(expected[ours])
        difference = np.abs(keras.ops.convert_to_numpy(received[theirs]) - wanted).max() / np.abs(wanted).max()
        if not difference <= LARGEST_DIFFERENCE:
            raise AssertionError(f"KerasHub's {theirs} is another: {difference:.2g} of the largest value.")
