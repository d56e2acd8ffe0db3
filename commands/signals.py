"""Signals: an interrupted command ends within seconds, with one line and the exit status that shells expect.

The first SIGINT, SIGTERM or SIGHUP raises SystemExit, or requests a stop from work that can save itself. A second one,
or the end of `GRACE_PERIOD_S`, ends the process whatever it does: a thread waits for that. Children end with their
parent.
"""

from __future__ import annotations

import contextlib
import os
import select
import signal
import sys
import threading
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from typing import NoReturn

from ..cache.errors import StoppedError
from .console import to_stderr

GRACE_PERIOD_S = 8
"""Seconds that work may take to save itself after a signal."""

_ONE_SIGNAL_S = 0.5
"""Job schedulers may send the same signal to a process and to its group; within this time it counts once."""

_WORDS = {signal.SIGINT: "interrupted", signal.SIGTERM: "terminated", signal.SIGHUP: "ended with its terminal (SIGHUP)"}

_SAVED = {
    "extract": "finished parts are saved",
    "train": "checkpoints are saved",
    "ablate": "finished runs are saved",
    "demo": "finished steps are saved",
    "store repair": "finished parts are saved",
    "store compact": "finished parts are saved",
    "store export": "finished files are saved",
}
"""What an interrupted command leaves; the others write their result in one step, at the end."""


@dataclass
class _State:
    """The first signal received; whether work polls for it; whether and where a line was printed; the watch's pipe."""

    first: int | None = None
    is_polled: bool = False
    is_reported: bool = False
    stderr: int = 2
    wakeups: int | None = None


_state = _State()


def install() -> None:
    """Handle signals that end this process. A signal that is ignored, as under nohup, stays ignored."""
    _state.first, _state.is_polled, _state.is_reported = None, False, False
    if _state.wakeups is None:
        _state.stderr = os.dup(2)  # workers that start take the original for a while
    for number in _WORDS:
        if signal.getsignal(number) is not signal.SIG_IGN:
            signal.signal(number, _receive)
    with contextlib.suppress(RuntimeError):  # no further thread is allowed: only the first signal counts
        if _state.wakeups is None:
            read, write = os.pipe()
            os.set_blocking(write, False)
            threading.Thread(target=_watch, args=(read,), name="mgc-signals", daemon=True).start()
            _state.wakeups = write
        signal.set_wakeup_fd(_state.wakeups, warn_on_full_buffer=False)


def _receive(number: int, _: object) -> None:
    if _state.first is None:
        _state.first = number
        if not _state.is_polled:
            raise SystemExit(128 + number)


def _watch(wakeups: int) -> NoReturn:
    """End the process at a second signal or at the end of the grace period; no Python lock or handler can block it."""
    poll = select.poll()  # select cannot watch a file descriptor above 1023
    poll.register(wakeups, select.POLLIN)
    first, first_s = 0, 0.0
    while True:
        left_s = max(0.0, first_s + GRACE_PERIOD_S - time.monotonic()) if first else None
        if not poll.poll(None if left_s is None else 1e3 * left_s):
            _end(first)
        for number in os.read(wakeups, 64):
            if number not in _WORDS:
                continue
            if not first:
                first, first_s = number, time.monotonic()
            elif time.monotonic() - first_s > _ONE_SIGNAL_S:
                _end(first)


def _end(number: int) -> NoReturn:
    if not _state.is_reported:
        with contextlib.suppress(OSError):
            os.write(_state.stderr, f"{_line(number)}\n".encode())
    with contextlib.suppress(Exception):
        for child in sys.modules["multiprocessing"].active_children():  # a worker would save its run first
            child.kill()
    os._exit(128 + number)


def _line(number: int) -> str:
    words = [word for word in sys.argv[1:] if not word.startswith("-")]
    command = " ".join(words[: 2 if words[:1] == ["store"] else 1])
    end = _WORDS[signal.Signals(number)]
    if command not in _SAVED:
        return f"{end}: no result was written. Repeat the command to start again."
    resume = " with --resume" if command == "train" else ""
    return f"{end}: {_SAVED[command]}. Repeat the same command{resume} to continue."


def exit_status() -> int | None:
    """Report the signal that ended the command, if one did; return the exit status then."""
    if _state.first is None:
        return None
    if not _state.is_reported:
        _state.is_reported = True
        with contextlib.suppress(OSError):
            to_stderr(_line(_state.first))
    return 128 + _state.first


@contextmanager
def stopping_gently() -> Iterator[Callable[[], bool]]:
    """Yield a function that returns True after a signal, so that work can save itself and raise StoppedError."""
    _state.is_polled = True
    try:
        yield lambda: _state.first is not None
    except StoppedError as error:
        to_stderr(str(error))
        _state.is_reported = True
        sys.exit(128 + (_state.first or 0))
    finally:
        _state.is_polled = False
