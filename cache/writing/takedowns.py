"""Take tracks down: a takedown record hides them at once, and compaction removes their bytes.

The row of the track in the plan stays (id, path, artists, genres), as every commit record holds a hash of the plan.
"""

from __future__ import annotations

import contextlib
import itertools
import re
import uuid
from collections.abc import Iterable
from pathlib import Path

from ..durable import fsync_dir, link, names_in, seal, write_durable
from ..errors import ConfigError
from ..format.documents import NUMBER, read_record
from ..messages import join_names
from ..names import match_names

DROPS = "drops"
_NAME = re.compile(rf"({NUMBER})\.json")
_DRAFT = ".{}.partial"


def dropped_ids(store: Path) -> set[str]:
    """Return the ids of all tracks that were taken down."""
    return {track for number in _numbers(store) for track in read_record(store, f"{DROPS}/{number}.json")["ids"]}


def drop(store: Path, ids: Iterable[str], *, planned: Iterable[str], dry_run: bool = False) -> list[str]:
    """Take tracks down: readers do not see them any more, and they are never extracted again.

    Parameters
    ----------
    ids : ids of tracks, in any Unicode form that is unambiguous.
    planned : ids of all planned tracks.
    dry_run : change nothing.

    Returns
    -------
    list of str
        Ids that were not taken down before.

    Raises
    ------
    ConfigError
        If an id is not planned; then no track is taken down.
    """
    requested, existing = set(ids), list(planned)
    matches = match_names(requested, existing)
    unknown = sorted(requested - matches.keys())
    if unknown:
        raise ConfigError(
            f"no such tracks: {store}: {join_names(unknown)}. No track was taken down. Use ids of the source's table."
        )
    new = sorted({*matches.values()} - dropped_ids(store))
    if dry_run or not requested:
        return new
    folder = store / DROPS
    folder.mkdir(exist_ok=True)
    document = seal({"ids": new})
    while new and not _publish(folder, document):
        pass
    fsync_dir(folder)  # even without a new record: a process may have been killed before this fsync
    fsync_dir(store)
    return new


def _publish(folder: Path, document: bytes) -> bool:
    """Write a takedown record under the next free number; return False if a compaction removed the draft."""
    draft = folder / _DRAFT.format(uuid.uuid4().hex)
    write_durable(draft, document)
    try:
        for number in itertools.count(1 + max(_numbers(folder.parent), default=-1)):
            with contextlib.suppress(FileExistsError):
                link(draft, folder / f"{number}.json")
                return True
    except FileNotFoundError:
        if not folder.exists():
            raise
    finally:
        draft.unlink(missing_ok=True)
    return False


def sweep_drafts(store: Path) -> None:
    """Remove the drafts of killed takedowns; a running takedown writes its draft again."""
    for name in names_in(store / DROPS, _DRAFT.format("*")):
        (store / DROPS / name).unlink(missing_ok=True)


def _numbers(store: Path) -> list[int]:
    return sorted(int(match[1]) for name in names_in(store / DROPS) if (match := _NAME.fullmatch(name)))
