"""From a source to a store: freeze the plan, build what no one has committed yet, count what came out.

Resuming is plan minus commits; a source or recipe that differs from the store's plan is refused with the differences.
"""

from __future__ import annotations

import logging
import os
import time
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt
import pyarrow as pa

from ..cache import zarr_store
from ..cache.errors import ConfigError, RecipeMismatchError
from ..cache.schema import Recipe, fingerprint
from ..cache.store import Counts, FeatureStore
from ..cache.tracks import PLAN_SCHEMA, plan_table, read_table
from .manifest import Source, Track
from .parts import PartJob, TextSource, build_and_commit
from .workers import run_on_cluster

log = logging.getLogger(__name__)


@dataclass(frozen=True, kw_only=True)
class Progress:
    """How far an extraction is, in tracks; told after each part."""

    done: int
    planned: int
    failed: int


@dataclass(frozen=True, kw_only=True)
class ExtractReport(Counts):
    """How an extraction ended."""

    store: str
    parts_built: int
    seconds: float

    def to_dict(self) -> dict[str, Any]:
        return asdict(self)


def extract(
    source: Source,
    path: Path,
    *,
    recipe: Recipe,
    text: TextSource | None,
    embed_genres: bool = True,
    part_rows: int | None = None,
    workers: int = 0,
    on_progress: Callable[[Progress], None] | None = None,
) -> ExtractReport:
    """Bring the store at `path` to hold every track of `source`, as ok or failed with a reason.

    Parameters
    ----------
    source : the tracks, and the root their paths are relative to.
    path : the store; made where there is none, continued where there is one.
    recipe : what to compute; must equal the recipe of a store that exists.
    text : where the text encoder of ``recipe.lyrics`` lies on this machine; loaded only when a text needs it.
    embed_genres : embed the names of all genres of the source when the store is made.
    part_rows : rows a part; None takes 128, or 16 below 2 048 tracks. Frozen when the store is made.
    workers : local Dask worker processes; 0 runs in this process.
    on_progress : told after each part.

    Raises
    ------
    RecipeMismatchError
        If the store was planned with another recipe, or from other tracks.
    """
    started = time.monotonic()
    if text is not None and recipe.lyrics is not None:
        log.info("text encoder %s, weights %s", recipe.lyrics.model, recipe.lyrics.weights_sha256[:12])
    tracks = plan_table([_plan_row(track) for track in source.tracks])
    if not (path / "plan.json").is_file():
        _refuse_other_content(path)
        _create(path, tracks, recipe, text if embed_genres else None, part_rows)
    plan = zarr_store.read_plan(path)
    _refuse_other_plan(path, plan, tracks, recipe, part_rows, embed_genres)
    zarr_store.finish(path)
    pending = _in_own_order(set(range(zarr_store.n_parts(plan))) - zarr_store.committed_parts(path))
    parts_built = 0
    if pending:
        tell = _Teller(plan, pending, on_progress)
        jobs = _jobs(source, path, plan, tracks, text, pending)
        here = workers == 0
        for receipt in map(build_and_commit, jobs) if here else run_on_cluster(jobs, min(workers, len(pending))):
            parts_built += receipt["built"]
            log.info("part %(part)d: %(ok)d ok, %(failed)d failed, %(seconds).1f s", receipt)
            tell(receipt)
        zarr_store.finish(path)
    with FeatureStore.open(path) as store:
        counts = store.counts()
    seconds = round(time.monotonic() - started, 2)
    return ExtractReport(store=str(path), parts_built=parts_built, seconds=seconds, **vars(counts))


def _in_own_order(parts: set[int]) -> list[int]:
    """Parts in ascending order from a place of this process's own: two extractions of one store then share it."""
    ordered = sorted(parts)
    start = int(os.getpid() * 0.6180339887498949 % 1.0 * len(ordered)) if ordered else 0
    return ordered[start:] + ordered[:start]


def _plan_row(track: Track) -> dict[str, Any]:
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


