"""Build the parts that are not committed yet, in this process or on workers, and count their outcomes."""

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
import pyarrow.compute as pc

from ...cache.format.plan import Plan, read_genres, read_plan
from ...cache.format.recipe import FeatureSetRecipe, Recipe, TextRecipe
from ...cache.format.records import committed
from ...cache.format.schema import FAILED, OK
from ...cache.reading.store import Counts, FeatureStore
from ...cache.steps import Progress
from ...cache.writing.commits import roll_forward
from ...cache.writing.creation import add_feature_set
from ..sources.manifest import Source
from ..text.encoder import TextSource, embed_prompts, load_encoder
from ..text.lyrics import CLEANING_RULE
from .builder import PartJob
from .cluster import run_on_cluster
from .options import ExtractOptions
from .part import build_and_commit, plan_rows
from .reconcile import newest_tracks, refuse, source_table, track_differences

if TYPE_CHECKING:
    from .forecast import Forecast

log = logging.getLogger(__name__)


BUSY_S = 0.5
"""Delay before a part that another extraction is building is checked again."""


@dataclass(kw_only=True)
class PendingParts:
    """Build pending parts of one store, in this process or on workers.

    Attributes
    ----------
    options : only `shard` and the workers are used.
    feature_set : name of an added feature set; None for the store's own features.
    starts_s : track id -> start of its clip in seconds, for tracks whose start differs from the recipe's.
    """

    source: Source
    path: Path
    text: TextSource | None
    options: ExtractOptions
    on_progress: Progress
    feature_set: str | None = None
    starts_s: Mapping[str, float] = field(default_factory=dict)

    def __post_init__(self) -> None:
        self._inline = {track.id: track.lyrics for track in self.source.tracks if track.lyrics is not None}

    def build(self, plan: Plan, *, skip: Collection[int] = (), retries: Mapping[int, int] | None = None) -> int:
        """Build the parts that are not committed yet, or those of `retries`; return how many were built.

        Parameters
        ----------
        skip : parts not to build.
        retries : part -> number of the commit record whose failed rows are retried.
        """
        if retries is None:
            pending = sorted(set(range(plan.n_parts)) - committed(self.path, self.feature_set).keys() - set(skip))
        else:
            pending = sorted(retries)
        if self.options.shard is not None:
            i, n = self.options.shard
            pending = [part for part in pending if part % n == i - 1]
        if not pending:
            return 0
        built, failed, planned = 0, 0, sum(len(generation.rows) for generation in plan.generations)
        done = planned - sum(len(plan.part_range(part)) for part in pending)
        self.on_progress("extract", done, planned)
        queue = _Queue(self._job(plan, part, (retries or {}).get(part)) for part in _rotate(pending))
        workers = self.options.workforce
        if isinstance(workers, int):
            workers = min(workers, len(pending))
        if workers != 0:
            load_encoder.cache_clear()  # free the encoder that embedded the genres; each worker loads its own
        for receipt in map(build_and_commit, queue) if workers == 0 else run_on_cluster(queue, workers):
            if receipt.busy:
                queue.postpone(receipt.part)
                continue
            queue.finish(receipt.part)
            built += receipt.built
            log.info("part %(part)d: %(ok)d ok, %(failed)d failed, %(seconds).1f s", vars(receipt))
            failed += receipt.failed
            done += len(plan.part_range(receipt.part))
            self.on_progress("extract", done, planned, f"{failed} failed" if failed else "")
        return built

    def build_covered(self) -> int:
        """Build the pending parts whose tracks are all in the source; return how many were built.

        For an added feature set, skip parts that the store itself lacks.
        """
        plan = read_plan(self.path)
        planned, tracks = newest_tracks(self.path, plan), source_table(self.source)
        in_source = pc.is_in(planned.column("id"), tracks.column("id"))
        in_plan = pc.is_in(tracks.column("id"), planned.column("id"))
        differences = track_differences(planned.filter(in_source), tracks.filter(in_plan))
        refuse(self.path, differences, "Use the source that the store was made from.")
        missing = planned.filter(pc.invert(in_source))
        skip = set((np.asarray(missing.column("row")) // plan.part_rows).tolist())
        roll_forward(self.path)
        if self.feature_set is not None:
            skip |= set(range(plan.n_parts)) - committed(self.path).keys()
            plan = self.plan_feature_set(plan, plan.added[self.feature_set].recipe)
        built = self.build(plan, skip=skip)
        roll_forward(self.path)
        return built

    def plan_feature_set(self, plan: Plan, recipe: FeatureSetRecipe) -> Plan:
        """Add the feature set to the plan, for a text encoder with embeddings of all genres; return the plan."""
        assert self.feature_set is not None
        added = plan.added.get(self.feature_set)
        n_genres = 0 if added is None else added.n_genres
        if added is not None and (not isinstance(recipe, TextRecipe) or n_genres == plan.n_genres):
            return plan
        embedding = None
        if isinstance(recipe, TextRecipe) and self.text is not None:
            with_names = Recipe(mel=None, lyrics=recipe, genre_names=plan.recipe.genre_names)
            embedding = embed_prompts(read_genres(self.path, plan)[n_genres:], with_names, self.text)
        return add_feature_set(self.path, plan, self.feature_set, recipe, embedding)

    def records_to_retry(self, plan: Plan) -> dict[int, int]:
        """Return part -> number of its commit record, for every part with a track that failed on the feature set."""
        assert self.feature_set is not None
        with FeatureStore.open(self.path) as store:
            outcomes = store.added_outcomes(self.feature_set)
            failed = np.asarray(outcomes.filter(pc.equal(outcomes.column("status"), FAILED)).column("row"))
            parts = np.unique(failed[store.status[failed] == OK] // plan.part_rows)
        newest = committed(self.path, self.feature_set)
        return {part: newest[part] for part in parts.tolist()}

    def _job(self, plan: Plan, part: int, retry_of: int | None) -> PartJob:
        rows = plan_rows(self.path, plan, part) if self._inline or self.starts_s else []
        ids = [row["id"] for row in rows]
        return PartJob(
            store=self.path,
            part=part,
            root=self.source.root,
            text=self.text,
            inline_lyrics={track_id: self._inline[track_id] for track_id in ids if track_id in self._inline},
            lyrics_encoding=self.source.lyrics_encoding,
            starts_s={track_id: self.starts_s[track_id] for track_id in ids if track_id in self.starts_s},
            feature_set=self.feature_set,
            retry_of=retry_of,
        )


class _Queue(Iterator[PartJob]):
    """Queue of jobs; a job whose part another extraction is building is postponed."""

    def __init__(self, jobs: Iterator[PartJob]) -> None:
        self._jobs = jobs
        self._in_flight: dict[int, PartJob] = {}
        self._postponed: deque[tuple[float, PartJob]] = deque()

    def __next__(self) -> PartJob:
        job = next(self._jobs, None)
        if job is None:
            if not self._postponed:
                raise StopIteration
            due, job = self._postponed.popleft()
            time.sleep(max(0.0, due - time.monotonic()))
        self._in_flight[job.part] = job
        return job

    def postpone(self, part: int) -> None:
        self._postponed.append((time.monotonic() + BUSY_S, self._in_flight.pop(part)))

    def finish(self, part: int) -> None:
        del self._in_flight[part]


def _rotate(parts: Sequence[int]) -> list[int]:
    """Rotate the parts by a hash of the process id, so that concurrent extractions start at different parts."""
    start = int(os.getpid() * 0.6180339887498949 % 1.0 * len(parts))
    return [*parts[start:], *parts[:start]]


@dataclass(frozen=True, kw_only=True)
class ExtractReport(Counts):
    """Result of an extraction, with remarks for the user and the forecast that was made for it."""

    store: str
    parts_built: int
    seconds: float
    forecast: Forecast | None = None
    remarks: tuple[str, ...] = ()

    @classmethod
    def of_store(cls, path: Path, feature_set: str | None = None, *, parts_built: int, seconds: float) -> ExtractReport:
        """Return the report with the current counts of a store, or of one of its added feature sets."""
        with FeatureStore.open(path) as store:
            counts, lyrics = store.counts(feature_set), store.recipe.lyrics
        remarks: tuple[str, ...] = ()
        if parts_built and lyrics is not None and lyrics.cleaning < CLEANING_RULE:
            remarks = (
                f"lyrics were cleaned by rule {lyrics.cleaning}, as in the rest of this store; a new store uses rule "
                f"{CLEANING_RULE}, which removes time stamps",
            )
        return cls(store=str(path), parts_built=parts_built, seconds=round(seconds, 2), remarks=remarks, **vars(counts))

    def to_dict(self) -> dict[str, Any]:
        return asdict(self)
