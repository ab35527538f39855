"""Index -> example with pixels and everything that belongs to them, in NumPy: what augmentation begins with."""

import math
import operator
from collections.abc import Sequence
from typing import Any

import cv2
import numpy as np
import tensorflow as tf

from kerasvision.augment import Example, Fill, keep_visible, move_rest, window
from kerasvision.class_maps import ClassMaps
from kerasvision.data.decode import LETTERBOX_GREY, as_pixels, decode_content, placement, to_channels
from kerasvision.data.inspect import BadFile, Decoder, ImageInfo, inspect_file
from kerasvision.data.listing import bullet_list
from kerasvision.data.mask_files import read_segmentation
from kerasvision.data.storage import read_bytes
from kerasvision.errors import DataError
from kerasvision.masks import PackedMasks
from kerasvision.preprocessing import Preprocessing

MIN_VISIBLE = 0.1
# OpenCV reads a JPEG file at these fractions without decoding the rest.
_WHOLE = cv2.IMREAD_COLOR_RGB
_DRAFTS = {8: cv2.IMREAD_REDUCED_COLOR_8, 4: cv2.IMREAD_REDUCED_COLOR_4, 2: cv2.IMREAD_REDUCED_COLOR_2}

Window = tuple[int, int, int, int]


def inspected(images: Sequence[str | np.ndarray], infos: dict[str, ImageInfo]) -> list[ImageInfo | None]:
    """How to decode each image: None for arrays; files that are not in `infos` are inspected now.

    Raises:
        DataError: files cannot be used.
    """
    found = [None if not isinstance(image, str) else infos.get(image) or inspect_file(image) for image in images]
    bad = [info for info in found if isinstance(info, BadFile)]
    if bad:
        raise DataError(f"{len(bad)} of {len(images)} image files cannot be used:\n{bullet_list(bad)}")
    return found  # type: ignore[return-value]


