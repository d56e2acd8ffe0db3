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
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import pyarrow as pa

from ..cache.errors import ConfigError, TextModelError
from ..cache.format.plan import Plan, read_plan, read_tracks
from ..cache.format.recipe import MelRecipe, TextRecipe
from ..cache.format.records import read_commit
from ..cache.format.schema import FAILED
from ..cache.machine import reuse_freed_blocks
from ..cache.writing.commits import commit_part
from ..cache.writing.takedowns import dropped_ids
from .added_builders import AddedTextBuilder, ExtractorBuilder
from .claims import claim
from .clip_reader import ClipReader
from .part_builder import PartBuilder
from .text import TextEncoder, computes_in, find_text_model


@dataclass(frozen=True, kw_only=True)
class TextSource:
    """Where the text encoder lies on this machine: a name (``minilm``, ``bert-base-uncased``) or a folder.

    Attributes
    ----------
    emulates : also where the device does not compute in the recipe's precision. A store's features must not depend on
        which worker made them; a prediction may.
    """

    model: str | None = None
    device: str = "cpu"
    emulates: bool = False


@dataclass(frozen=True, kw_only=True)
class PartJob:
    """Everything a worker needs for one part; small enough to travel through a scheduler.

    Attributes
    ----------
    inline_lyrics : by track id, where the source's table holds them.
    starts_s : by track id, where a clip begins, if not where the recipe says.
    culprits : array rows that end the process that works on them; they fail unseen.
    takes_over : whoever worked on the part is known to be dead.
    feature_set : one that joins the store; None for the store's own features.
    again : n of the part's record whose failed rows are tried again, the others kept; of features that joined only.
    """

    store: Path
    part: int
    root: Path
    text: TextSource | None
    inline_lyrics: Mapping[str, str] = field(default_factory=dict)
    starts_s: Mapping[str, float] = field(default_factory=dict)
    culprits: tuple[int, ...] = ()
    takes_over: bool = False
    feature_set: str | None = None
    again: int | None = None


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


def go_through(job: PartJob, start: int, tell: Callable[[int], None]) -> None:
    """Work on a part's tracks from array row `start` on and keep nothing; `tell` is called with each row first."""
    plan = read_plan(job.store)
    builder = _builder(job, plan)
    for i, track in builder.take_over(_plan_rows(job.store, plan, job.part)).items():
        if track["row"] >= start:
            tell(track["row"])
            builder.build({i: track})


@functools.lru_cache(maxsize=1)
def load_encoder(text: TextSource, recipe: TextRecipe) -> TextEncoder:
    """The encoder that `recipe` names, loaded once a process.

    Raises
    ------
    TextModelError
        If the model found here is not the one of the recipe, by the hashes of its weights and tokenizer, or the device
        does not compute in its precision.
    """
    if not text.emulates and not computes_in(recipe.precision, text.device):
        raise TextModelError(
            f"text precision {recipe.precision}: {text.device} on this machine does not compute in it, and would make "
            "other features, slowly. Leave this machine out, or make the store with --text-precision fp32"
        )
    files = find_text_model(text.model or recipe.model)
    encoder = TextEncoder(files, precision=recipe.precision, device=text.device, max_tokens=recipe.max_tokens)
    found = encoder.recipe
    if (found.weights_sha256, found.tokenizer_sha256) != (recipe.weights_sha256, recipe.tokenizer_sha256):
        raise TextModelError(
            f"text model {files.name}: another encoder than {recipe.model}, which made these features "
            f"(weights {found.weights_sha256[:12]}, wanted {recipe.weights_sha256[:12]}); "
            "name the right one with --text-model"
        )
    return encoder


@functools.lru_cache(maxsize=1)
def _clip_reader(recipe: MelRecipe) -> ClipReader:
    """The decoder child of this process; it ends with it."""
    return ClipReader(recipe)


@functools.lru_cache(maxsize=1)
def _sample_reader(recipe: MelRecipe) -> ClipReader:
    """The same for extractors, which want the sound itself."""
    return ClipReader(recipe, form="samples")


@functools.lru_cache(maxsize=2)
def _generation_tracks(store: Path, number: int, sha256: str) -> pa.Table:
    plan = read_plan(store)
    return read_tracks(store, plan, plan.generations[number])


def _plan_rows(store: Path, plan: Plan, part: int) -> list[dict[str, Any]]:
    generation, rows = plan.generation_of(part), plan.part_range(part)
    table = _generation_tracks(store, generation.number, generation.sha256)
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
