"""Selection and merge: write a new store with the features of tracks of one store, or of several."""

from __future__ import annotations

import shutil
from collections.abc import Sequence
from contextlib import ExitStack
from pathlib import Path

import numpy as np
import numpy.typing as npt
import pyarrow as pa
import pyarrow.compute as pc

from ..durable import fsync_dir, hidden_path, rename_durable
from ..errors import ConfigError, RecipeMismatchError, StoreCorruptError
from ..format.plan import SEALED_SUFFIXES, Plan, read_plan
from ..format.recipe import FeatureSetRecipe, TextRecipe
from ..format.schema import default_part_rows
from ..format.tables import PLAN_SCHEMA, outcome_schema, with_column, with_rows
from ..messages import counted
from ..names import caseless
from ..places import refuse_object_store
from ..reading.store import FeatureStore
from ..reading.view import StoreView
from ..steps import Progress, silent
from ..writing.commits import commit_part, roll_forward
from ..writing.creation import add_feature_set, create_store
from .hdf5_writer import seal_store
from .verify import verify

_STORE = "store"
"""Column of the tracks: number of the store that has them."""


def select(view: StoreView, target: Path, *, on_progress: Progress = silent) -> list[str]:
    """Write the tracks of a view as a store, in the form given by the suffix of `target`, atomically.

    Parts have the default size of an extraction. An added feature set is copied if every track of the view has it.

    Returns
    -------
    list of str
        Remarks on feature sets that are not copied, with the reason.

    Raises
    ------
    ConfigError
        If `target` exists, or the view is empty.
    """
    if not len(view):
        raise ConfigError(f"{view.store.path}: no track matches the selection. Nothing is written.")
    return _write([view], [_tracks(view, 0)], target, "select", on_progress)


def merge(
    views: Sequence[StoreView], target: Path, *, prefixes: Sequence[str] = (), on_progress: Progress = silent
) -> list[str]:
    """Write the tracks of several stores with the same recipe as one store, atomically, and verify it in full.

    Parameters
    ----------
    prefixes : a name per store, with which its ids and paths begin as ``NAME/``.

    Returns
    -------
    list of str
        Remarks on feature sets that are not copied, with the reason.

    Raises
    ------
    RecipeMismatchError
        If the recipes differ; the message lists the differences.
    ConfigError
        If `target` exists, no track has features, an id is in two stores, or the prefixes are invalid.
    StoreCorruptError
        If the written store does not match its records.
    """
    _check_prefixes(views, prefixes)
    first = views[0].store
    for view in views[1:]:
        if view.store.fingerprints != first.fingerprints:
            sides = (str(first.path), str(view.store.path))
            lines = "\n  ".join(first.recipe.differences(view.store.recipe, sides))
            raise RecipeMismatchError(f"the stores have different recipes:\n  {lines}\nExtract one of them again.")
    tables = [_tracks(view, number) for number, view in enumerate(views)]
    if not any(table.num_rows for table in tables):
        raise ConfigError("no store has a track with features. Nothing is written.")
    if prefixes:
        tables = [_with_prefix(table, prefix) for table, prefix in zip(tables, prefixes, strict=True)]
    _refuse_collisions(views, tables)
    return _write(views, tables, target, "merge", on_progress, verified=True)


def _check_prefixes(views: Sequence[StoreView], prefixes: Sequence[str]) -> None:
    if not prefixes:
        return
    if len(prefixes) != len(views):
        raise ConfigError(
            f"{counted(len(prefixes), '--prefix', '--prefix')} for {len(views)} stores. Give one per store."
        )
    for name in prefixes:
        if not name.strip() or name in (".", "..") or not {"/", "\\", "\0"}.isdisjoint(name):
            raise ConfigError(f"--prefix {name!r}: not the name of a folder. Use a name without '/'.")
    if len(set(map(caseless, prefixes))) < len(prefixes):
        raise ConfigError("two prefixes are the same, or differ only by case or Unicode form. Use different ones.")


