"""The plan of a store: its recipe, its generations of tracks, and its added feature sets.

``plan.json`` holds the recipe. ``generations/<n>.json`` lists tracks: the first ones, tracks appended later, tracks to
retry. Each record is sealed, created once, and holds the hash of the one before. A part of the store is of one
generation, and its commit record holds the hash of that generation.
"""

from __future__ import annotations

import contextlib
import itertools
import re
from collections.abc import Mapping
from dataclasses import dataclass, field, replace
from functools import cached_property
from pathlib import Path
from typing import Any, Literal

import pyarrow as pa

from ..durable import LINK, file_sha256, fingerprint, inside, names_in
from ..errors import StoreCorruptError, StoreNotFoundError
from ..places import ObjectPath, place, web_url
from . import layout
from .documents import NAME, RECORD_FOLDERS, read_record
from .recipe import FeatureSetRecipe, Recipe, TextRecipe, feature_set_recipe
from .schema import ArraySpec, added_arrays, array_name, dimension_clash, length_problem, size_problem, track_arrays
from .tables import GENRE_SCHEMA, PLAN_SCHEMA, read_table

PLAN_FILE = "plan.json"
FOLDERS = ("commits", "generations", "genres", "log", "rows", "tracks")

FEATURES = "features"
RESERVED = frozenset({*RECORD_FOLDERS, "log", "quarantine", "staging"})
"""Folders of a store; no array has such a name."""

SEALED_SUFFIXES = (".h5", ".hdf5")

_FEATURE_SET_FILE = re.compile(rf"({NAME})\.(json|dropped)")

Kind = Literal["first", "append", "retry"]


