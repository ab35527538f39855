"""Number formats of weights: the values they know, and rounding to them.

A format is a grid of levels that a channel's largest magnitude stretches. All levels are integer multiples of one
step, so an int8 file holds them exactly: its scale is that step, and its codes are the format's. Activations have
8 bits in every format.
"""

import dataclasses
import itertools
import math
from typing import Any

import numpy as np
import tensorflow as tf

from kerasvision.errors import UnknownNameError, closest


@dataclasses.dataclass(frozen=True)
class Grid:
    """Levels symmetric about zero, as int8 codes.

    Args:
        codes: of the levels from zero up, in steps; the last stands for the channel's largest magnitude.
        boundaries: in steps; a magnitude of at least `boundaries[i]` is rounded to `codes[i + 1]` or more.
    """

    codes: tuple[int, ...]
    boundaries: tuple[float, ...]

    def levels(self) -> np.ndarray:
        """Every level as a share of the channel's largest magnitude, ascending, in [-1, 1]."""
        positive = np.array(self.codes) / self.codes[-1]
        return np.concatenate([-positive[:0:-1], positive])

    def round(self, values: Any, limit: Any) -> Any:
        """The nearest levels; the gradient goes through as if nothing had happened (Bengio et al., 2013, 1308.3432).

        Args:
            values: [..., C].
            limit: largest magnitude of each channel, [C], or one number; larger values become it.

        Returns:
            Of the values' shape.
        """
        steps = tf.abs(values) / limit * self.codes[-1]
        index = tf.raw_ops.Bucketize(input=steps, boundaries=list(self.boundaries))
        magnitude = tf.gather(tf.constant(self.codes, tf.float32), index) * (limit / self.codes[-1])
        return values + tf.stop_gradient(tf.sign(values) * magnitude - values)

    def int8_limit(self, limit: Any) -> Any:
        """The largest value of 8 bits, 127 steps, whose step is the format's."""
        return limit * (127 / self.codes[-1])

    def holds(self, codes: np.ndarray) -> bool:
        """Whether integers read from an int8 file are all codes of this format."""
        return bool(np.isin(np.abs(codes.astype(int)), self.codes).all())


def _linear(largest: int) -> Grid:
    return Grid(tuple(range(largest + 1)), tuple(code - 0.5 for code in range(1, largest + 1)))


def _power_of_two(bits: int) -> Grid:
    codes = tuple(2**exponent for exponent in range(2 ** (bits - 1) - 1))
    # Rounded in the logarithm: half a step is a factor of sqrt(2), and zero lies a step below the smallest power.
    return Grid((0, *codes), tuple(code / math.sqrt(2) for code in codes))


def _additive_power_of_two() -> Grid:
    # A sign, and the 3 bits of Li et al., 2020: two bits choose the first term, one bit the second.
    codes = sorted({first + second for first in (0, 1, 4, 8) for second in (0, 2)})
    return Grid(tuple(codes), tuple((low + high) / 2 for low, high in itertools.pairwise(codes)))


FORMATS = {
    # Affine int8 without its lowest code (Jacob et al., 2018, arXiv:1712.05877).
    "int8": _linear(127),
    "int4": _linear(7),
    # Four bits: a sign, and seven powers or zero (Miyashita et al., 2016, arXiv:1603.01025; Zhou et al., 2017,
    # arXiv:1702.03044).
    "power_of_two": _power_of_two(4),
    # Four bits: sums of two powers (Li et al., 2020, arXiv:1909.13144). Their learned clipping is left out: the
    # largest magnitude of the channel is the largest level.
    "additive_power_of_two": _additive_power_of_two(),
}


def grid(name: str) -> Grid:
    """The grid of a format.

    Raises:
        UnknownNameError: no such format; the closest names are given.
    """
    if name not in FORMATS:
        raise UnknownNameError(f'There is no number format "{name}".{closest(name, FORMATS)}')
    return FORMATS[name]
