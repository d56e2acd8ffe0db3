"""Errors that end a command: one line with the cause and what to do. Only a fault of mgc prints a traceback."""

from __future__ import annotations

import errno
import os
import re

from ..cache.errors import MgcError
from ..cache.machine import is_out_of_memory

_AGAIN = "give the same command again: what was finished is kept"
_FULL = f"make room and {_AGAIN}"
_FEW_PROCESSES = f"end others, raise the limit, or use fewer workers (--workers 0); then {_AGAIN}"
_FEW_FILES = f"raise the limit (ulimit -n), or use fewer workers (--workers 0); then {_AGAIN}"

_ADVICE = {
    errno.ENOSPC: _FULL,
    errno.EDQUOT: _FULL,
    errno.EFBIG: f"raise the limit on the size of files (ulimit -f), or use another file system; then {_AGAIN}",
    errno.EIO: f"see whether the disk is sound, then {_AGAIN}",
    errno.EROFS: "name a place that can be written to",
    errno.EMFILE: _FEW_FILES,
    errno.ENFILE: _FEW_FILES,
    errno.EAGAIN: _FEW_PROCESSES,
}
"""Errors of the machine; fsync and others report them without a file name."""

_IN_HDF5 = re.compile(r"errno = (\d+)")


def explain(error: BaseException) -> str | None:
    """Return one line on an error that is no fault of mgc; None for one that is."""
    if isinstance(error, MgcError):
        return str(error)
    if is_out_of_memory(error):
        return (
            "out of memory, or of what is allowed (ulimit -v, a job's limit): use fewer workers (--workers 0), smaller "
            f"parts or batches, or more memory; then {_AGAIN}"
        )
    if isinstance(error, RuntimeError) and "can't start new thread" in str(error):
        return f"no further thread can be started here (limits: ulimit -u, ulimit -v); {_FEW_PROCESSES}"
    if "No usable temporary directory" in str(error):
        return "no folder for temporary files can be written to: set TMPDIR to one"
    number = error.errno if isinstance(error, OSError) else None
    if match := _IN_HDF5.search(str(error)):
        number = int(match[1])
    name = getattr(error, "filename", None)
    if number not in _ADVICE and not (isinstance(error, OSError) and name):
        return None
    advice = f"; {_ADVICE[number]}" if number in _ADVICE else ""
    return f"{name or 'the system'}: {os.strerror(number) if number else error}{advice}"