@dataclass(frozen=True, kw_only=True)
class Generation:
    """Tracks that were planned together.

    Attributes
    ----------
    kind : ``first``, ``append`` (new tracks), ``retry`` (tracks that failed before).
    rows : array rows of its tracks; starts at a part boundary.
    genres : rows of ``genre_embedding`` that it adds.
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

    @property
    def object_keys(self) -> list[str]:
        return object_keys(self.record)

    @cached_property
    def sha256(self) -> str:
        """Hash of its record, which the commit records of its parts hold."""
        return fingerprint(dict(self.record))


@dataclass(frozen=True, kw_only=True)
class AddedFeatureSet:
    """Features added to a finished store: those of another text encoder, or of an extractor.

    Attributes
    ----------
    name : suffix of its arrays; of an extractor's feature, its name.
    records : the first describes the feature set; each later one adds embeddings of new genres.
    """

    name: str
    recipe: FeatureSetRecipe
    records: tuple[Mapping[str, Any], ...]

    @property
    def n_genres(self) -> int:
        return sum(record["n_genres"] for record in self.records)

    @property
    def object_keys(self) -> list[str]:
        return [key for record in self.records for key in object_keys(record)]

    @cached_property
    def sha256(self) -> str:
        """Hash of its first record, which the commit records of its parts hold besides that of their generation."""
        return fingerprint(dict(self.records[0]))


@dataclass(frozen=True, kw_only=True)
class Plan:
    """The plan of a store, with all generations and added feature sets decided so far.

    Attributes
    ----------
    document : of ``plan.json``.
    """

    document: Mapping[str, Any]
    generations: tuple[Generation, ...]
    added: Mapping[str, AddedFeatureSet] = field(default_factory=dict)

    @cached_property
    def sha256(self) -> str:
        """Hash of ``plan.json``, which the records of generations and added feature sets hold."""
        return fingerprint(dict(self.document))

    @property
    def last_sha256(self) -> str | None:
        """Hash of the record of the newest generation; None while there is none."""
        return self.generations[-1].sha256 if self.generations else None

    @cached_property
    def recipe(self) -> Recipe:
        return Recipe.from_dict(self.document["recipe"])

    @property
    def part_rows(self) -> int:
        """Array rows per part."""
        return int(self.document["part_rows"])

    def arrays(self, feature_set: str | None = None) -> list[ArraySpec]:
        """Return the track arrays of the store itself, or of an added feature set."""
        if feature_set is None:
            return track_arrays(self.recipe)
        return added_arrays(feature_set, self.added[feature_set].recipe)

    def sha256_of(self, feature_set: str | None) -> str | None:
        """Return the hash in commit records of an added feature set; None for the store itself or an unknown name."""
        added = None if feature_set is None else self.added.get(feature_set)
        return None if added is None else added.sha256

    @cached_property
    def metadata(self) -> dict[str, bytes]:
        """Key -> bytes of every ``zarr.json`` that the store should have; zarr makes them once per plan."""
        added = {name: added_set.recipe for name, added_set in self.added.items()}
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
        return -(-self.generations[-1].rows.stop // self.part_rows) if self.generations else 0

    @property
    def n_genres(self) -> int:
        return self.generations[-1].genres.stop if self.generations else 0

    def parts_of(self, generation: Generation) -> range:
        """Return the numbers of the parts of a generation."""
        return range(generation.rows.start // self.part_rows, -(-generation.rows.stop // self.part_rows))

    def generation_of(self, part: int) -> Generation:
        first = part * self.part_rows
        return next(gen for gen in reversed(self.generations) if gen.rows.start <= first)

    def part_range(self, part: int) -> range:
        """Return the array rows of a part that hold planned tracks."""
        rows = self.generation_of(part).rows
        return range(part * self.part_rows, min((part + 1) * self.part_rows, rows.stop))

    def through(self, n_generations: int) -> Plan:
        """Return the plan with its first generations only."""
        return replace(self, generations=self.generations[:n_generations])


def read_plan(store: Path) -> Plan:
    """Read the plan of the store at `store`.

    Raises
    ------
    StoreNotFoundError, StoreFormatError, StoreCorruptError
    """
    if not (store / PLAN_FILE).is_file():
        raise StoreNotFoundError(f"{store}: not a feature store (no {PLAN_FILE}). Create one with `mgc extract`.")
    for name in RESERVED:
        if (store / name).is_symlink():
            raise StoreCorruptError(f"{store / name}: {LINK}")
    document = read_record(store, PLAN_FILE)
    if fault := plan_problem(document):
        raise StoreCorruptError(f"{store / PLAN_FILE}: {fault}. Do not use this store.")
    plan = Plan(document=document, generations=())
    for number in itertools.count():
        if not (store / generation_key(number)).exists():
            break
        record = read_record(store, generation_key(number))
        if fault := generation_problem(plan, record):
            raise StoreCorruptError(
                f"{store}: {generation_key(number)} belongs to another store ({fault}). Restore the right one from "
                "a copy."
            )
        plan = replace(plan, generations=(*plan.generations, parse_generation(number, record)))
    if not plan.generations:
        raise StoreCorruptError(f"{store}: generations/0.json is missing. Run `mgc store verify`.")
    return replace(plan, added=read_added(store, plan))


def plan_problem(document: Mapping[str, Any]) -> str | None:
    """Return how ``plan.json`` contradicts itself (keys and types are checked already); None if it does not."""
    recipe = Recipe.from_dict(document["recipe"])
    if document["embeds_genres"] and recipe.lyrics is None:
        return "it embeds genres without a text encoder"
    if document["fingerprints"].keys() != recipe.fingerprints().keys():
        return "its fingerprints do not match its features"
    return size_problem(track_arrays(recipe), document["part_rows"])


def generation_problem(plan: Plan, record: Mapping[str, Any]) -> str | None:
    """Return why a record is not that of the next generation of `plan`; None if it is."""
    number, first = len(plan.generations), not plan.generations
    if (record["plan"], record["previous"]) != (plan.sha256, plan.last_sha256):
        return "other hashes"
    if record["generation"] != number or (record["kind"] == "first") != first:
        return "another number or kind"
    if (record["first_row"], record["first_genre"]) != (plan.n_rows, plan.n_genres):
        return "other rows"
    genres = record["n_genres"] if plan.embeds_genres else 0
    if not first and not record["n_tracks"]:
        return "no tracks"
    if len(record["objects"]) != 2 + genres:
        return "other objects"
    keys = {f"tracks/{number}.parquet", f"genres/{number}.parquet"}
    keys |= genre_keys(range(record["first_genre"], record["first_genre"] + genres))
    return None if set(object_keys(record)) == keys else "other objects"


def genre_keys(rows: range, feature_set: str | None = None) -> set[str]:
    """Return the keys of the genre embeddings of these genres."""
    return {f"{array_name('genre_embedding', feature_set)}/c/{row}/0" for row in rows}


def object_keys(record: Mapping[str, Any]) -> list[str]:
    """Return the keys of the objects that a record lists."""
    return [item["key"] for item in record["objects"]]


def parse_generation(number: int, record: Mapping[str, Any]) -> Generation:
    """Build a generation from its record."""
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


def feature_set_keys(store: Path, name: str) -> list[str]:
    """Return the keys of the records of a feature set that exist."""
    keys: list[str] = []
    while (store / feature_set_key(name, len(keys))).exists():
        keys.append(feature_set_key(name, len(keys)))
    return keys


def added_names(store: Path) -> list[str]:
    """Return the names of the added feature sets of a store, sorted."""
    return _feature_set_files(store, "json")


def unfinished_removals(store: Path) -> list[str]:
    """Return names of the feature sets whose removal is not complete (:mod:`mgc.cache.writing.feature_removal`)."""
    return _feature_set_files(store, "dropped")


def _feature_set_files(store: Path, suffix: str) -> list[str]:
    matches = [_FEATURE_SET_FILE.fullmatch(name) for name in names_in(store / FEATURES)]
    return sorted(match[1] for match in matches if match is not None and match[2] == suffix)


def read_added(store: Path, plan: Plan) -> dict[str, AddedFeatureSet]:
    """Read the added feature sets of a store, by name; `plan` needs none of them.

    Raises
    ------
    StoreCorruptError
    """
    added: dict[str, AddedFeatureSet] = {}
    for name in added_names(store):
        records: tuple[dict[str, Any], ...] = ()
        with contextlib.suppress(FileNotFoundError):  # removed since it was listed
            records = tuple(read_record(store, key) for key in feature_set_keys(store, name))
        if not records:
            continue
        recipe = feature_set_recipe(records[0]["recipe"])
        added_set = AddedFeatureSet(name=name, recipe=recipe, records=records)
        if fault := feature_set_problem(replace(plan, added=added), added_set):
            raise StoreCorruptError(f"{store}: features/{name}.json belongs to another store ({fault})")
        added[name] = added_set
    return added


def feature_set_problem(plan: Plan, added: AddedFeatureSet) -> str | None:
    """Return why records are not those of a feature set added to `plan`; None if they are."""
    n_genres = 0
    for record in added.records:
        if record["plan"] != plan.sha256:
            return "another plan"
        rows = range(n_genres, n_genres + record["n_genres"])
        if record["feature_set"] != added.name or record["first_genre"] != n_genres or rows.stop > plan.n_genres:
            return "another name or other genres"
        is_text = isinstance(added.recipe, TextRecipe)
        if len(record["objects"]) != len(rows) or set(object_keys(record)) != genre_keys(rows, added.name):
            return "other objects"
        if len(rows) and not is_text:
            return "genres of an extractor"
        n_genres = rows.stop
    return name_clash(plan, added.name, added.recipe) or size_problem(
        added_arrays(added.name, added.recipe), plan.part_rows
    )


def name_clash(plan: Plan, name: str, recipe: FeatureSetRecipe) -> str | None:
    """Return which name or dimension of a feature set `plan` has already, in another meaning; None if none."""
    sets = (None, *plan.added)
    existing = [spec for feature_set in sets for spec in plan.arrays(feature_set)]
    new = added_arrays(name, recipe)
    names = {spec.name for spec in existing} | {array_name("genre_embedding", other) for other in sets} | RESERVED
    if clash := sorted(names & {*(spec.name for spec in new), array_name("genre_embedding", name)}):
        return f"the store has arrays or folders of that name already ({', '.join(clash)})"
    return length_problem(recipe) or dimension_clash(existing, new, name)


def read_tracks(store: Path, generation: Generation) -> pa.Table:
    """Read the planned tracks of one generation.

    Raises
    ------
    StoreCorruptError
        If the table is missing or altered.
    """
    return _read_checked(store, generation, f"tracks/{generation.number}.parquet", PLAN_SCHEMA)


def read_genres(store: Path, plan: Plan) -> list[str]:
    """Read the names of the rows of ``genre_embedding``: all genres of the plan."""
    tables = [_read_checked(store, gen, f"genres/{gen.number}.parquet", GENRE_SCHEMA) for gen in plan.generations]
    names: list[str] = pa.concat_tables(tables).column("name").to_pylist()
    return names


def _read_checked(store: Path, generation: Generation, key: str, schema: pa.Schema) -> pa.Table:
    path, digest = inside(store, key), None
    with contextlib.suppress(FileNotFoundError):
        digest = file_sha256(path)
    if digest != next(item["sha256"] for item in generation.record["objects"] if item["key"] == key):
        raise StoreCorruptError(
            f"{path}: missing or altered since it was planned; "
            f"`mgc store repair {store} --source SOURCE` writes it again"
        )
    return read_table(path, schema, generation.rows if schema is PLAN_SCHEMA else generation.genres)


def is_store(path: Path) -> bool:
    """Return whether there is a feature store at `path`, in either form; any URL of an object store counts as one."""
    if web_url(path) is not None:
        return False
    if isinstance(place(path), ObjectPath):
        return True
    return (path / PLAN_FILE).is_file() or (path.suffix in SEALED_SUFFIXES and path.is_file())
