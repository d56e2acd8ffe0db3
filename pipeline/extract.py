"""From a source to a store: freeze the plan, build what no one has committed yet, count what came out.

Resuming is plan minus commits; a source or recipe that differs from the store's plan is refused with the differences.
Tracks join a store as new generations of its plan: appended ones, and failed ones to be tried again.
"""

from __future__ import annotations

import logging
import os
import time
from collections import deque
from collections.abc import Callable, Collection, Iterator, Mapping, Sequence
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np
import numpy.typing as npt
import pyarrow as pa
import pyarrow.compute as pc

from ..cache.commits import committed, finish
from ..cache.errors import ConfigError, RecipeMismatchError
from ..cache.plan import (
    PLAN_FILE,
    Generation,
    Kind,
    Plan,
    add_feature_set,
    append_generation,
    create_store,
    read_genres,
    read_plan,
)
from ..cache.plan import read_tracks as read_planned
from ..cache.schema import FAILED, FeatureSetRecipe, Reason, Recipe, TextRecipe, fingerprint
from ..cache.store import Counts, FeatureStore
from ..cache.tracks import plan_table
from .extractors import NAME
from .manifest import Source, Track
from .parts import PartJob, TextSource, build_and_commit, load_encoder
from .workers import Scheduler, run_on_cluster

if TYPE_CHECKING:
    from .forecast import Forecast

log = logging.getLogger(__name__)

BUSY_S = 0.5
"""How long a part is left alone that another extraction is at work on."""


@dataclass(frozen=True, kw_only=True)
class Progress:
    """How far an extraction is, in tracks; told after each part."""

    done: int
    planned: int
    failed: int


@dataclass(frozen=True, kw_only=True)
class ExtractReport(Counts):
    """How an extraction ended, and what was predicted for it, if that was asked."""

    store: str
    parts_built: int
    seconds: float
    forecast: Forecast | None = None

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
    append: bool = False,
    retry_failed: bool = False,
    workers: int | Scheduler = 0,
    shard: tuple[int, int] | None = None,
    starts_s: Mapping[str, float] | None = None,
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
    append : let tracks of `source` that the store does not plan join it; those it holds may be missing from `source`.
    retry_failed : try failed tracks of `source` again, in new rows. A retry that was cut off is finished first, and
        is then all that is done.
    workers : local Dask worker processes, or a scheduler that has its own; 0 runs in this process.
    shard : (i, n), i from 1 to n: build only every n-th part, for job arrays.
    starts_s : by track id, where a clip begins, if not where the recipe says. The plan does not hold it: for stores
        that are thrown away.
    on_progress : told after each part.

    Raises
    ------
    RecipeMismatchError
        If the store was planned with another recipe, or from other tracks.
    """
    started = time.monotonic()
    if text is not None and recipe.lyrics is not None:
        log.info("text encoder %s, weights %s", recipe.lyrics.model, recipe.lyrics.weights_sha256[:12])
    wanted = plan_table(map(plan_row, source.tracks))
    if not (path / PLAN_FILE).is_file():
        _refuse_other_content(path)
        _create(path, wanted, recipe, text if embed_genres else None, part_rows)
    plan = read_plan(path)
    _refuse_other_recipe(path, plan, recipe, part_rows, embed_genres)
    finish(path)
    retry_is_due = retry_failed and not _retry_is_under_way(path, plan)
    plan = _joined(path, plan, wanted, text, append=append, may_change=retry_failed)
    run = _Run(source, path, text, workers, shard, on_progress, starts_s=starts_s)
    parts_built = run.build(plan)
    if retry_is_due:
        retried = _retried(path, plan, wanted, text)
        parts_built += run.build(retried) if retried is not None else 0
    finish(path)
    with FeatureStore.open(path) as store:
        counts = store.counts()
    seconds = round(time.monotonic() - started, 2)
    return ExtractReport(store=str(path), parts_built=parts_built, seconds=seconds, **vars(counts))


def add_features(
    source: Source,
    path: Path,
    name: str,
    *,
    recipe: FeatureSetRecipe,
    text: TextSource | None = None,
    workers: int | Scheduler = 0,
    shard: tuple[int, int] | None = None,
    on_progress: Callable[[Progress], None] | None = None,
) -> ExtractReport:
    """Let the features of another text encoder, or of an extractor, join a store; nothing that is written is touched.

    Parts that are extracted get them; parts that are extracted later get them when this is run again.

    Parameters
    ----------
    name : what the store calls them; of an extractor, its own name.
    text : where the text encoder of a :class:`~mgc.cache.schema.TextRecipe` lies.

    Raises
    ------
    ConfigError
        If the name will not do, or the store or the source is not the one.
    RecipeMismatchError
        If the store has features of that name, by another recipe.
    """
    started = time.monotonic()
    if not NAME.fullmatch(name):
        raise ConfigError(f"--add {name!r}: want a short name of lower-case letters, digits and _, such as minilm")
    plan = read_plan(path)
    if isinstance(recipe, TextRecipe) and plan.recipe.lyrics is None:
        raise ConfigError(f"{path}: a store without text features; other ones join those that are there")
    finish(path)
    wanted = plan_table(map(plan_row, source.tracks))
    plan = _joined(path, plan, wanted, text, append=False, may_change=False)
    known = plan.added.get(name)
    if known is not None:
        _refuse(path, _set_differences(known.recipe, recipe), f"Use the same to continue {name!r}, or another name.")
    n_genres = 0 if known is None else known.n_genres
    if known is None or (isinstance(recipe, TextRecipe) and n_genres < plan.n_genres):
        embedding = None
        if isinstance(recipe, TextRecipe) and text is not None:
            named = Recipe(mel=None, lyrics=recipe, genre_names=plan.recipe.genre_names)
            embedding = embedded_genres(read_genres(path, plan)[n_genres:], named, text)
        plan = add_feature_set(path, plan, name, recipe, embedding)
        _refuse(path, _set_differences(plan.added[name].recipe, recipe), "Name another.")
    pending = set(range(plan.n_parts)) - committed(path).keys()
    built = _Run(source, path, text, workers, shard, on_progress, feature_set=name).build(plan, without=pending)
    finish(path)
    with FeatureStore.open(path) as store:
        counts = store.counts(name)
    seconds = round(time.monotonic() - started, 2)
    return ExtractReport(store=str(path), parts_built=built, seconds=seconds, **vars(counts))


def _set_differences(known: FeatureSetRecipe, wanted: FeatureSetRecipe) -> list[str]:
    """What decides the values and is not the same; a text model's name only tells people."""
    here, there = asdict(known), asdict(wanted)
    return [
        f"{key}: {here.get(key, 'absent')} here, {there.get(key, 'absent')} there"
        for key in sorted({*here, *there} - {"model"})
        if here.get(key) != there.get(key)
    ]


