"""Memory that arrays give back is used again: no page is asked of the system twice."""

from __future__ import annotations

import ctypes
import os
import resource
import subprocess
import sys

import numpy as np
import pytest

from mgc.cache.machine import ONE_THREAD, environment, keep_freed_memory

MB = 2**20
needs_glibc = pytest.mark.skipif(
    getattr(ctypes.CDLL(None), "mallopt", None) is None, reason="another C library than glibc has its own ways"
)


def pages_asked_for(n_bytes: int) -> int:
    """Of the system, for an array that is filled and given back at once."""
    before = resource.getrusage(resource.RUSAGE_SELF).ru_minflt
    np.empty(n_bytes, dtype=np.uint8).fill(1)
    return resource.getrusage(resource.RUSAGE_SELF).ru_minflt - before


@needs_glibc
def test_large_arrays_use_the_same_pages_again_while_memory_is_kept_and_not_afterwards() -> None:
    n_bytes = 100 * MB
    with keep_freed_memory():
        pages_asked_for(n_bytes)
        assert pages_asked_for(n_bytes) < 100
    pages_asked_for(n_bytes)
    huge_pages = n_bytes // (2 * MB)
    assert pages_asked_for(n_bytes) >= huge_pages  # at least: where the system gives small ones, 25 600


@needs_glibc
@pytest.mark.parametrize(("n_mb", "again"), [(20, True), (100, False)])
def test_a_worker_reuses_what_a_clip_needs_and_gives_back_what_a_part_needs(n_mb: int, again: bool) -> None:
    """In a process of its own, with what Dask's nanny sets in its workers."""
    script = (
        "from test_machine import pages_asked_for, MB\n"
        "from mgc.cache.machine import reuse_freed_blocks\n"
        "reuse_freed_blocks()\n"
        f"pages_asked_for({n_mb} * MB); print(pages_asked_for({n_mb} * MB))"
    )
    folders = [entry for entry in [__file__.rpartition("/")[0], *sys.path] if entry]
    done = subprocess.run(
        [sys.executable, "-c", script],
        capture_output=True,
        text=True,
        check=True,
        env={"PYTHONPATH": ":".join(folders), "MALLOC_TRIM_THRESHOLD_": "65536"},
    )
    asked = int(done.stdout)
    assert asked < 100 if again else asked >= n_mb // 2


@needs_glibc
def test_nothing_changes_where_it_is_not_wanted() -> None:
    with keep_freed_memory(enabled=False):
        pages_asked_for(100 * MB)
        assert pages_asked_for(100 * MB) >= 50


def test_processes_started_meanwhile_get_one_thread_and_the_environment_is_as_before(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.setenv("OMP_NUM_THREADS", "7")
    monkeypatch.delenv("NUMBA_NUM_THREADS", raising=False)
    before = dict(os.environ)
    with environment(ONE_THREAD):
        assert {name: os.environ[name] for name in ONE_THREAD} == ONE_THREAD
    assert dict(os.environ) == before
