"""Recipe from plain values and back, checked on the way in."""

import dataclasses
import json
import typing
from collections.abc import Iterable, Mapping
from typing import Any

import pydantic
import yaml

from kerasvision.errors import RecipeError, closest
from kerasvision.recipe.fields import Recipe
from kerasvision.recipe.text import Loader, one_line


def from_dict(values: Mapping[str, Any], origin: str = "The recipe", lines: Mapping[str, int] | None = None) -> Recipe:
    """A checked recipe from nested dicts.

    Args:
        values: as `to_dict` gives them; what is left out takes its default.
        origin: what the error calls the recipe, such as the file's name.
        lines: "train.epochs" -> line in that file.

    Raises:
        RecipeError: an unknown key (the closest names are given), or a value of the wrong kind.
    """
    try:
        # JSON's strict mode takes lists for tuples, and neither "3" nor 3.7 nor true for an int.
        text = json.dumps(values, allow_nan=True)
    except (TypeError, ValueError) as error:
        raise RecipeError(f"{origin}: a recipe holds numbers, strings, lists and dicts only: {error}.") from error
    try:
        recipe = pydantic.TypeAdapter(Recipe).validate_json(text, strict=True)
    except pydantic.ValidationError as error:
        problems = dict.fromkeys(_explain(problem, lines or {}) for problem in error.errors())
        raise RecipeError(f"{origin}: " + "; ".join(problems)) from error
    if contradictions := _contradictions(recipe):
        raise RecipeError(f"{origin}: " + " ".join(contradictions))
    return recipe


def _contradictions(recipe: Recipe) -> list[str]:
    train = recipe.train
    found = []
    if not (train.epochs or train.freeze_epochs or train.stages):
        found.append("train.epochs and train.freeze_epochs are both 0: nothing would be trained.")
    epochs = {f"train.stages.{index}.epochs": stage.epochs for index, stage in enumerate(train.stages)}
    for name, count in {**epochs, "train.epochs": train.epochs}.items():
        if count and train.warmup_epochs >= count:
            found.append(f"train.warmup_epochs ({train.warmup_epochs}) must be less than {name} ({count}).")
    if train.strategy and train.clip_norm:
        # Keras 3.15 clips before the gradients of the replicas are summed.
        found.append('train.clip_norm would clip each replica by itself; leave it out with train.strategy="mirrored".')
    if recipe.data.multi_label and train.class_weights:
        found.append("train.class_weights is for one label per image, but data.multi_label is true.")
    if recipe.data.multi_label and recipe.data.sampling not in (None, "repeat_factor"):
        found.append(f'data.sampling="{recipe.data.sampling}" is for one label per image; take "repeat_factor".')
    if not recipe.quantize.enabled and any(kind == "qat" for _, kind in recipe.export.formats):
        found.append(
            'export.formats asks for "qat", but quantize.enabled is false. Enable it, or export "none" or "int8" (by '
            "calibration)."
        )
    return found


def to_dict(recipe: Recipe) -> dict[str, Any]:
    """Nested dicts and lists of every field, in types that JSON knows."""
    return json.loads(json.dumps(dataclasses.asdict(recipe)))


def override(recipe: Recipe, changes: Iterable[str]) -> Recipe:
    """A recipe with some values changed.

    Args:
        recipe: the one to start from.
        changes: "train.epochs=3", "model.arguments.alpha=0.5", "data.augment=[flip, crop]"; the value is YAML.

    Raises:
        RecipeError: not of that form, an unknown key, or a value of the wrong kind.
    """
    values = to_dict(recipe)
    for change in changes:
        key, equals, text = change.partition("=")
        if not equals or not key.strip():
            raise RecipeError(f'"{change}" is no override: expected key=value, such as train.epochs=3.')
        try:
            value = yaml.load(text, Loader=Loader)
        except yaml.YAMLError as error:
            raise RecipeError(f'"{change}": the value is not valid YAML: {one_line(error)}') from error
        _put(values, key.strip().split("."), value, change)
    return from_dict(values, "Override")


def differences(old: Recipe, new: Recipe) -> list[str]:
    """Lines "train.epochs: 3 -> 5" for every field in which two recipes differ."""
    before, after = _flatten(to_dict(old)), _flatten(to_dict(new))
    keys = dict.fromkeys([*before, *after])
    return [
        f"{key}: {json.dumps(before.get(key))} -> {json.dumps(after.get(key))}"
        for key in keys
        if before.get(key) != after.get(key)
    ]


def _flatten(values: Mapping[str, Any], prefix: str = "") -> dict[str, Any]:
    flat: dict[str, Any] = {}
    for key, value in values.items():
        name = f"{prefix}{key}"
        flat.update(_flatten(value, f"{name}.") if isinstance(value, dict) and value else {name: value})
    return flat


def _put(values: dict[str, Any], keys: list[str], value: Any, change: str) -> None:
    for depth, key in enumerate(keys[:-1]):
        inner = values.get(key) if key in values or depth < 2 else values.setdefault(key, {})
        if not isinstance(inner, dict):
            path = ".".join(keys[: depth + 1])
            if key in values:
                raise RecipeError(f'"{change}": {path} is a single value, it has nothing inside.')
            raise RecipeError(f'"{change}": unknown key "{path}".{closest(key, values)}')
        values = inner
    values[keys[-1]] = value


def _explain(problem: Any, lines: Mapping[str, int]) -> str:
    # Where a value may be one of several types, pydantic puts the type's name into the path.
    location = [part for part in problem["loc"] if part != "str" and "[" not in str(part)]
    keys = [str(part) for part in location]
    key = ".".join(keys)
    where = f"line {lines[key]}: " if key in lines else ""
    kind, given = problem["type"], json.dumps(problem["input"], default=str)
    if kind in ("unexpected_keyword_argument", "extra_forbidden"):
        known = {field.name for field in dataclasses.fields(_class_at(keys[:-1]))}
        return f'{where}unknown key "{key}".{closest(keys[-1], known)}'
    if kind == "missing":
        return f'{where}"{key}" is missing'
    hint = f" (in quotes: {key}='\"{given}\"')" if kind == "string_type" and not given.startswith(("[", "{")) else ""
    return f"{where}{key or 'it'}: {problem['msg'][0].lower()}{problem['msg'][1:]}, got {given}{hint}"


def _class_at(keys: list[str]) -> type:
    found: Any = Recipe
    for key in keys:
        # A number is a place in a tuple of parts.
        found = typing.get_args(found)[0] if key.isdigit() else typing.get_type_hints(found)[key]
    return found
