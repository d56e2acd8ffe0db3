"""Compare the source and the options of an extraction with the plan of a store; choose the recipe and the tracks."""

from __future__ import annotations

import logging
from collections.abc import Sequence
from dataclasses import replace
from pathlib import Path

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc

from ...cache.durable import fingerprint
from ...cache.errors import ConfigError, RecipeMismatchError
from ...cache.format.plan import Kind, Plan, read_genres, read_tracks
from ...cache.format.recipe import SIDES, FeatureSetRecipe, MelRecipe, Recipe, difference
from ...cache.format.records import committed
from ...cache.format.schema import FAILED, Reason, added_arrays, coordinate_clash, default_part_rows
from ...cache.format.tables import plan_table
from ...cache.messages import counted, join_names, limit_lines
from ...cache.reading.store import FeatureStore
from ...cache.writing.creation import append_generation, create_store
from ...cache.writing.remote import address
from ..sources.label_tables import genre_names
from ..sources.manifest import Source, check_collisions
from ..text.encoder import TextSource, embed_prompts, encoder_recipe
from ..text.lyrics import CLEANING_RULE
from ..text.models import DEFAULT_MODEL
from .options import ExtractOptions

log = logging.getLogger(__name__)


def choose_recipe(options: ExtractOptions, stored: Recipe | None) -> tuple[Recipe, TextSource | None]:
    """Return the recipe of an extraction, and its text encoder.

    Parameters
    ----------
    stored : recipe of an existing store. It fills in the options on text and genre names that the user left open.
    """
    mel = None
    if "mel" in options.features:
        mel = MelRecipe(backend=options.audio_backend, clip_s=options.clip_s, offset=options.offset)
    names = stored.genre_names if stored is not None and options.embeds_genres else {}
    if options.genre_names is not None:
        names = genre_names(options.genre_names)
    if "lyrics" not in options.features:
        return Recipe(mel=mel, lyrics=None, genre_names=names), None
    model, precision, cleaning = options.text_model, options.text_precision, CLEANING_RULE
    backend: str = options.text_backend
    if stored is not None and stored.lyrics is not None:
        model = model or stored.lyrics.model
        precision = stored.lyrics.precision if precision == "auto" else precision
        backend = stored.lyrics.backend if backend == "auto" else backend
        cleaning = stored.lyrics.cleaning
    text = TextSource(model=model, device=options.text_device)
    lyrics = encoder_recipe(text, precision, backend=backend, max_tokens=options.text_max_tokens, cleaning=cleaning)
    if options.text_max_tokens is None and stored is not None and stored.lyrics is not None:
        is_same = stored.lyrics.weights_sha256 == lyrics.weights_sha256
        lyrics = replace(lyrics, max_tokens=stored.lyrics.max_tokens) if is_same else lyrics
    return Recipe(mel=mel, lyrics=lyrics, genre_names=names), text


def describe_stored_choices(options: ExtractOptions, stored: Recipe) -> list[str]:
    """Return one line on options that were left open and have the store's value in place of the default."""
    kept = []
    if "lyrics" in options.features and stored.lyrics is not None:
        if options.text_model is None and stored.lyrics.model != DEFAULT_MODEL:
            kept.append(f"text encoder {stored.lyrics.model} (--text-model)")
        if options.embeds_genres and options.genre_names is None and stored.genre_names:
            kept.append(f"{counted(len(stored.genre_names), 'genre name prompt')} (--genre-names)")
    return [f"continuing the store with its own {' and '.join(kept)}"] if kept else []


def source_table(source: Source) -> pa.Table:
    """Return the tracks of a source as a table of a plan (:data:`mgc.cache.format.tables.PLAN_SCHEMA`)."""
    return plan_table(
        {
            "id": track.id,
            "path": track.path,
            "artists": list(track.artists),
            "song": track.song,
            "genres": list(track.genres),
            "language": track.language,
            "split": track.split,
            "lyrics_path": track.lyrics_path,
            "inline_lyrics_sha256": None if track.lyrics is None else fingerprint(track.lyrics),
        }
        for track in source.tracks
    )


def refuse_other_contents(path: Path) -> None:
    """Raise ConfigError if `path` is a file, or a folder that is not empty."""
    if path.is_file():
        raise ConfigError(f"a file has the name of the store: {path}. Use another name, such as {path.name}.zarr.")
    if path.is_dir() and any(path.iterdir()):
        raise ConfigError(f"the folder is not empty and not a feature store: {path}. Use another name.")


