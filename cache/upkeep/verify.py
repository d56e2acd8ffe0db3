"""Compare a store with its records, and report damage by part, array and tracks."""

from __future__ import annotations

import contextlib
import os
from collections.abc import Callable, Collection, Iterator, Mapping
from contextlib import AbstractContextManager
from dataclasses import asdict, dataclass, replace
from pathlib import Path
from typing import Any, Literal

import numpy as np
import numpy.typing as npt
import pyarrow as pa

from ..durable import file_sha256, inside, names_in, open_regular
from ..errors import StoreCorruptError, StoreError
from ..format import layout
from ..format.documents import foreign_entry, is_record_key, read_record
from ..format.plan import FEATURES, PLAN_FILE, feature_set_key, feature_set_keys, object_keys, read_tracks
from ..format.recipe import ExtractorRecipe
from ..format.records import (
    QUARANTINE,
    ROWS,
    STAGING,
    commit_key,
    keys_of_part,
    outcomes_key,
    read_outcomes,
    record_files,
    required_keys,
)
from ..format.schema import OK, array_name, length_name
from ..format.sequences import wrong_rows
from ..steps import Progress, silent
from ..writing.commits import matches_plan, roll_forward
from ..writing.takedowns import DROPS
from .salvage import SalvagedPlan

Kind = Literal["missing", "altered", "foreign", "lost record", "values"]


