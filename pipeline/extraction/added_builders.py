"""Build one part of an added feature set, for ok tracks only, from the same files as the store's own features."""

from __future__ import annotations

import logging
from collections.abc import Collection, Sequence
from typing import Any

import numpy as np
import numpy.typing as npt

from ...cache.errors import ClipError, ConfigError
from ...cache.format.plan import Plan
from ...cache.format.recipe import ExtractorRecipe, Recipe, TextRecipe
from ...cache.format.records import read_outcomes, read_part
from ...cache.format.schema import FAILED, OK, Reason, length_name
from ...cache.format.sequences import pad_sequence
from ...cache.format.tables import ADDED_OUTCOME_SCHEMA
from ..extractors.audio_models import PREFIX
from ..extractors.extractor import CLEANING, Extractor
from ..extractors.pretrained import AudioSource, is_pretrained, pretrained_extractor, settings_of, with_stored_name
from ..extractors.registry import load_extractor
from ..sources.files import local_file
from ..text.lyrics import CLEANING_RULE, Lyrics
from .builder import Clips, Encoder, PartBuilder, PartJob, Track, fail

log = logging.getLogger(__name__)


def extractor_cleaning(plan: Plan, name: str) -> int | None:
    """Return the number of the lyrics cleaning rule for an extractor; None if the store's lyrics recipe has it."""
    if plan.recipe.lyrics is not None:
        return None
    if name not in plan.added:
        return CLEANING_RULE
    recipe = plan.added[name].recipe
    return recipe.cleaning if isinstance(recipe, TextRecipe) else recipe.parameters.get(CLEANING, 1)


def _extractor_of(added: ExtractorRecipe, job: PartJob, plan: Plan) -> Extractor:
    if not is_pretrained(added) or plan.recipe.mel is None:
        return load_extractor(added.extractor)
    source = job.audio or AudioSource(model=f"{PREFIX}{added.parameters['model']}")
    extractor = pretrained_extractor(added.extractor, source, settings_of(added), plan.recipe.mel)
    return with_stored_name(extractor, added)


class _AddedBuilder(PartBuilder):
    outcome_schema = ADDED_OUTCOME_SCHEMA

    def __init__(self, *, job: PartJob, plan: Plan, clips: Clips, encoder: Encoder, recipe: Recipe) -> None:
        super().__init__(job=job, plan=plan, clips=clips, encoder=encoder, recipe=recipe)
        self._plan = plan
        self._base = read_outcomes(job.store, plan, job.part).to_pylist()
        """Outcomes of the store's own features."""
        self._previous: list[dict[str, Any]] = []
        """Outcomes of the commit record that is retried."""

    def select_tracks(self, tracks: Sequence[Track]) -> dict[int, Track]:
        if self._job.retry_of is None:
            return super().select_tracks(tracks)
        arrays, outcomes = read_part(self._job.store, self._plan, self._job.part, self._job.feature_set)
        self.arrays.update(arrays)
        self._previous = outcomes.to_pylist()
        statuses = ((row["status"], base["status"]) for row, base in zip(self._previous, self._base, strict=True))
        return {i: tracks[i] for i, status in enumerate(statuses) if status == (FAILED, OK)}

    def merge_outcomes(self, rows: Collection[int], outcomes: Sequence[dict[str, Any]]) -> list[dict[str, Any]]:
        new = dict(zip(rows, outcomes, strict=True))
        return [new.get(i, old) for i, old in enumerate(self._previous)] if self._previous else list(outcomes)

    def is_failed_track(self, track: Track) -> bool:
        return any(outcome["row"] == track["row"] and outcome["status"] != OK for outcome in self._base)

    def _check(self, i: int, track: Track, dropped: Collection[str]) -> None:
        super()._check(i, track, dropped)
        if self._base[i]["status"] != OK:
            raise ClipError(self._base[i]["reason"], self._base[i]["detail"] or "")

    def _load_same_lyrics(self, i: int, track: Track) -> Lyrics:
        lyrics = super()._load_lyrics(i, track)
        if lyrics.sha256 != self._base[i]["lyrics_sha256"]:
            raise ClipError(Reason.LYRICS_CHANGED, "its lyrics have changed since the store was made")
        return lyrics

    def _finish_row(self, i: int, track: Track, outcome: dict[str, Any], lyrics: Lyrics | None) -> dict[str, Any]:
        if outcome["status"] == FAILED:
            self._clear(i)
        elif lyrics is not None:
            outcome["lyrics_sha256"] = lyrics.sha256
        self.arrays[f"status{self._suffix}"][i] = outcome["status"]
        return {name: value for name, value in outcome.items() if name in ADDED_OUTCOME_SCHEMA.names}


