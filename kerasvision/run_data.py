"""Which data an artifact is judged on, and how the data's labels meet the model's."""

import dataclasses
import os
from collections import Counter
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any, Literal

import numpy as np

from kerasvision.class_maps import VOID, class_maps
from kerasvision.data import Data, load_data, save_split
from kerasvision.errors import DataError
from kerasvision.recipe import DataRecipe, Recipe, load_recipe

if TYPE_CHECKING:
    from kerasvision.runtime import Predictor


def recipe_of(path: Path) -> Recipe | None:
    """The recipe of the run folder that an artifact is, or lies in, with the run's own split; None: it lies in none.

    Raises:
        RecipeError: there is one, and it is damaged.
    """
    for folder in (path, *path.absolute().parents[:2]):
        if (folder / "recipe.yaml").is_file():
            recipe = load_recipe(folder / "recipe.yaml")
            split = folder / "split.json"
            if not split.is_file():
                return recipe
            return dataclasses.replace(recipe, data=dataclasses.replace(recipe.data, split_file=str(split)))
    return None


def load_recipe_data(
    data: DataRecipe, format: str | None = None, on_bad_files: Literal["stop", "skip"] | None = None
) -> Data:
    """The data of a recipe, split as in its run; `format` and `on_bad_files` override what it says."""
    loaded = load_data(
        data.source,
        format or data.format,
        validation_fraction=data.validation_fraction,
        test_fraction=data.test_fraction,
        seed=data.split_seed,
        on_bad_files=on_bad_files or data.on_bad_files,
        multi_label=data.multi_label,
        limit=data.limit,
        split=data.split,
        group_pattern=data.group_pattern,
        split_file=data.split_file,
        frame_step=data.frame_step,
    )
    return loaded if data.class_maps is None else loaded.with_class_maps(class_maps(data.class_maps))


def load_run_data(data: DataRecipe, split: Path) -> Data:
    """The data of a run, split as when the run began, whatever has been added to it since.

    Args:
        data: the run's recipe of it.
        split: the file in the run folder that says so; written where it is not there yet.
    """
    if split.exists():
        return load_recipe_data(dataclasses.replace(data, split_file=str(split)))
    loaded = load_recipe_data(data)
    save_split(loaded, split, rule=data.split, seed=data.split_seed)
    return loaded


def needs_class_maps(data: Data, border: str | None) -> bool:
    """Whether a segmenter with that border class is judged by maps that are yet to be made from what a set has."""
    example = next((examples[0] for examples in data.splits.values() if examples), {})
    if data.class_maps is not None:
        return False
    return "masks" in example or ("segmentation" in example and border is not None and border not in data.labels)


def same_source(source: str | os.PathLike[str], other: str) -> bool:
    """Whether two sources are one, also where one path is relative."""
    source = os.fspath(source)
    return source == other or (Path(other).exists() and Path(source).resolve() == Path(other).resolve())


def splits_of(data: Data, split: str) -> list[str]:
    """The splits that a wish names: "all" are all of them, and "test" is the only one where there is only one.

    Raises:
        DataError: no such split.
    """
    names = [name for name in ("train", "validation", "test") if data.splits.get(name)]
    if split == "all" or (split == "test" and len(names) == 1):
        return names
    if split not in names:
        raise DataError(
            f'{data.source} has no images in a split "{split}". It has: '
            f"{', '.join(f'{name} ({len(data.splits[name])} images)' for name in names)}. "
            'Name one of these, or "all".'
        )
    return [split]


def align_labels(predictor: "Predictor", data: Data) -> list[int]:
    """Where each label of a data set stands among a model's labels, found by name.

    A model without names, whose labels are "0", "1", ... (ImageNet weights bring none), is matched by position.

    Args:
        predictor: the model.
        data: the data set; its labels may stand in another order, or be only some of the model's.

    Returns:
        The model's index for each label of the data; -1 for one that it does not know, and no object has.

    Raises:
        DataError: the data has labels the model does not know, several for an image where it gives one, or labels of
            another kind: of images, objects or pixels.
    """
    _check_kind(predictor, data)
    numbered = predictor.labels == tuple(str(index) for index in range(len(predictor.labels)))
    if numbered and len(data.labels) == len(predictor.labels) and set(data.labels) != set(predictor.labels):
        return list(range(len(data.labels)))
    occurring = _of_objects(data) if predictor.detects else data.labels
    unknown = [label for label in occurring if label not in predictor.labels]
    if unknown:
        raise DataError(
            f"{predictor.path} does not know the labels {few(unknown)} of {data.source}. It knows "
            f"{few(predictor.labels)} ({len(predictor.labels)} in all). Rename the classes to the model's "
            "names, or train a model for this data with create_model(..., labels=data.labels)."
        )
    return [predictor.labels.index(label) if label in predictor.labels else -1 for label in data.labels]


