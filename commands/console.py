"""Output of commands: progress bars, remarks, tables, lists, JSON."""

from __future__ import annotations

import csv
import functools
import json
import logging
import shlex
import sys
import time
from collections.abc import Callable, Iterable, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from enum import StrEnum
from typing import TYPE_CHECKING, Any

from ..cache import messages
from ..cache.messages import counted, csv_header, csv_row, interval, printable
from ..cache.steps import Progress, silent

if TYPE_CHECKING:
    from collections.abc import Iterator


class Listing(StrEnum):
    """Form of a printed list."""

    TABLE = "table"
    JSONL = "jsonl"
    CSV = "csv"


number = functools.partial(messages.number, missing="-")

LOG_INTERVAL_S = 60
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
        """Yield a progress with one bar per step on stderr; without a terminal, a line at the start and per minute."""
        if self.quiet or self.as_json:
            yield silent
            return
        from rich import progress as rich
        from rich.console import Console

        console = Console(stderr=True, emoji=False, markup=False, highlight=False)
        if not console.is_terminal:
            yield _ProgressLines()
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
                    tasks[step] = bars.add_task(printable(step), note="")
                bars.update(tasks[step], completed=done, total=total, note=printable(note))

            yield show


class _ProgressLines:
    """Progress in a log file: a line at the start of each step, then at most one per `LOG_INTERVAL_S`."""

    def __init__(self) -> None:
        self._starts: dict[str, tuple[float, int]] = {}
        self._last_line_s = 0.0

    def __call__(self, step: str, done: int, total: int, note: str = "") -> None:
        now = time.monotonic()
        if step in self._starts and now - self._last_line_s < LOG_INTERVAL_S:
            return
        self._last_line_s = now
        started, first = self._starts.setdefault(step, (now, done))
        left = f"; {duration((now - started) / (done - first) * (total - done))} left" if done > first else ""
        to_stderr(f"{step}: {done} of {total}" + (f", {note}" if note else "") + left)


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


def duration(seconds: float) -> str:
    if seconds < 100:
        return f"{seconds:.1f} s"
    return f"{seconds / 60:.1f} min" if seconds < 6000 else f"{seconds / 3600:.1f} h"


def n_workers(n: int) -> str:
    return "the main process" if n == 0 else counted(n, "worker")


def command(*words: object) -> str:
    """Return a command of mgc, quoted for a shell."""
    return shlex.join(["mgc", *map(str, words)])


def estimate(estimate: Mapping[str, float | None]) -> str:
    return number(estimate["value"]) + interval(estimate, " [{}, {}]", digits=2)
