"""What lies in an image and what was found in it: the padding taken off, masks as run lengths."""

import dataclasses
from collections.abc import Iterator, Mapping, Sequence
from typing import Any, Literal

import numpy as np
from pycocotools import mask as coco

from kerasvision.masks import paste_mask

Kind = Literal["boxes", "masks"]


@dataclasses.dataclass(frozen=True, slots=True)
class Regions:
    """Boxes or masks of one image.

    Args:
        values: float64 [N, 4], left, top, width and height in pixels; or N masks in COCO's compressed run lengths.
        areas: float64 [N], pixels.
    """

    values: Any
    areas: np.ndarray

    def __len__(self) -> int:
        return len(self.areas)

    @classmethod
    def of_boxes(cls, boxes: np.ndarray) -> "Regions":
        """From boxes [N, 4] xyxy; those whose corners are the wrong way round are empty."""
        values = boxes.astype(np.float64)
        values[:, 2:] = np.maximum(values[:, 2:] - values[:, :2], 0)
        return cls(values, values[:, 2:].prod(axis=1))

    @classmethod
    def of_masks(cls, masks: np.ndarray) -> "Regions":
        """From masks [N, H, W]; a pixel belongs to a mask where its value is at least 0.5."""
        if not len(masks):
            return cls([], np.zeros(0))
        # Run lengths go down the columns.
        columns = np.asfortranarray(np.moveaxis(masks >= 0.5, 0, -1).astype(np.uint8))
        encoded = coco.encode(columns)
        # One by one: of more than 255 together pycocotools does not know the areas.
        return cls(encoded, np.array([coco.area(each) for each in encoded], np.float64))

    def overlaps(self, objects: "Regions", crowd: np.ndarray) -> np.ndarray:
        """Intersection over union with every object; with a crowd, the share of the region that lies in it.

        Args:
            objects: N of them.
            crowd: bool [N].

        Returns:
            float64 [len(self), N] in 0..1.
        """
        if not len(self) or not len(objects):
            return np.zeros((len(self), len(objects)))
        return coco.iou(self.values, objects.values, crowd.astype(np.uint8))


@dataclasses.dataclass(frozen=True, slots=True)
class ImageResult:
    """One image, with N objects in it and D found ones.

    Args:
        objects: N regions.
        classes: int64 [N].
        crowd: bool [N], regions of many objects: whatever is found in them counts neither as right nor as wrong.
        difficult: bool [N], objects that need not be found (Pascal VOC).
        found: D regions.
        found_classes: int64 [D].
        scores: float64 [D].
    """

    objects: Regions
    classes: np.ndarray
    crowd: np.ndarray
    difficult: np.ndarray
    found: Regions
    found_classes: np.ndarray
    scores: np.ndarray

    @property
    def ignored(self) -> np.ndarray:
        """Which objects need not be found, bool [N]."""
        return self.crowd | self.difficult


