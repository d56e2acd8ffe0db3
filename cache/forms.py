"""The two forms of a store, a Zarr folder and a sealed HDF5 file, and the way between them."""

from __future__ import annotations

import contextlib
import os
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path

from .errors import ConfigError
from .hdf5_store import seal_store, unpack_store
from .plan import PLAN_FILE

SEALED_SUFFIXES = (".h5", ".hdf5")


def is_store(path: Path) -> bool:
    """Whether a feature store lies there, in one form or the other."""
    return (path / PLAN_FILE).is_file() or (path.suffix in SEALED_SUFFIXES and path.is_file())


def convert(source: Path, target: Path, *, on_progress: Callable[[int, int], None] | None = None) -> None:
    """Zarr form to HDF5 form, or back; the result is compared with what it was made from.

    Raises
    ------
    ConfigError, StoreCorruptError
    """
    if source.is_file():
        unpack_store(source, target, on_progress=on_progress)
    elif target.suffix not in SEALED_SUFFIXES:
        raise ConfigError(f"{target}: the HDF5 form of a store ends in {' or '.join(SEALED_SUFFIXES)}")
    else:
        seal_store(source, target, on_progress=on_progress)


@contextmanager
def only_writer(sealed: Path) -> Iterator[Path]:
    """A hidden folder beside a sealed store, in which one process at a time makes it; what a kill leaves there is kept.

    Raises
    ------
    ConfigError
        If another process is at it.
    """
    import fcntl  # POSIX; reading a store needs it not

    folder = sealed.with_name(f".{sealed.name}.making")
    folder.mkdir(parents=True, exist_ok=True)
    handle = os.open(folder, os.O_RDONLY | os.O_DIRECTORY)
    try:
        busy = False
        try:
            fcntl.flock(handle, fcntl.LOCK_EX | fcntl.LOCK_NB)
            busy = not folder.exists() or not os.path.samestat(os.fstat(handle), folder.stat())
        except BlockingIOError:
            busy = True
        except OSError:
            pass  # a file system without locks
        if busy:
            raise ConfigError(f"{sealed}: another extraction makes it; a sealed store has one writer: wait for it")
        try:
            yield folder
        finally:
            with contextlib.suppress(OSError):
                folder.rmdir()
    finally:
        os.close(handle)
