"""What a store is to hold: the plan, frozen when the store is made, and the generations of tracks that join it.

``plan.json`` says how features are made. ``generations/<n>.json`` says which tracks: the first generation, tracks
appended later, tracks tried again. Each is sealed, created once, and holds the hash of the one before; a part of the
store belongs to one generation, and its commit carries that generation's hash.
"""

from __future__ import annotations

import os
import re
import shutil
import uuid
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import asdict, dataclass, field
from functools import cached_property
from pathlib import Path
from typing import Any, Literal

import numpy as np
import numpy.typing as npt
import pyarrow as pa
import zarr

from . import layout, publish
from .durable import file_sha256, fsync_dir, fsync_tree, seal, unseal, write_durable
from .errors import ConfigError, StoreCorruptError, StoreFormatError, StoreNotFoundError
from .schema import (
    FORMAT_VERSION,
    ArraySpec,
    FeatureSetRecipe,
    Recipe,
    added_arrays,
    added_fingerprints,
    feature_set_recipe,
    fingerprint,
    track_arrays,
)
from .tracks import GENRE_SCHEMA, PLAN_SCHEMA, read_table, write_table

PLAN_FILE = "plan.json"
FOLDERS = ("commits", "generations", "genres", "log", "rows", "tracks")

_SET = re.compile(r"[a-z][a-z0-9_]*\.json")

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