def _check_kind(predictor: "Predictor", data: Data) -> None:
    """Raises a DataError where the data labels something else than the model predicts."""
    example = next((examples[0] for examples in data.splits.values() if examples), {})
    has = {
        "detection": "boxes" in example,
        "classification": "label" in example or "labels" in example,
        "segmentation": "segmentation" in example or data.class_maps is not None,
    }
    wanted = predictor.task.name
    if not has[wanted]:
        says = {
            "detection": "boxes of objects",
            "classification": "labels of whole images",
            "segmentation": "labels of pixels",
        }
        found = next((text for kind, text in says.items() if has[kind]), "none of these")
        raise DataError(
            f"{predictor.path} is {predictor.kind}: it is judged by {says[wanted]}, and {data.source} has {found}. "
            "Name data with them, or a model for this data."
        )
    if wanted == "classification" and data.multi_label != predictor.multi_label:
        kinds = {True: "any number of labels", False: "one label"}
        raise DataError(
            f"{data.source} gives each image {kinds[data.multi_label]}, but {predictor.path} was trained for "
            f"{kinds[predictor.multi_label]}. Load the data with multi_label={predictor.multi_label}."
        )


def _of_objects(data: Data) -> list[str]:
    """The labels that objects have: files of boxes name others, too."""
    classes = [example["classes"] for examples in data.splits.values() for example in examples]
    return [data.labels[index] for index in np.unique(np.concatenate(classes)).astype(int)]


def to_model_order(targets: dict[str, np.ndarray], order: Sequence[int], classes: int) -> dict[str, np.ndarray]:
    """Targets in the model's order of labels.

    Args:
        targets: {"label": [N]}, {"labels": [N, K of the data]}, "classes" [N, M] or "segmentation" among others.
        order: from `align_labels`.
        classes: K of the model.

    Returns:
        The same keys; "labels" have the K of the model.
    """
    if "classes" in targets:
        return {**targets, "classes": np.asarray(order)[targets["classes"]]}
    if "segmentation" in targets:
        table = np.full(VOID + 1, VOID, np.uint8)
        table[: len(order)] = order
        return {**targets, "segmentation": table[targets["segmentation"]]}
    if "labels" not in targets:
        return {"label": np.asarray(order)[targets["label"]]}
    labels = np.zeros((len(targets["labels"]), classes), targets["labels"].dtype)
    labels[:, order] = targets["labels"]
    return {"labels": labels}


def judged_targets(predictor: "Predictor", targets: Any) -> dict[str, np.ndarray]:
    """The targets of a batch by which a model is judged; masks, which are large, where it gives any.

    Raises:
        DataError: there are none for this model.
    """
    if predictor.detects:
        needed: tuple[str, ...] = ("boxes", "classes", "valid")
    elif predictor.task.name == "segmentation":
        needed = ("segmentation",)
    else:
        needed = ("labels" if predictor.multi_label else "label",)
    if not isinstance(targets, Mapping) or not set(needed) <= set(targets):
        got = ", ".join(targets) if isinstance(targets, Mapping) else f"a {type(targets).__name__}"
        raise DataError(f"{predictor.path} is judged by the targets {', '.join(needed)}, and a batch has {got}.")
    objects = ("crowd", "difficult", *(("masks",) if predictor.segments else ()))
    kept = (*needed, *{"detection": objects, "segmentation": ("instances",)}.get(predictor.task.name, ()))
    return {name: np.asarray(targets[name]) for name in kept if name in targets}


def join(batches: Sequence[Mapping[str, np.ndarray]]) -> dict[str, np.ndarray]:
    """Batches in one, name -> [N, ...]; objects [B, M, ...] are padded to the largest M by zeros."""
    joined = {}
    for name in batches[0]:
        parts = [batch[name] for batch in batches]
        most = max(part.shape[1] if part.ndim > 1 else 0 for part in parts)
        joined[name] = np.concatenate(
            [
                part
                if part.ndim < 2
                else np.pad(part, [(0, 0), (0, most - part.shape[1]), *[(0, 0)] * (part.ndim - 2)])
                for part in parts
            ]
        )
    return joined


def count_objects(targets: Mapping[str, np.ndarray], labels: Sequence[str]) -> Counter[str]:
    """How many objects of each label there are; crowds and difficult ones, which need not be found, do not count.

    Args:
        targets: of `Predictor.judged`.
        labels: the model's.
    """
    counted = targets["valid"]
    for name in ("crowd", "difficult"):
        counted = counted & ~targets.get(name, np.zeros_like(counted))
    counts = np.bincount(targets["classes"][counted], minlength=len(labels))
    return Counter(dict(zip(labels, counts.tolist(), strict=True)))


def few(names: Sequence[str], count: int = 8) -> str:
    """The first names of a list in quotes, and how many more there are."""
    shown = ", ".join(f'"{name}"' for name in names[:count])
    return shown if len(names) <= count else f"{shown} and {len(names) - count} more"
