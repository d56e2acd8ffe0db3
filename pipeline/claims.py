"""Hints about who is at work on which part, so that extractions of one store share the parts instead of racing.

A claim decides nothing: the commit does. A claim that is lost, stale or ignored costs double work, never a row.
"""

from __future__ import annotations

import contextlib
import json
import os
import socket
import time
import uuid
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

from ..cache.commits import COMMITS
from ..cache.publish import STAGING

STALE_S = 900.0
"""A claim from another machine that has not been touched for so long is nobody's: as long as one file may take."""


class Claim:
    """A part that this process is at work on."""

    def __init__(self, file: Path) -> None:
        self._file = file

    def touch(self) -> None:
        """Say that the work goes on."""
        with contextlib.suppress(OSError):
            os.utime(self._file)


@contextmanager
def claim(store: Path, part: int) -> Iterator[Claim | None]:
    """Claim a part while it is built; None where another live process has."""
    file = store / STAGING / f"{COMMITS}+{part}~claim"
    mine = {"host": socket.gethostname(), "pid": os.getpid(), "id": uuid.uuid4().hex}
    if not _take(file, mine):
        yield None
        return
    try:
        yield Claim(file)
    finally:
        with contextlib.suppress(OSError):
            if json.loads(file.read_bytes()) == mine:
                file.unlink()


def _take(file: Path, mine: dict[str, object]) -> bool:
    draft = file.with_name(f"{file.name}-{mine['id']}")
    file.parent.mkdir(exist_ok=True)
    try:
        draft.write_text(json.dumps(mine))
        for _ in range(2):
            try:
                os.link(draft, file)
                return True
            except FileExistsError:
                if not _abandoned(file):
                    return False
                file.unlink(missing_ok=True)
        return False
    except FileNotFoundError:  # the part was committed meanwhile, and what was staged for it swept away
        return False
    finally:
        draft.unlink(missing_ok=True)


def _abandoned(file: Path) -> bool:
    try:
        owner, age_s = json.loads(file.read_bytes()), time.time() - file.stat().st_mtime
    except (OSError, ValueError):
        return True
    if owner["host"] != socket.gethostname():
        return age_s > STALE_S
    try:
        os.kill(owner["pid"], 0)
    except ProcessLookupError:
        return True
    except PermissionError:
        pass
    return False
