"""The two forms of a store, a Zarr folder and a sealed HDF5 file, and the way between them."""

from __future__ import annotations

from collections.abc import Callable
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
