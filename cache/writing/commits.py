"""Publish a part of a store: build its objects, commit its record, install the objects at their Zarr keys.

A part is one shard of every sharded array and one chunk of every other array, with an outcome table. Its record
(:mod:`mgc.cache.format.records`) decides: the process that links it first has committed the part.
"""

from __future__ import annotations

import contextlib
from collections import Counter
from collections.abc import Collection, Iterator, Mapping
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt
import pyarrow as pa

from ..durable import fsync_dir, inside
from ..errors import ConfigError, StoreCorruptError
from ..format import layout
from ..format.plan import FEATURES, Plan, object_keys, read_plan
from ..format.records import (
    ROWS,
    commit_key,
    outcomes_key,
    parse_commit_key,
    quarantined,
    read_commit,
)
from ..format.schema import FAILED, OK, is_fill
from ..format.tables import table_bytes
from . import publish
from .creation import roll_plan_forward
from .feature_removal import finish_drops


def commit_part(
    store: Path,
    part: int,
    arrays: Mapping[str, npt.NDArray[Any]],
    outcomes: pa.Table,
    *,
    feature_set: str | None = None,
    plan: Plan | None = None,
    again: bool = False,
) -> dict[str, Any]:
    """Publish a part: its rows of every track array, and their outcomes.

    Parameters
    ----------
    arrays : name -> rows of the part, in row order; the last part of a generation may have fewer rows.
    outcomes : one row per track of the part, columns of :func:`mgc.cache.format.tables.outcome_schema`.
    feature_set : name of an added feature set; None for the store itself.
    plan : the plan from which the arrays were made; None reads that of the store.
    again : commit a new version of a committed part, as `store compact` does.

    Returns
    -------
    dict
        The commit record that counts: that of another process, with equal content, if it was first.

    Raises
    ------
    ConfigError
        If the feature set was removed from the store since `plan` was read.
    StoreError
        If the staging was removed while it was built.
    """
    current = read_plan(store)
    plan = plan or current
    _refuse_removed(store, current, plan, feature_set)
    while True:
        newest = read_commit(store, part, feature_set)
        if newest is not None and not again:
            roll_part_forward(store, current, part, feature_set)
            return newest
        n = 1 + (quarantined(store, feature_set).get(part, -1) if newest is None else newest["n"])
        content, key = _record(part, n, plan, outcomes, feature_set), commit_key(part, n, feature_set)
        record = publish.publish(store, key, content, _encode_part(part, plan, arrays, outcomes, feature_set))
        if feature_set is not None:  # which may have been removed while this was published
            current = read_plan(store)
            if not belongs(record, part, current, feature_set) and belongs(record, part, plan, feature_set):
                (store / key).unlink(missing_ok=True)
                publish.sweep(store, key)
            _refuse_removed(store, current, plan, feature_set)
        roll_part_forward(store, current, part, feature_set)
        if n > quarantined(store, feature_set).get(part, -1):  # else repair has put this record aside since
            return record


def _refuse_removed(store: Path, current: Plan, plan: Plan, feature_set: str | None) -> None:
    known = feature_set is None or feature_set in current.added
    if not known or current.sha256_of(feature_set) != plan.sha256_of(feature_set):
        raise ConfigError(f"{store}: the features {feature_set!r} were taken out of it while they were made")


def restore_part(
    store: Path, part: int, arrays: Mapping[str, npt.NDArray[Any]], feature_set: str | None = None
) -> None:
    """Write the objects of a committed part to their keys, in a store that is being unpacked.

    Raises
    ------
    StoreCorruptError
        If their bytes are not those of the commit record.
    """
    record = read_commit(store, part, feature_set)
    assert record is not None
    objects = publish.write_objects(store, _encode(part, read_plan(store), arrays, feature_set))
    if objects != [item for item in record["objects"] if not item["key"].startswith(f"{ROWS}/")]:
        raise StoreCorruptError(f"{store}: part {part} does not come out as it was committed (another zarr release?)")


def roll_part_forward(store: Path, plan: Plan, part: int, feature_set: str | None = None) -> None:
    """Install the objects of a committed part at their Zarr keys, and remove its staging; do nothing if that is done.

    Parameters
    ----------
    plan : of the store, read after the part was staged.

    Raises
    ------
    StoreCorruptError
        If the commit record belongs to another plan.
    """
    record = read_commit(store, part, feature_set)
    if record is None:
        return
    n, key = record["n"], commit_key(part, record["n"], feature_set)
    if not belongs(record, part, plan, feature_set):
        raise StoreCorruptError(f"{store}: {key} belongs to another plan; `mgc store repair` takes it away")
    for staged in publish.staged_records(store) if n else ():  # first, so that no process can still install older ones
        other = parse_commit_key(staged)
        if other is not None and other[1] < n and (other[0], other[2]) == (part, feature_set):
            publish.sweep(store, staged)
    publish.install(store, key, record)
    if n > 0:
        _remove_stale(store, part, plan, feature_set, object_keys(record))
    publish.sweep(store, key)


