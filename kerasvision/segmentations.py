"""What a segmenter says about images: a class for every pixel, in the pixels of the images themselves."""

import dataclasses
from typing import Any

import numpy as np
from PIL import Image

from kerasvision.class_maps import VOID
from kerasvision.data.decode import read_image
from kerasvision.draw import draw
from kerasvision.overlay import indexed
from kerasvision.predictions import ImageSource, Results
from kerasvision.segmentation.instances import find_objects


@dataclasses.dataclass(frozen=True, eq=False)
class Segmentations(Results):
    """The classes of the pixels of some images: `segmentations[0]` is the class map of the first.

    Args:
        images: N paths or pixel arrays.
        maps: N times uint8 [H, W], class indices in pixels of the image; 255 where the model says nothing.
        labels: K class names.
        border: label of the pixels between objects; None where the model tells no objects apart.
        min_area: pixels that an object has at least.
        neck: objects are split where they are narrow, see `find_objects`.
        seen: (H, W) of what the net saw of each image, of whose pixels `min_area` and `neck` are; None where it saw the
            image's own.

    Raises:
        ValueError: counts that do not fit each other, a class without a label, or a border that is no label.
    """

    images: tuple[ImageSource, ...]
    maps: tuple[np.ndarray, ...]
    labels: tuple[str, ...]
    border: str | None = None
    min_area: int = 1
    neck: float | None = None
    seen: tuple[int, int] | None = None

    def __post_init__(self) -> None:
        for name in ("images", "maps", "labels"):
            object.__setattr__(self, name, tuple(getattr(self, name)))
        if len(self.images) != len(self.maps):
            raise ValueError(f"Expected the class maps of {len(self.images)} images, got {len(self.maps)}.")
        if self.border is not None and self.border not in self.labels:
            raise ValueError(f'border must be one of the labels, got "{self.border}".')
        for each in self.maps:
            wrong = [int(index) for index in np.unique(each) if index != VOID and not 0 <= index < len(self.labels)]
            if wrong:
                raise ValueError(f"Expected classes in 0..{len(self.labels) - 1}, or {VOID}, got {wrong[0]}.")

    def __getitem__(self, index: int) -> np.ndarray:
        return self.maps[index]

    def shares(self, index: int) -> dict[str, float]:
        """Label -> share of the pixels of an image that are of the class, most first; those that occur."""
        counts = np.bincount(self.maps[index].ravel(), minlength=VOID + 1)
        order = np.argsort(-counts[: len(self.labels)], kind="stable")
        return {self.labels[each]: float(counts[each] / counts.sum()) for each in order if counts[each]}

    def objects(self, index: int) -> np.ndarray:
        """Number of the object at each pixel of an image, int32 [H, W]: 1..N, 0 where there is none.

        Raises:
            ValueError: the model has no class that keeps objects apart.
        """
        if self.border is None:
            raise ValueError(
                "This model has no class for the borders between objects. Train one with data.class_maps and "
                "border=..., or take kerasvision.segmentation.find_objects with settings of your own."
            )
        classes = self.maps[index]
        larger = classes.size / np.prod(self.seen or classes.shape)
        return find_objects(
            classes,
            border=self.labels.index(self.border),
            min_area=round(self.min_area * larger),
            neck=None if self.neck is None else self.neck * larger**0.5,
        )

    def to_dict(self) -> dict[str, Any]:
        """Of each image its size, the share of each class, and the number of objects where they are told apart."""
        return {
            "labels": list(self.labels),
            "predictions": [
                {
                    "image": self.image_name(index),
                    "size": list(classes.shape),
                    "classes": {label: round(share, 6) for label, share in self.shares(index).items()},
                    **({} if self.border is None else {"objects": int(self.objects(index).max(initial=0))}),
                }
                for index, classes in enumerate(self.maps)
            ],
        }

    def draw(self, index: int) -> Image.Image:
        """One image with the colours of its classes laid over it, and a legend below."""
        return draw(read_image(self.images[index]), labels=self.labels, segmentation=self.maps[index])

    def pictures(self, index: int) -> dict[str, Image.Image]:
        """The drawing; and "classes", whose pixels are class indices, with the drawing's colours as its palette."""
        return {**super().pictures(index), "classes": indexed(self.maps[index])}
