"""Is a store what its records say? Damage is found, and named by part, array and tracks."""

from __future__ import annotations

import contextlib
import os
from collections.abc import Iterator, Mapping
from dataclasses import asdict, dataclass, replace
from pathlib import Path
from typing import Any, Literal

import numpy as np
import pyarrow as pa
import zarr

from ..durable import file_sha256, inside, unseal
from ..errors import StoreCorruptError, StoreError
from ..format import layout
from ..format.plan import PLAN_FILE, feature_set_key, read_tracks
from ..format.records import COMMITS, QUARANTINE, commit_key, keys_of_part, outcomes_key, parse_commit_name, quarantined
from ..format.schema import OK
from ..format.tables import ADDED_OUTCOME_SCHEMA, OUTCOME_SCHEMA, read_table
from ..steps import Progress, silent
from ..writing.commits import belongs, finish
from ..writing.publish import STAGING
from ..writing.takedowns import DROPS
from .salvage import SalvagedPlan

Kind = Literal["missing", "altered", "foreign", "lost record", "values"]


@dataclass(frozen=True, kw_only=True)
class Damage:
    """One thing that is not as recorded.

    Attributes
    ----------
    kind : ``missing``, ``altered`` (size, checksum or seal), ``foreign`` (no record names it), ``lost record`` (objects
        of a part that has no commit record) or ``values`` (as recorded, but the record contradicts itself).
    key : path inside the store.
    part, array, tracks : what is hurt; None and empty where it is no part.
    feature_set : of the part, where that is one that joined the store.
    detail : one sentence for people.
    """

    kind: Kind
    key: str
    detail: str
    part: int | None = None
    array: str | None = None
    tracks: tuple[str, ...] = ()
    feature_set: str | None = None

    def to_dict(self) -> dict[str, Any]:
        return asdict(self)


def verify(store: Path, *, full: bool = False, on_progress: Progress = silent) -> list[Damage]:
    """Compare a store with its records.

    Parameters
    ----------
    full : read every byte: hashes, decoding, finiteness and counts; otherwise presence, sizes, records and tables.
    on_progress : receives parts done and parts in all.

    Raises
    ------
    StoreNotFoundError
        If there is nothing that looks like a store.
    """
    with contextlib.suppress(OSError, StoreError, ValueError):  # as every reader does; what hinders it is found below
        finish(store)
    return list(_Inspection(store, full=full).damages(on_progress))


