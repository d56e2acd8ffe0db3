"""Parts that nobody has committed yet: handed out here or to workers, counted as they come back."""

from __future__ import annotations

import logging
import os
import time
from collections import deque
from collections.abc import Collection, Iterator, Mapping, Sequence
from dataclasses import asdict, dataclass, field
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc

from ...cache.format.plan import Plan, read_genres, read_plan
from ...cache.format.plan import read_tracks as read_planned
from ...cache.format.recipe import FeatureSetRecipe, Recipe, TextRecipe
from ...cache.format.records import committed
from ...cache.format.schema import FAILED, OK
from ...cache.format.tables import plan_table
from ...cache.reading.store import Counts, FeatureStore
from ...cache.steps import Progress, silent
from ...cache.writing.commits import finish
from ...cache.writing.creation import add_feature_set
from ..sources.manifest import Source
from ..text.encoder import TextSource, load_encoder
from ..text.genre_embedding import embedded_genres
from .cluster import run_on_cluster
from .job import PartJob
from .options import ExtractOptions
from .part import build_and_commit
from .reconcile import plan_row, planned_tracks, refuse, track_differences

if TYPE_CHECKING:
    from .forecast import Forecast

log = logging.getLogger(__name__)


BUSY_S = 0.5
"""How long a part is left alone that another extraction is at work on."""


@dataclass(kw_only=True)
class PendingParts:
    """Builds what is pending, in this process or on workers.

    Attributes
    ----------
    options : of them `shard` and the workers.
    feature_set : one that was added to the store; None for the store's own features.
    starts_s : by track id, where a clip begins, if not where the recipe says.
    """

    source: Source
    path: Path
    text: TextSource | None
    options: ExtractOptions
    on_progress: Progress
    feature_set: str | None = None
    starts_s: Mapping[str, float] = field(default_factory=dict)

    def __post_init__(self) -> None:
        self._tables: dict[int, pa.Table] = {}
        self._inline = {track.id: track.lyrics for track in self.source.tracks if track.lyrics is not None}

    def build(self, plan: Plan, *, without: Collection[int] = (), again: Mapping[int, int] | None = None) -> int:
        """Parts that were built here, of those not committed yet; or of those whose failed rows are tried `again`.

        Parameters
        ----------
        again : part -> n of the record that is to be replaced.
        """
        decided = committed(self.path, self.feature_set).keys()
        pending = sorted(set(range(plan.n_parts)) - decided - set(without) if again is None else again)
        if self.options.shard is not None:
            i, n = self.options.shard
            pending = [part for part in pending if part % n == i - 1]
        if not pending:
            return 0
        built, failed, planned = 0, 0, sum(len(generation.rows) for generation in plan.generations)
        done = planned - sum(len(plan.part_range(part)) for part in pending)
        self.on_progress("extract", done, planned)
        queue = _Queue(self._job(plan, part, (again or {}).get(part)) for part in _in_own_order(pending))
        workers = self.options.workforce
        if isinstance(workers, int):
            workers = min(workers, len(pending))
        if workers != 0:
            load_encoder.cache_clear()  # what embedded the genres; workers load their own
        for receipt in map(build_and_commit, queue) if workers == 0 else run_on_cluster(queue, workers):
            if receipt["busy"]:
                queue.postpone(receipt["part"])
                continue
            queue.done(receipt["part"])
            built += receipt["built"]
            log.info("part %(part)d: %(ok)d ok, %(failed)d failed, %(seconds).1f s", receipt)
            failed += receipt["failed"]
            done += len(plan.part_range(receipt["part"]))
            self.on_progress("extract", done, planned, f"{failed} failed" if failed else "")
        return built

    def _job(self, plan: Plan, part: int, again: int | None) -> PartJob:
        lyrics: dict[str, str] = {}
        starts_s: dict[str, float] = {}
        if self._inline or self.starts_s:
            generation, rows = plan.generation_of(part), plan.part_range(part)
            if generation.number not in self._tables:
                self._tables[generation.number] = read_planned(self.path, generation)
            table = self._tables[generation.number]
            ids = table.column("id")[rows.start - generation.rows.start : rows.stop - generation.rows.start].to_pylist()
            lyrics = {track_id: self._inline[track_id] for track_id in ids if track_id in self._inline}
            starts_s = {track_id: self.starts_s[track_id] for track_id in ids if track_id in self.starts_s}
        return PartJob(
            store=self.path,
            part=part,
            root=self.source.root,
            text=self.text,
            inline_lyrics=lyrics,
            starts_s=starts_s,
            feature_set=self.feature_set,
            again=again,
        )


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


