"""Dask: one task a part, two tasks a worker in flight, no arrays and no model through the scheduler.

On this machine, or on the workers of a scheduler that runs already. A part that ends its worker is probed in a process
of its own (:mod:`mgc.pipeline.extraction.probe`), the track at fault is named, and the part is built without it.
"""

from __future__ import annotations

import contextlib
import itertools
import logging
import multiprocessing
from collections import Counter
from collections.abc import Callable, Iterator
from typing import TYPE_CHECKING, Any

from ...cache.errors import ConfigError, WorkerError
from ...cache.machine import ONE_THREAD, without_interrupts
from .builder import PartJob
from .options import Scheduler
from .part import Receipt, build_and_commit
from .probe import probe

if TYPE_CHECKING:
    from distributed import Client

log = logging.getLogger(__name__)

WORKER_START_S = 300
"""How long the first local worker may take to start; imports from a cold network file system are slow."""

DEATHS_ALLOWED = 3
"""Workers that one part may end in all before the run gives up: machines are preempted too."""


def run_on_cluster(jobs: Iterator[PartJob], workers: int | Scheduler) -> Iterator[Receipt]:
    """Build parts on local worker processes (their number), or on those of a scheduler.

    Raises
    ------
    WorkerError
        If a part ended its worker several times, and no track of it is to blame; if the scheduler is gone.
    Exception
        Whatever else a part raised; the parts in flight are given up, committed ones stay committed.
    """
    with _local_client(workers) if isinstance(workers, int) else _remote_client(workers) as client:
        yield from _receipts(client, jobs)


def _receipts(client: Client, jobs: Iterator[PartJob]) -> Iterator[Receipt]:
    from distributed import CancelledError, KilledWorker, as_completed

    deaths: Counter[int] = Counter()
    running = as_completed()
    in_flight: dict[Any, PartJob] = {}

    def submit(job: PartJob, function: Callable[[PartJob], Receipt | PartJob] = build_and_commit) -> None:
        future = client.submit(function, job, pure=False)
        in_flight[future.key] = job
        running.add(future)

    def top_up() -> None:
        n_jobs = 2 * max(1, len(client.scheduler_info(n_workers=-1)["workers"]))
        for job in itertools.islice(jobs, max(0, n_jobs - len(in_flight))):
            submit(job)

    top_up()
    for future in running:
        job = in_flight.pop(future.key)
        try:
            result: Receipt | PartJob = future.result()
        except KilledWorker as error:
            deaths[job.part] += 1
            if deaths[job.part] > DEATHS_ALLOWED:
                raise WorkerError(
                    f"part {job.part} ended its worker process {deaths[job.part]} times, and no track of it does so by "
                    "itself; committed parts are kept. Give workers more memory, or run fewer on a machine"
                ) from error
            log.warning("part %d ended its worker: looking for the track at fault", job.part)
            submit(job, probe)
            continue
        except CancelledError as error:
            raise WorkerError(
                "the connection to the Dask scheduler is lost; committed parts are kept. See whether it still runs, "
                "then give the same command again"
            ) from error
        if isinstance(result, PartJob):  # probed
            submit(result)
            continue
        yield result
        future.release()
        top_up()


@contextlib.contextmanager
def _local_client(n_workers: int) -> Iterator[Client]:
    """Start workers on loopback that accept this process only: certificates are made for it and kept in memory.

    Raises
    ------
    WorkerError
        If no worker process can start.
    """
    import dask
    from distributed import Client, LocalCluster
    from distributed.security import Security
    from distributed.utils import LoopRunner

    settings = {
        "distributed.nanny.pre-spawn-environ": ONE_THREAD,  # the parts are the parallelism
        "distributed.admin.tick.interval": "1s",  # default: 50 per second; see Growth in benchmarks/speed/speed.md
        "distributed.worker.profile.enabled": False,  # nobody looks at it; it stops a worker 100 times a second
        "distributed.scheduler.http.routes": [],  # HTTP has no secret: nothing is served
        "distributed.worker.http.routes": [],
        "distributed.scheduler.allowed-failures": 0,  # a part that ends its worker is probed, not handed to the next
    }
    with dask.config.set(settings), contextlib.ExitStack() as stack:
        try:
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
            client = stack.enter_context(Client(stack.enter_context(cluster)))
            client.wait_for_workers(1, timeout=WORKER_START_S)
        except (OSError, RuntimeError, TimeoutError, ValueError, TypeError) as error:
            raise WorkerError(
                f"worker processes cannot start here ({_cause(error)}); give --workers 0, or --shard I/N in N shells"
            ) from error
        yield client


def _refuse_missing_semaphores() -> None:
    """Fail at once, and in plain words, where processes would die one by one for want of a lock."""
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
def _remote_client(scheduler: Scheduler) -> Iterator[Client]:
    from distributed import Client
    from distributed.security import Security

    address = scheduler.checked_address()
    security = None
    if address.startswith("tls://"):
        security = Security(
            tls_ca_file=str(scheduler.tls_ca),
            tls_client_cert=str(scheduler.tls_cert),
            tls_client_key=str(scheduler.tls_key),
            require_encryption=True,
        )
    try:
        client = Client(address, security=security, timeout="30s")
    except OSError as error:
        raise ConfigError(
            f"scheduler {address}: no answer ({error}); is it running, and reachable from here?"
        ) from error
    with client:
        if not client.scheduler_info(n_workers=-1)["workers"]:
            log.warning("scheduler %s has no workers yet: waiting for the first", address)
        client.wait_for_workers(1)
        yield client
