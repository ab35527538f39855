"""Callbacks that every training of this package has, and that a user's own `model.fit` can have."""

import contextlib
import math
import time
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import keras

from kerasvision.errors import RecipeError, TrainingDivergedError, closest
from kerasvision.files import replacing
from kerasvision.training.checkpoint import Checkpoint


def callbacks(
    directory: str | Path,
    *,
    train_data: Any = None,
    validation_data: Any = None,
    monitor: str | None = None,
    early_stopping: int | None = None,
) -> list[keras.callbacks.Callback]:
    """What a long training should not be without, for `model.fit(..., callbacks=kv.callbacks("saved_models/run"))`.

    A checkpoint after each epoch (a killed script, started again, goes on from it), the best epoch's weights, which
    the model has in the end and which stay as `model.keras`, a stop at NaN, and TensorBoard logs.

    Args:
        directory: where to write model.keras, logs/ and, until training ends, checkpoint/.
        train_data: data set of (images, targets), for a picture of the inputs in TensorBoard.
        validation_data: data set of (images, targets), for pictures of predictions, the confusion matrix, and the
            figures of a detector or segmenter, such as average precision and mIoU.
        monitor: what decides which epoch is the best, such as "val_loss".
        early_stopping: epochs without a better `monitor` after which training ends.

    Returns:
        Callbacks, in the order in which `fit` must have them.
    """
    from kerasvision.training.epoch_evaluation import EpochEvaluation
    from kerasvision.training.tensorboard import TensorBoard

    directory = Path(directory)
    best = Best(directory / "checkpoint" / "best.weights.h5", monitor, patience=early_stopping)
    measure = None if validation_data is None else EpochEvaluation(validation_data)
    board = TensorBoard(directory / "logs", train_data=train_data, validation_data=validation_data, evaluation=measure)
    return [*essentials(directory / "checkpoint" / "state.npz", best, board, measure), KeepModel(directory)]


def essentials(
    path: Path,
    best: "Best",
    board: keras.callbacks.Callback,
    measure: keras.callbacks.Callback | None = None,
    every: int | None = None,
) -> list[keras.callbacks.Callback]:
    """What every training has, in the order in which the parts depend on each other.

    The checkpoint comes last: what stands in it has also been logged, however suddenly the process ends.

    Args:
        path: the checkpoint.
        best: keeps the best epoch.
        board: writes the logs.
        measure: adds figures that the others read, such as average precision and mIoU.
        every: also write a checkpoint after every so many steps.
    """
    history = RunHistory()
    checkpoint = Checkpoint(path, {"history": history, "best": best}, every)
    figures = [] if measure is None else [measure]
    return [MovingAverage(), StopAtNaN(path), *figures, history, best, board, checkpoint]


def save_weights(model: keras.Model, path: Path) -> None:
    """The weights alone: `model.save_weights` of a compiled model writes the optimizer's state as well."""
    keras.Model(model.inputs, model.outputs).save_weights(path)


def load_weights(model: keras.Model, path: Path) -> None:
    """The inverse of `save_weights`."""
    keras.Model(model.inputs, model.outputs).load_weights(path)


def learning_rate(model: keras.Model) -> float:
    """The optimizer's current learning rate."""
    return float(keras.ops.convert_to_numpy(model.optimizer.learning_rate))


@contextlib.contextmanager
def averaged_weights(model: keras.Model) -> Iterator[None]:
    """The moving average of the weights is in the model while the block runs, where the optimizer keeps one.

    `keras.callbacks.SwapEMAWeights` (3.15) does not fit: it swaps by adding and subtracting, which changes the weights,
    and forgets the average when training is stopped early.
    """
    optimizer: Any = getattr(model, "optimizer", None)  # A model that was not compiled has none.
    optimizer = getattr(optimizer, "inner_optimizer", optimizer)
    # tf_keras optimizers, which train quantized twins, know no such thing.
    averages = getattr(optimizer, "_model_variables_moving_average", None)
    if not averages or int(keras.ops.convert_to_numpy(optimizer.iterations)) == 0:
        yield
        return
    variables = optimizer._trainable_variables
    trained = [keras.ops.convert_to_numpy(variable) for variable in variables]
    for variable, average in zip(variables, averages, strict=True):
        variable.assign(keras.ops.convert_to_numpy(average))
    try:
        yield
    finally:
        for variable, value in zip(variables, trained, strict=True):
            variable.assign(value)


class MovingAverage(keras.callbacks.Callback):
    """Validates with the moving average of the weights, where the optimizer was made with `use_ema=True`."""

    def __init__(self) -> None:
        super().__init__()
        self._swap: Any = None

    def on_test_begin(self, logs: Any = None) -> None:
        """Put the average in."""
        self._swap = averaged_weights(self.model)
        self._swap.__enter__()

    def on_test_end(self, logs: Any = None) -> None:
        """Put the trained weights back."""
        self._swap.__exit__(None, None, None)


