"""Build one part: a child process decodes its clips while this process encodes its lyrics."""

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
from ..sources.files import is_url, local_file
from ..text.lyrics import CLEANING_RULE, MAX_LYRICS_BYTES, Lyrics, load_lyrics, read_lyrics

if TYPE_CHECKING:
    from ..extractors.pretrained import AudioSource
    from ..text.encoder import TextEncoder, TextSource, TokenStates

Track = Mapping[str, Any]
Clips = Callable[[MelRecipe], ClipReader]
Encoder = Callable[[TextRecipe], "TextEncoder"]

_STDERR_CHARACTERS = 2000


@dataclass(frozen=True, kw_only=True)
class PartJob:
    """Input of a worker for one part, small enough to send through a scheduler.

    Attributes
    ----------
    text, audio : location and device of the pretrained encoder, if the features need one.
    inline_lyrics : track id -> lyrics, for tracks whose lyrics are in the source's table.
    lyrics_encoding : encoding of lyrics files that have no byte order mark and are not UTF-8; None detects it.
    starts_s : track id -> start of its clip in seconds, for tracks whose start differs from the recipe's.
    crashing_rows : array rows that crash the process that builds them; they fail without being read.
    after_crash : the worker that claimed the part is dead, so its claim is void.
    feature_set : name of an added feature set; None for the store's own features.
    retry_of : number of the commit record whose failed rows are retried; the other rows are kept. Only for an added
        feature set.
    """

    store: Path
    part: int
    root: Path
    text: TextSource | None
    audio: AudioSource | None = None
    inline_lyrics: Mapping[str, str] = field(default_factory=dict)
    lyrics_encoding: str | None = None
    starts_s: Mapping[str, float] = field(default_factory=dict)
    crashing_rows: tuple[int, ...] = ()
    after_crash: bool = False
    feature_set: str | None = None
    retry_of: int | None = None


def fail(outcome: dict[str, Any], error: ClipError) -> None:
    """Change the outcome of a track to failed."""
    outcome |= {"status": FAILED, "reason": error.reason, "detail": error.detail}


