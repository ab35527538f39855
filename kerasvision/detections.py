"""What a detector says about images: boxes with names and scores, in the pixels of the images themselves."""

import dataclasses
from collections.abc import Mapping
from pathlib import Path, PurePosixPath
from typing import Any

import numpy as np
from PIL import Image

from kerasvision.data.decode import read_image, unfit_boxes
from kerasvision.draw import draw
from kerasvision.errors import DataError
from kerasvision.masks import PackedMasks, encode_mask, paste_mask, stack_of_planes
from kerasvision.predictions import ImageSource, Results
from kerasvision.preprocessing import Preprocessing

# Masks among a detector's outputs, stretched over their boxes, or over the whole input.
BOX_MASKS, MASKS = "box_masks", "masks"


@dataclasses.dataclass(frozen=True, eq=False)
class Found:
    """What was found in one image.

    Args:
        size: (H, W) of the image.
        boxes: float32 [N, 4] xyxy in pixels of the image.
        classes: int [N].
        scores: float32 [N] in 0..1.
        masks: probabilities [N, h, w] of whatever size; None where the model gives none.
        windows: [N, 4] xyxy in pixels of the image, over which each mask is stretched; the boxes where None.

    Raises:
        ValueError: parts that do not fit each other, boxes that are not finite, or scores outside 0..1.
    """

    size: tuple[int, int]
    boxes: np.ndarray
    classes: np.ndarray
    scores: np.ndarray
    masks: np.ndarray | None = None
    windows: np.ndarray | None = None

    def __post_init__(self) -> None:
        for name, dtype in (("boxes", np.float32), ("classes", np.int64), ("scores", np.float32)):
            values = np.array(getattr(self, name), dtype)
            values.setflags(write=False)
            object.__setattr__(self, name, values)
        count = len(self.scores)
        shapes = {"boxes": (count, 4), "classes": (count,), "scores": (count,)}
        for name, shape in shapes.items():
            if getattr(self, name).shape != shape:
                raise ValueError(f"Expected {name} as {list(shape)}, got {list(getattr(self, name).shape)}.")
        if self.masks is not None and (np.ndim(self.masks) != 3 or len(self.masks) != count):
            raise ValueError(f"Expected masks as [{count}, h, w], got {list(np.shape(self.masks))}.")
        if not np.isfinite(self.boxes).all():
            raise ValueError("Boxes must be finite.")
        # 1e-3 leaves room for the rounding of an int8 file and for float16; a NaN is in no range.
        if not ((self.scores >= -1e-3) & (self.scores <= 1 + 1e-3)).all():
            raise ValueError("Scores must be finite and lie in 0..1.")

    @classmethod
    def from_outputs(
        cls,
        outputs: Mapping[str, np.ndarray],
        size: tuple[int, int],
        image_size: tuple[int, int],
        preprocessing: Preprocessing,
    ) -> "Found":
        """From what `DetectionTask.decode` gives for one image; what lies beside the image is left out.

        Args:
            outputs: "boxes" [D, 4] as shares of the net's input, "scores" and "classes" [D], "count"; masks as
                "box_masks" [D, h, w], stretched over their boxes, or "masks" [D, h, w], over the whole input.
            size: (H, W) of the image.
            image_size: (H', W') of the net's input.
            preprocessing: how the image was fitted into it.
        """
        count = int(np.rint(outputs["count"]))
        height, width = image_size
        inputs = np.array([[0, 0, width, height]], np.float32)
        exact = unfit_boxes(outputs["boxes"][:count] * inputs[:, [2, 3, 2, 3]], size, image_size, preprocessing)
        boxes = np.clip(exact, 0, np.array([size[1], size[0]] * 2))
        kept = (boxes[:, 2:] > boxes[:, :2]).all(axis=1)
        masks, windows = None, None
        if BOX_MASKS in outputs:
            masks, windows = outputs[BOX_MASKS][:count][kept], exact[kept]
        elif MASKS in outputs:
            masks = outputs[MASKS][:count][kept]
            windows = np.repeat(unfit_boxes(inputs, size, image_size, preprocessing), kept.sum(), axis=0)
        classes = np.rint(outputs["classes"][:count][kept])
        return cls(size, boxes[kept], classes, outputs["scores"][:count][kept], masks, windows)

    def __len__(self) -> int:
        return len(self.scores)

    def above(self, score: float) -> "Found":
        """Those of at least a score."""
        kept = self.scores >= score
        masks, windows = (None if values is None else values[kept] for values in (self.masks, self.windows))
        return Found(self.size, self.boxes[kept], self.classes[kept], self.scores[kept], masks, windows)

    def pasted(self) -> PackedMasks | None:
        """The masks in the image, which a pixel belongs to from a probability of 0.5; None where there are none."""
        if self.masks is None:
            return None
        planes = stack_of_planes(self.size, len(self))
        for index, window in enumerate(self.boxes if self.windows is None else self.windows):
            paste_mask(planes[index // 8], self.masks[index], window, 1 << index % 8)
        return PackedMasks.from_stack(planes, len(self))


@dataclasses.dataclass(frozen=True, eq=False)
class Detections(Results):
    """What a detector found in some images: `detections[0].boxes` are those of the first.

    Args:
        images: N paths or pixel arrays.
        found: N times what was found, of every score.
        labels: K class names.
        score: what `draw`, `to_dict` and `save` show has at least this score, unless they are told otherwise.

    Raises:
        ValueError: counts that do not fit each other, or a class without a label.
    """

    images: tuple[ImageSource, ...]
    found: tuple[Found, ...]
    labels: tuple[str, ...]
    score: float = 0.5

    def __post_init__(self) -> None:
        for name in ("images", "found", "labels"):
            object.__setattr__(self, name, tuple(getattr(self, name)))
        if len(self.images) != len(self.found):
            raise ValueError(f"Expected what was found in {len(self.images)} images, got it of {len(self.found)}.")
        if not 0 <= self.score <= 1:
            raise ValueError(f"score must lie in 0..1, got {self.score}.")
        wrong = {int(index) for found in self.found for index in found.classes} - set(range(len(self.labels)))
        if wrong:
            raise ValueError(f"Expected classes in 0..{len(self.labels) - 1}, got {min(wrong)}.")

    def __getitem__(self, index: int) -> Found:
        return self.found[index]

    def to_dict(self, score: float | None = None) -> dict[str, Any]:
        """What has at least a score, best first in each image; boxes are xyxy in pixels of the image."""
        least = self.score if score is None else score
        return {
            "score": least,
            "predictions": [
                {
                    "image": self.image_name(index),
                    "size": list(found.size),
                    "objects": self._objects(found.above(least)),
                    "best_score": round(float(found.scores.max()), 6) if len(found) else None,
                }
                for index, found in enumerate(self.found)
            ],
        }

    def draw(self, index: int, score: float | None = None) -> Image.Image:
        """One image with the boxes of at least a score, the masks where there are any, and a legend below it."""
        found = self.found[index].above(self.score if score is None else score)
        return draw(
            read_image(self.images[index]),
            labels=self.labels,
            boxes=found.boxes,
            classes=found.classes,
            scores=found.scores,
            masks=found.pasted(),
        )

    def to_coco(self, annotations: Mapping[str, Any] | None = None) -> list[dict[str, Any]]:
        """COCO's list of results, with everything that was found, whatever its score.

        Args:
            annotations: the content of a COCO annotation file, whose ids of images (by their file names) and of
                categories (by their names) are taken. When None, an image's id is its file name, and the categories
                are numbered from 1 in the order of the labels.

        Returns:
            Entries {"image_id", "category_id", "bbox": [x, y, width, height], "score"}, and "segmentation" where there
            are masks.

        Raises:
            DataError: an image or a label that the annotations do not name.
        """
        names = [self.image_name(index) for index in range(len(self))]
        if annotations is None:
            images: list[Any] = _short_names(names)
            categories = {label: index + 1 for index, label in enumerate(self.labels)}
        else:
            images = _image_ids(names, annotations)
            categories = {category["name"]: category["id"] for category in annotations["categories"]}
        entries = []
        for image, found in zip(images, self.found, strict=True):
            masks = found.pasted()
            for index in range(len(found)):
                label = self.labels[found.classes[index]]
                if label not in categories:
                    raise DataError(f'The annotations have no category "{label}". They have: {", ".join(categories)}.')
                left, top, right, bottom = found.boxes[index].astype(float).tolist()
                entry = {
                    "image_id": image,
                    "category_id": categories[label],
                    "bbox": [round(value, 3) for value in (left, top, right - left, bottom - top)],
                    "score": round(float(found.scores[index]), 6),
                }
                if masks is not None:
                    entry["segmentation"] = encode_mask(masks.select(np.array([index])).unpack()[0])
                entries.append(entry)
        return entries

    def _objects(self, found: Found) -> list[dict[str, Any]]:
        rows = zip(found.classes.tolist(), found.scores.tolist(), found.boxes.tolist(), strict=True)
        return [
            {"label": self.labels[label], "score": round(score, 6), "box": [round(side, 2) for side in box]}
            for label, score, box in rows
        ]


def _short_names(images: list[str | int]) -> list[str | int]:
    """File names, or whole paths where two images have the same."""
    short = [image if isinstance(image, int) else Path(image).name for image in images]
    return short if len(set(short)) == len(short) else images


def _image_ids(images: list[str | int], annotations: Mapping[str, Any]) -> list[Any]:
    """For each image the id of the one whose file name is the end of its path."""
    named: dict[str, list[tuple[tuple[str, ...], Any]]] = {}
    for entry in annotations["images"]:
        parts = PurePosixPath(entry["file_name"]).parts
        named.setdefault(parts[-1], []).append((parts, entry["id"]))
    ids = []
    for image in images:
        path = () if isinstance(image, int) else Path(image).absolute().parts
        fitting = [key for parts, key in named.get(path[-1] if path else "", ()) if path[-len(parts) :] == parts]
        if len(fitting) != 1:
            raise DataError(
                f"The annotations name {len(fitting) or 'no'} images that could be {image}; expected one whose "
                "file_name is the end of its path."
            )
        ids.append(fitting[0])
    return ids
