"""What every verb has in common: `--json`, clear errors, a clean standard output, and a quiet TensorFlow."""

import contextlib
import dataclasses
import io
import json
import logging
import os
import sys
import traceback
import warnings
from collections.abc import Callable, Iterator
from typing import TYPE_CHECKING, Any, TextIO

import click

from kerasvision.errors import KerasvisionError

if TYPE_CHECKING:
    from rich.console import Console

INTERRUPTED = 130


@dataclasses.dataclass(frozen=True)
class Result:
    """What a verb found out, twice.

    Args:
        values: in types that JSON knows, for `--json`.
        show: prints it for people.
    """

    values: dict[str, Any]
    show: Callable[["Console"], None]


class Verb(click.Command):
    """A command whose function returns a `Result`.

    Standard output carries the result alone. Whatever else is printed meanwhile, by C++ code and child processes
    too, goes to standard error.
    """

    def __init__(self, *args: Any, resumable: bool = False, **kwargs: Any) -> None:
        super().__init__(*args, **kwargs)
        self.resumable = resumable
        self.params += [
            click.Option(["--json", "as_json"], is_flag=True, help="Print one JSON object and nothing else."),
            click.Option(["--debug"], is_flag=True, help="Show tracebacks and TensorFlow's log."),
        ]

    def invoke(self, ctx: click.Context) -> None:
        """Run the verb, and print its result or its error."""
        as_json, debug = ctx.params.pop("as_json"), ctx.params.pop("debug")
        try:
            with _output_aside():
                with _quiet(debug):
                    result = super().invoke(ctx)
                text = _as_json(result.values) if as_json else _as_table(result)
        except KeyboardInterrupt:
            resume = " The same command continues the run." if self.resumable else ""
            message = f"Stopped by Ctrl-C. No file was left half written.{resume}"
            _fail(message, "KeyboardInterrupt", as_json, INTERRUPTED)
        except (click.ClickException, click.exceptions.Exit):
            raise
        except Exception as error:
            if debug:
                traceback.print_exc(file=sys.stderr)
            _fail(_message(error), type(error).__name__, as_json, 1)
        else:
            click.echo(text)


def _message(error: Exception) -> str:
    if isinstance(error, KerasvisionError | ImportError):
        return str(error)
    if isinstance(error, OSError) and error.strerror:
        return f"{error.strerror}: {error.filename}" if error.filename else error.strerror
    # Arguments of models and transforms reach Python functions, whose complaints say what was wrong.
    if isinstance(error, ValueError | TypeError):
        return f"{error}\n(--debug shows where this {type(error).__name__} comes from.)"
    return f"{type(error).__name__}: {error}\nThis was not expected; --debug shows where it comes from."


def _fail(message: str, kind: str, as_json: bool, code: int) -> None:
    if as_json:
        click.echo(_as_json({"error": message, "kind": kind}))
    click.secho("Error: ", err=True, nl=False, fg="red", bold=True)
    click.echo(message, err=True)
    raise click.exceptions.Exit(code)


def _as_json(values: dict[str, Any]) -> str:
    return json.dumps(values, indent=2, ensure_ascii=False, allow_nan=False, default=str)


def _as_table(result: Result) -> str:
    from rich.console import Console

    # Rendered here, so that a table that fails to render is an error like any other. A pipe gets plain wide lines.
    terminal = sys.__stdout__ is not None and sys.__stdout__.isatty()
    console = Console(file=io.StringIO(), force_terminal=terminal, width=None if terminal else 120, highlight=False)
    result.show(console)
    return console.file.getvalue().rstrip("\n")  # type: ignore[attr-defined]


@contextlib.contextmanager
def _output_aside() -> Iterator[None]:
    """Sends standard output to standard error, in Python and below it."""
    with _descriptor(1, to=2), contextlib.redirect_stdout(sys.stderr):
        yield


@contextlib.contextmanager
def _descriptor(number: int, to: int) -> Iterator[None]:
    """Points a file descriptor elsewhere, and back at the end."""
    _flush()
    try:
        saved = os.dup(number)
    except OSError:  # It is closed: nothing can be printed there.
        yield
        return
    try:
        os.dup2(to, number)
        yield
    finally:
        _flush()
        os.dup2(saved, number)
        os.close(saved)


def _flush() -> None:
    """Empties the buffers of Python and of C, so that nothing comes out behind a changed descriptor."""
    import ctypes

    for stream in (sys.stdout, sys.stderr):
        with contextlib.suppress(OSError, ValueError, AttributeError):
            stream.flush()
    with contextlib.suppress(OSError, AttributeError, TypeError):
        ctypes.CDLL(None).fflush(None)


@contextlib.contextmanager
def _quiet(debug: bool) -> Iterator[None]:
    """Keeps TensorFlow's and Keras's chatter from a user who asked for a result."""
    if debug:
        yield
        return
    _import_tensorflow_quietly()
    with warnings.catch_warnings():
        warnings.showwarning = _show_warning
        yield


def _show_warning(
    message: Warning | str,
    category: type[Warning],
    filename: str,
    lineno: int,
    file: TextIO | None = None,
    line: str | None = None,
) -> None:
    if issubclass(category, UserWarning) and f"{os.sep}kerasvision{os.sep}" in filename:
        click.echo(f"Warning: {message}", err=True)


def _import_tensorflow_quietly() -> None:
    """TensorFlow 2.21 prints a page while it is imported, whatever its log level: that page is dropped."""
    os.environ.setdefault("TF_CPP_MIN_LOG_LEVEL", "3")
    if "tensorflow" not in sys.modules:
        with open(os.devnull, "wb") as nowhere, _descriptor(2, to=nowhere.fileno()):  # noqa: PTH123 (a device)
            import tensorflow  # noqa: F401
    logging.getLogger("absl").setLevel(logging.ERROR)
    logging.getLogger("tensorflow").setLevel(logging.ERROR)
