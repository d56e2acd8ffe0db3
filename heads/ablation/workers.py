"""Getting the runs of an ablation done: in this process, or shared out among several; other machines may help.

A worker is told one run at a time over a pipe of its own, so one that dies takes nothing along but its run, and one
whose parent dies finds the pipe closed and ends.
"""

from __future__ import annotations

import multiprocessing
import signal
import threading
import time
from collections import deque
from collections.abc import Callable, Iterator, Sequence
from contextlib import suppress
from dataclasses import dataclass
from multiprocessing.connection import Connection, wait
from pathlib import Path
from typing import Any

import torch

from ...cache.errors import MgcError, StoppedError, WorkerError
from ...cache.machine import one_thread_environment
from ...cache.reading.store import FeatureStore
from ..device import free_bytes, take_at_most
from .grid import PlannedRun
from .runs import Failure, GenresById, Outcome, attempt, finished

POLL_S = 5.0
"""Seconds between looks at runs that other processes are at work on."""

OnRun = Callable[[PlannedRun, str | None], None]
"""Receives a run and the epoch that it has reached, or None once it is finished."""


@dataclass(frozen=True, kw_only=True)
class Work:
    """What a run needs besides its plan.

    Attributes
    ----------
    text : name under which the text features joined the store; None for its own.
    names_store : a store of the same tracks whose genres are read aloud by other names, for the runs that want it.
    """

    folder: Path
    store: Path
    text: str | None = None
    labels: GenresById | None = None
    keep_runs: bool = False
    names_store: Path | None = None

    def open(self, run: PlannedRun) -> FeatureStore:
        """The store that a run learns from."""
        path = self.store if run.names is None else self.names_store
        assert path is not None
        return FeatureStore.open(path, text=self.text)


def perform_all(
    work: Work,
    runs: Sequence[PlannedRun],
    *,
    jobs: int = 1,
    wait_for_others: bool = True,
    stop: Callable[[], bool] | None = None,
    on_run: OnRun | None = None,
) -> tuple[list[Failure], list[PlannedRun]]:
    """Perform what is not finished.

    Parameters
    ----------
    jobs : processes; 1 works here, with the threads torch has, more have one thread each.
    wait_for_others : for runs claimed by other processes, until those are done or dead.
    stop : asked again and again; once it says True, runs save where they are and all end.
    on_run : receives each run's epochs, and None once it is finished (those that were before, too).

    Returns
    -------
    failures : runs that cannot be trained.
    claimed : runs that others are at work on still.

    Raises
    ------
    WorkerError
        If a process died that was not killed (a fault of ours; its traceback is on stderr).
    SaveError, StoppedError
        As :func:`mgc.heads.training.train.train` raises them.
    """
    tell, stop = on_run or (lambda run, epoch: None), stop or (lambda: False)
    failures: list[Failure] = []
    waiting = deque(runs)
    while waiting:
        claimed: list[PlannedRun] = []
        for run, outcome in (
            _here(work, waiting, stop, tell) if jobs == 1 else _shared_out(work, waiting, jobs, stop, tell)
        ):
            if outcome == "claimed":
                claimed.append(run)
            elif isinstance(outcome, Failure):
                failures.append(outcome)
            else:
                tell(run, None)
        if not (claimed and wait_for_others):
            return failures, claimed
        _sleep(stop)
        waiting.extend(claimed)
    return failures, []


def _sleep(stop: Callable[[], bool]) -> None:
    until = time.monotonic() + POLL_S
    while time.monotonic() < until:
        _refuse_to_go_on(stop)
        time.sleep(0.2)


def _refuse_to_go_on(stop: Callable[[], bool]) -> None:
    if stop():
        raise StoppedError("stopped; run again, it goes on where it was")


def _here(
    work: Work, waiting: deque[PlannedRun], stop: Callable[[], bool], tell: OnRun
) -> Iterator[tuple[PlannedRun, Outcome]]:
    while waiting:
        _refuse_to_go_on(stop)
        run = waiting.popleft()
        yield run, _attempt(work, run, stop, lambda epoch, run=run: tell(run, epoch))  # type: ignore[misc]


