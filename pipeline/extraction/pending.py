"""Build the parts that are not committed yet, in this process or on workers, and count their outcomes."""

from __future__ import annotations

import logging
import os
import time
from collections import deque
from collections.abc import Collection, Iterator, Mapping, Sequence
from dataclasses import asdict, dataclass, field
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow.compute as pc

from ...cache.format.plan import Plan, read_genres, read_plan
from ...cache.format.recipe import ExtractorRecipe, FeatureSetRecipe, Recipe, TextRecipe
from ...cache.format.records import committed
from ...cache.format.schema import FAILED, OK
from ...cache.reading.outcomes import Counts
from ...cache.reading.store import FeatureStore
from ...cache.steps import Progress
from ...cache.writing.commits import roll_forward
from ...cache.writing.creation import add_feature_set
from ...cache.writing.remote import address
from ..extractors.pretrained import AudioSource, release
from ..sources.manifest import Source
from ..text.encoder import TextSource, embed_prompts, load_encoder
from ..text.lyrics import CLEANING_RULE
from .builder import PartJob
from .cluster import run_on_cluster
from .forecast import IN_PROCESS_S, Forecast, load_forecast, rough_work_s
from .options import ExtractOptions, Scheduler
from .part import Receipt, build_and_commit, is_claimed, plan_rows
from .reconcile import newest_tracks, refuse, source_table, track_differences

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
    audio : location of the audio encoder of the feature set, if it has one.
    starts_s : track id -> start of its clip in seconds, for tracks whose start differs from the recipe's.
    remarks : the choice of workers, for the user.
    """

    source: Source
    path: Path
    text: TextSource | None
    options: ExtractOptions
    on_progress: Progress
    feature_set: str | None = None
    audio: AudioSource | None = None
    starts_s: Mapping[str, float] = field(default_factory=dict)
    remarks: list[str] = field(default_factory=list, init=False)

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
        workers, is_automatic = self._choose_workers(plan, pending)
        if workers == 0:
            receipts = _build_here(queue, one_thread=is_automatic and self.text is not None)
        else:
            load_encoder.cache_clear()  # free the encoder that embedded the genres; each worker loads its own
            release()  # and the audio encoder that was loaded to check it
            receipts = run_on_cluster(queue, workers)
        for receipt in receipts:
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

    def _choose_workers(self, plan: Plan, pending: Sequence[int]) -> tuple[int | Scheduler, bool]:
        """Return where to build; and whether this process was chosen because there is little work.

        If a process has ended while it built a part, its claim remains, and the next run starts workers: a part that
        ends a worker is probed for the track at fault. Extractors get workers, because their work is not known.
        """
        workers = self.options.workforce
        if not isinstance(workers, int):
            return workers, False
        recipe = plan.recipe if self.feature_set is None else plan.added[self.feature_set].recipe
        workers = min(workers, len(pending))
        if self.options.workers is not None or self.options.shard is not None or isinstance(recipe, ExtractorRecipe):
            return workers, False
        work_s = self._work_s(recipe, sum(len(plan.part_range(part)) for part in pending))
        # Looked up last: a file system call per part.
        if work_s >= IN_PROCESS_S or any(is_claimed(self.path, part, self.feature_set) for part in pending):
            return workers, False
        start = "" if self.text is None else ", plus the time to load the text encoder"
        self.remarks.append(
            f"extracting in the main process: about {max(1.0, work_s):.0f} s for the tracks{start} (--workers N starts "
            "worker processes)"
        )
        return 0, True

    def _work_s(self, recipe: Recipe | TextRecipe, n_tracks: int) -> float:
        """Return how many seconds one core needs for so many tracks: by the trial of `mgc plan`, else roughly."""
        predicted = load_forecast(self.path)
        if predicted is not None and self.feature_set is None:
            return predicted.track_s * n_tracks
        tracks = self.source.tracks
        n_lyrics = sum(track.lyrics is not None or track.lyrics_path is not None for track in tracks)
        whole = recipe if isinstance(recipe, Recipe) else Recipe(mel=None, lyrics=recipe)
        return rough_work_s(whole, n_tracks, round(n_tracks * n_lyrics / max(1, len(tracks))))

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
        with FeatureStore.open(address(self.path)) as store:
            outcomes = store.added_outcomes(self.feature_set)
            failed = np.asarray(outcomes.filter(pc.equal(outcomes.column("status"), FAILED)).column("row"))
            parts = np.unique(failed[store.status[failed] == OK] // plan.part_rows)
        newest = committed(self.path, self.feature_set)
        return {part: newest[part] for part in parts.tolist()}

    def _job(self, plan: Plan, part: int, retry_of: int | None) -> PartJob:
        rows = plan_rows(self.path, plan, part) if self._inline or self.starts_s else []
        ids = [row["id"] for row in rows]
        return PartJob(
            store=address(self.path),
            part=part,
            root=self.source.root,
            text=self.text,
            audio=self.audio,
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


def _build_here(jobs: Iterator[PartJob], *, one_thread: bool) -> Iterator[Receipt]:
    """Build parts in this process, with `one_thread` so that the encoder gives the same bits as on workers."""
    if not one_thread:
        yield from map(build_and_commit, jobs)
        return
    import torch

    before = torch.get_num_threads()
    torch.set_num_threads(1)
    try:
        yield from map(build_and_commit, jobs)
    finally:
        torch.set_num_threads(before)


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
    def of_store(
        cls,
        path: Path,
        feature_set: str | None = None,
        *,
        parts_built: int,
        seconds: float,
        remarks: Sequence[str] = (),
    ) -> ExtractReport:
        """Return the report with the current counts of a store, or of one of its added feature sets."""
        with FeatureStore.open(address(path)) as opened:
            counts, lyrics = opened.counts(feature_set), opened.recipe.lyrics
        if parts_built and lyrics is not None and lyrics.cleaning < CLEANING_RULE:
            remarks = (
                *remarks,
                f"lyrics were cleaned by rule {lyrics.cleaning}, as in the rest of this store; a new store uses rule "
                f"{CLEANING_RULE}, which removes time stamps",
            )
        return cls(
            store=str(address(path)),
            parts_built=parts_built,
            seconds=round(seconds, 2),
            remarks=tuple(remarks),
            **vars(counts),
        )

    def to_dict(self) -> dict[str, Any]:
        return asdict(self)
