"""Which recipe a command line means: a file, or one made from a model and data."""

import json
from pathlib import Path
from typing import TYPE_CHECKING, Any

import click
import numpy as np

from kerasvision.errors import RecipeError

if TYPE_CHECKING:
    from kerasvision.data import Data
    from kerasvision.recipe import Recipe

RUNS = Path("saved_models")
# Images up to this size are small ones (digits, icons): a net for photographs would only enlarge them.
SMALL = 96
LOOKED_AT = 64


def recipe_and_folder(
    arguments: tuple[str, ...],
    *,
    task: str | None,
    model: str | None,
    weights: str | None,
    data: str | None,
    data_format: str | None,
    epochs: int | None,
    skip_bad_files: bool,
    out: str | None,
) -> tuple["Recipe", Path]:
    """The recipe to run, overrides applied, and the run folder.

    Args:
        arguments: [RECIPE] key=value ...
        task: of a recipe to be made.
        model: of a recipe to be made.
        weights: of a recipe to be made.
        data: source; in place of the recipe's.
        data_format: of the source.
        epochs: in place of the recipe's.
        skip_bad_files: go on without unusable files.
        out: the run folder; saved_models/NAME when None.

    Raises:
        click.UsageError: neither or both ways of naming a recipe.
        RecipeError: no such recipe, an unknown key, or a value of the wrong kind.
    """
    from kerasvision.recipe import load_recipe, override

    files = [argument for argument in arguments if "=" not in argument]
    changes = [argument for argument in arguments if "=" in argument]
    if len(files) > 1:
        raise click.UsageError(f"Expected one RECIPE and key=value overrides, got {', '.join(files)}.")
    if files and (model or task or weights):
        raise click.UsageError("RECIPE says which model to train; change it with model.name=... instead of --model.")
    if not files and not (model and data):
        raise click.UsageError(
            "Give a RECIPE file, or --model NAME and --data PATH (`kerasvision list` shows the names)."
        )
    options: dict[str, Any] = {"data.source": data, "data.format": data_format, "train.epochs": epochs}
    options["data.on_bad_files"] = "skip" if skip_bad_files else None
    if files:
        recipe, name = load_recipe(files[0]), Path(files[0]).stem
    else:
        recipe = _from_options(str(model), str(data), data_format, task, weights)
        name = f"{model}-{_data_name(str(data))}"
    given = [f"{key}={json.dumps(value)}" for key, value in options.items() if value is not None]
    return override(recipe, [*given, *changes]), Path(out) if out else RUNS / name


def _data_name(source: str) -> str:
    return Path(source).absolute().stem if Path(source).exists() else source.replace(":", "-").replace("/", "-")


def _from_options(model: str, source: str, format: str | None, task: str | None, weights: str | None) -> "Recipe":
    """A recipe with sensible choices for a model and data."""
    from kerasvision.data import load_data
    from kerasvision.recipe import DataRecipe, ModelRecipe, QuantizeRecipe, Recipe, TrainRecipe
    from kerasvision.registry import get_entry

    entry, _ = get_entry(model, task)
    # A first look at a few images; the run itself will read them all, and complain about bad ones.
    data = load_data(source, format, validation_fraction=0.0, on_bad_files="skip", limit=LOOKED_AT)
    if weights is None and entry.weights:
        click.echo(
            f"{model} starts from random weights; it also has trained ones: --weights {' or '.join(entry.weights)}.",
            err=True,
        )
    shape = input_shape(data, entry.input_shape, pretrained=weights is not None)
    train = TrainRecipe(epochs=10, learning_rate=1e-3, warmup_epochs=1)
    if weights is not None:
        train = TrainRecipe(epochs=5, learning_rate=1e-4, warmup_epochs=1, freeze_epochs=2)
    padding = max(1, min(shape[:2]) // 10)
    return Recipe(
        data=DataRecipe(
            source, test_fraction=0.1, multi_label=data.multi_label, augment=({"name": "crop", "padding": padding},)
        ),
        model=ModelRecipe(model, input_shape=shape, weights=weights, task=task),
        train=train,
        quantize=QuantizeRecipe(),
    )


def input_shape(data: "Data", default: tuple[int, int, int], pretrained: bool) -> tuple[int, int, int]:
    """The model's usual input, or the images' own size and channels where they are small.

    Args:
        data: whose training images are looked at.
        default: (H, W, C) of the model.
        pretrained: trained weights want the channels they were trained with.
    """
    from kerasvision.data.decode import read_image

    examples = data.splits.get("train") or []
    images = [read_image(example["image"]) for example in examples]
    if not images:
        raise RecipeError(f"{data.source} has no training images.")
    height, width = (int(np.median([image.shape[axis] for image in images])) for axis in (0, 1))
    grey = all(image.shape[-1] == 1 for image in images) and not pretrained
    # Deep nets halve the image five times: below 32 pixels nothing is left of it.
    least = 32 if min(default[:2]) > 32 else 1
    small = max(height, width) <= SMALL
    size = (max(height, least), max(width, least)) if small else default[:2]
    return (*size, 1 if grey else default[2])