def _with_prefix(tracks: pa.Table, prefix: str) -> pa.Table:
    """Begin the ids and the paths of tracks with a folder."""
    for name in ("id", "path", "lyrics_path"):
        values = pc.binary_join_element_wise(pa.scalar(prefix), tracks.column(name), "/")
        tracks = with_column(tracks, name, values)
    return tracks


def _refuse_collisions(views: Sequence[StoreView], tables: Sequence[pa.Table]) -> None:
    store_of: dict[str, tuple[int, str]] = {}
    repeated = []
    for number, table in enumerate(tables):
        for name in table.column("id").to_pylist():
            other, name_there = store_of.setdefault(caseless(name), (number, name))
            if other != number:
                repeated.append((name_there, other, name, number))
    if repeated:
        name_there, other, name, number = repeated[0]
        raise ConfigError(
            f"{counted(len(repeated), 'id is', 'ids are')} in two stores, or differ only by case or Unicode form: "
            f"{name_there!r} in {views[other].store.path} and {name!r} in {views[number].store.path}. "
            "Give one --prefix per store."
        )


def _tracks(view: StoreView, number: int) -> pa.Table:
    return view.tracks.append_column(_STORE, pa.array(np.full(len(view), number), pa.int32()))


def _write(
    views: Sequence[StoreView],
    tables: Sequence[pa.Table],
    target: Path,
    step: str,
    progress: Progress,
    *,
    verified: bool = False,
) -> list[str]:
    """Write the store under a hidden name, and give it its name at the end."""
    refuse_object_store(target, "Write a local store, then copy it with `mgc store copy`.")
    if target.exists():
        raise ConfigError(f"{target}: already exists. Use another name.")
    target.parent.mkdir(parents=True, exist_ok=True)
    draft = hidden_path(target)
    try:
        remarks = _write_draft(views, pa.concat_tables(tables).sort_by("id"), draft, step, progress)
        if verified and (damages := verify(draft, full=True, on_progress=progress)):
            fault = damages[0]
            raise StoreCorruptError(f"{target}: {fault.key}: {fault.detail}. Check the disk, and merge again.")
        if target.suffix in SEALED_SUFFIXES:
            seal_store(draft, target)
        else:
            roll_forward(draft)
            fsync_dir(draft)  # so that its staging does not reappear after a power cut
            rename_durable(draft, target)
    finally:
        shutil.rmtree(draft, ignore_errors=True)
    return remarks


def _write_draft(views: Sequence[StoreView], tracks: pa.Table, path: Path, step: str, progress: Progress) -> list[str]:
    first, genres = views[0].store, _genres(views, tracks)
    if any(view.store.text is not None for view in views):
        raise ConfigError("select from the store without `text`: added feature sets are copied with it")
    stores = [view.store for view in views]
    create_store(
        path,
        tracks=with_rows(tracks, range(tracks.num_rows)).select(PLAN_SCHEMA.names),
        recipe=first.recipe,
        part_rows=default_part_rows(tracks.num_rows, first.recipe),
        genres=genres,
        genre_embedding=_embedding(stores, genres) if first.embeds_genres else None,
        library_versions=_library_versions(stores),
    )
    names, remarks = _added(views, path, genres)
    plan = read_plan(path)
    for number, feature_set in enumerate((None, *names)):
        with ExitStack() as opened:
            features = [opened.enter_context(_open(store, feature_set)) for store in stores]
            for part in range(plan.n_parts):
                _copy_part(features, tracks, path, plan, part, feature_set)
                progress(step, number * plan.n_parts + part + 1, (1 + len(names)) * plan.n_parts)
    return remarks


def _open(store: FeatureStore, feature_set: str | None) -> FeatureStore:
    return FeatureStore.open(store.path, text=feature_set if feature_set in store.texts else None)


