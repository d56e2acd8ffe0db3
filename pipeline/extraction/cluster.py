"""Build parts on Dask workers: one task per part, two tasks per worker in flight; the scheduler sees no arrays.

The workers run on this machine or belong to a scheduler that is already running. A part that crashes its worker is
probed in a separate process (:mod:`mgc.pipeline.extraction.probe`) and built without the track at fault.
"""

from __future__ import annotations

import contextlib
import itertools
import logging
from collections import defaultdict
from collections.abc import Callable, Iterator
from typing import TYPE_CHECKING, Any

from ...cache.errors import ConfigError, WorkerError
from .builder import PartJob
from .local_cluster import local_client
from .options import Scheduler
from .part import Receipt, build_and_commit
from .probe import probe

if TYPE_CHECKING:
    from distributed import Client

log = logging.getLogger(__name__)

MAX_CRASHES = 3
"""Worker crashes allowed per part; more than one, as machines are also preempted."""


class CrashCounter:
    """Count worker crashes per part; parts that were on the same worker share its crash."""

    def __init__(self) -> None:
        self._parts: defaultdict[object, set[int]] = defaultdict(set)

    def add(self, part: int, worker: object) -> None:
        """Record that `worker` crashed with `part` on it."""
        self._parts[worker].add(part)

    def share(self, part: int) -> float:
        """Return the number of crashes attributed to a part: one divided by the parts on the worker, summed."""
        return sum(1 / len(parts) for parts in self._parts.values() if part in parts)


def run_on_cluster(jobs: Iterator[PartJob], workers: int | Scheduler) -> Iterator[Receipt]:
    """Build parts on `workers` local processes, or on the workers of a scheduler.

    Raises
    ------
    WorkerError
        If a part crashes its workers repeatedly and no single track of it does, or the scheduler is lost.
    Exception
        Any other exception of a part. Parts in flight are cancelled; committed parts stay committed.
    """
    with local_client(workers) if isinstance(workers, int) else _remote_client(workers) as client:
        yield from _receipts(client, jobs)


def _receipts(client: Client, jobs: Iterator[PartJob]) -> Iterator[Receipt]:
    from distributed import CancelledError, KilledWorker, as_completed

    crashes = CrashCounter()
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
            crashes.add(job.part, (error.last_worker.address, error.last_worker.pid))
            if crashes.share(job.part) > MAX_CRASHES:
                raise WorkerError(
                    f"worker process crashed more than {MAX_CRASHES} times, but on no single track: part {job.part}. "
                    "Committed parts are kept. Give each worker more memory, or run fewer workers per machine."
                ) from error
            log.warning("part %d crashed its worker: building its tracks one by one to identify the cause", job.part)
            submit(job, probe)
            continue
        except CancelledError as error:
            raise WorkerError(
                "connection to the Dask scheduler lost. Committed parts are kept. Check that the scheduler is running, "
                "then run the same command again."
            ) from error
        if isinstance(result, PartJob):  # probed
            submit(result)
            continue
        yield result
        future.release()
        top_up()


@contextlib.contextmanager
def _remote_client(scheduler: Scheduler) -> Iterator[Client]:
    address = scheduler.checked_address()
    try:
        from distributed import Client
        from distributed.security import Security
    except ValueError as error:  # an invalid Dask configuration file
        raise ConfigError(f"Dask cannot be imported: {' '.join(str(error).split())}. Correct its settings.") from error
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
            f"scheduler does not respond: {address} ({error}). Check that it is running and reachable."
        ) from error
    with client:
        if not client.scheduler_info(n_workers=-1)["workers"]:
            log.warning("scheduler %s has no workers: waiting for the first", address)
        client.wait_for_workers(1)
        yield client
