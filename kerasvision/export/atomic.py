"""A file or folder appears under its final name whole, or not at all."""

import contextlib
import shutil
import tempfile
from collections.abc import Iterator
from pathlib import Path

from kerasvision.errors import ExportError


@contextlib.contextmanager
def staged(target: Path) -> Iterator[Path]:
    """Give a place to write, on the target's own disk, and move the result to the target at the end.

    Whatever interrupts the block (a full disk, Ctrl-C, a failed check), nothing is left behind, and an older
    file or folder of the target's name stays as it was.

    Args:
        target: final path of a file or folder; its parent is made where missing.

    Yields:
        The path to write to: the target's name, in a hidden folder beside it.

    Raises:
        ExportError: the disk is full or the folder cannot be written to.
    """
    try:
        target.parent.mkdir(parents=True, exist_ok=True)
        staging = Path(tempfile.mkdtemp(prefix=".export-", dir=target.parent.absolute()))
    except OSError as error:
        raise ExportError(_explain(target, error)) from error
    try:
        yield staging / target.name
        _put(staging / target.name, target, staging / "replaced")
    except OSError as error:
        raise ExportError(_explain(target, error)) from error
    finally:
        shutil.rmtree(staging, ignore_errors=True)


def _put(source: Path, target: Path, away: Path) -> None:
    """Rename; a folder that is in the way steps aside first, and comes back if the rename fails."""
    if not target.is_dir():
        source.replace(target)
        return
    target.replace(away)
    try:
        source.replace(target)
    except BaseException:
        away.replace(target)
        raise


def _explain(target: Path, error: OSError) -> str:
    return (
        f"{target} could not be written: {error.strerror or error}. Nothing was left behind, and an older "
        f"{target.name} is untouched. Free some space or give a folder that can be written to, and export again."
    )
