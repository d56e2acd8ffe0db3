"""One part, one task: decode its clips, embed its lyrics, commit. Runs in any process that sees the store."""

from __future__ import annotations

import contextlib
import functools
import hashlib
import json
import logging
import os
import socket
import threading
import time
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt
import pyarrow as pa

from ..cache.commits import commit_part, outcomes_key, read_commit
from ..cache.drops import dropped_ids
from ..cache.errors import ClipError, ConfigError, TextModelError
from ..cache.plan import Plan, read_plan, read_tracks
from ..cache.schema import (
    FAILED,
    OK,
    ArraySpec,
    ExtractorRecipe,
    Flag,
    MelRecipe,
    Reason,
    Recipe,
    TextRecipe,
    fingerprint,
)
from ..cache.tracks import ADDED_OUTCOME_SCHEMA, OUTCOME_SCHEMA, read_table
from .claims import claim
from .clip_reader import ClipReader
from .extractors import load_extractor
from .lyrics import Lyrics, load_lyrics, read_lyrics
from .manifest import resolve_inside
from .text import TextEncoder, find_text_model

log = logging.getLogger(__name__)


@dataclass(frozen=True, kw_only=True)
class TextSource:
    """Where the text encoder lies on this machine: a name (``minilm``, ``bert-base-uncased``) or a folder."""

    model: str | None = None
    device: str = "cpu"


@dataclass(frozen=True, kw_only=True)
class PartJob:
    """Everything a worker needs for one part; small enough to travel through a scheduler.

    Attributes
    ----------
    inline_lyrics : by track id, where the source's table holds them.
    culprits : array rows that end the process that works on them; they fail unseen.
    takes_over : whoever worked on the part is known to be dead.
    feature_set : one that joins the store; None for the store's own features.
    """

    store: Path
    part: int
    root: Path
    text: TextSource | None
    inline_lyrics: Mapping[str, str] = field(default_factory=dict)
    culprits: tuple[int, ...] = ()
    takes_over: bool = False
    feature_set: str | None = None


_STDERR_CHARACTERS = 2000

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
    plan = read_plan(job.store)
    with _ONE_AT_A_TIME, claim(job.store, job.part, job.feature_set, over=job.takes_over) as claimed:
        if (record := read_commit(job.store, job.part, job.feature_set)) is not None:
            return {"part": job.part, **record["counts"], "seconds": 0.0, "built": False, "busy": False}
        if not claimed:
            return {"part": job.part, "built": False, "busy": True}
        tracks, builder, dropped = _plan_rows(job.store, plan, job.part), _builder(job, plan), dropped_ids(job.store)
        for i, track in enumerate(tracks):
            builder.add(i, track, dropped=track["id"] in dropped)
        table = pa.Table.from_pylist(builder.outcomes, schema=builder.outcome_schema)
        record = commit_part(job.store, job.part, builder.arrays, table, feature_set=job.feature_set)
    seconds = round(time.monotonic() - started, 3)
    receipt = {"part": job.part, **record["counts"], "seconds": seconds, "built": True, "busy": False}
    failed = {track["id"]: outcome["reason"] for track, outcome in zip(tracks, builder.outcomes, strict=True)
              if outcome["status"] == FAILED}  # fmt: skip
    _log(job.store, {**receipt, "failed_tracks": failed, **({"stderr": builder.stderr} if builder.stderr else {})})
    return receipt


def go_through(job: PartJob, start: int, tell: Callable[[int], None]) -> None:
    """Work on a part's tracks from array row `start` on and keep nothing; `tell` is called with each row first."""
    plan = read_plan(job.store)
    builder = _builder(job, plan)
    for i, track in enumerate(_plan_rows(job.store, plan, job.part)):
        if track["row"] >= start:
            tell(track["row"])
            builder.add(i, track)


@functools.lru_cache(maxsize=1)
def load_encoder(text: TextSource, recipe: TextRecipe) -> TextEncoder:
    """The encoder that `recipe` names, loaded once a process.

    Raises
    ------
    TextModelError
        If the model found here is not the one of the recipe, by the hashes of its weights and tokenizer.
    """
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


def _builder(job: PartJob, plan: Plan) -> _PartBuilder:
    if job.feature_set is None:
        return _PartBuilder(job, plan.recipe, plan.part_range(job.part), plan.arrays())
    recipe = plan.added[job.feature_set].recipe
    if isinstance(recipe, TextRecipe):
        return _AddedTextBuilder(job, plan, recipe)
    return _ExtractorBuilder(job, plan, recipe)


