"""Selective search: boxes around segments that were merged step by step (Uijlings et al., 2013, IJCV 104).

It needs no training: it gives R-CNN and Fast R-CNN the places where an object may be.
"""

import hashlib
import os
import sys
import threading
from collections.abc import Mapping, Sequence
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import Any, Literal, cast, get_args

import cv2
import keras
import numpy as np
from keras import layers

from kerasvision.boxes.overlap import pairwise_iou
from kerasvision.files import replacing

Mode = Literal["fast", "quality"]
MODES: tuple[Mode, ...] = get_args(Mode)
# Images whose boxes a layer keeps.
_KEPT = 4096


def selective_search(
    image: np.ndarray,
    *,
    mode: Mode = "fast",
    side: int = 320,
    most: int = 2000,
    least_side: float = 8.0,
    overlap: float = 0.8,
) -> np.ndarray:
    """Boxes that may hold an object, the same for the same pixels.

    OpenCV gives them in a random order; here they stand by falling area, without those that are nearly the same. Where
    there are more than `most`, those that are left are spread evenly over that order, so that all sizes remain.

    Args:
        image: pixels 0..255, uint8 [H, W, 1] or [H, W, 3] RGB.
        mode: "fast" merges in two color spaces, "quality" in more, which finds twice as many boxes in 3.5 times the
            time.
        side: the longer side, in pixels, that larger images are searched at; the time grows with its square and more.
        most: boxes, N.
        least_side: boxes with a shorter side, in pixels of the image, are left out.
        overlap: boxes that overlap a larger one more, as IoU, are left out; at 0.8 half as many boxes find nearly as
            many objects. 1 leaves all of them in.

    Returns:
        xyxy float32 [<= N, 4] in pixels of the image.

    Raises:
        ValueError: settings that cannot be, or another kind of array.
    """
    check_search(mode, side, most, least_side, overlap)
    if image.dtype != np.uint8 or image.ndim != 3 or image.shape[2] not in (1, 3) or 0 in image.shape:
        raise ValueError(
            f"Expected pixels uint8 [H, W, 1] or [H, W, 3], got {image.dtype} {list(image.shape)}. "
            "Read files with kerasvision.data.decode.read_image."
        )
    height, width = image.shape[:2]
    scale = min(1.0, side / max(height, width))
    size = max(1, round(width * scale)), max(1, round(height * scale))
    pixels = cv2.resize(image, size, interpolation=cv2.INTER_AREA) if scale < 1 else image
    pixels = cv2.cvtColor(pixels, cv2.COLOR_GRAY2BGR if image.shape[2] == 1 else cv2.COLOR_RGB2BGR)
    search = cv2.ximgproc.segmentation.createSelectiveSearchSegmentation()
    search.setBaseImage(pixels)
    search.switchToSelectiveSearchFast() if mode == "fast" else search.switchToSelectiveSearchQuality()
    found = np.unique(np.reshape(search.process(), (-1, 4)), axis=0).astype(np.float64)
    boxes = np.concatenate([found[:, :2], found[:, :2] + found[:, 2:]], axis=1)
    boxes *= np.tile([width / size[0], height / size[1]], 2)
    sides = boxes[:, 2:] - boxes[:, :2]
    boxes, sides = (values[sides.min(axis=1) >= least_side] for values in (boxes, sides))
    # `unique` has sorted them: equal areas have an order too.
    boxes = boxes[np.argsort(-sides.prod(axis=1), kind="stable")]
    return thin_out(_different(boxes, overlap).astype(np.float32), most)


def _different(boxes: np.ndarray, overlap: float) -> np.ndarray:
    """Those of the boxes [N, 4] that overlap no earlier one of them more."""
    near = pairwise_iou(boxes, boxes) > overlap
    left = np.ones(len(boxes), bool)
    for index in range(len(boxes)):
        if left[index]:
            left[index + 1 :] &= ~near[index, index + 1 :]
    return boxes[left]


def thin_out(boxes: np.ndarray, most: int) -> np.ndarray:
    """At most so many of the boxes [N, 4], evenly spread over their order."""
    if len(boxes) <= most:
        return boxes
    return boxes[np.linspace(0, len(boxes) - 1, most).round().astype(int)]


