"""`Data`, a verified set of labelled images, and the tf.data pipeline that feeds it to a net."""

import dataclasses
import math
import os
from collections.abc import Sequence
from concurrent.futures import ThreadPoolExecutor
from typing import Any

import numpy as np
import tensorflow as tf

from kerasvision.augment import Augmentation, bind, build
from kerasvision.class_maps import BACKGROUND, BORDER, ClassMaps
from kerasvision.data.balance import Rule, sampler
from kerasvision.data.inspect import BadFile, ImageInfo
from kerasvision.data.listing import spread
from kerasvision.data.loading import Loader, Targets
from kerasvision.data.pipeline import Augmenter, already_fitted, decode_all, epochs, most_objects, reader
from kerasvision.errors import DataError, closest
from kerasvision.preprocessing import Preprocessing
from kerasvision.progress import track

CACHE_BYTES = 2 << 30

Example = dict[str, Any]


@dataclasses.dataclass
class Data:
    """A set of images with what is known about them, split, and known to be readable.

    Every example is a dict; all of a set have the same keys:

    - "image": path or pixels 0..255 [H, W] or [H, W, C].
    - "label": class index; in a multi-label set "labels": [class indices].
    - "boxes": float32 [N, 4] xyxy in pixels of the upright image, (0, 0) the top left corner; "classes": int [N];
      "crowd": bool [N]; "difficult": bool [N] where the set says so.
    - "masks": N segmentations as COCO writes them: lists of polygons, or {"size", "counts"}.
    - "keypoints": float32 [N, P, 3] of (x, y, visibility).
    - "segmentation": a mask file, or class indices [H, W] with 255 for void.
    - "key": a name that does not depend on where the set lies; "group": examples of one group are never divided.

    Args:
        labels: class names in the order of their indices.
        splits: "train", "validation", "test" -> examples.
        multi_label: an image may carry any number of labels.
        source: where the set came from.
        skipped: files that were left out because they cannot be used.
        infos: path -> how to decode it, as far as known; other files are inspected when they are first needed.
        keypoint_names: names of the P keypoints.
        class_maps: how masks become a class for each pixel, see `with_class_maps`.

    Raises:
        DataError: a label is not an index into `labels`.
    """

    labels: tuple[str, ...]
    splits: dict[str, list[Example]]
    multi_label: bool = False
    source: str = ""
    skipped: list[BadFile] = dataclasses.field(default_factory=list)
    infos: dict[str, ImageInfo] = dataclasses.field(default_factory=dict, repr=False)
    keypoint_names: tuple[str, ...] = ()
    class_maps: ClassMaps | None = None

    def __post_init__(self) -> None:
        self.labels = tuple(self.labels)
        for split, examples in self.splits.items():
            for index, example in enumerate(examples):
                key = "labels" if self.multi_label else "label"
                if key not in example and "boxes" in example:
                    key, found = "classes", example["classes"]
                elif key not in example and "segmentation" in example:
                    continue
                else:
                    found = example.get(key) if self.multi_label else [example.get(key)]
                if found is None or any(label not in range(len(self.labels)) for label in found):
                    name = example["image"] if isinstance(example["image"], str) else f"example {index}"
                    raise DataError(
                        f"{name} of the {split} split has the {key} {found}; expected {key} in "
                        f"0..{len(self.labels) - 1}."
                    )

    def with_class_maps(self, maps: ClassMaps | None = None) -> "Data":
        """The same images for segmentation: objects become classes of pixels, with a class that keeps them apart.

        Maps are made after augmentation, so that borders have their width whatever an image was scaled by. Objects of
        sets without masks are the connected pixels of each class but the first.

        Args:
            maps: how; `ClassMaps()` when None.

        Returns:
            A set with the labels "background", those of the objects, and "border". `batches` gives "segmentation",
            "instances" int32 [B, H, W] (the number of the object, 0 where there is none) and, with `maps.weights`,
            "pixel_weights" float32 [B, H, W].

        Raises:
            DataError: there are neither masks nor segmentations, or class maps already.
        """
        first = next((example for examples in self.splits.values() for example in examples), {})
        if self.class_maps is not None or not {"masks", "segmentation"} & set(first):
            has = "class maps already" if self.class_maps else f"no masks, only {', '.join(first) or 'nothing'}"
            raise DataError(f"Expected a set with masks of objects, but {self.source or 'the data'} has {has}.")
        labels, splits = self.labels, self.splits
        if "masks" in first:
            labels = (BACKGROUND, *labels)
            splits = {
                split: [{**example, "classes": np.asarray(example["classes"]) + 1} for example in examples]
                for split, examples in splits.items()
            }
        maps = maps or ClassMaps()
        labels = (*labels, BORDER) if maps.border else labels
        return dataclasses.replace(self, labels=labels, splits=splits, class_maps=maps)

    def targets(self, split: str, limit: int | None = None) -> dict[str, np.ndarray]:
        """The labels of a split, in the order `batches` yields them unshuffled.

        Args:
            split: "train", "validation" or "test".
            limit: as in `batches`.

        Returns:
            {"label": int32 [N]} or {"labels": float32 [N, K] of zeros and ones}; {} for sets that label objects or
            pixels, whose targets depend on how the image is fitted: take them from `batches`.
        """
        return self._targets(self._examples(split, limit))

    def pixel_counts(self, split: str, image_size: tuple[int, int]) -> np.ndarray:
        """How many pixels of each class each image has, stretched to a size, in the order of `targets`.

        Args:
            split: "train", "validation" or "test".
            image_size: (H, W).

        Returns:
            int64 [N, K], without void.

        Raises:
            DataError: there is no such split, or a mask cannot be used.
        """
        examples, count = self._examples(split, None), len(self.labels)
        loader = Loader(examples, self.infos, count, channels=1)
        arrays = Targets(examples[0], image_size, count, max_objects=1, class_maps=self.class_maps)
        # Its masks follow an image, and none has to be read for that.
        blank = np.zeros((*image_size, 1), np.uint8)

        def counted(index: int) -> np.ndarray:
            classes = arrays(loader.fitted(index, blank, Preprocessing()))["segmentation"]
            return np.bincount(classes.ravel(), minlength=count)[:count]

        with ThreadPoolExecutor(max_workers=os.cpu_count()) as pool:
            return np.stack(list(track(pool.map(counted, range(len(examples))), "Counting pixels", len(examples))))

    def batches(
        self,
        split: str,
        *,
        image_size: tuple[int, int],
        channels: int = 3,
        preprocessing: Preprocessing | None = None,
        batch_size: int = 32,
        augment: Sequence[Augmentation] | None = None,
        shuffle: bool = False,
        sampling: Rule | None = None,
        seed: int = 0,
        cache: bool = True,
        limit: int | None = None,
        max_objects: int | None = None,
        mask_stride: int | None = 1,
    ) -> tf.data.Dataset:
        """Input pipeline of one split.

        Images are fitted into `image_size` and then augmented; a first transform that chooses its own size, such as
        "resized_crop", gets them as they are. With `cache`, images are decoded once where they take no more than
        2 GiB; larger sets are decoded anew in every epoch. Shuffling moves indices, never images. Order and
        augmentation differ from epoch to epoch, and are the same for the same seed in another run.

        Targets of objects are padded: "boxes" float32 [B, M, 4] xyxy in pixels, "classes" int32 [B, M], "crowd",
        "valid" bool [B, M], "masks" uint8 [B, M, H, W], "keypoints" float32 [B, M, P, 3]. "segmentation" is uint8
        [B, H, W].

        Args:
            split: "train", "validation" or "test".
            image_size: (H, W).
            channels: 3 for RGB, 1 for grey.
            preprocessing: how images are fitted into `image_size`; stretched where None.
            batch_size: images in a batch; the last one may be smaller.
            augment: transforms, their names, or {"name": ..., parameters}, applied in this order.
            shuffle: whether to shuffle.
            sampling: how often images of each class come in an epoch, see `kerasvision.data.balance.sampler`; shuffled.
            seed: of shuffling, sampling and augmentation.
            cache: whether decoded images may be kept in memory.
            limit: at most so many images, evenly spread over the split.
            max_objects: M; when None, the most that an example of the split has, or the transforms put together.
            mask_stride: masks have one pixel for so many of the image's, each way; None leaves masks out.

        Returns:
            Dataset of (images float32 [B, H, W, C] of 0..255, targets): {"label": int32 [B]}, {"labels": float32
            [B, K]}, or the above; single labels of mixed images have "label_weights" float32 [B, K] beside them.

        Raises:
            DataError: there is no such split, or a file cannot be used.
        """
        examples = self._examples(split, limit)
        transforms = bind(build(augment or ()), image_size, len(self.labels), self.keypoint_names)
        fitting = preprocessing or Preprocessing()
        shape = (*image_size, channels)
        own_size = bool(transforms) and getattr(transforms[0], "takes_own_size", False)
        # Tensors a pipeline captures belong in host memory, on a machine with an accelerator too.
        with tf.device("CPU"):
            sources = [example["image"] for example in examples]
            indices = epochs(len(examples), shuffle, seed, self._sampler(examples, sampling, seed))
            read = reader(sources, self.infos, image_size, channels, fitting)
            images = None if own_size else already_fitted(sources, shape, fitting)
            if images is None and not own_size and cache and len(examples) * math.prod(shape) <= CACHE_BYTES:
                images = decode_all(read, len(examples), shape)
            labels = self._targets(examples)
            if transforms or not labels:
                loader = Loader(examples, self.infos, len(self.labels), channels)
                if cache:
                    loader.keep(CACHE_BYTES, images=own_size)
                soft = any(getattr(transform, "mixes", False) for transform in transforms)
                count = most_objects(examples, transforms) if max_objects is None else max_objects
                arrays = Targets(examples[0], image_size, len(self.labels), count, soft, mask_stride, self.class_maps)
                augmenter = Augmenter(loader, transforms, arrays, image_size, fitting, images, read)
                batches = augmenter.batches(indices, batch_size, seed)
            else:
                batches = _gathered(indices, batch_size, images, read, labels)

        def finish(image: tf.Tensor, targets: dict[str, tf.Tensor]) -> tuple[tf.Tensor, dict[str, tf.Tensor]]:
            return tf.cast(image, tf.float32), targets

        return batches.map(finish, num_parallel_calls=tf.data.AUTOTUNE).prefetch(tf.data.AUTOTUNE)

    def _sampler(self, examples: Sequence[Example], rule: Rule | None, seed: int) -> Any:
        if rule is None:
            return None
        labels = self._targets(examples)
        if not labels:
            raise DataError(f"sampling={rule!r} goes by the label of an image, and {self.source} has none.")
        wanted = next(iter(labels.values()))
        return lambda epoch: sampler(wanted, rule, seed=seed, epoch=epoch)

    def _examples(self, split: str, limit: int | None) -> list[Example]:
        if split not in self.splits:
            raise DataError(
                f"{self.source or 'The data'} has no {split} split.{closest(split, self.splits)} "
                "Set validation_fraction or test_fraction to take one out of the training images."
            )
        examples = self.splits[split]
        if not examples:
            raise DataError(f"The {split} split of {self.source or 'the data'} is empty.")
        return [examples[index] for index in spread(len(examples), limit)]

    def _targets(self, examples: Sequence[Example]) -> dict[str, np.ndarray]:
        if self.multi_label:
            targets = np.zeros((len(examples), len(self.labels)), np.float32)
            for row, example in zip(targets, examples, strict=True):
                row[list(example["labels"])] = 1.0
            return {"labels": targets}
        if "label" not in examples[0] or "boxes" in examples[0] or "segmentation" in examples[0]:
            return {}
        return {"label": np.array([example["label"] for example in examples], np.int32)}


def _gathered(
    indices: tf.data.Dataset, batch_size: int, images: np.ndarray | None, read: Any, targets: dict[str, np.ndarray]
) -> tf.data.Dataset:
    """Batches of images as they are, in TensorFlow alone."""
    labels = {name: tf.constant(values) for name, values in targets.items()}
    if images is not None:
        # One gather for a whole batch: a call for every image would cost more than a small image.
        kept = tf.constant(images)
        batches = indices.batch(batch_size).map(lambda index: (index, tf.gather(kept, index)))
    else:
        loaded = indices.map(lambda index: (index, read(index)), num_parallel_calls=tf.data.AUTOTUNE)
        batches = loaded.batch(batch_size)
    return batches.map(
        lambda index, image: (image, {name: tf.gather(values, index) for name, values in labels.items()})
    )
