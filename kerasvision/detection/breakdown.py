"""What a detector does wrong, and what each kind of error costs (Bolya et al., 2020, TIDE, arXiv:2008.08115)."""

import dataclasses
from collections.abc import Sequence

import numpy as np

from kerasvision.detection.curves import PrecisionRecall
from kerasvision.detection.pairing import IGNORED, WRONG, overlaps_of, pair, ranked
from kerasvision.detection.results import ImageResult

# Kinds of wrong detections, and objects that nothing has come near.
CLASSIFICATION, LOCALISATION, BOTH, DUPLICATE, BACKGROUND, MISSED = ERRORS = (
    "classification",
    "localisation",
    "both",
    "duplicate",
    "background",
    "missed",
)
_NONE = -1


@dataclasses.dataclass(frozen=True)
class ErrorBreakdown:
    """Errors by their kind.

    Args:
        ap50: average precision at the overlap of 0.5 (or the one asked for), mean over the classes; NaN where there is
            nothing to find.
        counts: kind -> errors.
        costs: kind -> how much higher `ap50` would be without these errors, 0..1. They do not add up to 1 - `ap50`.
    """

    ap50: float
    counts: dict[str, int]
    costs: dict[str, float]


@dataclasses.dataclass(frozen=True)
class _Errors:
    """Detections of one image or of all, [D], but for those that count neither as right nor as wrong.

    Args:
        classes: int [D].
        scores: [D].
        right: bool [D].
        kinds: int [D], index into ERRORS; -1 for right ones.
        fixed: int [D], the class in which a wrong detection is right once its error is fixed; -1 where it then goes.
        missed: int [N], classes of the objects that nothing has come near.
    """

    classes: np.ndarray
    scores: np.ndarray
    right: np.ndarray
    kinds: np.ndarray
    fixed: np.ndarray
    missed: np.ndarray


def break_down(
    images: Sequence[ImageResult],
    labels: Sequence[str],
    *,
    iou: float = 0.5,
    background: float = 0.1,
    max_detections: int = 100,
) -> ErrorBreakdown:
    """Counts errors of each kind, and what fixing them would bring.

    A wrong detection is, in this order: a localisation error (overlaps an object of its class by `background` to
    `iou`), a classification error (overlaps one of another class by `iou` or more), a duplicate (of an object that a
    better detection found), background (overlaps nothing by more than `background`), or both (the rest: wrong class
    and place). Missed are objects that neither a right detection nor one of the first two has come near. Fixing the
    first two makes the best detection of each such object right; fixing the next three takes the detections away;
    fixing missed takes the objects away, and a class of which none is left is solved.

    Args:
        images: what lies in each, and what was found.
        labels: class names.
        iou: the least overlap with which an object counts as found, 0..1.
        background: the most overlap with which a detection counts as being on none.
        max_detections: best ones of an image and class that count.

    Returns:
        Counts and costs.
    """
    parts = [_errors(image, iou, background, max_detections) for image in images]
    names = [field.name for field in dataclasses.fields(_Errors)]
    types = {"scores": np.float64, "right": bool}
    joined = {
        name: np.concatenate([np.zeros(0, types.get(name, np.int64)), *(getattr(part, name) for part in parts)])
        for name in names
    }
    errors = _Errors(**joined)
    everything = np.concatenate([np.zeros(0, np.int64), *(image.classes[~image.ignored] for image in images)])
    objects = np.bincount(everything, minlength=len(labels))
    missed = np.bincount(errors.missed, minlength=len(labels))
    base = _mean_ap(errors.classes, errors.scores, errors.right, objects, objects)
    counts = {name: int((errors.kinds == index).sum()) for index, name in enumerate(ERRORS)}
    costs = {}
    for index, name in enumerate(ERRORS):
        wrong = errors.kinds == index
        classes = np.where(wrong, errors.fixed, errors.classes)
        left = objects - missed if name == MISSED else objects
        # Where fixing an error lowers the figure, it is by the steps in which recall is read.
        costs[name] = max(_mean_ap(classes, errors.scores, errors.right | wrong, objects, left) - base, 0.0)
    return ErrorBreakdown(base, {**counts, MISSED: len(errors.missed)}, costs)


def _errors(image: ImageResult, iou: float, background: float, max_detections: int) -> _Errors:
    order = ranked(image, max_detections)
    overlaps = overlaps_of(image, order)
    partners = pair(image, order, iou, overlaps)
    counted = partners != IGNORED
    order, overlaps, partners = order[counted], overlaps[counted], partners[counted]
    classes = image.found_classes[order]
    real = ~image.ignored
    targets, overlaps = image.classes[real], overlaps[:, real]
    # Indices of the objects that are left when the ignored ones are out.
    places = np.cumsum(real) - 1
    taken = np.zeros(len(targets), bool)
    taken[places[partners[partners >= 0]]] = True
    kinds = np.full(len(order), _NONE)
    fixed = np.full(len(order), _NONE)
    wrong = partners == WRONG
    if not len(targets):
        kinds[wrong] = ERRORS.index(BACKGROUND)
        return _Errors(classes, image.scores[order], ~wrong, kinds, fixed, targets)
    same = classes[:, None] == targets[None, :]
    own, other = np.where(same, overlaps, 0.0), np.where(same, 0.0, overlaps)
    nearest = own.max(axis=1)
    conditions = {
        LOCALISATION: (nearest >= background) & (nearest <= iou),
        CLASSIFICATION: other.max(axis=1) >= iou,
        DUPLICATE: np.where(taken, own, 0.0).max(axis=1) >= iou,
        BACKGROUND: overlaps.max(axis=1) <= background,
    }
    numbers = [ERRORS.index(name) for name in conditions]
    kinds[wrong] = np.select(list(conditions.values()), numbers, ERRORS.index(BOTH))[wrong]
    meant = np.where(kinds == ERRORS.index(LOCALISATION), own.argmax(axis=1), other.argmax(axis=1))
    near = np.isin(kinds, [ERRORS.index(LOCALISATION), ERRORS.index(CLASSIFICATION)]) & ~taken[meant]
    # The best detection of each object that is not found.
    rows = np.flatnonzero(near)
    reached, first = np.unique(meant[rows], return_index=True)
    fixed[rows[first]] = targets[reached]
    missed = ~taken
    missed[reached] = False
    return _Errors(classes, image.scores[order], ~wrong, kinds, fixed, targets[missed])


def _mean_ap(
    classes: np.ndarray, scores: np.ndarray, right: np.ndarray, objects: np.ndarray, left: np.ndarray
) -> float:
    """Mean over the classes that have `objects` [K], of which there are still `left` [K] to be found."""
    values = []
    for index in np.flatnonzero(objects):
        if left[index] == 0:
            values.append(1.0)
            continue
        chosen = classes == index
        values.append(PrecisionRecall.of(scores[chosen], right[chosen], int(left[index])).average_precision())
    return float(np.mean(values)) if values else float("nan")
