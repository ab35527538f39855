"""`Data`, a verified set of labelled images, and the tf.data pipeline that feeds it to a net."""

import dataclasses
import math
from collections.abc import Sequence
from typing import Any

import numpy as np
import tensorflow as tf

from kerasvision.augment import Augmentation, build
from kerasvision.data.inspect import BadFile, ImageInfo
from kerasvision.data.listing import spread
from kerasvision.data.pipeline import already_fitted, augmented, decode_all, reader
from kerasvision.errors import DataError, closest
from kerasvision.preprocessing import Preprocessing

CACHE_BYTES = 2 << 30

Example = dict[str, Any]


@dataclasses.dataclass
class Data:
    """A labelled set of images, split, and known to be readable.

    Args:
        labels: class names in the order of their indices.
        splits: "train", "validation", "test" -> examples: {"image": path or pixels 0..255 [H, W] or [H, W, C],
            "label": class index} or, in a multi-label set, {"image": ..., "labels": [class indices]}.
        multi_label: an image may carry any number of labels.
        source: where the set came from.
        skipped: files that were left out because they cannot be used.
        infos: path -> how to decode it, as far as known; other files are inspected when they are first needed.

    Raises:
        DataError: a label is not an index into `labels`.
    """

    labels: tuple[str, ...]
    splits: dict[str, list[Example]]
    multi_label: bool = False
    source: str = ""
    skipped: list[BadFile] = dataclasses.field(default_factory=list)
    infos: dict[str, ImageInfo] = dataclasses.field(default_factory=dict, repr=False)

    def __post_init__(self) -> None:
        self.labels = tuple(self.labels)
        for split, examples in self.splits.items():
            for index, example in enumerate(examples):
                found = example.get("labels") if self.multi_label else [example.get("label")]
                if found is None or any(label not in range(len(self.labels)) for label in found):
                    name = example["image"] if isinstance(example["image"], str) else f"example {index}"
                    raise DataError(
                        f"{name} of the {split} split has the label {found}; expected "
                        f"{'labels' if self.multi_label else 'label'} in 0..{len(self.labels) - 1}."
                    )

    def targets(self, split: str, limit: int | None = None) -> dict[str, np.ndarray]:
        """The targets of a split, in the order `batches` yields them unshuffled.

        Args:
            split: "train", "validation" or "test".
            limit: as in `batches`.

        Returns:
            {"label": int32 [N]} or {"labels": float32 [N, K]} of zeros and ones.
        """
        return self._targets(self._examples(split, limit))

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
        seed: int = 0,
        cache: bool = True,
        limit: int | None = None,
    ) -> tf.data.Dataset:
        """Input pipeline of one split.

        With `cache`, images are decoded and fitted once, up front, where the result takes no more than 2 GiB;
        larger sets are decoded anew in every epoch. Shuffling moves indices, never images. Order and augmentation
        differ from epoch to epoch, and are the same for the same seed in another run.

        Args:
            split: "train", "validation" or "test".
            image_size: (H, W).
            channels: 3 for RGB, 1 for grey.
            preprocessing: how images are fitted into `image_size`; stretched where None.
            batch_size: images in a batch; the last one may be smaller.
            augment: transforms, their names, or {"name": ..., parameters}, applied in this order.
            shuffle: whether to shuffle.
            seed: of shuffling and augmentation.
            cache: whether decoded images may be kept in memory.
            limit: at most so many images, evenly spread over the split.

        Returns:
            Dataset of (images float32 [B, H, W, C] of 0..255, {"label": int32 [B]} or {"labels": float32 [B, K]}).

        Raises:
            DataError: there is no such split, or a file cannot be used.
        """
        examples = self._examples(split, limit)
        transforms = build(augment or ())
        fitting = preprocessing or Preprocessing()
        shape = (*image_size, channels)
        # Tensors a pipeline captures belong in host memory, on a machine with an accelerator too.
        with tf.device("CPU"):
            sources = [example["image"] for example in examples]
            targets = {name: tf.constant(values) for name, values in self._targets(examples).items()}
            indices = tf.data.Dataset.range(len(examples))
            if shuffle:
                indices = indices.shuffle(len(examples), seed=seed, reshuffle_each_iteration=True)
            images = already_fitted(sources, shape, fitting)
            if images is None:
                read = reader(sources, self.infos, image_size, channels, fitting)
                if cache and len(examples) * math.prod(shape) <= CACHE_BYTES:
                    images = decode_all(read, len(examples), shape)
            if images is not None:
                # One gather for a whole batch: a call for every image would cost more than a small image.
                batches = indices.batch(batch_size).map(lambda index: (index, tf.gather(images, index)))
            else:
                loaded = indices.map(lambda index: (index, read(index)), num_parallel_calls=tf.data.AUTOTUNE)
                batches = loaded.batch(batch_size)

        def finish(batch: tuple[tf.Tensor, tf.Tensor], salt: tf.Tensor) -> tuple[tf.Tensor, dict[str, tf.Tensor]]:
            index, image = batch
            example = {"image": tf.cast(image, tf.float32)}
            example |= {name: tf.gather(values, index) for name, values in targets.items()}
            example = augmented(example, transforms, salt)
            return example.pop("image"), example

        salts = tf.data.Dataset.random(seed=seed, rerandomize_each_iteration=True)
        finished = tf.data.Dataset.zip(batches, salts).map(finish, num_parallel_calls=tf.data.AUTOTUNE)
        return finished.prefetch(tf.data.AUTOTUNE)

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

    def _targets(self, examples: list[Example]) -> dict[str, np.ndarray]:
        if not self.multi_label:
            return {"label": np.array([example["label"] for example in examples], np.int32)}
        targets = np.zeros((len(examples), len(self.labels)), np.float32)
        for row, example in zip(targets, examples, strict=True):
            row[list(example["labels"])] = 1.0
        return {"labels": targets}
