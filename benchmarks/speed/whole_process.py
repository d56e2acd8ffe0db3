"""Run a whole command and measure time, CPU time and memory of all its processes."""

from __future__ import annotations

import os
import subprocess
import threading
import time
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path

import psutil

SAMPLE_EVERY_S = 0.1


@dataclass(frozen=True, kw_only=True)
class Run:
    """One run of a command.

    Attributes
    ----------
    seconds : wall time.
    cpu_s : CPU time of all its processes.
    own_cpu_s : CPU time of the first process only.
    own_bytes, largest_bytes, tree_bytes : peak resident memory, sampled every `SAMPLE_EVERY_S`: of the first process,
        of any process that it started, of all at once (pages that they share count once for each).
    """

    seconds: float
    cpu_s: float
    own_cpu_s: float
    own_bytes: int
    largest_bytes: int
    tree_bytes: int


def run(
    arguments: Sequence[object],
    *,
    cores: Iterable[int] | None = None,
    cwd: Path | None = None,
    env: Mapping[str, str] | None = None,
    check: bool = True,
) -> Run:
    """Run a command, restricted to `cores` if given; print its stderr only if it fails.

    Raises
    ------
    SystemExit
        If the command fails and `check` is set.
    """
    command = list(map(str, arguments))
    before, own_cores = os.times(), os.sched_getaffinity(0)
    try:
        os.sched_setaffinity(0, own_cores if cores is None else set(cores))  # children inherit it
        started = time.perf_counter()
        process = subprocess.Popen(command, stdout=subprocess.DEVNULL, stderr=subprocess.PIPE, cwd=cwd, env=env)
    finally:
        os.sched_setaffinity(0, own_cores)
    watch = _Watch(process.pid)
    watch.start()
    _, errors = process.communicate()
    seconds = time.perf_counter() - started
    watch.join()
    if check and process.returncode:
        raise SystemExit(f"{' '.join(command)}: exit status {process.returncode}\n{errors.decode()}")
    after = os.times()
    cpu_s = after.children_user + after.children_system - before.children_user - before.children_system
    return Run(
        seconds=seconds,
        cpu_s=cpu_s,
        own_cpu_s=watch.own_cpu_s,
        own_bytes=watch.own_bytes,
        largest_bytes=watch.largest_bytes,
        tree_bytes=watch.tree_bytes,
    )


class _Watch(threading.Thread):
    """Thread that samples a process and its children until it ends."""

    def __init__(self, pid: int) -> None:
        super().__init__(daemon=True)
        self.process = psutil.Process(pid)
        self.own_cpu_s, self.own_bytes, self.largest_bytes, self.tree_bytes = 0.0, 0, 0, 0

    def run(self) -> None:
        while True:
            try:
                times, own = self.process.cpu_times(), self.process.memory_info().rss
                children = [self._bytes(child) for child in self.process.children(recursive=True)]
            except psutil.Error:
                return
            if own == 0:  # ended, not yet waited for
                return
            self.own_cpu_s = times.user + times.system
            self.own_bytes = max(self.own_bytes, own)
            self.largest_bytes = max([self.largest_bytes, *children])
            self.tree_bytes = max(self.tree_bytes, own + sum(children))
            time.sleep(SAMPLE_EVERY_S)

    @staticmethod
    def _bytes(process: psutil.Process) -> int:
        try:
            return int(process.memory_info().rss)
        except psutil.Error:
            return 0