@dataclass(frozen=True, kw_only=True)
class ExtractReport(Counts):
    """How an extraction ended, and what was predicted for it, if that was asked."""

    store: str
    parts_built: int
    seconds: float
    forecast: Forecast | None = None

    @classmethod
    def of_store(cls, path: Path, feature_set: str | None = None, *, parts_built: int, seconds: float) -> ExtractReport:
        """Count what a store holds, or a feature set of it, after so many parts were built."""
        with FeatureStore.open(path) as store:
            counts = store.counts(feature_set)
        return cls(store=str(path), parts_built=parts_built, seconds=round(seconds, 2), **vars(counts))

    def to_dict(self) -> dict[str, Any]:
        return asdict(self)


def join_set(path: Path, plan: Plan, name: str, recipe: FeatureSetRecipe, text: TextSource | None) -> Plan:
    """The plan with a feature set in it, and of a text encoder's with all genres embedded."""
    known = plan.added.get(name)
    n_genres = 0 if known is None else known.n_genres
    if known is not None and (not isinstance(recipe, TextRecipe) or n_genres == plan.n_genres):
        return plan
    embedding = None
    if isinstance(recipe, TextRecipe) and text is not None:
        named = Recipe(mel=None, lyrics=recipe, genre_names=plan.recipe.genre_names)
        embedding = embedded_genres(read_genres(path, plan)[n_genres:], named, text)
    return add_feature_set(path, plan, name, recipe, embedding)


def retry_failed_rows(path: Path, plan: Plan, name: str) -> dict[int, int]:
    """Part -> n of its record, of every part with a track that failed on features that joined."""
    with FeatureStore.open(path) as store:
        found = store.added_outcomes(name)
        failed = np.asarray(found.filter(pc.equal(found.column("status"), FAILED)).column("row"))
        parts = np.unique(failed[store.status[failed] == OK] // plan.part_rows)
    newest = committed(path, name)
    return {part: newest[part] for part in parts.tolist()}


def build_pending(
    source: Source,
    path: Path,
    options: ExtractOptions,
    *,
    text: TextSource | None,
    feature_set: str | None = None,
    on_progress: Progress = silent,
) -> int:
    """Build those pending parts whose tracks are all in `source`; returns how many were built.

    Parameters
    ----------
    options : of them the workers.
    feature_set : features that joined the store, by name: their parts, of those that the store itself has.
    """
    plan = read_plan(path)
    known, wanted = planned_tracks(path, plan), plan_table(map(plan_row, source.tracks))
    is_wanted = pc.is_in(known.column("id"), wanted.column("id"))
    here = wanted.filter(pc.is_in(wanted.column("id"), known.column("id")))
    refuse(path, track_differences(known.filter(is_wanted), here), "Name the source that the store was made from.")
    missing = known.filter(pc.invert(is_wanted))
    elsewhere = set((np.asarray(missing.column("row")) // plan.part_rows).tolist())
    finish(path)
    if feature_set is not None:
        elsewhere |= set(range(plan.n_parts)) - committed(path).keys()
        plan = join_set(path, plan, feature_set, plan.added[feature_set].recipe, text)
    run = PendingParts(
        source=source, path=path, text=text, options=options, on_progress=on_progress, feature_set=feature_set
    )
    built = run.build(plan, without=elsewhere)
    finish(path)
    return built
