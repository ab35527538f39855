"""The contract every task fulfils, and TaskModel, the one keras.Model subclass that carries a task."""

import abc
import functools
import re
import warnings
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any, ClassVar, Protocol

import keras
import numpy as np
from keras import ops
from keras.src.losses.loss import scale_loss_for_distribution

from kerasvision.errors import ExportError, UnknownNameError, WeightsError, closest
from kerasvision.preprocessing import Preprocessing

Tensors = dict[str, Any]


class Meter(Protocol):
    """Figures of a data set, gathered batch by batch: exact whatever the size of the batches."""

    def update(self, targets: Mapping[str, Any], predictions: Mapping[str, Any]) -> None:
        """Adds a batch: targets as `Data.batches` yields them, predictions of `Task.decode`."""

    def result(self) -> dict[str, float]:
        """Name -> value of all batches so far; what the data cannot give is left out."""


class Task(abc.ABC):
    """What a net is for: its loss, its decoding, its metrics.

    `loss`, `monitors` and `decode` are written in `keras.ops` alone: they run on every Keras backend, inside the
    tf_keras twin during quantization-aware training, and inside every exported file.
    """

    name: ClassVar[str]
    labels: tuple[str, ...]
    loss_names: tuple[str, ...]
    monitor_names: tuple[str, ...]
    primary_metric: str
    # Figures of `meter` that no batch tells: training measures the validation data after every epoch. () where batches
    # tell all.
    measured_names: tuple[str, ...] = ()
    # Of the objects' masks among the targets, see `Data.batches`; None for a task that takes none.
    mask_stride: int | None = None
    # Decoded outputs that are indices below 256: files give them as bytes, whatever else they give.
    indices: ClassVar[tuple[str, ...]] = ()
    # Whether an int8 file keeps the decoding in float32 behind the net, because 8 bits are too coarse for it.
    float_decode: ClassVar[bool] = False
    # Whether what lies at the border of an image counts as well: the whole image is fitted, whatever the weights of the
    # backbone were trained on.
    whole_image: ClassVar[bool] = False

    @abc.abstractmethod
    def loss(self, targets: Tensors, outputs: Tensors, sample_weight: Any = None) -> Tensors:
        """Named scalars, averaged over the batch; their sum is trained."""

    @abc.abstractmethod
    def monitors(self, targets: Tensors, outputs: Tensors) -> Tensors:
        """Named scalars of one batch that are shown while training, and not trained."""

    @abc.abstractmethod
    def decode(self, outputs: Tensors) -> Tensors:
        """Raw outputs to predictions, the same function everywhere."""

    @abc.abstractmethod
    def meter(self) -> Meter:
        """What measures decoded predictions, outside any graph."""

    def metrics(self, targets: Mapping[str, np.ndarray], predictions: Mapping[str, np.ndarray]) -> dict[str, float]:
        """Figures over a whole data set that is in memory, see `meter`."""
        meter = self.meter()
        meter.update(targets, predictions)
        return meter.result()

    @abc.abstractmethod
    def get_config(self) -> dict[str, Any]:
        """The constructor's arguments, in types that JSON knows."""


def _as_number(values: Any) -> Any:
    return ops.cast(values, "uint8") if keras.backend.standardize_dtype(values.dtype) == "bool" else values


