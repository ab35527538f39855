"""Masks of instances: packed as bits while they move with their image, and in COCO's encodings on disk."""

import dataclasses
import itertools
from collections.abc import Callable, Iterator, Sequence
from typing import Any

import cv2
import numpy as np

_BITS = 8


@dataclasses.dataclass(frozen=True)
class PackedMasks:
    """Masks of the instances of one image, one bit for each pixel and instance.

    Moving pixels without mixing them (nearest neighbour, flips, crops) moves the masks of eight instances at once.

    Args:
        planes: uint8 [H, W, ceil(count / 8)]; bit k of plane p belongs to instance 8 p + k.
        count: number of instances.
    """

    planes: np.ndarray
    count: int

    @classmethod
    def pack(cls, masks: np.ndarray) -> "PackedMasks":
        """From bool or 0/1 masks [N, H, W]."""
        return cls(np.ascontiguousarray(np.packbits(masks, axis=0, bitorder="little").transpose(1, 2, 0)), len(masks))

    @classmethod
    def decode(cls, segmentations: Sequence[Any], size: tuple[int, int]) -> "PackedMasks":
        """From COCO's "segmentation" fields; arguments as in `decode_masks`."""
        # Run lengths go down the columns, so planes are filled lying on their sides.
        sideways = stack_of_planes((size[1], size[0]), len(segmentations))
        for index, mask in enumerate(_decoded(segmentations, size)):
            if mask is not None:
                sideways[index // _BITS] |= mask.T << np.uint8(index % _BITS)
        return cls(np.ascontiguousarray(sideways.transpose(2, 1, 0)), len(segmentations))

    def unpack(self) -> np.ndarray:
        """uint8 [N, H, W] of zeros and ones."""
        return np.unpackbits(self.planes.transpose(2, 0, 1), axis=0, count=self.count, bitorder="little")

    def __len__(self) -> int:
        return self.count

    @property
    def size(self) -> tuple[int, int]:
        """(H, W)."""
        return self.planes.shape[:2]

    def move(self, change: Callable[[np.ndarray], np.ndarray]) -> "PackedMasks":
        """Masks whose planes [H, W, P] went through a function that moves pixels and fills with 0."""
        if not self.planes.shape[-1]:
            height, width = change(np.zeros((*self.size, 1), np.uint8)).shape[:2]
            return PackedMasks(np.zeros((height, width, 0), np.uint8), 0)
        moved = change(self.planes)
        return PackedMasks(moved[..., None] if moved.ndim == 2 else moved, self.count)

    def select(self, kept: np.ndarray) -> "PackedMasks":
        """Some of the instances.

        Args:
            kept: bool [N], or indices.
        """
        kept = np.asarray(kept)
        indices = np.flatnonzero(kept) if kept.dtype == bool else kept.astype(int)
        if len(indices) == self.count and (indices == np.arange(self.count)).all():
            return self
        if (np.diff(indices) <= 0).any():
            return PackedMasks.pack(self.unpack()[indices])
        selected = stack_of_planes(self.size, len(indices))
        copy_bits(selected, 0, self.stack(), np.isin(np.arange(self.count), indices))
        return PackedMasks.from_stack(selected, len(indices))

    def areas(self) -> np.ndarray:
        """Pixels of each mask, int64 [N]."""
        bits = ((plane, 1 << bit) for plane in self.stack() for bit in range(_BITS))
        counts = [cv2.countNonZero(plane & np.uint8(bit)) for plane, bit in itertools.islice(bits, self.count)]
        return np.array(counts, np.int64)

    def extents(self) -> np.ndarray:
        """Smallest boxes around the masks: float32 [N, 4] xyxy in pixels; zeros where a mask is empty."""
        boxes = np.zeros((self.count, 4), np.float32)
        for low, axis in ((0, 0), (1, 1)):
            # bool [N, W] for the columns, [N, H] for the rows: whether a mask has pixels there.
            used = np.unpackbits(_or_along(self.planes, axis).T, axis=0, count=self.count, bitorder="little").astype(
                bool
            )
            boxes[:, low] = used.argmax(axis=1)
            boxes[:, low + 2] = used.shape[1] - used[:, ::-1].argmax(axis=1)
            boxes[~used.any(axis=1)] = 0
        return boxes

    def union(self, kept: np.ndarray) -> np.ndarray:
        """Pixels of any of the instances that are kept, bool [N]: uint8 [H, W] of zeros and ones."""
        covered = np.zeros(self.size, np.uint8)
        for plane, chosen in zip(self.stack(), np.packbits(np.asarray(kept, bool), bitorder="little"), strict=True):
            covered |= plane & chosen
        return np.minimum(covered, 1)

    def without(self, hidden: np.ndarray) -> "PackedMasks":
        """The masks less the pixels that are hidden: [H, W], anything but 0 hides."""
        if not self.count:
            return self
        seen = (hidden == 0).view(np.uint8)
        planes = np.zeros_like(self.planes)
        cv2.copyTo(self.planes, seen, planes)
        return PackedMasks(planes, self.count)

    def stack(self) -> np.ndarray:
        """The planes one after the other, uint8 [P, H, W], for work on each of them."""
        moved = self.planes.transpose(2, 0, 1)
        if not moved.size:
            return moved
        return cv2.transpose(self.planes.reshape(-1, len(moved))).reshape(moved.shape)

    @classmethod
    def from_stack(cls, stack: np.ndarray, count: int) -> "PackedMasks":
        """From planes uint8 [P, H, W]; the other way of `stack`."""
        moved = stack.transpose(1, 2, 0)
        if moved.size:
            moved = cv2.transpose(stack.reshape(len(stack), -1)).reshape(moved.shape)
        return cls(moved, count)

    @classmethod
    def join(cls, first: "PackedMasks", second: "PackedMasks") -> "PackedMasks":
        """The masks of two sets on the same image, one after the other."""
        joined = stack_of_planes(first.size, first.count + second.count)
        copy_bits(joined, 0, first.stack(), np.ones(first.count, bool))
        copy_bits(joined, first.count, second.stack(), np.ones(second.count, bool))
        return cls.from_stack(joined, first.count + second.count)


# [256, 8]: the bits of every value of a byte, lowest first.
_VALUES_TO_BITS = np.unpackbits(np.arange(256, dtype=np.uint8)[:, None], axis=1, bitorder="little").astype(np.int64)


def stack_of_planes(size: tuple[int, int], count: int) -> np.ndarray:
    """Planes without any pixel, uint8 [P, H, W], for `copy_bits`: of images of size (H, W) with some instances."""
    return np.zeros((-(-count // _BITS), *size), np.uint8)


def copy_bits(target: np.ndarray, first: int, planes: np.ndarray, kept: np.ndarray) -> None:
    """Adds some instances' bits to planes, one after the other.

    Args:
        target: uint8 [P, H, W], changed in place; zero at the bits to come. It may be a part of a larger array.
        first: bit that the first instance gets.
        planes: uint8 [Q, H, W] of the instances to copy; bits beyond the last of them are zero.
        kept: bool [N], which of them.
    """
    for index, plane in enumerate(planes):
        bits = np.flatnonzero(kept[index * _BITS : (index + 1) * _BITS])
        if not len(bits):
            continue
        # The kept bits move together, then up to their place, which may reach into the next byte.
        place, shift = divmod(first, _BITS)
        table = _VALUES_TO_BITS[:, bits] @ (1 << np.arange(len(bits)) + shift)
        target[place] |= cv2.LUT(plane, (table & 255).astype(np.uint8))
        if shift + len(bits) > _BITS:
            target[place + 1] |= cv2.LUT(plane, (table >> _BITS).astype(np.uint8))
        first += len(bits)


def _or_along(planes: np.ndarray, axis: int) -> np.ndarray:
    """Bitwise or of planes [H, W, P] along an axis; by halves, as NumPy is slow where P alone is contiguous."""
    while planes.shape[axis] > 1:
        half = -(-planes.shape[axis] // 2)
        first, second = np.split(planes, [half], axis=axis)
        merged = first.copy()
        merged[(slice(None),) * axis + (slice(second.shape[axis]),)] |= second
        planes = merged
    return planes.squeeze(axis)


def paste_mask(plane: np.ndarray, mask: np.ndarray, box: np.ndarray, bit: int = 1) -> None:
    """Sets a bit of the pixels whose centres lie in a box and on the mask that is stretched over it.

    Args:
        plane: uint8 [H, W], changed in place.
        mask: float [h, w] in 0..1, sampled bilinearly; from 0.5 a pixel lies on it.
        box: [4] xyxy in pixels of the plane; one that is empty or not finite holds nothing.
        bit: such as 1 << 3.
    """
    left, top, right, bottom = box = np.asarray(box, float)
    if not (np.isfinite(box).all() and right > left and bottom > top):
        return
    # Pixels whose centres lie inside.
    x0, y0, x1, y1 = np.clip(np.ceil(box - 0.5), 0, (*plane.shape[::-1], *plane.shape[::-1])).astype(int)
    if x0 >= x1 or y0 >= y1:
        return
    scale_x, scale_y = mask.shape[1] / (right - left), mask.shape[0] / (bottom - top)
    matrix = np.array([[scale_x, 0, (x0 + 0.5 - left) * scale_x - 0.5], [0, scale_y, (y0 + 0.5 - top) * scale_y - 0.5]])
    stretched = cv2.warpAffine(
        np.ascontiguousarray(mask, np.float32),
        matrix,
        (int(x1 - x0), int(y1 - y0)),
        flags=cv2.INTER_LINEAR | cv2.WARP_INVERSE_MAP,
        borderMode=cv2.BORDER_REPLICATE,
    )
    plane[y0:y1, x0:x1] |= np.where(stretched >= 0.5, np.uint8(bit), np.uint8(0))


def mask_extents(masks: np.ndarray) -> np.ndarray:
    """Smallest boxes around masks [N, H, W]: float32 [N, 4] xyxy in pixels; zeros where a mask is empty."""
    boxes = np.zeros((len(masks), 4), np.float32)
    for box, mask in zip(boxes, masks, strict=True):
        rows, columns = np.flatnonzero(mask.any(axis=1)), np.flatnonzero(mask.any(axis=0))
        if len(rows):
            box[:] = columns[0], rows[0], columns[-1] + 1, rows[-1] + 1
    return boxes


def decode_masks(segmentations: Sequence[Any], size: tuple[int, int]) -> np.ndarray:
    """Masks of COCO's "segmentation" fields, as pycocotools makes them.

    Args:
        segmentations: for each instance a list of polygons [x0, y0, x1, y1, ...], or {"size": [H, W], "counts": ...}
            with run lengths as a list or compressed.
        size: (H, W) of the image.

    Returns:
        uint8 [N, H, W].
    """
    masks = np.zeros((len(segmentations), *size), np.uint8)
    for target, mask in zip(masks, _decoded(segmentations, size), strict=True):
        if mask is not None:
            target[:] = mask
    return masks


def _decoded(segmentations: Sequence[Any], size: tuple[int, int]) -> Iterator[np.ndarray | None]:
    """uint8 [H, W] of each instance, its columns contiguous; None where it has no outline."""
    from pycocotools import mask as coco

    for segmentation in segmentations:
        if isinstance(segmentation, dict):
            counts = segmentation["counts"]
            yield coco.decode(coco.frPyObjects(segmentation, *size) if isinstance(counts, list) else segmentation)
        else:
            yield coco.decode(coco.merge(coco.frPyObjects(list(segmentation), *size))) if segmentation else None


def encode_mask(mask: np.ndarray) -> dict[str, Any]:
    """COCO's compressed run lengths of a mask [H, W]: {"size": [H, W], "counts": text}."""
    from pycocotools import mask as coco

    encoded = coco.encode(np.asfortranarray(mask.astype(np.uint8)))
    return {"size": [int(side) for side in encoded["size"]], "counts": encoded["counts"].decode("ascii")}
