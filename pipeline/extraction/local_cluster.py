"""Local worker processes of Dask, started with fixed settings whatever the site configures.

Standard error is held back while they start, as each process that fails writes a traceback to it. The error message
takes the cause from that output.
"""

from __future__ import annotations

import contextlib
import logging
import multiprocessing
import os
import re
import resource
import threading
from collections.abc import Callable, Iterator
from typing import TYPE_CHECKING

from ...cache.errors import WorkerError
from ...cache.machine import ONE_THREAD, UNGUARDED, refuse_unguarded_script, without_interrupts

if TYPE_CHECKING:
    from distributed import Client

WORKER_START_S = 300
"""Timeout for the first local worker; imports from a cold network file system are slow."""

_SETTINGS = {
    "distributed.nanny.pre-spawn-environ": ONE_THREAD,  # the parts are the parallelism
    "distributed.admin.tick.interval": "1s",  # default: 50 per second; see Growth in benchmarks/speed/speed.md
    "distributed.worker.profile.enabled": False,  # unused, and it interrupts a worker 100 times per second
    "distributed.scheduler.http.routes": [],  # these pages have no authentication
    "distributed.worker.http.routes": [],
    "distributed.scheduler.allowed-failures": 0,  # a part that crashes its worker is probed, not rescheduled
}
_FILES, _FILES_PER_WORKER = 32, 12
"""Open files of the parent process, and per worker; measured: 20, and 10 per worker."""

_CAUSE = re.compile(r"^(?:[\w.]*(?:Error|Exception): .+|OpenBLAS .+|.*\bnot allocate\b.*)$", re.MULTILINE)
_KEPT_BYTES = 1 << 16


@contextlib.contextmanager
def local_client(n_workers: int) -> Iterator[Client]:
    """Start workers on loopback that accept only this process, by temporary certificates kept in memory.

    Dask's own defaults apply: its configuration files and environment variables are ignored.

    Raises
    ------
    WorkerError
        If no worker process can start.
    """
    refuse_unguarded_script()
    with contextlib.ExitStack() as stack:
        with _hold_stderr() as read_stderr:
            try:
                client = _start(n_workers, stack)
            except (OSError, RuntimeError, TimeoutError, ValueError, TypeError) as error:
                stack.close()
                causes = [_cause(error), *_CAUSE.findall(read_stderr())]
                if UNGUARDED in causes[-1]:
                    raise WorkerError(UNGUARDED) from error
                raise WorkerError(
                    f"worker processes cannot start: {causes[-1]}. Use --workers 0, or --shard I/N in N shells."
                ) from error
        yield client


def _start(n_workers: int, stack: contextlib.ExitStack) -> Client:
    _allow_open_files(_FILES + _FILES_PER_WORKER * n_workers)
    import dask
    from distributed import Client, LocalCluster
    from distributed.security import Security
    from distributed.utils import LoopRunner

    stack.enter_context(dask.config.set({**dask.config.merge(*dask.config.defaults), **_SETTINGS}))
    runner = LoopRunner()
    with without_interrupts():
        _refuse_missing_semaphores()
        runner.start()  # a thread, which starts the workers and so must inherit the signal mask
    stack.callback(runner.stop)
    cluster = LocalCluster(
        loop=runner.loop,
        n_workers=n_workers,
        threads_per_worker=1,
        processes=True,
        security=Security.temporary(),
        host="127.0.0.1",
        dashboard_address="127.0.0.1:0",
        scheduler_kwargs={"dashboard": False},
        memory_limit=0,  # Dask's limit would pause workers; the decoder limits the memory per file
        silence_logs=logging.CRITICAL,
    )
    client: Client = stack.enter_context(Client(stack.enter_context(cluster)))
    client.wait_for_workers(1, timeout=WORKER_START_S)
    return client


def _allow_open_files(wanted: int) -> None:
    soft, hard = resource.getrlimit(resource.RLIMIT_NOFILE)
    if hard != resource.RLIM_INFINITY and hard < wanted:
        raise OSError(f"{hard} open files are allowed (ulimit -n), but this many workers need {wanted}")
    if soft != resource.RLIM_INFINITY and soft < wanted:
        resource.setrlimit(resource.RLIMIT_NOFILE, (wanted, hard))


def _refuse_missing_semaphores() -> None:
    """Raise OSError with the cause if processes cannot create a lock; else each worker would die on its own."""
    try:
        multiprocessing.get_context("spawn").Lock()
    except OSError as error:
        raise OSError(f"no lock can be created; on Linux locks are files in /dev/shm: {error.strerror}") from None


def _cause(error: BaseException) -> str:
    """Return the root cause of an error in one line."""
    while error.__cause__ is not None:
        error = error.__cause__
    return " ".join(str(error).split()) or type(error).__name__


@contextlib.contextmanager
def _hold_stderr() -> Iterator[Callable[[], str]]:
    """Hold back standard error of this process and its new children; print it at the end, unless the block raises.

    Children that outlive the block write through this process. Yield a function that returns the output so far.
    """
    real = os.dup(2)
    read, write = os.pipe()
    kept, is_open, lock = bytearray(), threading.Event(), threading.Lock()

    def pump() -> None:
        while chunk := os.read(read, 1 << 16):
            with lock:
                if is_open.is_set():
                    with contextlib.suppress(OSError):
                        os.write(real, chunk)
                else:
                    kept.extend(chunk)
                    del kept[:-_KEPT_BYTES]

    threading.Thread(target=pump, name="mgc-stderr", daemon=True).start()
    os.dup2(write, 2)
    os.close(write)
    try:
        yield lambda: kept.decode(errors="replace")
    except BaseException:
        os.dup2(real, 2)
        raise
    os.dup2(real, 2)
    with lock, contextlib.suppress(OSError):
        os.write(real, kept)
        is_open.set()
