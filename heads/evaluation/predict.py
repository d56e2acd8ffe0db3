"""Prediction: scores of a trained model for tracks of a feature store."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass

import numpy as np
import numpy.typing as npt
import pyarrow as pa
import pyarrow.compute as pc

from ...cache.errors import RecipeMismatchError
from ...cache.format.schema import ABSENT, OK
from ...cache.reading.store import FeatureStore
from ...cache.steps import Progress, silent, within
from ..data.batches import Examples, FeatureBatches, Placement
from ..device import resolve_device, reused_memory
from ..runs.published_model import LoadedModel
from .scoring import Scored, probabilities, score

BLOCK_TRACKS = 1024
"""Tracks whose scores are held at once where a whole catalogue is predicted."""

_HARMLESS = ("lyrics.model:", "lyrics.precision:", "genre_names.")
"""The name tells people only (hashes decide); fp32 and bf16 states agree within cosine 0.999 a token; how the genres
were read aloud is in the model's weights."""


@dataclass(frozen=True, kw_only=True)
class ScoredStore:
    """Tracks of a store as a model sees them: what it was given of each, and what it said."""

    examples: Examples
    said: Scored


def predict_store(
    loaded: LoadedModel,
    store: FeatureStore,
    rows: npt.NDArray[np.int64] | None = None,
    *,
    batch_size: int = 16,
    device: str = "auto",
    on_progress: Progress = silent,
) -> tuple[list[str], npt.NDArray[np.float32]]:
    """Score tracks; a track's scores do not depend on which others are asked for.

    Parameters
    ----------
    rows : array rows with status ok; all of them by default.
    on_progress : receives tracks done and tracks in all.

    Returns
    -------
    ids : of the tracks, in the order of `rows`.
    scores : (n, C) float32 in [0, 1], columns as ``loaded.genres``.

    Raises
    ------
    RecipeMismatchError
        If the store's features are made by another recipe than the model's; lists the differences.
    TrackUnavailableError
        If a row has no features.
    """
    rows = store.ok_rows if rows is None else np.asarray(rows, dtype=np.int64)
    scored = score_store(loaded, store, rows, batch_size=batch_size, device=device, on_progress=on_progress)
    return list(scored.examples.ids), probabilities(scored.said.logits)


def score_store(
    loaded: LoadedModel,
    store: FeatureStore,
    rows: npt.NDArray[np.int64],
    *,
    batch_size: int = 16,
    device: str = "auto",
    on_progress: Progress = silent,
) -> ScoredStore:
    """As :func:`predict_store`, with all that the model says."""
    refuse_other_recipe(loaded, store)
    examples = Examples.of(store, rows, np.zeros((len(rows), len(loaded.genres)), dtype=np.bool_))
    place = resolve_device(device)
    model = loaded.model.to(place)
    # A track is read once, so nothing is gained by keeping it.
    batches = FeatureBatches(
        store,
        examples,
        placement=Placement(name="mapped", n_bytes=0, free_bytes=0),
        device=place,
        text_dim=model.config.text_dim,
    )
    with reused_memory(place):
        said = score(
            model,
            batches,
            np.arange(len(rows), dtype=np.int64),
            batch_size=batch_size,
            on_progress=on_progress,
        )
    return ScoredStore(examples=examples, said=said)


@dataclass(frozen=True, kw_only=True)
class PredictedBlock:
    """Some tracks of a catalogue in a row, failed ones included.

    Attributes
    ----------
    tracks : columns id, flags, reason, detail; a track that is not extracted yet has reason ``PENDING``. Of whole
        songs also windows, failed_windows.
    genres : names of the C outputs.
    has_scores : (n,) bool, False for failed tracks.
    scores : (n, C) float32; NaN without scores.
    decided : (n, C) bool, the genres predicted.
    """

    tracks: pa.Table
    genres: tuple[str, ...]
    has_scores: npt.NDArray[np.bool_]
    scores: npt.NDArray[np.float32]
    decided: npt.NDArray[np.bool_]