def plan_store(path: Path, tracks: pa.Table, recipe: Recipe, text: TextSource | None, options: ExtractOptions) -> None:
    """Create an empty store for the tracks of a source.

    Raises
    ------
    ConfigError
        If `path` is a file or a folder that is not empty, or there are no tracks.
    """
    refuse_other_contents(path)
    if tracks.num_rows == 0:
        raise ConfigError("no tracks to extract: the source is empty, or the filters exclude all tracks.")
    genres, embedding = _genres_of(tracks), None
    if recipe.lyrics is not None and text is not None and options.embeds_genres:
        embedding = embed_prompts(genres, recipe, text)
    part_rows = options.part_rows or default_part_rows(tracks.num_rows, recipe)
    create_store(path, tracks=tracks, recipe=recipe, part_rows=part_rows, genres=genres, genre_embedding=embedding)


def _genres_of(tracks: pa.Table) -> list[str]:
    return sorted(pc.unique(pc.list_flatten(tracks.column("genres"))).to_pylist())


def refuse_other_recipe(path: Path, plan: Plan, recipe: Recipe, options: ExtractOptions) -> None:
    """Raise RecipeMismatchError unless the store was planned with this recipe and these options."""
    # Hashes identify the text model; its folder may have been renamed.
    differences = [d for d in plan.recipe.differences(recipe) if not d.startswith("lyrics.model:")]
    names = [line for line in differences if line.startswith("genre_names.")]
    differences = [line for line in differences if line not in names]
    if (options.embeds_genres and recipe.lyrics is not None) != plan.embeds_genres:
        embedded = "embedded" if plan.embeds_genres else "absent"
        wanted = "absent" if plan.embeds_genres else "embedded"
        differences.append(difference("genres", embedded, wanted))
    if options.part_rows not in (None, plan.part_rows):
        differences.append(difference("part_rows", plan.part_rows, options.part_rows))
    advice = "Use the same options to continue the store, or use another store."
    if names:
        advice += " `mgc store select STORE -o OTHER --genre-names FILE` copies a store with other genre name prompts."
    refuse(path, differences + limit_lines(names, "genre names"), advice)


def refuse_coordinates(plan: Plan, name: str, recipe: FeatureSetRecipe) -> None:
    """Raise ConfigError if a new feature set would give an array and a dimension the same name."""
    existing = [spec for feature_set in (None, *plan.added) for spec in plan.arrays(feature_set)]
    if fault := coordinate_clash(existing, added_arrays(name, recipe), name):
        raise ConfigError(f"feature set {name!r}: {fault}")


def refuse(path: Path, differences: Sequence[str], advice: str) -> None:
    """Raise RecipeMismatchError if there are differences."""
    if differences:
        lines = "\n  ".join(differences)
        raise RecipeMismatchError(f"the store differs from this command: {path}\n  {lines}\n{advice}")


def newest_tracks(path: Path, plan: Plan) -> pa.Table:
    """Return the newest row of every planned track, sorted by id."""
    tracks = pa.concat_tables([read_tracks(path, generation) for generation in plan.generations])
    if any(generation.kind == "retry" for generation in plan.generations):
        newest = tracks.group_by("id").aggregate([("row", "max")]).column("row_max")
        tracks = tracks.filter(pc.is_in(tracks.column("row"), newest))
    return tracks.sort_by("id") if len(plan.generations) > 1 else tracks


def with_planned_labels(planned: pa.Table, tracks: pa.Table, *, of_lyrics: bool) -> pa.Table:
    """Return the tracks of a source with the plan's values in place of those that an added feature does not depend on.

    Labels, artists, songs, languages and splits are the plan's, so that the source needs none. Tracks that are not in
    the plan are left out, unless planned tracks are missing, as the source is then another one.

    Parameters
    ----------
    planned, tracks : tracks of the plan and of the source, sorted by id.
    of_lyrics : the feature depends on lyrics, which must be those of the plan; if not, on audio.
    """
    is_planned = pc.is_in(tracks.column("id"), planned.column("id"))
    if pc.sum(is_planned).as_py() == planned.num_rows:
        tracks = tracks.filter(is_planned)
    positions = pc.index_in(tracks.column("id"), planned.column("id"))
    own = {"row", "id", "path", *(("lyrics_path", "inline_lyrics_sha256") if of_lyrics else ())}
    for i, name in enumerate(tracks.column_names):
        if name not in own:
            tracks = tracks.set_column(i, tracks.schema.field(i), planned.column(name).take(positions))
    return tracks


