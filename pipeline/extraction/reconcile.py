"""The tracks of a source and the plan of a store: made from them, compared with them, joined by them."""

from __future__ import annotations

import logging
from collections.abc import Sequence
from dataclasses import asdict
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc

from ...cache.durable import fingerprint
from ...cache.errors import ConfigError, RecipeMismatchError
from ...cache.format.plan import Generation, Kind, Plan, default_part_rows, read_genres
from ...cache.format.plan import read_tracks as read_planned
from ...cache.format.recipe import FeatureSetRecipe, MelRecipe, Recipe
from ...cache.format.records import committed
from ...cache.format.schema import FAILED, Reason
from ...cache.messages import counted, join_names, limit_lines
from ...cache.reading.store import FeatureStore
from ...cache.writing.creation import append_generation, create_store
from ..sources.genre_prompts import genre_names
from ..sources.manifest import Track
from ..text.encoder import TextSource, encoder_recipe
from ..text.genre_embedding import embedded_genres
from .options import ExtractOptions

log = logging.getLogger(__name__)


def choose_recipe(options: ExtractOptions, before: Recipe | None) -> tuple[Recipe, TextSource | None]:
    """Return what an extraction is to compute, and the text encoder for it.

    Parameters
    ----------
    before : recipe of the store, if there is one: it decides what the options leave open about text and genre names.
    """
    mel = None
    if "mel" in options.features:
        mel = MelRecipe(backend=options.audio_backend, clip_s=options.clip_s, offset=options.offset)
    names = before.genre_names if before is not None and options.embeds_genres else {}
    if options.genre_names is not None:
        names = genre_names(options.genre_names)
    if "lyrics" not in options.features:
        return Recipe(mel=mel, lyrics=None, genre_names=names), None
    known = None if before is None else before.lyrics
    model, precision = options.text_model, options.text_precision
    if known is not None:
        model, precision = model or known.model, known.precision if precision == "auto" else precision
    text = TextSource(model=model, device=options.text_device)
    return Recipe(mel=mel, lyrics=encoder_recipe(text, precision), genre_names=names), text


