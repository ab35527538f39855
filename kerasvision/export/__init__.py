"""Exported files: written whole or not at all, run again, compared with the model, and reported.

Names are imported when they are first used: the converters' process and a benchmark need no Keras.
"""

import importlib
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from kerasvision.export.exporter import export as export
    from kerasvision.export.metadata import read_metadata as read_metadata
    from kerasvision.export.report import ExportReport as ExportReport
    from kerasvision.export.timing import benchmark as benchmark

_HOME = {
    "ExportReport": "kerasvision.export.report",
    "benchmark": "kerasvision.export.timing",
    "export": "kerasvision.export.exporter",
    "read_metadata": "kerasvision.export.metadata",
}
__all__ = list(_HOME)


def __getattr__(name: str) -> Any:
    if name not in _HOME:
        raise AttributeError(f"module 'kerasvision.export' has no attribute {name!r}")
    return getattr(importlib.import_module(_HOME[name]), name)
