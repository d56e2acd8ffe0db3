"""Making parts anew without the tracks that were taken down."""

from __future__ import annotations

import shutil
from collections import defaultdict
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt
import pyarrow as pa
import pyarrow.compute as pc

from ..errors import StoreCorruptError
from ..format.plan import Plan, read_plan, read_tracks
from ..format.records import QUARANTINE, committed, read_commit, read_part
from ..format.schema import FAILED, Reason
from ..steps import Progress, silent
from ..writing import publish
from ..writing.commits import commit_part, finish
from ..writing.takedowns import dropped_ids, sweep_drafts
from .verify import verify


def compact(store: Path, *, on_progress: Progress = silent) -> int:
    """Make every part anew that still holds bytes of a track taken down, and empty staging and quarantine.

    Readers that have the store open keep what they have mapped. No extraction and no takedown may be running: what they
    have staged goes.

    Returns
    -------
    int
        Parts made anew.

    Raises
    ------
    StoreCorruptError
        If a part that would be made anew is damaged: it has to be repaired first.
    """
    publish.refuse_busy(store)
    finish(store)
    plan = read_plan(store)
    gone, places = _dropped_rows(store, plan), uncompacted(store)
    hurt = {(damage.feature_set, damage.part) for damage in verify(store)}
    for done, (feature_set, part) in enumerate(places, start=1):
        if (feature_set, part) in hurt:
            raise StoreCorruptError(f"{store}: part {part} is damaged; run `mgc store repair {store}` first")
        arrays, outcomes = _without(store, plan, part, feature_set, gone[part])
        commit_part(store, part, arrays, outcomes, feature_set=feature_set, again=True)
        on_progress("compact", done, len(places))
    sweep_drafts(store)
    shutil.rmtree(store / publish.STAGING, ignore_errors=True)
    for folder in (
        one for one in (store / QUARANTINE).glob("*") if one.is_dir()
    ):  # the folder of a part stays: its number is taken
        for entry in folder.iterdir():
            shutil.rmtree(entry) if entry.is_dir() else entry.unlink()
    return len(places)


def uncompacted(store: Path) -> list[tuple[str | None, int]]:
    """Feature set and part of every part that holds bytes of a track taken down."""
    plan = read_plan(store)
    gone = _dropped_rows(store, plan)
    return [(one, part) for one in (None, *plan.added) for part in sorted(gone.keys() & committed(store, one).keys())
            if _holds(store, part, one, len(gone[part]))]  # fmt: skip


def _dropped_rows(store: Path, plan: Plan) -> dict[int, list[int]]:
    """Part -> array rows of the tracks in it that were taken down."""
    ids, found = pa.array(sorted(dropped_ids(store)), pa.string()), defaultdict(list)
    for generation in plan.generations if len(ids) else ():
        tracks = read_tracks(store, generation)
        for row in tracks.filter(pc.is_in(tracks.column("id"), ids)).column("row").to_pylist():
            found[row // plan.part_rows].append(row)
    return dict(found)


def _holds(store: Path, part: int, feature_set: str | None, n_dropped: int) -> bool:
    """Whether the record that counts knows fewer dropped tracks than there are."""
    record = read_commit(store, part, feature_set)
    assert record is not None
    return n_dropped > int(record["reasons"].get(Reason.DROPPED, 0))


def _without(
    store: Path, plan: Plan, part: int, feature_set: str | None, gone: list[int]
) -> tuple[Mapping[str, npt.NDArray[Any]], pa.Table]:
    """A part's arrays and outcomes, emptied of the rows `gone`."""
    dropped = np.isin(np.asarray(plan.part_range(part)), gone)
    arrays, outcomes = read_part(store, plan, part, feature_set)
    for spec in plan.arrays(feature_set):
        arrays[spec.name][dropped] = FAILED if spec.name.partition("_")[0] == "status" else spec.fill
    down = {"status": FAILED, "reason": str(Reason.DROPPED), "detail": "taken down with `mgc store drop`", "flags": 0}
    kept = [
        {"row": row["row"], **down} if hidden else row
        for row, hidden in zip(outcomes.to_pylist(), dropped, strict=True)
    ]
    return arrays, pa.Table.from_pylist(kept, schema=outcomes.schema)
