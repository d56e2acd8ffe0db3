"""Freed memory of arrays is reused, without new pages from the system."""

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
    """Return the pages requested from the system for an array that is filled and freed."""
    before = resource.getrusage(resource.RUSAGE_SELF).ru_minflt
    np.empty(n_bytes, dtype=np.uint8).fill(1)
    return resource.getrusage(resource.RUSAGE_SELF).ru_minflt - before


@needs_glibc
def test_large_arrays_reuse_pages_only_while_memory_is_kept() -> None:
    n_bytes = 100 * MB
    with keep_freed_memory():
        pages_asked_for(n_bytes)
        assert pages_asked_for(n_bytes) < 100
    pages_asked_for(n_bytes)
    huge_pages = n_bytes // (2 * MB)
    assert pages_asked_for(n_bytes) >= huge_pages  # at least: where the system gives small ones, 25 600


@needs_glibc
@pytest.mark.parametrize(("n_mb", "again"), [(20, True), (100, False)])
def test_worker_reuses_small_blocks_and_returns_large_ones(n_mb: int, again: bool) -> None:
    """Run in a separate process, with the settings of Dask's nanny."""
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
    requested = int(done.stdout)
    assert requested < 100 if again else requested >= n_mb // 2


@needs_glibc
def test_keep_freed_memory_can_be_disabled() -> None:
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