def _remove_stale(store: Path, part: int, plan: Plan, feature_set: str | None, listed: Collection[str]) -> None:
    """Remove objects that only an older record lists: an array that is now fill throughout has no object."""
    for spec in plan.arrays(feature_set):
        key = layout.object_key(spec, part)
        if key not in listed:
            inside(store, key).unlink(missing_ok=True)
            with contextlib.suppress(FileNotFoundError):
                fsync_dir((store / key).parent)


def belongs(record: Mapping[str, Any], part: int, plan: Plan, feature_set: str | None) -> bool:
    """Whether a commit record belongs to this part of this plan."""
    if part >= plan.n_parts or record["part"] != part:
        return False
    if record["generation"] != plan.generation_of(part).sha256:
        return False
    return bool(record.get("feature_set") == plan.sha256_of(feature_set))


def finish(store: Path) -> None:
    """Roll forward everything that is decided; once every part is committed, no staging remains."""
    finish_drops(store)
    staged = sorted(publish.staged_records(store))
    for key in staged:
        if key.startswith(("generations/", f"{FEATURES}/")) and (store / key).exists():
            roll_plan_forward(store, key)
    parts = [parsed for key in staged if (parsed := parse_commit_key(key)) is not None]
    if parts:
        plan = read_plan(store)
        for part, _, feature_set in parts:
            roll_part_forward(store, plan, part, feature_set)
    publish.remove_empty_staging(store)


def waiting_parts(store: Path, feature_set: str | None = None) -> set[int]:
    """Return the staged parts of which an object is not yet at its key, decided or not."""
    parsed = [parse_commit_key(key) for key in publish.staged_records(store)]
    parts = {key[0] for key in parsed if key is not None and key[2] == feature_set}
    return {part for part in parts if _is_waiting(store, part, feature_set)}


def _is_waiting(store: Path, part: int, feature_set: str | None) -> bool:
    record = read_commit(store, part, feature_set)
    if record is None:
        return True
    key = commit_key(part, record["n"], feature_set)
    if not publish.staged_folder(store, key, record).is_dir():
        return False
    return any(not (store / object_key).exists() for object_key in object_keys(record))


def _encode_part(
    part: int, plan: Plan, arrays: Mapping[str, npt.NDArray[Any]], outcomes: pa.Table, feature_set: str | None
) -> Iterator[tuple[str, bytes]]:
    """Yield keys and bytes of all objects of a part, its table last."""
    rows = plan.part_range(part)
    if outcomes.column("row").to_pylist() != list(rows):
        raise ValueError(f"outcomes of part {part} are not its rows {rows.start} to {rows.stop - 1}")
    yield from _encode(part, plan, arrays, feature_set)
    yield outcomes_key(part, feature_set), table_bytes(outcomes)


def _encode(
    part: int, plan: Plan, arrays: Mapping[str, npt.NDArray[Any]], feature_set: str | None
) -> Iterator[tuple[str, bytes]]:
    """Let zarr encode each array as part 0 of a store in memory; a part equal to fill throughout has no object."""
    rows = plan.part_range(part)
    for spec in plan.arrays(feature_set):
        values = arrays[spec.name]
        if values.shape != (len(rows), *spec.tail):
            raise ValueError(f"{spec.name}: part {part} wants shape {(len(rows), *spec.tail)}, got {values.shape}")
        if not is_fill(values, spec.fill):
            yield layout.object_key(spec, part), layout.encode(spec, values, plan.part_rows)[0]


def _record(part: int, n: int, plan: Plan, outcomes: pa.Table, feature_set: str | None) -> dict[str, Any]:
    """Return the record without its objects: only what the plan and the sources' bytes determine."""
    status = np.asarray(outcomes.column("status"))
    reasons = Counter(reason for reason in outcomes.column("reason").to_pylist() if reason)
    return {
        "part": part,
        "n": n,
        "generation": plan.generation_of(part).sha256,
        **({} if feature_set is None else {"feature_set": plan.sha256_of(feature_set)}),
        "counts": {"ok": int((status == OK).sum()), "failed": int((status == FAILED).sum())},
        "reasons": dict(sorted(reasons.items())),
    }