class _Inspection:
    """One look at a store, as far as its plan can be made out."""

    def __init__(self, store: Path, *, full: bool) -> None:
        self._store, self._full = store, full
        self._salvaged = SalvagedPlan(store)
        self._planned: dict[int, pa.Table] = {}

    def damages(self, progress: Progress) -> Iterator[Damage]:
        yield from self._sealed(PLAN_FILE)
        for generation in self._salvaged.plan.generations:
            found = list(self._sealed(generation.key))
            if not found and unseal(self._store / generation.key) != generation.record:
                found = [self._damage("altered", generation.key, "it belongs to another store")]
            yield from found
            for item in generation.record["objects"]:
                array = item["key"].partition("/")[0]
                yield from self._object(item, None, array if array == "genre_embedding" else None)
        for name, added in self._salvaged.plan.added.items():
            for key in self._salvaged.set_keys(name) or [feature_set_key(name, 0)]:
                yield from self._sealed(key)
            for record in added.records:
                for item in record["objects"]:
                    yield from self._object(item, None, f"genre_embedding_{name}")
        metadata = list(self._metadata())
        yield from metadata
        for file in sorted((self._store / DROPS).glob("*.json")):
            yield from self._sealed(file.relative_to(self._store).as_posix())
        for done, (feature_set, part) in enumerate(sorted(self._salvaged.records), start=1):
            for damage in self._part(part, feature_set, decodable=not metadata):
                yield replace(damage, feature_set=feature_set or None)
            progress("verify", done, len(self._salvaged.records))
        yield from self._older_records()
        yield from self._unrecorded()

    def _sealed(self, key: str, part: int | None = None) -> Iterator[Damage]:
        if not (self._store / key).exists():
            yield self._damage("missing", key, "it is not there", part)
            return
        try:
            unseal(self._store / key)
        except (OSError, StoreCorruptError):
            yield self._damage("altered", key, "it does not match its own sha256", part)

    def _metadata(self) -> Iterator[Damage]:
        plan = self._salvaged.plan
        for key, document in plan.metadata.items():
            file = self._store / key
            if not file.is_file():
                yield self._damage("missing", key, "it is not there")
            elif not layout.same_document(file.read_bytes(), document):
                yield self._damage("altered", key, "it is not what the plan makes it")

    def _part(self, part: int, feature_set: str, *, decodable: bool) -> Iterator[Damage]:
        n, record = self._salvaged.records[feature_set, part]
        key = commit_key(part, n, feature_set or None)
        if record is None:
            yield self._damage("altered", key, "it does not match its own sha256", part)
            return
        if not belongs(record, part, self._salvaged.plan, feature_set or None):
            if part < self._salvaged.plan.n_parts:
                yield self._damage("altered", key, "it belongs to another plan or part", part)
            else:
                yield self._damage("foreign", key, f"the plan ends with part {self._salvaged.plan.n_parts - 1}")
            return
        hurt = False
        for item in record["objects"]:
            array = item["key"].partition("/")[0]
            for damage in self._object(item, part, None if array == "rows" else array):
                hurt = True
                yield damage
        if self._full and decodable and not hurt:
            yield from self._values(part, record, feature_set or None)

    def _older_records(self) -> Iterator[Damage]:
        """Records that no longer count: one that is hurt costs nothing but its history, and is put aside."""
        for feature_set in ("", *self._salvaged.plan.added):
            folder = self._store / COMMITS / feature_set
            for name in sorted(os.listdir(folder)) if folder.is_dir() else ():
                parsed = parse_commit_name(name)
                if parsed is None or self._salvaged.records.get((feature_set, parsed[0]), (-1, None))[0] == parsed[1]:
                    continue
                key = commit_key(*parsed, feature_set or None)
                if list(self._sealed(key)):
                    yield self._damage("foreign", key, "an older record, which no longer counts, is damaged")

    def _object(self, item: Mapping[str, Any], part: int | None, array: str | None) -> Iterator[Damage]:
        file, key = inside(self._store, item["key"]), item["key"]
        if not file.is_file():
            yield self._damage("missing", key, "it is not there", part, array)
        elif file.stat().st_size != item["size"]:
            detail = f"{file.stat().st_size} bytes, {item['size']} were committed"
            yield self._damage("altered", key, detail, part, array)
        elif self._full and file_sha256(file) != item["sha256"]:
            yield self._damage("altered", key, "its bytes are not those that were committed", part, array)

    def _values(self, part: int, record: Mapping[str, Any], feature_set: str | None) -> Iterator[Damage]:
        """Whether a part whose bytes are as committed makes sense."""
        rows, table = self._salvaged.plan.part_range(part), outcomes_key(part, feature_set)
        outcomes = read_table(self._store / table, OUTCOME_SCHEMA if feature_set is None else ADDED_OUTCOME_SCHEMA)
        status = np.asarray(outcomes.column("status"))
        group = zarr.open_group(self._store, mode="r")
        stored = {spec.name: _rows_of(group, spec.name, rows) for spec in self._salvaged.plan.arrays(feature_set)}
        ok = status == OK
        if outcomes.column("row").to_pylist() != list(rows) or int(ok.sum()) != record["counts"]["ok"]:
            yield self._damage("values", table, "its rows or counts are not the record's", part)
        name = "status" if feature_set is None else f"status_{feature_set}"
        if not np.array_equal(stored[name], status):
            yield self._damage("values", name, "it differs from the table of outcomes", part, name)
        for name, values in stored.items():
            large = name == "mel" or (name.startswith("lyrics") and values.ndim == 3)
            if large and not np.isfinite(values[ok]).all():
                bad = np.asarray(rows)[ok][~np.isfinite(values[ok]).reshape(int(ok.sum()), -1).all(axis=1)]
                yield Damage(kind="values", key=name, part=part, array=name, tracks=self._ids(part, set(bad.tolist())),
                             detail="values that are not finite in rows that are ok")  # fmt: skip

    def _unrecorded(self) -> Iterator[Damage]:
        """Files that no record names."""
        keys = list(_keys_below(self._store))
        # Looked at anew after the listing: records come before objects, so none is missed.
        fresh = _Inspection(self._store, full=False)
        known, plan = fresh._known_keys(), self._salvaged.plan
        owner = {spec.name: name for name in ("", *plan.added) for spec in plan.arrays(name or None)}
        lost: dict[tuple[str, int], list[str]] = {}
        for key in keys:
            if key in known or not (self._store / key).exists():
                continue
            place = _place_of(key, owner)
            if place is not None and place not in fresh._salvaged.records and place[1] < plan.n_parts:
                lost.setdefault(place, []).append(key)
            else:
                yield self._damage("foreign", key, "no record names it")
        for (feature_set, part), keys in sorted(lost.items()):
            detail = f"{len(keys)} objects of this part are there, but its record is not"
            damage = self._damage("lost record", commit_key(part, 0, feature_set or None), detail, part)
            yield replace(damage, feature_set=feature_set or None)

    def _known_keys(self) -> set[str]:
        plan = self._salvaged.plan
        known = {PLAN_FILE, *plan.metadata}
        for generation in plan.generations:
            known |= {generation.key, *(item["key"] for item in generation.record["objects"])}
        for name, added in plan.added.items():
            known |= {
                *self._salvaged.set_keys(name),
                *(item["key"] for record in added.records for item in record["objects"]),
            }
            known |= self._salvaged.orphans(name)
        for (feature_set, part), (newest, commit) in self._salvaged.records.items():
            of_set = feature_set or None
            known |= {commit_key(part, n, of_set) for n in range(newest + 1)}
            if commit is None or not belongs(commit, part, plan, of_set):  # reported as such
                known |= keys_of_part(plan, part, of_set)
            else:
                known |= {item["key"] for item in commit["objects"]}
        for of_set in (None, *plan.added):  # records up to one in quarantine do not count, wherever they lie
            for part, last in quarantined(self._store, of_set).items():
                known |= {commit_key(part, n, of_set) for n in range(last + 1)}
        return known

    def _damage(self, kind: Kind, key: str, detail: str, part: int | None = None, array: str | None = None) -> Damage:
        tracks = () if part is None else self._ids(part)
        return Damage(kind=kind, key=key, detail=detail, part=part, array=array, tracks=tracks)

    def _ids(self, part: int, rows: set[int] | None = None) -> tuple[str, ...]:
        """Ids of a part's tracks, as far as the plan's table can be read."""
        generation, here = self._salvaged.plan.generation_of(part), self._salvaged.plan.part_range(part)
        if generation.number not in self._planned:
            try:
                self._planned[generation.number] = read_tracks(self._store, generation)
            except StoreError:
                return ()
        table = self._planned[generation.number].slice(here.start - generation.rows.start, len(here))
        return tuple(
            name
            for name, row in zip(table.column("id").to_pylist(), table.column("row").to_pylist(), strict=True)
            if rows is None or row in rows
        )


