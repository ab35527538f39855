"""The labelled objects of one image, from the file that lists them to the arrays of an example."""

import dataclasses
from collections.abc import Sequence
from typing import Any

import numpy as np

from kerasvision.data.segmentations import Segmentations, check_segmentation

_FAR = 1e7  # no image is that wide


@dataclasses.dataclass(frozen=True, slots=True)
class Objects:
    """Boxes of one image, and what belongs to them.

    Args:
        boxes: [N, 4] xyxy in pixels of the upright image, (0, 0) its top left corner.
        classes: int32 [N], indices of the set's labels.
        crowd: bool [N], a box around many objects.
        masks: a COCO segmentation for each box: list of polygons [x0, y0, x1, y1, ...], or {"size", "counts"}.
        keypoints: [N, K, 3] of x, y, visibility 0, 1 or 2.
        difficult: bool [N], objects that are hard to see (Pascal VOC).
        relative: coordinates are shares of the image's width and height.
        file: the list that names the objects, for messages.
        places: int [N], line (or number) of each object in `file`.
    """

    boxes: np.ndarray
    classes: np.ndarray
    crowd: np.ndarray
    masks: Sequence[Any] | None = None
    keypoints: np.ndarray | None = None
    difficult: np.ndarray | None = None
    relative: bool = False
    file: str = ""
    places: np.ndarray | None = None

    def example(self) -> dict[str, Any]:
        """The keys of an example, in the types the pipeline takes."""
        return {
            "boxes": np.asarray(self.boxes, np.float32),
            "classes": np.asarray(self.classes, np.int32),
            "crowd": np.asarray(self.crowd, bool),
            **({} if self.masks is None else {"masks": self.masks}),
            **({} if self.keypoints is None else {"keypoints": np.asarray(self.keypoints, np.float32)}),
            **({} if self.difficult is None else {"difficult": np.asarray(self.difficult, bool)}),
        }

    def part(self, part: slice, file: str) -> "Objects":
        """Some of the objects, those of one image, as `file` lists them; masks and keypoints are not looked at."""
        return Objects(
            self.boxes[part],
            self.classes[part],
            self.crowd[part],
            difficult=None if self.difficult is None else self.difficult[part],
            relative=self.relative,
            file=file,
            places=None if self.places is None else self.places[part],
        )

    def origin(self, index: int) -> str:
        """Where an object is listed, e.g. "labels/1.txt:3"."""
        return self.file if self.places is None else f"{self.file}:{self.places[index]}"

    def scaled(self, size: tuple[int, int]) -> "Objects":
        """The objects in pixels, where they were shares of an image of `size` (H, W)."""
        if not self.relative:
            return self
        factors = np.array([size[1], size[0]], np.float64)
        masks = None
        if self.masks is not None:
            masks = Segmentations.of(
                [(np.reshape(polygon, (-1, 2)) * factors).ravel().tolist() for polygon in polygons]
                for polygons in self.masks
            )
        return dataclasses.replace(
            self,
            boxes=self.boxes * np.tile(factors, 2),
            masks=masks,
            keypoints=None if self.keypoints is None else self.keypoints * np.append(factors, 1),
            relative=False,
        )

    def clipped(self, size: tuple[int, int]) -> "Objects":
        """The objects with boxes cut off at the edges of an image of `size` (H, W)."""
        limits = np.array([size[1], size[0]] * 2, np.float64)
        return dataclasses.replace(self, boxes=np.clip(self.boxes, 0, limits).astype(np.float32))

    def problem(self, size: tuple[int, int]) -> tuple[int, str] | None:
        """The first object that has no place in an image.

        Args:
            size: (H, W) of the upright image.

        Returns:
            Its index and what is wrong, or None. `scaled` objects are expected.
        """
        inside = self.clipped(size).boxes
        outside = np.flatnonzero((inside[:, 2] <= inside[:, 0]) | (inside[:, 3] <= inside[:, 1]))
        if len(outside):
            box = ", ".join(f"{value:g}" for value in self.boxes[outside[0]])
            return int(outside[0]), f"the box ({box}) covers nothing of the image, {size[1]} x {size[0]} pixels"
        for index, segmentation in enumerate(self.masks or ()):
            reason = check_segmentation(segmentation, size)
            if reason:
                return index, reason
        return None


def box_problem(box: np.ndarray) -> str:
    """What is wrong with a box xyxy by itself, or ""."""
    if not (np.isfinite(box) & (np.abs(box) < _FAR)).all():
        return f"the box holds {', '.join(f'{value:g}' for value in box)}; expected numbers of pixels"
    width, height = float(box[2] - box[0]), float(box[3] - box[1])
    return "" if width > 0 and height > 0 else f"the box is {width:g} wide and {height:g} high; expected more than 0"


def sound_boxes(boxes: np.ndarray) -> np.ndarray:
    """Which of boxes [N, 4] xyxy have no `box_problem`: bool [N]."""
    low, high = boxes[:, :2], boxes[:, 2:]
    # Comparisons with NaN are false.
    return np.all((high > low) & (low > -_FAR) & (high < _FAR), axis=1)
