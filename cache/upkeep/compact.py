"""Compaction: build parts again without taken-down tracks."""

from __future__ import annotations

import contextlib
import shutil
from collections import defaultdict
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt
import pyarrow as pa
import pyarrow.compute as pc

from ..durable import fsync_dir, inside, names_in, refuse_without_links
from ..errors import StoreCorruptError
from ..format.documents import refuse_foreign_files
from ..format.plan import Plan, read_plan, read_tracks
from ..format.records import QUARANTINE, committed, read_commit, read_part
from ..format.schema import FAILED, Reason, array_name
from ..steps import Progress, silent
from ..writing import publish
from ..writing.commits import commit_part, roll_forward
from ..writing.takedowns import dropped_ids, sweep_drafts
from .verify import verify


def compact(store: Path, *, on_progress: Progress = silent) -> int:
    """Build every part again that still has bytes of a taken-down track, and empty the quarantine.

    Open readers keep the shards that they have mapped. Staging is removed once its record is committed;
    staging of a running extraction that is not committed is kept.

    Returns
    -------
    int
        Parts that were built again.

    Raises
    ------
    StoreCorruptError
        If a part to be built again is damaged (it has to be repaired first), or the store has symbolic links.
    """
    refuse_without_links(store)
    refuse_foreign_files(store)
    publish.refuse_busy(store)
    roll_forward(store)
    plan = read_plan(store)
    dropped_rows, parts = _dropped_rows(store, plan), uncompacted(store)
    damaged = {(damage.feature_set, damage.part) for damage in verify(store)}
    for done, (feature_set, part) in enumerate(parts, start=1):
        if (feature_set, part) in damaged:
            raise StoreCorruptError(f"{store}: part {part} is damaged. Run `mgc store repair {store}` first.")
        arrays, outcomes = _without(store, plan, part, feature_set, dropped_rows[part])
        commit_part(store, part, arrays, outcomes, feature_set=feature_set, new_version=True)
        on_progress("compact", done, len(parts))
    sweep_drafts(store)
    roll_forward(store)
    for folder in names_in(store / QUARANTINE, "[!.]*"):  # the folder of a part stays: it records that its n is used
        for name in names_in(inside(store, f"{QUARANTINE}/{folder}"), "[!.]*"):
            _remove(store / QUARANTINE / folder / name)
    return len(parts)


def _remove(entry: Path) -> None:
    with contextlib.suppress(FileNotFoundError):  # two processes may compact
        if entry.is_dir() and not entry.is_symlink():
            shutil.rmtree(entry)
        else:
            entry.unlink()
        fsync_dir(entry.parent)


def uncompacted(store: Path) -> list[tuple[str | None, int]]:
    """Return feature set and number of every part with bytes of a taken-down track."""
    plan = read_plan(store)
    dropped_rows = _dropped_rows(store, plan)
    parts: list[tuple[str | None, int]] = []
    for feature_set in (None, *plan.added):
        for part in sorted(dropped_rows.keys() & committed(store, feature_set).keys()):
            record = read_commit(store, part, feature_set)
            if record is None:  # quarantined, or removed with its feature set, meanwhile
                continue
            if len(dropped_rows[part]) > int(record["reasons"].get(Reason.DROPPED, 0)):
                parts.append((feature_set, part))
    return parts


def _dropped_rows(store: Path, plan: Plan) -> dict[int, list[int]]:
    """Return part -> array rows of its tracks that were taken down."""
    ids, rows = pa.array(sorted(dropped_ids(store)), pa.string()), defaultdict(list)
    for generation in plan.generations if len(ids) else ():
        tracks = read_tracks(store, generation)
        for row in tracks.filter(pc.is_in(tracks.column("id"), ids)).column("row").to_pylist():
            rows[row // plan.part_rows].append(row)
    return dict(rows)


def _without(
    store: Path, plan: Plan, part: int, feature_set: str | None, dropped: Sequence[int]
) -> tuple[Mapping[str, npt.NDArray[Any]], pa.Table]:
    """Return the arrays and outcomes of a part, with fill and no detail in the rows `dropped`."""
    hidden = np.isin(np.asarray(plan.part_range(part)), dropped)
    arrays, outcomes = read_part(store, plan, part, feature_set)
    for spec in plan.arrays(feature_set):
        arrays[spec.name][hidden] = spec.fill
    arrays[array_name("status", feature_set)][hidden] = FAILED
    taken_down = {
        "status": FAILED,
        "reason": str(Reason.DROPPED),
        "detail": "taken down with `mgc store drop`",
        "flags": 0,
    }
    rows = [
        {"row": row["row"], **taken_down} if is_hidden else row
        for row, is_hidden in zip(outcomes.to_pylist(), hidden, strict=True)
    ]
    return arrays, pa.Table.from_pylist(rows, schema=outcomes.schema)