def create_store(
    store: Path,
    *,
    tracks: pa.Table,
    recipe: Recipe,
    part_rows: int,
    genres: Sequence[str],
    genre_embedding: npt.NDArray[np.float32] | None,
    library_versions: Mapping[str, str] | None = None,
) -> bool:
    """Lay out an empty store for a plan; appears at `store` in one rename.

    Parameters
    ----------
    tracks : the plan, columns of :data:`mgc.cache.tracks.PLAN_SCHEMA`, rows numbered from 0.
    part_rows : rows a part; frozen from here on.
    genre_embedding : (genre, text_dim) float32, or None for a store without genre embeddings.
    library_versions : of what made the features, where they are copied; None takes those of this environment.

    Returns
    -------
    bool
        False if another process published a store at `store` first; nothing was changed then.
    """
    partial = store.parent / f".{store.name}.{uuid.uuid4().hex}.partial"
    store.parent.mkdir(parents=True, exist_ok=True)
    partial.mkdir()
    try:
        document = {
            "format_version": FORMAT_VERSION,
            "recipe": recipe.to_dict(),
            "fingerprints": recipe.fingerprints(),
            "embeds_genres": genre_embedding is not None,
            "part_rows": part_rows,
            "library_versions": layout.library_versions() if library_versions is None else dict(library_versions),
        }
        n_rows = -(-tracks.num_rows // part_rows) * part_rows
        layout.write_metadata(partial, document, {}, n_rows=n_rows, n_genres=len(genres))
        for name in FOLDERS:
            (partial / name).mkdir()
        write_durable(partial / PLAN_FILE, seal(document))
        objects = partial / "objects"
        _build_generation(objects, 0, tracks, range(len(genres)), genres, genre_embedding)
        record = _generation_record("first", 0, tracks, range(len(genres)), fingerprint(document), None)
        described = publish.describe_objects(objects)
        record |= {"digest": fingerprint(described), "objects": described}
        write_durable(partial / generation_key(0), seal(record))
        for item in described:
            target = partial / item["key"]
            target.parent.mkdir(parents=True, exist_ok=True)
            (objects / item["key"]).rename(target)
        shutil.rmtree(objects)
        fsync_tree(partial)
        try:
            partial.rename(store)
        except OSError:
            if not (store / PLAN_FILE).is_file():
                raise
            return False
        fsync_dir(store.parent)
        return True
    finally:
        shutil.rmtree(partial, ignore_errors=True)


def append_generation(
    store: Path,
    plan: Plan,
    kind: Kind,
    tracks: pa.Table,
    *,
    new_genres: Sequence[str] = (),
    genre_embedding: npt.NDArray[np.float32] | None = None,
) -> Plan:
    """Plan further tracks, from the next part boundary on; nothing that is written is touched.

    Parameters
    ----------
    plan : what is known to be planned; `tracks` must follow from it.
    tracks : columns of :data:`mgc.cache.tracks.PLAN_SCHEMA`; rows are numbered here.
    new_genres, genre_embedding : genres that the store does not name yet, with (n, text_dim) float32 embeddings where
        the store embeds genres.

    Returns
    -------
    Plan
        The plan with the generation, which may be another process's, decided first: compare before relying on it.
    """
    number, start = len(plan.generations), plan.n_rows
    rows = pa.array(range(start, start + tracks.num_rows), pa.int64())
    tracks = tracks.set_column(tracks.schema.get_field_index("row"), PLAN_SCHEMA.field("row"), rows)
    genres = range(plan.n_genres, plan.n_genres + len(new_genres))

    def build(folder: Path) -> dict[str, Any]:
        _build_generation(folder, number, tracks, genres, new_genres, genre_embedding)
        before = plan.generations[-1].sha256
        return _generation_record(kind, number, tracks, genres, fingerprint(dict(plan.document)), before)

    publish.publish(store, generation_key(number), build)
    roll_generation_forward(store, number)
    return read_plan(store)


def roll_generation_forward(store: Path, number: int) -> None:
    """Bring a decided generation's tables and the shapes of all arrays to where readers look."""
    _update_metadata(store)
    key = generation_key(number)
    publish.install(store, key, read_plan(store).generations[number].record)
    publish.sweep(store, key)


def _update_metadata(store: Path) -> None:
    while True:
        plan = read_plan(store)
        layout.install_metadata(store, plan.metadata, store / publish.STAGING)
        after = read_plan(store)
        if (len(after.generations), after.added.keys()) == (len(plan.generations), plan.added.keys()):
            break  # else something was decided meanwhile, and the shapes must not stay behind it
    publish.sweep(store, "metadata.json")


def add_feature_set(
    store: Path,
    plan: Plan,
    name: str,
    recipe: FeatureSetRecipe,
    genre_embedding: npt.NDArray[np.float32] | None = None,
) -> Plan:
    """Let features join a store, or embed for a text encoder's the genres that came since.

    Parameters
    ----------
    name : suffix of its arrays: lower-case letters, digits and ``_``.
    genre_embedding : (n, hidden_size) float32, of the genres that the feature set does not hold yet, in their order;
        for a text encoder only.

    Raises
    ------
    ConfigError
        If the store has an array of that name, or a dimension of another length.

    Returns
    -------
    Plan
        With the feature set, which may be another process's, decided first: compare recipes before relying on it.
    """
    known = plan.added.get(name)
    if known is None:
        _refuse_taken_names(plan, name, recipe)
    first = 0 if known is None else known.n_genres
    genres = range(first, first + (0 if genre_embedding is None else len(genre_embedding)))

    def build(folder: Path) -> dict[str, Any]:
        folder.mkdir(exist_ok=True)
        if genre_embedding is not None and len(genres):
            _build_embedding(folder, layout.genre_spec(genre_embedding.shape[1], name), genres, genre_embedding)
        return {
            "feature_set": name,
            "recipe": asdict(recipe),
            "fingerprints": added_fingerprints(recipe, plan.recipe.genre_names),
            "plan": fingerprint(dict(plan.document)),
            "first_genre": genres.start,
            "n_genres": len(genres),
        }

    key = feature_set_key(name, 0 if known is None else len(known.records))
    publish.publish(store, key, build)
    roll_feature_set_forward(store, key)
    return read_plan(store)


def _refuse_taken_names(plan: Plan, name: str, recipe: FeatureSetRecipe) -> None:
    there = [*track_arrays(plan.recipe), *(spec for one in plan.added for spec in plan.arrays(one))]
    mine = added_arrays(name, recipe)
    taken = {spec.name for spec in there} | {layout.genre_spec(1, one).name for one in (None, *plan.added)}
    if clash := sorted(taken & {*(spec.name for spec in mine), layout.genre_spec(1, name).name}):
        raise ConfigError(f"feature set {name!r}: the store has arrays of that name already ({', '.join(clash)})")
    lengths = {dim: length for spec in there for dim, length in zip(spec.dims[1:], spec.tail, strict=True)}
    for spec in mine:
        for dim, length in zip(spec.dims[1:], spec.tail, strict=True):
            if lengths.setdefault(dim, length) != length or dim in ("track", "genre"):
                raise ConfigError(
                    f"feature set {name!r}: its dimension {dim!r} is {length} long, the store's "
                    f"{lengths.get(dim, 'another thing')}; give it a name of its own, such as {name}_{dim}"
                )


def feature_set_key(name: str, n: int) -> str:
    return f"features/{name}.json" if n == 0 else f"features/{name}.{n}.json"


def roll_feature_set_forward(store: Path, key: str) -> None:
    """Bring a decided feature set's metadata and genre embeddings to where readers look."""
    _update_metadata(store)
    publish.install(store, key, unseal(store / key))
    publish.sweep(store, key)


def read_added(store: Path, plan_sha256: str) -> dict[str, AddedSet]:
    """Feature sets that joined a store, by name.

    Raises
    ------
    StoreCorruptError
    """
    try:
        names = sorted(name.removesuffix(".json") for name in os.listdir(store / "features") if _SET.fullmatch(name))
    except FileNotFoundError:
        return {}
    found = {}
    for name in names:
        records: list[dict[str, Any]] = []
        while (store / feature_set_key(name, len(records))).exists():
            records.append(unseal(store / feature_set_key(name, len(records))))
            if records[-1]["plan"] != plan_sha256:
                raise StoreCorruptError(f"{store}: features/{name}.json belongs to another store")
        found[name] = AddedSet(name=name, recipe=feature_set_recipe(records[0]["recipe"]), records=tuple(records))
    return found


def read_tracks(store: Path, plan: Plan, generation: Generation) -> pa.Table:
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


def _generation_record(
    kind: Kind, number: int, tracks: pa.Table, genres: range, plan_sha256: str, previous: str | None
) -> dict[str, Any]:
    return {
        "generation": number,
        "kind": kind,
        "plan": plan_sha256,
        "previous": previous,
        "first_row": tracks.column("row")[0].as_py() if tracks.num_rows else 0,
        "n_tracks": tracks.num_rows,
        "first_genre": genres.start,
        "n_genres": len(genres),
    }


def _build_generation(
    folder: Path,
    number: int,
    tracks: pa.Table,
    genres: range,
    names: Sequence[str],
    embedding: npt.NDArray[np.float32] | None,
) -> None:
    """The objects of a generation: two tables, and a chunk for each new genre."""
    for name in ("tracks", "genres"):
        (folder / name).mkdir(parents=True)
    write_table(tracks.select(PLAN_SCHEMA.names).cast(PLAN_SCHEMA), folder / "tracks" / f"{number}.parquet")
    table = pa.Table.from_pylist(
        [{"row": row, "name": name} for row, name in zip(genres, names, strict=True)], schema=GENRE_SCHEMA
    )
    write_table(table, folder / "genres" / f"{number}.parquet")
    if embedding is not None and len(genres):
        _build_embedding(folder, layout.genre_spec(embedding.shape[1]), genres, embedding)


def _build_embedding(folder: Path, spec: ArraySpec, genres: range, embedding: npt.NDArray[np.float32]) -> None:
    """One chunk a genre, at its key."""
    scratch = folder / "scratch"
    layout.create_array(zarr.create_group(scratch, zarr_format=3), spec, len(genres), 1)[:] = embedding
    for i, row in enumerate(genres):
        target = folder / layout.object_key(spec, row)
        target.parent.mkdir(parents=True)
        (scratch / layout.object_key(spec, i)).rename(target)
    shutil.rmtree(scratch)
