"""Prediction by tiles: images larger than a segmenter's input, in their own pixels, without resizing."""

import copy
import dataclasses
import functools
import itertools
import os
from collections.abc import Iterable, Iterator, Sequence
from typing import Any, Literal, get_args

import numpy as np
import tensorflow as tf

from kerasvision.augment.base import require
from kerasvision.class_maps import VOID
from kerasvision.data import Data
from kerasvision.data.decode import to_channels
from kerasvision.data.loading import Loader
from kerasvision.progress import track
from kerasvision.run_data import splits_of
from kerasvision.runtime import Arrays, Predictor, load
from kerasvision.segmentation import SegmentationTask

Blend = Literal["gaussian", "linear", "middle"]

# Tiles that are predicted together.
_BATCH = 4
# Tiles begin so many pixels apart, or a multiple of it, so that nets that pool see each pixel in the same place.
_GRID = 16
# Of the Gaussian, in sides of a tile, and the least weight, in the largest (nnU-Net, MONAI).
_SIGMA, _LEAST = 1 / 8, 1e-3


@dataclasses.dataclass(frozen=True, eq=False)
class Axis:
    """How tiles lie along one axis of an image.

    Args:
        places: pixel of the image at each place of the row of tiles; beyond its ends the image is mirrored.
        first: place of the image's first pixel.
        starts: place of the first pixel of each tile, ascending.
        weights: of each pixel of a tile, float32; 0 where the net says nothing.
    """

    places: np.ndarray
    first: int
    starts: tuple[int, ...]
    weights: np.ndarray


def lay_out(length: int, tile: int, inner: tuple[int, int], overlap: float, blend: Blend) -> Axis:
    """Tiles along an axis, of which every pixel of the image lies in the inner part of one at least.

    The last tile ends where the image does. An image that is shorter than a tile lies in its middle.

    Args:
        length: of the image, in pixels.
        tile: side of a tile.
        inner: first pixel of a tile about which the net says something, and the one behind the last.
        overlap: of the inner parts of neighbours, as a share of them; a little more where that begins tiles at
            multiples of 16 pixels.
        blend: how weights fall from the middle of the inner part.
    """
    begin, end = inner
    step = max(int((end - begin) * (1 - overlap)), 1)
    step -= step % _GRID if step > _GRID else 0
    missing = max(tile - (begin + length + tile - end), 0)
    before, after = begin + missing // 2, tile - end + missing - missing // 2
    last = before + length + after - tile
    away = np.abs(np.arange(begin, end) + 0.5 - (begin + end) / 2)
    weights = np.zeros(tile, np.float32)
    if blend == "gaussian":
        inside = np.exp(-0.5 * (away / (_SIGMA * (end - begin))) ** 2)
        weights[begin:end] = np.maximum(inside, _LEAST * inside.max())
    else:
        weights[begin:end] = (end - begin) / 2 - away
    places = np.pad(np.arange(length), (before, after), mode="reflect")
    return Axis(places, before, (*range(0, last, step), last), weights)


class _Blended:
    """A strip of tiles whose probabilities are added up.

    Args:
        weights: of a tile's pixels, [h, w].
        width: of the strip.
        classes: number of classes.
    """

    def __init__(self, weights: np.ndarray, width: int, classes: int) -> None:
        self._weights = weights[..., None]
        self._sums = np.zeros((len(weights), width, classes), np.float32)

    def add(self, left: int, outputs: Arrays) -> None:
        """Lays a tile's outputs [h, w] or [h, w, K] over the strip."""
        self._sums[:, left : left + self._weights.shape[1]] += self._weights * outputs["probabilities"]

    def take(self, count: int) -> np.ndarray:
        """Classes of the upper rows; the others move up."""
        done = self._sums[:count].argmax(axis=-1).astype(np.uint8)
        _move_up(self._sums, count)
        return done


