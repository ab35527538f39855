"""Progress goes to stderr, and only where the work lasts."""

import io
import sys

import pytest

from kerasvision import progress


class Terminal(io.StringIO):
    def isatty(self):
        return True


@pytest.fixture
def clock(monkeypatch):
    """A clock that a test moves by hand."""
    now = [0.0]
    monkeypatch.setattr(progress.time, "monotonic", lambda: now[0])
    return now


def test_items_pass_through_and_short_work_is_silent(capfd):
    assert list(progress.track([3, 1, 2], "Working")) == [3, 1, 2]
    assert list(progress.track(iter("ab"), "Working", total=2)) == ["a", "b"]
    assert capfd.readouterr() == ("", "")


def test_long_work_writes_lines_where_there_is_no_terminal(capfd, clock):
    for _ in progress.track(range(4), "Checking images"):
        clock[0] += 6
    captured = capfd.readouterr()
    assert captured.out == ""
    assert captured.err == "Checking images: 2 of 4\nChecking images: 4 of 4\n"


def test_unknown_total(capfd, clock):
    with progress.progress("Counting") as advance:
        clock[0] += 11
        advance(5)
    assert capfd.readouterr().err == "Counting: 5\n"


def test_terminal_shows_a_bar_only_for_long_work(monkeypatch, capfd, clock):
    terminal = Terminal()
    monkeypatch.setattr(sys, "stderr", terminal)
    assert list(progress.track(range(3), "Short")) == [0, 1, 2]
    assert "Short" not in terminal.getvalue()
    for _ in progress.track(range(3), "Long"):
        clock[0] += 3
    assert "Long" in terminal.getvalue() and "3/3" in terminal.getvalue()
    assert capfd.readouterr().out == ""


def test_bar_ends_with_an_error(monkeypatch, clock):
    terminal = Terminal()
    monkeypatch.setattr(sys, "stderr", terminal)
    with pytest.raises(KeyboardInterrupt), progress.progress("Long", 2) as advance:
        clock[0] += 3
        advance(1)
        raise KeyboardInterrupt
    # The bar gave the cursor back.
    assert terminal.getvalue().endswith("\x1b[?25h") or "1/2" in terminal.getvalue()
