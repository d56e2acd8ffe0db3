"""Errors that end a command: one line with the cause and what to do. Only a bug of mgc prints a traceback."""

from __future__ import annotations

import errno
import os
import re

from ..cache.errors import MgcError
from ..cache.machine import is_out_of_memory

_AGAIN = "repeat the command: finished work is kept"
_FULL = f"Free some space, then {_AGAIN}."
_FEW_PROCESSES = f"End other processes, raise the limit, or use fewer workers (--workers 0). Then {_AGAIN}."
_FEW_FILES = f"Raise the limit (ulimit -n), or use fewer workers (--workers 0). Then {_AGAIN}."
_READ_ONLY = "Choose another folder, or change its permissions."

_ADVICE = {
    errno.ENOSPC: _FULL,
    errno.EDQUOT: _FULL,
    errno.EFBIG: f"Raise the limit on file sizes (ulimit -f), or use another file system. Then {_AGAIN}.",
    errno.EIO: f"Check the disk, then {_AGAIN}.",
    errno.EROFS: "Choose a folder that can be written to.",
    errno.EMFILE: _FEW_FILES,
    errno.ENFILE: _FEW_FILES,
    errno.EAGAIN: _FEW_PROCESSES,
}
"""Errors of the machine; fsync and others report them without a file name."""

_CANNOT_WRITE = (errno.EACCES, errno.EPERM, errno.EROFS)

_IN_HDF5 = re.compile(r"(?:name = '(?P<name>[^']*)', )?errno = (?P<errno>\d+)")


def explain(error: BaseException) -> str | None:
    """Return one line on an error with a cause outside of mgc; None for a bug of mgc."""
    if isinstance(error, MgcError):
        return str(error)
    if is_out_of_memory(error):
        return (
            "out of memory, or above a limit (ulimit -v, a job's limit). Use fewer workers (--workers 0), smaller "
            f"parts or batches, or more memory. Then {_AGAIN}."
        )
    if isinstance(error, RuntimeError) and "can't start new thread" in str(error):
        return f"cannot start a thread (limits: ulimit -u, ulimit -v). {_FEW_PROCESSES}"
    if "No usable temporary directory" in str(error):
        return "no folder for temporary files can be written to. Set TMPDIR to one."
    number = error.errno if isinstance(error, OSError) else None
    name = getattr(error, "filename", None)
    if match := _IN_HDF5.search(str(error)):
        number, name = int(match["errno"]), name or match["name"]
    if number in _CANNOT_WRITE and (folder := _folder_of_new(name)) is not None:
        return f"{folder}: the folder cannot be written to ({os.strerror(number)}). {_READ_ONLY}"
    if number not in _ADVICE and not (isinstance(error, OSError) and name):
        return None
    advice = f". {_ADVICE[number]}" if number in _ADVICE else ""
    return f"{name or 'the system'}: {os.strerror(number) if number else error}{advice}"


def _folder_of_new(name: object) -> str | None:
    """Return the folder of a file that could not be created, which may have a temporary name; None for other files."""
    if not isinstance(name, str | bytes) or os.path.lexists(name):
        return None
    folder = os.path.dirname(os.path.abspath(os.fsdecode(name)))  # noqa: PTH100, PTH120 (bytes, too)
    return folder if os.path.isdir(folder) else None  # noqa: PTH112