class _Nearest:
    """A strip of tiles where each pixel has the class that the tile says whose weight is largest there."""

    def __init__(self, weights: np.ndarray, width: int) -> None:
        self._weights = weights
        self._best = np.zeros((len(weights), width), np.float32)
        self._classes = np.full(self._best.shape, VOID, np.uint8)

    def add(self, left: int, outputs: Arrays) -> None:
        """As `_Blended.add`."""
        part = slice(None), slice(left, left + self._weights.shape[1])
        better = self._weights > self._best[part]
        np.copyto(self._best[part], self._weights, where=better)
        np.copyto(self._classes[part], np.rint(outputs["classes"]).astype(np.uint8), where=better)

    def take(self, count: int) -> np.ndarray:
        """As `_Blended.take`."""
        done = self._classes[:count].copy()
        _move_up(self._best, count)
        _move_up(self._classes, count)
        return done


def _move_up(rows: np.ndarray, count: int) -> None:
    """Moves rows up in place, and puts zeros below; row by row, because NumPy would copy all of them first."""
    for row in range(len(rows)):
        rows[row] = rows[row + count] if row + count < len(rows) else 0


class TiledPredictor(Predictor):
    """A segmenter that predicts images of any size in tiles of its own input size.

    Made by `kerasvision.with_tiles`.

    Args:
        predictor: what predicts each tile.
        overlap: see `lay_out`.
        blend: see `with_tiles`.

    Raises:
        RecipeError: no segmenter, an overlap outside [0, 1), or no such way to blend.
    """

    batch = 1
    resizes = False

    def __init__(self, predictor: Predictor, overlap: float, blend: Blend) -> None:
        segments = isinstance(predictor.task, SegmentationTask) and not isinstance(predictor, TiledPredictor)
        kind = "one in tiles already" if isinstance(predictor, TiledPredictor) else predictor.kind
        require(segments, "a segmenter", f"{kind} ({predictor.path})")
        require(0 <= overlap < 1, "an overlap of tiles from 0 and below 1", overlap)
        require(blend in get_args(Blend), f"a blend of {', '.join(get_args(Blend))}", repr(blend))
        self._net = copy.copy(predictor)
        if blend != "middle":
            self._net.engine = predictor.engine.with_probabilities()
        vars(self).update(vars(self._net))
        self.overlap = overlap
        self.blend = blend

    def run(self, images: np.ndarray) -> Arrays:
        """Class maps of images of one size, whichever it is.

        Args:
            images: [N, H, W, C], uint8 or float 0..255.

        Returns:
            {"classes": uint8 [N, H, W]}.

        Raises:
            ValueError: images of another shape.
        """
        images = np.asarray(images)
        if images.ndim != 4 or images.shape[-1] != self.channels or 0 in images.shape[1:]:
            raise ValueError(
                f"{self.path} takes images of shape [N, any, any, {self.channels}], got {list(images.shape)}."
            )
        maps = [self._segment(image) for image in images]
        return {"classes": np.stack(maps) if maps else np.zeros(images.shape[:3], np.uint8)}

    def _segment(self, image: np.ndarray) -> np.ndarray:
        """Class map of an image, row of tiles by row of tiles."""
        blended = self.blend != "middle" and "probabilities" in self.engine.outputs
        rows, columns = (
            lay_out(length, tile, inner, self.overlap, self.blend if blended else "middle")
            for length, tile, inner in zip(image.shape[:2], self.image_size, self._inner, strict=True)
        )
        weights = rows.weights[:, None] * columns.weights
        width = len(columns.places)
        strip: _Blended | _Nearest = _Nearest(weights, width)
        if blended:
            strip = _Blended(weights, width, len(self.labels))
        result = np.empty((len(rows.places), width), np.uint8)
        for top, below in itertools.pairwise((*rows.starts, len(rows.places))):
            for left, outputs in self._row(image, rows.places[top : top + len(weights)], columns):
                strip.add(left, outputs)
            # No tile of the rows to come reaches what lies above them.
            result[top:below] = strip.take(below - top)
        height, width = image.shape[:2]
        return np.ascontiguousarray(result[rows.first : rows.first + height, columns.first : columns.first + width])

    def _row(self, image: np.ndarray, places: np.ndarray, columns: Axis) -> Iterator[tuple[int, Arrays]]:
        """(first column, outputs) of each tile of a row of them."""
        for begin in range(0, len(columns.starts), _BATCH):
            starts = columns.starts[begin : begin + _BATCH]
            tiles = [image[np.ix_(places, columns.places[left : left + self.image_size[1]])] for left in starts]
            outputs = self._net.run(np.stack(tiles))
            for index, left in enumerate(starts):
                yield left, {name: values[index] for name, values in outputs.items()}

    @functools.cached_property
    def _inner(self) -> tuple[tuple[int, int], tuple[int, int]]:
        """First row about which the net says something and the one behind the last, and the columns."""
        blank = np.zeros((1, *self.image_size, self.channels), np.uint8)
        known = np.rint(self._net.run(blank)["classes"][0]) != VOID
        spans = [np.flatnonzero(known.any(axis=axis)) for axis in (1, 0)]
        return (int(spans[0][0]), int(spans[0][-1]) + 1), (int(spans[1][0]), int(spans[1][-1]) + 1)

    def _fit(self, pixels: np.ndarray) -> np.ndarray:
        if pixels.shape[-1] == self.channels:
            return pixels
        with tf.device("CPU"):
            return to_channels(tf.constant(pixels), self.channels).numpy()

    def _read(self, pixels: np.ndarray, sizes: Sequence[tuple[int, int]]) -> list[Any]:
        return list(self.run(pixels)["classes"])

    def _batches(self, data: Data, split: str) -> Iterable[tuple[Any, Any]]:
        """Images one by one, at their own sizes."""
        chosen = splits_of(data, split)
        batches = (batch for name in chosen for batch in self._examples(data, name))
        return track(batches, f"Evaluating {self.path.name}", sum(len(data.splits[name]) for name in chosen))

    def _examples(self, data: Data, split: str) -> Iterator[tuple[np.ndarray, Arrays]]:
        loader = Loader(data.splits[split], data.infos, len(data.labels), self.channels)
        for index in range(len(loader.examples)):
            example = loader(index)
            maps = data.class_maps(example, len(data.labels)) if data.class_maps else example
            names = ("segmentation", "instances")
            yield example["image"][None], {name: maps[name][None] for name in names if name in maps}


