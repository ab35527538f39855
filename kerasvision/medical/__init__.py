"""Volumes: DICOM, NIfTI and images of 16 bits, segmented slice by slice, written back in their own geometry.

Needs the extra `medical`. Of a DICOM file only the elements that say how to read and to place its pixels are ever
read: names, dates and numbers of patients are not, so nothing here can log or write them. Paths are kept as they are.
"""

from kerasvision.medical.reading import find_volumes, read_volume
from kerasvision.medical.segmenting import SegmentedVolume, segment
from kerasvision.medical.slices import write_slices
from kerasvision.medical.volume import Volume, Window, percentile_window

__all__ = [
    "SegmentedVolume",
    "Volume",
    "Window",
    "find_volumes",
    "percentile_window",
    "read_volume",
    "segment",
    "write_slices",
]
