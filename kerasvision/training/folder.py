"""The run folder: what belongs to which recipe, and which phases of it are done."""

import json
import shutil
from pathlib import Path
from typing import Any

from kerasvision.errors import RecipeError
from kerasvision.files import write_text
from kerasvision.recipe import Recipe, differences, load_recipe, to_yaml


class RunFolder:
    """Paths and progress of one run.

    Args:
        path: the folder.
    """

    def __init__(self, path: str | Path) -> None:
        self.path = Path(path)
        self.recipe = self.path / "recipe.yaml"
        self.model = self.path / "model.keras"
        self.quantized = self.path / "quantized.weights.h5"
        self.metrics = self.path / "metrics.json"
        self.exports = self.path / "exports"
        self.report = self.path / "report.html"
        self.card = self.path / "model_card.md"
        self.split = self.path / "split.json"
        self.logs = self.path / "logs"
        self.checkpoint = self.path / "checkpoint"
        self._phases = self.checkpoint / "phases.json"

    def open(self, recipe: Recipe, *, resume: bool, overwrite: bool) -> None:
        """Start, or take up, the run of a recipe in this folder.

        Args:
            recipe: what is to be run.
            resume: whether an unfinished run may be continued.
            overwrite: delete what an earlier run left.

        Raises:
            RecipeError: the folder holds another recipe's run, or any run where `resume` is False.
        """
        if self.path.exists() and not self.path.is_dir():
            raise RecipeError(f"{self.path} is a file; expected a folder for the run.")
        if overwrite:
            self._clear()
        if self.recipe.exists():
            self._check_same(recipe)
            if not resume:
                raise RecipeError(
                    f"{self.path} already holds a run of this recipe. Leave out resume=False to continue it, give "
                    "another folder (--out), or overwrite it (--overwrite)."
                )
        elif self.model.exists() or self.metrics.exists():
            raise RecipeError(
                f"{self.path} holds a model but no recipe.yaml, so it is no run that could be continued. Give another "
                "folder (--out)."
            )
        self.path.mkdir(parents=True, exist_ok=True)
        if not self.finished:
            self.checkpoint.mkdir(exist_ok=True)
        if not self.recipe.exists():
            write_text(self.recipe, to_yaml(recipe))

    @property
    def finished(self) -> bool:
        """Whether every phase is done."""
        return self.metrics.exists() and not self.checkpoint.exists()

    def finish(self) -> None:
        """Remove what only an unfinished run needs."""
        shutil.rmtree(self.checkpoint)

    def done(self, phase: str) -> Any | None:
        """What a finished phase left, or None where it is still to be done."""
        return self._read_phases().get(phase)

    def mark_done(self, phase: str, result: Any) -> None:
        """Remember that a phase is finished, and its result (JSON)."""
        write_text(self._phases, json.dumps({**self._read_phases(), phase: result}))

    def read_metrics(self) -> dict[str, Any]:
        """The content of metrics.json."""
        return json.loads(self.metrics.read_text(encoding="utf-8"))

    def _read_phases(self) -> dict[str, Any]:
        return json.loads(self._phases.read_text(encoding="utf-8")) if self._phases.exists() else {}

    def _check_same(self, recipe: Recipe) -> None:
        changed = differences(load_recipe(self.recipe), recipe)
        if changed:
            raise RecipeError(
                f"{self.path} holds the run of another recipe ({self.recipe} -> this one): {'; '.join(changed)}. Give "
                "another folder (--out), overwrite that run (--overwrite), or take the changes back to continue it."
            )

    def _clear(self) -> None:
        # Only what a run writes: the folder may hold files of the user's own.
        if not self.recipe.exists():
            return
        for folder in (self.exports, self.logs, self.checkpoint):
            shutil.rmtree(folder, ignore_errors=True)
        for file in (self.metrics, self.model, self.quantized, self.report, self.card, self.split, self.recipe):
            file.unlink(missing_ok=True)
