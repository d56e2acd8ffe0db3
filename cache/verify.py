"""Is a store what its records say? Damage is found, named by part, array and tracks, and put aside.

Repairing has two halves. Here, a damaged part is moved into ``quarantine/`` and so is pending again; metadata that the
plan determines is written anew. Extraction (:mod:`mgc.pipeline.repair`) then makes again what is pending.
"""

from __future__ import annotations

import contextlib
import json
import os
from collections.abc import Callable, Iterable, Iterator, Mapping
from dataclasses import asdict, dataclass, replace
from functools import cached_property
from pathlib import Path
from typing import Any, Literal

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
import zarr

from . import layout
from .commits import (
    COMMITS,
    QUARANTINE,
    belongs,
    commit_key,
    committed,
    finish,
    outcomes_key,
    parse_commit_name,
    quarantine_folder,
    taken_back,
)
from .drops import DROPS
from .durable import file_sha256, fsync_dir, inside, replace_file, seal, unseal
from .errors import StoreCorruptError, StoreError, StoreNotFoundError
from .plan import (
    PLAN_FILE,
    AddedSet,
    Generation,
    Plan,
    feature_set_key,
    generation_key,
    parse_generation,
    read_added,
    read_tracks,
)
from .publish import STAGING, refuse_busy, sweep
from .schema import FORMAT_VERSION, OK, Recipe, feature_set_recipe, fingerprint
from .tracks import ADDED_OUTCOME_SCHEMA, OUTCOME_SCHEMA, read_table

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


def verify(store: Path, *, full: bool = False, on_progress: Callable[[int, int], None] | None = None) -> list[Damage]:
    """Compare a store with its records.

    Parameters
    ----------
    full : read every byte: hashes, decoding, finiteness and counts; otherwise presence, sizes, records and tables.
    on_progress : told parts done and parts in all.

    Raises
    ------
    StoreNotFoundError
        If there is nothing that looks like a store.
    """
    with contextlib.suppress(OSError, StoreError, ValueError):  # as every reader does; what hinders it is found below
        finish(store)
    return list(_Inspection(store, full=full).damages(on_progress or (lambda done, total: None)))


def put_aside(store: Path, damages: Iterable[Damage]) -> list[Damage]:
    """Quarantine hurt parts and foreign objects; write plan, generation records and Zarr metadata anew where they are
    determined by what is whole.

    Returns
    -------
    list of Damage
        What is left: it needs the source (tables of the plan, genre embeddings) or a copy.
    """
    refuse_busy(store)
    inspection = _Inspection(store, full=False)
    left = []
    parts: set[tuple[int, str]] = set()
    for damage in damages:
        if damage.part is not None:
            parts.add((damage.part, damage.feature_set or ""))
        elif damage.kind == "foreign":
            _move(store, damage.key, f"{QUARANTINE}/foreign/{damage.key}")
        elif not _rewritten(store, inspection, damage):
            left.append(damage)
    for part, feature_set in sorted(parts):
        _quarantine(store, inspection, part, feature_set or None)
    return left