class _PartBuilder:
    """Arrays and outcomes of a part, filled track by track."""

    outcome_schema = OUTCOME_SCHEMA

    def __init__(self, job: PartJob, recipe: Recipe, rows: range, specs: list[ArraySpec]) -> None:
        self._job = job
        self._recipe = recipe
        self._token_states: dict[str, Any] = {}
        self.outcomes: list[dict[str, Any]] = []
        self.stderr: dict[str, str] = {}  # by track id: the last of what decoders wrote about a file that failed
        self.arrays: dict[str, npt.NDArray[Any]] = {
            spec.name: np.full((len(rows), *spec.tail), spec.fill, dtype=spec.dtype) for spec in specs
        }

    def add(self, i: int, track: Mapping[str, Any], *, dropped: bool = False) -> None:
        """Make row `i` of the part; of a track that was taken down, nothing but that is said."""
        flags = Flag(0) if track["genres"] else Flag.NO_LABEL
        outcome: dict[str, Any] = {"row": track["row"], "status": OK}
        try:
            if dropped:
                flags = Flag(0)
                raise ClipError(Reason.DROPPED, "taken down with `mgc store drop`")
            if track["row"] in self._job.culprits:
                raise ClipError(Reason.WORKER_CRASH, "it ended the worker process, and two more that tried it alone")
            if self._recipe.mel is not None:
                flags |= self._add_clip(i, track, self._recipe.mel, outcome)
        except ClipError as error:
            outcome |= {"status": FAILED, "reason": error.reason, "detail": error.detail}
        else:
            if self._recipe.lyrics is not None:
                flags |= self._add_lyrics(i, track, self._recipe.lyrics, outcome)
        self.arrays["status"][i] = outcome["status"]
        self.arrays["flags"][i] = flags.value
        self.outcomes.append({**outcome, "flags": flags.value})

    def _add_clip(self, i: int, track: Mapping[str, Any], recipe: MelRecipe, outcome: dict[str, Any]) -> Flag:
        path, reader = resolve_inside(self._job.root, track["path"]), _clip_reader(recipe)
        try:
            clip = reader.read(path)
        except ClipError:
            if reader.stderr_tail:
                self.stderr[track["id"]] = reader.stderr_tail[-_STDERR_CHARACTERS:]
            raise
        self.arrays["mel"][i] = clip.mel
        self.arrays["mel_frames"][i] = clip.mel_frames
        for name in ("source_sha256", "offset_s", "seconds", "sample_rate_hz", "channels"):
            outcome[name] = getattr(clip, name)
        return clip.flags

    def _add_lyrics(self, i: int, track: Mapping[str, Any], recipe: TextRecipe, outcome: dict[str, Any]) -> Flag:
        lyrics = self._read_lyrics(track)
        if lyrics.text is None:
            return lyrics.flags
        key = hashlib.sha256(lyrics.text.encode()).hexdigest()
        outcome["lyrics_sha256"] = key
        if key not in self._token_states:
            assert self._job.text is not None
            self._token_states[key] = load_encoder(self._job.text, recipe).encode(lyrics.text)
        states = self._token_states[key]
        suffix = "" if self._job.feature_set is None else f"_{self._job.feature_set}"
        self.arrays[f"lyrics{suffix}"][i, : states.n_tokens] = states.states
        self.arrays[f"lyrics_pooled{suffix}"][i] = states.pooled
        self.arrays[f"lyrics_tokens{suffix}"][i] = states.n_tokens
        self.arrays[f"lyrics_tokens_full{suffix}"][i] = states.n_tokens_full
        truncated = Flag.LYRICS_TRUNCATED if states.n_tokens_full > states.n_tokens else Flag(0)
        return lyrics.flags | truncated

    def _read_lyrics(self, track: Mapping[str, Any]) -> Lyrics:
        if track["inline_lyrics_sha256"] is not None:
            words = self._job.inline_lyrics.get(track["id"])
            if words is None or fingerprint(words) != track["inline_lyrics_sha256"]:
                raise ConfigError(
                    f"track {track['id']}: the source's lyrics are not those that the store was planned with"
                )
            return read_lyrics(words)
        if track["lyrics_path"] is None:
            return Lyrics(None, Flag.NO_LYRICS)
        try:
            return load_lyrics(resolve_inside(self._job.root, track["lyrics_path"]))
        except ClipError:  # the path leaves the root: the lyrics only fail
            return Lyrics(None, Flag.LYRICS_FAILED)


