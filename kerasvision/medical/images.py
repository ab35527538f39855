"""Images of any depth as volumes: TIFF files, whose pages are slices, and PNG files."""

from pathlib import Path

import numpy as np
from PIL import Image, ImageSequence

from kerasvision.data.inspect import MAX_PIXELS
from kerasvision.errors import DataError
from kerasvision.medical.volume import Layout, Volume

SUFFIXES = (".tif", ".tiff", ".png")


def read_pages(path: Path, spacing: tuple[float, float, float] | None = None) -> Volume:
    """Reads the pages of an image file with the values that it holds: 8, 16 or 32 bits, or floating point.

    Args:
        path: a TIFF or PNG file of grey images of one size.
        spacing: between slices, rows and columns, in mm; unknown when None.

    Returns:
        The volume.

    Raises:
        DataError: damaged, in colours, too large, or of pages that differ.
    """
    pages: list[np.ndarray] = []
    try:
        with Image.open(path, formats=("TIFF", "PNG")) as file:
            for page in ImageSequence.Iterator(file):
                if page.width * page.height > MAX_PIXELS:
                    raise DataError(
                        f"{path}: {page.width} x {page.height} pixels, more than the limit of {MAX_PIXELS:,}."
                    )
                if page.mode not in ("1", "L", "I", "F") and not page.mode.startswith("I;16"):
                    raise DataError(f'{path}: pixels of mode "{page.mode}". Expected grey images, one value a pixel.')
                pages.append(np.array(page))
    except DataError:
        raise
    # Pillow's parsers raise whatever they stumble over on a damaged file.
    except Exception as error:
        raise DataError(f"{path} cannot be read as TIFF or PNG: truncated or damaged ({error}).") from error
    if len({(page.shape, page.dtype) for page in pages}) > 1:
        kinds = " and ".join(sorted({f"{page.shape[1]} x {page.shape[0]} ({page.dtype})" for page in pages}))
        raise DataError(f"{path} has pages of {kinds}. Expected slices of one volume.")
    values = np.stack(pages)
    if spacing is not None and not all(0 < side < np.inf for side in spacing):
        raise DataError(f"spacing is three distances above 0 in mm (slice, row, column), got {spacing}.")
    # Slices go up, rows to the back and columns to the left, as those of an axial DICOM series.
    affine = None if spacing is None else np.diag([-spacing[2], -spacing[1], spacing[0], 1.0])
    return Volume(values.astype(values.dtype.newbyteorder("=")), Layout(values.shape[::-1], affine=affine), str(path))
