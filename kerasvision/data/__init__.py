"""Data: sources become verified, labelled examples, and examples become batches for a net."""

from kerasvision.data.arrays import load_arrays
from kerasvision.data.dataset import Data, Example
from kerasvision.data.decode import load_image
from kerasvision.data.inspect import BadFile
from kerasvision.data.shards import write_shards
from kerasvision.data.sources import FORMATS, load_data
from kerasvision.data.splits import save_split

__all__ = [
    "FORMATS",
    "BadFile",
    "Data",
    "Example",
    "load_arrays",
    "load_data",
    "load_image",
    "save_split",
    "write_shards",
]