def with_tiles(
    artifact: str | os.PathLike[str] | Predictor, overlap: float = 0.5, blend: Blend = "gaussian"
) -> TiledPredictor:
    """Sliding-window prediction: a segmenter that takes images of any size, in their own pixels.

    It predicts and evaluates as any other. Tiles have the size of the net's input; smaller images are mirrored beyond
    their edges. Nothing is resized, so the model should have learnt from pixels of that scale, such as crops.
    Probabilities are held for one row of tiles, classes for the whole image.

    Blending (Isensee et al., 2021, nnU-Net) needs the probabilities of the classes. Run folders and `.keras` files give
    them; other files where their task has `probabilities=True`. For those that give classes alone, each pixel has
    the class that the tile says whose middle is nearest, whatever `blend` is. Margins that a net says nothing about, as
    `unet_valid` does, count nowhere.

    Args:
        artifact: anything `kerasvision.load` takes, or a loaded Predictor, such as one of `with_tta`.
        overlap: share of a tile that its neighbour covers too, from 0 and below 1.
        blend: "gaussian" or "linear" weights, highest in the middle of a tile; or "middle", the class of the
            tile whose middle is nearest. The last gives the classes of the net run over the whole image where tiles
            overlap by its receptive field or more.

    Raises:
        RecipeError: no segmenter, an overlap outside [0, 1), or no such way to blend.
        ArtifactError: the artifact cannot be used.
    """
    return TiledPredictor(artifact if isinstance(artifact, Predictor) else load(artifact), overlap, blend)