class PartBuilder:
    """Build the arrays and outcomes of one part.

    Parameters
    ----------
    clips, encoder : return the decoder's child process, and the text encoder (called when a text needs it).
    recipe : features to build; None builds all features of the store's recipe.

    Attributes
    ----------
    arrays : name -> rows of the part.
    stderr : track id -> last 2000 characters that decoders wrote about a file that failed.

    Notes
    -----
    The plan and the lyrics alone decide which texts are encoded together. Lyrics of a track whose audio fails are
    encoded too, then discarded. So a part that is built again gives the same bytes even if other files are damaged.
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
        """Return the tracks to build, row of the part -> track: all, or those to retry."""
        return dict(enumerate(tracks))

    def merge_outcomes(self, rows: Collection[int], outcomes: Sequence[dict[str, Any]]) -> list[dict[str, Any]]:
        """Return the outcomes of all rows of the part; `outcomes` are the new ones, of `rows`."""
        return list(outcomes)

    def is_failed_track(self, track: Track) -> bool:
        """Return whether the track failed in the store itself, so that this feature set does not count it."""
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
        rows_by_text: dict[str, list[int]] = {}
        for i, track_lyrics in lyrics.items():
            if track_lyrics.text is not None:
                rows_by_text.setdefault(track_lyrics.text, []).append(i)
        encoder = self._encoder(self._recipe.lyrics) if rows_by_text and self._recipe.lyrics is not None else None
        cancelled = threading.Event()
        with ThreadPoolExecutor(1, thread_name_prefix="mgc-text") as executor:
            embedding = executor.submit(self._embed, encoder, rows_by_text, cancelled)
            try:
                outcomes = {i: self._outcome(i, track, errors.get(i)) for i, track in tracks.items()}
                self._finish_features()
                embedding.result()
            except BaseException:
                cancelled.set()
                raise
        return [self._finish_row(i, tracks[i], outcome, lyrics.get(i)) for i, outcome in outcomes.items()]

    def _check(self, i: int, track: Track, dropped: Collection[str]) -> None:
        """Raise ClipError for a track that fails before any of its files is read."""
        if track["id"] in dropped:
            raise ClipError(Reason.DROPPED, "taken down with `mgc store drop`")
        if track["row"] in self._job.crashing_rows:
            raise ClipError(Reason.WORKER_CRASH, "it crashed the worker process, and two retries in a separate process")

    def _outcome(self, i: int, track: Track, error: ClipError | None) -> dict[str, Any]:
        outcome: dict[str, Any] = {"row": track["row"], "status": OK, "flags": 0}
        try:
            if error is not None:
                raise error
            self._add_features(i, track, outcome)
        except ClipError as failure:
            fail(outcome, failure)
        return outcome

    def _add_features(self, i: int, track: Track, outcome: dict[str, Any]) -> None:
        """Add all features except those of the text encoder, which runs at the same time."""
        if self._recipe.mel is None:
            return
        clip = self._read_clip(track, self._recipe.mel)
        self.arrays["mel"][i] = clip.mel
        self.arrays["mel_frames"][i] = clip.mel_frames
        outcome["flags"] = clip.flags.value
        for name in ("source_sha256", "offset_s", "seconds", "sample_rate_hz", "channels"):
            outcome[name] = getattr(clip, name)

    def _finish_features(self) -> None:
        """Add the features of tracks that :meth:`_add_features` has put off; it may add them to several tracks at once,
        and then changes the outcomes of those that fail."""

    def _read_clip(self, track: Track, recipe: MelRecipe) -> ClipMel:
        reader = self._clips(recipe)
        try:
            with local_file(self._job.root, track["path"]) as path:
                return reader.read(path, self._job.starts_s.get(track["id"]))
        except ClipError:
            if reader.stderr_tail:
                self.stderr[track["id"]] = reader.stderr_tail[-_STDERR_CHARACTERS:]
            raise

    def _embed(
        self, encoder: TextEncoder | None, rows_by_text: Mapping[str, list[int]], cancelled: threading.Event
    ) -> None:
        """Fill the text arrays; encode each distinct text once."""
        if encoder is None:
            return
        for rows, states in zip(rows_by_text.values(), encoder.encode_all(list(rows_by_text)), strict=True):
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
        """Return the outcome of a row with its lyrics hash and flags; clear the row of a track that failed."""
        if outcome["status"] == FAILED:
            self._clear(i)
        elif lyrics is not None:
            if lyrics.text is not None:
                outcome["lyrics_sha256"] = lyrics.sha256
                n_tokens_full = self.arrays[f"lyrics_tokens_full{self._suffix}"][i]
                if n_tokens_full > self.arrays[f"lyrics_tokens{self._suffix}"][i]:
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
        """Return the lyrics of a track: those of the source's table if it has any, else those of the lyrics file."""
        if track["inline_lyrics_sha256"] is not None:
            text = self._job.inline_lyrics.get(track["id"])
            if text is None or fingerprint(text) != track["inline_lyrics_sha256"]:
                raise ConfigError(
                    f"the source's lyrics differ from the lyrics in the store's plan: track {track['id']}. "
                    "Use the source that the store was made from."
                )
            return read_lyrics(text, rule=self._cleaning)
        if track["lyrics_path"] is None:
            return Lyrics(None, Flag.NO_LYRICS)
        try:
            with local_file(self._job.root, track["lyrics_path"], MAX_LYRICS_BYTES) as path:
                return load_lyrics(path, rule=self._cleaning, encoding=self._job.lyrics_encoding)
        except ClipError as error:  # the path leads outside the root, or the URL cannot be read: only the lyrics fail
            if error.reason == Reason.SRC_MISSING and is_url(track["lyrics_path"]):
                return Lyrics(None, Flag.NO_LYRICS)
            return Lyrics(None, Flag.LYRICS_FAILED)
