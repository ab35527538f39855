"""What the box functions share: NumPy or `keras.ops`, and rows by index.

Tensors of different shapes are subtracted here, never added: `keras.ops.add` on TensorFlow takes a second tensor with
one axis longer than 1 for a bias (Keras 3.15), and [1, N, 1] + [1, 1, N] has the shape [1, N, 1].
"""

from typing import Any

import numpy as np
from keras import ops

# Less is no area and no length; its square still is a float32.
_NOTHING = 1e-12


def namespace(*arrays: Any) -> Any:
    """Module whose functions suit the arrays: NumPy where all of them are NumPy's, `keras.ops` otherwise."""
    return np if all(isinstance(array, np.ndarray | np.generic) for array in arrays) else ops


def as_float(array: Any) -> Any:
    """Coordinates as float64 of NumPy or float32 of a tensor; half precision cannot hold a pixel."""
    return array.astype(np.float64) if namespace(array) is np else ops.cast(array, "float32")


def ratio(part: Any, whole: Any) -> Any:
    """part / whole, and 0 without a gradient where `whole` is nothing, negative or NaN."""
    xp = namespace(part, whole)
    above = whole > _NOTHING
    return xp.where(above, part / xp.where(above, whole, 1.0), 0.0)


def gather_rows(values: Any, index: Any) -> Any:
    """Rows of each image by their index: one gather of a flat table, which every exported format knows.

    Args:
        values: [B, N, F]; N and F are static, B may be open.
        index: int [B, D], each in 0..N-1.

    Returns:
        [B, D, F].
    """
    rows, width = values.shape[1:]
    return ops.take(ops.reshape(values, (-1, width)), flat_index(index, rows), axis=0)


def flat_index(index: Any, rows: int) -> Any:
    """Indices [B, D] of rows in each image, as int32 indices into a flat table with so many `rows` an image."""
    images = ops.cumsum(ops.ones_like(index[:, :1], dtype="int32"), axis=0)
    return ops.cast(index, "int32") - (1 - images) * rows
