"""Claims and locks, by which processes that work on one folder share the work.

A claim is only a hint: the process that publishes a result first decides. A claim that is lost, stale or ignored costs
double work, never a result.
"""

from __future__ import annotations

import contextlib
import json
import os
import socket
import threading
import uuid
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

from .durable import link, open_regular

HEARTBEAT_S, STALE_S = 20.0, 120.0
"""How often the owner of a claim touches it; after how long without a touch a claim of another machine is void."""


@contextmanager
def hold(file: Path, *, over: bool = False) -> Iterator[bool]:
    """Hold the claim `file` in a ``with`` block; yield False if another live process holds it.

    Parameters
    ----------
    over : take the claim over from its owner, a process that is known to be dead.
    """
    claim = {"host": socket.gethostname(), "pid": os.getpid(), "id": uuid.uuid4().hex}
    if over:
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


@contextmanager
def lock(path: Path) -> Iterator[bool]:
    """Lock a file or folder in a ``with`` block; yield False if another process has, or `path` was replaced.

    It never waits: the process that holds the lock may be suspended.
    """
    import fcntl  # POSIX; reading a store does not need it

    try:  # NFS locks exclusively only a file that is open for writing
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
    """Return the time of a folder's file system, which all machines that mount it share; their own clocks differ."""
    probe = folder / f".clock.{uuid.uuid4().hex}"
    try:
        probe.touch()
        return probe.stat().st_mtime
    finally:
        probe.unlink(missing_ok=True)


def _touch(file: Path, stop: threading.Event) -> None:
    while not stop.wait(HEARTBEAT_S):
        with contextlib.suppress(OSError):
            os.utime(file)


def _take(file: Path, claim: dict[str, object]) -> bool:
    draft = file.with_name(f"{file.name}-{claim['id']}")
    with contextlib.suppress(FileExistsError):
        file.parent.mkdir()
    try:
        draft.write_text(json.dumps(claim))
        now = draft.stat().st_mtime  # by the clock of the file system, which all machines share
        for _ in range(2):
            try:
                link(draft, file)
                return True
            except FileExistsError:
                if not _abandoned(file, now):
                    return False
                file.unlink(missing_ok=True)
        return False
    except FileNotFoundError:  # another process has removed the folder: the work is done
        return False
    finally:
        draft.unlink(missing_ok=True)


def _abandoned(file: Path, now: float) -> bool:
    try:
        with open_regular(file) as opened:
            owner, age_s = json.load(opened), now - file.stat().st_mtime
        host, pid = owner["host"], int(owner["pid"])
    except (OSError, ValueError, LookupError, TypeError, RecursionError):
        return True
    if host != socket.gethostname() or age_s > STALE_S:  # another process may have got its number since
        return age_s > STALE_S
    try:
        os.kill(pid, 0)
    except (ProcessLookupError, OverflowError):
        return True
    except PermissionError:
        pass
    return False