@dataclass(frozen=True, kw_only=True)
class Damage:
    """One difference between a store and its records.

    Attributes
    ----------
    kind : ``missing``, ``altered`` (size, checksum or seal), ``foreign`` (no record lists it), ``lost record`` (objects
        of a part that has no commit record) or ``values`` (as recorded, but the record contradicts itself).
    key : path inside the store.
    part, array, tracks : damaged part, array and tracks; None and empty for damage outside of parts.
    feature_set : name of the added feature set of the part; None for the store itself.
    detail : description of the damage.
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


Content = Callable[[Collection[str]], AbstractContextManager[object]]
"""Provide the content of objects, by key, in a ``with`` block."""


def verify(
    store: Path,
    *,
    full: bool = False,
    content: Content = contextlib.nullcontext,
    on_progress: Progress = silent,
) -> list[Damage]:
    """Compare a store with its records.

    Parameters
    ----------
    full : read every byte: hashes, decoding, finiteness and counts; otherwise presence, sizes, records and tables.
    content : provides the objects of each part for `full`, where `store` is a mirror of a store in an object store.
    on_progress : receives the number of checked parts and of all parts.

    Raises
    ------
    StoreNotFoundError
        If neither ``plan.json`` nor ``zarr.json`` exists.
    """
    with contextlib.suppress(OSError, StoreError, ValueError):  # as every reader does; errors are reported below
        roll_forward(store)
    while True:
        before = _plan_files(store)
        damages = list(_Inspection(store, full=full, content=content).damages(on_progress))
        if not damages or _plan_files(store) == before:
            return damages  # else the plan was changed meanwhile, and what is new would count as foreign


def _plan_files(store: Path) -> list[list[str]]:
    return [sorted(names_in(store / folder)) for folder in ("generations", FEATURES)]


class _Inspection:
    """Inspection of a store whose plan may be damaged."""

    def __init__(self, store: Path, *, full: bool, content: Content = contextlib.nullcontext) -> None:
        self._store, self._full, self._content = store, full, content
        self._salvaged = SalvagedPlan(store)
        self._planned: dict[int, pa.Table] = {}

    def damages(self, progress: Progress) -> Iterator[Damage]:
        yield from self._sealed(PLAN_FILE)
        plan = self._salvaged.plan
        for generation in plan.generations:
            yield from self._sealed(generation.key, generation.record)
            yield from self._objects(generation.record, None)
        for name, added in plan.added.items():
            for n, key in enumerate(feature_set_keys(self._store, name) or [feature_set_key(name, 0)]):
                yield from self._sealed(key, added.records[n] if n < len(added.records) else None)
            for record in added.records:
                yield from self._objects(record, None)
        metadata = list(self._metadata())
        yield from metadata
        for key in sorted(f"{DROPS}/{name}" for name in names_in(self._store / DROPS)):
            if is_record_key(key):
                yield from self._sealed(key)
        for done, (feature_set, part) in enumerate(self._salvaged.records, start=1):
            keys = keys_of_part(plan, part, feature_set) if self._full and part < plan.n_parts else set()
            with self._content(keys):
                for damage in self._part(part, feature_set, decodable=not metadata):
                    yield replace(damage, feature_set=feature_set)
            progress("verify", done, len(self._salvaged.records))
        yield from self._older_records()
        yield from self._unrecorded()

    def _sealed(self, key: str, expected: Mapping[str, Any] | None = None) -> Iterator[Damage]:
        try:
            record = read_record(self._store, key)
        except FileNotFoundError:
            yield self._damage("missing", key, "the file is missing")
        except (OSError, StoreError) as error:
            yield self._damage("altered", key, str(error).removeprefix(f"{self._store / key}: "))
        else:
            if expected is not None and record != expected:
                yield self._damage("altered", key, "it belongs to another store")

    def _metadata(self) -> Iterator[Damage]:
        for key, document in self._salvaged.plan.metadata.items():
            try:
                with open_regular(inside(self._store, key)) as file:
                    text = file.read()
            except OSError:
                yield self._damage("missing", key, "the file is missing")
                continue
            except StoreCorruptError as error:
                yield self._damage("altered", key, str(error))
                continue
            if not layout.same_metadata(text, document):
                yield self._damage("altered", key, "it differs from the plan")

    def _part(self, part: int, feature_set: str | None, *, decodable: bool) -> Iterator[Damage]:
        n, record = self._salvaged.records[feature_set, part]
        key = commit_key(part, n, feature_set)
        if part >= self._salvaged.plan.n_parts:
            yield self._damage("foreign", key, f"the plan ends with part {self._salvaged.plan.n_parts - 1}")
            return
        if record is None:
            yield from (replace(damage, part=part, tracks=self._ids(part)) for damage in self._sealed(key))
            return
        if record["n"] != n or not matches_plan(record, part, self._salvaged.plan, feature_set):
            yield self._damage("altered", key, "it belongs to another plan or part", part)
            return
        damages = list(self._objects(record, part)) or list(self._named(record, part, feature_set))
        yield from damages
        if self._full and decodable and not damages:
            yield from self._values(part, record, feature_set)

    def _older_records(self) -> Iterator[Damage]:
        """Yield damage of older records, which affects only the history and is repaired by quarantine."""
        for feature_set in (None, *self._salvaged.plan.added):
            keys = {commit_key(*numbers, feature_set): numbers for numbers in record_files(self._store, feature_set)}
            for key, (part, n) in sorted(keys.items()):
                newest, _ = self._salvaged.records.get((feature_set, part), (-1, None))
                for damage in self._sealed(key) if n != newest else ():
                    detail = f"an older record, which is no longer valid, is damaged: {damage.detail}"
                    yield self._damage("foreign", key, detail)

    def _objects(self, record: Mapping[str, Any], part: int | None) -> Iterator[Damage]:
        """Compare the objects of a record with their list."""
        for item in record["objects"]:
            key, folder = item["key"], item["key"].partition("/")[0]
            array = None if folder in (ROWS, "tracks", "genres") else folder
            try:
                file = inside(self._store, key)
            except StoreCorruptError as error:
                yield self._damage("foreign", key, str(error), part, array)
                continue
            if not file.is_file():
                yield self._damage("missing", key, "the file is missing", part, array)
            elif file.stat().st_size != item["size"]:
                detail = f"{file.stat().st_size} bytes, {item['size']} were committed"
                yield self._damage("altered", key, detail, part, array)
            elif self._full and file_sha256(file) != item["sha256"]:
                yield self._damage("altered", key, "its sha256 differs from the commit record", part, array)

    def _named(self, record: Mapping[str, Any], part: int, feature_set: str | None) -> Iterator[Damage]:
        """Compare the objects in a record with those that the plan and the outcomes require."""
        try:
            outcomes = read_outcomes(self._store, self._salvaged.plan, part, feature_set)
        except StoreCorruptError as error:
            yield self._damage("altered", outcomes_key(part, feature_set), f"it cannot be read ({error})", part)
            return
        named, plan = set(object_keys(record)), self._salvaged.plan
        for key in sorted(named - keys_of_part(plan, part, feature_set)):
            yield self._damage("values", key, "the commit record lists it, but parts have no such object", part)
        for key in sorted(required_keys(plan, part, feature_set, outcomes) - named):
            detail = "the commit record does not list it, but tracks have its features"
            yield self._damage("missing", key, detail, part, key.partition("/")[0])

    def _values(self, part: int, record: Mapping[str, Any], feature_set: str | None) -> Iterator[Damage]:
        """Check the values of a part whose bytes match the commit record."""
        plan, table = self._salvaged.plan, outcomes_key(part, feature_set)
        rows, stored = plan.part_range(part), {}
        outcomes = read_outcomes(self._store, plan, part, feature_set)
        status = np.asarray(outcomes.column("status"))
        for spec in plan.arrays(feature_set):
            try:
                stored[spec.name] = layout.read_rows(self._store, spec, rows, plan.part_rows)
            except StoreError as error:
                yield self._damage("values", layout.object_key(spec, part), str(error), part, spec.name)
                return
        ok = status == OK
        if int(ok.sum()) != record["counts"]["ok"]:
            yield self._damage("values", table, "its counts differ from the commit record", part)
        name = array_name("status", feature_set)
        if not np.array_equal(stored[name], status):
            yield self._damage("values", name, "it differs from the outcome table", part, name)
        for name, values in stored.items():
            large = name == "mel" or (name.startswith("lyrics") and values.ndim == 3)
            if large and not np.isfinite(values[ok]).all():
                wrong = ok.copy()
                wrong[ok] = ~np.isfinite(values[ok]).reshape(int(ok.sum()), -1).all(axis=1)
                yield self._wrong_rows(part, name, wrong, "non-finite values in rows with status ok")
        recipe = None if feature_set is None else plan.added[feature_set].recipe
        if feature_set is None or not isinstance(recipe, ExtractorRecipe):
            return
        if recipe.input == "text":
            ok &= np.asarray(outcomes.column("lyrics_sha256").is_valid())
        lengths = stored.get(length_name(feature_set))
        if (wrong := wrong_rows(recipe, stored[feature_set], lengths, ok)).any():
            detail = "values that are not finite, or not those that status and length announce"
            yield self._wrong_rows(part, feature_set, wrong, detail)

    def _wrong_rows(self, part: int, name: str, wrong: npt.NDArray[np.bool_], detail: str) -> Damage:
        rows = np.asarray(self._salvaged.plan.part_range(part))
        tracks = self._ids(part, set(rows[wrong].tolist()))
        return Damage(kind="values", key=name, part=part, array=name, tracks=tracks, detail=detail)

    def _unrecorded(self) -> Iterator[Damage]:
        """Yield damage for files that no record lists."""
        keys = list(_keys_below(self._store))
        # A fresh inspection after the listing: records come before objects, so none is missed.
        fresh = _Inspection(self._store, full=False)
        expected, plan = fresh._expected_keys(), self._salvaged.plan
        owner = {spec.name: feature_set for feature_set in (None, *plan.added) for spec in plan.arrays(feature_set)}
        lost: dict[tuple[str | None, int], list[str]] = {}
        for key, fault in keys:
            if key in expected or not os.path.lexists(self._store / key):
                continue
            if fault is not None:
                yield self._damage("foreign", key, fault)
                continue
            part_of_set = _part_of(key, owner)
            if part_of_set in fresh._salvaged.records or part_of_set is None or part_of_set[1] >= plan.n_parts:
                yield self._damage("foreign", key, "no record lists it")
            else:
                lost.setdefault(part_of_set, []).append(key)
        for (feature_set, part), names in sorted(lost.items(), key=lambda item: (item[0][0] or "", item[0][1])):
            detail = f"{len(names)} objects of this part exist, but its commit record is missing"
            damage = self._damage("lost record", commit_key(part, 0, feature_set), detail, part)
            yield replace(damage, feature_set=feature_set)

    def _expected_keys(self) -> set[str]:
        plan = self._salvaged.plan
        expected = {PLAN_FILE, *plan.metadata}
        for generation in plan.generations:
            expected |= {generation.key, *generation.object_keys}
        for name, added in plan.added.items():
            expected |= {*feature_set_keys(self._store, name), *added.object_keys, *self._salvaged.orphans(name)}
        for (feature_set, part), (_, record) in self._salvaged.records.items():
            if record is None or not matches_plan(record, part, plan, feature_set):  # the record itself is reported
                expected |= keys_of_part(plan, part, feature_set)
            else:
                expected.update(object_keys(record))
        expected |= {f"{DROPS}/{name}" for name in names_in(self._store / DROPS) if is_record_key(f"{DROPS}/{name}")}
        for feature_set in (None, *plan.added):  # older and quarantined records are not valid, but known
            expected |= {commit_key(part, n, feature_set) for part, n in record_files(self._store, feature_set)}
        return expected

    def _damage(self, kind: Kind, key: str, detail: str, part: int | None = None, array: str | None = None) -> Damage:
        tracks = () if part is None else self._ids(part)
        return Damage(kind=kind, key=key, detail=detail, part=part, array=array, tracks=tracks)

    def _ids(self, part: int, rows: set[int] | None = None) -> tuple[str, ...]:
        """Return ids of the tracks of a part, or of some of its rows; none if the plan's table is damaged."""
        plan = self._salvaged.plan
        generation, part_rows = plan.generation_of(part), plan.part_range(part)
        if generation.number not in self._planned:
            try:
                self._planned[generation.number] = read_tracks(self._store, generation)
            except StoreError:
                return ()
        table = self._planned[generation.number].slice(part_rows.start - generation.rows.start, len(part_rows))
        ids = zip(table.column("id").to_pylist(), table.column("row").to_pylist(), strict=True)
        return tuple(track for track, row in ids if rows is None or row in rows)


