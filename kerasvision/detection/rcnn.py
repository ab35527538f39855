"""R-CNN: each proposal by itself through a classifier's net, then SVMs and ridge regression.

Girshick et al., 2014, arXiv:1311.2524. It is no net but a chain of parts that learn one after the other, as in
scikit-learn: selective search, warping, features of a net that is not trained any further, a linear SVM for each class,
a ridge regression of each class's boxes, greedy suppression.
"""

import json
import os
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any, cast

import keras
import numpy as np

from kerasvision.boxes.coding import decode_deltas, encode_deltas
from kerasvision.boxes.nms import hard_nms
from kerasvision.boxes.overlap import pairwise_iou
from kerasvision.detection.metrics import DetectionMetrics
from kerasvision.detection.rcnn_parts import regress, separate, warp
from kerasvision.detection.selective_search import Mode, find_proposals
from kerasvision.errors import ArtifactError, DataError
from kerasvision.files import replacing
from kerasvision.registry import create_model

if TYPE_CHECKING:
    from kerasvision.data import Data

# As in the paper: below and above which IoU proposals are negatives, and near enough to learn a box from; and the mean
# length that features are scaled to, which C and the regularization of the ridge regression are meant for.
_NEGATIVE, _NEAR = 0.3, 0.6
_LENGTH = 20.0
_PLAIN = (1.0, 1.0, 1.0, 1.0)
_BATCH = 64
# Images whose detections are suppressed together, and pairs of box and class that are compared in each.
_IMAGES, _CANDIDATES = 16, 500
# A class that no training image has is never found.
_NEVER = -1e4