class _Inspection:
    """One look at a store, as far as its plan can be made out."""

    def __init__(self, store: Path, *, full: bool) -> None:
        self._store, self._full = store, full
        self._planned: dict[int, pa.Table] = {}
        if not (store / PLAN_FILE).exists() and not (store / "zarr.json").exists():
            raise StoreNotFoundError(f"{store}: no feature store here (neither {PLAN_FILE} nor zarr.json)")

    @cached_property
    def plan_document(self) -> dict[str, Any]:
        """Of ``plan.json``; where that is hurt, from Zarr's attributes, which say the same."""
        try:
            return unseal(self._store / PLAN_FILE)
        except (OSError, StoreCorruptError):
            return self._document_from_zarr()

    def _document_from_zarr(self) -> dict[str, Any]:
        try:
            root = json.loads((self._store / "zarr.json").read_bytes())
            said = root["attributes"]
            return {
                "format_version": FORMAT_VERSION,
                "recipe": said["recipe"],
                "fingerprints": said["fingerprints"],
                "embeds_genres": "genre_embedding" in root["consolidated_metadata"]["metadata"],
                "part_rows": said["part_rows"],
                "library_versions": said["library_versions"],
            }
        except (OSError, ValueError, KeyError, TypeError) as error:
            raise StoreCorruptError(
                f"{self._store}: both {PLAN_FILE} and zarr.json are damaged; restore one from a copy"
            ) from error

    @cached_property
    def plan(self) -> Plan:
        generations: list[Generation] = []
        while (self._store / generation_key(len(generations))).exists() or self._table(len(generations)).exists():
            number = len(generations)
            before = generations[-1] if generations else None
            try:
                record = unseal(self._store / generation_key(number))
            except (OSError, StoreCorruptError):
                record = {}
            if not self._follows(record, number, before):
                record = self._generation_from_tables(number, before)
            generations.append(parse_generation(number, record))
        if not generations:
            raise StoreCorruptError(f"{self._store}: no generation of the plan is left; restore it from a copy")
        document = self.plan_document
        return Plan(
            document=document,
            recipe=Recipe.from_dict(document["recipe"]),
            part_rows=document["part_rows"],
            generations=tuple(generations),
            added=self._added(),
        )

    def _added(self) -> dict[str, AddedSet]:
        """Feature sets that joined; where a record is hurt, from Zarr's attributes and the objects."""
        try:
            found = read_added(self._store, fingerprint(self.plan_document))
        except (OSError, StoreCorruptError):
            return self._added_from_zarr()
        named = {folder.name for folder in (self._store / COMMITS).glob("*") if folder.is_dir()}
        return found if named <= found.keys() else self._added_from_zarr()

    def _added_from_zarr(self) -> dict[str, AddedSet]:
        try:
            said = json.loads((self._store / "zarr.json").read_bytes())["attributes"]["added"]
        except (OSError, ValueError, KeyError) as error:
            raise StoreCorruptError(f"{self._store}: features/ and zarr.json are damaged; restore one") from error
        found = {}
        for name, one in said.items():
            records = []
            for n in range(len(self._set_keys(name)) or 1):  # up to one that is hurt; the first can be made again
                try:
                    records.append(unseal(self._store / feature_set_key(name, n)))
                except (OSError, StoreCorruptError):
                    if n > 0:
                        break
                    records.append(self._first_of_set(name, one))
            found[name] = AddedSet(name=name, recipe=feature_set_recipe(one["recipe"]), records=tuple(records))
        return found

    def _first_of_set(self, name: str, said: Mapping[str, Any]) -> dict[str, Any]:
        """The first record of a feature set, from what Zarr's attributes say; commits of its parts know its hash."""
        genres = [f"genre_embedding_{name}/c/{row}/0" for row in range(self._genres_of_set(name))]
        for n_genres in range(len(genres), -1, -1):
            objects = [
                {"key": key, "size": (self._store / key).stat().st_size, "sha256": file_sha256(self._store / key)}
                for key in sorted(genres[:n_genres])
            ]
            record = {"feature_set": name, **said, "plan": fingerprint(self.plan_document), "first_genre": 0,
                      "n_genres": n_genres, "digest": fingerprint(objects), "objects": objects}  # fmt: skip
            if fingerprint(record) in self._sets_named:
                return record
        raise StoreCorruptError(f"{self._store / 'features' / name}.json: damaged; restore it from a copy")

    def _genres_of_set(self, name: str) -> int:
        """Rows of a feature set's genre embedding, from the first on without a hole."""
        n = 0
        while (self._store / f"genre_embedding_{name}/c/{n}/0").is_file():
            n += 1
        return n

    def _set_keys(self, name: str) -> list[str]:
        """Keys of the records of a feature set that are there."""
        keys: list[str] = []
        while (self._store / feature_set_key(name, len(keys))).exists():
            keys.append(feature_set_key(name, len(keys)))
        return keys

    @cached_property
    def _sets_named(self) -> set[str]:
        """Hashes of feature sets that whole commits name."""
        named = set()
        for file in (self._store / COMMITS).glob("*/*.json"):
            with contextlib.suppress(OSError, StoreCorruptError):
                named.add(str(unseal(file).get("feature_set")))
        return named

    def _follows(self, record: Mapping[str, Any], number: int, before: Generation | None) -> bool:
        """Whether a record is that of this store's generation, by the hashes it holds."""
        previous = None if before is None else before.sha256
        wanted = (number, fingerprint(self.plan_document), previous)
        return (record.get("generation"), record.get("plan"), record.get("previous")) == wanted

    def _table(self, number: int) -> Path:
        return self._store / "tracks" / f"{number}.parquet"

    def _generation_from_tables(self, number: int, before: Generation | None) -> dict[str, Any]:
        """A lost or hurt generation record, made again; the commits of its parts know its hash."""
        keys = [f"genres/{number}.parquet", f"tracks/{number}.parquet"]
        tables = {key.partition("/")[0]: pq.read_table(self._store / key) for key in keys}
        genres, tracks = tables["genres"], tables["tracks"]
        first_genre = before.genres.stop if before is not None else 0
        if self.plan_document["embeds_genres"]:
            keys += [f"genre_embedding/c/{row}/0" for row in genres.column("row").to_pylist()]
        objects = [
            {"key": key, "size": (self._store / key).stat().st_size, "sha256": file_sha256(self._store / key)}
            for key in sorted(keys)
            if (self._store / key).exists()
        ]
        for kind in ("first",) if before is None else ("append", "retry"):
            record = {
                "generation": number,
                "kind": kind,
                "plan": fingerprint(self.plan_document),
                "previous": None if before is None else before.sha256,
                "first_row": tracks.column("row")[0].as_py() if tracks.num_rows else 0,
                "n_tracks": tracks.num_rows,
                "first_genre": first_genre,
                "n_genres": genres.num_rows,
                "digest": fingerprint(objects),
                "objects": objects,
            }
            if fingerprint(record) in self._generations_named:
                return record
        raise StoreCorruptError(f"{self._store / generation_key(number)}: damaged; restore it from a copy")

    @cached_property
    def _generations_named(self) -> set[str]:
        """Hashes of generations that whole commits and later generations name."""
        named: set[str] = set()
        for folder, field in ((COMMITS, "generation"), ("generations", "previous")):
            for name in os.listdir(self._store / folder):
                try:
                    named.add(str(unseal(self._store / folder / name).get(field)))
                except (OSError, StoreCorruptError):
                    continue
        return named

    @cached_property
    def records(self) -> dict[tuple[str, int], tuple[int, dict[str, Any] | None]]:
        """(Feature set, part) -> n and document of the record that counts; None for a document that is hurt.

        The store as it was made is the feature set ``""``.
        """
        found: dict[tuple[str, int], tuple[int, dict[str, Any] | None]] = {}
        for feature_set in ("", *self.plan.added):
            for part, n in sorted(committed(self._store, feature_set or None).items()):
                try:
                    found[feature_set, part] = (n, unseal(self._store / commit_key(part, n, feature_set or None)))
                except (OSError, StoreCorruptError):
                    found[feature_set, part] = (n, None)
        return found

    def damages(self, tell: Callable[[int, int], None]) -> Iterator[Damage]:
        yield from self._sealed(PLAN_FILE)
        for generation in self.plan.generations:
            found = list(self._sealed(generation.key))
            if not found and unseal(self._store / generation.key) != generation.record:
                found = [self._damage("altered", generation.key, "it belongs to another store")]
            yield from found
            for item in generation.record["objects"]:
                array = item["key"].partition("/")[0]
                yield from self._object(item, None, array if array == "genre_embedding" else None)
        for name, added in self.plan.added.items():
            for key in self._set_keys(name) or [feature_set_key(name, 0)]:
                yield from self._sealed(key)
            for record in added.records:
                for item in record["objects"]:
                    yield from self._object(item, None, f"genre_embedding_{name}")
        metadata = list(self._metadata())
        yield from metadata
        for file in sorted((self._store / DROPS).glob("*.json")):
            yield from self._sealed(file.relative_to(self._store).as_posix())
        for done, (feature_set, part) in enumerate(sorted(self.records), start=1):
            for damage in self._part(part, feature_set, decodable=not metadata):
                yield replace(damage, feature_set=feature_set or None)
            tell(done, len(self.records))
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
        plan = self.plan
        for key, document in plan.metadata.items():
            file = self._store / key
            if not file.is_file():
                yield self._damage("missing", key, "it is not there")
            elif not layout.same_document(file.read_bytes(), document):
                yield self._damage("altered", key, "it is not what the plan makes it")

    def _part(self, part: int, feature_set: str, *, decodable: bool) -> Iterator[Damage]:
        n, record = self.records[feature_set, part]
        key = commit_key(part, n, feature_set or None)
        if record is None:
            yield self._damage("altered", key, "it does not match its own sha256", part)
            return
        if not belongs(record, part, self.plan, feature_set or None):
            if part < self.plan.n_parts:
                yield self._damage("altered", key, "it belongs to another plan or part", part)
            else:
                yield self._damage("foreign", key, f"the plan ends with part {self.plan.n_parts - 1}")
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
        for feature_set in ("", *self.plan.added):
            folder = self._store / COMMITS / feature_set
            for name in sorted(os.listdir(folder)) if folder.is_dir() else ():
                parsed = parse_commit_name(name)
                if parsed is None or self.records.get((feature_set, parsed[0]), (-1, None))[0] == parsed[1]:
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
        rows, table = self.plan.part_range(part), outcomes_key(part, feature_set)
        outcomes = read_table(self._store / table, OUTCOME_SCHEMA if feature_set is None else ADDED_OUTCOME_SCHEMA)
        status = np.asarray(outcomes.column("status"))
        group = zarr.open_group(self._store, mode="r")
        stored = {spec.name: _rows_of(group, spec.name, rows) for spec in self.plan.arrays(feature_set)}
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
        fresh = _Inspection(
            self._store, full=False
        )  # after the listing: records come before objects, so none is missed
        known = fresh._known_keys()
        owner = {spec.name: name for name in ("", *self.plan.added) for spec in self.plan.arrays(name or None)}
        lost: dict[tuple[str, int], list[str]] = {}
        for key in keys:
            if key in known or not (self._store / key).exists():
                continue
            place = _place_of(key, owner)
            if place is not None and place not in fresh.records and place[1] < self.plan.n_parts:
                lost.setdefault(place, []).append(key)
            else:
                yield self._damage("foreign", key, "no record names it")
        for (feature_set, part), keys in sorted(lost.items()):
            detail = f"{len(keys)} objects of this part are there, but its record is not"
            damage = self._damage("lost record", commit_key(part, 0, feature_set or None), detail, part)
            yield replace(damage, feature_set=feature_set or None)

    def _known_keys(self) -> set[str]:
        plan = self.plan
        known = {PLAN_FILE, *plan.metadata}
        for generation in plan.generations:
            known |= {generation.key, *(item["key"] for item in generation.record["objects"])}
        for name, added in plan.added.items():
            known |= {*self._set_keys(name), *(item["key"] for record in added.records for item in record["objects"])}
            known |= self.orphans(name)
        for (feature_set, part), (newest, commit) in self.records.items():
            of_set = feature_set or None
            known |= {commit_key(part, n, of_set) for n in range(newest + 1)}
            if commit is None or not belongs(commit, part, plan, of_set):  # reported as such
                known |= _keys_of_part(plan, part, of_set)
            else:
                known |= {item["key"] for item in commit["objects"]}
        for of_set in (None, *plan.added):  # records up to one in quarantine do not count, wherever they lie
            for part, last in taken_back(self._store, of_set).items():
                known |= {commit_key(part, n, of_set) for n in range(last + 1)}
        return known

    def orphans(self, name: str) -> set[str]:
        """Genre embeddings of records of a feature set that are hurt, and are reported as such."""
        records = self.plan.added[name].records
        if len(self._set_keys(name)) <= len(records):
            return set()
        listed = {item["key"] for record in records for item in record["objects"]}
        return {f"genre_embedding_{name}/c/{row}/0" for row in range(self._genres_of_set(name))} - listed

    def _damage(self, kind: Kind, key: str, detail: str, part: int | None = None, array: str | None = None) -> Damage:
        tracks = () if part is None else self._ids(part)
        return Damage(kind=kind, key=key, detail=detail, part=part, array=array, tracks=tracks)

    def _ids(self, part: int, rows: set[int] | None = None) -> tuple[str, ...]:
        """Ids of a part's tracks, as far as the plan's table can be read."""
        generation, here = self.plan.generation_of(part), self.plan.part_range(part)
        if generation.number not in self._planned:
            try:
                self._planned[generation.number] = read_tracks(self._store, self.plan, generation)
            except StoreError:
                return ()
        table = self._planned[generation.number].slice(here.start - generation.rows.start, len(here))
        return tuple(
            name
            for name, row in zip(table.column("id").to_pylist(), table.column("row").to_pylist(), strict=True)
            if rows is None or row in rows
        )


