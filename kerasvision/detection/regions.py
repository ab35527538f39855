"""The second stage of region-based detectors: head, loss and reading of proposals, wherever these come from."""

from collections.abc import Sequence
from typing import Any

import keras
import numpy as np
from keras import layers, ops

from kerasvision.boxes.arrays import gather_rows, ratio
from kerasvision.boxes.coding import decode_deltas, encode_deltas
from kerasvision.boxes.formats import box_areas
from kerasvision.boxes.losses import smooth_l1
from kerasvision.boxes.matching import Match, gather_objects, match_overlaps
from kerasvision.detection.method import Tensors

BETA = 1 / 9


def region_head(x: Any, classes: int, widths: Sequence[int] = (1024, 1024), name: str = "region") -> Tensors:
    """Fully connected layers on the features of each region (Girshick, 2015, arXiv:1504.08083).

    Args:
        x: features of the regions, [B, N, size, size, C].
        classes: K, without the background.
        widths: units of the hidden layers.
        name: prefix of their names.

    Returns:
        "class_logits" float32 [B, N, K + 1], the background last, and "box_deltas" float32 [B, N, 4 K], those of each
        class one after the other.
    """
    _, count, height, width, channels = x.shape
    x = layers.Reshape((count, height * width * channels), name=f"{name}_flatten")(x)
    for index, units in enumerate(widths):
        x = layers.Dense(units, kernel_initializer="he_uniform", name=f"{name}_{index}")(x)
        x = layers.ReLU(name=f"{name}_{index}_relu")(x)
    outputs = {}
    for output, units, spread in (("class_logits", classes + 1, 0.01), ("box_deltas", 4 * classes, 0.001)):
        start = keras.initializers.RandomNormal(stddev=spread)
        outputs[output] = layers.Dense(units, kernel_initializer=start, dtype="float32", name=output)(x)
    return outputs


def sampling_weights(positive: Any, background: Any, count: int, share: float) -> Any:
    """How often each box is in a random sample, on average: the loss with these weights is that of all samples.

    Faster R-CNN draws a sample of each image; its mean needs no random numbers, and varies less.

    Args:
        positive: bool [B, A].
        background: bool [B, A], none of them positive.
        count: boxes in a sample; background fills up what positives leave free.
        share: the most of them that are positive, 0..1.

    Returns:
        float32 [B, A] in 0..1; the sum is at most `count`.
    """
    positive, background = ops.cast(positive, "float32"), ops.cast(background, "float32")
    objects, others = (ops.sum(each, axis=1, keepdims=True) for each in (positive, background))
    drawn = ops.minimum(objects, count * share)
    return positive * ratio(drawn, objects) + background * ratio(ops.minimum(others, count - drawn), others)


def sampled_mean(values: Any, weights: Any) -> Any:
    """Mean of an image's values with the weights of a sample: [B, A] and [B, A] -> [B]."""
    return ratio(ops.sum(values * weights, axis=1), ops.sum(weights, axis=1))


def match_regions(proposals: Any, targets: Tensors, positive: float = 0.5) -> Match:
    """The objects that proposals overlap, without a proposal for every object.

    Args:
        proposals: xyxy [B, N, 4].
        targets: "boxes", "valid", and "crowd" where there is one.
        positive: least IoU; those below are background.
    """
    return match_overlaps(
        proposals,
        targets["boxes"],
        targets["valid"],
        targets.get("crowd"),
        positive=positive,
        negative=positive,
        keep_best="no",
    )


def region_losses(
    proposals: Any,
    outputs: Tensors,
    targets: Tensors,
    *,
    samples: int = 512,
    share: float = 0.25,
    positive: float = 0.5,
    background: float = 0.0,
) -> Tensors:
    """Cross-entropy of the classes and smooth L1 of the boxes (Girshick, 2015, arXiv:1504.08083).

    Args:
        proposals: xyxy [B, N, 4] in pixels.
        outputs: of `region_head`.
        targets: "boxes" xyxy [B, M, 4], "classes" [B, M], "valid" [B, M], and "crowd" where there is one.
        samples: proposals of an image that count, see `sampling_weights`.
        share: the most of them that are objects.
        positive: least IoU of a proposal with its object.
        background: least IoU with an object of a proposal that is background, 0.1 in Fast R-CNN; where no proposal of
            an image has it, all that are not empty are.

    Returns:
        "class_loss" and "box_loss" [B], both divided by the number of samples.
    """
    proposals = ops.stop_gradient(proposals)
    match = match_regions(proposals, targets, positive)
    others = ops.logical_not(ops.logical_or(match.positive, match.ignored))
    if background > 0:
        near = match_regions(proposals, targets, background).positive
        none = ops.logical_not(ops.any(near, axis=1, keepdims=True))
        near = ops.logical_or(near, ops.logical_and(none, box_areas(proposals) > 0))
        others = ops.logical_and(others, near)
    weights = sampling_weights(match.positive, others, samples, share)
    logits, count = outputs["class_logits"], proposals.shape[1]
    classes = logits.shape[-1] - 1
    own = gather_objects(ops.cast(targets["classes"], "int32"), match)
    wanted = ops.one_hot(ops.where(match.positive, own, classes), classes + 1, dtype="float32")
    entropy = -ops.sum(wanted * ops.log_softmax(logits, axis=-1), axis=-1)
    # The deltas of the object's class, [B, N, 4].
    deltas = ops.reshape(outputs["box_deltas"], (-1, count, classes, 4))
    deltas = ops.sum(deltas * wanted[..., :classes, None], axis=2)
    boxes = gather_objects(ops.cast(targets["boxes"], "float32"), match)
    # Proposals without an object may be empty, and code nothing.
    boxes = ops.where(match.positive[..., None], boxes, 1.0)
    anchors = ops.where(match.positive[..., None], proposals, ops.cast([0.0, 0.0, 1.0, 1.0], "float32"))
    distance = smooth_l1(encode_deltas(boxes, anchors), deltas, BETA)
    distance = ops.where(match.positive, distance, 0.0)
    return {"class_loss": sampled_mean(entropy, weights), "box_loss": sampled_mean(distance, weights)}


def read_regions(proposals: Any, outputs: Tensors, candidates: int) -> tuple[Any, Any, Any]:
    """The pairs of proposal and class with the highest scores; every class has its own box.

    Args:
        proposals: xyxy [B, N, 4] in pixels.
        outputs: of `region_head`.
        candidates: C, how many pairs; all where there are fewer.

    Returns:
        (xyxy float32 [B, C, 4], scores float32 [B, C], classes int32 [B, C]), by falling score.
    """
    count, classes = proposals.shape[1], outputs["class_logits"].shape[-1] - 1
    scores = ops.softmax(outputs["class_logits"], axis=-1)
    # Within an int8 net, TFLite's converter rounds a softmax to steps of 1/256, unless what takes it is arithmetic.
    scores = (scores * np.array([1.0] * classes + [0.0], np.float32))[..., :classes]
    scores, pairs = ops.top_k(ops.reshape(scores, (-1, count * classes)), min(candidates, count * classes))
    pairs = ops.cast(pairs, "int32")
    place = ops.floor_divide(pairs, classes)
    deltas = gather_rows(ops.reshape(outputs["box_deltas"], (-1, count * classes, 4)), pairs)
    return decode_deltas(deltas, gather_rows(proposals, place)), scores, pairs - place * classes


def spread_scores(scores: Any, classes: Any, count: int) -> Any:
    """Scores [B, C] in the columns of their classes: float32 [B, C, K], zeros elsewhere."""
    return scores[..., None] * ops.one_hot(classes, count, dtype="float32")
