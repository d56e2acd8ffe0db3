"""Dask on this machine: one task a part, two tasks a worker in flight, no arrays and no model through the scheduler."""

from __future__ import annotations

import itertools
import os
from collections.abc import Iterable, Iterator
from typing import Any

from ..cache.errors import WorkerError
from .parts import PartJob, build_and_commit

SINGLE_THREAD = dict.fromkeys(
    ("OMP_NUM_THREADS", "MKL_NUM_THREADS", "OPENBLAS_NUM_THREADS", "NUMBA_NUM_THREADS", "VECLIB_MAXIMUM_THREADS"), "1"
)
"""Set in each worker before anything is imported: the parts are the parallelism."""


def run_on_cluster(jobs: Iterable[PartJob], n_workers: int) -> Iterator[dict[str, Any]]:
    """Build parts on `n_workers` local processes; yields receipts as parts are committed.

    Raises
    ------
    WorkerError
        If a part ended its worker several times.
    Exception
        Whatever else a part raised; the parts in flight are given up, committed ones stay committed.
    """
    import dask
    from distributed import Client, KilledWorker, LocalCluster, as_completed

    quiet = {"distributed.nanny.pre-spawn-environ": SINGLE_THREAD | {"MALLOC_TRIM_THRESHOLD_": str(2**28)}}
    with (
        dask.config.set(quiet),
        LocalCluster(
            n_workers=n_workers,
            threads_per_worker=1,
            processes=True,
            host="127.0.0.1",
            dashboard_address=None,
            memory_limit=0,  # a limit of Dask's own would pause workers half way; decoding has one for each file
            silence_logs="ERROR",
        ) as cluster,
        Client(cluster) as client,
    ):
        queue = iter(jobs)
        first = [client.submit(build_and_commit, job, pure=False) for job in itertools.islice(queue, 2 * n_workers)]
        running = as_completed(first)
        for future in running:
            try:
                receipt = future.result()
            except KilledWorker as error:
                raise WorkerError(
                    f"a part ended its worker process several times ({error}); committed parts are kept. Run it with "
                    "--workers 0 to see what happens, or with fewer workers if memory ran out"
                ) from error
            yield receipt
            future.release()
            for job in itertools.islice(queue, 1):
                running.add(client.submit(build_and_commit, job, pure=False))


def default_workers() -> int:
    """One worker a core that this process may use."""
    return len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else os.cpu_count() or 1
