"""Output of commands: progress bars, remarks, tables, lists, JSON."""

from __future__ import annotations

import csv
import functools
import json
import logging
import shlex
import sys
import threading
import time
from collections.abc import Callable, Iterable, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from enum import StrEnum
from typing import TYPE_CHECKING, Any, Self

from ..cache import messages
from ..cache.messages import counted, csv_header, csv_row, duration, interval, printable
from ..cache.steps import Progress, silent

if TYPE_CHECKING:
    from collections.abc import Iterator


class Listing(StrEnum):
    """Form of a printed list."""

    TABLE = "table"
    JSONL = "jsonl"
    CSV = "csv"


number = functools.partial(messages.number, missing="-")

LOG_INTERVAL_S = 30
"""Seconds between two lines of progress in a log."""


def to_stderr(text: str) -> None:
    print(printable(text, lines=True), file=sys.stderr)


def to_stdout(text: str) -> None:
    print(printable(text, lines=True))


def print_json(data: Mapping[str, Any], **options: Any) -> None:
    """Print a JSON document with escaped control characters."""
    print(printable(json.dumps(data, ensure_ascii=False, **options), lines=True))


def log_to_stderr(enabled: bool) -> bool:
    if enabled:
        handler = _StderrHandler()
        handler.setFormatter(logging.Formatter("%(asctime)s %(message)s", "%H:%M:%S"))
        logger = logging.getLogger("mgc")
        logger.handlers = [handler]
        logger.setLevel(logging.INFO)
    return enabled


class _StderrHandler(logging.Handler):
    """Write log lines to the current ``sys.stderr``, which a visible progress bar replaces."""

    def emit(self, record: logging.LogRecord) -> None:
        to_stderr(self.format(record))


@dataclass(frozen=True, kw_only=True)
class Terminal:
    """Output of a command: its result on stdout, progress and remarks on stderr.

    Attributes
    ----------
    as_json : print the result as one JSON document, without progress.
    quiet : print no progress and no remarks.
    verbose : print each part, epoch or run.
    """

    as_json: bool = False
    quiet: bool = False
    verbose: bool = False

    def emit(self, data: Mapping[str, Any], show: Callable[[], None]) -> None:
        if self.as_json:
            print_json(data, indent=1, allow_nan=False, default=str)
        else:
            show()

    def remark(self, remarks: Iterable[str]) -> None:
        if not self.quiet:
            for text in remarks:
                to_stderr(text)

    @contextmanager
    def progress(self) -> Iterator[Progress]:
        """Yield a progress with one bar per step on stderr; without a terminal, lines (:class:`_ProgressLines`)."""
        if self.quiet or self.as_json:
            yield silent
            return
        from rich import progress as rich
        from rich.console import Console

        console = Console(stderr=True, emoji=False, markup=False, highlight=False)
        if not console.is_terminal:
            with _ProgressLines() as lines:
                yield lines
            return
        columns = (
            rich.TextColumn("{task.description}", markup=False),
            rich.BarColumn(),
            rich.MofNCompleteColumn(),
            rich.TimeElapsedColumn(),
            rich.TimeRemainingColumn(),
            rich.TextColumn("{task.fields[note]}", markup=False),
        )
        with rich.Progress(*columns, console=console) as bars:
            tasks: dict[str, Any] = {}

            def show(step: str, done: int, total: int, note: str = "") -> None:
                if step not in tasks:
                    tasks[step] = bars.add_task(printable(step), total=total, completed=done, note=printable(note))
                bars.update(tasks[step], completed=done, total=total, note=printable(note))

            yield show


