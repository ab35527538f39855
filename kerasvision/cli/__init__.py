"""The command line: one verb for each public function. Heavy imports wait until a verb runs."""

from kerasvision.cli.commands import main
from kerasvision.cli.data import convert
from kerasvision.cli.inspecting import inspect_verb
from kerasvision.cli.volumes import slices

__all__ = ["convert", "inspect_verb", "main", "slices"]
