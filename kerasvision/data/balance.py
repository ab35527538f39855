"""Classes of unequal size: how much an image or a pixel weighs, how often an image is seen, more or fewer examples."""

import importlib.util
from collections.abc import Callable, Mapping, Sequence
from typing import Any, Literal

import numpy as np

from kerasvision.classification.losses import BETA, class_balanced_weights, effective_number
from kerasvision.errors import DataError, closest

Rule = Literal["balanced", "square_root", "effective_number", "over", "under", "repeat_factor"]
Weighting = Literal["balanced", "effective_number"] | Mapping[str, float]
Method = Literal["smote", "tomek", "smote_tomek"]

# Images of each class [K] -> how often each of its images is seen, up to a common factor.
_SHARES: dict[str, Callable[[np.ndarray], np.ndarray]] = {
    "balanced": lambda counts: 1 / counts,
    "square_root": lambda counts: 1 / np.sqrt(counts),
    "effective_number": lambda counts: 1 / effective_number(counts, BETA),
}


def class_weights(label: np.ndarray, labels: Sequence[str], rule: Weighting) -> np.ndarray:
    """What the loss of an image is multiplied by, for each class.

    Args:
        label: class indices of the training images, int [N].
        labels: names of the K classes.
        rule: "balanced": N / (present classes * images of the class); "effective_number": by
            `losses.effective_number`; both are 1 on average over the images. Or the cost of a mistake for each class by
            name, taken as it is; classes that are left out cost 1 (Elkan, 2001, "The foundations of cost-sensitive
            learning").

    Returns:
        float32 [K]; 0 for a class without images, unless its cost is given.

    Raises:
        DataError: no such rule or class, or a cost that is no number from 0 up.
    """
    if isinstance(rule, Mapping):
        return _costs(rule, labels)
    counts = _counts(label, len(labels))
    return _scaled(_weights(rule, counts, counts), counts)


def pixel_weights(pixels: np.ndarray, labels: Sequence[str], rule: Weighting) -> np.ndarray:
    """What the loss of a pixel is multiplied by, for each class.

    Args:
        pixels: of each class in each training image, int [N, K], as `Data.pixel_counts` gives them.
        labels: names of the K classes.
        rule: "balanced": median-frequency balancing (Eigen and Fergus, 2015, arXiv:1411.4734), where the frequency of
            a class is its share of the pixels of those images that show it. "effective_number": as `class_weights`,
            of the images that show the class, since pixels of one image are no examples of their own. Both are 1 on
            average over the pixels. Or the cost of a mistake for each class by name, as in `class_weights`.

    Returns:
        float32 [K]; 0 for a class without pixels, unless its cost is given.

    Raises:
        DataError: no such rule or class, a cost that is no number from 0 up, or no pixel of any class.
    """
    if isinstance(rule, Mapping):
        return _costs(rule, labels)
    counts, shown = pixels.sum(axis=0), pixels > 0
    if not counts.any():
        raise DataError("Every pixel of the training images is void: there are no classes to weigh.")
    around = np.where(shown, pixels.sum(axis=1, keepdims=True), 0).sum(axis=0)
    return _scaled(_weights(rule, counts / np.maximum(around, 1), shown.sum(axis=0)), counts)


def repeats(labels: np.ndarray, rule: Rule, threshold: float | None = None) -> np.ndarray:
    """How often each image is seen in an epoch, on average.

    Args:
        labels: int [N], or 0/1 [N, K] where an image has any number of labels (for boxes: the classes it shows).
        rule: for one label, the share of each class. "balanced": the same for all; "square_root": by the root of its
            images (Mahajan et al., 2018, arXiv:1805.00932); "effective_number": between both (Cui et al., 2019,
            arXiv:1901.05555); an epoch has N images. "over": all classes as often as the largest; "under": as the
            smallest. For any number of labels "repeat_factor": an image is seen max(1, sqrt(threshold / f)) times, f
            the share of images with its rarest class (LVIS; Gupta et al., 2019, arXiv:1908.03195).
        threshold: of "repeat_factor"; 1 / K when None, near the 0.001 of the paper for its 1,203 classes.

    Returns:
        float64 [N]; the sum is a whole number, the length of the epoch.

    Raises:
        DataError: no images, no such rule, or one that does not fit the labels.
    """
    labels = np.asarray(labels)
    if len(labels) == 0:
        raise DataError("There are no images to sample from.")
    if rule == "repeat_factor":
        return _repeat_factors(labels, threshold)
    known = [*_SHARES, "over", "under", "repeat_factor"]
    if rule not in known:
        raise DataError(f'There is no sampling rule "{rule}".{closest(rule, known)}')
    if labels.ndim != 1:
        raise DataError(f'Sampling "{rule}" is for one label an image; for several take "repeat_factor".')
    _, position, counts = np.unique(labels, return_inverse=True, return_counts=True)
    if rule in ("over", "under"):
        return ((counts.max() if rule == "over" else counts.min()) / counts)[position]
    shares = _SHARES[rule](counts.astype(np.float64))[position]
    return shares * len(labels) / shares.sum()


