"""Perform the runs of an ablation in this process or in several; other machines may work on the same folder.

:class:`concurrent.futures.ProcessPoolExecutor` does not fit: one killed worker, usually out of memory, breaks the pool
and loses all its runs. Here each worker receives one run at a time over its own pipe, so its death fails that run only.
It reports epochs over the same pipe. When the parent dies, it saves its run and exits.
"""

from __future__ import annotations

import functools
import multiprocessing
import signal
import threading
import time
from collections import deque
from collections.abc import Callable, Iterator, Sequence
from contextlib import suppress
from dataclasses import dataclass
from multiprocessing.connection import Connection, wait
from typing import Any

import torch

from ...cache.errors import MgcError, StoppedError, WorkerError
from ...cache.machine import ONE_THREAD, environment, is_out_of_memory, refuse_unguarded_script, without_interrupts
from ..device import free_bytes, take_at_most
from .grid import GridRun
from .runs import STOPPED, Failure, Outcome, Work, attempt, finished

POLL_S = 5.0
"""Seconds between checks of the runs that other processes have claimed."""

OnRun = Callable[[GridRun, str | None], None]
"""Callback for a run and the epoch that it has reached, or None once the run is finished."""


def perform_all(
    work: Work,
    runs: Sequence[GridRun],
    *,
    jobs: int,
    wait_for_others: bool,
    stop: Callable[[], bool],
    on_run: OnRun,
) -> tuple[list[Failure], list[GridRun]]:
    """Perform the unfinished runs.

    Parameters
    ----------
    jobs : number of processes. 1 uses this process with torch's threads; more processes have one thread each.
    wait_for_others : wait for runs that other processes have claimed, until those are finished or their process died.
    stop : polled; once it returns True, runs save their state and ``StoppedError`` is raised.
    on_run : receives each run's epochs, and None for each finished run, including those finished earlier.

    Returns
    -------
    failures : runs that cannot be trained.
    claimed : runs that other processes are still working on.

    Raises
    ------
    WorkerError
        If a worker process exited without being killed, which is a bug in mgc. Its traceback is on stderr.
    SaveError, StoppedError
        As :func:`mgc.heads.training.train.train` raises them.
    """
    failures: list[Failure] = []
    waiting = deque(runs)
    while waiting:
        claimed: list[GridRun] = []
        if jobs == 1:
            outcomes = _perform_in_process(work, waiting, stop, on_run)
        else:
            outcomes = _perform_in_workers(work, waiting, jobs, stop, on_run)
        for run, outcome in outcomes:
            if outcome == "claimed":
                claimed.append(run)
            elif isinstance(outcome, Failure):
                failures.append(outcome)
            else:
                on_run(run, None)
        if not (claimed and wait_for_others):
            return failures, claimed
        until = time.monotonic() + POLL_S
        while time.monotonic() < until:
            _raise_if_stopped(stop)
            time.sleep(0.2)
        waiting.extend(claimed)
    return failures, []


def _raise_if_stopped(stop: Callable[[], bool]) -> None:
    if stop():
        raise StoppedError(STOPPED)


def _perform_in_process(
    work: Work, waiting: deque[GridRun], stop: Callable[[], bool], on_run: OnRun
) -> Iterator[tuple[GridRun, Outcome]]:
    while waiting:
        _raise_if_stopped(stop)
        run = waiting.popleft()
        yield run, attempt(work, run, stop=stop, on_epoch=functools.partial(on_run, run))


@dataclass(frozen=True)
class _Epoch:
    """Message of a worker: its run has reached an epoch."""

    text: str


@dataclass(kw_only=True)
class _Worker:
    process: multiprocessing.process.BaseProcess
    pipe: Connection[Any, Any]
    run: GridRun


def _perform_in_workers(
    work: Work, waiting: deque[GridRun], jobs: int, stop: Callable[[], bool], on_run: OnRun
) -> Iterator[tuple[GridRun, Outcome]]:
    workers: list[_Worker] = []
    share_bytes = free_bytes(torch.device("cpu")) // jobs
    try:
        while waiting or workers:
            while waiting and len(workers) < jobs:
                run = waiting.popleft()
                if finished(work.folder, run) is not None:  # saves the start of a process
                    yield run, "done"
                else:
                    workers.append(_start(work, run, share_bytes))
            _raise_if_stopped(stop)
            for pipe in wait([worker.pipe for worker in workers], timeout=1.0):
                worker = next(worker for worker in workers if worker.pipe is pipe)
                message = _receive(worker)
                if isinstance(message, _Epoch):
                    on_run(worker.run, message.text)
                    continue
                run = worker.run
                if message is None:
                    workers.remove(worker)
                    message = _fail_killed(worker)
                elif waiting:
                    _hand_over(worker, waiting.popleft())
                else:
                    workers.remove(worker)
                    worker.pipe.close()
                    worker.process.join()
                yield run, message
    finally:
        for worker in workers:
            worker.process.terminate()
        for worker in workers:
            worker.process.join()


def _start(work: Work, run: GridRun, share_bytes: int) -> _Worker:
    refuse_unguarded_script()
    context = multiprocessing.get_context("spawn")
    parent_end, child_end = context.Pipe()
    process = context.Process(target=_serve, args=(work, child_end, share_bytes), daemon=True)
    with environment(ONE_THREAD), without_interrupts():
        process.start()
    child_end.close()
    worker = _Worker(process=process, pipe=parent_end, run=run)
    _hand_over(worker, run)
    return worker


def _hand_over(worker: _Worker, run: GridRun) -> None:
    """Send a worker its next run. If the worker has died, `_receive` reports the end of the pipe."""
    worker.run = run
    with suppress(ConnectionError):
        worker.pipe.send(run)


def _receive(worker: _Worker) -> _Epoch | Outcome | None:
    """Return the worker's message, or None if it died. Raise an error that concerns all runs."""
    try:
        message = worker.pipe.recv()
    except (EOFError, ConnectionResetError):
        return None
    if isinstance(message, MgcError):
        raise message
    outcome: _Epoch | Outcome = message
    return outcome


def _fail_killed(worker: _Worker) -> Failure:
    """Return the failure of a run whose process was killed; raise if the process exited by itself."""
    worker.process.join()
    code = worker.process.exitcode or 0
    if code >= 0:
        raise WorkerError(
            f"{worker.run.title}: its process exited with status {code}. Run again with --jobs 1 to see the cause."
        )
    reason = f"its process was killed by signal {-code}, probably out of memory. Run again with fewer --jobs."
    return Failure(key=worker.run.key, serves=worker.run.serves, reason=reason)


def _serve(work: Work, pipe: Connection[Any, Any], share_bytes: int) -> None:
    """Run the worker's loop: one run at a time, until the pipe is closed or SIGTERM arrives."""
    take_at_most(share_bytes)
    torch.set_num_threads(1)
    terminated, parent = threading.Event(), multiprocessing.parent_process()

    def stop() -> bool:
        return terminated.is_set() or (parent is not None and not parent.is_alive())

    signal.signal(signal.SIGTERM, lambda *_: terminated.set())
    with suppress(EOFError, ConnectionError):
        while not terminated.is_set():
            run = pipe.recv()
            try:
                pipe.send(attempt(work, run, stop=stop, on_epoch=lambda epoch: pipe.send(_Epoch(epoch))))
            except MgcError as error:  # concerns all runs, such as a full disk
                pipe.send(error)
                return
            except (MemoryError, RuntimeError) as error:
                if not is_out_of_memory(error):
                    raise
                reason = "out of memory. Run again with fewer --jobs."
                pipe.send(Failure(key=run.key, serves=run.serves, reason=reason))
