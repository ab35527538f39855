"""Scenes of `contract` with a mask for every object."""

import numpy as np
from detection import contract


def give_masks(monkeypatch, stride):
    """Ellipses that fill the boxes, in all that `contract` makes and checks from here on."""
    rectangles, empty = contract.rectangles, contract.empty

    def ellipses(count=16, size=64, **scene):
        images, targets = rectangles(count, size, **scene)
        y, x = np.mgrid[: size // stride, : size // stride] * stride + stride / 2
        x0, y0, x1, y1 = np.moveaxis(targets["boxes"][..., None, None], 2, 0)
        with np.errstate(divide="ignore", invalid="ignore"):
            inside = ((2 * x - x0 - x1) / (x1 - x0)) ** 2 + ((2 * y - y0 - y1) / (y1 - y0)) ** 2 <= 1
        return images, {**targets, "masks": inside.astype(np.uint8)}

    def none(count, most):
        return {**empty(count, most), "masks": np.zeros((count, most, 64 // stride, 64 // stride), np.uint8)}

    monkeypatch.setattr(contract, "rectangles", ellipses)
    monkeypatch.setattr(contract, "empty", none)


def crop(mask, box, size):
    """Bilinear samples [size, size] of a mask [H, W] at the centres of the bins of a box, 0 beyond the mask."""
    found = np.zeros((size, size))
    height, width = mask.shape
    for row, column in np.ndindex(size, size):
        y = box[1] + (row + 0.5) * (box[3] - box[1]) / size
        x = box[0] + (column + 0.5) * (box[2] - box[0]) / size
        if 0 <= y <= height and 0 <= x <= width:
            y, x = np.clip(y - 0.5, 0, height - 1), np.clip(x - 0.5, 0, width - 1)
            for i, j in ((0, 0), (0, 1), (1, 0), (1, 1)):
                share = (1 - abs(y - int(y) - i)) * (1 - abs(x - int(x) - j))
                found[row, column] += share * mask[min(int(y) + i, height - 1), min(int(x) + j, width - 1)]
    return found
