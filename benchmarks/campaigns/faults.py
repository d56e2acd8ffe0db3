"""Inject a fault at any operation that changes a folder: the process dies, the operation fails, or the process sleeps.

Operations are counted by Python's audit events (open for writing, link, rename, mkdir, remove, rmdir) and by fsync.
Writes of pyarrow's C++ code count only by the fsync that follows.
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
    """Simulates the death of the process: no later operation reaches the disk."""


@dataclass
class Watch:
    """Operations on a folder, in order, with a fault at one of them.

    Attributes
    ----------
    fault : kind of fault. A function is called before the operation, in place of another process.
    at : number of the operation with the fault.
    reads : also count files opened for reading and listed folders, in this thread only, since no other command can run
        in the thread of zarr's event loop.
    undurable : new names whose folder was not fsynced since, so that a power cut may lose them.
    fired : whether the fault has happened.
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
        """Record an operation on `path` if it is in the folder, or inject the fault."""
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
"""The active watch, if any."""


@contextmanager
def faults(
    folder: Path, fault: Fault | Callable[[], None] | None = None, at: int = -1, *, reads: bool = False
) -> Iterator[Watch]:
    """Count the operations below `folder` and inject a fault at one of them; after a kill, all later ones fail."""
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
    """Install the hooks that count operations, once, since an audit hook cannot be removed."""
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
    """Plan a store, fill it, append to it, take down a track and compact; continue after an interruption."""
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
    """Assert that a store is intact and that its rows are as written, or absent."""
    if not (path / "plan.json").exists():
        assert not path.exists() or not any(path.iterdir())
        return
    assert verify(path, full=True) == []
    with FeatureStore.open(path) as store:
        for row in store.ok_rows.tolist():
            np.testing.assert_array_equal(store.read("mel", [row])[0], features(row)["mel"])
        assert len(store.tracks) in (N_TRACKS, N_TRACKS + 1)


def check_fault(folder: Path, fault: Fault, at: int, clean: dict[str, bytes | None]) -> None:
    """Run :func:`life` with one fault and again without: the final store must equal `clean`."""
    path = folder / "s.zarr"
    with faults(folder, fault, at) as watch, contextlib.suppress(Killed, OSError):
        life(path)
    assert watch.fired, f"the fault at operation {at} did not happen"
    with faults(folder) as second:
        second.undurable = watch.undurable
        check_state(path)
        life(path)
    assert tree(path) == clean, f"{fault} at operation {at} ({watch.operations[at]})"
    undurable = second.undurable & {path / key for key in clean}
    assert not undurable, f"a power cut may lose {undurable} after {fault} at operation {at} ({watch.operations[at]})"
