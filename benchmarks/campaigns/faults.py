"""Faults at every operation by which a process changes a folder: it dies there, or the operation fails.

Operations are counted as Python's audit events tell of them (opening for writing, link, rename, mkdir, remove, rmdir),
and fsync. What pyarrow writes through its own C++ code is seen only as the fsync that follows.
"""

from __future__ import annotations

import contextlib
import errno
import os
import sys
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, Literal

import numpy as np

from benchmarks.worlds.small_store import N_TRACKS, append_late_track, create, features, fill
from mgc.cache.format.plan import read_plan
from mgc.cache.format.records import committed
from mgc.cache.reading.store import FeatureStore
from mgc.cache.upkeep.compact import compact
from mgc.cache.upkeep.verify import verify
from mgc.cache.writing.commits import finish
from mgc.cache.writing.takedowns import drop

Fault = Literal["kill", "EIO", "ENOSPC"]
_WRITES = os.O_WRONLY | os.O_RDWR | os.O_CREAT


class Killed(Exception):  # noqa: N818
    """Stands for the death of the process: nothing it does afterwards reaches the disk."""


@dataclass
class _Watch:
    folder: Path | None = None
    fault: Fault | None = None
    at: int = -1
    seen: list[str] = field(default_factory=list)
    fired: bool = False


_watch = _Watch()
_installed: list[bool] = []


@contextmanager
def faults(folder: Path, fault: Fault | None = None, at: int = -1) -> Iterator[_Watch]:
    """Count the operations below `folder` and let one of them fail; after a kill all further ones fail too."""
    if not _installed:
        sys.addaudithook(_audit)
        real = os.fsync

        def fsync(handle: int) -> None:
            _count("fsync", folder_of=str(_watch.folder))
            real(handle)

        os.fsync = fsync
        _installed.append(True)
    _watch.__init__(folder=folder, fault=fault, at=at)  # type: ignore[misc]
    try:
        yield _watch
    finally:
        _watch.folder = None


def _audit(event: str, args: tuple[Any, ...]) -> None:
    if _watch.folder is None:
        return
    if event == "open":
        path, _, flags = args
        if isinstance(path, str | bytes) and isinstance(flags, int) and flags & _WRITES:
            _count("open", folder_of=os.fsdecode(path))
    elif event in ("os.link", "os.rename", "os.mkdir", "os.remove", "os.rmdir"):
        _count(event, folder_of=str(args[1] if event in ("os.link", "os.rename") else args[0]))


def _count(name: str, *, folder_of: str) -> None:
    if _watch.folder is None or not folder_of.startswith(str(_watch.folder)):
        return
    if _watch.fired and _watch.fault == "kill":
        raise Killed
    _watch.seen.append(name)
    if _watch.fault is not None and len(_watch.seen) - 1 == _watch.at:
        _watch.fired = True
        if _watch.fault == "kill":
            raise Killed
        raise OSError(getattr(errno, _watch.fault), os.strerror(getattr(errno, _watch.fault)), folder_of)


def life(path: Path) -> None:
    """What happens to a store: planned, filled, extended, a track taken down, compacted. Goes on where it stopped."""
    if not (path / "plan.json").exists():
        create(path)
    finish(path)
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
    """Whatever happened, what is shown is whole: rows as written, or absent; nothing is damaged."""
    if not (path / "plan.json").exists():
        assert not path.exists() or not any(path.iterdir())
        return
    assert verify(path, full=True) == []
    with FeatureStore.open(path) as store:
        for row in store.ok_rows.tolist():
            np.testing.assert_array_equal(store.read("mel", [row])[0], features(row)["mel"])
        assert len(store.tracks) in (N_TRACKS, N_TRACKS + 1)


def one_fault(folder: Path, fault: Fault, at: int, clean: dict[str, bytes | None], tree: Callable[..., Any]) -> str:
    """A life with one fault, then a second one without: the end must be `clean`. Returns the operation that failed."""
    path = folder / "s.zarr"
    with faults(folder, fault, at) as watch, contextlib.suppress(Killed, OSError):
        life(path)
    assert watch.fired, f"the fault at operation {at} did not happen"
    check_state(path)
    life(path)
    assert tree(path) == clean, f"{fault} at operation {at} ({watch.seen[at]})"
    return watch.seen[at]
