"""The command line: one verb for each public function. Heavy imports wait until a verb runs."""

from kerasvision.cli.commands import main

__all__ = ["main"]
