"""Errors a user can meet, and the closest-name hint that goes with unknown names."""

import difflib
from collections.abc import Iterable


class KerasvisionError(Exception):
    """Base of every error this package raises on purpose."""


class DataError(KerasvisionError, ValueError):
    """A data set, an image file or a label is not usable; the message names the file and the remedy."""


class RecipeError(KerasvisionError, ValueError):
    """A recipe has an unknown key or a value of the wrong kind."""


class UnknownNameError(KerasvisionError, KeyError):
    """A model, task, format or transform of that name does not exist."""

    def __str__(self) -> str:
        return str(self.args[0])


class WeightsError(KerasvisionError, RuntimeError):
    """Weights could not be found, verified, read or matched to the model."""


class BridgeError(KerasvisionError, ValueError):
    """A Keras 3 layer has no exact twin in tf_keras."""


class FoldError(KerasvisionError, ValueError):
    """A folded model does not compute what the model did."""


class QuantizationError(KerasvisionError, ValueError):
    """A layer cannot be quantized, or would run in float without being declared."""


class ExportError(KerasvisionError, RuntimeError):
    """An export failed, or the exported file does not do what the model did."""


class ArtifactError(KerasvisionError, ValueError):
    """A file offered as a model is not one, is damaged, or is refused for safety."""


class TrainingDivergedError(KerasvisionError, RuntimeError):
    """The loss became NaN or infinite; the last good checkpoint was kept."""


def closest(name: str, options: Iterable[str]) -> str:
    """Sentence that names the options nearest to a misspelled name, or lists them all.

    Args:
        name: what was asked for.
        options: the names that exist.

    Returns:
        ' Did you mean "x" or "y"?', or ' Known: a, b, c.' where nothing is near.
    """
    options = sorted(options)
    near = difflib.get_close_matches(name, options, n=3, cutoff=0.6)
    if near:
        return " Did you mean " + " or ".join(f'"{option}"' for option in near) + "?"
    return f" Known: {', '.join(options)}." if options else ""
