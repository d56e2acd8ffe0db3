"""What a store is to hold: the plan, frozen when the store is made, and the generations of tracks that join it.

``plan.json`` says how features are made. ``generations/<n>.json`` says which tracks: the first generation, tracks
appended later, tracks tried again. Each is sealed, created once, and holds the hash of the one before; a part of the
store belongs to one generation, and its commit carries that generation's hash.
"""

from __future__ import annotations

import os
import re
from collections.abc import Iterator, Mapping
from dataclasses import dataclass, field
from functools import cached_property
from pathlib import Path
from typing import Any, Literal

import pyarrow as pa

from ..durable import file_sha256, fingerprint, unseal
from ..errors import StoreCorruptError, StoreFormatError, StoreNotFoundError
from . import layout
from .recipe import FeatureSetRecipe, Recipe, feature_set_recipe
from .schema import FORMAT_VERSION, ArraySpec, added_arrays, track_arrays
from .tables import GENRE_SCHEMA, PLAN_SCHEMA, read_table

PLAN_FILE = "plan.json"
FOLDERS = ("commits", "generations", "genres", "log", "rows", "tracks")

FEATURES = "features"
RESERVED = frozenset({*FOLDERS, FEATURES, "drops", "quarantine", "staging"})
"""Folders of a store; no array has such a name."""

_SET = re.compile(r"([a-z][a-z0-9_]*)\.(json|dropped)")

Kind = Literal["first", "append", "retry"]


@dataclass(frozen=True, kw_only=True)
class Generation:
    """Tracks that were planned together.

    Attributes
    ----------
    kind : ``first``, ``append`` (tracks that are new), ``retry`` (tracks that failed, tried again).
    rows : array rows of its tracks; starts at a part boundary.
    genres : rows of ``genre_embedding`` that came with it.
    """

    number: int
    kind: Kind
    rows: range
    genres: range
    record: Mapping[str, Any]

    def __hash__(self) -> int:
        return hash(self.sha256)

    @property
    def key(self) -> str:
        return generation_key(self.number)

    @cached_property
    def sha256(self) -> str:
        """What the commits of its parts carry."""
        return fingerprint(dict(self.record))


@dataclass(frozen=True, kw_only=True)
class AddedSet:
    """Features that joined the store after it was made: a text encoder's, or an extractor's.

    Attributes
    ----------
    name : suffix of its arrays; of an extractor's feature, its name.
    records : one for each time genres were embedded; the first says what it is.
    """

    name: str
    recipe: FeatureSetRecipe
    records: tuple[Mapping[str, Any], ...]

    @property
    def n_genres(self) -> int:
        return sum(record["n_genres"] for record in self.records)

    @cached_property
    def sha256(self) -> str:
        """What the commits of its parts carry, beside their generation."""
        return fingerprint(dict(self.records[0]))