def _rewritten(store: Path, inspection: _Inspection, damage: Damage) -> bool:
    """Write anew what the rest of the store determines; False where it does not."""
    plan = inspection.plan
    if damage.key == PLAN_FILE:
        if plan.generations[0].record["plan"] != fingerprint(dict(plan.document)):
            return False
        replace_file(store / damage.key, seal(dict(plan.document)))
    elif damage.key.startswith("generations/"):
        number = int(damage.key.partition("/")[2].removesuffix(".json"))
        replace_file(store / damage.key, seal(dict(plan.generations[number].record)))
    elif damage.key.startswith("features/"):
        name, _, n = damage.key.partition("/")[2].removesuffix(".json").partition(".")
        if int(n or 0) < len(plan.added[name].records):
            replace_file(store / damage.key, seal(dict(plan.added[name].records[int(n or 0)])))
        else:  # of genres that came later: nobody knows its hash, and `extract --add` embeds them again
            for key in (damage.key, *sorted(inspection.orphans(name))):
                _move(store, key, f"{QUARANTINE}/foreign/{key}")
    elif damage.key.endswith("zarr.json"):
        layout.install_metadata(store, {damage.key: plan.metadata[damage.key]}, store / STAGING)
        sweep(store, "metadata.json")
        with contextlib.suppress(OSError):
            (store / STAGING).rmdir()
    else:
        return False
    return True


def _quarantine(store: Path, inspection: _Inspection, part: int, feature_set: str | None) -> None:
    """Take a part back: its record first, so that a kill in between leaves it pending."""
    n, _ = inspection.records.get((feature_set or "", part), (0, None))
    folder = quarantine_folder(part, n, feature_set)
    (store / folder).mkdir(parents=True, exist_ok=True)
    fsync_dir(store / QUARANTINE)
    key = commit_key(part, n, feature_set)
    _move(store, key, f"{folder}/{key}")
    for key in sorted(_keys_of_part(inspection.plan, part, feature_set), key=lambda key: not key.startswith("status")):
        _move(store, key, f"{folder}/{key}")


def _keys_of_part(plan: Plan, part: int, feature_set: str | None) -> set[str]:
    return {outcomes_key(part, feature_set), *(layout.object_key(spec, part) for spec in plan.arrays(feature_set))}


def _move(store: Path, key: str, to: str) -> None:
    if not (store / key).exists():
        return
    (store / to).parent.mkdir(parents=True, exist_ok=True)
    (store / key).replace(store / to)
    fsync_dir((store / to).parent)
    fsync_dir((store / key).parent)


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
