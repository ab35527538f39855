"""`python -m kerasvision`."""

from kerasvision.cli import main

main(prog_name="kerasvision")