class AddedTextBuilder(_AddedBuilder):
    """Build the features of an added text encoder."""

    def __init__(self, *, job: PartJob, plan: Plan, added: TextRecipe, clips: Clips, encoder: Encoder) -> None:
        super().__init__(job=job, plan=plan, clips=clips, encoder=encoder, recipe=Recipe(mel=None, lyrics=added))

    def _load_lyrics(self, i: int, track: Track) -> Lyrics:
        return self._load_same_lyrics(i, track)


class ExtractorBuilder(_AddedBuilder):
    """Build the feature of an added extractor; an exception in the extractor fails one track only."""

    def __init__(self, *, job: PartJob, plan: Plan, added: ExtractorRecipe, clips: Clips, encoder: Encoder) -> None:
        self._extractor = _extractor_of(added, job, plan)
        mel = None if plan.recipe.mel is None else self._extractor.clips(plan.recipe.mel)
        recipe = Recipe(mel=mel, lyrics=None)
        super().__init__(job=job, plan=plan, clips=clips, encoder=encoder, recipe=recipe)
        self._has_lyrics = plan.recipe.lyrics is not None
        cleaning = extractor_cleaning(plan, added.extractor)
        self._cleaning = self._cleaning if cleaning is None else cleaning
        if self._extractor.recipe(plan.recipe.mel, cleaning) != added:
            raise ConfigError(
                f"extractor {added.extractor!r} differs from the one in the plan of the store: {job.store}. "
                "Install the same version on every machine, and use the same --audio-model."
            )
        self._added = added
        self._waiting: list[tuple[int, Track, dict[str, Any], npt.NDArray[np.float32]]] = []
        """Row, track, outcome and samples of the tracks of the next batch."""
        self._extractor.prepare_once()

    def _add_features(self, i: int, track: Track, outcome: dict[str, Any]) -> None:
        if self._extractor.input == "text":
            lyrics = self._load_same_lyrics(i, track) if self._has_lyrics else self._load_lyrics(i, track)
            outcome["lyrics_sha256"] = lyrics.sha256
            if lyrics.text is not None:  # without lyrics the row stays NaN
                self._store(i, self._values(track, lyrics.text))
            return
        samples, sample_rate_hz = self._clip_arguments(i, track)
        if self._extractor.compute_batch is None:
            self._store(i, self._values(track, samples, sample_rate_hz))
            return
        self._waiting.append((i, track, outcome, samples))
        if len(self._waiting) == self._extractor.batch_size:
            self._finish_features()

    def _finish_features(self) -> None:
        """Compute the waiting batch; after an error one by one, so that one track fails alone."""
        waiting, self._waiting = self._waiting, []
        if not waiting:
            return
        assert self._recipe.mel is not None
        rate_hz = self._recipe.mel.sample_rate_hz
        try:
            batch = self._extractor.batch_values([samples for *_, samples in waiting], rate_hz)
        except Exception as error:
            log.debug("extractor %s, a batch of %d tracks: %r", self._extractor.name, len(waiting), error)
            for i, track, outcome, samples in waiting:
                try:
                    self._store(i, self._values(track, samples, rate_hz))
                except ClipError as failure:
                    fail(outcome, failure)
            return
        for (i, *_), values in zip(waiting, batch, strict=True):
            self._store(i, values)

    def _values(self, track: Track, *arguments: Any) -> npt.NDArray[Any]:
        try:
            return self._extractor.values(*arguments)
        except MemoryError:
            raise
        except Exception as error:
            log.debug("extractor %s, track %s", self._extractor.name, track["id"], exc_info=True)
            cause = f"{type(error).__name__}: {error}" if isinstance(error, ValueError) else type(error).__name__
            raise ClipError(Reason.EXTRACTOR_FAILED, f"the extractor raised {cause}"[:200]) from error

    def _store(self, i: int, values: npt.NDArray[Any]) -> None:
        name, length = self._extractor.name, self._added.length
        self.arrays[name][i] = pad_sequence(values, self._added, self._fill[name])
        if length is not None:
            self.arrays[length_name(name)][i] = values.shape[self._added.dims.index(length)]

    def _clip_arguments(self, i: int, track: Track) -> tuple[npt.NDArray[np.float32], int]:
        recipe = self._recipe.mel
        assert recipe is not None
        with local_file(self._job.root, track["path"]) as path:
            clip = self._clips(recipe).read_samples(path, self._job.starts_s.get(track["id"]))
        if clip.source_sha256 != self._base[i]["source_sha256"]:
            raise ClipError(Reason.SOURCE_CHANGED, "its audio file has changed since the store was made")
        return clip.samples, recipe.sample_rate_hz
