"""Which detection found which object: COCO's rule and Pascal VOC's, at one overlap."""

import numpy as np

from kerasvision.detection.results import ImageResult

WRONG, IGNORED = -1, -2


def ranked(image: ImageResult, max_detections: int) -> np.ndarray:
    """Indices of detections, best first, ties in their order: the best of every class, int64 [<= D]."""
    order = np.argsort(-image.scores, kind="stable")
    if len(order) <= max_detections:
        return order
    # The place of each among those of its class.
    classes = image.found_classes[order]
    by_class = np.argsort(classes, kind="stable")
    places = np.empty(len(order), np.int64)
    places[by_class] = np.arange(len(order)) - np.searchsorted(classes[by_class], classes[by_class])
    return order[places < max_detections]


def overlaps_of(image: ImageResult, order: np.ndarray) -> np.ndarray:
    """Overlap of the detections `order` [D] with every object as COCO sees it, float64 [D, N]."""
    return image.found.overlaps(image.objects, image.ignored)[order]


def pair(image: ImageResult, order: np.ndarray, iou: float, overlaps: np.ndarray | None = None) -> np.ndarray:
    """COCO's rule: a detection takes the object of its class that it overlaps most, of those not yet taken.

    What finds no other object and lies in one that is `ignored` is neither right nor wrong.

    Args:
        image: one image.
        order: int [D], detections, best first.
        iou: the least overlap, 0..1.
        overlaps: of `overlaps_of`, where they are known already.

    Returns:
        int64 [D], for each of `order` the index of its object, WRONG or IGNORED.
    """
    overlaps = overlaps_of(image, order) if overlaps is None else overlaps
    near = (overlaps >= iou) & (image.found_classes[order][:, None] == image.classes[None, :])
    free = np.where(near & ~image.ignored, overlaps, -1.0)
    partners = np.where((near & image.ignored).any(axis=1), IGNORED, WRONG)
    taken = np.zeros(len(image.classes), bool)
    for row in np.flatnonzero((free >= 0).any(axis=1)):
        values = np.where(taken, -1.0, free[row])
        # The last of equal ones, as COCO does.
        best = len(values) - 1 - int(values[::-1].argmax())
        if values[best] >= 0:
            partners[row], taken[best] = best, True
    return partners


def pair_voc(image: ImageResult, order: np.ndarray, iou: float) -> np.ndarray:
    """Pascal VOC's rule: a detection claims the object of its class that it overlaps most, taken or not.

    The second to claim an object is wrong; who claims an `ignored` one is neither right nor wrong.

    Args:
        image: one image.
        order: int [D], detections, best first.
        iou: the least overlap, 0..1.

    Returns:
        int64 [D], for each of `order` the index of its object, WRONG or IGNORED.
    """
    partners = np.full(len(order), WRONG)
    if not len(image.classes):
        return partners
    same = image.found_classes[order][:, None] == image.classes[None, :]
    values = np.where(same, image.found.overlaps(image.objects, image.crowd)[order], -1.0)
    claimed = values.argmax(axis=1)
    near = values.max(axis=1) >= iou
    ignored = image.ignored[claimed]
    partners[near & ignored] = IGNORED
    rows = np.flatnonzero(near & ~ignored)
    _, first = np.unique(claimed[rows], return_index=True)
    partners[rows[first]] = claimed[rows[first]]
    return partners
