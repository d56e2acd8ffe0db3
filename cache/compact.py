"""Making parts anew without the tracks that were taken down."""

from __future__ import annotations

import shutil
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt
import pyarrow as pa
import zarr

from . import publish
from .commits import QUARANTINE, commit_part, committed, finish, read_commit
from .drops import dropped_ids
from .errors import StoreCorruptError
from .plan import Plan, read_plan, read_tracks
from .schema import FAILED, Reason, track_arrays
from .tracks import OUTCOME_SCHEMA, outcome_table, read_table
from .verify import verify


def compact(store: Path, *, on_progress: Callable[[int, int], None] | None = None) -> int:
    """Make every part anew that still holds bytes of a track taken down, and empty staging and quarantine.

    Readers that have the store open keep what they have mapped. No extraction may be running: what it has staged goes.

    Returns
    -------
    int
        Parts made anew.

    Raises
    ------
    StoreCorruptError
        If a part that would be made anew is damaged: it has to be repaired first.
    """
    finish(store)
    plan, gone = read_plan(store), dropped_ids(store)
    hurt = {damage.part for damage in verify(store)}
    parts = [part for part in sorted(committed(store)) if _holds(store, plan, part, gone)]
    for done, part in enumerate(parts, start=1):
        if part in hurt:
            raise StoreCorruptError(f"{store}: part {part} is damaged; run `mgc store repair {store}` first")
        arrays, outcomes = _without(store, plan, part, gone)
        commit_part(store, part, arrays, outcomes, again=True)
        if on_progress is not None:
            on_progress(done, len(parts))
    shutil.rmtree(store / publish.STAGING, ignore_errors=True)
    for folder in (store / QUARANTINE).glob("*"):  # the folder of a part stays: its number is taken
        for entry in folder.iterdir():
            shutil.rmtree(entry) if entry.is_dir() else entry.unlink()
    return len(parts)


def _dropped_rows(store: Path, plan: Plan, part: int, gone: set[str]) -> npt.NDArray[np.bool_]:
    generation, rows = plan.generation_of(part), plan.part_range(part)
    tracks = read_tracks(store, plan, generation).slice(rows.start - generation.rows.start, len(rows))
    return np.asarray([name in gone for name in tracks.column("id").to_pylist()], dtype=np.bool_)


def _holds(store: Path, plan: Plan, part: int, gone: set[str]) -> bool:
    """Whether the record that counts knows fewer dropped tracks than there are."""
    record = read_commit(store, part)
    assert record is not None
    return int(_dropped_rows(store, plan, part, gone).sum()) > int(record["reasons"].get(Reason.DROPPED, 0))


def _without(store: Path, plan: Plan, part: int, gone: set[str]) -> tuple[Mapping[str, npt.NDArray[Any]], pa.Table]:
    rows, dropped = plan.part_range(part), _dropped_rows(store, plan, part, gone)
    group = zarr.open_group(store, mode="r")
    arrays = {}
    for spec in track_arrays(plan.recipe):
        array = group[spec.name]
        assert isinstance(array, zarr.Array)
        values = np.asarray(array[rows.start : rows.stop])
        values[dropped] = spec.fill
        arrays[spec.name] = values
    arrays["status"][dropped] = FAILED
    outcomes = read_table(store / "rows" / f"{part}.parquet", OUTCOME_SCHEMA).to_pylist()
    detail = "taken down with `mgc store drop`"
    down = {"status": FAILED, "reason": str(Reason.DROPPED), "detail": detail, "flags": 0}
    kept = [{"row": row["row"], **down} if hidden else row for row, hidden in zip(outcomes, dropped, strict=True)]
    return arrays, outcome_table(kept)