class RCNN:
    """Regions with CNN features.

        detector = RCNN(data.labels).fit(data)
        detector.evaluate(data, "validation").result()["AP50"]

    Every proposal costs a pass through the net: the defaults, 300 proposals of 128 x 128 pixels, take
    seconds for an image where the paper's, 2,000 of 227 x 227, take minutes.

    Args:
        labels: class names.
        backbone: a name of the registry.
        weights: of the backbone: a name, the path of a file, or None for fresh ones, which are saved as all others are.
        backbone_arguments: of its builder, such as {"alpha": 0.5}.
        level: of the backbone, where the features come from.
        bins: along each side of that level, whose means are the features: more know better where a box ends.
        size: side in pixels that proposals are warped to.
        context: pixels of the image around the proposal within `size`; what lies outside of the image has its mean
            color. 16 of 227 in the paper.
        proposals: an image, 2,000 in the paper.
        search: "fast" or "quality", see `selective_search`.
        search_side: longer side in pixels that larger images are searched at.
        least_side: proposals with a shorter side are left out, in pixels.
        overlap: proposals that overlap a larger one more are left out.
        c: of the SVMs.
        ridge: regularization of the box regression.
        negatives: hard ones of a class that an SVM learns from at most.
        rounds: of hard negative mining.
        iou: overlap from which a detection gives way to a better one of its class.
        least_score: detections below it are left out; a score is the sigmoid of the SVM's value, no probability.
        detections: at most so many an image, D.
        seed: of the first negatives and of the SVMs.

    Raises:
        ValueError: no labels, or a context that leaves nothing of the proposal.
    """

    def __init__(
        self,
        labels: Sequence[str],
        *,
        backbone: str = "efficientnet_lite0",
        weights: str | None = "imagenet",
        backbone_arguments: Mapping[str, Any] | None = None,
        level: str = "P5",
        bins: int = 2,
        size: int = 128,
        context: int = 9,
        proposals: int = 300,
        search: Mode = "quality",
        search_side: int = 256,
        least_side: float = 8.0,
        overlap: float = 0.8,
        c: float = 1e-3,
        ridge: float = 1000.0,
        negatives: int = 6000,
        rounds: int = 4,
        iou: float = 0.3,
        least_score: float = 0.01,
        detections: int = 100,
        seed: int = 0,
    ) -> None:
        if not labels:
            raise ValueError("A detector needs at least one class, got none.")
        if not 0 <= 2 * context < size:
            raise ValueError(f"context must be 0 or more and below half of the size of {size}, got {context}.")
        self.labels = tuple(labels)
        self.backbone = backbone
        self.weights = weights
        self.backbone_arguments = dict(backbone_arguments or {})
        self.level = level
        self.bins = bins
        self.size = size
        self.context = context
        self.proposals = proposals
        self.search: Mode = search
        self.search_side = search_side
        self.least_side = least_side
        self.overlap = overlap
        self.c = c
        self.ridge = ridge
        self.negatives = negatives
        self.rounds = rounds
        self.iou = iou
        self.least_score = least_score
        self.detections = detections
        self.seed = seed
        self._net: keras.Model | None = None
        # Learned: factor of the features; [F, K] and [K] of the SVMs; [K, F, 4] and [K, 4] of the regressions.
        self._learned: dict[str, np.ndarray] | None = None

    def fit(self, data: "Data", split: str = "train", *, cache: str | os.PathLike[str] | None = None) -> "RCNN":
        """Learn from the objects of a split.

        Args:
            data: images with boxes.
            split: of them.
            cache: `.npz` file of proposals, see `find_proposals`.

        Returns:
            Itself.

        Raises:
            DataError: there is no such split, or its images have no boxes.
        """
        from kerasvision.progress import track

        examples = _examples_of(data, split)
        # What cannot be built should fail before the search.
        self._built()
        found = self.find([example["image"] for example in examples], cache, "Searching for proposals")
        # All rows of all images: those of the proposals, then those of the objects.
        rows, owners = [], []
        for example, proposals in zip(track(examples, "Computing features"), found, strict=True):
            rows.append(self.features(example["image"], np.concatenate([proposals, example["boxes"]])))
            owners.append(len(proposals))
        features = np.concatenate(rows)
        starts = np.cumsum([0, *(len(each) for each in rows)])[:-1]
        factor = _LENGTH / max(float(np.linalg.norm(features, axis=1).mean()), 1e-6) if len(features) else 1.0
        features *= factor
        count, width = len(self.labels), features.shape[1]
        learned = {
            "factor": np.float32(factor),
            "svm": np.zeros((width, count), np.float32),
            "offset": np.full(count, _NEVER, np.float32),
            "boxes": np.zeros((count, width, 4), np.float32),
            "boxes_offset": np.zeros((count, 4), np.float32),
        }
        for kind in range(count):
            positives, negatives, near, deltas = [], [], [], []
            for example, proposals, start in zip(examples, found, starts, strict=True):
                mine = example["classes"] == kind
                named = mine & ~_flags(example, "crowd") & ~_flags(example, "difficult")
                positives.append(start + len(proposals) + np.flatnonzero(named))
                overlap = _overlaps(proposals, example["boxes"][mine])
                negatives.append(start + np.flatnonzero(overlap.max(axis=1, initial=0) < _NEGATIVE))
                if named.any():
                    overlap = _overlaps(proposals, example["boxes"][named])
                    close = np.flatnonzero(overlap.max(axis=1) > _NEAR)
                    near.append(start + close)
                    targets = example["boxes"][named][overlap[close].argmax(axis=1)]
                    deltas.append(np.asarray(encode_deltas(targets, proposals[close], _PLAIN)))
            if not sum(map(len, positives)):
                continue
            machine = separate(
                features,
                np.concatenate(positives),
                np.concatenate(negatives),
                c=self.c,
                most=self.negatives,
                rounds=self.rounds,
                seed=self.seed,
            )
            learned["svm"][:, kind], learned["offset"][kind] = machine
            if sum(map(len, near)):
                rule = regress(features[np.concatenate(near)], np.concatenate(deltas), self.ridge)
                learned["boxes"][kind], learned["boxes_offset"][kind] = rule
        self._learned = learned
        return self

    def find(
        self,
        images: Sequence[str | np.ndarray],
        cache: str | os.PathLike[str] | None = None,
        progress: str | None = None,
    ) -> list[np.ndarray]:
        """The proposals of images, xyxy float32 [N, 4] each, as `find_proposals`."""
        return find_proposals(
            images,
            cache=cache,
            progress=progress,
            mode=self.search,
            side=self.search_side,
            most=self.proposals,
            least_side=self.least_side,
            overlap=self.overlap,
        )

    def features(self, image: str | np.ndarray, boxes: np.ndarray) -> np.ndarray:
        """What the net makes of boxes of an image.

        Args:
            image: path, or pixels 0..255.
            boxes: xyxy [N, 4] in pixels of the image.

        Returns:
            float32 [N, bins * bins * C].
        """
        from kerasvision.data.decode import read_image

        net = self._built()
        pixels = read_image(image)
        rows = []
        for start in range(0, len(boxes), _BATCH):
            part = warp(pixels, boxes[start : start + _BATCH], self.size, self.context)
            # Always the same number of images, or a new graph would be traced.
            padded = np.zeros((_BATCH, *part.shape[1:]), np.float32)
            padded[: len(part)] = part
            rows.append(np.asarray(net.predict_on_batch(padded))[: len(part)])
        return np.concatenate([np.zeros((0, net.output.shape[1]), np.float32), *rows])

    def predict(
        self, images: Sequence[str | np.ndarray], *, cache: str | os.PathLike[str] | None = None
    ) -> dict[str, np.ndarray]:
        """What is where in images of any size.

        Args:
            images: paths, or pixels 0..255.
            cache: as in `fit`.

        Returns:
            As `DetectionTask.decode`: {"boxes": float32 [B, D, 4] xyxy as shares of an image's sides, "scores": float32
            [B, D], "classes": int32 [B, D], "count": int32 [B]} by falling score, zeros behind the count.

        Raises:
            ValueError: nothing was learned yet.
            DataError: no image, or a file that cannot be used.
        """
        if self._learned is None:
            raise ValueError("This R-CNN has not learned yet. Call fit, or load one that has.")
        if not len(images):
            raise DataError("No image was given.")
        from kerasvision.data.decode import read_image

        found = self.find(images, cache)
        most = max((len(proposals) for proposals in found), default=0)
        results = []
        for start in range(0, len(images), _IMAGES):
            part = slice(start, start + _IMAGES)
            scored = [self._score(read_image(image), own) for image, own in zip(images[part], found[part], strict=True)]
            results.append(self._suppress(scored, most))
        return {name: np.concatenate([each[name] for each in results]) for name in results[0]}

    def evaluate(
        self, data: "Data", split: str = "validation", *, cache: str | os.PathLike[str] | None = None
    ) -> DetectionMetrics:
        """Metrics over a split, boxes in pixels of the images; arguments as those of `fit`."""
        from kerasvision.data.decode import read_image

        examples = _examples_of(data, split)
        metrics = DetectionMetrics(self.labels)
        found = self.predict([example["image"] for example in examples], cache=cache)
        for index, example in enumerate(examples):
            height, width = read_image(example["image"]).shape[:2]
            single = {name: values[index : index + 1] for name, values in found.items()}
            single["boxes"] = single["boxes"] * np.array([width, height, width, height], np.float32)
            known = {name: np.asarray(example[name])[None] for name in ("boxes", "classes")}
            known |= {name: _flags(example, name)[None] for name in ("crowd", "difficult")}
            metrics.update({**known, "valid": np.ones(known["classes"].shape, bool)}, single)
        return metrics

    def save(self, path: str | os.PathLike[str]) -> None:
        """Write settings, the net's weights and what was learned into one `.npz` file without any code in it.

        Raises:
            ValueError: nothing was learned yet, or another ending.
        """
        path = Path(path)
        if path.suffix != ".npz" or self._learned is None:
            raise ValueError(f"Expected a path that ends in .npz and an R-CNN that has learned, got {path}.")
        settings = {name: value for name, value in vars(self).items() if not name.startswith("_")}
        arrays = {f"learned/{name}": values for name, values in self._learned.items()}
        arrays |= {f"net/{index}": values for index, values in enumerate(self._built().get_weights())}
        with replacing(path) as temporary, temporary.open("wb") as file:
            cast(Any, np.savez)(file, settings=np.array(json.dumps(settings)), **arrays)

    @classmethod
    def load(cls, path: str | os.PathLike[str]) -> "RCNN":
        """The detector that `save` has written.

        Raises:
            ArtifactError: no such file.
        """
        try:
            with np.load(path, allow_pickle=False) as stored:
                arrays = dict(stored)
            settings = json.loads(str(arrays.pop("settings")))
            weights = settings.pop("weights")
            detector = cls(**settings, weights=None)
            net = detector._built()
            net.set_weights([arrays.pop(f"net/{index}") for index in range(len(net.get_weights()))])
        except Exception as error:  # OSError, BadZipFile, KeyError, ValueError ...: NumPy has no type of its own.
            raise ArtifactError(f"{path} is no file of RCNN.save: {error}.") from error
        detector.weights = weights
        detector._learned = {name.removeprefix("learned/"): values for name, values in arrays.items()}
        return detector

    def _built(self) -> keras.Model:
        """Warped pixels [B, size, size, 3] -> features [B, bins * bins * C]."""
        if self._net is None:
            model = create_model(
                self.backbone,
                task="classification",
                num_classes=2,
                input_shape=(self.size, self.size, 3),
                weights=self.weights,
                **self.backbone_arguments,
            )
            net = model.features(self.level)
            side = net.output.shape[1]
            if side % self.bins:
                raise ValueError(f"{self.level} has {side} x {side} places, which {self.bins} bins do not divide.")
            x = keras.layers.AveragePooling2D(side // self.bins, name="bins")(net.output)
            self._net = keras.Model(net.input, keras.layers.Flatten(name="features")(x), name="rcnn")
        return self._net

    def _score(self, pixels: np.ndarray, proposals: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
        """Boxes of each class as shares of the image, [N, K, 4], and their scores [N, K]."""
        learned = cast(dict[str, np.ndarray], self._learned)
        features = self.features(pixels, proposals) * learned["factor"]
        values = np.clip(features @ learned["svm"] + learned["offset"], -50, 50)
        deltas = np.einsum("nf,kfd->nkd", features, learned["boxes"], optimize=True) + learned["boxes_offset"]
        boxes = np.asarray(decode_deltas(deltas, proposals[:, None], _PLAIN))
        sides = np.tile(np.array(pixels.shape[1::-1], np.float32), 2)
        return np.clip(boxes / sides, 0, 1), 1 / (1 + np.exp(-values))

    def _suppress(self, scored: Sequence[tuple[np.ndarray, np.ndarray]], most: int) -> dict[str, np.ndarray]:
        """The detections of some images: one suppression for all of them, of at least one box each."""
        count, most = len(self.labels), max(most, 1)
        boxes = np.zeros((len(scored), most, count, 4), np.float32)
        # Each class has boxes of its own: [B, N, K] of the box, K of the score.
        spread = np.zeros((len(scored), most, count, count), np.float32)
        for index, (own, scores) in enumerate(scored):
            boxes[index, : len(own)] = own
            spread[index, : len(own)] = scores[..., None] * np.eye(count)
        found = hard_nms(
            boxes.reshape(len(scored), -1, 4),
            spread.reshape(len(scored), -1, count),
            iou=self.iou,
            least_score=self.least_score,
            detections=self.detections,
            candidates=_CANDIDATES,
        )
        return {name: np.asarray(found[name]) for name in ("boxes", "scores", "classes", "count")}


def _examples_of(data: "Data", split: str) -> list[dict[str, Any]]:
    examples = data.splits.get(split)
    if not examples or "boxes" not in examples[0]:
        raise DataError(
            f'R-CNN takes images with boxes, {data.source or "the data"} has none in a split "{split}"; its splits: '
            f"{', '.join(data.splits)}."
        )
    return examples


def _flags(example: Mapping[str, Any], name: str) -> np.ndarray:
    """bool [M], one for each object."""
    return np.asarray(example.get(name, np.zeros(len(example["boxes"]))), bool)


def _overlaps(proposals: np.ndarray, boxes: np.ndarray) -> np.ndarray:
    """IoU [N, M]."""
    return pairwise_iou(proposals.astype(np.float64), np.asarray(boxes, np.float64))
