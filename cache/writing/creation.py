"""Create a store and extend it: the first plan, later generations of tracks, added feature sets.

A new store appears by one rename. Extensions are published by :mod:`mgc.cache.writing.publish`, and any process may
roll them forward.
"""

from __future__ import annotations

import contextlib
import shutil
from collections.abc import Iterator, Mapping, Sequence
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt
import pyarrow as pa

from ..durable import fsync_dir, fsync_tree, hidden_path, seal, write_durable
from ..errors import ConfigError
from ..format import layout
from ..format.documents import read_record, record_problem
from ..format.plan import (
    FOLDERS,
    PLAN_FILE,
    Kind,
    Plan,
    feature_set_key,
    generation_key,
    name_clash,
    plan_problem,
    read_genres,
    read_plan,
    unfinished_removals,
)
from ..format.recipe import FeatureSetRecipe, Recipe, added_fingerprints, recipe_document
from ..format.records import STAGING
from ..format.schema import FORMAT_VERSION, added_arrays, size_problem
from ..format.tables import PLAN_SCHEMA, genre_table, table_bytes, with_rows
from ..messages import join_names
from . import publish
from .remote import remote_of


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
    """Create an empty store for a plan; it appears at `store` by one rename.

    Parameters
    ----------
    tracks : planned tracks, columns of :data:`mgc.cache.format.tables.PLAN_SCHEMA`, rows numbered from 0.
    part_rows : rows per part; cannot be changed later.
    genre_embedding : (genre, text_dim) float32, or None for a store without genre embeddings.
    library_versions : versions that computed the features, for a copy of a store; None takes the installed versions.

    Returns
    -------
    bool
        False if another process created a store at `store` first; nothing is changed then.

    Raises
    ------
    ConfigError
        If a reader would refuse the plan, such as one with parts of many gigabytes.
    """
    document = {
        "format_version": FORMAT_VERSION,
        "recipe": recipe.to_dict(),
        "fingerprints": recipe.fingerprints(),
        "embeds_genres": genre_embedding is not None,
        "part_rows": part_rows,
        "library_versions": layout.library_versions() if library_versions is None else dict(library_versions),
    }
    if fault := record_problem(PLAN_FILE, document) or plan_problem(document):
        raise ConfigError(f"these options make no valid store: {store}: {fault}. Change the options.")
    if (remote := remote_of(store)) is not None:
        plan = Plan(document=remote.begin(document), generations=())
        content = generation_record("first", plan, tracks, range(len(genres)))
        objects = _encode_generation(0, tracks, range(len(genres)), genres, genre_embedding)
        publish.publish(store, generation_key(0), content, objects)
        roll_plan_forward(store, generation_key(0))
        return True
    partial = hidden_path(store)
    store.parent.mkdir(parents=True, exist_ok=True)
    partial.mkdir()
    try:
        n_rows = -(-tracks.num_rows // part_rows) * part_rows
        metadata = layout.metadata_documents(document, {}, n_rows=n_rows, n_genres=len(genres))
        for key, text in metadata.items():
            (partial / key).parent.mkdir(exist_ok=True)
            (partial / key).write_bytes(text)
        for name in FOLDERS:
            (partial / name).mkdir()
        write_durable(partial / PLAN_FILE, seal(document))
        objects = _encode_generation(0, tracks, range(len(genres)), genres, genre_embedding)
        plan = Plan(document=document, generations=())
        content = generation_record("first", plan, tracks, range(len(genres)))
        record = publish.with_objects(content, publish.write_objects(partial, objects))
        write_durable(partial / generation_key(0), seal(record))
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
    """Add a generation of tracks to the plan, from the next part boundary on; existing content does not change.

    Parameters
    ----------
    plan : the plan from which `tracks` were derived.
    tracks : columns of :data:`mgc.cache.format.tables.PLAN_SCHEMA`; their rows are renumbered.
    new_genres, genre_embedding : genres that are new to the store, with (n, text_dim) float32 embeddings if the store
        embeds genres.

    Returns
    -------
    Plan
        The plan with the new generation. If another process appended first, it has that generation instead: the caller
        must compare.

    Raises
    ------
    ConfigError
        If `plan` has one of `new_genres` already, as another process has appended since they were derived.
    """
    if repeated := sorted(set(new_genres) & set(read_genres(store, plan) if new_genres else ())):
        raise ConfigError(
            f"another process has just added the genres {join_names(repeated)}: {store}. Run the same command again."
        )
    number = len(plan.generations)
    tracks = with_rows(tracks, range(plan.n_rows, plan.n_rows + tracks.num_rows))
    genres = range(plan.n_genres, plan.n_genres + len(new_genres))
    content = generation_record(kind, plan, tracks, genres)
    objects = _encode_generation(number, tracks, genres, new_genres, genre_embedding)
    publish.publish(store, generation_key(number), content, objects)
    roll_plan_forward(store, generation_key(number))
    return read_plan(store)


def roll_plan_forward(store: Path, key: str) -> None:
    """Install the metadata of all arrays, and the objects of a published generation or feature set."""
    update_metadata(store)
    publish.install(store, key, read_record(store, key))
    publish.sweep(store, key)


def update_metadata(store: Path) -> None:
    """Write every ``zarr.json`` that differs from the plan; repeat if another process extends the plan meanwhile."""
    while True:
        plan = read_plan(store)
        layout.install_metadata(store, plan.metadata, store / STAGING)
        if (remote := remote_of(store)) is not None:
            remote.install_metadata(plan.metadata)
        after = read_plan(store)
        if (len(after.generations), after.added) == (len(plan.generations), plan.added):
            break
        for key in plan.metadata.keys() - after.metadata.keys():  # a feature set was removed meanwhile
            (store / key).unlink(missing_ok=True)
            with contextlib.suppress(OSError):
                (store / key).parent.rmdir()
    publish.sweep(store, "metadata.json")


def add_feature_set(
    store: Path,
    plan: Plan,
    name: str,
    recipe: FeatureSetRecipe,
    genre_embedding: npt.NDArray[np.float32] | None = None,
) -> Plan:
    """Add a feature set to a store; or to an existing feature set, the embeddings of genres that it lacks.

    Parameters
    ----------
    name : suffix of its arrays: lower-case letters, digits and ``_``.
    genre_embedding : (n, hidden_size) float32, of the genres that the feature set lacks, in order; for a text encoder
        only.

    Returns
    -------
    Plan
        The plan with the feature set. If another process added one of that name first, it has that one: the caller must
        compare the recipes.

    Raises
    ------
    ConfigError
        If the store has an array of that name or a dimension of another length, or a feature set of that name is being
        removed.
    """
    added = plan.added.get(name)
    if name in unfinished_removals(store):
        raise ConfigError(f"feature set {name!r} is being removed: {store}. Wait until the removal is complete.")
    if added is None and (
        fault := name_clash(plan, name, recipe) or size_problem(added_arrays(name, recipe), plan.part_rows)
    ):
        raise ConfigError(f"feature set {name!r}: {fault}")
    first = 0 if added is None else added.n_genres
    genres = range(first, first + (0 if genre_embedding is None else len(genre_embedding)))

    content = {
        "feature_set": name,
        "recipe": recipe_document(recipe),
        "fingerprints": added_fingerprints(recipe, plan.recipe.genre_names),
        "plan": plan.sha256,
        "first_genre": genres.start,
        "n_genres": len(genres),
    }
    key = feature_set_key(name, 0 if added is None else len(added.records))
    publish.publish(store, key, content, _encode_embedding(genres, genre_embedding, name))
    try:
        roll_plan_forward(store, key)
    except FileNotFoundError as error:
        if (store / key).exists() or not store.exists():
            raise
        raise ConfigError(
            f"feature set {name!r} was removed while it was added: {store}. Run the same command again to add it."
        ) from error
    return read_plan(store)


def generation_record(kind: Kind, plan: Plan, tracks: pa.Table, genres: range) -> dict[str, Any]:
    """Return the record of the next generation of `plan`, without its objects."""
    return {
        "generation": len(plan.generations),
        "kind": kind,
        "plan": plan.sha256,
        "previous": plan.last_sha256,
        "first_row": tracks.column("row")[0].as_py() if tracks.num_rows else 0,
        "n_tracks": tracks.num_rows,
        "first_genre": genres.start,
        "n_genres": len(genres),
    }


def _encode_generation(
    number: int, tracks: pa.Table, genres: range, names: Sequence[str], embedding: npt.NDArray[np.float32] | None
) -> Iterator[tuple[str, bytes]]:
    """Yield keys and bytes of the objects of a generation: two tables, and one chunk per new genre."""
    yield f"tracks/{number}.parquet", table_bytes(tracks.select(PLAN_SCHEMA.names).cast(PLAN_SCHEMA))
    yield f"genres/{number}.parquet", table_bytes(genre_table(genres, names))
    yield from _encode_embedding(genres, embedding)


def _encode_embedding(
    genres: range, embedding: npt.NDArray[np.float32] | None, feature_set: str | None = None
) -> Iterator[tuple[str, bytes]]:
    """Yield keys and bytes of the genre embeddings, one chunk per genre."""
    if embedding is None or not len(genres):
        return
    spec = layout.genre_spec(embedding.shape[1], feature_set)
    for row, data in zip(genres, layout.encode(spec, embedding, 1), strict=True):
        yield layout.object_key(spec, row), data
