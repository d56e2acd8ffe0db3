"""Build and commit one part, the task of a worker; it runs in any process that sees the store."""

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
from dataclasses import asdict, dataclass, replace
from pathlib import Path
from typing import Any, Literal

import pyarrow as pa

from ...cache.claims import hold
from ...cache.errors import ConfigError
from ...cache.format.plan import Plan, read_plan, read_tracks
from ...cache.format.recipe import MelRecipe, TextRecipe
from ...cache.format.records import STAGING, commit_key, read_commit, staging_label
from ...cache.format.schema import FAILED
from ...cache.machine import peak_memory_bytes, reuse_freed_blocks
from ...cache.writing.commits import commit_part
from ...cache.writing.remote import Replica, remote_of, writable_folder
from ...cache.writing.takedowns import dropped_ids
from ..audio.clip_reader import ClipReader
from ..text.encoder import TextEncoder, load_encoder
from .added_builders import AddedTextBuilder, ExtractorBuilder
from .builder import PartBuilder, PartJob

_PART_LOCK = threading.Lock()
"""A process has one decoder child and one encoder, which serve one part at a time whatever its threads."""


@dataclass(frozen=True, kw_only=True)
class Receipt:
    """Result of a worker for one part; under 1 kB.

    Attributes
    ----------
    ok, failed : tracks of the part. For an added feature set, `failed` counts only tracks that failed on it. Both are 0
        if `busy`.
    seconds : duration of the build.
    built : False if another extraction had already committed the part.
    busy : another extraction is building the part.
    """

    part: int
    ok: int = 0
    failed: int = 0
    seconds: float = 0.0
    built: bool = False
    busy: bool = False


def build_and_commit(job: PartJob) -> Receipt:
    """Build one part and publish it, unless another extraction has committed it or is building it."""
    started = time.monotonic()
    reuse_freed_blocks()
    store = writable_folder(job.store)
    remote = remote_of(store)
    with contextlib.nullcontext() if remote is None else remote.errors():
        return _build_and_commit(replace(job, store=store), remote, started)


def _build_and_commit(job: PartJob, remote: Replica | None, started: float) -> Receipt:
    plan = read_plan(job.store)
    with _PART_LOCK, claim(job.store, job.part, job.feature_set, take_over=job.after_crash) as claimed:
        if remote is not None:
            remote.pull_part(job.part, job.feature_set, with_objects=job.retry_of is not None)
        record = read_commit(job.store, job.part, job.feature_set)
        if record is not None and record["n"] != job.retry_of:
            return Receipt(part=job.part, **record["counts"])
        if not claimed:
            return Receipt(part=job.part, busy=True)
        builder = _builder(job, plan)
        tracks = builder.select_tracks(plan_rows(job.store, plan, job.part))
        outcomes = builder.build(tracks, dropped=dropped_ids(job.store))
        table = pa.Table.from_pylist(builder.merge_outcomes(tracks, outcomes), schema=builder.outcome_schema)
        record = commit_part(
            job.store,
            job.part,
            builder.arrays,
            table,
            feature_set=job.feature_set,
            plan=plan,
            new_version=job.retry_of is not None,
        )
    failed = {
        track["id"]: outcome["reason"]
        for track, outcome in zip(tracks.values(), outcomes, strict=True)
        if outcome["status"] == FAILED and not builder.is_failed_track(track)
    }
    counts = record["counts"]
    if job.feature_set is not None:
        counts = {**counts, "failed": len(failed)}  # without the tracks that failed in the store itself
    receipt = Receipt(part=job.part, **counts, seconds=round(time.monotonic() - started, 3), built=True)
    event = {**asdict(receipt), "memory_bytes": peak_memory_bytes(), "failed_tracks": failed}
    if builder.stderr:
        event["stderr"] = builder.stderr
    if job.feature_set is not None:
        event["feature_set"] = plan.sha256_of(job.feature_set)
    _log(job.store, event)
    return receipt


