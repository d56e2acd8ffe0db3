"""Claims and locks, with which processes divide the work on one folder.

A claim is only a hint: the first published result is valid. A lost, stale or ignored claim causes double work but never
a wrong result.
"""

from __future__ import annotations

import contextlib
import functools
import json
import os
import socket
import threading
import uuid
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

from .durable import link, open_regular, stale_as_missing

HEARTBEAT_S, STALE_S = 20.0, 120.0
"""Interval at which the owner of a claim touches it, and age after which a claim of another machine is void."""


@contextmanager
def hold(file: Path, *, take_over: bool = False) -> Iterator[bool]:
    """Hold the claim `file` in a ``with`` block; yield False if another live process holds it.

    Parameters
    ----------
    take_over : replace the claim of another process, which the caller knows to be dead.
    """
    claim = new_claim()
    if take_over:
        file.unlink(missing_ok=True)
    if not _take(file, claim):
        yield False
        return
    stop = threading.Event()
    heartbeat = threading.Thread(target=_touch, args=(file, stop), daemon=True)
    heartbeat.start()
    try:
        yield True
    finally:
        stop.set()
        heartbeat.join()
        with contextlib.suppress(OSError, ValueError):
            if json.loads(file.read_bytes()) == claim:
                file.unlink()


def new_claim() -> dict[str, object]:
    """Return the content of a new claim of this process."""
    return {"host": socket.gethostname(), "space": _process_space(), "pid": os.getpid(), "id": uuid.uuid4().hex}


@contextmanager
def lock(path: Path) -> Iterator[bool]:
    """Lock a file or folder in a ``with`` block; yield False if another process holds the lock or replaced `path`.

    The function never waits, as the process that holds the lock may be suspended.
    """
    import fcntl  # POSIX only; not needed to read a store

    try:  # an exclusive lock on NFS needs a file that is open for writing
        handle = os.open(path, os.O_RDONLY | os.O_DIRECTORY if path.is_dir() else os.O_RDWR)
    except FileNotFoundError:
        yield False
        return
    try:
        free = True
        try:
            fcntl.flock(handle, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except BlockingIOError:
            free = False
        except OSError:
            pass  # a file system without locks
        yield free and path.exists() and os.path.samestat(os.fstat(handle), path.stat())
    finally:
        os.close(handle)


def file_system_time(folder: Path) -> float:
    """Return the time of a folder's file system, which is the same on all machines; their own clocks differ."""
    probe = folder / f".clock.{uuid.uuid4().hex}"
    try:
        probe.touch()
        return probe.stat().st_mtime
    finally:
        probe.unlink(missing_ok=True)


@functools.cache
def _process_space() -> str:
    """Return what the ids of processes belong to: the boot of a machine, and a namespace, as containers have their own.

    Machines and containers may have equal host names.
    """
    space = []
    with contextlib.suppress(OSError):  # Linux only
        space = [Path("/proc/sys/kernel/random/boot_id").read_text().strip(), str(Path("/proc/self/ns/pid").readlink())]
    return " ".join(space)


def _touch(file: Path, stop: threading.Event) -> None:
    while not stop.wait(HEARTBEAT_S):
        with contextlib.suppress(OSError):
            os.utime(file)


def _take(file: Path, claim: dict[str, object]) -> bool:
    draft = file.with_name(f"{file.name}-{claim['id']}")
    with contextlib.suppress(FileExistsError):
        file.parent.mkdir()
    try:
        with stale_as_missing():
            draft.write_text(json.dumps(claim))
        now = draft.stat().st_mtime  # by the clock of the file system, which all machines share
        for _ in range(2):
            try:
                link(draft, file)
                return True
            except FileExistsError:
                if not _is_abandoned(file, now):
                    return False
                file.unlink(missing_ok=True)
        return False
    except FileNotFoundError:  # another process has removed the folder, so the work is done
        return False
    finally:
        draft.unlink(missing_ok=True)


def _is_abandoned(file: Path, now: float) -> bool:
    try:
        with open_regular(file) as opened:
            return is_void(opened.read(), now - file.stat().st_mtime)
    except (OSError, ValueError):
        return True


def is_void(claim: bytes, age_s: float) -> bool:
    """Return whether the owner of a claim has ended: its process is gone, or it has not touched it for long."""
    try:
        owner = json.loads(claim)
        own, pid = _process_space(), int(owner["pid"])
        is_visible = (owner["host"], owner.get("space", own)) == (socket.gethostname(), own)
    except (ValueError, LookupError, TypeError, RecursionError):
        return True
    if not is_visible or age_s > STALE_S:  # the process id may have been reused
        return age_s > STALE_S
    try:
        os.kill(pid, 0)
    except (ProcessLookupError, OverflowError):
        return True
    except PermissionError:
        pass
    return False
