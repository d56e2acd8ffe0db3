"""Parts of a store: who has committed which, and how a part becomes visible.

A part is one shard of every sharded array and one chunk of every other, with a table of outcomes. Its record is
``commits/<part>.json``; where a part was taken back or made anew (:mod:`mgc.cache.verify`, :mod:`mgc.cache.drops`) the
next one is ``commits/<part>.<n>.json``, and the highest n counts. No name is used twice.
"""

from __future__ import annotations

import contextlib
import os
import re
import shutil
from collections import Counter
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt
import pyarrow as pa
import zarr

from . import layout, publish
from .durable import unseal
from .errors import StoreCorruptError
from .plan import Plan, read_plan, roll_generation_forward
from .schema import FAILED, OK, track_arrays
from .tracks import write_table

COMMITS, QUARANTINE = "commits", "quarantine"
_RECORD = re.compile(r"(\d+)(?:\.(\d+))?\.json")
_TAKEN_BACK = re.compile(r"(\d+)\.(\d+)")


def commit_key(part: int, n: int = 0) -> str:
    """Key of the n-th record of a part."""
    return f"{COMMITS}/{part}.json" if n == 0 else f"{COMMITS}/{part}.{n}.json"


def parse_commit_name(name: str) -> tuple[int, int] | None:
    """Part and n of a record's file name; None for other names, such as a file manager's."""
    found = _RECORD.fullmatch(name)
    return None if found is None else (int(found[1]), int(found[2] or 0))


def committed(store: Path) -> dict[int, int]:
    """Part -> n of the record that counts, for every committed part."""
    newest: dict[int, int] = {}
    for name in os.listdir(store / COMMITS):
        if (parsed := parse_commit_name(name)) is not None:
            newest[parsed[0]] = max(parsed[1], newest.get(parsed[0], 0))
    return newest


def read_commit(store: Path, part: int) -> dict[str, Any] | None:
    """The record of a part that counts; None where the part is not committed."""
    n = _newest(store, part)
    return None if n is None else unseal(store / commit_key(part, n))


def commit_part(
    store: Path, part: int, arrays: Mapping[str, npt.NDArray[Any]], outcomes: pa.Table, *, again: bool = False
) -> dict[str, Any]:
    """Publish a part: its rows of every track array, and what extraction found.

    Parameters
    ----------
    arrays : name -> rows of the part, in row order; fewer rows than a full part in the last one of a generation.
    outcomes : table of :data:`mgc.cache.tracks.OUTCOME_SCHEMA`, one row a track of the part.
    again : make a part anew that is committed, as `store compact` does.

    Returns
    -------
    dict
        The commit record that counts; another process's, with equal content, if that one came first.
    """
    plan = read_plan(store)
    newest = _newest(store, part)
    if newest is not None and not again:
        roll_part_forward(store, part)
        return unseal(store / commit_key(part, newest))
    n = _next_number(store, part)

    def build(folder: Path) -> dict[str, Any]:
        _build_part(folder, part, plan, arrays, outcomes)
        return _record(part, n, plan, outcomes)

    record = publish.publish(store, commit_key(part, n), build)
    roll_part_forward(store, part)
    return record


def restore_part(store: Path, part: int, arrays: Mapping[str, npt.NDArray[Any]]) -> None:
    """Put the objects of a part, which is committed, to their keys; for a store that is being put together.

    Raises
    ------
    StoreCorruptError
        If they are not, byte for byte, what the commit names.
    """
    record = read_commit(store, part)
    assert record is not None
    building = store / publish.STAGING / f"{COMMITS}+{part}~restored"
    building.mkdir(parents=True)
    _encode(building, part, read_plan(store), arrays)
    made = publish.describe_objects(building)
    if made != [item for item in record["objects"] if not item["key"].startswith("rows/")]:
        raise StoreCorruptError(f"{store}: part {part} does not come out as it was committed (another zarr release?)")
    for item in made:
        (store / item["key"]).parent.mkdir(parents=True, exist_ok=True)
        (building / item["key"]).rename(store / item["key"])
    shutil.rmtree(building)


def roll_part_forward(store: Path, part: int) -> None:
    """Bring a committed part's objects to their Zarr keys and clear what is staged for it; does nothing when done.

    Raises
    ------
    StoreCorruptError
        If the commit record belongs to another plan.
    """
    n = _newest(store, part)
    if n is None:
        return
    key = commit_key(part, n)
    record = unseal(store / key)
    if record["generation"] != read_plan(store).generation_of(part).sha256:
        raise StoreCorruptError(f"{store}: {key} belongs to another plan; `mgc store repair` takes it away")
    publish.install(store, key, record)
    for older in range(n + 1):
        publish.sweep(store, commit_key(part, older))


