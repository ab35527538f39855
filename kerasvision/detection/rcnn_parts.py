"""What R-CNN is put together from: warping, linear SVMs with hard negatives, ridge regression of boxes.

Girshick et al., 2014, arXiv:1311.2524.
"""

import cv2
import numpy as np

# Values of an SVM from which a negative is hard, and below which it is let go.
_HARD, _EASY = -1.0, -1.2


def warp(image: np.ndarray, boxes: np.ndarray, size: int, context: int = 0) -> np.ndarray:
    """Boxes of an image, each stretched to a square with a frame of what is around it.

    Args:
        image: pixels uint8 [H, W, 1 or 3].
        boxes: xyxy [N, 4] in pixels.
        size: side of the squares in pixels.
        context: pixels of each side of a square that lie around the box.

    Returns:
        uint8 [N, size, size, 3]; what lies outside of the image has its mean color.
    """
    image = np.repeat(image, 3, axis=2) if image.shape[2] == 1 else image
    mean = image.mean(axis=(0, 1)).round().tolist()
    squares = np.empty((len(boxes), size, size, 3), np.uint8)
    for square, (x0, y0, x1, y1) in zip(squares, boxes.astype(np.float64), strict=True):
        factors = (size - 2 * context) / np.maximum([x1 - x0, y1 - y0], 1.0)
        # Pixels are counted from their centers.
        moves = context - np.array([x0, y0]) * factors + 0.5 * factors - 0.5
        matrix = np.array([[factors[0], 0, moves[0]], [0, factors[1], moves[1]]])
        square[:] = cv2.warpAffine(
            image, matrix, (size, size), flags=cv2.INTER_LINEAR, borderMode=cv2.BORDER_CONSTANT, borderValue=mean
        )
    return squares


def separate(
    features: np.ndarray,
    positives: np.ndarray,
    pool: np.ndarray,
    *,
    c: float = 1e-3,
    most: int = 6000,
    rounds: int = 4,
    seed: int = 0,
) -> tuple[np.ndarray, float]:
    """A linear SVM that learns from hard negatives: those that the one before took for positives, or nearly.

    Args:
        features: [R, F] of all regions.
        positives: rows of the objects.
        pool: rows of all negatives; half of `most` are drawn at random at first.
        c: of the SVM. The factor on its offset, 10, and the weight of the positives, 2, are those of the paper's code.
        most: negatives that it learns from at a time.
        rounds: at most so many SVMs; fewer where no hard negative is left.
        seed: of the draw and of the SVMs.

    Returns:
        Weights float32 [F], and the offset; zeros where there are no negatives.
    """
    from sklearn.svm import LinearSVC

    weights, offset = np.zeros(features.shape[1], np.float32), 0.0
    if not len(pool):
        return weights, offset
    negatives = np.random.default_rng(seed).choice(pool, min(len(pool), most // 2), replace=False)
    for _ in range(rounds):
        machine = LinearSVC(
            C=c, loss="hinge", intercept_scaling=10, class_weight={1: 2}, random_state=seed, max_iter=5000
        )
        rows = np.concatenate([positives, negatives])
        machine.fit(features[rows], np.arange(len(rows)) < len(positives))
        weights, offset = machine.coef_[0].astype(np.float32), float(machine.intercept_[0])
        values = features @ weights + offset
        kept = negatives[values[negatives] > _EASY]
        hard = np.setdiff1d(pool[values[pool] > _HARD], kept)
        hard = hard[np.argsort(-values[hard], kind="stable")][: max(most - len(kept), 0)]
        if not len(hard):
            break
        negatives = np.concatenate([kept, hard])
    return weights, offset


def regress(features: np.ndarray, deltas: np.ndarray, ridge: float = 1000.0) -> tuple[np.ndarray, np.ndarray]:
    """Ridge regression of the deltas from proposals to their objects.

    Args:
        features: [P, F].
        deltas: [P, 4], of `encode_deltas` with variances of 1.
        ridge: regularization.

    Returns:
        Weights float32 [F, 4], offsets float32 [4].
    """
    from sklearn.linear_model import Ridge

    machine = Ridge(alpha=ridge).fit(features, deltas)
    return machine.coef_.T.astype(np.float32), machine.intercept_.astype(np.float32)
