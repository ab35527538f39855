"""One progress display for everything that takes more than two seconds: always on stderr, never on stdout."""

import contextlib
import sys
import time
from collections.abc import Callable, Iterable, Iterator, Sized
from typing import TypeVar

Item = TypeVar("Item")

QUIET_SECONDS = 2.0
LINE_SECONDS = 10.0


def track(iterable: Iterable[Item], description: str, total: int | None = None) -> Iterator[Item]:
    """Yields the items of an iterable and shows how far it has come.

    Args:
        iterable: what to walk over.
        description: what is being done, e.g. "Checking images".
        total: number of items; taken from `len(iterable)` where it has one.

    Yields:
        The items, unchanged.
    """
    if total is None and isinstance(iterable, Sized):
        total = len(iterable)
    with progress(description, total) as advance:
        for item in iterable:
            yield item
            advance(1)


@contextlib.contextmanager
def progress(description: str, total: int | None = None) -> Iterator[Callable[[int], None]]:
    """Shows the progress of work that is counted by hand.

    On a terminal a bar appears once the work has lasted two seconds; elsewhere (a log file, CI) one plain line is
    written every ten seconds, and nothing at all for work that is over sooner.

    Args:
        description: what is being done.
        total: number of steps, or None where it is not known.

    Yields:
        A function that is told how many steps were done since it was last called.
    """
    if sys.stderr.isatty():
        with _bar(description, total) as advance:
            yield advance
    else:
        yield _lines(description, total)


@contextlib.contextmanager
def _bar(description: str, total: int | None) -> Iterator[Callable[[int], None]]:
    # Imported here: `kerasvision --help` must not pay for it.
    from rich.console import Console
    from rich.progress import (
        BarColumn,
        MofNCompleteColumn,
        Progress,
        TextColumn,
        TimeElapsedColumn,
        TimeRemainingColumn,
    )

    columns = (
        TextColumn("{task.description}"),
        BarColumn(),
        MofNCompleteColumn(),
        TimeElapsedColumn(),
        TimeRemainingColumn(),
    )
    bar = Progress(*columns, console=Console(stderr=True))
    task = bar.add_task(description, total=total)
    start = time.monotonic()

    def advance(steps: int) -> None:
        bar.advance(task, steps)
        if not bar.live.is_started and time.monotonic() - start > QUIET_SECONDS:
            bar.start()

    try:
        yield advance
    finally:
        if bar.live.is_started:
            bar.stop()


def _lines(description: str, total: int | None) -> Callable[[int], None]:
    done = 0
    last = time.monotonic()
    of_total = "" if total is None else f" of {total}"

    def advance(steps: int) -> None:
        nonlocal done, last
        done += steps
        if time.monotonic() - last > LINE_SECONDS:
            last = time.monotonic()
            print(f"{description}: {done}{of_total}", file=sys.stderr, flush=True)

    return advance
