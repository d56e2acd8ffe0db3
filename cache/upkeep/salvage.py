"""What a store's plan and records are, as far as they can be made out when some of them are hurt.

Plan, generations and feature sets are written twice or named by a hash elsewhere; what one place lost, another says.
"""

from __future__ import annotations

import contextlib
import json
import os
from collections.abc import Mapping
from functools import cached_property
from pathlib import Path
from typing import Any

import pyarrow.parquet as pq

from ..durable import file_sha256, fingerprint, unseal
from ..errors import StoreCorruptError, StoreNotFoundError
from ..format.plan import (
    PLAN_FILE,
    AddedSet,
    Generation,
    Plan,
    being_dropped,
    feature_set_key,
    generation_key,
    parse_generation,
    read_added,
)
from ..format.recipe import Recipe, feature_set_recipe
from ..format.records import COMMITS, commit_key, committed
from ..format.schema import FORMAT_VERSION


class SalvagedPlan:
    """Plan and records of a store that may be hurt.

    Raises
    ------
    StoreNotFoundError
        If there is nothing that looks like a store.
    StoreCorruptError
        From what is looked at, if nothing says what it was.
    """

    def __init__(self, store: Path) -> None:
        self.store = store
        if not (store / PLAN_FILE).exists() and not (store / "zarr.json").exists():
            raise StoreNotFoundError(f"{store}: no feature store here (neither {PLAN_FILE} nor zarr.json)")

    @cached_property
    def plan_document(self) -> dict[str, Any]:
        """Of ``plan.json``; where that is hurt, from Zarr's attributes, which say the same."""
        try:
            return unseal(self.store / PLAN_FILE)
        except (OSError, StoreCorruptError):
            return self._document_from_zarr()

    def _document_from_zarr(self) -> dict[str, Any]:
        try:
            root = json.loads((self.store / "zarr.json").read_bytes())
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
                f"{self.store}: both {PLAN_FILE} and zarr.json are damaged; restore one from a copy"
            ) from error

    @cached_property
    def plan(self) -> Plan:
        generations: list[Generation] = []
        while (self.store / generation_key(len(generations))).exists() or self._table(len(generations)).exists():
            number = len(generations)
            before = generations[-1] if generations else None
            try:
                record = unseal(self.store / generation_key(number))
            except (OSError, StoreCorruptError):
                record = {}
            if not self._follows(record, number, before):
                record = self._generation_from_tables(number, before)
            generations.append(parse_generation(number, record))
        if not generations:
            raise StoreCorruptError(f"{self.store}: no generation of the plan is left; restore it from a copy")
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
            found = read_added(self.store, fingerprint(self.plan_document))
        except (OSError, StoreCorruptError):
            return self._added_from_zarr()
        named = {folder.name for folder in (self.store / COMMITS).glob("*") if folder.is_dir()}
        return found if named <= {*found, *being_dropped(self.store)} else self._added_from_zarr()

    def _added_from_zarr(self) -> dict[str, AddedSet]:
        try:
            said = json.loads((self.store / "zarr.json").read_bytes())["attributes"]["added"]
        except (OSError, ValueError, KeyError) as error:
            raise StoreCorruptError(f"{self.store}: features/ and zarr.json are damaged; restore one") from error
        found = {}
        for name, one in said.items():
            if name in being_dropped(self.store):
                continue
            records = []
            for n in range(len(self.set_keys(name)) or 1):  # up to one that is hurt; the first can be made again
                try:
                    records.append(unseal(self.store / feature_set_key(name, n)))
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
                {"key": key, "size": (self.store / key).stat().st_size, "sha256": file_sha256(self.store / key)}
                for key in sorted(genres[:n_genres])
            ]
            record = {"feature_set": name, **said, "plan": fingerprint(self.plan_document), "first_genre": 0,
                      "n_genres": n_genres, "digest": fingerprint(objects), "objects": objects}  # fmt: skip
            if fingerprint(record) in self._sets_named:
                return record
        raise StoreCorruptError(f"{self.store / 'features' / name}.json: damaged; restore it from a copy")

    def _genres_of_set(self, name: str) -> int:
        """Rows of a feature set's genre embedding, from the first on without a hole."""
        n = 0
        while (self.store / f"genre_embedding_{name}/c/{n}/0").is_file():
            n += 1
        return n

    def set_keys(self, name: str) -> list[str]:
        """Keys of the records of a feature set that are there."""
        keys: list[str] = []
        while (self.store / feature_set_key(name, len(keys))).exists():
            keys.append(feature_set_key(name, len(keys)))
        return keys

    @cached_property
    def _sets_named(self) -> set[str]:
        """Hashes of feature sets that whole commits name."""
        named = set()
        for file in (self.store / COMMITS).glob("*/*.json"):
            with contextlib.suppress(OSError, StoreCorruptError):
                named.add(str(unseal(file).get("feature_set")))
        return named

    def _follows(self, record: Mapping[str, Any], number: int, before: Generation | None) -> bool:
        """Whether a record is that of this store's generation, by the hashes it holds."""
        previous = None if before is None else before.sha256
        wanted = (number, fingerprint(self.plan_document), previous)
        return (record.get("generation"), record.get("plan"), record.get("previous")) == wanted

    def _table(self, number: int) -> Path:
        return self.store / "tracks" / f"{number}.parquet"

    def _generation_from_tables(self, number: int, before: Generation | None) -> dict[str, Any]:
        """A lost or hurt generation record, made again; the commits of its parts know its hash."""
        keys = [f"genres/{number}.parquet", f"tracks/{number}.parquet"]
        tables = {key.partition("/")[0]: pq.read_table(self.store / key) for key in keys}
        genres, tracks = tables["genres"], tables["tracks"]
        first_genre = before.genres.stop if before is not None else 0
        if self.plan_document["embeds_genres"]:
            keys += [f"genre_embedding/c/{row}/0" for row in genres.column("row").to_pylist()]
        objects = [
            {"key": key, "size": (self.store / key).stat().st_size, "sha256": file_sha256(self.store / key)}
            for key in sorted(keys)
            if (self.store / key).exists()
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
        raise StoreCorruptError(f"{self.store / generation_key(number)}: damaged; restore it from a copy")

    @cached_property
    def _generations_named(self) -> set[str]:
        """Hashes of generations that whole commits and later generations name."""
        named: set[str] = set()
        for folder, field in ((COMMITS, "generation"), ("generations", "previous")):
            for name in os.listdir(self.store / folder):
                try:
                    named.add(str(unseal(self.store / folder / name).get(field)))
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
            for part, n in sorted(committed(self.store, feature_set or None).items()):
                try:
                    found[feature_set, part] = (n, unseal(self.store / commit_key(part, n, feature_set or None)))
                except (OSError, StoreCorruptError):
                    found[feature_set, part] = (n, None)
        return found

    def orphans(self, name: str) -> set[str]:
        """Genre embeddings of records of a feature set that are hurt, and are reported as such."""
        records = self.plan.added[name].records
        if len(self.set_keys(name)) <= len(records):
            return set()
        listed = {item["key"] for record in records for item in record["objects"]}
        return {f"genre_embedding_{name}/c/{row}/0" for row in range(self._genres_of_set(name))} - listed