def unpad(
    targets: Mapping[str, Any],
    predictions: Mapping[str, Any],
    *,
    kind: Kind,
    classes: int,
    image_size: Sequence[int] | None = None,
) -> Iterator[ImageResult]:
    """The images of one batch.

    Objects whose box is not finite are left out. Found boxes that are not finite lie nowhere, and scores that are not
    finite become 0: they count as wrong, after all others.

    Args:
        targets: "boxes" [B, M, 4] xyxy in pixels, "classes" [B, M], "valid" [B, M]; as far as there are any, "crowd"
            and "difficult" [B, M]; "masks" [B, M, H, W] for kind "masks".
        predictions: "boxes" [B, D, 4], "scores" and "classes" [B, D], "count" [B]; "masks" [B, D, H, W] for kind
            "masks", yes or no or 0..1, or "box_masks" [B, D, h, w], 0..1, each stretched over its box.
        kind: what is compared.
        classes: number of classes.
        image_size: (H, W) in pixels where the found boxes are shares of it, None where they are pixels.

    Raises:
        ValueError: a tensor is missing or of another shape, or a class is not one of `classes`.
    """
    wanted = () if kind == "boxes" else ("masks",)
    given = ("box_masks",) if wanted and "box_masks" in predictions and "masks" not in predictions else wanted
    true = _arrays(targets, "targets", ("boxes", "classes", "valid", *wanted), kind)
    found = _arrays(predictions, "predictions", ("boxes", "scores", "classes", "count", *given), kind)
    _check_shapes(true, found, kind)
    nothing = np.zeros(true["valid"].shape, bool)
    crowd, difficult = (np.asarray(targets.get(key, nothing), bool) for key in ("crowd", "difficult"))
    valid = true["valid"].astype(bool) & np.isfinite(true["boxes"]).all(axis=-1)
    there = np.arange(found["scores"].shape[1]) < found["count"].reshape(-1, 1)
    for name, each, kept in (("targets", true, valid), ("predictions", found, there)):
        _check_classes(each["classes"][kept], name, classes)
    boxes = np.where(np.isfinite(found["boxes"]).all(axis=-1, keepdims=True), found["boxes"], 0)
    if image_size is not None:
        boxes = boxes * np.tile(np.asarray(image_size, np.float32)[::-1], 2)
    scores = np.where(np.isfinite(found["scores"]), found["scores"], 0).astype(np.float64)
    for index, (real, kept) in enumerate(zip(valid, there, strict=True)):
        if kind == "boxes":
            objects, regions = Regions.of_boxes(true["boxes"][index][real]), Regions.of_boxes(boxes[index][kept])
        else:
            (masks,) = (found[name][index][kept] for name in given)
            if "box_masks" in given:
                masks = _pasted(masks, found["boxes"][index][kept], true["masks"].shape[2:], image_size)
            objects, regions = Regions.of_masks(true["masks"][index][real]), Regions.of_masks(masks)
        yield ImageResult(
            objects,
            true["classes"][index][real].astype(np.int64),
            crowd[index][real],
            difficult[index][real],
            regions,
            found["classes"][index][kept].astype(np.int64),
            scores[index][kept],
        )


def _pasted(
    masks: np.ndarray, boxes: np.ndarray, size: tuple[int, ...], image_size: Sequence[int] | None
) -> np.ndarray:
    """Masks [D, h, w] within boxes [D, 4], of pixels or of shares of an image, as masks [D, H, W] of a size (H, W)."""
    planes = np.zeros((len(masks), *size), np.uint8)
    # Masks of targets may have a stride, which is known where boxes are shares.
    sides = (1, 1, 1, 1) if image_size is None else size[::-1] * 2
    for plane, mask, box in zip(planes, masks, boxes * sides, strict=True):
        paste_mask(plane, mask, box)
    return planes


def _arrays(tensors: Mapping[str, Any], name: str, needed: tuple[str, ...], kind: Kind) -> dict[str, np.ndarray]:
    missing = [key for key in needed if key not in tensors]
    if missing:
        raise ValueError(
            f'The {name} have no "{missing[0]}"; measuring {kind} takes {", ".join(needed)}, got {", ".join(tensors)}.'
        )
    return {key: np.asarray(tensors[key]) for key in needed}


def _check_shapes(true: dict[str, np.ndarray], found: dict[str, np.ndarray], kind: Kind) -> None:
    batch, most = true["classes"].shape
    count = found["scores"].shape[1]
    size = true["masks"].shape[2:] if kind == "masks" else ()
    wanted = (
        ("targets", true, {"boxes": (batch, most, 4), "valid": (batch, most), "masks": (batch, most, *size)}),
        (
            "predictions",
            found,
            {
                "boxes": (batch, count, 4),
                "scores": (batch, count),
                "classes": (batch, count),
                "masks": (batch, count, *size),
                "box_masks": (batch, count, *found["box_masks"].shape[2:4]) if "box_masks" in found else (),
            },
        ),
    )
    for name, arrays, shapes in wanted:
        for key, shape in shapes.items():
            if key in arrays and arrays[key].shape != shape:
                raise ValueError(
                    f'Expected "{key}" of the {name} as {list(shape)}, got {list(arrays[key].shape)}. Targets and '
                    "predictions are of the same images, and masks of both have the same size."
                )
    if found["count"].size != batch:
        raise ValueError(f'Expected a "count" for each of {batch} images, got {found["count"].size}.')


def _check_classes(found: np.ndarray, name: str, classes: int) -> None:
    if found.size and not (found.min() >= 0 and found.max() < classes):
        wrong = found[(found < 0) | (found >= classes)][0]
        raise ValueError(
            f"The {name} have the class {wrong}; expected 0..{classes - 1}. Build the metrics with the task's labels."
        )