def check_search(mode: str, side: int, most: int, least_side: float, overlap: float) -> None:
    """Raises a ValueError where these settings of `selective_search` cannot be."""
    if mode not in MODES:
        raise ValueError(f'mode must be "fast" or "quality", got {mode!r}.')
    for name, value in (("side", side), ("most", most)):
        if value < 1:
            raise ValueError(f"{name} must be at least 1, got {value}.")
    if not least_side >= 0:
        raise ValueError(f"least_side must be 0 or more pixels, got {least_side}.")
    if not 0 < overlap <= 1:
        raise ValueError(f"overlap must lie above 0 and not above 1, got {overlap}. Take 0.8.")


class ProposalCache:
    """Boxes of images that were searched before, known by their pixels and by the settings.

    Args:
        path: `.npz` file that is read now, if it exists, and written by `save`; None for memory alone.
        most: images that are kept; the oldest go first.
    """

    def __init__(self, path: str | os.PathLike[str] | None = None, most: int | None = None) -> None:
        self.path = None if path is None else Path(path)
        self.most = most
        self._boxes: dict[str, np.ndarray] = {}
        self._lock = threading.Lock()
        if self.path is not None and self.path.exists():
            with np.load(self.path, allow_pickle=False) as stored:
                self._boxes = dict(stored)
        self._saved = len(self._boxes)

    def __len__(self) -> int:
        return len(self._boxes)

    def search(self, image: np.ndarray, *, most: int = 2000, **settings: Any) -> np.ndarray:
        """`selective_search` with these settings, or what it gave before; all boxes are kept, whatever `most` is."""
        key = hashlib.blake2b(np.ascontiguousarray(image).data, digest_size=16)
        key.update(repr((image.shape, sorted(settings.items()))).encode())
        name = key.hexdigest()
        if (known := self._boxes.get(name)) is not None:
            return thin_out(known, most)
        found = selective_search(image, most=sys.maxsize, **settings)
        with self._lock:
            self._boxes[name] = found
            if self.most is not None and len(self._boxes) > self.most:
                self._boxes.pop(next(iter(self._boxes)))
        return thin_out(found, most)

    def save(self) -> None:
        """Write the file, where there is one and something is new."""
        if self.path is not None and len(self._boxes) > self._saved:
            with replacing(self.path) as temporary, temporary.open("wb") as file:
                cast(Any, np.savez)(file, **self._boxes)
            self._saved = len(self._boxes)


def find_proposals(
    images: Sequence[str | np.ndarray],
    *,
    cache: str | os.PathLike[str] | None = None,
    threads: int | None = None,
    progress: str | None = None,
    **settings: Any,
) -> list[np.ndarray]:
    """Selective search in many images, several at a time.

    Args:
        images: paths, or pixels 0..255 [H, W] or [H, W, C].
        cache: `.npz` file with what was found before; it is written at the end. An image counts as the same where its
            pixels are.
        threads: images that are searched at a time; one for each core when None.
        progress: what is being done, shown on stderr; nothing when None.
        **settings: of `selective_search`.

    Returns:
        For each image xyxy float32 [N, 4] in its own pixels.

    Raises:
        ValueError: settings that cannot be.
        DataError: a file cannot be used.
    """
    from kerasvision.data.decode import read_image
    from kerasvision.progress import track

    kept = ProposalCache(cache)
    with ThreadPoolExecutor(threads or os.cpu_count()) as pool:
        found = pool.map(lambda image: kept.search(read_image(image), **settings), images)
        boxes = list(found if progress is None else track(found, progress, len(images)))
    kept.save()
    return boxes


