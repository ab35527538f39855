"""Data: sources become verified, labelled examples, and examples become batches for a net."""

from kerasvision.data.dataset import Data, Example
from kerasvision.data.decode import load_image
from kerasvision.data.inspect import BadFile
from kerasvision.data.sources import FORMATS, load_data

__all__ = ["FORMATS", "BadFile", "Data", "Example", "load_data", "load_image"]
