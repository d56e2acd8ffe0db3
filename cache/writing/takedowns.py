"""Taking tracks down: hidden at once by a tombstone, their bytes gone once the store is compacted.

What stays is the track's line in the plan (id, path, artists, genres): the plan's hash is in every commit.
"""

from __future__ import annotations

import os
import re
import uuid
from collections.abc import Iterable
from pathlib import Path

from ..durable import fsync_dir, seal, unseal, write_durable
from ..errors import ConfigError
from ..messages import join_names

DROPS = "drops"
_NAME = re.compile(r"(\d+)\.json")
_DRAFT = ".{}.partial"


def dropped_ids(store: Path) -> set[str]:
    """Ids of all tracks that were taken down."""
    return {name for number in _numbers(store) for name in unseal(store / DROPS / f"{number}.json")["ids"]}


def drop(store: Path, ids: Iterable[str], *, planned: Iterable[str], dry_run: bool = False) -> list[str]:
    """Take tracks down; they are hidden from here on, and never made again.

    Parameters
    ----------
    ids : of the tracks.
    planned : ids that the store plans.
    dry_run : change nothing.

    Returns
    -------
    list of str
        Those that were not down already.

    Raises
    ------
    ConfigError
        If the store plans no such track; nothing is taken down then.
    """
    wanted = set(ids)
    unknown = sorted(wanted - set(planned))
    if unknown:
        raise ConfigError(
            f"{store}: no such tracks: {join_names(unknown)}; none was taken down. Ids are those of the source's table"
        )
    new = sorted(wanted - dropped_ids(store))
    if not new or dry_run:
        return new
    folder = store / DROPS
    folder.mkdir(exist_ok=True)
    draft = folder / _DRAFT.format(uuid.uuid4().hex)
    write_durable(draft, seal({"ids": new}))
    number = max(_numbers(store), default=-1)
    try:
        while True:
            number += 1
            try:
                os.link(draft, folder / f"{number}.json")
                break
            except FileExistsError:
                continue
    finally:
        draft.unlink(missing_ok=True)
    fsync_dir(folder)
    fsync_dir(store)
    return new


def sweep_drafts(store: Path) -> None:
    """Remove what takedowns that were killed have left; nobody may be taking tracks down meanwhile."""
    for draft in (store / DROPS).glob(_DRAFT.format("*")):
        draft.unlink(missing_ok=True)


def _numbers(store: Path) -> list[int]:
    try:
        names = os.listdir(store / DROPS)
    except FileNotFoundError:
        return []
    return sorted(int(found[1]) for name in names if (found := _NAME.fullmatch(name)))