def predict_blocks(
    loaded: LoadedModel,
    store: FeatureStore,
    *,
    threshold: str = "overall",
    block_tracks: int = BLOCK_TRACKS,
    batch_size: int = 16,
    device: str = "auto",
    on_progress: Progress = silent,
) -> Iterator[PredictedBlock]:
    """Predict every track of a store, in row order, a block at a time; of a track tried again the newest row.

    Parameters
    ----------
    threshold : see :meth:`mgc.heads.metrics.thresholds.Thresholds.chosen`.
    on_progress : receives tracks done and tracks with features in all.

    Raises
    ------
    RecipeMismatchError
        As :func:`predict_store`.
    """
    refuse_other_recipe(loaded, store)
    cuts = loaded.thresholds.chosen(threshold)
    tracks = store.newest_tracks(["row", "id", "flags", "reason", "detail"])
    rows = np.asarray(tracks.column("row"), dtype=np.int64)
    has_scores = store.status[rows] == OK
    n_scored, done = int(has_scores.sum()), 0
    for start in range(0, max(1, len(rows)), block_tracks):
        block, here = slice(start, start + block_tracks), has_scores[start : start + block_tracks]
        scores = np.full((len(here), len(loaded.genres)), np.nan, dtype=np.float32)
        if here.any():
            share = within(on_progress, before=done, total=n_scored)
            _, scores[here] = predict_store(loaded, store, rows[block][here], batch_size=batch_size, device=device,
                                            on_progress=share)  # fmt: skip
        done += int(here.sum())
        yield PredictedBlock(
            tracks=_with_pending(tracks.slice(start, block_tracks), store.status[rows[block]]),
            genres=loaded.genres,
            has_scores=here,
            scores=scores,
            decided=here[:, None] & (scores >= cuts),
        )


def _with_pending(tracks: pa.Table, status: npt.NDArray[np.uint8]) -> pa.Table:
    """Tracks without an outcome get a reason too."""
    absent = pa.array(status == ABSENT)
    for name, value in (("reason", "PENDING"), ("detail", "not extracted yet")):
        column = pc.if_else(absent, pa.scalar(value), tracks.column(name))
        tracks = tracks.set_column(tracks.schema.get_field_index(name), name, column)
    return tracks


def recipe_differences(loaded: LoadedModel, store: FeatureStore) -> list[str]:
    """What makes the store's features unfit for the model, one line each: ``mel.hop_length: 512 here, 256 there``.

    Only features the model uses count. A store without any text will do: every track then counts as one without
    lyrics.
    """
    unused = {"audio": ("lyrics.",), "lyrics": ("mel.",)}.get(loaded.model.config.modalities, ())
    if store.recipe.lyrics is None and loaded.model.config.modalities == "both":
        unused = ("lyrics.",)
    return [line for line in loaded.recipe.differences(store.recipe) if not line.startswith((*_HARMLESS, *unused))]


def refuse_other_recipe(loaded: LoadedModel, store: FeatureStore) -> None:
    """Raise :class:`RecipeMismatchError` where :func:`recipe_differences` finds any."""
    differences = recipe_differences(loaded, store)
    if differences:
        raise RecipeMismatchError(
            f"{store.path}: its features are not of the recipe the model in {loaded.folder} was trained on (model "
            f"here, store there): {'; '.join(differences)}; extract with the model's recipe"
        )


def lyrics_warnings(loaded: LoadedModel, words: npt.NDArray[np.bool_]) -> list[str]:
    """What to know before trusting scores of tracks without lyrics; empty where there is nothing to say.

    Parameters
    ----------
    words : (n,) bool, which tracks have lyrics (:func:`has_words`).
    """
    seen_without = loaded.n_without_lyrics > 0 or loaded.training.modality_dropout > 0
    if loaded.model.config.modalities == "audio" or seen_without:
        return []
    without = int((~words).sum())
    if not without:
        return []
    return [f"{without} of {len(words)} tracks have no lyrics, but the model was trained on tracks with lyrics only: "
            "their scores are a guess"]  # fmt: skip


def has_words(store: FeatureStore, rows: npt.NDArray[np.int64]) -> npt.NDArray[np.bool_]:
    """(n,) bool, whether the tracks have lyrics; none has in a store without text."""
    if store.recipe.lyrics is None or not len(rows):
        return np.zeros(len(rows), dtype=np.bool_)
    return np.asarray(store.read("lyrics_tokens", rows) > 0)