def plan_row(track: Track) -> dict[str, Any]:
    """A track as the plan's table holds it."""
    return {
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


def create(path: Path, tracks: pa.Table, recipe: Recipe, text: TextSource | None, part_rows: int | None) -> None:
    if tracks.num_rows == 0:
        raise ConfigError("no tracks to extract: the source is empty, or the filters kept nothing")
    genres = _genres_of(tracks)
    embedding = embedded_genres(genres, recipe, text) if recipe.lyrics is not None and text is not None else None
    create_store(
        path,
        tracks=tracks,
        recipe=recipe,
        part_rows=part_rows or default_part_rows(tracks.num_rows),
        genres=genres,
        genre_embedding=embedding,
    )


def _genres_of(tracks: pa.Table) -> list[str]:
    return sorted(pc.unique(pc.list_flatten(tracks.column("genres"))).to_pylist())


def refuse_other_content(path: Path) -> None:
    if path.is_file():
        raise ConfigError(f"{path}: a file is in the way; name a folder for the store (such as {path.name}.zarr)")
    if path.is_dir() and any(path.iterdir()):
        raise ConfigError(f"{path}: this folder holds something else than a feature store; name another")


def refuse_other_recipe(path: Path, plan: Plan, recipe: Recipe, options: ExtractOptions) -> None:
    # Hashes decide which text model it is; a folder may have been renamed.
    differences = [d for d in plan.recipe.differences(recipe) if not d.startswith("lyrics.model:")]
    if (options.embeds_genres and recipe.lyrics is not None) != plan.embeds_genres:
        differences.append(f"genres: {'embedded' if plan.embeds_genres else 'absent'} here, the opposite there")
    if options.part_rows not in (None, plan.part_rows):
        differences.append(f"part_rows: {plan.part_rows} here, {options.part_rows} there")
    way_on = "Use the same options to continue it, or name another store."
    if any(line.startswith("genre_names.") for line in differences):
        way_on += " `mgc store select STORE -o OTHER --genre-names FILE` copies a store with other genre names."
    refuse(path, _shortened(differences), way_on)


def _shortened(differences: Sequence[str]) -> list[str]:
    """A map of genre names may be long: five of its differences will do."""
    names = [line for line in differences if line.startswith("genre_names.")]
    rest = [line for line in differences if line not in names]
    return [*rest, *limit_lines(names, "genre names")]


def set_differences(known: FeatureSetRecipe, wanted: FeatureSetRecipe) -> list[str]:
    """What decides the values and is not the same; a text model's name only tells people."""
    here, there = asdict(known), asdict(wanted)
    return [
        f"{key}: {here.get(key, 'absent')} here, {there.get(key, 'absent')} there"
        for key in sorted({*here, *there} - {"model"})
        if here.get(key) != there.get(key)
    ]


def refuse(path: Path, differences: Sequence[str], way_on: str) -> None:
    if differences:
        listed = "\n  ".join(differences)
        raise RecipeMismatchError(
            f"{path} was made from something else (here: the store, there: this command):\n  {listed}\n{way_on}"
        )


def planned_tracks(path: Path, plan: Plan) -> pa.Table:
    """All planned tracks, the newest row of each, sorted by id."""
    tracks = pa.concat_tables([read_planned(path, generation) for generation in plan.generations])
    if any(generation.kind == "retry" for generation in plan.generations):
        newest = tracks.group_by("id").aggregate([("row", "max")]).column("row_max")
        tracks = tracks.filter(pc.is_in(tracks.column("row"), newest))
    return tracks.sort_by("id") if len(plan.generations) > 1 else tracks


def joined(
    path: Path, plan: Plan, wanted: pa.Table, text: TextSource | None, *, append: bool, may_change: bool
) -> Plan:
    """The plan with the tracks of the source in it; refuses a source that is not the store's."""
    while True:
        known = planned_tracks(path, plan)
        same = known.drop_columns(["row"]).equals(wanted.drop_columns(["row"]))
        if same:
            return plan
        is_known = pc.is_in(wanted.column("id"), known.column("id"))
        is_wanted = pc.is_in(known.column("id"), wanted.column("id"))
        new, missing = wanted.filter(pc.invert(is_known)), known.filter(pc.invert(is_wanted))
        differences = []
        if missing.num_rows and not append:
            differences.append(_listed("only here", missing))
        if new.num_rows and not append:
            differences.append(_listed("only there", new))
        if not may_change:
            differences += track_differences(known.filter(is_wanted), wanted.filter(is_known))
        hint = " New tracks join a store with --append." if new.num_rows and not append else ""
        refuse(path, differences, f"Use the same source to continue it, or name another store.{hint}")
        _refuse_pending_elsewhere(path, plan, missing)
        if not new.num_rows:
            return plan
        before = len(plan.generations)
        plan = _append(path, plan, "append", new, text)
        if _is_ours(path, plan, plan.generations[before], new):
            return plan  # else another process planned something meanwhile: compare again


def _refuse_pending_elsewhere(path: Path, plan: Plan, missing: pa.Table) -> None:
    """Tracks that are not in the source cannot be built from it."""
    rows = np.asarray(missing.column("row"))
    pending = ~np.isin(rows // plan.part_rows, list(committed(path)))
    if pending.any():
        raise ConfigError(
            f"{path}: {counted(int(pending.sum()), 'track')} of its plan neither extracted yet nor in this source: "
            f"{_first(missing.filter(pa.array(pending)))}; finish the extraction of their source first"
        )


def _append(path: Path, plan: Plan, kind: Kind, tracks: pa.Table, text: TextSource | None) -> Plan:
    genres = sorted(set(_genres_of(tracks)) - set(read_genres(path, plan)))
    embedding = embedded_genres(genres, plan.recipe, text) if plan.embeds_genres and text is not None else None
    return append_generation(path, plan, kind, tracks, new_genres=genres, genre_embedding=embedding)


def _is_ours(path: Path, plan: Plan, generation: Generation, tracks: pa.Table) -> bool:
    decided = read_planned(path, generation)
    return bool(decided.drop_columns(["row"]).equals(tracks.drop_columns(["row"])))


def retry_is_under_way(path: Path, plan: Plan) -> bool:
    done = committed(path).keys()
    retries = (generation for generation in plan.generations if generation.kind == "retry")
    return any(part not in done for generation in retries for part in plan.parts_of(generation))


def retried(path: Path, plan: Plan, wanted: pa.Table, text: TextSource | None) -> Plan | None:
    """The plan with a generation of the tracks that failed and are in the source; None where there are none."""
    with FeatureStore.open(path) as store:
        tracks = store.tracks.filter(pa.array(store.newest))
    failed = pc.and_(pc.equal(tracks.column("status"), FAILED), pc.not_equal(tracks.column("reason"), Reason.DROPPED))
    again = wanted.filter(pc.is_in(wanted.column("id"), tracks.filter(failed).column("id")))
    if not again.num_rows:
        return None
    log.info("trying %d failed tracks again", again.num_rows)
    before = len(plan.generations)
    plan = _append(path, plan, "retry", again, text)
    if not _is_ours(path, plan, plan.generations[before], again):
        raise ConfigError(f"{path}: another extraction planned tracks at the same moment; run this again")
    return plan


def _listed(where: str, tracks: pa.Table) -> str:
    return f"{counted(tracks.num_rows, 'track')} {where}: {_first(tracks)}"


def _first(tracks: pa.Table) -> str:
    return join_names(tracks.column("id"))


def track_differences(known: pa.Table, wanted: pa.Table) -> list[str]:
    """Values that differ; both tables hold the same ids, sorted."""
    columns = [name for name in known.column_names if name != "row"]
    if known.select(columns).equals(wanted.select(columns)):
        return []
    changed = [
        f"track {here['id']}, {name}: {here[name]!r} here, {there[name]!r} there"
        for here, there in zip(known.to_pylist(), wanted.to_pylist(), strict=True)
        for name in columns
        if here[name] != there[name]
    ]
    return limit_lines(changed, "values of tracks")