class StopAtNaN(keras.callbacks.Callback):
    """Ends training with an error in the step whose loss is NaN or infinite.

    Args:
        checkpoint: path that the error names as kept.
    """

    def __init__(self, checkpoint: Path) -> None:
        super().__init__()
        self.checkpoint = checkpoint
        self._epoch = 0

    def on_epoch_begin(self, epoch: int, logs: Any = None) -> None:
        """Remember the epoch for the message."""
        self._epoch = epoch

    def on_train_batch_end(self, batch: int, logs: Any = None) -> None:
        """Check the loss.

        Raises:
            TrainingDivergedError: it is not finite.
        """
        self._check("loss", logs, f"epoch {self._epoch + 1}, step {batch + 1}")

    def on_epoch_end(self, epoch: int, logs: Any = None) -> None:
        """Check the validation loss, before anything of this epoch is kept.

        Raises:
            TrainingDivergedError: it is not finite.
        """
        self._check("val_loss", logs, f"the validation after epoch {epoch + 1}")

    def _check(self, name: str, logs: Any, where: str) -> None:
        value = float((logs or {}).get(name, 0.0))
        if math.isfinite(value):
            return
        kept = (
            f"The last good checkpoint was kept: {self.checkpoint}"
            if self.checkpoint.exists()
            else "There is no checkpoint yet"
        )
        raise TrainingDivergedError(
            f"The {name} became {value} in {where}, at a learning rate of {learning_rate(self.model):.3g}. {kept}. "
            "Lower the learning rate, lengthen the warm-up (train.warmup_epochs), or limit the gradient "
            "(train.clip_norm)."
        )


class RunHistory(keras.callbacks.Callback):
    """The figures of every epoch, over interruptions.

    `.state` is {"figures": {name: [value of each epoch]}, "seconds": number}.
    """

    def __init__(self) -> None:
        super().__init__()
        self.state: dict[str, Any] = {"figures": {}, "seconds": 0.0}
        self._start = 0.0

    def on_epoch_begin(self, epoch: int, logs: Any = None) -> None:
        """Start the clock."""
        self._start = time.monotonic()

    def on_epoch_end(self, epoch: int, logs: Any = None) -> None:
        """Append."""
        figures = {name: float(value) for name, value in (logs or {}).items()}
        for name, value in {**figures, "learning_rate": learning_rate(self.model)}.items():
            self.state["figures"].setdefault(name, []).append(value)
        self.state["seconds"] += time.monotonic() - self._start


class Best(keras.callbacks.Callback):
    """Keeps the weights of the best epoch in a file, ends training when there was none for long, restores them.

    Of two epochs with the same figure the one with the lower validation loss is the better.

    Args:
        path: the file, ending in .weights.h5; None keeps the last epoch's weights.
        monitor: such as "val_loss"; figures with "loss" or "error" in their name are better when they are lower. The
            task's primary metric on the validation data where `fit` shows it, else "val_loss", when None.
        patience: epochs without improvement after which training ends; None: never.
    """

    def __init__(self, path: Path | None, monitor: str | None = None, patience: int | None = None) -> None:
        super().__init__()
        self.path = path
        self.monitor = monitor
        self.patience = patience
        self.state: dict[str, Any] = {"rank": None, "epoch": None, "wait": 0, "stopped": False}

    def on_epoch_end(self, epoch: int, logs: Any = None) -> None:
        """Compare, save, stop."""
        rank = self._rank(logs or {})
        if self.state["rank"] is None or rank > self.state["rank"]:
            self.state = {"rank": rank, "epoch": epoch, "wait": 0, "stopped": False}
            if self.path:
                self.keep_weights(self.path)
        else:
            self.state = {**self.state, "wait": self.state["wait"] + 1}
        if self.patience is not None and self.state["wait"] >= self.patience:
            self.state = {**self.state, "stopped": True}
            self.model.stop_training = True

    def on_train_end(self, logs: Any = None) -> None:
        """Put the best epoch's weights into the model."""
        if self.path and self.state["epoch"] is not None:
            self.restore_weights(self.path)

    def keep_weights(self, path: Path) -> None:
        """Save the weights of this epoch."""
        with averaged_weights(self.model), replacing(path) as temporary:
            save_weights(self.model, temporary)

    def restore_weights(self, path: Path) -> None:
        """Load what `keep_weights` saved."""
        load_weights(self.model, path)

    def _rank(self, logs: dict[str, Any]) -> list[float]:
        monitor = self.monitor or default_monitor(self.model, logs)
        if monitor not in logs:
            raise RecipeError(
                f'There is no figure "{monitor}" to decide which epoch is the best.{closest(monitor, logs)}'
            )
        value = float(logs[monitor])
        falls = "loss" in monitor or "error" in monitor or monitor.removeprefix("val_") in _losses(self.model)
        return [-value if falls else value, -float(logs.get("val_loss", logs.get("loss", 0.0)))]


class KeepModel(keras.callbacks.Callback):
    """Saves the model when training ends, and removes the checkpoint that is no longer needed.

    Args:
        directory: of model.keras and checkpoint/.
    """

    def __init__(self, directory: Path) -> None:
        super().__init__()
        self.directory = directory

    def on_train_end(self, logs: Any = None) -> None:
        """Save."""
        with replacing(self.directory / "model.keras") as temporary:
            self.model.save(temporary)
        for name in ("state.npz", "best.weights.h5"):
            (self.directory / "checkpoint" / name).unlink(missing_ok=True)
        with contextlib.suppress(OSError):
            (self.directory / "checkpoint").rmdir()


def default_monitor(model: Any, logs: dict[str, Any]) -> str:
    """The validation figure that decides which epoch is the best, or the training loss where nothing is validated."""
    primary = f"val_{getattr(getattr(model, 'task', None), 'primary_metric', 'loss')}"
    return next((name for name in (primary, "val_loss") if name in logs), "loss")


def _losses(model: Any) -> tuple[str, ...]:
    return getattr(getattr(model, "task", None), "loss_names", ())
