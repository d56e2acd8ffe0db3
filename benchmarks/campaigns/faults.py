"""Faults at every operation by which a process changes a folder: it dies there, or the operation fails, or it sleeps.

Operations are counted by Python's audit events (opening for writing, link, rename, mkdir, remove, rmdir) and fsync.
What pyarrow writes through its own C++ code is counted only as the fsync that follows.
"""

from __future__ import annotations

import contextlib
import errno
import functools
import os
import sys
import threading
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, Literal

import numpy as np

from benchmarks.worlds.small_store import N_TRACKS, append_late_track, create, features, fill, tree
from mgc.cache.format.plan import read_plan
from mgc.cache.format.records import committed
from mgc.cache.reading.store import FeatureStore
from mgc.cache.upkeep.compact import compact
from mgc.cache.upkeep.verify import verify
from mgc.cache.writing.commits import roll_forward
from mgc.cache.writing.takedowns import drop

Fault = Literal["kill", "EIO", "ENOSPC"]
_WRITES = os.O_WRONLY | os.O_RDWR | os.O_CREAT


class Killed(Exception):  # noqa: N818
    """Stands for the death of the process: nothing that it does afterwards reaches the disk."""


@dataclass
class Watch:
    """The operations on a folder, in order, and whether the fault at one of them happened.

    Attributes
    ----------
    fault : a function is called, and the operation then goes on: what another process does meanwhile.
    reads : count files opened for reading, and folders listed, too; of this thread only, for in the thread of zarr's
        event loop no other command can run.
    undurable : names that were made and whose folder was not fsynced since: a power cut may take them.
    """

    folder: Path
    fault: Fault | Callable[[], None] | None
    at: int
    reads: bool = False
    operations: list[str] = field(default_factory=list)
    undurable: set[Path] = field(default_factory=set)
    fired: bool = False
    thread: int = field(default_factory=threading.get_ident)

    def count(self, name: str, path: str) -> None:
        """Note an operation on `path` if that lies in the folder, or let it fail."""
        if not path.startswith(str(self.folder)) or (self.reads and threading.get_ident() != self.thread):
            return
        if self.fired and self.fault == "kill":
            raise Killed
        self.operations.append(name)
        if self.fault is not None and len(self.operations) - 1 == self.at:
            self.fired = True
            if callable(self.fault):
                _watches.clear()
                self.fault()
                _watches[:] = [self]
                return
            if self.fault == "kill":
                raise Killed
            number = getattr(errno, str(self.fault))
            raise OSError(number, os.strerror(number), path)


_watches: list[Watch] = []
"""The watch of this moment, if any."""


@contextmanager
def faults(
    folder: Path, fault: Fault | Callable[[], None] | None = None, at: int = -1, *, reads: bool = False
) -> Iterator[Watch]:
    """Count the operations below `folder` and let one of them fail; after a kill all further ones fail too."""
    _add_hooks()
    watch = Watch(folder, fault, at, reads)
    _watches[:] = [watch]
    try:
        yield watch
    finally:
        _watches.clear()


def _audit(event: str, args: tuple[Any, ...]) -> None:
    if not _watches:
        return
    if event == "open":
        path, _, flags = args
        if isinstance(path, str | bytes) and isinstance(flags, int) and (flags & _WRITES or _watches[0].reads):
            _watches[0].count("open", os.fsdecode(path))
    elif event in ("os.listdir", "os.scandir") and _watches[0].reads:
        _watches[0].count(event, str(args[0]))
    elif event in ("os.link", "os.rename", "os.mkdir", "os.remove", "os.rmdir"):
        watch, path = _watches[0], str(args[1] if event in ("os.link", "os.rename") else args[0])
        watch.count(event, path)
        if event in ("os.link", "os.rename", "os.mkdir"):
            watch.undurable.add(Path(path))


@functools.cache
def _add_hooks() -> None:
    """Count operations from now on; an audit hook cannot be removed, so it is added once."""
    sys.addaudithook(_audit)
    real = os.fsync

    def fsync(handle: int) -> None:
        for watch in _watches:
            watch.count("fsync", str(watch.folder))
            path = Path(f"/proc/self/fd/{handle}").readlink()
            watch.undurable = {name for name in watch.undurable if name.parent != path}
        real(handle)

    os.fsync = fsync


def life(path: Path) -> None:
    """Plan a store, fill it, extend it, take down a track and compact; continue a life that was interrupted."""
    if not (path / "plan.json").exists():
        create(path)
    roll_forward(path)
    _fill_pending(path)
    if len(read_plan(path).generations) == 1:
        append_late_track(path)
    _fill_pending(path)
    drop(path, ["t02"], planned=["t02"])
    compact(path)


def _fill_pending(path: Path) -> None:
    plan = read_plan(path)
    fill(path, sorted(set(range(plan.n_parts)) - committed(path).keys()))


def check_state(path: Path) -> None:
    """Assert that rows of a store are as they were written, or absent, and that nothing is damaged."""
    if not (path / "plan.json").exists():
        assert not path.exists() or not any(path.iterdir())
        return
    assert verify(path, full=True) == []
    with FeatureStore.open(path) as store:
        for row in store.ok_rows.tolist():
            np.testing.assert_array_equal(store.read("mel", [row])[0], features(row)["mel"])
        assert len(store.tracks) in (N_TRACKS, N_TRACKS + 1)


def check_fault(folder: Path, fault: Fault, at: int, clean: dict[str, bytes | None]) -> None:
    """Live a life with one fault, then finish it without: the store in the end must be `clean`."""
    path = folder / "s.zarr"
    with faults(folder, fault, at) as watch, contextlib.suppress(Killed, OSError):
        life(path)
    assert watch.fired, f"the fault at operation {at} did not happen"
    with faults(folder) as second:
        second.undurable = watch.undurable
        check_state(path)
        life(path)
    assert tree(path) == clean, f"{fault} at operation {at} ({watch.operations[at]})"
    lost = second.undurable & {path / key for key in clean}
    assert not lost, f"a power cut may take {lost} after {fault} at operation {at} ({watch.operations[at]})"
