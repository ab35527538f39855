"""What a user sees while `fit` runs: one line for each epoch and a bar for the current one, on stderr."""

import sys
import time
from typing import Any

import keras
from rich.console import Console
from rich.progress import BarColumn, MofNCompleteColumn, Progress, TextColumn, TimeRemainingColumn

from kerasvision.progress import LINE_SECONDS
from kerasvision.training.callbacks import learning_rate


class FitProgress(keras.callbacks.Callback):
    """Epoch, step, loss, monitors, learning rate and remaining time.

    On a terminal a bar moves below the lines of the finished epochs. Elsewhere there are only lines, in a long epoch
    one every ten seconds.

    Args:
        description: what is trained, such as "Training".
        steps: in an epoch.
        shown: figures that are shown besides the loss, such as ("accuracy",).
    """

    def __init__(self, description: str, steps: int, shown: tuple[str, ...] = ()) -> None:
        super().__init__()
        self.description = description
        self.steps = steps
        self.shown = ("loss", *shown)
        self._console = Console(stderr=True, highlight=False, soft_wrap=True)
        self._bar: Progress | None = None
        self._task: Any = None
        self._name = ""
        self._start = self._last_line = 0.0

    def on_epoch_begin(self, epoch: int, logs: Any = None) -> None:
        """Show the bar."""
        self._name = f"{self.description} {epoch + 1}/{self.params['epochs']}"
        self._start = self._last_line = time.monotonic()
        if not sys.stderr.isatty():
            return
        columns = (
            TextColumn("{task.description}"),
            BarColumn(bar_width=24),
            MofNCompleteColumn(),
            TextColumn("{task.fields[figures]}"),
            TimeRemainingColumn(),
        )
        self._bar = Progress(*columns, console=self._console, transient=True)
        self._task = self._bar.add_task(self._name, total=self.steps, figures="")
        self._bar.start()

    def on_train_batch_end(self, batch: int, logs: Any = None) -> None:
        """Move it."""
        if self._bar:
            self._bar.update(self._task, advance=1, figures=self._figures(logs or {}, self.shown))
        elif time.monotonic() - self._last_line > LINE_SECONDS:
            self._last_line = time.monotonic()
            figures = self._figures(logs or {}, self.shown)
            self._console.print(f"{self._name}  step {batch + 1} of {self.steps}  {figures}", markup=False)

    def on_epoch_end(self, epoch: int, logs: Any = None) -> None:
        """Replace it by a line."""
        self.close()
        names = [*self.shown, *(f"val_{name}" for name in self.shown)]
        seconds = time.monotonic() - self._start
        self._console.print(f"{self._name}  {self._figures(logs or {}, names)}  {seconds:.0f} s", markup=False)

    def close(self) -> None:
        """Give the terminal back, also after an error."""
        if self._bar:
            self._bar.stop()
            self._bar = None

    def _figures(self, logs: dict[str, Any], names: Any) -> str:
        shown = [f"{name} {float(logs[name]):.4f}" for name in names if name in logs]
        return "  ".join([*shown, f"lr {learning_rate(self.model):.2e}"])