class Loader:
    """Examples of a split, at their own size or at the net's.

    Args:
        examples: of `Data.splits`.
        infos: path -> how to decode it.
        labels: number of classes.
        channels: 1 or 3.
    """

    def __init__(self, examples: Sequence[Example], infos: dict[str, ImageInfo], labels: int, channels: int) -> None:
        self.examples = examples
        self.infos = inspected([example["image"] for example in examples], infos)
        self.labels = labels
        self.channels = channels
        self._kept: dict[int, np.ndarray] | None = None
        self._kept_masks: dict[int, PackedMasks] | None = None

    def keep(self, most: int, images: bool) -> None:
        """Let decoded images and masks stay in memory, each where all of them take no more than so many bytes."""
        pixels = [math.prod(self.size(index)) for index in range(len(self.examples))]
        planes = [-(-len(example.get("masks", ())) // 8) for example in self.examples]
        if images and sum(pixels) * self.channels <= most:
            self._kept = {}
        if sum(map(operator.mul, pixels, planes)) <= most:
            self._kept_masks = {}

    def size(self, index: int) -> tuple[int, int]:
        """(H, W) of the upright image."""
        info = self.infos[index]
        return self.examples[index]["image"].shape[:2] if info is None else info.upright_size

    def can_crop(self, index: int) -> bool:
        """Whether `pixels` reads less where it needs only a part: JPEG files that stand upright."""
        info = self.infos[index]
        kept = self._kept is not None
        return info is not None and info.decoder == Decoder.JPEG and info.orientation == 1 and not kept

    def pixels(self, index: int, part: Window | None = None, target: tuple[int, int] = (1, 1)) -> np.ndarray:
        """The image.

        Args:
            index: of the example.
            part: (left, top, height, width) that is wanted, where `can_crop`.
            target: (H, W) that the part will be brought to: larger ones are read at a half, quarter or eighth.

        Returns:
            uint8 [H, W, channels], of the part where one is wanted.
        """
        if self._kept is not None and index in self._kept:
            return self._kept[index]
        info = self.infos[index]
        if info is None:
            decoded = as_pixels(self.examples[index]["image"])
        else:
            name = self.examples[index]["image"]
            content = read_bytes(name)
            if part is None:
                with tf.device("CPU"):
                    decoded = decode_content(content, info.decoder, info.orientation).numpy()
            else:
                decoded = _decode_part(name, content, part, target)
        if decoded.shape[-1] != self.channels:
            decoded = to_channels(tf.constant(decoded), self.channels).numpy()
        if self._kept is not None:
            self._kept[index] = decoded
        return decoded

    def rest(self, index: int) -> Example:
        """The example without its image, ready for transforms, at the image's own size."""
        example = dict(self.examples[index])
        del example["image"]
        if "labels" in example:
            wanted = np.zeros(self.labels, np.float32)
            wanted[list(example["labels"])] = 1.0
            example["labels"] = wanted
        if "segmentation" in example:
            mask = example["segmentation"]
            classes = mask.astype(np.uint8) if isinstance(mask, np.ndarray) else read_segmentation(mask)
            if classes.shape != self.size(index):
                name = mask if isinstance(mask, str) else getattr(mask, "path", f"example {index}")
                has, image = (f"{width} x {height}" for height, width in (classes.shape, self.size(index)))
                raise DataError(f"{name}: the mask has {has} pixels, its image {image}.")
            example["segmentation"] = classes
        if "masks" in example:
            example["masks"] = self._masks(index)
        return example

    def _masks(self, index: int) -> PackedMasks:
        if self._kept_masks is not None and index in self._kept_masks:
            return self._kept_masks[index]
        masks = PackedMasks.decode(self.examples[index]["masks"], self.size(index))
        if self._kept_masks is not None:
            self._kept_masks[index] = masks
        return masks

    def __call__(self, index: int) -> Example:
        """An example at its own size."""
        return {"image": self.pixels(index), **self.rest(index)}

    def cropped(self, index: int, part: Window, target: tuple[int, int]) -> Example:
        """A part (left, top, height, width) of an example without anything that lies in the image, such as boxes."""
        return {"image": self.pixels(index, part, target), **self.rest(index)}

    def fitted(self, index: int, image: np.ndarray, fitting: Preprocessing) -> Example:
        """An example whose image was fitted already: all that belongs to it follows."""
        rest = self.rest(index)
        return follow({"image": image, **rest}, self.size(index), fitting)


def _decode_part(name: str, content: bytes, part: Window, target: tuple[int, int]) -> np.ndarray:
    """A part of a JPEG file; OpenCV gives TensorFlow's pixels here, in less time."""
    left, top, height, width = part
    ratio = next((each for each in _DRAFTS if height >= each * target[0] and width >= each * target[1]), 1)
    pixels = cv2.imdecode(np.frombuffer(content, np.uint8), _DRAFTS.get(ratio, _WHOLE) | cv2.IMREAD_IGNORE_ORIENTATION)
    if pixels is None:
        raise DataError(f"{name} cannot be read any more: it has changed since it was inspected. Load the data again.")
    rows = slice(top // ratio, -(-(top + height) // ratio))
    wanted = pixels[rows, left // ratio : -(-(left + width) // ratio)]
    return wanted if ratio == 1 else cv2.cvtColor(wanted, cv2.COLOR_BGR2RGB)


def follow(example: Example, source: tuple[int, int], fitting: Preprocessing) -> Example:
    """Moves boxes, masks, keypoints and segmentation to where fitting has put the image.

    Args:
        example: its image is fitted, all else is still at its own size.
        source: (H, W) of the image before.
        fitting: how it was fitted.
    """
    size = example["image"].shape[:2]
    resized, offset = placement(source, size, fitting)
    factors = resized[1] / source[1], resized[0] / source[0]

    def change(planes: np.ndarray, fill: Fill) -> np.ndarray:
        inner = cv2.resize(planes, resized[::-1], interpolation=cv2.INTER_NEAREST_EXACT)
        inner = inner.reshape(*resized, *planes.shape[2:])
        if tuple(resized) == size:
            return inner
        cut = window({"image": inner}, -offset[1], -offset[0], size[0], size[1], fill)["image"]
        return cut.reshape(*size, *planes.shape[2:])

    moved = move_rest(example, change, lambda points: points * factors + (offset[1], offset[0]))
    return keep_visible(moved, MIN_VISIBLE)


def fit(example: Example, size: tuple[int, int], fitting: Preprocessing) -> Example:
    """Brings an example to the net's size, whatever size it has."""
    source = example["image"].shape[:2]
    if source == tuple(size):
        return example
    resized, offset = placement(source, size, fitting)
    shrinks = math.sqrt((resized[0] / source[0]) * (resized[1] / source[1])) <= 0.5
    image = cv2.resize(example["image"], resized[::-1], interpolation=cv2.INTER_AREA if shrinks else cv2.INTER_LINEAR)
    image = image.reshape(*resized, -1)
    if tuple(resized) != tuple(size):
        image = window({"image": image}, -offset[1], -offset[0], size[0], size[1], LETTERBOX_GREY)["image"]
    return follow({**example, "image": image}, source, fitting)


class Targets:
    """From examples to arrays of a fixed shape: objects are padded, and `valid` says which are there.

    Args:
        example: one of them, for its keys.
        image_size: (H, W).
        labels: number of classes.
        max_objects: objects of an image that fit; the largest are kept where there are more.
        soft: whether single labels come with `label_weights`.
        mask_stride: masks have one pixel for so many of the image's, each way; None leaves masks out.
        class_maps: makes the arrays in place of all this.
    """

    def __init__(
        self,
        example: Example,
        image_size: tuple[int, int],
        labels: int,
        max_objects: int,
        soft: bool = False,
        mask_stride: int | None = 1,
        class_maps: ClassMaps | None = None,
    ) -> None:
        count = max_objects
        self.class_maps = class_maps
        self.max_objects, self.mask_step, self.labels = max_objects, mask_stride or 1, labels
        height, width = (-(-side // self.mask_step) for side in image_size)
        keypoints = example["keypoints"].shape[1] if "keypoints" in example else 0
        known: dict[str, tuple[Any, tuple[int, ...]]] = {
            "label": (np.int32, ()),
            "labels": (np.float32, (labels,)),
            "boxes": (np.float32, (count, 4)),
            "classes": (np.int32, (count,)),
            "crowd": (np.bool_, (count,)),
            "difficult": (np.bool_, (count,)),
            "keypoints": (np.float32, (count, keypoints, 3)),
            "masks": (np.uint8, (count, height, width)),
            "segmentation": (np.uint8, tuple(image_size)),
        }
        if mask_stride is None:
            del known["masks"]
        self.spec = {key: value for key, value in known.items() if key in example}
        if soft and "label" in example:
            self.spec["label_weights"] = np.float32, (labels,)
        if "boxes" in example:
            self.spec["valid"] = np.bool_, (count,)
        if class_maps is not None:
            self.spec = class_maps.spec(image_size)

    def __call__(self, example: Example) -> dict[str, np.ndarray]:
        """The arrays of one example."""
        if self.class_maps is not None:
            return self.class_maps(example, self.labels)
        found = len(example["boxes"]) if "boxes" in example else 0
        kept = np.arange(found)
        if found > self.max_objects:
            sides = example["boxes"][:, 2:] - example["boxes"][:, :2]
            kept = np.sort(np.argsort(-sides.prod(axis=-1), kind="stable")[: self.max_objects])
        arrays = {}
        for key, (dtype, shape) in self.spec.items():
            if key == "label_weights":
                weights = example.get(key)
                arrays[key] = np.eye(self.labels, dtype=np.float32)[example["label"]] if weights is None else weights
            elif key in ("label", "labels", "segmentation"):
                arrays[key] = np.asarray(example[key], dtype)
            else:
                arrays[key] = np.zeros(shape, dtype)
                arrays[key][: len(kept)] = True if key == "valid" else self._objects(example[key], kept)
        return arrays

    def _objects(self, values: Any, kept: np.ndarray) -> np.ndarray:
        if not isinstance(values, PackedMasks):
            return np.asarray(values)[kept]
        step = self.mask_step
        coarse = values.move(lambda planes: np.ascontiguousarray(planes[step // 2 :: step, step // 2 :: step]))
        return coarse.select(kept).unpack()
