"""Test-time augmentation: several views of an image, and what is predicted for them brought back to it."""

import dataclasses
import os
from collections.abc import Sequence
from typing import Any, Literal

import numpy as np

from kerasvision.augment.base import Example, require
from kerasvision.augment.moves import mirror, quarter_turns, scaling, translation, warp
from kerasvision.class_maps import VOID
from kerasvision.errors import UnknownNameError, closest
from kerasvision.runtime import Arrays, Predictor, load
from kerasvision.segmentation import SegmentationTask

Window = tuple[float, float, float, float]
Mean = Literal["probabilities", "logits"]

_WHOLE: Window = (0.0, 0.0, 1.0, 1.0)
_SMALLEST = 1e-7


@dataclasses.dataclass(frozen=True)
class View:
    """One way to look at an image: a window of it, enlarged to its size, then mirrored, then turned.

    Args:
        window: (left, top, right, bottom) as shares of width and height; what lies outside shows the image's edge.
        mirrored: whether left and right change places.
        turns: by 90 degrees counter-clockwise.
        keypoint_order: which keypoint takes the place of each in the mirror, as a left eye is a right eye there.
    """

    window: Window = _WHOLE
    mirrored: bool = False
    turns: int = 0
    keypoint_order: tuple[int, ...] | None = None

    def __post_init__(self) -> None:
        left, top, right, bottom = self.window
        require(left < right and top < bottom, "a window (left, top, right, bottom) with an area", self.window)

    def apply(self, example: Example) -> Example:
        """What is seen of an example.

        Args:
            example: as in `kerasvision.augment`; its "image" [H, W, C] may be float32.

        Returns:
            The moved example. Its boxes and keypoints may stick out of the image.
        """
        if self.window != _WHOLE:
            example = warp(example, self._matrix(example["image"].shape[:2]), border="edge")
        if self.mirrored:
            example = mirror(example, 1, self.keypoint_order)
        return quarter_turns(example, self.turns)

    def invert(self, predictions: Example, size: tuple[int, int]) -> Example:
        """Predictions for the view, brought back to the image.

        Args:
            predictions: any of "boxes" [N, 4] xyxy, "keypoints" [N, P, 3], "masks" (PackedMasks), "segmentation"
                uint8 [H, W], "probabilities" float32 [H, W, C], in pixels of the view. Other keys stay as they are.
            size: (H, W) of the image.

        Returns:
            The same keys, in pixels of the image. Where the view showed nothing of the image, segmentation is 255
            (void), and masks and probabilities are 0.
        """
        seen = size if self.turns % 2 == 0 else size[::-1]
        maps = predictions.get("probabilities", np.zeros((*seen, 1), np.uint8))
        require(maps.shape[:2] == seen, f"a map of the view's size {list(seen)}", list(maps.shape[:2]))
        moved = quarter_turns({**predictions, "image": maps}, -self.turns)
        if self.mirrored:
            order = self.keypoint_order
            moved = mirror(moved, 1, tuple(np.argsort(order).tolist()) if order else None)
        if self.window != _WHOLE:
            moved = warp(moved, np.linalg.inv(self._matrix(size)))
        image = moved.pop("image")
        return {**moved, "probabilities": image} if "probabilities" in predictions else moved

    def _matrix(self, size: tuple[int, ...]) -> np.ndarray:
        """Of the window, [3, 3]: coordinates in an image of size (H, W) -> coordinates in the view."""
        left, top, right, bottom = self.window
        corner = translation(-left * size[1], -top * size[0])
        return scaling(1 / (right - left), 1 / (bottom - top)) @ corner


def zoomed(factor: float) -> View:
    """The image enlarged about its centre; below 1 it is smaller, and its edges go on around it."""
    margin = (1 - 1 / factor) / 2
    return View((margin, margin, 1 - margin, 1 - margin))


def five_crops(share: float = 0.875) -> tuple[View, ...]:
    """The four corners and the centre (Krizhevsky et al., 2012), each with a share of both sides."""
    rest = 1 - share
    corners = [(x, y) for y in (0.0, rest) for x in (0.0, rest)]
    return tuple(View((x, y, x + share, y + share)) for x, y in [*corners, (rest / 2, rest / 2)])


def shifts(share: float = 0.05) -> tuple[View, ...]:
    """The image, and the image moved left, right, up and down by a share of its sides."""
    moves = [(0.0, 0.0), (share, 0.0), (-share, 0.0), (0.0, share), (0.0, -share)]
    return tuple(View((x, y, 1 + x, 1 + y)) for x, y in moves)


def mirrored(views: Sequence[View]) -> tuple[View, ...]:
    """The views, and each of them mirrored."""
    return (*views, *(dataclasses.replace(view, mirrored=not view.mirrored) for view in views))


_TURNED = tuple(View(turns=turns) for turns in range(4))
VIEWS: dict[str, tuple[View, ...]] = {
    "flip": mirrored([View()]),
    "flips": mirrored([View(), View(turns=2)]),
    "turns": mirrored(_TURNED),
    "scales": (View(), zoomed(1.25), zoomed(0.8)),
    "shifts": shifts(),
    "five_crops": five_crops(),
    "ten_crops": mirrored(five_crops()),
}


