"""`Volume`, slices with their place in space, and `Window`, which of its values become grey levels."""

import dataclasses
from typing import Literal

import numpy as np

from kerasvision.errors import DataError

# What one is in millimetres.
UNITS = {"mm": 1.0, "meter": 1000.0, "micron": 0.001, "unknown": 1.0}
# Values that percentiles are taken of, at most; evenly spread.
_MOST = 4_000_000

WindowFunction = Literal["linear", "linear_exact", "sigmoid"]


@dataclasses.dataclass(frozen=True)
class Window:
    """Which values become grey levels (DICOM PS3.3, C.11.2.1.2).

    Args:
        center: value in the middle.
        width: of the range of values that differ in grey.
        function: "linear" (DICOM's default, whose range is one narrower than its width), "linear_exact", "sigmoid".

    Raises:
        ValueError: a width below 1 for "linear", or not above 0 for the others.
    """

    center: float
    width: float
    function: WindowFunction = "linear"

    def __post_init__(self) -> None:
        least = 1 if self.function == "linear" else np.finfo(np.float32).tiny
        if not (np.isfinite(self.center) and np.isfinite(self.width) and self.width >= least):
            raise ValueError(
                f'A window has a center and a width, from 1 for "linear" and above 0 else, got {self.center} and '
                f'{self.width} for "{self.function}".'
            )

    def __call__(self, values: np.ndarray) -> np.ndarray:
        """Grey levels of values: uint8 of the same shape; NaN becomes 0."""
        values = np.asarray(values, np.float32)
        if self.function == "sigmoid":
            shares = 1 / (1 + np.exp(np.clip(-4 * (values - self.center) / self.width, -80, 80)))
        elif self.function == "linear":
            # A width of 1 is a threshold.
            shares = (values - (self.center - 0.5)) / max(self.width - 1, 1e-6) + 0.5
        else:
            shares = (values - self.center) / self.width + 0.5
        return np.rint(np.clip(np.nan_to_num(shares, nan=0.0), 0, 1) * 255).astype(np.uint8)


