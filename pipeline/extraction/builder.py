"""Build one part: its clips come from the decoder's child while its lyrics run through the encoder in this process."""

from __future__ import annotations

import threading
from collections.abc import Callable, Collection, Mapping, Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass, field
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np
import numpy.typing as npt

from ...cache.durable import fingerprint
from ...cache.errors import ClipError, ConfigError
from ...cache.format.plan import Plan
from ...cache.format.recipe import MelRecipe, Recipe, TextRecipe
from ...cache.format.schema import FAILED, OK, Flag, Reason
from ...cache.format.tables import OUTCOME_SCHEMA
from ..audio.clip_reader import ClipMel, ClipReader
from ..sources.manifest import resolve_inside
from ..text.lyrics import CLEANING_RULE, Lyrics, load_lyrics, read_lyrics

if TYPE_CHECKING:
    from ..text.encoder import TextEncoder, TextSource, TokenStates

Track = Mapping[str, Any]
Clips = Callable[[MelRecipe], ClipReader]
Encoder = Callable[[TextRecipe], "TextEncoder"]

_STDERR_CHARACTERS = 2000


@dataclass(frozen=True, kw_only=True)
class PartJob:
    """Everything a worker needs for one part; small enough to travel through a scheduler.

    Attributes
    ----------
    inline_lyrics : by track id, where the source's table holds them.
    lyrics_encoding : of lyrics files that are neither marked nor UTF-8; None detects it.
    starts_s : by track id, where a clip begins, if not where the recipe says.
    crashing_rows : array rows that end the process that works on them; they fail unseen.
    after_crash : the worker that had the part is dead, so its claim does not count.
    feature_set : one that was added to the store; None for the store's own features.
    retry_of : number of the part's record whose failed rows are retried, the others kept; of added feature sets only.
    """

    store: Path
    part: int
    root: Path
    text: TextSource | None
    inline_lyrics: Mapping[str, str] = field(default_factory=dict)
    lyrics_encoding: str | None = None
    starts_s: Mapping[str, float] = field(default_factory=dict)
    crashing_rows: tuple[int, ...] = ()
    after_crash: bool = False
    feature_set: str | None = None
    retry_of: int | None = None


