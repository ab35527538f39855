"""The quantization phase: fine-tuning of the fake-quantized twin, which is a tf_keras model."""

from pathlib import Path
from typing import Any

import keras

from kerasvision.compress import QuantizedModel, quantize
from kerasvision.data import Data
from kerasvision.files import replacing
from kerasvision.recipe import Recipe
from kerasvision.task import TaskModel
from kerasvision.training.callbacks import Best, RunHistory, StopAtNaN
from kerasvision.training.epoch_evaluation import EpochEvaluation
from kerasvision.training.fit import batches, epoch_size, training_batches, with_class_weights
from kerasvision.training.folder import RunFolder
from kerasvision.training.optimizers import schedule
from kerasvision.training.progress import FitProgress
from kerasvision.training.tensorboard import TensorBoard
from kerasvision.training.transfer import freezes_batch_norm


def fresh_quantized(recipe: Recipe, model: TaskModel) -> QuantizedModel:
    """The recipe's quantized model before its fine-tuning, or before its weights are loaded.

    Batch normalization that stood still while the model was fine-tuned stands still here too, whatever
    `quantize.bn_frozen` says: statistics of other images than the model was fine-tuned with would undo that.
    """
    if recipe.quantize.bn_frozen or freezes_batch_norm(recipe.train):
        for layer in model.layers:
            if isinstance(layer, keras.layers.BatchNormalization):
                layer.trainable = False
    return quantize(model, islands=recipe.quantize.islands, weights=recipe.quantize.weights)


def quantize_model(
    recipe: Recipe, data: Data, model: TaskModel, folder: RunFolder, progress: bool
) -> tuple[QuantizedModel, dict[str, Any]]:
    """Fine-tune the quantized twin, and leave its weights in quantized.weights.h5.

    Args:
        recipe: what to do.
        data: train and validation images.
        model: the trained model.
        folder: of the run.
        progress: whether to show it on stderr.

    Returns:
        The quantized model and {"epochs", "best_epoch", "seconds", "history"}; loaded where an earlier process made it.
    """
    quantized = fresh_quantized(recipe, model)
    if (result := folder.done("quantize")) is not None:
        quantized.load_weights(str(folder.quantized))
        return quantized, result
    # Its own seed state, so that a run resumed after training sees the same images here.
    keras.utils.set_random_seed(recipe.seed)
    size = recipe.quantize.batch_size or recipe.train.batch_size
    steps = -(-epoch_size(recipe, data) // size)
    dataset = training_batches(recipe, data, model, size)
    validation = batches(recipe, data, model, "validation", batch_size=size)
    quantized.compile(recipe.quantize.optimizer, learning_rate=recipe.quantize.learning_rate)

    best, history = _BestInMemory(recipe.quantize.keep == "best", recipe.train.monitor), RunHistory()
    rates = schedule(recipe.quantize.learning_rate, recipe.quantize.epochs * steps)
    measure = EpochEvaluation(validation)
    callbacks = [
        _Schedule(rates),
        StopAtNaN(folder.model),
        measure,
        history,
        best,
        TensorBoard(folder.logs / "quantization", validation_data=validation, evaluation=measure),
    ]
    figures = (*model.task.monitor_names, *model.task.measured_names)
    display = FitProgress("Quantizing", steps, figures)
    if progress:
        callbacks.append(display)
    try:
        quantized.fit(
            with_class_weights(dataset, recipe, data),
            validation_data=validation,
            epochs=recipe.quantize.epochs,
            callbacks=[_for_tf_keras(callback) for callback in callbacks],
            verbose=0,
        )
    finally:
        display.close()
    with replacing(folder.quantized) as temporary:
        quantized.save_weights(str(temporary))
    result = {
        "epochs": recipe.quantize.epochs,
        "best_epoch": best.state["epoch"] + 1 if recipe.quantize.keep == "best" else None,
        "seconds": history.state["seconds"],
        "history": history.state["figures"],
    }
    folder.mark_done("quantize", result)
    return quantized, result


def _for_tf_keras(callback: keras.callbacks.Callback) -> keras.callbacks.Callback:
    """tf_keras asks a callback whether it has batch hooks; Keras 3 callbacks have the hooks, but not the answer."""
    for kind in ("train", "test", "predict"):
        setattr(callback, f"_implements_{kind}_batch_hooks", lambda: True)
    return callback


class _Schedule(keras.callbacks.Callback):
    """A Keras 3 schedule for a tf_keras optimizer."""

    def __init__(self, rates: Any) -> None:
        super().__init__()
        self.rates = rates
        self._step = 0

    def on_train_batch_begin(self, batch: int, logs: Any = None) -> None:
        self.model.optimizer.learning_rate.assign(float(self.rates(self._step)))
        self._step += 1


class _BestInMemory(Best):
    """Keeps the best epoch's weights and ranges in memory: the phase is short, and repeated when it is cut off."""

    def __init__(self, keep: bool, monitor: str | None) -> None:
        super().__init__(Path() if keep else None, monitor)
        self._weights: Any = None

    def keep_weights(self, path: Path) -> None:
        self._weights = self.model.get_weights()

    def restore_weights(self, path: Path) -> None:
        self.model.set_weights(self._weights)
