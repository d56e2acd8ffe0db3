"""Hints about who is at work on which part, so that extractions of one store share the parts instead of racing.

A claim decides nothing: the commit does. A claim that is lost, stale or ignored costs double work, never a row.
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

from ..cache.commits import commit_key
from ..cache.publish import STAGING

HEARTBEAT_S, STALE_S = 20.0, 120.0
"""A claim is touched that often; one from another machine that has not been for so long is nobody's."""


@contextmanager
def claim(store: Path, part: int, feature_set: str | None = None, *, over: bool = False) -> Iterator[bool]:
    """Claim a part while it is built; False where another live process has.

    Parameters
    ----------
    over : take the claim from whoever has it, who is known to be dead.
    """
    label = commit_key(part, 0, feature_set).removesuffix(".json").replace("/", "+")
    file = store / STAGING / f"{label}~claim"
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
    except FileNotFoundError:  # the part was committed meanwhile, and what was staged for it swept away
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