def percentile_window(values: np.ndarray, low: float = 0.5, high: float = 99.5) -> Window:
    """The window from one percentile of values to another; of large arrays evenly spread values are looked at.

    Args:
        values: numbers; those that are not finite do not count.
        low: in 0..100.
        high: in 0..100, above `low`.

    Raises:
        ValueError: percentiles in another order, or no finite value.
    """
    if not 0 <= low < high <= 100:
        raise ValueError(f"Expected percentiles 0 <= low < high <= 100, got {low} and {high}.")
    flat = np.asarray(values).reshape(-1)
    some = flat[:: -(-flat.size // _MOST) or 1].astype(np.float64)
    some = some[np.isfinite(some)]
    if not some.size:
        raise ValueError("There is no finite value to take percentiles of.")
    begin, end = np.percentile(some, [low, high])
    return Window(float((begin + end) / 2), float(max(end - begin, 1e-6)), "linear_exact")


@dataclasses.dataclass(frozen=True, eq=False)
class Layout:
    """How a file holds the array of a volume [slices, H, W], and where it lies in space.

    Args:
        shape: of the file's array; axes behind the third have one place.
        axes: of the volume's slices, rows and columns, the axis of the file.
        flipped: whether each of them runs the other way in the file.
        affine: float64 [4, 4], indices into the file's array -> right, anterior, superior (RAS+), in `unit`; None where
            nothing is known.
        unit: "mm", "meter", "micron" or "unknown", which is taken for millimetres.
        code: NIfTI's number of the space (0 unknown, 1 scanner, 2 aligned, 3 Talairach, 4 MNI).
    """

    shape: tuple[int, ...]
    axes: tuple[int, int, int] = (2, 1, 0)
    flipped: tuple[bool, bool, bool] = (False, False, False)
    affine: np.ndarray | None = None
    unit: str = "mm"
    code: int = 2

    def read(self, stored: np.ndarray) -> np.ndarray:
        """From a file's array to [slices, H, W]."""
        return np.flip(stored.reshape((*self.shape, 1, 1)[:3]).transpose(self.axes), self._turned)

    def write(self, values: np.ndarray) -> np.ndarray:
        """From [slices, H, W] to a file's array, the inverse of `read`."""
        return np.flip(values, self._turned).transpose(np.argsort(self.axes)).reshape(self.shape)

    @property
    def _turned(self) -> tuple[int, ...]:
        return tuple(axis for axis, flipped in enumerate(self.flipped) if flipped)

    def volume_affine(self) -> np.ndarray | None:
        """[4, 4], (slice, row, column) -> right, anterior, superior in millimetres; None where nothing is known."""
        if self.affine is None:
            return None
        sizes = (*self.shape, 1, 1)[:3]
        affine = np.eye(4)
        affine[:3, 3] = self.affine[:3, 3]
        for own, (axis, flipped) in enumerate(zip(self.axes, self.flipped, strict=True)):
            step = self.affine[:3, axis]
            affine[:3, own] = -step if flipped else step
            affine[:3, 3] += step * (sizes[axis] - 1) if flipped else 0
        affine[:3] *= UNITS[self.unit]
        return affine


@dataclasses.dataclass(frozen=True, eq=False)
class Volume:
    """Slices of one thing, in the order in which they follow each other in space.

    Made by `kerasvision.medical.read_volume`.

    Args:
        values: [slices, H, W], what the file means: Hounsfield units of a CT, grey levels of an image.
        layout: where they lie, and how the file holds them.
        source: the file or the folder.
        window: which the file asks for; None where it asks for none.
        inverted: whether low values are bright (DICOM's MONOCHROME1).

    Raises:
        ValueError: another number of axes, or no values.
    """

    values: np.ndarray
    layout: Layout
    source: str = ""
    window: Window | None = None
    inverted: bool = False

    def __post_init__(self) -> None:
        if self.values.ndim != 3 or 0 in self.values.shape:
            raise ValueError(f"A volume has the shape [slices, H, W], got {list(self.values.shape)}.")

    def __repr__(self) -> str:
        slices, height, width = self.values.shape
        spacing = self.spacing
        placed = "no spacing" if spacing is None else " x ".join(f"{side:.4g}" for side in spacing) + " mm"
        return f"Volume({self.source!r}: {slices} slices of {height}x{width}, {placed})"

    def __len__(self) -> int:
        return len(self.values)

    @property
    def affine(self) -> np.ndarray | None:
        """[4, 4], (slice, row, column) -> right, anterior, superior (RAS+) in mm; None where nothing is known."""
        return self.layout.volume_affine()

    @property
    def spacing(self) -> tuple[float, float, float] | None:
        """Between the centres of neighbouring slices, rows and columns, in mm; None where nothing is known."""
        affine = self.affine
        if affine is None:
            return None
        slices, rows, columns = np.linalg.norm(affine[:3, :3], axis=0).tolist()
        return slices, rows, columns

    @property
    def voxel_ml(self) -> float:
        """Size of a voxel in millilitres, those of sheared volumes too.

        Raises:
            DataError: the file does not say how far apart voxels are.
        """
        affine = self.affine
        if affine is None:
            raise DataError(
                f"{self.source} does not say how far apart its voxels are, so nothing can be said in millilitres. Read "
                "it with spacing=(slice, row, column) in mm."
            )
        return float(abs(np.linalg.det(affine[:3, :3])) / 1000)

    def windowed(self, window: Window | None = None) -> Window:
        """The window that `images` takes: one that is given, else the file's, else that of percentiles."""
        return window or self.window or percentile_window(self.values)

    def images(self, window: Window | None = None) -> np.ndarray:
        """Slices as images: uint8 [slices, H, W], bright where the file is shown bright.

        Args:
            window: which values become grey levels; the file's, or 0.5 to 99.5 % of all values, when None.
        """
        window = self.windowed(window)
        pixels = np.empty(self.values.shape, np.uint8)
        for index, values in enumerate(self.values):
            pixels[index] = window(values)
        return np.subtract(255, pixels, out=pixels) if self.inverted else pixels
