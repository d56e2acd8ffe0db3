"""Publish a part of a store: build its objects, commit its record, install the objects at their Zarr keys.

A part is one shard of every sharded array, one chunk of every other array, and an outcome table. The process that
links the commit record first (:mod:`mgc.cache.format.records`) has committed the part.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Collection, Iterator, Mapping
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt
import pyarrow as pa

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
from .feature_removal import finish_removals


def commit_part(
    store: Path,
    part: int,
    arrays: Mapping[str, npt.NDArray[Any]],
    outcomes: pa.Table,
    *,
    feature_set: str | None = None,
    plan: Plan | None = None,
    new_version: bool = False,
) -> dict[str, Any]:
    """Publish a part: its rows of every track array, and their outcomes.

    Parameters
    ----------
    arrays : name -> rows of the part, in row order; the last part of a generation may have fewer rows.
    outcomes : one row per track of the part, columns of :func:`mgc.cache.format.tables.outcome_schema`.
    feature_set : name of an added feature set; None for the store itself.
    plan : the plan that the arrays were built from; None reads the plan of the store.
    new_version : commit a new version of a committed part, as `store compact` does.

    Returns
    -------
    dict
        The valid commit record. If another process committed the part first, its record, with equal content.

    Raises
    ------
    ConfigError
        If the feature set was removed from the store after `plan` was read.
    StoreError
        If the staging folder was removed while the part was built.
    """
    current = read_plan(store)
    plan = plan or current
    _refuse_removed(store, current, plan, feature_set)
    while True:
        newest = read_commit(store, part, feature_set)
        if newest is not None and not new_version:
            roll_part_forward(store, current, part, feature_set)
            return newest
        n = 1 + (quarantined(store, feature_set).get(part, -1) if newest is None else newest["n"])
        content, key = _record(part, n, plan, outcomes, feature_set), commit_key(part, n, feature_set)
        record = publish.publish(store, key, content, _encode_part(part, plan, arrays, outcomes, feature_set))
        if feature_set is not None:  # it may have been removed during the publication
            current = read_plan(store)
            if not matches_plan(record, part, current, feature_set) and matches_plan(record, part, plan, feature_set):
                (store / key).unlink(missing_ok=True)
                publish.sweep(store, key)
            _refuse_removed(store, current, plan, feature_set)
        roll_part_forward(store, current, part, feature_set)
        if n > quarantined(store, feature_set).get(part, -1):  # else a repair has quarantined this record
            return record


def _refuse_removed(store: Path, current: Plan, plan: Plan, feature_set: str | None) -> None:
    exists = feature_set is None or feature_set in current.added
    if not exists or current.sha256_of(feature_set) != plan.sha256_of(feature_set):
        raise ConfigError(
            f"feature set {feature_set!r} was removed during its extraction: {store}. "
            "Run the same command again to add it."
        )


def restore_part(
    store: Path, part: int, arrays: Mapping[str, npt.NDArray[Any]], feature_set: str | None = None
) -> None:
    """Write the objects of a committed part to their keys, in a store that is being converted from HDF5.

    Raises
    ------
    StoreCorruptError
        If their hashes differ from the commit record.
    """
    record = read_commit(store, part, feature_set)
    assert record is not None
    objects = publish.write_objects(store, _encode(part, read_plan(store), arrays, feature_set))
    if objects != [item for item in record["objects"] if not item["key"].startswith(f"{ROWS}/")]:
        raise StoreCorruptError(
            f"the bytes of part {part} differ from its commit record: {store}. "
            "Use the zarr release that the store was made with (library_versions in its attributes)."
        )


def roll_part_forward(store: Path, plan: Plan, part: int, feature_set: str | None = None) -> None:
    """Install the objects of a committed part at their Zarr keys, then remove its staging; idempotent.

    Parameters
    ----------
    plan : plan of the store, read after the part was staged.

    Raises
    ------
    StoreCorruptError
        If the commit record belongs to another plan.
    """
    record = read_commit(store, part, feature_set)
    if record is None:
        return
    n, key = record["n"], commit_key(part, record["n"], feature_set)
    if not matches_plan(record, part, plan, feature_set):
        raise StoreCorruptError(f"{key} belongs to another plan: {store}. Run `mgc store repair` to quarantine it.")
    # Older versions lose their staging first, so that no process can install their objects afterwards.
    for staged in publish.staged_records(store) if n else ():
        other = parse_commit_key(staged)
        if other is not None and other[1] < n and (other[0], other[2]) == (part, feature_set):
            publish.sweep(store, staged)
    publish.install(store, key, record)
    if n > 0:
        _remove_stale(store, part, plan, feature_set, object_keys(record))
    publish.sweep(store, key)


def _remove_stale(store: Path, part: int, plan: Plan, feature_set: str | None, listed: Collection[str]) -> None:
    """Remove objects that only older records list: an array whose values are all fill has no object."""
    for spec in plan.arrays(feature_set):
        key = layout.object_key(spec, part)
        if key not in listed:
            publish.remove_object(store, key)


def matches_plan(record: Mapping[str, Any], part: int, plan: Plan, feature_set: str | None) -> bool:
    """Return whether a commit record belongs to this part of this plan."""
    if part >= plan.n_parts or record["part"] != part:
        return False
    if record["generation"] != plan.generation_of(part).sha256:
        return False
    return bool(record.get("feature_set") == plan.sha256_of(feature_set))


def roll_forward(store: Path) -> None:
    """Roll forward every record that has staging; if every part is committed, no staging remains."""
    finish_removals(store)
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


def uninstalled_parts(store: Path, feature_set: str | None = None) -> set[int]:
    """Return the staged parts, committed or not, with an object that is not yet at its key."""
    parsed = [parse_commit_key(key) for key in publish.staged_records(store)]
    parts = {key[0] for key in parsed if key is not None and key[2] == feature_set}
    return {part for part in parts if _is_uninstalled(store, part, feature_set)}


def _is_uninstalled(store: Path, part: int, feature_set: str | None) -> bool:
    record = read_commit(store, part, feature_set)
    if record is None:
        return True
    key = commit_key(part, record["n"], feature_set)
    if not publish.staged_folder(store, key, record).is_dir():
        return False
    return any(not (store / object_key).exists() for object_key in object_keys(record))


def _encode_part(
    part: int, plan: Plan, arrays: Mapping[str, npt.NDArray[Any]], outcomes: pa.Table, feature_set: str | None
) -> Iterator[tuple[str, list[Any]]]:
    """Yield keys and bytes, in pieces, of all objects of a part, its outcome table last."""
    rows = plan.part_range(part)
    if outcomes.column("row").to_pylist() != list(rows):
        raise ValueError(f"outcomes of part {part} must have its rows {rows.start} to {rows.stop - 1}")
    yield from _encode(part, plan, arrays, feature_set)
    yield outcomes_key(part, feature_set), [table_bytes(outcomes)]


def _encode(
    part: int, plan: Plan, arrays: Mapping[str, npt.NDArray[Any]], feature_set: str | None
) -> Iterator[tuple[str, list[Any]]]:
    """Encode each array as part 0 of a store in memory; an array whose values are all fill has no object."""
    rows = plan.part_range(part)
    for spec in plan.arrays(feature_set):
        values = arrays[spec.name]
        if values.shape != (len(rows), *spec.tail):
            raise ValueError(f"{spec.name}: part {part} must have shape {(len(rows), *spec.tail)}, not {values.shape}")
        if not is_fill(values, spec.fill):
            yield layout.object_key(spec, part), layout.encode_part(spec, values, plan.part_rows)


def _record(part: int, n: int, plan: Plan, outcomes: pa.Table, feature_set: str | None) -> dict[str, Any]:
    """Return the commit record without its objects; plan and source bytes alone determine it."""
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