def finish(store: Path) -> None:
    """Roll forward all that is decided; once every part is committed, nothing staged remains."""
    staged = publish.staged_records(store)
    if not staged:
        _remove_if_empty(store / publish.STAGING)
        return
    for key in sorted(staged):
        folder, _, name = key.partition("/")
        if folder == "generations" and (store / key).exists():
            roll_generation_forward(store, int(name.removesuffix(".json")))
    newest = committed(store)
    for key in sorted(staged):
        folder, _, name = key.partition("/")
        parsed = parse_commit_name(name) if folder == COMMITS else None
        if parsed is not None and parsed[1] <= newest.get(parsed[0], -1):
            roll_part_forward(store, parsed[0])
    _remove_if_empty(store / publish.STAGING)


def waiting_parts(store: Path) -> set[int]:
    """Parts that are decided but not yet at their keys, which is only while they are staged."""
    found = (key.partition("/") for key in publish.staged_records(store))
    parsed = {parse_commit_name(name) for folder, _, name in found if folder == COMMITS}
    return {one[0] for one in parsed if one is not None and _is_waiting(store, one[0])}


def _is_waiting(store: Path, part: int) -> bool:
    n = _newest(store, part)
    if n is None:
        return True
    record = unseal(store / commit_key(part, n))
    if not publish.staged_folder(store, commit_key(part, n), record).is_dir():
        return False
    return any(not (store / item["key"]).exists() for item in record["objects"])


def _newest(store: Path, part: int) -> int | None:
    """n of the record that counts, found by its name alone: the folder may hold a million others."""
    newest, n = None, _last_taken_back(store, part) + 1
    misses = 0
    while misses < 2:  # past one hole: an older record may have been lost
        if (store / commit_key(part, n)).exists():
            newest, misses = n, 0
        else:
            misses += 1
        n += 1
    return newest


def _last_taken_back(store: Path, part: int) -> int:
    """The highest n of a part that lies in quarantine; -1 where none does."""
    try:
        names = os.listdir(store / QUARANTINE)
    except FileNotFoundError:
        return -1
    found = (_TAKEN_BACK.fullmatch(name) for name in names)
    return max((int(one[2]) for one in found if one is not None and int(one[1]) == part), default=-1)


def _next_number(store: Path, part: int) -> int:
    newest = _newest(store, part)
    return 1 + (_last_taken_back(store, part) if newest is None else newest)


def _build_part(
    folder: Path, part: int, plan: Plan, arrays: Mapping[str, npt.NDArray[Any]], outcomes: pa.Table
) -> None:
    rows = plan.part_range(part)
    if outcomes.column("row").to_pylist() != list(rows):
        raise ValueError(f"outcomes of part {part} are not its rows {rows.start} to {rows.stop - 1}")
    _encode(folder, part, plan, arrays)
    (folder / "rows").mkdir()
    write_table(outcomes, folder / "rows" / f"{part}.parquet")


def _encode(folder: Path, part: int, plan: Plan, arrays: Mapping[str, npt.NDArray[Any]]) -> None:
    """Let zarr encode the part as part 0 of a scratch store, then move the objects to their keys in the real one."""
    rows = plan.part_range(part)
    scratch = folder / "scratch"
    group = zarr.create_group(scratch, zarr_format=3)
    for spec in track_arrays(plan.recipe):
        values = arrays[spec.name]
        if values.shape != (len(rows), *spec.tail):
            raise ValueError(f"{spec.name}: part {part} wants shape {(len(rows), *spec.tail)}, got {values.shape}")
        layout.create_array(group, spec, plan.part_rows, plan.part_rows)[: len(rows)] = values
        encoded = scratch / layout.object_key(spec, 0)
        if encoded.exists():  # a part equal to fill throughout has no object
            target = folder / layout.object_key(spec, part)
            target.parent.mkdir(parents=True)
            encoded.rename(target)
    shutil.rmtree(scratch)


def _record(part: int, n: int, plan: Plan, outcomes: pa.Table) -> dict[str, Any]:
    """What the record says beside its objects: only what the plan and the sources' bytes determine."""
    status = np.asarray(outcomes.column("status"))
    reasons = Counter(reason for reason in outcomes.column("reason").to_pylist() if reason)
    return {
        "part": part,
        "n": n,
        "generation": plan.generation_of(part).sha256,
        "counts": {"ok": int((status == OK).sum()), "failed": int((status == FAILED).sum())},
        "reasons": dict(sorted(reasons.items())),
    }


def _remove_if_empty(folder: Path) -> None:
    with contextlib.suppress(OSError):
        folder.rmdir()
