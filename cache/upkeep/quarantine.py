"""Quarantine of damaged parts.

Repair has two steps. This one moves a damaged part into ``quarantine/``, so that it is pending again, and rewrites
metadata that follows from the plan. Extraction (:mod:`mgc.pipeline.extraction.repair`) then builds what is pending.
"""

from __future__ import annotations

import contextlib
import itertools
import os
from collections.abc import Iterable, Mapping
from pathlib import Path
from typing import Any

from ..durable import fsync_dir, make_folders, replace_file, seal
from ..format import layout
from ..format.plan import FEATURES, PLAN_FILE
from ..format.records import QUARANTINE, STAGING, commit_key, keys_of_part, newest_record, quarantine_folder
from ..writing.feature_removal import refuse_running_removals
from ..writing.publish import refuse_busy, remove_empty_staging, sweep
from .salvage import SalvagedPlan
from .verify import Damage


def quarantine(store: Path, damages: Iterable[Damage]) -> list[Damage]:
    """Quarantine damaged parts and foreign objects; rewrite plan, generation records and Zarr metadata.

    Returns
    -------
    list of Damage
        Remaining damage, which needs the source (tables of the plan, genre embeddings) or a copy.
    """
    refuse_busy(store)
    refuse_running_removals(store)
    salvaged = SalvagedPlan(store)
    left = []
    parts: set[tuple[int, str]] = set()
    for damage in sorted(damages, key=lambda damage: damage.kind != "foreign"):  # links first, as they may lead outside
        if damage.part is not None:
            parts.add((damage.part, damage.feature_set or ""))
        elif damage.kind == "foreign":
            _move_foreign(store, damage.key)
        elif not _rewrite(store, salvaged, damage):
            left.append(damage)
    for part, feature_set in sorted(parts):
        if not feature_set or feature_set in salvaged.plan.added:  # else it was removed after `verify`
            _quarantine_part(store, salvaged, part, feature_set or None)
    return left


def _rewrite(store: Path, salvaged: SalvagedPlan, damage: Damage) -> bool:
    """Rewrite a record or metadata from the rest of the store; return False if that is not possible."""
    plan, key = salvaged.plan, damage.key
    name, _, n = key.removeprefix(f"{FEATURES}/").removesuffix(".json").partition(".")
    is_removed = key.startswith(f"{FEATURES}/") and name not in plan.added
    if is_removed or (key.endswith("zarr.json") and key not in plan.metadata):
        return not os.path.lexists(store / key)  # its feature set was removed after `verify`
    if key == PLAN_FILE:
        if plan.generations[0].record["plan"] != plan.sha256:
            return False
        _put(store, key, plan.document)
    elif key.startswith("generations/"):
        number = int(key.partition("/")[2].removesuffix(".json"))
        _put(store, key, plan.generations[number].record)
    elif key.startswith(f"{FEATURES}/"):
        if int(n or 0) < len(plan.added[name].records):
            _put(store, key, plan.added[name].records[int(n or 0)])
        else:  # a record of newer genres: no other record has its hash, and `extract --add` embeds them again
            for foreign in (key, *sorted(salvaged.orphans(name))):
                _move_foreign(store, foreign)
    elif key.endswith("zarr.json"):
        _make_room(store, key)
        layout.install_metadata(store, {key: plan.metadata[key]}, store / STAGING)
        sweep(store, "metadata.json")
        remove_empty_staging(store)
    else:
        return False
    return True


def _put(store: Path, key: str, record: Mapping[str, Any]) -> None:
    _make_room(store, key)
    replace_file(store / key, seal(dict(record)))


def _make_room(store: Path, key: str) -> None:
    """Quarantine a folder in the place of a file, as a file cannot replace it."""
    if (store / key).is_dir():
        _move_foreign(store, key)


def _move_foreign(store: Path, key: str) -> None:
    """Move a foreign file or folder into quarantine, under a new name."""
    to = f"{QUARANTINE}/foreign/{key}"
    names = itertools.chain([to], (f"{to}.{n}" for n in itertools.count(1)))
    _move(store, key, next(name for name in names if not os.path.lexists(store / name)))


def _quarantine_part(store: Path, salvaged: SalvagedPlan, part: int, feature_set: str | None) -> None:
    """Move a part into quarantine, its record first, so that a kill in between leaves the part pending.

    If another process commits the part meanwhile, its objects may have been moved. Its record is quarantined then, too.
    """
    n, _ = salvaged.records.get((feature_set, part), (0, None))
    newest: int | None = n
    while newest is not None:
        folder = quarantine_folder(part, newest, feature_set)
        key = commit_key(part, newest, feature_set)
        make_folders(store, f"{folder}/{key}")  # even if the record is lost: the name of the folder reserves its n
        fsync_dir(store / QUARANTINE)
        _move(store, key, f"{folder}/{key}")
        sweep(store, key)  # before its objects move, so that no process can install them afterwards
        for key in sorted(keys_of_part(salvaged.plan, part, feature_set), key=lambda key: not key.startswith("status")):
            _move(store, key, f"{folder}/{key}")
        newest = newest_record(store, part, feature_set)


def _move(store: Path, key: str, to: str) -> None:
    """Move a file or folder, if it exists, and make the move durable; `compact` may empty the quarantine meanwhile."""
    while os.path.lexists(store / key):
        with contextlib.suppress(FileNotFoundError):
            make_folders(store, to)
            (store / key).replace(store / to)
    for folder in (*Path(to).parents, Path(key).parent):
        with contextlib.suppress(FileNotFoundError):
            fsync_dir(store / folder)
