"""Dask: one task a part, two tasks a worker in flight, no arrays and no model through the scheduler.

On this machine, or on the workers of a scheduler that runs already. A part that ends its worker is probed in a process
of its own (:mod:`mgc.pipeline.extraction.probe`), the track at fault is named, and the part is built without it.
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

DEATHS_ALLOWED = 3
"""Workers that one part may end in all before the run gives up: machines are preempted too."""


class Deaths:
    """Counts the workers that each part has ended; parts that were on one worker share its end."""

    def __init__(self) -> None:
        self._parts: defaultdict[object, set[int]] = defaultdict(set)

    def count(self, part: int, worker: object) -> None:
        """Note that `worker` ended with `part` on it."""
        self._parts[worker].add(part)

    def of(self, part: int) -> float:
        """Return how many ended workers are a part's share, as far as is known now."""
        return sum(1 / len(parts) for parts in self._parts.values() if part in parts)


def run_on_cluster(jobs: Iterator[PartJob], workers: int | Scheduler) -> Iterator[Receipt]:
    """Build parts on local worker processes (their number), or on those of a scheduler.

    Raises
    ------
    WorkerError
        If a part ended its worker several times, and no track of it is to blame; if the scheduler is gone.
    Exception
        Whatever else a part raised; the parts in flight are given up, committed ones stay committed.
    """
    with local_client(workers) if isinstance(workers, int) else _remote_client(workers) as client:
        yield from _receipts(client, jobs)


def _receipts(client: Client, jobs: Iterator[PartJob]) -> Iterator[Receipt]:
    from distributed import CancelledError, KilledWorker, as_completed

    deaths = Deaths()
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
            deaths.count(job.part, (error.last_worker.address, error.last_worker.pid))
            if deaths.of(job.part) > DEATHS_ALLOWED:
                raise WorkerError(
                    f"part {job.part} ended its worker process more than {DEATHS_ALLOWED} times, and no track of it "
                    "does so by itself; committed parts are kept. Give workers more memory, or run fewer on a machine"
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
def _remote_client(scheduler: Scheduler) -> Iterator[Client]:
    address = scheduler.checked_address()
    try:
        from distributed import Client
        from distributed.security import Security
    except ValueError as error:  # of a file of settings
        raise ConfigError(f"Dask cannot be loaded: {' '.join(str(error).split())}; correct its settings") from error
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