class TTAPredictor(Predictor):
    """A predictor that looks at every image in several ways and averages what it is told.

    Made by `kerasvision.with_tta`.

    Args:
        predictor: what predicts each view.
        views: the ways to look.
        mean: of what: see `mean_scores`.

    Raises:
        RecipeError: a detector, a segmenter without probabilities, no views, or quarter turns of an image that is not
            square.
    """

    def __init__(self, predictor: Predictor, views: Sequence[View], mean: Mean) -> None:
        vars(self).update(vars(predictor))
        self.views = tuple(views)
        self.mean = mean
        height, width = self.image_size
        require(
            not self.detects, "a model whose views can be averaged, such as a classifier", f"the detector {self.path}"
        )
        require(len(self.views) > 0, "at least one view", "none")
        turned = any(view.turns % 2 for view in self.views)
        require(height == width or not turned, "a square model for quarter turns", f"{height}x{width}")
        require(mean in ("probabilities", "logits"), 'mean "probabilities" or "logits"', repr(mean))
        plain = "a predictor as kerasvision.load gives it; with_tiles goes around with_tta"
        require(type(predictor) is Predictor, plain, f"a {type(predictor).__name__}")
        if isinstance(self.task, SegmentationTask):
            require(mean == "probabilities", 'mean "probabilities" for a segmenter', repr(mean))
            self.engine = predictor.engine.with_probabilities()
            wanted = "a .keras file, or a file of a segmenter that was built with probabilities=True"
            require("probabilities" in self.engine.outputs, wanted, f"one that gives classes alone ({self.path})")

    def run(self, images: np.ndarray) -> Arrays:
        """Runs the model on every view of images of its own size; as `Predictor.run`."""
        images = np.asarray(images)
        results = [super(TTAPredictor, self).run(_seen(view, images)) for view in self.views]
        merged: Arrays = {}
        for name in results[0]:
            values = np.stack([result[name] for result in results])
            if name == "scores":
                merged[name] = mean_scores(values, self.multi_label, self.mean)
            elif name == "probabilities":
                merged[name] = mean_maps(self.views, values, self.image_size)
            elif not isinstance(self.task, SegmentationTask):
                raise NotImplementedError(
                    f'Views can be averaged for "scores" and "probabilities", and {self.path} predicts "{name}": '
                    "bring it back with View.invert."
                )
        if isinstance(self.task, SegmentationTask):
            maps = merged["probabilities"]
            # Nothing is probable where the net says nothing.
            merged["classes"] = np.where(maps.any(axis=-1), maps.argmax(axis=-1), VOID).astype(np.float32)
        return merged


def with_tta(
    artifact: str | os.PathLike[str] | Predictor,
    views: str | Sequence[View] = "flip",
    mean: Mean = "probabilities",
) -> TTAPredictor:
    """Test-time augmentation: a predictor that averages over several views of each image.

    It predicts, collects and evaluates as any other; each view costs as much as a prediction without.

    Args:
        artifact: anything `kerasvision.load` takes, or a loaded Predictor.
        views: "flip", "flips" (both ways), "turns" (all eight), "scales", "shifts", "five_crops", "ten_crops", or
            the views.
        mean: of "probabilities", or of "logits": the latter asks for views that agree.

    Raises:
        UnknownNameError: no views of that name.
        RecipeError: the artifact is a detector or a segmenter's file that gives classes alone, or quarter turns for
            a model whose input is not square.
        ArtifactError: the artifact cannot be used.
    """
    if isinstance(views, str) and views not in VIEWS:
        raise UnknownNameError(f'There are no views "{views}".{closest(views, VIEWS)}')
    predictor = artifact if isinstance(artifact, Predictor) else load(artifact)
    return TTAPredictor(predictor, VIEWS[views] if isinstance(views, str) else views, mean)


def mean_scores(scores: np.ndarray, multi_label: bool = False, mean: Mean = "probabilities") -> np.ndarray:
    """Scores of several views in one.

    Args:
        scores: probabilities [V, N, K].
        multi_label: whether each class has a probability of its own.
        mean: of the "probabilities", or of the "logits" they came from.

    Returns:
        float32 [N, K].
    """
    if mean == "probabilities":
        return scores.mean(axis=0, dtype=np.float32)
    scores = np.clip(scores.astype(np.float64), _SMALLEST, 1 - _SMALLEST)
    if multi_label:
        return (1 / (1 + np.exp(-np.log(scores / (1 - scores)).mean(axis=0)))).astype(np.float32)
    # Logits are the logarithms but for a constant, which the softmax takes away.
    product = np.exp(np.log(scores).mean(axis=0))
    return (product / product.sum(axis=-1, keepdims=True)).astype(np.float32)


def mean_maps(views: Sequence[View], maps: np.ndarray, size: tuple[int, int]) -> np.ndarray:
    """Maps of several views in one; each pixel is averaged over the views that showed it.

    Args:
        views: V of them.
        maps: probabilities [V, N, h, w, C] in pixels of the views.
        size: (H, W) of the images.

    Returns:
        float32 [N, H, W, C]; 0 where no view showed anything.
    """
    total = np.zeros((maps.shape[1], *size, maps.shape[-1] + 1), np.float32)
    for view, each in zip(views, maps, strict=True):
        # A last channel of ones tells how much of a pixel was seen.
        counted = np.concatenate([each, np.ones((*each.shape[:-1], 1))], axis=-1).astype(np.float32)
        for target, values in zip(total, counted, strict=True):
            target += view.invert({"probabilities": values}, size)["probabilities"]
    return total[..., :-1] / np.maximum(total[..., -1:], _SMALLEST)


def _seen(view: View, images: np.ndarray) -> np.ndarray:
    """The views of images [N, H, W, C], which may be of any number type."""
    images = images if images.dtype == np.uint8 else images.astype(np.float32)
    if not len(images):
        return images
    seen: list[Any] = [view.apply({"image": image})["image"] for image in images]
    return np.stack(seen)
