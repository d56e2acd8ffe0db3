"""The content of one part of features that join a store: only of tracks that are ok, only of what they were made of."""

from __future__ import annotations

import logging
from collections.abc import Collection, Sequence
from typing import TYPE_CHECKING, Any

from ...cache.errors import ClipError, ConfigError
from ...cache.format.plan import Plan
from ...cache.format.recipe import ExtractorRecipe, Recipe, TextRecipe
from ...cache.format.records import outcomes_key, read_part
from ...cache.format.schema import FAILED, OK, Reason
from ...cache.format.tables import ADDED_OUTCOME_SCHEMA, OUTCOME_SCHEMA, read_table
from ..extractors.registry import load_extractor
from ..sources.manifest import resolve_inside
from ..text.lyrics import Lyrics
from .builder import Clips, Encoder, PartBuilder, Track

if TYPE_CHECKING:
    from .job import PartJob

log = logging.getLogger(__name__)


class _AddedBuilder(PartBuilder):
    outcome_schema = ADDED_OUTCOME_SCHEMA

    def __init__(self, job: PartJob, plan: Plan, *, clips: Clips, encoder: Encoder, recipe: Recipe) -> None:
        super().__init__(job, plan, clips=clips, encoder=encoder, recipe=recipe)
        self._plan = plan
        self._known = read_table(job.store / outcomes_key(job.part), OUTCOME_SCHEMA).to_pylist()
        self._kept: list[dict[str, Any]] = []

    def take_over(self, tracks: Sequence[Track]) -> dict[int, Track]:
        if self._job.again is None:
            return super().take_over(tracks)
        arrays, outcomes = read_part(self._job.store, self._plan, self._job.part, self._job.feature_set)
        self.arrays.update(arrays)
        self._kept = outcomes.to_pylist()
        return {i: track for i, track in enumerate(tracks)
                if self._kept[i]["status"] == FAILED and self._known[i]["status"] == OK}  # fmt: skip

    def with_kept(self, tried: Collection[int], made: Sequence[dict[str, Any]]) -> list[dict[str, Any]]:
        found = dict(zip(tried, made, strict=True))
        return [found.get(i, one) for i, one in enumerate(self._kept)] if self._kept else list(made)

    def failed_before(self, track: Track) -> bool:
        return any(one["row"] == track["row"] and one["status"] != OK for one in self._known)

    def _refuse(self, i: int, track: Track, dropped: Collection[str]) -> None:
        super()._refuse(i, track, dropped)
        if self._known[i]["status"] != OK:
            raise ClipError(self._known[i]["reason"], self._known[i]["detail"] or "")

    def _same_lyrics(self, i: int, track: Track) -> Lyrics:
        lyrics = super()._lyrics(i, track)
        if lyrics.sha256 != self._known[i]["lyrics_sha256"]:
            raise ClipError(Reason.LYRICS_CHANGED, "its lyrics are not those that the store was made with")
        return lyrics

    def _finished(self, i: int, track: Track, outcome: dict[str, Any], lyrics: Lyrics | None) -> dict[str, Any]:
        if outcome["status"] == FAILED:
            self._clear(i)
        elif lyrics is not None:
            outcome["lyrics_sha256"] = lyrics.sha256
        self.arrays[f"status{self._suffix}"][i] = outcome["status"]
        return {name: value for name, value in outcome.items() if name in ADDED_OUTCOME_SCHEMA.names}


class AddedTextBuilder(_AddedBuilder):
    """A text encoder that joins a store."""

    def __init__(self, job: PartJob, plan: Plan, recipe: TextRecipe, *, clips: Clips, encoder: Encoder) -> None:
        super().__init__(job, plan, clips=clips, encoder=encoder, recipe=Recipe(mel=None, lyrics=recipe))

    def _lyrics(self, i: int, track: Track) -> Lyrics:
        return self._same_lyrics(i, track)


class ExtractorBuilder(_AddedBuilder):
    """An extractor that joins a store; what it raises costs one track only."""

    def __init__(self, job: PartJob, plan: Plan, recipe: ExtractorRecipe, *, clips: Clips, encoder: Encoder) -> None:
        super().__init__(job, plan, clips=clips, encoder=encoder, recipe=Recipe(mel=plan.recipe.mel, lyrics=None))
        self._has_lyrics = plan.recipe.lyrics is not None
        self._extractor = load_extractor(recipe.extractor)
        if self._extractor.recipe(plan.recipe.mel) != recipe:
            raise ConfigError(
                f"extractor {recipe.extractor!r} is another here than the one that {job.store} was planned with; "
                "install the same version everywhere"
            )

    def _add_features(self, i: int, track: Track, outcome: dict[str, Any]) -> None:
        given = self._sound(i, track) if self._extractor.input == "clip" else self._words(i, track, outcome)
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

    def _sound(self, i: int, track: Track) -> tuple[Any, ...]:
        recipe = self._recipe.mel
        assert recipe is not None
        clip = self._clips(recipe).read_samples(resolve_inside(self._job.root, track["path"]))
        if clip.source_sha256 != self._known[i]["source_sha256"]:
            raise ClipError(Reason.SOURCE_CHANGED, "its audio file is not the one that the store was made with")
        return clip.samples, recipe.sample_rate_hz

    def _words(self, i: int, track: Track, outcome: dict[str, Any]) -> tuple[Any, ...] | None:
        lyrics = self._same_lyrics(i, track) if self._has_lyrics else self._lyrics(i, track)
        outcome["lyrics_sha256"] = lyrics.sha256
        return None if lyrics.text is None else (lyrics.text,)