def plan_source(
    path: Path,
    plan: Plan,
    tracks: pa.Table,
    text: TextSource | None,
    *,
    append: bool,
    may_change: bool,
    uses_tags: bool = False,
) -> Plan:
    """Return the plan with the tracks of the source in it.

    Parameters
    ----------
    append : plan new tracks, and accept that planned tracks are missing in the source.
    may_change : accept changed values (path, genres, ...) of planned tracks.
    uses_tags : some values come from tags of audio files; the error message then suggests --no-tags.

    Raises
    ------
    RecipeMismatchError
        If the source differs from the plan in any other way.
    ConfigError
        If a planned track that is not in the source is still pending.
    """
    while True:
        planned = newest_tracks(path, plan)
        if planned.drop_columns(["row"]).equals(tracks.drop_columns(["row"])):
            return plan
        in_plan = pc.is_in(tracks.column("id"), planned.column("id"))
        in_source = pc.is_in(planned.column("id"), tracks.column("id"))
        new, missing = tracks.filter(pc.invert(in_plan)), planned.filter(pc.invert(in_source))
        if new.num_rows:
            _refuse_same_ids(path, planned, new)
        differences = []
        if not append:
            sides = zip(SIDES, (missing, new), strict=True)
            differences = [f"{_count(side)} only in {name}: {_ids(side)}" for name, side in sides if side.num_rows]
        if not may_change:
            differences += track_differences(planned.filter(in_source), tracks.filter(in_plan))
        hint = " Add new tracks with --append." if new.num_rows and not append else ""
        hint += " To continue a store that was made without the tags of audio files, use --no-tags." * uses_tags
        refuse(path, differences, f"Use the same source to continue the store, or use another store.{hint}")
        _refuse_pending_elsewhere(path, plan, missing)
        if not new.num_rows:
            return plan
        plan, is_ours = _plan_tracks(path, plan, "append", new, text)
        if is_ours:
            return plan  # else another process has extended the plan: compare again


def _refuse_same_ids(path: Path, planned: pa.Table, new: pa.Table) -> None:
    """Raise ManifestError if ids of new tracks differ from planned ids only in case or Unicode form."""
    ids = [*planned.column("id").to_pylist(), *new.column("id").to_pylist()]
    check_collisions(ids, [str(path)] * planned.num_rows + ["this source"] * new.num_rows)


def _refuse_pending_elsewhere(path: Path, plan: Plan, missing: pa.Table) -> None:
    """Raise ConfigError if tracks that are not in the source are pending: they could never be built."""
    rows = np.asarray(missing.column("row"))
    pending = missing.filter(pa.array(~np.isin(rows // plan.part_rows, list(committed(path)))))
    if pending.num_rows:
        raise ConfigError(
            f"{_count(pending)} of the store not extracted yet and not in this source: {path}: {_ids(pending)}. "
            "Finish the extraction of their source first."
        )


def _plan_tracks(path: Path, plan: Plan, kind: Kind, tracks: pa.Table, text: TextSource | None) -> tuple[Plan, bool]:
    """Append a generation; return the plan, and False if another process appended other tracks first."""
    genres = sorted(set(_genres_of(tracks)) - set(read_genres(path, plan)))
    embedding = embed_prompts(genres, plan.recipe, text) if plan.embeds_genres and text is not None else None
    number = len(plan.generations)
    plan = append_generation(path, plan, kind, tracks, new_genres=genres, genre_embedding=embedding)
    decided = read_tracks(path, plan.generations[number])
    return plan, decided.drop_columns(["row"]).equals(tracks.drop_columns(["row"]))


def has_unfinished_retry(path: Path, plan: Plan) -> bool:
    """Return whether a planned retry of failed tracks has pending parts."""
    done = committed(path).keys()
    retries = (generation for generation in plan.generations if generation.kind == "retry")
    return any(part not in done for generation in retries for part in plan.parts_of(generation))


def plan_retry(path: Path, plan: Plan, tracks: pa.Table, text: TextSource | None) -> Plan | None:
    """Plan a retry of the failed tracks that are in the source; return the plan, or None if there are none."""
    with FeatureStore.open(address(path)) as store:
        newest = store.tracks.filter(pa.array(store.newest))
    failed = pc.and_(pc.equal(newest.column("status"), FAILED), pc.not_equal(newest.column("reason"), Reason.DROPPED))
    retry = tracks.filter(pc.is_in(tracks.column("id"), newest.filter(failed).column("id")))
    if not retry.num_rows:
        return None
    log.info("retrying %d failed tracks", retry.num_rows)
    plan, is_ours = _plan_tracks(path, plan, "retry", retry, text)
    if not is_ours:
        raise ConfigError(f"another extraction extended the plan at the same time: {path}. Run the same command again.")
    return plan


def _count(tracks: pa.Table) -> str:
    return counted(tracks.num_rows, "track")


def _ids(tracks: pa.Table) -> str:
    return join_names(tracks.column("id"))


def track_differences(planned: pa.Table, tracks: pa.Table) -> list[str]:
    """Return readable lines on the differences of tracks; both tables have the same ids, sorted."""
    columns = [name for name in planned.column_names if name != "row"]
    if planned.select(columns).equals(tracks.select(columns)):
        return []
    changed = [
        difference(f"track {stored['id']}, {name}", repr(stored[name]), repr(wanted[name]))
        for stored, wanted in zip(planned.to_pylist(), tracks.to_pylist(), strict=True)
        for name in columns
        if stored[name] != wanted[name]
    ]
    return limit_lines(changed, "values of tracks")
