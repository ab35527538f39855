"""The child process that converters run in: a crash of theirs is an error here, not the end of the program."""

import atexit
import contextlib
import json
import os
import queue
import signal
import subprocess
import sys
import tempfile
import threading
from collections.abc import Callable
from pathlib import Path
from typing import IO, Any

from kerasvision.errors import ExportError

LOG_LINES = 15
_POLL_SECONDS = 0.5


class Converter:
    """A `kerasvision.export.worker` that stays alive from one conversion to the next.

    Importing TensorFlow takes seconds, so it is started once, as early as possible, and kept. It is a program of
    its own rather than a `multiprocessing` child, because that would run the user's script a second time.
    """

    def __init__(self) -> None:
        self._lock = threading.Lock()
        self._process: subprocess.Popen[str] | None = None
        self._log: IO[bytes] | None = None
        self._owner = 0

    def start(self) -> None:
        """Start the process, unless it runs already; does not wait until it is ready."""
        if self._process is not None and self._owner == os.getpid() and self._process.poll() is None:
            return
        self.stop()
        self._owner = os.getpid()
        # Without a name nothing is left behind; appending, so that reading here does not move the child's end.
        self._log = tempfile.TemporaryFile("a+b")  # noqa: SIM115 (it lives as long as the process)
        paths = [str(Path(entry).absolute()) for entry in sys.path]
        environment = {**os.environ, "PYTHONPATH": os.pathsep.join(paths), "CUDA_VISIBLE_DEVICES": "-1"}
        self._process = subprocess.Popen(
            [sys.executable, "-m", "kerasvision.export.worker"],
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
            stderr=self._log,
            text=True,
            env=environment,
            # Python looks for modules in the working folder first: nothing in the user's may be taken for a library.
            cwd=Path(sys.executable).anchor,
            # Ctrl-C is for the parent, which then stops the child.
            start_new_session=True,
        )

    def stop(self) -> None:
        """End the process and drop its log."""
        if self._process is not None and self._owner == os.getpid():
            self._process.kill()
            for pipe in (self._process.stdin, self._process.stdout):
                with contextlib.suppress(OSError):
                    pipe.close()  # type: ignore[union-attr]
            self._process.wait()
        if self._log is not None:
            self._log.close()
            self._log = None
        self._process = None

    def call(self, what: str, job: str, waiting: Callable[[], None] = lambda: None, **arguments: Any) -> None:
        """Run one conversion.

        Args:
            what: the conversion in words, for error messages.
            job: a function of `kerasvision.export.worker`.
            waiting: called twice a second meanwhile.
            **arguments: of that function, in types that JSON knows.

        Raises:
            ExportError: the conversion failed or crashed; the next one gets a fresh process.
        """
        with self._lock:
            self.start()
            seen = len(self._read_log())
            try:
                answer = self._ask({"job": job, "arguments": arguments}, waiting)
            except BaseException:
                self.stop()
                raise
            if answer is None:
                code = self._process.wait()  # type: ignore[union-attr]
                message = f"{what} crashed: the converter {_ending(code)}.{self._tail(seen)}"
                self.stop()
                raise ExportError(message)
        if answer["error"]:
            raise ExportError(f"{what} failed: {answer['error']}")

    def _ask(self, request: dict[str, Any], waiting: Callable[[], None]) -> dict[str, Any] | None:
        """The worker's answer, or None where it died instead."""
        process = self._process
        assert process is not None and process.stdin is not None and process.stdout is not None
        lines: queue.SimpleQueue[str] = queue.SimpleQueue()
        threading.Thread(target=lambda: lines.put(process.stdout.readline()), daemon=True).start()  # type: ignore[union-attr]
        with contextlib.suppress(BrokenPipeError):
            process.stdin.write(json.dumps(request) + "\n")
            process.stdin.flush()
        while True:
            try:
                line = lines.get(timeout=_POLL_SECONDS)
            except queue.Empty:
                waiting()
            else:
                return json.loads(line) if line.endswith("\n") else None

    def _read_log(self, start: int = 0) -> bytes:
        if self._log is None:
            return b""
        self._log.seek(start)
        return self._log.read()

    def _tail(self, start: int) -> str:
        text = self._read_log(start).decode("utf-8", "replace")
        lines = [line for line in text.splitlines() if line.strip()]
        return "\nThe end of its log:\n  " + "\n  ".join(lines[-LOG_LINES:]) if lines else ""


def _ending(code: int) -> str:
    if code >= 0:
        return f"ended with exit code {code}"
    return f"was ended by {signal.Signals(-code).name}" + (" (out of memory?)" if -code == signal.SIGKILL else "")


converter = Converter()
atexit.register(converter.stop)
