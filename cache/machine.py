"""Features of this machine: threads of numerical libraries, reuse of freed memory, native bf16.

By default glibc returns every large block to the system, which hands it out again page by page, each zeroed first. That
costs a third of the time for short-lived arrays (docs/design/008-speed.md). Other C libraries are not changed.
"""

from __future__ import annotations

import contextlib
import ctypes
import errno
import os
import platform
import re
import signal
import sys
from collections.abc import Iterator, Mapping
from pathlib import Path

from .errors import WorkerError

_M_TRIM_THRESHOLD, _M_MMAP_THRESHOLD, _M_MMAP_MAX = -1, -3, -4
_DEFAULT_MMAP_MAX = 65_536  # of glibc
_TRIM_BYTES = 2**28


_THREAD_POOLS = ("OMP_NUM", "MKL_NUM", "OPENBLAS_NUM", "NUMBA_NUM", "NUMEXPR_NUM", "VECLIB_MAXIMUM")
ONE_THREAD = {f"{pool}_THREADS": "1" for pool in _THREAD_POOLS}
"""Environment of a worker process that shares the machine with others; libraries read it when they are imported."""


@contextlib.contextmanager
def environment(variables: Mapping[str, str]) -> Iterator[None]:
    """Set environment variables, and restore them at the end."""
    before = {name: os.environ[name] for name in variables if name in os.environ}
    os.environ.update(variables)
    try:
        yield
    finally:
        for name in variables:
            os.environ.pop(name, None)
        os.environ.update(before)


UNGUARDED = "worker processes import this script. Put its calls below: if __name__ == '__main__':"


def refuse_unguarded_script() -> None:
    """Raise WorkerError in a worker process that imports a script whose top level would start workers in turn."""
    from multiprocessing import process

    if getattr(process.current_process(), "_inheriting", False):  # as multiprocessing itself recognises it
        raise WorkerError(UNGUARDED)


@contextlib.contextmanager
def without_interrupts() -> Iterator[None]:
    """Block SIGINT and SIGHUP in processes and threads that are started in a ``with`` block.

    A terminal sends these signals to a whole process group; only the parent acts on them.
    """
    from multiprocessing import resource_tracker  # not above: every command imports this module

    from_terminal = {signal.SIGINT, signal.SIGHUP}
    before = signal.pthread_sigmask(signal.SIG_BLOCK, from_terminal)
    try:
        with environment({"PYTHONWARNINGS": "ignore:resource_tracker"}):  # it warns where its parent was ended
            resource_tracker.ensure_running()  # now, as its start unblocks SIGINT
        signal.pthread_sigmask(signal.SIG_BLOCK, from_terminal)
        yield
    finally:
        signal.pthread_sigmask(signal.SIG_SETMASK, before)


def reuse_freed_blocks() -> None:
    """Reuse blocks of up to 32 MB, and keep up to 256 MB of free memory: for a process that handles many clips.

    Larger arrays, such as those of a part, still go back to the system, so that memory does not grow.
    """
    _set_allocator({_M_MMAP_THRESHOLD: 2**25, _M_TRIM_THRESHOLD: _TRIM_BYTES})


@contextlib.contextmanager
def keep_freed_memory(enabled: bool = True) -> Iterator[None]:
    """Keep all freed memory in this process, of blocks of any size, and return it to the system at the end.

    Gaps between arrays of different sizes are kept too: expect 50 % more memory.
    """
    if not enabled:
        yield
        return
    _set_allocator({_M_MMAP_MAX: 0, _M_TRIM_THRESHOLD: -1})  # -1: never
    try:
        yield
    finally:
        _set_allocator({_M_MMAP_MAX: _DEFAULT_MMAP_MAX, _M_TRIM_THRESHOLD: _TRIM_BYTES})
        if (trim := getattr(ctypes.CDLL(None), "malloc_trim", None)) is not None:
            trim(0)


def _set_allocator(parameters: dict[int, int]) -> None:
    if (mallopt := getattr(ctypes.CDLL(None), "mallopt", None)) is not None:
        for parameter, value in parameters.items():
            mallopt(parameter, value)


_NO_MEMORY = re.compile(r"(can't|cannot|unable to) allocate|not enough memory|out of memory|failed to map segment")


def is_out_of_memory(error: BaseException) -> bool:
    """Return whether an error means out of memory; torch and the dynamic loader report it only in the message."""
    if isinstance(error, MemoryError) or (isinstance(error, OSError) and error.errno == errno.ENOMEM):
        return True
    return isinstance(error, RuntimeError | ImportError) and _NO_MEMORY.search(str(error).lower()) is not None


def peak_memory_bytes() -> int:
    """Return the largest memory that this process has occupied so far, without its child processes."""
    import resource  # not above: it is absent on Windows

    peak = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss
    return peak if sys.platform == "darwin" else peak * 1024


def cpu_has_bf16() -> bool:
    """Return whether this CPU multiplies bf16 natively (AMX or AVX512-BF16); else emulated bf16 is slower than fp32."""
    if platform.machine() not in ("x86_64", "AMD64"):
        return False
    try:
        info = Path("/proc/cpuinfo").read_text(encoding="ascii", errors="replace")
    except OSError:
        return False
    flags = next((line.split() for line in info.splitlines() if line.startswith("flags")), [])
    return "avx512_bf16" in flags or "amx_bf16" in flags
