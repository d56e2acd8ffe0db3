"""Select tracks into a smaller store, with the same features bit for bit and its own plan."""

from __future__ import annotations

import shutil
from collections.abc import Sequence
from pathlib import Path

import numpy as np
import numpy.typing as npt
import pyarrow as pa

from ..durable import fsync_dir, hidden_path, rename_durable
from ..errors import ConfigError
from ..format.plan import SEALED_SUFFIXES, Plan, read_plan
from ..format.recipe import TextRecipe
from ..format.schema import default_part_rows
from ..format.tables import PLAN_SCHEMA, outcome_schema, plan_table, with_column, with_rows
from ..reading.store import FeatureStore
from ..reading.view import StoreView
from ..steps import Progress, silent
from ..writing.commits import commit_part, roll_forward
from ..writing.creation import add_feature_set, create_store
from .hdf5_writer import seal_store


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
    if target.exists():
        raise ConfigError(f"{target}: already exists. Use another name.")
    if not len(view):
        raise ConfigError(f"{view.store.path}: no track matches the selection. Nothing is written.")
    target.parent.mkdir(parents=True, exist_ok=True)
    draft = hidden_path(target)
    try:
        remarks = _write(view, draft, on_progress)
        if target.suffix in SEALED_SUFFIXES:
            seal_store(draft, target)
        else:
            roll_forward(draft)
            fsync_dir(draft)  # so that its staging does not reappear after a power cut
            rename_durable(draft, target)
    finally:
        shutil.rmtree(draft, ignore_errors=True)
    return remarks


def _write(view: StoreView, path: Path, progress: Progress) -> list[str]:
    source, genres, tracks = view.store, _genres(view), view.tracks.sort_by("id")
    if source.text is not None:
        raise ConfigError("select from the store without `text`: added feature sets are copied with it")
    create_store(
        path,
        tracks=plan_table(tracks.select(PLAN_SCHEMA.names).to_pylist()),
        recipe=source.recipe,
        part_rows=default_part_rows(len(view), source.recipe),
        genres=genres,
        genre_embedding=_embedding(source, genres) if source.embeds_genres else None,
        library_versions=source.library_versions,
    )
    remarks: list[str] = []
    names: list[str] = []
    for name, recipe in source.added.items():
        text = name if isinstance(recipe, TextRecipe) else None
        if text and source.has_other_names:
            remarks.append(f"the features {name!r} are not copied: they were embedded with other genre name prompts")
            continue
        with FeatureStore.open(source.path, text=text) as features:
            if np.isin(view.rows, features.ok_rows if text else features.rows_with(name)).all():
                embedding = _embedding(features, genres) if text else None
                add_feature_set(path, read_plan(path), name, recipe, embedding)
                names.append(name)
            else:
                remarks.append(f"the features {name!r} are not copied: not every track has them")
    plan = read_plan(path)
    for number, feature_set in enumerate((None, *names)):
        with FeatureStore.open(source.path, text=feature_set if feature_set in source.texts else None) as features:
            for part in range(plan.n_parts):
                _copy_part(features, tracks, path, plan, part, feature_set)
                progress("select", number * plan.n_parts + part + 1, (1 + len(names)) * plan.n_parts)
    return remarks


def _genres(view: StoreView) -> list[str]:
    """Return the genres of the tracks; for a view of all tracks, all genres of the store, failed tracks included."""
    if len(view) == len(view.store.ok_rows):
        return sorted(view.store.genres)
    return sorted({name for names in view.tracks.column("genres").to_pylist() for name in names})


def _embedding(source: FeatureStore, genres: Sequence[str]) -> npt.NDArray[np.float32]:
    assert source.recipe.lyrics is not None
    if not genres:
        return np.zeros((0, source.recipe.lyrics.hidden_size), np.float32)
    return source.genre_embedding[[source.genres.index(genre) for genre in genres]]


def _copy_part(
    source: FeatureStore, tracks: pa.Table, path: Path, plan: Plan, part: int, feature_set: str | None
) -> None:
    """Commit a part of the smaller store with features and outcomes of its `tracks` from the larger one."""
    rows = plan.part_range(part)
    tracks = tracks.slice(rows.start, len(rows))
    source_rows = np.asarray(tracks.column("row"))
    names = {spec.name for spec in source.arrays}
    arrays = {}
    for spec in plan.arrays(feature_set):
        name = spec.name if spec.name in names else spec.name.removesuffix(f"_{feature_set}")
        arrays[spec.name] = source.read(name, source_rows)
    outcomes = with_rows(tracks, rows)
    extractor = source.extractors.get(feature_set or "")
    if extractor is not None and extractor.input == "clip":  # such an extractor reads no lyrics
        outcomes = with_column(outcomes, "lyrics_sha256", pa.nulls(len(rows)))
    schema = outcome_schema(feature_set)
    commit_part(path, part, arrays, outcomes.select(schema.names).cast(schema), feature_set=feature_set)