def _keys_below(folder: Path, prefix: str = "") -> Iterator[tuple[str, str | None]]:
    """Yield the files that a record should list, with fault None, and links, pipes and devices with their fault.

    Logs, staging, quarantine and hidden files are skipped.
    """
    with contextlib.suppress(FileNotFoundError), os.scandir(folder) as entries:
        for entry in sorted(entries, key=lambda entry: (entry.is_dir(), entry.name)):
            key, fault = f"{prefix}{entry.name}", foreign_entry(entry)
            if entry.name.startswith("."):
                continue
            if fault is None and entry.is_dir():
                if key not in (STAGING, QUARANTINE):
                    yield from _keys_below(folder / entry.name, f"{key}/")
            elif fault is not None or not key.startswith("log/"):
                yield key, fault


def _part_of(key: str, owner: Mapping[str, str | None]) -> tuple[str | None, int] | None:
    """Return feature set and part of an object, from its key alone; `owner` maps arrays to feature sets."""
    pieces = key.split("/")
    number = pieces[-1].removesuffix(".parquet")
    if pieces[0] == ROWS and len(pieces) in (2, 3) and number.isdecimal():
        return (pieces[1] if len(pieces) == 3 else None, int(number))
    if pieces[0] in owner and len(pieces) > 2 and pieces[1] == "c" and pieces[2].isdecimal():
        return (owner[pieces[0]], int(pieces[2]))
    return None
