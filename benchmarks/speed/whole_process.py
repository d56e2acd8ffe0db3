"""A command as a user gives it: seconds, processor time and memory of it and of all processes that it starts."""

from __future__ import annotations

import os
import subprocess
import threading
import time
from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from pathlib import Path

import psutil

LOOK_EVERY_S = 0.1


@dataclass(frozen=True, kw_only=True)
class Run:
    """One run of a command.

    Attributes
    ----------
    seconds : from start to end. cpu_s : processor time of all its processes. own_cpu_s : of the first process alone.
    own_bytes, largest_bytes, tree_bytes : most resident memory seen, looking every `LOOK_EVERY_S`: of the first
        process, of any one that it started, of all at once (pages that they share count once for each).
    """

    seconds: float
    cpu_s: float
    own_cpu_s: float
    own_bytes: int
    largest_bytes: int
    tree_bytes: int


def run(command: Sequence[str], *, cores: Iterable[int] | None = None, cwd: Path | None = None) -> Run:
    """Run a command, on some cores only where `cores` names them; its output is thrown away unless it fails.

    Raises
    ------
    SystemExit
        The command fails.
    """
    before, mine = os.times(), os.sched_getaffinity(0)
    try:
        os.sched_setaffinity(0, mine if cores is None else set(cores))  # children inherit it
        started = time.perf_counter()
        process = subprocess.Popen(command, stdout=subprocess.DEVNULL, stderr=subprocess.PIPE, cwd=cwd)
    finally:
        os.sched_setaffinity(0, mine)
    seen = _Watch(process.pid)
    seen.start()
    _, said = process.communicate()
    seconds = time.perf_counter() - started
    seen.join()
    if process.returncode:
        raise SystemExit(f"{' '.join(command)}: exit status {process.returncode}\n{said.decode()}")
    after = os.times()
    cpu_s = after.children_user + after.children_system - before.children_user - before.children_system
    return Run(seconds=seconds, cpu_s=cpu_s, own_cpu_s=seen.own_cpu_s, own_bytes=seen.own_bytes,
               largest_bytes=seen.largest_bytes, tree_bytes=seen.tree_bytes)  # fmt: skip


class _Watch(threading.Thread):
    """Looks at a process and what it started until it ends."""

    def __init__(self, pid: int) -> None:
        super().__init__(daemon=True)
        self.process = psutil.Process(pid)
        self.own_cpu_s, self.own_bytes, self.largest_bytes, self.tree_bytes = 0.0, 0, 0, 0

    def run(self) -> None:
        while True:
            try:
                times, own = self.process.cpu_times(), self.process.memory_info().rss
                started = [self._bytes(child) for child in self.process.children(recursive=True)]
            except psutil.Error:
                return
            if own == 0:  # ended, not yet waited for
                return
            self.own_cpu_s = times.user + times.system
            self.own_bytes = max(self.own_bytes, own)
            self.largest_bytes = max([self.largest_bytes, *started])
            self.tree_bytes = max(self.tree_bytes, own + sum(started))
            time.sleep(LOOK_EVERY_S)

    @staticmethod
    def _bytes(process: psutil.Process) -> int:
        try:
            return int(process.memory_info().rss)
        except psutil.Error:
            return 0
