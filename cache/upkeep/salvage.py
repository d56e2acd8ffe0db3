"""The plan and records of a store, as far as they can be recovered when some of them are damaged.

Plan, generations and feature sets are written twice, or other records hold their hash: a lost one can be rebuilt.
"""

from __future__ import annotations

import contextlib
import json
from collections.abc import Mapping
from functools import cached_property
from pathlib import Path
from typing import Any

import pyarrow.parquet as pq

from ..durable import fingerprint, names_in, unseal
from ..errors import StoreCorruptError, StoreNotFoundError
from ..format.plan import (
    PLAN_FILE,
    AddedFeatureSet,
    Generation,
    Kind,
    Plan,
    feature_set_key,
    feature_set_keys,
    generation_key,
    parse_generation,
    read_added,
    unfinished_drops,
)
from ..format.recipe import feature_set_recipe
from ..format.records import COMMITS, commit_key, committed
from ..format.schema import FORMAT_VERSION, array_name
from ..writing.creation import generation_record
from ..writing.publish import describe_objects, with_objects


class SalvagedPlan:
    """Plan and records of a store that may be damaged.

    Raises
    ------
    StoreNotFoundError
        If there is nothing that looks like a store.
    StoreCorruptError
        By attributes that cannot be recovered.
    """

    def __init__(self, store: Path) -> None:
        self.store = store
        if not (store / PLAN_FILE).exists() and not (store / "zarr.json").exists():
            raise StoreNotFoundError(f"{store}: no feature store here (neither {PLAN_FILE} nor zarr.json)")

    @cached_property
    def plan_document(self) -> dict[str, Any]:
        """Document of ``plan.json``; if that is damaged, from Zarr's attributes, which hold the same."""
        try:
            return unseal(self.store / PLAN_FILE)
        except (OSError, StoreCorruptError):
            return self._document_from_zarr()

    def _document_from_zarr(self) -> dict[str, Any]:
        try:
            root = json.loads((self.store / "zarr.json").read_bytes())
            attributes = root["attributes"]
            return {
                "format_version": FORMAT_VERSION,
                "recipe": attributes["recipe"],
                "fingerprints": attributes["fingerprints"],
                "embeds_genres": "genre_embedding" in root["consolidated_metadata"]["metadata"],
                "part_rows": attributes["part_rows"],
                "library_versions": attributes["library_versions"],
            }
        except (OSError, ValueError, KeyError, TypeError) as error:
            raise StoreCorruptError(
                f"{self.store}: both {PLAN_FILE} and zarr.json are damaged; restore one from a copy"
            ) from error

    @cached_property
    def plan(self) -> Plan:
        generations: list[Generation] = []
        while (self.store / generation_key(len(generations))).exists() or self._table(len(generations)).exists():
            number = len(generations)
            previous = generations[-1] if generations else None
            try:
                record = unseal(self.store / generation_key(number))
            except (OSError, StoreCorruptError):
                record = {}
            if not self._follows(record, number, previous):
                record = self._generation_from_tables(number, previous)
            generations.append(parse_generation(number, record))
        if not generations:
            raise StoreCorruptError(f"{self.store}: no generation of the plan is left; restore it from a copy")
        return Plan(document=self.plan_document, generations=tuple(generations), added=self._added())

    def _added(self) -> dict[str, AddedFeatureSet]:
        """Read the added feature sets; if a record is damaged, rebuild it from Zarr's attributes and the objects."""
        try:
            added = read_added(self.store, fingerprint(self.plan_document))
        except (OSError, StoreCorruptError):
            return self._added_from_zarr()
        folders = [name for name in names_in(self.store / COMMITS) if not name.endswith(".json")]
        committed_names = {name for name in folders if names_in(self.store / COMMITS / name, "*.json")}
        return added if committed_names <= {*added, *unfinished_drops(self.store)} else self._added_from_zarr()

    def _added_from_zarr(self) -> dict[str, AddedFeatureSet]:
        try:
            attributes = json.loads((self.store / "zarr.json").read_bytes())["attributes"]["added"]
        except (OSError, ValueError, KeyError, TypeError) as error:
            raise StoreCorruptError(f"{self.store}: features/ and zarr.json are damaged; restore one") from error
        added = {}
        for name, attribute in attributes.items():
            if name in unfinished_drops(self.store):
                continue
            records = []
            for key in feature_set_keys(self.store, name) or [feature_set_key(name, 0)]:
                try:
                    records.append(unseal(self.store / key))
                except (OSError, StoreCorruptError):
                    if records:  # only the first can be rebuilt
                        break
                    records.append(self._first_record(name, attribute))
            recipe = feature_set_recipe(attribute["recipe"])
            added[name] = AddedFeatureSet(name=name, recipe=recipe, records=tuple(records))
        return added

    def _first_record(self, name: str, attribute: Mapping[str, Any]) -> dict[str, Any]:
        """Rebuild the first record of a feature set from Zarr's attributes; commits of its parts hold its hash."""
        keys = self._genre_keys(name)
        for n_genres in range(len(keys), -1, -1):
            content = {
                "feature_set": name,
                **attribute,
                "plan": fingerprint(self.plan_document),
                "first_genre": 0,
                "n_genres": n_genres,
            }
            record = with_objects(content, describe_objects(self.store, keys[:n_genres]))
            if fingerprint(record) in self._feature_set_hashes:
                return record
        raise StoreCorruptError(f"{self.store / 'features' / name}.json: damaged; restore it from a copy")

    def _genre_keys(self, feature_set: str) -> list[str]:
        """Return keys of the genre embeddings of a feature set, from the first row on to the first that is missing."""
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
                hashes.add(str(unseal(file).get(key)))
        return hashes

    def _follows(self, record: Mapping[str, Any], number: int, previous: Generation | None) -> bool:
        """Whether a record is that of this store's generation, by the hashes in it."""
        expected = (number, fingerprint(self.plan_document), None if previous is None else previous.sha256)
        return (record.get("generation"), record.get("plan"), record.get("previous")) == expected

    def _table(self, number: int) -> Path:
        return self.store / "tracks" / f"{number}.parquet"

    def _generation_from_tables(self, number: int, previous: Generation | None) -> dict[str, Any]:
        """Rebuild a lost or damaged generation record; the commits of its parts hold its hash."""
        keys = [f"genres/{number}.parquet", f"tracks/{number}.parquet"]
        genres, tracks = (pq.read_table(self.store / key) for key in keys)
        if self.plan_document["embeds_genres"]:
            keys += [f"genre_embedding/c/{row}/0" for row in genres.column("row").to_pylist()]
        keys = [key for key in keys if (self.store / key).exists()]
        first_genre = 0 if previous is None else previous.genres.stop
        genre_rows = range(first_genre, first_genre + genres.num_rows)
        kinds: tuple[Kind, ...] = ("first",) if previous is None else ("append", "retry")
        hashes = (fingerprint(self.plan_document), None if previous is None else previous.sha256)
        for kind in kinds:
            content = generation_record(kind, number, tracks, genre_rows, *hashes)
            record = with_objects(content, describe_objects(self.store, keys))
            if fingerprint(record) in self._generation_hashes:
                return record
        raise StoreCorruptError(f"{self.store / generation_key(number)}: damaged; restore it from a copy")

    @cached_property
    def records(self) -> dict[tuple[str | None, int], tuple[int, dict[str, Any] | None]]:
        """(Feature set, part) -> n and document of the record that counts, sorted; None for a damaged document.

        The feature set of the store's own features is None.
        """
        records: dict[tuple[str | None, int], tuple[int, dict[str, Any] | None]] = {}
        for feature_set in (None, *sorted(self.plan.added)):
            for part, n in sorted(committed(self.store, feature_set).items()):
                document = None
                with contextlib.suppress(OSError, StoreCorruptError):
                    document = unseal(self.store / commit_key(part, n, feature_set))
                records[feature_set, part] = (n, document)
        return records

    def orphans(self, name: str) -> set[str]:
        """Return the genre embeddings of damaged records of a feature set, which are reported themselves."""
        added = self.plan.added[name]
        if len(feature_set_keys(self.store, name)) <= len(added.records):
            return set()
        return set(self._genre_keys(name)) - set(added.object_keys)