def _added(views: Sequence[StoreView], path: Path, genres: Sequence[str]) -> tuple[list[str], list[str]]:
    """Add the feature sets that every track has; return their names, and remarks on the others."""
    names, remarks = [], []
    added: dict[str, FeatureSetRecipe] = {}
    for view in views:
        added |= view.store.added
    for name, recipe in added.items():
        text = name if isinstance(recipe, TextRecipe) else None
        with ExitStack() as opened:
            if any(view.store.added.get(name) != recipe for view in views):
                reason = "not every store has them with the same recipe"
            elif text and any(view.store.has_other_names for view in views):
                reason = "they were embedded with other genre name prompts"
            else:
                stores = [opened.enter_context(_open(view.store, name)) for view in views]
                has = [s.ok_rows if text else s.rows_with(name) for s in stores]
                if all(np.isin(view.rows, rows).all() for view, rows in zip(views, has, strict=True)):
                    add_feature_set(path, read_plan(path), name, recipe, _embedding(stores, genres) if text else None)
                    names.append(name)
                    continue
                reason = "not every track has them"
        remarks.append(f"the features {name!r} are not copied: {reason}")
    return names, remarks


def _genres(views: Sequence[StoreView], tracks: pa.Table) -> list[str]:
    """Return the genres of the tracks; for views of all tracks, all genres of the stores, failed tracks included."""
    if all(len(view) == len(view.store.ok_rows) for view in views):
        return sorted({name for view in views for name in view.store.genres})
    return sorted({name for names in tracks.column("genres").to_pylist() for name in names})


def _embedding(stores: Sequence[FeatureStore], genres: Sequence[str]) -> npt.NDArray[np.float32]:
    """Return the embedding of each genre, from the first store that has it."""
    recipe = stores[0].recipe.lyrics
    assert recipe is not None
    embedding = np.zeros((len(genres), recipe.hidden_size), np.float32)
    row = {genre: i for i, genre in enumerate(genres)}
    for store in reversed(stores):
        own = [i for i, genre in enumerate(store.genres) if genre in row]
        if own:
            embedding[[row[store.genres[i]] for i in own]] = store.genre_embedding[own]
    return embedding


def _library_versions(stores: Sequence[FeatureStore]) -> dict[str, str]:
    """Return the versions that computed the features; where they differ, all of them."""
    versions: dict[str, list[str]] = {}
    for store in stores:
        for name, version in store.library_versions.items():
            versions.setdefault(name, []).append(version)
    return {name: ", ".join(dict.fromkeys(listed)) for name, listed in versions.items()}


def _copy_part(
    stores: Sequence[FeatureStore], tracks: pa.Table, path: Path, plan: Plan, part: int, feature_set: str | None
) -> None:
    """Commit a part of the new store with features and outcomes of its `tracks` from the other ones."""
    rows = plan.part_range(part)
    tracks = tracks.slice(rows.start, len(rows))
    source_rows, numbers = np.asarray(tracks.column("row")), np.asarray(tracks.column(_STORE))
    names = {spec.name for spec in stores[0].arrays}
    arrays = {}
    for spec in plan.arrays(feature_set):
        name = spec.name if spec.name in names else spec.name.removesuffix(f"_{feature_set}")
        arrays[spec.name] = np.empty((len(rows), *spec.tail), spec.dtype)
        for number in np.unique(numbers).tolist():
            own = numbers == number
            arrays[spec.name][own] = stores[number].read(name, source_rows[own])
    outcomes = with_rows(tracks, rows)
    extractor = stores[0].extractors.get(feature_set or "")
    if extractor is not None and extractor.input == "clip":  # such an extractor reads no lyrics
        outcomes = with_column(outcomes, "lyrics_sha256", pa.nulls(len(rows)))
    schema = outcome_schema(feature_set)
    commit_part(path, part, arrays, outcomes.select(schema.names).cast(schema), feature_set=feature_set)
