"""Hints about who is at work on what, so that processes on one folder share the work instead of racing.

A claim decides nothing: what is published does. A claim that is lost, stale or ignored costs double work, never a
result.
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

HEARTBEAT_S, STALE_S = 20.0, 120.0
"""A claim is touched that often; one from another machine that has not been for so long is nobody's."""


@contextmanager
def hold(file: Path, *, over: bool = False) -> Iterator[bool]:
    """Hold the claim `file` for a while; False where another live process has it.

    Parameters
    ----------
    over : take the claim from whoever has it, who is known to be dead.
    """
    mine = {"host": socket.gethostname(), "pid": os.getpid(), "id": uuid.uuid4().hex}
    if over:
        file.unlink(missing_ok=True)
    if not _take(file, mine):
        yield False
        return
    ended = threading.Event()
    heart = threading.Thread(target=_beat, args=(file, ended), daemon=True)
    heart.start()
    try:
        yield True
    finally:
        ended.set()
        heart.join()
        with contextlib.suppress(OSError, ValueError):
            if json.loads(file.read_bytes()) == mine:
                file.unlink()


def _beat(file: Path, ended: threading.Event) -> None:
    while not ended.wait(HEARTBEAT_S):
        with contextlib.suppress(OSError):
            os.utime(file)


def _take(file: Path, mine: dict[str, object]) -> bool:
    draft = file.with_name(f"{file.name}-{mine['id']}")
    with contextlib.suppress(FileExistsError):
        file.parent.mkdir()
    try:
        draft.write_text(json.dumps(mine))
        now = draft.stat().st_mtime  # by the clock of the file system, which all machines share
        for _ in range(2):
            try:
                os.link(draft, file)
                return True
            except FileExistsError:
                if not _abandoned(file, now):
                    return False
                file.unlink(missing_ok=True)
        return False
    except FileNotFoundError:  # its folder was swept away meanwhile: the work is done
        return False
    finally:
        draft.unlink(missing_ok=True)


def _abandoned(file: Path, now: float) -> bool:
    try:
        owner, age_s = json.loads(file.read_bytes()), now - file.stat().st_mtime
    except (OSError, ValueError):
        return True
    if owner["host"] != socket.gethostname() or age_s > STALE_S:  # another process may have got its number since
        return bool(age_s > STALE_S)
    try:
        os.kill(owner["pid"], 0)
    except ProcessLookupError:
        return True
    except PermissionError:
        pass
    return False