def _attempt(
    work: Work,
    run: PlannedRun,
    stop: Callable[[], bool],
    on_epoch: Callable[[str], None],
) -> Outcome:
    def progress(step: str, done: int, total: int, note: str = "") -> None:
        if step == "train":
            on_epoch(f"epoch {done} of {total}")

    with work.open(run) as store:
        return attempt(
            work.folder, run, store, labels=work.labels, keep_run=work.keep_runs, stop=stop, on_progress=progress
        )


@dataclass(frozen=True)
class _Epoch:
    """A worker's message that its run has reached an epoch."""

    text: str


@dataclass(kw_only=True)
class _Worker:
    process: multiprocessing.process.BaseProcess
    pipe: Connection[Any, Any]
    run: PlannedRun


def _shared_out(
    work: Work, waiting: deque[PlannedRun], jobs: int, stop: Callable[[], bool], tell: OnRun
) -> Iterator[tuple[PlannedRun, Outcome]]:
    workers: list[_Worker] = []
    share_bytes = free_bytes(torch.device("cpu")) // jobs
    try:
        while waiting or workers:
            while waiting and len(workers) < jobs:
                run = waiting.popleft()
                if finished(work.folder, run) is not None:  # not worth a process
                    yield run, "done"
                else:
                    workers.append(_started(work, run, share_bytes))
            _refuse_to_go_on(stop)
            for pipe in wait([worker.pipe for worker in workers], timeout=1.0):
                worker = next(worker for worker in workers if worker.pipe is pipe)
                message = _received(worker)
                if isinstance(message, _Epoch):
                    tell(worker.run, message.text)
                    continue
                done = worker.run
                if message is None:
                    workers.remove(worker)
                    message = _death(worker)
                elif waiting:
                    worker.run = waiting.popleft()
                    worker.pipe.send(worker.run)
                else:
                    workers.remove(worker)
                    worker.pipe.close()
                    worker.process.join()
                yield done, message
    finally:
        for worker in workers:
            worker.process.terminate()
        for worker in workers:
            worker.process.join()


def _started(work: Work, run: PlannedRun, share_bytes: int) -> _Worker:
    context = multiprocessing.get_context("spawn")
    ours, theirs = context.Pipe()
    process = context.Process(target=_serve, args=(work, theirs, share_bytes), daemon=True)
    with one_thread_environment():
        process.start()
    theirs.close()
    ours.send(run)
    return _Worker(process=process, pipe=ours, run=run)


def _received(worker: _Worker) -> _Epoch | Outcome | None:
    """The worker's message; None if it died. An error that concerns all runs is raised here."""
    try:
        message = worker.pipe.recv()
    except (EOFError, ConnectionResetError):
        return None
    if isinstance(message, MgcError):
        raise message
    known: _Epoch | Outcome = message
    return known


def _death(worker: _Worker) -> Failure:
    """A run whose process was killed fails by itself; a process that fell over is a fault of ours."""
    worker.process.join()
    code = worker.process.exitcode or 0
    if code >= 0:
        raise WorkerError(
            f"{worker.run.told}: its process ended with status {code}; run again, with --jobs 1 to see why"
        )
    reason = f"its process was killed by signal {-code}; out of memory? Run again, with fewer --jobs"
    return Failure(key=worker.run.key, serves=worker.run.serves, reason=reason)


def _serve(work: Work, pipe: Connection[Any, Any], share_bytes: int) -> None:
    """A worker: one run after the other, until the pipe is closed or SIGTERM says to save and end."""
    take_at_most(share_bytes)
    torch.set_num_threads(1)
    ended, parent = threading.Event(), multiprocessing.parent_process()

    def stop() -> bool:
        return ended.is_set() or (parent is not None and not parent.is_alive())

    signal.signal(signal.SIGTERM, lambda *_: ended.set())
    signal.signal(signal.SIGINT, signal.SIG_IGN)  # a terminal sends it to all; the parent says what to do
    with suppress(EOFError, BrokenPipeError):
        while not ended.is_set():
            run = pipe.recv()
            try:
                pipe.send(_attempt(work, run, stop, lambda epoch: pipe.send(_Epoch(epoch))))
            except MgcError as error:  # what concerns all runs, such as a full disk
                pipe.send(error)
                return