def sampler(labels: np.ndarray, rule: Rule, *, seed: int, epoch: int = 0, threshold: float | None = None) -> np.ndarray:
    """The images of one epoch in shuffled order.

    An image that `repeats` wants r times comes floor(r) or ceil(r) times, and a class as often as the rule says, to one
    image: less noise than independent draws. Every epoch of a rule has the same length.

    Args:
        labels: as in `repeats`.
        rule: as in `repeats`.
        seed: of the run.
        epoch: counted from 0; each draws anew.
        threshold: as in `repeats`.

    Returns:
        int64 indices into `labels`.

    Raises:
        DataError: see `repeats`.
    """
    random = np.random.default_rng([seed, epoch])
    labels = np.asarray(labels)
    wanted = repeats(labels, rule, threshold)
    # Systematic sampling: steps of 1, from a random start, along a line on which image i takes wanted[i].
    order = random.permutation(len(labels))
    if labels.ndim == 1:
        order = order[np.argsort(labels[order], kind="stable")]
    # The rounding errors of the sum stay below this distance from whole numbers.
    start = random.uniform(1e-6, 1 - 1e-6)
    reached = np.floor(np.cumsum(wanted[order]) + start).astype(np.int64)
    return random.permutation(np.repeat(order, np.ediff1d(reached, to_begin=reached[0])))


def resample(
    features: np.ndarray, labels: np.ndarray, *, method: Method, seed: int = 0, neighbors: int = 5
) -> tuple[np.ndarray, np.ndarray]:
    """New examples of rare classes, or fewer doubtful ones of the others, among the features of a frozen net.

    Features are those of `kerasvision.training.transfer.compute_features`; what comes out trains the head.

    Args:
        features: float [N, D].
        labels: int [N].
        method: "smote": points between neighbours of the same class, until all classes are as large as the largest
            (Chawla et al., 2002, arXiv:1106.1813). "tomek": without the examples of larger classes whose nearest
            neighbour is of another class, and is nearest to each other (Tomek, 1976). "smote_tomek": one after the
            other, and then both ends of such a pair go (Batista et al., 2004).
        seed: of the new points.
        neighbors: how many SMOTE looks at.

    Returns:
        Features [M, D] and labels [M], in the types that came.

    Raises:
        ImportError: imbalanced-learn is missing.
        DataError: no such method, or a class is smaller than its neighbourhood.
    """
    known = ("smote", "tomek", "smote_tomek")
    if method not in known:
        raise DataError(f'There is no resampling "{method}".{closest(method, known)}')
    if features.ndim != 2 or len(features) != len(labels):
        raise DataError(f"Expected features [N, D] and labels [N], got {features.shape} and {labels.shape}.")
    smallest = int(np.unique(labels, return_counts=True)[1].min())
    if method != "tomek" and smallest <= neighbors:
        raise DataError(
            f"SMOTE looks at {neighbors} neighbours of each example, but the smallest class has {smallest} examples. "
            f"Set neighbors to {smallest - 1} or less, or leave that class out."
            if smallest > 1
            else "SMOTE needs two examples of each class at least, but the smallest has 1. Leave that class out."
        )
    if importlib.util.find_spec("imblearn") is None:
        raise ImportError(f'resample(method="{method}") needs imbalanced-learn: pip install "kerasvision[balance]".')
    resampled, found = _resampler(method, seed, neighbors).fit_resample(features, labels)
    return np.asarray(resampled, features.dtype), np.asarray(found, labels.dtype)


def _resampler(method: str, seed: int, neighbors: int) -> Any:
    from imblearn.combine import SMOTETomek
    from imblearn.over_sampling import SMOTE
    from imblearn.under_sampling import TomekLinks

    if method == "tomek":
        return TomekLinks()
    smote = SMOTE(random_state=seed, k_neighbors=neighbors)
    return smote if method == "smote" else SMOTETomek(random_state=seed, smote=smote)


def _costs(costs: Mapping[str, float], labels: Sequence[str]) -> np.ndarray:
    for name, cost in costs.items():
        if name not in labels:
            raise DataError(f'There is a cost for "{name}", but no such class.{closest(name, labels)}')
        if not (np.isfinite(cost) and cost >= 0):
            raise DataError(f'The cost of "{name}" must be a number from 0 up, got {cost}.')
    return np.array([costs.get(name, 1.0) for name in labels], np.float32)


def _weights(rule: str, frequencies: np.ndarray, images: np.ndarray) -> np.ndarray:
    """Weights of the classes up to a common factor, from how frequent they are and how many images they have, [K]."""
    if rule == "balanced":
        return np.divide(1.0, frequencies, out=np.zeros(len(frequencies)), where=frequencies > 0)
    if rule == "effective_number":
        return class_balanced_weights(images).astype(np.float64)
    raise DataError(
        f'There is no class weighting "{rule}". Take "balanced", "effective_number", or costs {{label: number}}.'
    )


def _scaled(weights: np.ndarray, counts: np.ndarray) -> np.ndarray:
    """Weights [K] that are 1 on average, where each class counts so often."""
    return (weights * counts.sum() / (weights @ counts)).astype(np.float32)


def _counts(label: np.ndarray, classes: int) -> np.ndarray:
    counts = np.bincount(label, minlength=classes)
    if len(counts) > classes or not counts.any():
        raise DataError(f"Expected labels in 0..{classes - 1}, got {np.unique(label).tolist()}.")
    return counts


def _repeat_factors(labels: np.ndarray, threshold: float | None) -> np.ndarray:
    marks = labels > 0.5 if labels.ndim == 2 else labels[:, None] == np.unique(labels)  # [N, K]
    threshold = 1 / marks.shape[1] if threshold is None else threshold
    if threshold <= 0:
        raise DataError(f"The threshold of repeat_factor is a share of the images above 0, got {threshold}.")
    share = marks.mean(axis=0)
    factor = np.sqrt(threshold / np.where(share > 0, share, threshold))  # [K]
    wanted = np.maximum(1.0, (marks * factor).max(axis=1))
    # Up to a whole number of images, so that every epoch is as long as the first and none leaves an image out.
    return wanted * np.ceil(wanted.sum()) / wanted.sum()