def proposal_recall(
    boxes: Sequence[np.ndarray],
    proposals: Sequence[np.ndarray],
    *,
    counts: Sequence[int] = (100, 300, 1000),
    overlaps: Sequence[float] = (0.5, 0.7),
) -> dict[tuple[int, float], float]:
    """Share of the objects that a proposal overlaps enough; no detector on these proposals finds more.

    Args:
        boxes: of each image its objects, xyxy [M, 4] in pixels.
        proposals: of each image xyxy [N, 4].
        counts: numbers of proposals, to which each image's are thinned out.
        overlaps: least IoU.

    Returns:
        {(count, overlap): recall in 0..1}; NaN where there are no objects.
    """
    recall = {}
    for count in counts:
        best = [
            pairwise_iou(own.astype(np.float64), thin_out(found, count).astype(np.float64)).max(axis=1, initial=0.0)
            for own, found in zip(boxes, proposals, strict=True)
        ]
        together = np.concatenate([np.zeros(0), *best])
        for overlap in overlaps:
            recall[count, overlap] = float((together >= overlap).mean()) if len(together) else float("nan")
    return recall


@keras.saving.register_keras_serializable("kerasvision")
class SelectiveSearch(layers.Layer):
    """Proposals from outside of the graph: the search runs in Python, on the image's pixels.

    A net with it trains, predicts and is saved like any other, on TensorFlow and JAX, but no file format holds the
    search itself. What was found is kept for the images of before, so that an image costs its time once; augmented
    images are new ones, unless they are only flipped.

    Args:
        proposals: an image, N; boxes of zeros fill up where fewer are found.
        mode: of `selective_search`, like the others.
        side: longer side that is searched at.
        least_side: of a proposal.
        overlap: of two proposals.
        **kwargs: of `keras.layers.Layer`.

    Raises:
        ValueError: settings that cannot be.
    """

    # Why a net with it is no graph from pixels to outputs, see `TaskModel.check_graph`.
    outside = "selective search runs in Python"

    def __init__(
        self,
        proposals: int = 2000,
        mode: Mode = "fast",
        side: int = 320,
        least_side: float = 8.0,
        overlap: float = 0.8,
        **kwargs: Any,
    ) -> None:
        super().__init__(**kwargs)
        check_search(mode, side, proposals, least_side, overlap)
        self.autocast = False
        self.supports_jit = False
        self.proposals = proposals
        self.mode: Mode = mode
        self.side = side
        self.least_side = least_side
        self.overlap = overlap
        # A closure, because Keras would look for variables in it.
        cache = ProposalCache(most=_KEPT)
        self._cache = lambda: cache

    def compute_output_spec(self, image: Any) -> keras.KerasTensor:
        """[B, N, 4]."""
        return keras.KerasTensor((image.shape[0], self.proposals, 4), "float32")

    def call(self, image: Any) -> Any:
        """The proposals of each image.

        Args:
            image: [B, H, W, 1 or 3], pixels of 0..255.

        Returns:
            xyxy float32 [B, N, 4] in pixels, zeros behind the last one.
        """
        if keras.backend.backend() == "tensorflow":
            import tensorflow as tf

            found = tf.numpy_function(self.search, [tf.cast(image, tf.float32)], tf.float32)
            return tf.ensure_shape(found, (image.shape[0], self.proposals, 4))
        if keras.backend.backend() == "jax":
            import jax

            spec = jax.ShapeDtypeStruct((image.shape[0], self.proposals, 4), "float32")
            return jax.pure_callback(lambda pixels: self.search(np.asarray(pixels, np.float32)), spec, image)
        return keras.ops.convert_to_tensor(self.search(keras.ops.convert_to_numpy(image)))

    def search(self, images: np.ndarray) -> np.ndarray:
        """`call` on arrays."""
        pixels = np.clip(np.rint(np.nan_to_num(images)), 0, 255).astype(np.uint8)
        settings: Mapping[str, Any] = {
            "mode": self.mode,
            "side": self.side,
            "most": self.proposals,
            "least_side": self.least_side,
            "overlap": self.overlap,
        }
        padded = np.zeros((len(images), self.proposals, 4), np.float32)
        with ThreadPoolExecutor(os.cpu_count()) as pool:
            found = pool.map(lambda image: self._cache().search(image, **settings), pixels)
            for row, boxes in zip(padded, found, strict=True):
                row[: len(boxes)] = boxes
        return padded

    def get_config(self) -> dict[str, Any]:
        """The constructor's arguments."""
        names = ("proposals", "mode", "side", "least_side", "overlap")
        return {**super().get_config(), **{name: getattr(self, name) for name in names}}
