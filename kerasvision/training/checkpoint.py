"""One file that holds everything a killed training needs to go on as if nothing had happened."""

import json
from pathlib import Path
from typing import Any

import keras
import numpy as np

from kerasvision.errors import ArtifactError, TrainingDivergedError
from kerasvision.files import replacing

META = "meta"

# What each stage counts for itself.
_ANEW = {"wait": 0, "stopped": False}


class Checkpoint(keras.callbacks.Callback):
    """Writes the state after each epoch, and takes it up again when `fit` begins.

    Weights, optimizer (moments, step, moving average), dropout seeds, the history and the state of other callbacks
    are one file, written whole or not at all. Weights that are not finite are never written.

    Put it behind the callbacks whose state it keeps.

    A training may be cut into stages, each of them a `fit` with an optimizer of its own; epochs are counted through.
    Before each `fit`, `begin_stage` says which one it is. A stage takes up the weights and the history of the one
    before it, but neither its optimizer nor the epochs that it waited in vain.

    Args:
        path: the file, ending in .npz.
        keepers: name -> callback with a `state` dict of JSON values.
        every: also write after every so many steps.
    """

    def __init__(self, path: str | Path, keepers: dict[str, Any], every: int | None = None) -> None:
        super().__init__()
        self.path = Path(path)
        self.keepers = keepers
        self.every = every
        self._stage = 0
        self._stage_epoch = 0
        self._epoch = 0
        self._first_step = 0
        self._metric_values: list[np.ndarray] = []

    def read(self) -> dict[str, Any] | None:
        """What the file says about itself, or None where there is no file.

        Returns:
            {"stage", "stage_epoch", "epoch", "step", "keepers"}: `epoch` epochs are done, and `step` steps of the next;
            `stage_epoch` were done when the stage began.

        Raises:
            ArtifactError: the file is damaged.
        """
        return self._open()[0] if self.path.exists() else None

    def begin_stage(self, stage: int) -> tuple[int, int, int]:
        """Say which stage the next `fit` belongs to.

        Args:
            stage: counted from 0.

        Returns:
            Epochs done before the stage, epochs done by now, steps done of the next epoch.
        """
        state = self.read() or {"stage": stage, "stage_epoch": 0, "epoch": 0, "step": 0}
        self._stage = stage
        self._stage_epoch = state["stage_epoch"] if state["stage"] == stage else state["epoch"]
        return self._stage_epoch, state["epoch"], state["step"]

    def on_train_begin(self, logs: Any = None) -> None:
        """Restore what an earlier process wrote."""
        self._first_step, self._metric_values = 0, []
        self.model._initial_epoch = None
        if not self.path.exists():
            return
        meta, arrays = self._open()
        same_stage = meta["stage"] == self._stage
        variables = self._all_variables() if same_stage else self.model.variables
        shapes = meta["shapes"] if same_stage else meta["shapes"][: len(variables)]
        if [list(v.shape) for v in variables] != shapes:
            raise ArtifactError(
                f"{self.path} belongs to another model: its {len(shapes)} arrays do not fit the "
                f"{len(variables)} variables of {self.model.name} and its optimizer. Remove it to start over."
            )
        for index, variable in enumerate(variables):
            variable.assign(arrays[str(index)])
        for name, keeper in self.keepers.items():
            state = meta["keepers"][name]
            keeper.state = state if same_stage else {key: _ANEW.get(key, value) for key, value in state.items()}
        self._first_step = meta["step"]
        self._metric_values = [arrays[f"metric{index}"] for index in range(meta["metrics"])]
        stopped = any(keeper.state.get("stopped") for keeper in self.keepers.values())
        self.model._initial_epoch = self.params["epochs"] if stopped else meta["epoch"]

    def on_epoch_begin(self, epoch: int, logs: Any = None) -> None:
        """Take up the running means of an epoch that was cut off."""
        self._epoch = epoch
        if self._first_step:
            for variable, value in zip(_metric_variables(self.model), self._metric_values, strict=True):
                variable.assign(value)

    def on_train_batch_end(self, batch: int, logs: Any = None) -> None:
        """Write, where the steps ask for it."""
        step = self._first_step + batch + 1
        if self.every and step % self.every == 0:
            self._write(self._epoch, step)

    def on_epoch_end(self, epoch: int, logs: Any = None) -> None:
        """Write."""
        self._first_step = 0
        self._write(epoch + 1, 0)

    def on_train_end(self, logs: Any = None) -> None:
        """Let a later `fit` of the same model start from its own first epoch."""
        self.model._initial_epoch = None

    def _write(self, epoch: int, step: int) -> None:
        variables = self._all_variables()
        arrays = [keras.ops.convert_to_numpy(variable) for variable in variables]
        for variable, array in zip(variables, arrays, strict=True):
            if not np.isfinite(array).all():
                kept = f"The checkpoint of the last good state was kept: {self.path}." if self.path.exists() else ""
                raise TrainingDivergedError(
                    f"{variable.path} holds NaN or infinite values after epoch {epoch}. {kept} Lower the learning "
                    "rate, or limit the gradient (train.clip_norm)."
                )
        # The running means matter only where an epoch goes on.
        metrics = [keras.ops.convert_to_numpy(variable) for variable in _metric_variables(self.model)] if step else []
        meta = {
            "stage": self._stage,
            "stage_epoch": self._stage_epoch,
            "epoch": epoch,
            "step": step,
            "shapes": [list(array.shape) for array in arrays],
            "metrics": len(metrics),
            "keepers": {name: keeper.state for name, keeper in self.keepers.items()},
        }
        content = {str(index): array for index, array in enumerate(arrays)}
        content |= {f"metric{index}": array for index, array in enumerate(metrics)}
        content[META] = np.frombuffer(json.dumps(meta).encode(), np.uint8)
        with replacing(self.path) as temporary, temporary.open("wb") as file:
            np.savez(file, **content)

    def _all_variables(self) -> list[Any]:
        """The model's, and behind them the optimizer's."""
        model = self.model
        if not model.optimizer.built:
            with model.distribute_strategy.scope():
                model.optimizer.build(model.trainable_variables)
        return [*model.variables, *model.optimizer.variables]

    def _open(self) -> tuple[dict[str, Any], dict[str, np.ndarray]]:
        try:
            with np.load(self.path, allow_pickle=False) as file:
                arrays = {name: file[name] for name in file.files}
            return json.loads(arrays.pop(META).tobytes()), arrays
        except Exception as error:
            # zipfile, zlib, numpy and json each have errors of their own for a damaged archive.
            raise ArtifactError(
                f"The checkpoint {self.path} is damaged ({error}). Remove it to start this phase again."
            ) from error


def _metric_variables(model: keras.Model) -> list[Any]:
    return list({id(variable): variable for variable in model.metrics_variables}.values())