class PartBuilder:
    """Fills the arrays of a part.

    Parameters
    ----------
    clips, encoder : return the decoder's child, and the text encoder (called when a text needs it).
    recipe : what to make with them, if not everything in the store's recipe.

    Attributes
    ----------
    arrays : name -> rows of the part.
    stderr : by track id, the last of what decoders wrote about a file that failed.

    Notes
    -----
    Which lyrics run through the encoder, and with which others, follows from the plan and the lyrics alone: those of a
    track whose audio fails run too, and are thrown away. A part that is built again, with other files broken, then
    still gives the same bytes.
    """

    outcome_schema = OUTCOME_SCHEMA

    def __init__(
        self, *, job: PartJob, plan: Plan, clips: Clips, encoder: Encoder, recipe: Recipe | None = None
    ) -> None:
        self._job, self._clips, self._encoder = job, clips, encoder
        self._recipe = recipe or plan.recipe
        self._cleaning = CLEANING_RULE if plan.recipe.lyrics is None else plan.recipe.lyrics.cleaning
        self._suffix = "" if job.feature_set is None else f"_{job.feature_set}"
        self.stderr: dict[str, str] = {}
        n_rows, specs = len(plan.part_range(job.part)), plan.arrays(job.feature_set)
        self._fill = {spec.name: spec.fill for spec in specs}
        self.arrays: dict[str, npt.NDArray[Any]] = {
            spec.name: np.full((n_rows, *spec.tail), spec.fill, dtype=spec.dtype) for spec in specs
        }

    def select_tracks(self, tracks: Sequence[Track]) -> dict[int, Track]:
        """Return the tracks to build, by their rows of the part: all, or those to retry."""
        return dict(enumerate(tracks))

    def merge_outcomes(self, rows: Collection[int], outcomes: Sequence[dict[str, Any]]) -> list[dict[str, Any]]:
        """Return the outcomes of all rows of the part, those of some `rows` being new."""
        return list(outcomes)

    def is_failed_track(self, track: Track) -> bool:
        """Whether the store has no features of the track at all, so that nothing was tried here."""
        return False

    def build(self, tracks: Mapping[int, Track], *, dropped: Collection[str] = ()) -> list[dict[str, Any]]:
        """Fill rows of the part; return their outcomes in the order of `tracks` (row of the part -> track)."""
        lyrics: dict[int, Lyrics] = {}
        errors: dict[int, ClipError] = {}
        for i, track in tracks.items():
            try:
                self._check(i, track, dropped)
                if self._recipe.lyrics is not None:
                    lyrics[i] = self._load_lyrics(i, track)
            except ClipError as error:
                errors[i] = error
        rows_of: dict[str, list[int]] = {}
        for i, words in lyrics.items():
            if words.text is not None:
                rows_of.setdefault(words.text, []).append(i)
        encoder = self._encoder(self._recipe.lyrics) if rows_of and self._recipe.lyrics is not None else None
        cancelled = threading.Event()
        with ThreadPoolExecutor(1, thread_name_prefix="mgc-text") as executor:
            embedding = executor.submit(self._embed, encoder, rows_of, cancelled)
            try:
                outcomes = {i: self._outcome(i, track, errors.get(i)) for i, track in tracks.items()}
                embedding.result()
            except BaseException:
                cancelled.set()
                raise
        return [self._finish_row(i, tracks[i], outcome, lyrics.get(i)) for i, outcome in outcomes.items()]

    def _check(self, i: int, track: Track, dropped: Collection[str]) -> None:
        """Raise for a track of which nothing is read, not even its lyrics."""
        if track["id"] in dropped:
            raise ClipError(Reason.DROPPED, "taken down with `mgc store drop`")
        if track["row"] in self._job.crashing_rows:
            raise ClipError(Reason.WORKER_CRASH, "it ended the worker process, and two more that tried it alone")

    def _outcome(self, i: int, track: Track, error: ClipError | None) -> dict[str, Any]:
        outcome: dict[str, Any] = {"row": track["row"], "status": OK, "flags": 0}
        try:
            if error is not None:
                raise error
            self._add_features(i, track, outcome)
        except ClipError as failure:
            outcome |= {"status": FAILED, "reason": failure.reason, "detail": failure.detail}
        return outcome

    def _add_features(self, i: int, track: Track, outcome: dict[str, Any]) -> None:
        """Add everything but what the text encoder makes, which runs at the same time."""
        if self._recipe.mel is None:
            return
        clip = self._read_clip(track, self._recipe.mel)
        self.arrays["mel"][i] = clip.mel
        self.arrays["mel_frames"][i] = clip.mel_frames
        outcome["flags"] = clip.flags.value
        for name in ("source_sha256", "offset_s", "seconds", "sample_rate_hz", "channels"):
            outcome[name] = getattr(clip, name)

    def _read_clip(self, track: Track, recipe: MelRecipe) -> ClipMel:
        path, reader = resolve_inside(self._job.root, track["path"]), self._clips(recipe)
        try:
            return reader.read(path, self._job.starts_s.get(track["id"]))
        except ClipError:
            if reader.stderr_tail:
                self.stderr[track["id"]] = reader.stderr_tail[-_STDERR_CHARACTERS:]
            raise

    def _embed(self, encoder: TextEncoder | None, rows_of: Mapping[str, list[int]], cancelled: threading.Event) -> None:
        """Fill the text arrays, each text once."""
        if encoder is None:
            return
        for rows, states in zip(rows_of.values(), encoder.encode_all(list(rows_of)), strict=True):
            for i in rows:
                self._add_states(i, states)
            if cancelled.is_set():
                return

    def _add_states(self, i: int, states: TokenStates) -> None:
        self.arrays[f"lyrics{self._suffix}"][i, : states.n_tokens] = states.states
        self.arrays[f"lyrics_pooled{self._suffix}"][i] = states.pooled
        self.arrays[f"lyrics_tokens{self._suffix}"][i] = states.n_tokens
        self.arrays[f"lyrics_tokens_full{self._suffix}"][i] = states.n_tokens_full

    def _finish_row(self, i: int, track: Track, outcome: dict[str, Any], lyrics: Lyrics | None) -> dict[str, Any]:
        """Return the outcome of a row with its lyrics; clear the row of a track that failed."""
        if outcome["status"] == FAILED:
            self._clear(i)
        elif lyrics is not None:
            if lyrics.text is not None:
                outcome["lyrics_sha256"] = lyrics.sha256
                full = self.arrays[f"lyrics_tokens_full{self._suffix}"][i]
                if full > self.arrays[f"lyrics_tokens{self._suffix}"][i]:
                    outcome["flags"] |= Flag.LYRICS_TRUNCATED.value
            outcome["flags"] |= lyrics.flags.value
        if not track["genres"] and outcome.get("reason") != Reason.DROPPED:
            outcome["flags"] |= Flag.NO_LABEL.value
        self.arrays["flags"][i] = outcome["flags"]
        self.arrays["status"][i] = outcome["status"]
        return outcome

    def _clear(self, i: int) -> None:
        for name, fill in self._fill.items():
            self.arrays[name][i] = fill

    def _load_lyrics(self, i: int, track: Track) -> Lyrics:
        """Return the lyrics of a track: those of the table, where it holds any, else those of its lyrics file."""
        if track["inline_lyrics_sha256"] is not None:
            words = self._job.inline_lyrics.get(track["id"])
            if words is None or fingerprint(words) != track["inline_lyrics_sha256"]:
                raise ConfigError(
                    f"track {track['id']}: the source's lyrics are not those that the store was planned with"
                )
            return read_lyrics(words, rule=self._cleaning)
        if track["lyrics_path"] is None:
            return Lyrics(None, Flag.NO_LYRICS)
        try:
            path = resolve_inside(self._job.root, track["lyrics_path"])
            return load_lyrics(path, rule=self._cleaning, encoding=self._job.lyrics_encoding)
        except ClipError:  # the path leaves the root: the lyrics only fail
            return Lyrics(None, Flag.LYRICS_FAILED)