def _keys_below(store: Path) -> Iterator[str]:
    """Every file of the store but logs, what is staged, and what was put aside; hidden files are a file manager's."""
    for folder, names, files in os.walk(store):
        if Path(folder) == store:
            names[:] = [name for name in names if name not in ("log", STAGING, QUARANTINE, DROPS)]
        for name in sorted(files):
            if not name.startswith("."):
                yield Path(folder, name).relative_to(store).as_posix()


def _place_of(key: str, owner: Mapping[str, str]) -> tuple[str, int] | None:
    """Feature set and part that an object would belong to, by its key; `owner` maps arrays to feature sets."""
    pieces = key.split("/")
    number = pieces[-1].removesuffix(".parquet")
    if pieces[0] == "rows" and len(pieces) in (2, 3) and number.isdecimal():
        return (pieces[1] if len(pieces) == 3 else "", int(number))
    if pieces[0] in owner and len(pieces) > 2 and pieces[1] == "c" and pieces[2].isdecimal():
        return (owner[pieces[0]], int(pieces[2]))
    return None


def _rows_of(group: zarr.Group, name: str, rows: range) -> np.ndarray[Any, Any]:
    array = group[name]
    assert isinstance(array, zarr.Array)
    return np.asarray(array[rows.start : rows.stop])
