"""Recover the plan and records of a store of which some are damaged.

A lost plan, generation or feature set can be rebuilt, as it is stored twice or other records have its hash.
"""

from __future__ import annotations

import contextlib
import json
from collections.abc import Mapping
from dataclasses import replace
from functools import cached_property
from pathlib import Path
from typing import Any

import pyarrow as pa
import pyarrow.parquet as pq

from ..bounds import problem
from ..durable import fingerprint, inside, names_in, open_regular
from ..errors import StoreCorruptError, StoreNotFoundError
from ..format.documents import AddedAttribute, Name, read_record, record_problem
from ..format.plan import (
    PLAN_FILE,
    AddedFeatureSet,
    Kind,
    Plan,
    feature_set_key,
    feature_set_keys,
    feature_set_problem,
    generation_key,
    generation_problem,
    genre_keys,
    parse_generation,
    plan_problem,
    read_added,
    unfinished_removals,
)
from ..format.recipe import feature_set_recipe
from ..format.records import COMMITS, commit_key, committed
from ..format.schema import FORMAT_VERSION, array_name
from ..format.tables import PLAN_SCHEMA, read_table
from ..writing.creation import generation_record
from ..writing.publish import describe_objects, with_objects


class SalvagedPlan:
    """Plan and records of a store that may be damaged.

    Raises
    ------
    StoreNotFoundError
        If neither ``plan.json`` nor ``zarr.json`` exists.
    StoreCorruptError
        If the plan or the records cannot be recovered; raised by the attributes.
    """

    def __init__(self, store: Path) -> None:
        self.store = store
        if not (store / PLAN_FILE).exists() and not (store / "zarr.json").exists():
            raise StoreNotFoundError(f"{store}: not a feature store (no {PLAN_FILE}, no zarr.json). Check the path.")

    @cached_property
    def plan_document(self) -> dict[str, Any]:
        """Document of ``plan.json``; if that is damaged, from Zarr's attributes, which have the same content."""
        try:
            document = read_record(self.store, PLAN_FILE)
        except (OSError, StoreCorruptError):
            document = self._document_from_zarr()
        if fault := record_problem(PLAN_FILE, document) or plan_problem(document):
            raise StoreCorruptError(f"{self.store / PLAN_FILE}: {fault}. Restore it from a copy.")
        return document

    def _root_metadata(self) -> Any:
        with open_regular(inside(self.store, "zarr.json")) as file:
            return json.loads(file.read())

    def _document_from_zarr(self) -> dict[str, Any]:
        try:
            root = self._root_metadata()
            attributes = root["attributes"]
            return {
                "format_version": FORMAT_VERSION,
                "recipe": attributes["recipe"],
                "fingerprints": attributes["fingerprints"],
                "embeds_genres": "genre_embedding" in root["consolidated_metadata"]["metadata"],
                "part_rows": attributes["part_rows"],
                "library_versions": attributes["library_versions"],
            }
        except (OSError, ValueError, KeyError, TypeError, RecursionError) as error:
            raise StoreCorruptError(
                f"{self.store}: both {PLAN_FILE} and zarr.json are damaged. Restore one from a copy."
            ) from error

    @cached_property
    def plan(self) -> Plan:
        plan = Plan(document=self.plan_document, generations=())
        while (self.store / generation_key(n := len(plan.generations))).exists() or self._table(n).exists():
            record: dict[str, Any] | None = None
            with contextlib.suppress(OSError, StoreCorruptError):
                record = read_record(self.store, generation_key(n))
            if record is None or generation_problem(plan, record):
                record = self._generation_from_tables(plan)
            plan = replace(plan, generations=(*plan.generations, parse_generation(n, record)))
        if not plan.generations:
            raise StoreCorruptError(f"{self.store}: no generation of the plan is left. Restore it from a copy.")
        return replace(plan, added=self._added(plan))

    def _added(self, plan: Plan) -> dict[str, AddedFeatureSet]:
        """Read the added feature sets; if a record is damaged, rebuild it from Zarr's attributes and the objects."""
        try:
            added = read_added(self.store, plan)
        except (OSError, StoreCorruptError):
            return self._added_from_zarr(plan)
        folders = [name for name in names_in(self.store / COMMITS) if not name.endswith(".json")]
        committed_names = {name for name in folders if names_in(self.store / COMMITS / name, "*.json")}
        existing = {*added, *unfinished_removals(self.store)}
        return added if committed_names <= existing else self._added_from_zarr(plan)

    def _added_from_zarr(self, plan: Plan) -> dict[str, AddedFeatureSet]:
        try:
            attributes = self._root_metadata()["attributes"]["added"]
        except (OSError, ValueError, KeyError, TypeError, RecursionError) as error:
            raise StoreCorruptError(f"{self.store}: features/ and zarr.json are damaged. Restore one.") from error
        if fault := problem(attributes, dict[Name, AddedAttribute], "added"):
            raise StoreCorruptError(f"{self.store / 'zarr.json'}: {fault}. Restore it from a copy.")
        added: dict[str, AddedFeatureSet] = {}
        for name, attribute in attributes.items():
            if name in unfinished_removals(self.store):
                continue
            records: list[dict[str, Any]] = []
            for key in feature_set_keys(self.store, name) or [feature_set_key(name, 0)]:
                try:
                    record = read_record(self.store, key)
                    if record["recipe"] != attribute["recipe"]:
                        raise StoreCorruptError(f"{self.store / key}: another recipe than in zarr.json")
                    records.append(record)
                except (OSError, StoreCorruptError):
                    if records:  # only the first can be rebuilt
                        break
                    records.append(self._first_record(plan, name, attribute))
            recipe = feature_set_recipe(attribute["recipe"])
            added_set = AddedFeatureSet(name=name, recipe=recipe, records=tuple(records))
            if fault := feature_set_problem(replace(plan, added=added), added_set):
                raise StoreCorruptError(f"{self.store}: features/{name}.json: {fault}. Restore it from a copy.")
            added[name] = added_set
        return added

    def _first_record(self, plan: Plan, name: str, attribute: Mapping[str, Any]) -> dict[str, Any]:
        """Rebuild the first record of a feature set from Zarr's attributes; commits of its parts hold its hash."""
        keys = self._genre_keys(name)
        for n_genres in range(len(keys), -1, -1):
            content = {
                "feature_set": name,
                **attribute,
                "plan": plan.sha256,
                "first_genre": 0,
                "n_genres": n_genres,
            }
            record = with_objects(content, describe_objects(self.store, keys[:n_genres]))
            if fingerprint(record) in self._feature_set_hashes:
                return record
        raise StoreCorruptError(f"{self.store / 'features' / name}.json: damaged. Restore it from a copy.")

    def _genre_keys(self, feature_set: str) -> list[str]:
        """Return keys of the genre embeddings of a feature set, from the first row to the first missing one."""
        array = array_name("genre_embedding", feature_set)
        keys: list[str] = []
        while (self.store / f"{array}/c/{len(keys)}/0").is_file():
            keys.append(f"{array}/c/{len(keys)}/0")
        return keys

    @cached_property
    def _feature_set_hashes(self) -> set[str]:
        return self._hashes("feature_set", *(f"{COMMITS}/{name}" for name in names_in(self.store / COMMITS)))

    @cached_property
    def _generation_hashes(self) -> set[str]:
        return self._hashes("generation", COMMITS) | self._hashes("previous", "generations")

    def _hashes(self, key: str, *folders: str) -> set[str]:
        """Return the values of `key` in the undamaged records of some folders."""
        hashes = set()
        for file in (self.store / folder / name for folder in folders for name in names_in(self.store / folder)):
            with contextlib.suppress(OSError, StoreCorruptError):
                hashes.add(str(read_record(self.store, file.relative_to(self.store).as_posix()).get(key)))
        return hashes

    def _table(self, number: int) -> Path:
        return self.store / "tracks" / f"{number}.parquet"

    def _generation_from_tables(self, plan: Plan) -> dict[str, Any]:
        """Rebuild the record of the generation after those of `plan`; the commits of its parts hold its hash."""
        number = len(plan.generations)
        keys = [f"genres/{number}.parquet", f"tracks/{number}.parquet"]
        lengths = [self._table_length(key) for key in keys]
        genre_rows = range(plan.n_genres, plan.n_genres + lengths[0])
        tracks = read_table(inside(self.store, keys[1]), PLAN_SCHEMA, range(plan.n_rows, plan.n_rows + lengths[1]))
        if plan.embeds_genres:
            keys += genre_keys(genre_rows)
        keys = [key for key in keys if (self.store / key).exists()]
        kinds: tuple[Kind, ...] = ("append", "retry") if plan.generations else ("first",)
        for kind in kinds:
            content = generation_record(kind, plan, tracks, genre_rows)
            record = with_objects(content, describe_objects(self.store, keys))
            if fingerprint(record) in self._generation_hashes and not generation_problem(plan, record):
                return record
        raise StoreCorruptError(f"{self.store / generation_key(number)}: damaged. Restore it from a copy.")

    def _table_length(self, key: str) -> int:
        try:
            with open_regular(inside(self.store, key)) as file:
                return int(pq.ParquetFile(file).metadata.num_rows)
        except (OSError, ValueError, pa.ArrowException) as error:
            raise StoreCorruptError(f"{self.store / key}: not a table ({error}). Restore it from a copy.") from error

    @cached_property
    def records(self) -> dict[tuple[str | None, int], tuple[int, dict[str, Any] | None]]:
        """(Feature set, part) -> n and document of the valid record, sorted; None for a damaged document.

        The feature set of the store's own features is None.
        """
        records: dict[tuple[str | None, int], tuple[int, dict[str, Any] | None]] = {}
        for feature_set in (None, *sorted(self.plan.added)):
            for part, n in sorted(committed(self.store, feature_set).items()):
                document = None
                with contextlib.suppress(OSError, StoreCorruptError):
                    document = read_record(self.store, commit_key(part, n, feature_set))
                records[feature_set, part] = (n, document)
        return records

    def orphans(self, name: str) -> set[str]:
        """Return the keys of genre embeddings of damaged records of a feature set; the records are reported already."""
        added = self.plan.added[name]
        if len(feature_set_keys(self.store, name)) <= len(added.records):
            return set()
        return set(self._genre_keys(name)) - set(added.object_keys)