@keras.saving.register_keras_serializable("kerasvision")
class TaskModel(keras.Model):
    """A flat functional graph from raw pixels to a dict of raw outputs, with a task on board.

    `compile("adam")` and `fit(dataset)` need nothing more. Saved to `.keras`, it comes back whole wherever
    `kerasvision` was imported: the file holds the `create_model` call, and the weights.

    Made by `kerasvision.create_model`.

    Args:
        inputs: the "image" input, [B, H, W, C] pixels of 0..255.
        outputs: name -> raw output.
        task: loss, decode and metrics.
        preprocessing: of the image; its scale and offset are the graph's first layer.
        build: {"name": ..., "arguments": {...}}, the call that rebuilds this graph.
        taps: name of a feature, such as "P4" -> name of the layer it comes from, which may lie beside the graph.
    """

    def __init__(
        self,
        inputs: Any,
        outputs: Tensors,
        *,
        task: Task,
        preprocessing: Preprocessing,
        build: dict[str, Any],
        taps: Mapping[str, str] | None = None,
    ) -> None:
        super().__init__(inputs, outputs, name=build["name"])
        self.task = task
        self.preprocessing = preprocessing
        self.fit_data: Any = None
        # What `kerasvision.fold` has done, a FoldReport; not saved.
        self.fold_report: Any = None
        # A closure, because Keras would wrap a dict attribute and save it as a layer's state.
        self._build_call = lambda: build
        # A net may use some of a backbone's features only.
        used = {layer.name for layer in self.layers}
        self._taps = tuple((feature, layer) for feature, layer in (taps or {}).items() if layer in used)
        # One running mean for each named loss and monitor; Keras finds them here and logs them.
        self._trackers = [keras.metrics.Mean(name=name) for name in (*task.loss_names, *task.monitor_names)]

    @property
    def labels(self) -> tuple[str, ...]:
        """Class names, in the order of the outputs."""
        return self.task.labels

    @property
    def image_size(self) -> tuple[int, int]:
        """(height, width) of the input in pixels."""
        return tuple(self.input_shape[1:3])

    @property
    def channels(self) -> int:
        """Channels of the input, 1 or 3."""
        return self.input_shape[3]

    @property
    def taps(self) -> dict[str, str]:
        """Feature name, such as "P4" (stride 16) -> name of the layer it comes from, from fine to coarse."""
        return dict(self._taps)

    def features(self, name: str | Sequence[str]) -> keras.Model:
        """A model of raw pixels -> one feature map or several, on this model's own layers.

        Args:
            name: "P4" or the like (C4 is another word for it), or the name of any layer; or several of them.

        Returns:
            Image -> that layer's output; -> {name: output} where several names were given.

        Raises:
            UnknownNameError: no such feature or layer; the closest names are given.
        """
        if isinstance(name, str):
            return keras.Model(self.input, self._feature(name), name=f"{self.name}_{name}")
        return keras.Model(self.input, {each: self._feature(each) for each in name}, name=f"{self.name}_features")

    def _feature(self, name: str) -> Any:
        taps = self.taps
        layer = taps.get(name) or taps.get(re.sub(r"^C(?=\d$)", "P", name), name)
        known = [layer.name for layer in self.layers]
        if layer not in known:
            raise UnknownNameError(
                f'{self.name} has no feature or layer "{name}"; features: {", ".join(taps)}.{closest(name, known)}'
            )
        return self.get_layer(layer).output

    @functools.cached_property
    def net(self) -> keras.Model:
        """The graph behind the preprocessing: normalized image -> dict of raw outputs, on shared layers."""
        self.check_graph()
        return keras.Model(self.get_layer("preprocessing").output, self.output, name=self.name)

    def check_graph(self) -> None:
        """Make sure that the graph holds all that the model does.

        Raises:
            ExportError: a layer has an attribute `outside`, which says what it does beside the graph.
        """
        for layer in self.layers:
            if reason := getattr(layer, "outside", None):
                raise ExportError(
                    f'{self.name} cannot be exported or quantized: {reason} (layer "{layer.name}"). Use it from its '
                    ".keras file, or take a model whose graph holds all that it does, such as faster_rcnn."
                )

    def __dir__(self) -> list[str]:
        # Keras saves every attribute that `dir` names; `net` is a view on layers that are saved already.
        return [name for name in super().__dir__() if name != "net"]

    def fit(self, x: Any = None, y: Any = None, **kwargs: Any) -> Any:
        """Train as `keras.Model.fit` does; remembers the data set, so that `export` can check files on it."""
        validation = kwargs.get("validation_data")
        self.fit_data = validation if validation is not None else (x if y is None else (x, y))
        if hasattr(x, "element_spec"):
            kwargs.setdefault("shuffle", False)  # Keras warns when it cannot shuffle, and it cannot shuffle these.
        if validation is not None:
            kwargs["validation_data"] = self._summable(validation)
        return super().fit(self._summable(x), y, **kwargs)

    def evaluate(self, x: Any = None, y: Any = None, **kwargs: Any) -> Any:
        """The losses on a data set, as `keras.Model.evaluate` gives them."""
        return super().evaluate(self._summable(x), y, **kwargs)

    def _summable(self, data: Any) -> Any:
        """Under a strategy, a data set with numbers for booleans: Keras (3.15) looks at the mean of the replicas."""
        if getattr(self, "_distribute_strategy", None) is None or not hasattr(data, "element_spec"):
            return data
        as_numbers = functools.partial(keras.tree.map_structure, _as_number)
        return data.map(lambda *batch: as_numbers(batch))

    def compute_loss(
        self, x: Any = None, y: Any = None, y_pred: Any = None, sample_weight: Any = None, training: bool = True
    ) -> Any:
        """Sum of the task's losses and of the layers' own (regularizers)."""
        losses = self.task.loss(y, y_pred, sample_weight)
        shown = {**losses, **self.task.monitors(y, y_pred)}
        batch = ops.shape(next(iter(y_pred.values())))[0]
        for tracker in self._trackers:
            tracker.update_state(shown[tracker.name], sample_weight=ops.cast(batch, "float32"))
        total = sum([*losses.values(), *self.losses])
        return scale_loss_for_distribution(total)

    def get_config(self) -> dict[str, Any]:
        """The `create_model` call that rebuilds this model; of a folded one also what was folded."""
        return self._build_call()

    @classmethod
    def from_config(cls, config: dict[str, Any], custom_objects: Any = None) -> "TaskModel":
        """Rebuild through the registry, with fresh weights."""
        from kerasvision.registry import create_model

        model = create_model(config["name"], **config["arguments"])
        if "folded" not in config:
            return model
        from kerasvision.folding import fold_graph

        return fold_graph(model, **config["folded"]).model

    def load_trained(self, path: str | Path) -> tuple[str, ...]:
        """Load the weights of a `.weights.h5` or `.keras` file of the same architecture.

        From a `.keras` file with another number of classes, everything is taken but the layers whose shapes depend on
        that number.

        Returns:
            Names of the layers that were left fresh; a warning names them too.

        Raises:
            WeightsError: not such a file, or its weights do not fit this model.
        """
        path = Path(path)
        if not path.name.endswith((".keras", ".weights.h5")):
            raise WeightsError(f"Expected weights in a .weights.h5 or .keras file, got {path}.")
        fresh: tuple[str, ...] = ()
        try:
            if path.suffix == ".keras":
                trained = keras.saving.load_model(path, compile=False)
                fresh = self._copy_weights(trained)
            else:
                self.load_weights(path)
        except Exception as error:
            raise WeightsError(
                f"The weights in {path} do not fit {self.name}: {error}. Build the model with the name and arguments "
                "(alpha, filters, ...) that the weights were trained with."
            ) from error
        if fresh:
            warnings.warn(
                f"{path} has {len(trained.labels)} classes, this {self.name} has {len(self.labels)}. Layers that have "
                f"to learn them anew: {', '.join(fresh)}.",
                stacklevel=3,
            )
        return fresh

    def _copy_weights(self, trained: "TaskModel") -> tuple[str, ...]:
        same = self if len(trained.labels) == len(self.labels) else self._with_labels(trained.labels)
        fresh = []
        for layer in self.layers:
            values = trained.get_layer(layer.name).get_weights()
            shapes = [value.shape for value in values]
            if [weight.shape for weight in same.get_layer(layer.name).weights] != shapes:
                raise ValueError(f'layer "{layer.name}" has weights of other shapes')
            if [weight.shape for weight in layer.weights] == shapes:
                layer.set_weights(values)
            else:
                fresh.append(layer.name)
        return tuple(fresh)

    def _with_labels(self, labels: Sequence[str]) -> "TaskModel":
        """This net for other classes, with fresh weights."""
        call = self._build_call()
        settings = self.task.get_config()
        arguments = {name: value for name, value in call["arguments"].items() if name not in settings}
        return TaskModel.from_config({**call, "arguments": {**arguments, "labels": list(labels)}})
