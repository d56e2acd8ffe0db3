"""Worker processes on this machine: started whatever the settings of its site are, or refused in one line.

What is written to standard error while they start is kept back, as it is Python's text on each process that failed; the
cause is taken from it.
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
from ...cache.machine import ONE_THREAD, without_interrupts

if TYPE_CHECKING:
    from distributed import Client

WORKER_START_S = 300
"""How long the first local worker may take to start; imports from a cold network file system are slow."""

_SETTINGS = {
    "distributed.nanny.pre-spawn-environ": ONE_THREAD,  # the parts are the parallelism
    "distributed.admin.tick.interval": "1s",  # default: 50 per second; see Growth in benchmarks/speed/speed.md
    "distributed.worker.profile.enabled": False,  # unused; it stops a worker 100 times per second
    "distributed.scheduler.http.routes": [],  # HTTP has no secret: nothing is served
    "distributed.worker.http.routes": [],
    "distributed.scheduler.allowed-failures": 0,  # a part that ends its worker is probed, not handed to the next
}
_FILES, _FILES_PER_WORKER = 32, 12
"""Open files of a process with workers; measured: 20, and 10 for each."""

_CAUSE = re.compile(r"^(?:[\w.]*(?:Error|Exception): .+|OpenBLAS .+|.*\bnot allocate\b.*)$", re.MULTILINE)
_KEPT_BYTES = 1 << 16


@contextlib.contextmanager
def local_client(n_workers: int) -> Iterator[Client]:
    """Start workers on loopback that accept this process only: certificates are made for it and kept in memory.

    The settings of Dask are those it comes with, whatever files and variables of the site say.

    Raises
    ------
    WorkerError
        If no worker process can start.
    """
    with contextlib.ExitStack() as stack:
        with _holding_stderr_back() as read_stderr:
            try:
                client = _start(n_workers, stack)
            except (OSError, RuntimeError, TimeoutError, ValueError, TypeError) as error:
                stack.close()
                causes = [_cause(error), *_CAUSE.findall(read_stderr())]
                raise WorkerError(
                    f"worker processes cannot start here ({causes[-1]}); give --workers 0, or --shard I/N in N shells"
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
        runner.start()  # in a thread, from which the workers start
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
        memory_limit=0,  # a limit of Dask's own would pause workers half way; decoding has one for each file
        silence_logs=logging.CRITICAL,
    )
    client: Client = stack.enter_context(Client(stack.enter_context(cluster)))
    client.wait_for_workers(1, timeout=WORKER_START_S)
    return client


def _allow_open_files(wanted: int) -> None:
    soft, hard = resource.getrlimit(resource.RLIMIT_NOFILE)
    if hard != resource.RLIM_INFINITY and hard < wanted:
        raise OSError(f"{hard} open files are allowed, {wanted} are needed for so many workers: ulimit -n")
    if soft != resource.RLIM_INFINITY and soft < wanted:
        resource.setrlimit(resource.RLIMIT_NOFILE, (wanted, hard))


def _refuse_missing_semaphores() -> None:
    """Fail at once, with the cause, where processes would die one by one for want of a lock."""
    try:
        multiprocessing.get_context("spawn").Lock()
    except OSError as error:
        raise OSError(f"no lock for processes; on Linux they are files in /dev/shm: {error.strerror}") from None


def _cause(error: BaseException) -> str:
    """Return the first cause of an error in one line."""
    while error.__cause__ is not None:
        error = error.__cause__
    return " ".join(str(error).split()) or type(error).__name__


@contextlib.contextmanager
def _holding_stderr_back() -> Iterator[Callable[[], str]]:
    """Keep what this process and its new children write to standard error, and print it at the end unless that fails.

    Children that live on write through this process. Yields a function that returns what is kept so far.
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
