"""What a model says about images: the same verbs for every task, checked when it is made."""

import abc
import dataclasses
import json
import os
from collections.abc import Iterable, Iterator, Sequence
from pathlib import Path
from typing import Any

import numpy as np
from PIL import Image

from kerasvision.draw import draw
from kerasvision.errors import DataError
from kerasvision.files import replacing, write_text

# What an image was given as: a file, or pixels 0..255 as [H, W], [H, W, 1], [H, W, 3] or [H, W, 4].
ImageSource = str | np.ndarray
Images = str | os.PathLike[str] | np.ndarray | Image.Image | Sequence[Any]


class Results(abc.ABC):
    """What a model says about some images, whatever its task.

    `Predictions` are those of a classifier, `kerasvision.detections.Detections` those of a detector, and
    `kerasvision.segmentations.Segmentations` those of a segmenter.
    """

    images: tuple[ImageSource, ...]

    def __len__(self) -> int:
        return len(self.images)

    @abc.abstractmethod
    def to_dict(self) -> dict[str, Any]:
        """What is shown of it, in types that JSON knows: "predictions" has an entry for each image."""

    @abc.abstractmethod
    def draw(self, index: int) -> Image.Image:
        """One image with what was said about it."""

    def pictures(self, index: int) -> dict[str, Image.Image]:
        """What `save` writes of one image, by the end of the file's name; the drawing comes first."""
        return {"prediction": self.draw(index)}

    def image_name(self, index: int) -> str | int:
        """The path an image was given as; of an array its position."""
        image = self.images[index]
        return image if isinstance(image, str) else index

    def save(self, directory: str | os.PathLike[str]) -> list[Path]:
        """Writes a drawing of every image, a segmenter's class map beside it, and then predictions.json.

        Args:
            directory: made where it does not exist.

        Returns:
            The files, predictions.json last.
        """
        directory = Path(directory)
        directory.mkdir(parents=True, exist_ok=True)
        files, result = [], self.to_dict()
        stems = [Path(image).stem if isinstance(image, str) else f"image{at}" for at, image in enumerate(self.images)]
        for index, (name, entry) in enumerate(zip(unique_names(stems), result["predictions"], strict=True)):
            for end, picture in self.pictures(index).items():
                path = directory / f"{name}_{end}.png"
                with replacing(path) as temporary:
                    picture.save(temporary, format="PNG")
                files.append(path)
                entry["drawn" if end == "prediction" else f"{end}_file"] = path.name
        write_text(directory / "predictions.json", json.dumps(result, indent=2, ensure_ascii=False) + "\n")
        return [*files, directory / "predictions.json"]


def unique_names(stems: Iterable[str]) -> Iterator[str]:
    """Names of files, none of them twice: "a", "a_2", "A_3"."""
    used = set()
    for stem in stems:
        name, again = stem, 1
        while name.lower() in used:
            again += 1
            name = f"{stem}_{again}"
        used.add(name.lower())
        yield name


@dataclasses.dataclass(frozen=True, eq=False)
class Predictions(Results):
    """What a classifier says about some images.

    Args:
        images: N paths or pixel arrays.
        scores: [N, K] in 0..1; rows sum to 1 unless several labels are allowed.
        labels: K class names.
        multi_label: whether an image may have any number of labels.
        shown: how many labels `top`, `draw` and `to_dict` give for each image unless told otherwise.

    Raises:
        ValueError: counts that do not fit each other, or scores outside 0..1.
    """

    images: tuple[ImageSource, ...]
    scores: np.ndarray
    labels: tuple[str, ...]
    multi_label: bool = False
    shown: int = 5

    def __post_init__(self) -> None:
        scores = np.array(self.scores, np.float32)
        if scores.shape != (len(self.images), len(self.labels)):
            raise ValueError(
                f"{len(self.images)} images and {len(self.labels)} labels need scores of shape "
                f"[{len(self.images)}, {len(self.labels)}], got {list(scores.shape)}."
            )
        # 1e-3 leaves room for the rounding of an int8 file and for float16.
        if not (np.isfinite(scores).all() and (scores >= -1e-3).all() and (scores <= 1 + 1e-3).all()):
            raise ValueError("Scores must be finite and lie in 0..1.")
        if self.shown < 1:
            raise ValueError(f"shown must be at least 1, got {self.shown}.")
        scores.setflags(write=False)
        object.__setattr__(self, "images", tuple(self.images))
        object.__setattr__(self, "labels", tuple(self.labels))
        object.__setattr__(self, "scores", scores)

    def top(self, k: int | None = None) -> list[list[tuple[str, float]]]:
        """The k best (label, score) pairs of each image, best first; ties in the order of the labels."""
        return [self._ranked(row, k or self.shown) for row in self.scores]

    def to_dict(self, k: int | None = None) -> dict[str, Any]:
        """The k best labels of each image, in types that JSON knows; arrays are named by their position."""
        return {
            "multi_label": self.multi_label,
            "predictions": [
                {
                    "image": self.image_name(index),
                    "top": [{"label": label, "score": round(score, 6)} for label, score in ranked],
                }
                for index, ranked in enumerate(self.top(k))
            ],
        }

    def draw(self, index: int, k: int | None = None) -> Image.Image:
        """One image with its k best labels drawn below it."""
        from kerasvision.data.decode import read_image

        return draw(read_image(self.images[index]), ranked=self._ranked(self.scores[index], k or self.shown))

    def _ranked(self, row: np.ndarray, k: int) -> list[tuple[str, float]]:
        return [(self.labels[index], float(row[index])) for index in np.argsort(-row, kind="stable")[:k]]


def image_sources(images: Images) -> list[ImageSource]:
    """One entry for each image: its path, or its pixels.

    Raises:
        DataError: no image at all, or something that cannot be one.
    """
    from kerasvision.data.inspect import SUFFIXES

    if isinstance(images, Image.Image):
        return [np.asarray(images.convert("RGB"))]
    if isinstance(images, np.ndarray):
        return list(images) if images.ndim == 4 else [images]
    if isinstance(images, str | os.PathLike):
        path = Path(images)
        if not path.is_dir():
            return [str(path)]
        known = {suffix for suffixes in SUFFIXES.values() for suffix in suffixes}
        found = sorted(str(file) for file in path.rglob("*") if file.suffix.lower() in known and file.name[0] != ".")
        if not found:
            raise DataError(f"There is no image in {path}. Expected files ending in {', '.join(sorted(known))}.")
        return list(found)
    if not isinstance(images, list | tuple):
        raise DataError(f"Expected paths or arrays of images, got a {type(images).__name__}.")
    if not images:
        raise DataError("No image was given.")
    return [source for image in images for source in image_sources(image)]
