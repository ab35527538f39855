"""Computer vision for Keras 3, from a data set to a phone.

Every public name stands here and is imported when it is first used: `import kerasvision` loads neither
TensorFlow nor Keras.
"""

import importlib
import sys
import types
from typing import TYPE_CHECKING, Any

import wrapt

__version__ = "0.1.0"

if TYPE_CHECKING:
    from kerasvision.compress import cluster as cluster
    from kerasvision.compress import fold as fold
    from kerasvision.compress import prune as prune
    from kerasvision.compress import quantize as quantize
    from kerasvision.compress import sensitivity as sensitivity
    from kerasvision.data import Data as Data
    from kerasvision.data import load_data as load_data
    from kerasvision.export import benchmark as benchmark
    from kerasvision.export import export as export
    from kerasvision.preprocessing import Preprocessing as Preprocessing
    from kerasvision.recipe import Recipe as Recipe
    from kerasvision.registry import Weights as Weights
    from kerasvision.registry import create_model as create_model
    from kerasvision.registry import list_models as list_models
    from kerasvision.registry import register as register
    from kerasvision.report.inspection import DataReport as DataReport
    from kerasvision.report.inspection import inspect as inspect
    from kerasvision.runtime import Predictor as Predictor
    from kerasvision.runtime import evaluate as evaluate
    from kerasvision.runtime import load as load
    from kerasvision.task import Task as Task
    from kerasvision.task import TaskModel as TaskModel
    from kerasvision.tiles import with_tiles as with_tiles
    from kerasvision.training.callbacks import callbacks as callbacks
    from kerasvision.training.layerwise import layerwise as layerwise
    from kerasvision.training.run import train as train
    from kerasvision.training.stages import stages as stages
    from kerasvision.training.stages import unfreeze as unfreeze
    from kerasvision.training.throughput import throughput as throughput
    from kerasvision.tta import with_tta as with_tta

_HOME = {
    "Data": "kerasvision.data",
    "DataReport": "kerasvision.report.inspection",
    "Preprocessing": "kerasvision.preprocessing",
    "Predictor": "kerasvision.runtime",
    "Recipe": "kerasvision.recipe",
    "Task": "kerasvision.task",
    "TaskModel": "kerasvision.task",
    "Weights": "kerasvision.registry",
    "benchmark": "kerasvision.export",
    "callbacks": "kerasvision.training.callbacks",
    "cluster": "kerasvision.compress",
    "create_model": "kerasvision.registry",
    "evaluate": "kerasvision.runtime",
    "export": "kerasvision.export",
    "fold": "kerasvision.compress",
    "inspect": "kerasvision.report.inspection",
    "layerwise": "kerasvision.training.layerwise",
    "list_models": "kerasvision.registry",
    "load": "kerasvision.runtime",
    "load_data": "kerasvision.data",
    "prune": "kerasvision.compress",
    "quantize": "kerasvision.compress",
    "register": "kerasvision.registry",
    "sensitivity": "kerasvision.compress",
    "stages": "kerasvision.training.stages",
    "train": "kerasvision.training.run",
    "throughput": "kerasvision.training.throughput",
    "unfreeze": "kerasvision.training.stages",
    "with_tiles": "kerasvision.tiles",
    "with_tta": "kerasvision.tta",
}
__all__ = ["__version__", *_HOME]


def __getattr__(name: str) -> Any:
    if name not in _HOME:
        raise AttributeError(f"module 'kerasvision' has no attribute {name!r}")
    value = getattr(importlib.import_module(_HOME[name]), name)
    globals()[name] = value
    return value


def __dir__() -> list[str]:
    return sorted(__all__)


class _Package(types.ModuleType):
    """Keeps `kerasvision.export` the function: importing the room of that name would bind the module instead."""

    def __setattr__(self, name: str, value: Any) -> None:
        if not (name in _HOME and isinstance(value, types.ModuleType)):
            super().__setattr__(name, value)


sys.modules[__name__].__class__ = _Package


@wrapt.when_imported("keras")
def _register_with_keras(_: Any) -> None:
    """Make `keras.saving.load_model` know TaskModel and its optimizers as soon as both packages are there."""
    importlib.import_module("kerasvision.task")
    importlib.import_module("kerasvision.training.layerwise")