@dataclass(frozen=True, kw_only=True)
class Plan:
    """A store's plan with all generations decided so far.

    Attributes
    ----------
    document : of ``plan.json``.
    part_rows : array rows a part.
    """

    document: Mapping[str, Any]
    recipe: Recipe
    part_rows: int
    generations: tuple[Generation, ...]
    added: Mapping[str, AddedSet] = field(default_factory=dict)

    def arrays(self, feature_set: str | None = None) -> list[ArraySpec]:
        """The track arrays of the store as it was made, or of a feature set that joined it."""
        if feature_set is None:
            return track_arrays(self.recipe)
        return added_arrays(feature_set, self.added[feature_set].recipe)

    def sha256_of(self, feature_set: str | None) -> str | None:
        """What commits of a feature set carry; None for the store's own features, and for one that is not there."""
        known = None if feature_set is None else self.added.get(feature_set)
        return None if known is None else known.sha256

    @cached_property
    def metadata(self) -> dict[str, bytes]:
        """Key -> bytes of every ``zarr.json`` that the store should have; zarr is asked once a plan."""
        added = {name: one.recipe for name, one in self.added.items()}
        return layout.metadata_documents(self.document, added, n_rows=self.n_rows, n_genres=self.n_genres)

    @property
    def fingerprints(self) -> dict[str, str]:
        return dict(self.document["fingerprints"])

    @property
    def embeds_genres(self) -> bool:
        return bool(self.document["embeds_genres"])

    @property
    def n_rows(self) -> int:
        """Length of every track array: a whole number of parts."""
        return self.n_parts * self.part_rows

    @property
    def n_parts(self) -> int:
        return -(-self.generations[-1].rows.stop // self.part_rows)

    @property
    def n_genres(self) -> int:
        return self.generations[-1].genres.stop

    def parts_of(self, generation: Generation) -> range:
        """Numbers of the parts that a generation's tracks are in."""
        return range(generation.rows.start // self.part_rows, -(-generation.rows.stop // self.part_rows))

    def generation_of(self, part: int) -> Generation:
        first = part * self.part_rows
        return next(g for g in reversed(self.generations) if g.rows.start <= first)

    def part_range(self, part: int) -> range:
        """Array rows of a part that hold planned tracks."""
        rows = self.generation_of(part).rows
        return range(part * self.part_rows, min((part + 1) * self.part_rows, rows.stop))

    def through(self, n_generations: int) -> Plan:
        """The plan as it was with its first generations only."""
        return Plan(document=self.document, recipe=self.recipe, part_rows=self.part_rows,
                    generations=self.generations[:n_generations], added=self.added)  # fmt: skip


def read_plan(store: Path) -> Plan:
    """The plan of the store at `store`.

    Raises
    ------
    StoreNotFoundError, StoreFormatError, StoreCorruptError
    """
    if not (store / PLAN_FILE).is_file():
        raise StoreNotFoundError(f"{store}: no feature store here ({PLAN_FILE} is missing); `mgc extract` makes one")
    document = unseal(store / PLAN_FILE)
    if document["format_version"] != FORMAT_VERSION:
        raise StoreFormatError(
            f"{store}: store format {document['format_version']}, but this mgc reads format {FORMAT_VERSION}; "
            "install a matching version of mgc"
        )
    generations = tuple(_read_generations(store, fingerprint(document)))
    if not generations:
        raise StoreCorruptError(f"{store}: generations/0.json is missing; see `mgc store verify`")
    return Plan(document=document, recipe=Recipe.from_dict(document["recipe"]), part_rows=document["part_rows"],
                generations=generations, added=read_added(store, fingerprint(document)))  # fmt: skip


def default_part_rows(n_tracks: int) -> int:
    """Return the rows per part of a new store with so many tracks."""
    return 128 if n_tracks >= 2048 else 16


def parse_generation(number: int, record: Mapping[str, Any]) -> Generation:
    """A generation as its record describes it."""
    return Generation(
        number=number,
        kind=record["kind"],
        rows=range(record["first_row"], record["first_row"] + record["n_tracks"]),
        genres=range(record["first_genre"], record["first_genre"] + record["n_genres"]),
        record=record,
    )


def generation_key(number: int) -> str:
    return f"generations/{number}.json"


def feature_set_key(name: str, n: int) -> str:
    return f"{FEATURES}/{name}.json" if n == 0 else f"{FEATURES}/{name}.{n}.json"


def joined_names(store: Path) -> list[str]:
    """Names of the feature sets that joined a store, sorted."""
    return _named(store, "json")


def being_dropped(store: Path) -> list[str]:
    """Return names of the feature sets being removed (:mod:`mgc.cache.writing.feature_removal`): decided, not done."""
    return _named(store, "dropped")


def _named(store: Path, ending: str) -> list[str]:
    try:
        found = map(_SET.fullmatch, os.listdir(store / FEATURES))
    except FileNotFoundError:
        return []
    return sorted(one[1] for one in found if one is not None and one[2] == ending)


def read_added(store: Path, plan_sha256: str) -> dict[str, AddedSet]:
    """Feature sets that joined a store, by name.

    Raises
    ------
    StoreCorruptError
    """
    found = {}
    for name in joined_names(store):
        records: list[dict[str, Any]] = []
        while (store / feature_set_key(name, len(records))).exists():
            records.append(unseal(store / feature_set_key(name, len(records))))
            if records[-1]["plan"] != plan_sha256:
                raise StoreCorruptError(f"{store}: features/{name}.json belongs to another store")
        found[name] = AddedSet(name=name, recipe=feature_set_recipe(records[0]["recipe"]), records=tuple(records))
    return found


def read_tracks(store: Path, generation: Generation) -> pa.Table:
    """The planned tracks of one generation.

    Raises
    ------
    StoreCorruptError
        If the table is missing or altered.
    """
    return _read_checked(store, generation, f"tracks/{generation.number}.parquet", PLAN_SCHEMA)


def read_genres(store: Path, plan: Plan) -> list[str]:
    """Names of the rows of ``genre_embedding``, and all genres of the plan."""
    tables = [_read_checked(store, g, f"genres/{g.number}.parquet", GENRE_SCHEMA) for g in plan.generations]
    names: list[str] = pa.concat_tables(tables).column("name").to_pylist()
    return names


def _read_checked(store: Path, generation: Generation, key: str, schema: pa.Schema) -> pa.Table:
    path = store / key
    wanted = next(item["sha256"] for item in generation.record["objects"] if item["key"] == key)
    if not path.is_file() or file_sha256(path) != wanted:
        raise StoreCorruptError(
            f"{path}: missing or altered since it was planned; "
            f"`mgc store repair {store} --source SOURCE` writes it again"
        )
    return read_table(path, schema)


def _read_generations(store: Path, plan_sha256: str) -> Iterator[Generation]:
    previous, number = None, 0
    while (store / generation_key(number)).exists():
        record = unseal(store / generation_key(number))
        if record["plan"] != plan_sha256 or record["previous"] != previous:
            raise StoreCorruptError(
                f"{store}: {generation_key(number)} belongs to another store; restore the store's own from a copy"
            )
        generation = parse_generation(number, record)
        previous = generation.sha256
        yield generation
        number += 1


SEALED_SUFFIXES = (".h5", ".hdf5")


def is_store(path: Path) -> bool:
    """Whether a feature store lies there, in one form or the other."""
    return (path / PLAN_FILE).is_file() or (path.suffix in SEALED_SUFFIXES and path.is_file())
