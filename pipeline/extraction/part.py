"""One part, one task: decode its clips, embed its lyrics, commit. Runs in any process that sees the store."""

from __future__ import annotations

import contextlib
import functools
import json
import os
import socket
import threading
import time
from collections.abc import Callable, Mapping
from contextlib import AbstractContextManager
from pathlib import Path
from typing import Any

import pyarrow as pa

from ...cache.claims import hold
from ...cache.errors import ConfigError
from ...cache.format.plan import Generation, Plan, read_plan, read_tracks
from ...cache.format.recipe import MelRecipe, TextRecipe
from ...cache.format.records import commit_key, read_commit
from ...cache.format.schema import FAILED
from ...cache.machine import reuse_freed_blocks
from ...cache.writing.commits import commit_part
from ...cache.writing.publish import STAGING
from ...cache.writing.takedowns import dropped_ids
from ..audio.clip_reader import ClipReader
from ..text.encoder import TextEncoder, load_encoder
from .added_builders import AddedTextBuilder, ExtractorBuilder
from .builder import PartBuilder
from .job import PartJob

_ONE_AT_A_TIME = threading.Lock()
"""The decoder child and the encoder of a process serve one part at a time, however many threads a worker has."""


def build_and_commit(job: PartJob) -> dict[str, Any]:
    """Build one part and publish it.

    Returns
    -------
    dict
        A receipt under 1 kB: part, counts of ok and failed tracks, seconds; ``built`` is False where another extraction
        had committed the part meanwhile, ``busy`` True where another is at work on it (there are no counts then).
    """
    started = time.monotonic()
    reuse_freed_blocks()
    plan = read_plan(job.store)
    with _ONE_AT_A_TIME, claim(job.store, job.part, job.feature_set, over=job.takes_over) as claimed:
        record = read_commit(job.store, job.part, job.feature_set)
        if record is not None and record["n"] != job.again:
            return {"part": job.part, **record["counts"], "seconds": 0.0, "built": False, "busy": False}
        if not claimed:
            return {"part": job.part, "built": False, "busy": True}
        tracks, builder = _plan_rows(job.store, plan, job.part), _builder(job, plan)
        tried = builder.take_over(tracks)
        made = builder.build(tried, dropped=dropped_ids(job.store))
        table = pa.Table.from_pylist(builder.with_kept(tried, made), schema=builder.outcome_schema)
        record = commit_part(job.store, job.part, builder.arrays, table, feature_set=job.feature_set, plan=plan,
                             again=job.again is not None)  # fmt: skip
    seconds = round(time.monotonic() - started, 3)
    receipt = {"part": job.part, **record["counts"], "seconds": seconds, "built": True, "busy": False}
    failed = {track["id"]: outcome["reason"] for track, outcome in zip(tried.values(), made, strict=True)
              if outcome["status"] == FAILED and not builder.failed_before(track)}  # fmt: skip
    if job.feature_set is not None:
        receipt["failed"] = len(failed)  # in what joins; a track that the store itself lacks was not tried
    told = {**receipt, "failed_tracks": failed, **({"stderr": builder.stderr} if builder.stderr else {})}
    _log(job.store, told if job.feature_set is None else {**told, "feature_set": plan.sha256_of(job.feature_set)})
    return receipt


def claim(
    store: Path, part: int, feature_set: str | None = None, *, over: bool = False
) -> AbstractContextManager[bool]:
    """Claim a part while it is built (:func:`mgc.cache.claims.hold`): extractions of one store share its parts."""
    label = commit_key(part, 0, feature_set).removesuffix(".json").replace("/", "+")
    return hold(store / STAGING / f"{label}~claim", over=over)


def go_through(job: PartJob, start: int, tell: Callable[[int], None]) -> None:
    """Work on a part's tracks from array row `start` on and keep nothing; `tell` is called with each row first."""
    plan = read_plan(job.store)
    builder = _builder(job, plan)
    for i, track in builder.take_over(_plan_rows(job.store, plan, job.part)).items():
        if track["row"] >= start:
            tell(track["row"])
            builder.build({i: track})


@functools.lru_cache(maxsize=1)
def _clip_reader(recipe: MelRecipe) -> ClipReader:
    """The decoder child of this process; it ends with it."""
    return ClipReader(recipe)


@functools.lru_cache(maxsize=1)
def _sample_reader(recipe: MelRecipe) -> ClipReader:
    """The same for extractors, which want the sound itself."""
    return ClipReader(recipe, form="samples")


@functools.lru_cache(maxsize=2)
def _generation_tracks(store: Path, generation: Generation) -> pa.Table:
    return read_tracks(store, generation)


def _plan_rows(store: Path, plan: Plan, part: int) -> list[dict[str, Any]]:
    generation, rows = plan.generation_of(part), plan.part_range(part)
    table = _generation_tracks(store, generation)
    tracks: list[dict[str, Any]] = table.slice(rows.start - generation.rows.start, len(rows)).to_pylist()
    return tracks


def _builder(job: PartJob, plan: Plan) -> PartBuilder:
    def encoder(recipe: TextRecipe) -> TextEncoder:
        assert job.text is not None
        return load_encoder(job.text, recipe)

    if job.feature_set is None:
        return PartBuilder(job, plan, clips=_clip_reader, encoder=encoder)
    if job.feature_set not in plan.added:
        raise ConfigError(f"{job.store}: the features {job.feature_set!r} were taken out of it while they were made")
    recipe = plan.added[job.feature_set].recipe
    if isinstance(recipe, TextRecipe):
        return AddedTextBuilder(job, plan, recipe, clips=_clip_reader, encoder=encoder)
    return ExtractorBuilder(job, plan, recipe, clips=_sample_reader, encoder=encoder)


def _log(store: Path, event: Mapping[str, Any]) -> None:
    """Who built what, when: outside the store's identity, and never worth failing for."""
    host, pid = socket.gethostname(), os.getpid()
    line = json.dumps({**event, "time": time.strftime("%Y-%m-%dT%H:%M:%SZ", time.gmtime()), "host": host, "pid": pid})
    with contextlib.suppress(OSError), (store / "log" / f"{host}-{pid}.jsonl").open("a") as file:
        file.write(line + "\n")
