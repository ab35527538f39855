"""What a run is: data, model, schedule, quantization and exports, as nested frozen dataclasses.

A recipe is written in Python or YAML, changed by `key=value` on the command line, and saved as YAML beside what
came out of it. Constructors only store; `load_recipe`, `override`, `from_dict` and `train` check. Nothing here imports
TensorFlow.
"""

from kerasvision.recipe.checks import differences, from_dict, override, to_dict
from kerasvision.recipe.fields import (
    DataRecipe,
    ExportRecipe,
    ModelRecipe,
    QuantizeRecipe,
    Recipe,
    StageRecipe,
    TrainRecipe,
)
from kerasvision.recipe.files import load_recipe, to_yaml

__all__ = [
    "DataRecipe",
    "ExportRecipe",
    "ModelRecipe",
    "QuantizeRecipe",
    "Recipe",
    "StageRecipe",
    "TrainRecipe",
    "differences",
    "from_dict",
    "load_recipe",
    "override",
    "to_dict",
    "to_yaml",
]