def claim(
    store: Path, part: int, feature_set: str | None = None, *, take_over: bool = False
) -> AbstractContextManager[bool]:
    """Claim a part while it is built (:func:`mgc.cache.claims.hold`), so that extractions share the parts."""
    file = _claim_file(store, part, feature_set)
    if (remote := remote_of(store)) is not None:
        return remote.hold(file.name, take_over=take_over)
    return hold(file, take_over=take_over)


def is_claimed(store: Path, part: int, feature_set: str | None = None) -> bool:
    """Whether a process builds a part, or has ended while it did."""
    file = _claim_file(store, part, feature_set)
    if (remote := remote_of(store)) is not None:
        return remote.objects.find(f"{STAGING}/{file.name}") is not None
    return file.exists()


def _claim_file(store: Path, part: int, feature_set: str | None) -> Path:
    return store / STAGING / f"{staging_label(commit_key(part, 0, feature_set))}~claim"


def build_row_by_row(job: PartJob, start: int, on_row: Callable[[int], None]) -> None:
    """Build the tracks of a part one by one from array row `start`, and discard them; call `on_row` before each row."""
    job = replace(job, store=writable_folder(job.store))
    if (remote := remote_of(job.store)) is not None:
        remote.pull_part(job.part, job.feature_set, with_objects=job.retry_of is not None)
    plan = read_plan(job.store)
    builder = _builder(job, plan)
    for i, track in builder.select_tracks(plan_rows(job.store, plan, job.part)).items():
        if track["row"] >= start:
            on_row(track["row"])
            builder.build({i: track})


@functools.lru_cache(maxsize=2)
def _clip_reader(recipe: MelRecipe, form: Literal["mel", "samples"] = "mel") -> ClipReader:
    """Return the decoder child of this process, which exits with it; extractors need the form ``samples``."""
    return ClipReader(recipe, form=form)


_generation_tracks = functools.lru_cache(maxsize=2)(read_tracks)


def plan_rows(store: Path, plan: Plan, part: int) -> list[dict[str, Any]]:
    """Return the planned tracks of a part."""
    generation, rows = plan.generation_of(part), plan.part_range(part)
    table = _generation_tracks(store, generation)
    tracks: list[dict[str, Any]] = table.slice(rows.start - generation.rows.start, len(rows)).to_pylist()
    return tracks


def _builder(job: PartJob, plan: Plan) -> PartBuilder:
    def encoder(recipe: TextRecipe) -> TextEncoder:
        assert job.text is not None
        return load_encoder(job.text, recipe)

    if job.feature_set is None:
        return PartBuilder(job=job, plan=plan, clips=_clip_reader, encoder=encoder)
    if job.feature_set not in plan.added:
        raise ConfigError(
            f"feature set {job.feature_set!r} was removed during its extraction: {job.store}. "
            "Run the same command again to add it."
        )
    recipe = plan.added[job.feature_set].recipe
    if isinstance(recipe, TextRecipe):
        return AddedTextBuilder(job=job, plan=plan, added=recipe, clips=_clip_reader, encoder=encoder)
    samples = functools.partial(_clip_reader, form="samples")
    return ExtractorBuilder(job=job, plan=plan, added=recipe, clips=samples, encoder=encoder)


def _log(store: Path, event: Mapping[str, Any]) -> None:
    """Append a line with host, process and time to the log; ignore OSError, as the log is not part of the content."""
    host, pid = socket.gethostname(), os.getpid()
    line = json.dumps({**event, "time": time.strftime("%Y-%m-%dT%H:%M:%SZ", time.gmtime()), "host": host, "pid": pid})
    remote = remote_of(store)
    name = f"{host}-{pid}.jsonl" if remote is None else f"{host}-{pid}-{remote.id}.jsonl"  # no folder shows clashes
    with contextlib.suppress(OSError):
        with (store / "log" / name).open("a") as file:
            file.write(line + "\n")
        if remote is not None:
            remote.save_log(name)
