"""Recipes in files: Python and YAML."""

import dataclasses
import re
import runpy
import traceback
from pathlib import Path
from typing import Any

import yaml

from kerasvision.errors import RecipeError, closest
from kerasvision.recipe import fields
from kerasvision.recipe.checks import from_dict, to_dict
from kerasvision.recipe.fields import Recipe
from kerasvision.recipe.text import Dumper, Loader, one_line


def to_yaml(recipe: Recipe) -> str:
    """The whole recipe as YAML, defaults included; `load_recipe` reads it back."""
    return yaml.dump(to_dict(recipe), Dumper=Dumper, sort_keys=False, allow_unicode=True)


def load_recipe(path: str | Path) -> Recipe:
    """Read a recipe.

    Args:
        path: a .py file that defines `recipe`, or a .yaml file.

    Raises:
        RecipeError: no such file, no recipe in it, an unknown key or a value of the wrong kind.
    """
    path = Path(path)
    if not path.is_file():
        raise RecipeError(
            f"There is no recipe file {path}. Expected a .py file that defines `recipe`, or a .yaml file."
        )
    if path.suffix == ".py":
        return _from_python(path)
    if path.suffix in (".yaml", ".yml"):
        return _from_yaml(path)
    raise RecipeError(f"{path} is no recipe: expected a .py, .yaml or .yml file.")


def _from_python(path: Path) -> Recipe:
    try:
        found = runpy.run_path(str(path)).get("recipe")
    except Exception as error:
        raise RecipeError(f"{path}{_line_of(error, path)}: {_python_problem(error)}") from error
    if not isinstance(found, Recipe):
        what = "defines no `recipe`" if found is None else f"defines `recipe` as {type(found).__name__}"
        raise RecipeError(f"{path} {what}: expected recipe = Recipe(data=DataRecipe(...), model=ModelRecipe(...)).")
    # Dataclasses take what they are given; this checks it.
    return from_dict(dataclasses.asdict(found), str(path))


def _line_of(error: Exception, path: Path) -> str:
    if isinstance(error, SyntaxError) and error.lineno:
        return f", line {error.lineno}"
    frames = [frame for frame in traceback.extract_tb(error.__traceback__) if frame.filename == str(path)]
    return f", line {frames[-1].lineno}" if frames else ""


def _python_problem(error: Exception) -> str:
    match = re.fullmatch(r"(\w+)\.__init__\(\) got an unexpected keyword argument '(\w+)'.*", str(error))
    recipe_class = getattr(fields, match[1], None) if match else None
    if match and dataclasses.is_dataclass(recipe_class):
        return f'unknown key "{match[2]}".{closest(match[2], {f.name for f in dataclasses.fields(recipe_class)})}'
    return f"{type(error).__name__}: {error}"


def _from_yaml(path: Path) -> Recipe:
    try:
        text = path.read_text(encoding="utf-8")
        node = yaml.compose(text, Loader=Loader)
        values = yaml.load(text, Loader=Loader)
    except (yaml.YAMLError, UnicodeDecodeError) as error:
        raise RecipeError(f"{path} is not valid YAML: {one_line(error)}") from error
    if not isinstance(values, dict):
        raise RecipeError(f"{path} holds no recipe: expected the keys data and model, got {type(values).__name__}.")
    return from_dict(values, str(path), _key_lines(node))


def _key_lines(node: Any, prefix: str = "") -> dict[str, int]:
    lines: dict[str, int] = {}
    if isinstance(node, yaml.MappingNode):
        for key, value in node.value:
            name = f"{prefix}{key.value}"
            lines[name] = key.start_mark.line + 1
            lines.update(_key_lines(value, f"{name}."))
    elif isinstance(node, yaml.SequenceNode):
        for index, value in enumerate(node.value):
            lines[f"{prefix}{index}"] = value.start_mark.line + 1
            lines.update(_key_lines(value, f"{prefix}{index}."))
    return lines