class _AddedBuilder(_PartBuilder):
    """The same for features that join a store: only tracks that are ok, only what they were made of."""

    outcome_schema = ADDED_OUTCOME_SCHEMA

    def __init__(self, job: PartJob, plan: Plan, recipe: Recipe) -> None:
        super().__init__(job, recipe, plan.part_range(job.part), plan.arrays(job.feature_set))
        self._known = read_table(job.store / outcomes_key(job.part), OUTCOME_SCHEMA).to_pylist()

    def add(self, i: int, track: Mapping[str, Any], *, dropped: bool = False) -> None:
        """Make row `i` of the part."""
        outcome: dict[str, Any] = {"row": track["row"], "status": OK}
        try:
            if dropped:
                raise ClipError(Reason.DROPPED, "taken down with `mgc store drop`")
            if track["row"] in self._job.culprits:
                raise ClipError(Reason.WORKER_CRASH, "it ended the worker process, and two more that tried it alone")
            if self._known[i]["status"] != OK:
                raise ClipError(self._known[i]["reason"], self._known[i]["detail"] or "")
            self._add_feature(i, track, outcome)
        except ClipError as error:
            outcome |= {"status": FAILED, "reason": error.reason, "detail": error.detail}
        self.arrays[f"status_{self._job.feature_set}"][i] = outcome["status"]
        self.outcomes.append(outcome)

    def _add_feature(self, i: int, track: Mapping[str, Any], outcome: dict[str, Any]) -> None:
        raise NotImplementedError

    def _same_words(self, i: int, track: Mapping[str, Any]) -> str | None:
        """The lyrics of a track, which must be those that the store was made with."""
        words = self._read_lyrics(track).text
        found = None if words is None else hashlib.sha256(words.encode()).hexdigest()
        if found != self._known[i]["lyrics_sha256"]:
            raise ClipError(Reason.LYRICS_CHANGED, "its lyrics are not those that the store was made with")
        return words


class _AddedTextBuilder(_AddedBuilder):
    """A text encoder that joins a store."""

    def __init__(self, job: PartJob, plan: Plan, recipe: TextRecipe) -> None:
        super().__init__(job, plan, Recipe(mel=None, lyrics=recipe))
        self._text_recipe = recipe

    def _add_feature(self, i: int, track: Mapping[str, Any], outcome: dict[str, Any]) -> None:
        self._same_words(i, track)
        self._add_lyrics(i, track, self._text_recipe, outcome)


class _ExtractorBuilder(_AddedBuilder):
    """An extractor that joins a store; what it raises costs one track only."""

    def __init__(self, job: PartJob, plan: Plan, recipe: ExtractorRecipe) -> None:
        super().__init__(job, plan, plan.recipe)
        self._extractor = load_extractor(recipe.extractor)
        if self._extractor.recipe(plan.recipe.mel) != recipe:
            raise ConfigError(
                f"extractor {recipe.extractor!r} is another here than the one that {job.store} was planned with; "
                "install the same version everywhere"
            )

    def _add_feature(self, i: int, track: Mapping[str, Any], outcome: dict[str, Any]) -> None:
        given = self._clip(i, track) if self._extractor.input == "clip" else self._words(i, track, outcome)
        if given is None:
            return  # a track without lyrics: the row stays NaN
        try:
            self.arrays[self._extractor.name][i] = self._extractor.values(*given)
        except MemoryError:
            raise
        except Exception as error:
            log.debug("extractor %s, track %s", self._extractor.name, track["id"], exc_info=True)
            said = f"{type(error).__name__}: {error}" if isinstance(error, ValueError) else type(error).__name__
            raise ClipError(Reason.EXTRACTOR_FAILED, f"the extractor raised {said}"[:200]) from error

    def _clip(self, i: int, track: Mapping[str, Any]) -> tuple[Any, ...]:
        assert self._recipe.mel is not None
        clip = _sample_reader(self._recipe.mel).read_samples(resolve_inside(self._job.root, track["path"]))
        if clip.source_sha256 != self._known[i]["source_sha256"]:
            raise ClipError(Reason.SOURCE_CHANGED, "its audio file is not the one that the store was made with")
        return clip.samples, self._recipe.mel.sample_rate_hz

    def _words(self, i: int, track: Mapping[str, Any], outcome: dict[str, Any]) -> tuple[Any, ...] | None:
        stored = self._recipe.lyrics is not None
        words = self._same_words(i, track) if stored else self._read_lyrics(track).text
        if words is None:
            return None
        outcome["lyrics_sha256"] = hashlib.sha256(words.encode()).hexdigest()
        return (words,)


def _log(store: Path, event: Mapping[str, Any]) -> None:
    """Who built what, when: outside the store's identity, and never worth failing for."""
    host, pid = socket.gethostname(), os.getpid()
    line = json.dumps({**event, "time": time.strftime("%Y-%m-%dT%H:%M:%SZ", time.gmtime()), "host": host, "pid": pid})
    with contextlib.suppress(OSError), (store / "log" / f"{host}-{pid}.jsonl").open("a") as file:
        file.write(line + "\n")
