"""Fast R-CNN: features shared among proposals from outside, RoI pooling (Girshick, 2015, arXiv:1504.08083)."""

from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np
from keras import ops

from kerasvision.boxes.formats import box_areas
from kerasvision.detection.method import Method, Tensors
from kerasvision.detection.regions import read_regions, region_head, region_losses, spread_scores
from kerasvision.detection.selective_search import Mode, SelectiveSearch
from kerasvision.detection.task import DetectionTask
from kerasvision.layers.pyramid import feature_pyramid
from kerasvision.layers.roi_align import RoIPooling
from kerasvision.registry import build_backbone, register

# A logit that is no class.
_NEVER = -1e4


class GivenRegions(Method):
    """Proposals that came from outside learn what they are, and where it really lies.

    Args:
        classes: K.
        samples: proposals of an image in the loss, a quarter of them on objects; 128 of two images in the paper.
        background: least IoU of a proposal that is background; nearer ones are harder.
        candidates: pairs of proposal and class that are handed to the suppression.
    """

    loss_names = ("class_loss", "box_loss")

    def __init__(self, classes: int, *, samples: int = 64, background: float = 0.1, candidates: int = 300) -> None:
        self.classes = classes
        self.samples = samples
        self.background = background
        self.candidate_count = candidates

    def losses(self, targets: Tensors, outputs: Tensors) -> Tensors:
        """Proposals of IoU 0.5 with an object against those that overlap one less."""
        proposals = outputs["proposals"]
        return region_losses(proposals, outputs, targets, samples=self.samples, background=self.background)

    def candidates(self, outputs: Tensors) -> tuple[Any, Any]:
        """The best pairs of proposal and class, each with a box of its own; what only fills up is background."""
        proposals, logits = outputs["proposals"], outputs["class_logits"]
        nothing = np.full(self.classes + 1, _NEVER, np.float32)
        nothing[-1] = 0
        logits = ops.where(box_areas(proposals)[..., None] > 0, logits, nothing)
        outputs = {**outputs, "class_logits": logits}
        boxes, scores, classes = read_regions(proposals, outputs, self.candidate_count)
        return boxes, spread_scores(scores, classes, self.classes)


@register("fast_rcnn", kind="detection", input_shape=(512, 512, 3))
def fast_rcnn(
    x: Any,
    task: DetectionTask,
    *,
    weights: str | None = None,
    backbone: str = "resnet50",
    backbone_arguments: Mapping[str, Any] | None = None,
    level: str = "P4",
    filters: int | None = None,
    proposals: int = 2000,
    search: Mode = "fast",
    search_side: int = 320,
    least_side: float = 8.0,
    overlap: float = 0.8,
    pool_size: int = 7,
    head_widths: Sequence[int] = (1024, 1024),
    samples: int = 64,
    background: float = 0.1,
) -> tuple[Tensors, Tensors]:
    """Fast R-CNN on any backbone, with proposals of selective search.

    The net of the paper is backbone="vgg16", backbone_arguments={"fully_connected": False}, head_widths=(4096, 4096),
    with 134,674,341 parameters for the 20 classes of Pascal VOC: none for a box of the background.

    The search is a layer of the net, which sees the image alone: the true boxes are not among the proposals while it
    trains, as they are in the paper. It takes 0.1 to 1.5 seconds of a core for an image, and is kept for the images of
    before: augment with flips alone, as the paper does, or pay for it in every epoch. Proposals of another source go
    into the same net: `keras.Model([model.input, model.output["proposals"]], outputs)` takes them, where `outputs` are
    the other two of `model.output`.

    Args:
        x: normalized image.
        task: that it is built for.
        weights: of the backbone.
        backbone: a name of the registry.
        backbone_arguments: of its builder, such as {"alpha": 0.5}.
        level: of the backbone, where the features of all proposals come from.
        filters: channels of a pyramid that merges the coarser levels into it; None for the level as it is, as in the
            paper.
        proposals: an image; the head costs in proportion.
        search: "fast" or "quality", see `selective_search`.
        search_side: longer side in pixels that larger images are searched at.
        least_side: proposals with a shorter side are left out, in pixels.
        overlap: proposals that overlap a larger one more are left out, 1 for none.
        pool_size: bins along each side of a proposal.
        head_widths: units of the hidden layers.
        samples: proposals of an image that count in the loss.
        background: least IoU with an object of a proposal that counts as background.

    Returns:
        Raw outputs "proposals" xyxy [B, N, 4] in pixels, zeros behind the last one, "class_logits" [B, N, K + 1], the
        background last, "box_deltas" [B, N, 4 K]; and the backbone's features.

    Raises:
        ValueError: the backbone has no such level, or settings that cannot be.
    """
    if not 0 <= background < 0.5:
        raise ValueError(f"background must lie from 0 up to 0.5, where objects begin; got {background}. Take 0.1.")
    features = build_backbone(backbone, x, weights=weights, **(backbone_arguments or {}))
    if level not in features:
        raise ValueError(f'"{backbone}" has no level "{level}"; it has: {", ".join(features)}.')
    shared = features[level]
    if filters is not None:
        levels = tuple(name for name in sorted(features) if name >= level)
        shared = feature_pyramid(features, filters, None, levels=levels)[level]
    # Before the preprocessing: pixels.
    image = x._keras_history.operation.input
    found = SelectiveSearch(proposals, search, search_side, least_side, overlap, name="proposals")(image)
    pooled = RoIPooling(2 ** int(level[1:]), pool_size, name="region_pool")(shared, found)
    task.bind(GivenRegions(len(task.labels), samples=samples, background=background, candidates=task.candidates))
    return {"proposals": found, **region_head(pooled, len(task.labels), head_widths)}, features