class _ProgressLines:
    """Progress in a log file: a line at the start and the end of each step, and one per `LOG_INTERVAL_S` in between.

    A thread prints the lines of an interval without any progress, so that a long unit of work does not look hung.
    """

    def __init__(self) -> None:
        self._starts: dict[str, tuple[float, int]] = {}
        self._last: dict[str, tuple[int, int]] = {}
        self._state: tuple[str, int, int, str] | None = None
        self._is_printed = True
        self._last_line_s = time.monotonic()
        self._lock = threading.Lock()
        self._closed = threading.Event()
        self._thread = threading.Thread(target=self._repeat, daemon=True)

    def __enter__(self) -> Self:
        self._thread.start()
        return self

    def __exit__(self, error: type[BaseException] | None, *_: object) -> None:
        self._closed.set()
        self._thread.join()
        if error is None and not self._is_printed:  # a step that ended early, such as a training with --patience
            self._print()

    def __call__(self, step: str, done: int, total: int, note: str = "") -> None:
        with self._lock:
            before, of = self._last.get(step, (0, -1))
            is_first = done < before or total != of  # also where a step of this name begins again
            self._last[step] = done, total
            if is_first:
                if not self._is_printed:
                    self._print()
                self._starts[step] = time.monotonic(), done
            is_news = self._state != (step, done, total, note)
            self._state, self._is_printed = (step, done, total, note), self._is_printed and not is_news
            if not self._is_printed and (is_first or done >= total or self._is_due()):
                self._print()

    def _is_due(self) -> bool:
        return time.monotonic() - self._last_line_s >= LOG_INTERVAL_S

    def _repeat(self) -> None:
        while not self._closed.wait(max(1.0, self._last_line_s + LOG_INTERVAL_S - time.monotonic())):
            with self._lock:
                if self._state is not None and self._state[1] < self._state[2] and self._is_due():
                    self._print()

    def _print(self) -> None:
        assert self._state is not None
        step, done, total, note = self._state
        started, first = self._starts[step]
        self._last_line_s, self._is_printed = time.monotonic(), True
        elapsed_s, time_text = self._last_line_s - started, ""
        if done > first:
            left_s = elapsed_s / (done - first) * (total - done)
            time_text = f"; {duration(left_s)} left" if done < total else f"; took {duration(elapsed_s)}"
        elif elapsed_s >= 0.5:
            time_text = f"; {duration(elapsed_s)} so far"
        to_stderr(f"{step}: {done} of {total}" + (f", {note}" if note else "") + time_text)


def split_names(text: str) -> list[str]:
    return [name.strip() for name in text.split(",")]


def print_table(title: str, columns: Sequence[str], rows: Iterable[Sequence[object]]) -> None:
    from rich.console import Console
    from rich.table import Table

    table = Table(
        title=printable(title), title_justify="left", title_style="bold", box=None, pad_edge=False, padding=(0, 2, 0, 0)
    )
    for i, column in enumerate(columns):
        table.add_column(printable(column), justify="left" if i == 0 else "right", overflow="fold")
    for row in rows:
        table.add_row(*("" if cell is None else printable(str(cell)) for cell in row))
    width = None if sys.stdout.isatty() else 120
    Console(width=width, emoji=False, markup=False, highlight=False).print(table)


def print_list(rows: Sequence[Mapping[str, Any]], names: Sequence[str], listing: Listing, *, empty: str) -> None:
    if listing is Listing.JSONL:
        for row in rows:
            print_json(row)
    elif listing is Listing.CSV:
        writer = csv.DictWriter(sys.stdout, names, extrasaction="ignore", lineterminator="\n")
        writer.writerow(csv_header(names))
        writer.writerows(map(csv_row, rows))
    elif rows:
        print_table("", names, [[row[name] for name in names] for row in rows])
    else:
        to_stdout(empty)


def n_workers(n: int) -> str:
    return "the main process" if n == 0 else counted(n, "worker")


def command(*words: object) -> str:
    """Return a command of mgc, quoted for a shell."""
    return shlex.join(["mgc", *map(str, words)])


def estimate(estimate: Mapping[str, float | None]) -> str:
    return number(estimate["value"]) + interval(estimate, " [{}, {}]", digits=2)