def build_pending(
    source: Source,
    path: Path,
    *,
    text: TextSource | None,
    workers: int | Scheduler = 0,
    on_progress: Callable[[Progress], None] | None = None,
) -> int:
    """Build those pending parts whose tracks are all in `source`; returns how many were built."""
    plan = read_plan(path)
    known, wanted = _planned(path, plan), plan_table(map(plan_row, source.tracks))
    is_wanted = pc.is_in(known.column("id"), wanted.column("id"))
    here = wanted.filter(pc.is_in(wanted.column("id"), known.column("id")))
    _refuse(path, _track_differences(known.filter(is_wanted), here), "Name the source that the store was made from.")
    missing = known.filter(pc.invert(is_wanted))
    elsewhere = set((np.asarray(missing.column("row")) // plan.part_rows).tolist())
    finish(path)
    built = _Run(source, path, text, workers, None, on_progress).build(plan, without=elsewhere)
    finish(path)
    return built


class _Run:
    """Builds what is pending, here or on workers."""

    def __init__(
        self,
        source: Source,
        path: Path,
        text: TextSource | None,
        workers: int | Scheduler,
        shard: tuple[int, int] | None,
        on_progress: Callable[[Progress], None] | None,
        feature_set: str | None = None,
        starts_s: Mapping[str, float] | None = None,
    ) -> None:
        self._source, self._path, self._text, self._feature_set = source, path, text, feature_set
        self._starts_s = starts_s or {}
        self._workers, self._shard, self._on_progress = workers, shard, on_progress
        self._planned: dict[int, pa.Table] = {}
        self._inline = {track.id: track.lyrics for track in source.tracks if track.lyrics is not None}

    def build(self, plan: Plan, *, without: Collection[int] = ()) -> int:
        """Parts that were built here, of those not committed yet."""
        pending = sorted(set(range(plan.n_parts)) - committed(self._path, self._feature_set).keys() - set(without))
        if self._shard is not None:
            i, n = self._shard
            pending = [part for part in pending if part % n == i - 1]
        if not pending:
            return 0
        tell, built = _Teller(plan, pending, self._on_progress), 0
        queue = _Queue(self._job(plan, part) for part in _in_own_order(pending))
        some = min(self._workers, len(pending)) if isinstance(self._workers, int) else self._workers
        for receipt in map(build_and_commit, queue) if some == 0 else run_on_cluster(queue, some):
            if receipt["busy"]:
                queue.postpone(receipt["part"])
                continue
            queue.done(receipt["part"])
            built += receipt["built"]
            log.info("part %(part)d: %(ok)d ok, %(failed)d failed, %(seconds).1f s", receipt)
            tell(receipt)
        return built

    def _job(self, plan: Plan, part: int) -> PartJob:
        lyrics: dict[str, str] = {}
        starts_s: dict[str, float] = {}
        if self._inline or self._starts_s:
            generation, rows = plan.generation_of(part), plan.part_range(part)
            if generation.number not in self._planned:
                self._planned[generation.number] = read_planned(self._path, plan, generation)
            table = self._planned[generation.number]
            ids = table.column("id")[rows.start - generation.rows.start : rows.stop - generation.rows.start].to_pylist()
            lyrics = {track_id: self._inline[track_id] for track_id in ids if track_id in self._inline}
            starts_s = {track_id: self._starts_s[track_id] for track_id in ids if track_id in self._starts_s}
        return PartJob(store=self._path, part=part, root=self._source.root, text=self._text, inline_lyrics=lyrics,
                       starts_s=starts_s, feature_set=self._feature_set)  # fmt: skip


class _Queue(Iterator[PartJob]):
    """Jobs to hand out; one that another extraction is at work on comes again a little later."""

    def __init__(self, jobs: Iterator[PartJob]) -> None:
        self._jobs = jobs
        self._out: dict[int, PartJob] = {}
        self._later: deque[tuple[float, PartJob]] = deque()

    def __next__(self) -> PartJob:
        job = next(self._jobs, None)
        if job is None:
            if not self._later:
                raise StopIteration
            due, job = self._later.popleft()
            time.sleep(max(0.0, due - time.monotonic()))
        self._out[job.part] = job
        return job

    def postpone(self, part: int) -> None:
        self._later.append((time.monotonic() + BUSY_S, self._out.pop(part)))

    def done(self, part: int) -> None:
        del self._out[part]


def _in_own_order(parts: Sequence[int]) -> list[int]:
    """Ascending parts from a place of this process's own: two extractions of one store then share it."""
    start = int(os.getpid() * 0.6180339887498949 % 1.0 * len(parts))
    return [*parts[start:], *parts[:start]]


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


def _create(path: Path, tracks: pa.Table, recipe: Recipe, text: TextSource | None, part_rows: int | None) -> None:
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


def default_part_rows(n_tracks: int) -> int:
    """Rows a part of a store that is made with so many tracks."""
    return 128 if n_tracks >= 2048 else 16


def _genres_of(tracks: pa.Table) -> list[str]:
    return sorted(pc.unique(pc.list_flatten(tracks.column("genres"))).to_pylist())


def embedded_genres(genres: list[str], recipe: Recipe, text: TextSource) -> npt.NDArray[np.float32]:
    """(genre, text_dim) float32: what the encoder of `recipe` makes of genres, read aloud as the recipe says."""
    assert recipe.lyrics is not None
    if not genres:
        return np.zeros((0, recipe.lyrics.hidden_size), dtype=np.float32)
    from .genres import embed_genres

    read_aloud = [recipe.genre_names.get(genre, genre) for genre in genres]
    return embed_genres(load_encoder(text, recipe.lyrics), read_aloud)


def _refuse_other_content(path: Path) -> None:
    if path.is_file():
        raise ConfigError(f"{path}: a file is in the way; name a folder for the store (such as {path.name}.zarr)")
    if path.is_dir() and any(path.iterdir()):
        raise ConfigError(f"{path}: this folder holds something else than a feature store; name another")


def _refuse_other_recipe(path: Path, plan: Plan, recipe: Recipe, part_rows: int | None, embed_genres: bool) -> None:
    # Hashes decide which text model it is; a folder may have been renamed.
    differences = [d for d in plan.recipe.differences(recipe) if not d.startswith("lyrics.model:")]
    if (embed_genres and recipe.lyrics is not None) != plan.embeds_genres:
        differences.append(f"genres: {'embedded' if plan.embeds_genres else 'absent'} here, the opposite there")
    if part_rows is not None and part_rows != plan.part_rows:
        differences.append(f"part_rows: {plan.part_rows} here, {part_rows} there")
    way_on = "Use the same options to continue it, or name another store."
    if any(line.startswith("genre_names.") for line in differences):
        way_on += " `mgc store select STORE -o OTHER --genre-names FILE` copies a store with other genre names."
    _refuse(path, _shortened(differences), way_on)


def _shortened(differences: Sequence[str]) -> list[str]:
    """A map of genre names may be long: five of its differences will do."""
    names = [line for line in differences if line.startswith("genre_names.")]
    rest = [line for line in differences if line not in names]
    return [*rest, *names[:5], *([f"... and {len(names) - 5} more genre names"] if len(names) > 5 else [])]


def _refuse(path: Path, differences: Sequence[str], way_on: str) -> None:
    if differences:
        listed = "\n  ".join(differences)
        raise RecipeMismatchError(
            f"{path} was made from something else (here: the store, there: this command):\n  {listed}\n{way_on}"
        )


def _planned(path: Path, plan: Plan) -> pa.Table:
    """All planned tracks, the newest row of each, sorted by id."""
    tracks = pa.concat_tables([read_planned(path, plan, generation) for generation in plan.generations])
    if any(generation.kind == "retry" for generation in plan.generations):
        newest = tracks.group_by("id").aggregate([("row", "max")]).column("row_max")
        tracks = tracks.filter(pc.is_in(tracks.column("row"), newest))
    return tracks.sort_by("id") if len(plan.generations) > 1 else tracks


def _joined(
    path: Path, plan: Plan, wanted: pa.Table, text: TextSource | None, *, append: bool, may_change: bool
) -> Plan:
    """The plan with the tracks of the source in it; refuses a source that is not the store's."""
    while True:
        known = _planned(path, plan)
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
            differences += _track_differences(known.filter(is_wanted), wanted.filter(is_known))
        hint = " New tracks join a store with --append." if new.num_rows and not append else ""
        _refuse(path, differences, f"Use the same source to continue it, or name another store.{hint}")
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
            f"{path}: {int(pending.sum())} tracks that the store plans are not extracted yet and not in this source: "
            f"{_first(missing.filter(pa.array(pending)))}; finish the extraction of their source first"
        )


def _append(path: Path, plan: Plan, kind: Kind, tracks: pa.Table, text: TextSource | None) -> Plan:
    genres = sorted(set(_genres_of(tracks)) - set(read_genres(path, plan)))
    embedding = embedded_genres(genres, plan.recipe, text) if plan.embeds_genres and text is not None else None
    return append_generation(path, plan, kind, tracks, new_genres=genres, genre_embedding=embedding)


def _is_ours(path: Path, plan: Plan, generation: Generation, tracks: pa.Table) -> bool:
    decided = read_planned(path, plan, generation)
    return bool(decided.drop_columns(["row"]).equals(tracks.drop_columns(["row"])))


def _retry_is_under_way(path: Path, plan: Plan) -> bool:
    done = committed(path).keys()
    retries = (generation for generation in plan.generations if generation.kind == "retry")
    return any(part not in done for generation in retries for part in plan.parts_of(generation))


def _retried(path: Path, plan: Plan, wanted: pa.Table, text: TextSource | None) -> Plan | None:
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
    return f"{tracks.num_rows} tracks {where}: {_first(tracks)}"


def _first(tracks: pa.Table) -> str:
    return ", ".join(tracks.column("id")[:5].to_pylist()) + (" ..." if tracks.num_rows > 5 else "")


def _track_differences(known: pa.Table, wanted: pa.Table) -> list[str]:
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
    return changed[:5] + ([f"... and {len(changed) - 5} more values of tracks"] if len(changed) > 5 else [])


class _Teller:
    """Adds up receipts and tells how far the extraction is."""

    def __init__(
        self,
        plan: Plan,
        pending: Collection[int],
        on_progress: Callable[[Progress], None] | None,
    ) -> None:
        self._planned = sum(len(generation.rows) for generation in plan.generations)
        self._done = self._planned - sum(len(plan.part_range(part)) for part in pending)
        self._failed = 0
        self._tell = on_progress or (lambda _: None)
        self._tell(Progress(done=self._done, planned=self._planned, failed=0))

    def __call__(self, receipt: Mapping[str, Any]) -> None:
        self._failed += receipt["failed"]
        self._done += receipt["ok"] + receipt["failed"]
        self._tell(Progress(done=self._done, planned=self._planned, failed=self._failed))