def _create(path: Path, tracks: pa.Table, recipe: Recipe, text: TextSource | None, part_rows: int | None) -> None:
    if tracks.num_rows == 0:
        raise ConfigError("no tracks to extract: the source is empty, or the filters kept nothing")
    genres = sorted({genre for genres in tracks.column("genres").to_pylist() for genre in genres})
    embedding: npt.NDArray[np.float32] | None = None
    if recipe.lyrics is not None and text is not None and genres:
        from .genres import embed_genres
        from .parts import load_encoder

        embedding = embed_genres(load_encoder(text, recipe.lyrics), genres)
    zarr_store.create_store(
        path,
        tracks=tracks,
        recipe=recipe,
        part_rows=part_rows or (128 if tracks.num_rows >= 2048 else 16),
        genres=genres,
        genre_embedding=embedding,
    )


def _refuse_other_content(path: Path) -> None:
    if path.is_file():
        raise ConfigError(f"{path}: a file is in the way; name a folder for the store (such as {path.name}.zarr)")
    if path.is_dir() and any(path.iterdir()):
        raise ConfigError(f"{path}: this folder holds something else than a feature store; name another")


def _refuse_other_plan(
    path: Path,
    plan: Mapping[str, Any],
    tracks: pa.Table,
    recipe: Recipe,
    part_rows: int | None,
    embed_genres: bool,
) -> None:
    # Hashes decide which text model it is; a folder may have been renamed.
    differences = [d for d in Recipe.from_dict(plan["recipe"]).differences(recipe) if not d.startswith("lyrics.model:")]
    wanted = embed_genres and recipe.lyrics is not None and plan["generations"][0]["n_genres"] > 0
    embedded = (path / "genre_embedding").is_dir()
    if wanted != embedded:
        differences.append(f"genres: {'embedded' if embedded else 'absent'} here, the opposite there")
    if part_rows is not None and part_rows != plan["part_rows"]:
        differences.append(f"part_rows: {plan['part_rows']} here, {part_rows} there")
    planned = read_table(path / "tracks" / "0.parquet", PLAN_SCHEMA)
    if not differences and not planned.equals(tracks):
        differences = list(_track_differences(planned, tracks))
    if differences:
        listed = "\n  ".join(differences)
        raise RecipeMismatchError(
            f"{path} was made from something else (here: the store, there: this command):\n  {listed}\n"
            "Use the same source and options to continue it, or name another store."
        )


def _track_differences(planned: pa.Table, wanted: pa.Table) -> Iterator[str]:
    here = {row["id"]: row for row in planned.drop_columns(["row"]).to_pylist()}
    there = {row["id"]: row for row in wanted.drop_columns(["row"]).to_pylist()}
    for title, ids in (("only here", here.keys() - there.keys()), ("only there", there.keys() - here.keys())):
        if ids:
            yield f"{len(ids)} tracks {title}: {', '.join(sorted(ids)[:5])}{' ...' if len(ids) > 5 else ''}"
    changed = [
        (key, name)
        for key in sorted(here.keys() & there.keys())
        for name in here[key]
        if here[key][name] != there[key][name]
    ]
    for key, name in changed[:5]:
        yield f"track {key}, {name}: {here[key][name]!r} here, {there[key][name]!r} there"
    if len(changed) > 5:
        yield f"... and {len(changed) - 5} more values of tracks"


def _jobs(
    source: Source,
    path: Path,
    plan: Mapping[str, Any],
    tracks: pa.Table,
    text: TextSource | None,
    pending: Sequence[int],
) -> Iterator[PartJob]:
    inline = {track.id: track.lyrics for track in source.tracks if track.lyrics is not None}
    for part in pending:
        rows = zarr_store.part_range(plan, part)
        ids = tracks.column("id")[rows.start : rows.stop].to_pylist() if inline else []
        lyrics = {track_id: inline[track_id] for track_id in ids if track_id in inline}
        yield PartJob(store=path, part=part, root=source.root, text=text, inline_lyrics=lyrics)


class _Teller:
    """Adds up receipts and tells how far the extraction is."""

    def __init__(
        self,
        plan: Mapping[str, Any],
        pending: Sequence[int],
        on_progress: Callable[[Progress], None] | None,
    ) -> None:
        self._planned = zarr_store.n_tracks(plan)
        self._done = self._planned - sum(len(zarr_store.part_range(plan, part)) for part in pending)
        self._failed = 0
        self._tell = on_progress or (lambda _: None)
        self._tell(Progress(done=self._done, planned=self._planned, failed=0))

    def __call__(self, receipt: Mapping[str, Any]) -> None:
        self._failed += receipt["failed"]
        self._done += receipt["ok"] + receipt["failed"]
        self._tell(Progress(done=self._done, planned=self._planned, failed=self._failed))
