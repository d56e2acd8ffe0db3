"""Explain the scores of one track by occlusion: hide a region of its input and score the track again.

Shapes: R regions of one kind, C genres, M mel bands, T mel frames, L lyrics tokens, D text width, W words, K audio
frames.
"""

from __future__ import annotations

import itertools
from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt
import torch
from torch import Tensor

from ...cache.format.mel_scale import hz_to_mel, mel_to_hz
from ...cache.format.recipe import MelRecipe
from ...cache.reading.store import FeatureStore
from ...cache.steps import Progress, silent
from ..data.batches import Examples, FeatureBatches, Placement
from ..model.batch import Batch
from ..model.model import GenreModel
from ..model.system import System
from ..results import json_value
from ..runs.published_model import LoadedModel
from .predict import evaluating, probabilities

MODALITIES, SECONDS, BANDS, WORDS = "modalities", "seconds", "bands", "words"
"""Kinds of regions."""
METHODS = {
    MODALITIES: "audio: each value becomes its mean over the training split; lyrics: the track has none",
    SECONDS: "each mel band gets its 25th percentile over the clip",
    BANDS: "each mel band gets its 25th percentile over the clip",
    WORDS: "the word is removed, and the text encoded again",
}
IN_WAVEFORM = "the audio becomes silent there, and all features are extracted again"
"""How a region is hidden."""

FILL_PERCENTILE = 25
"""Percentile over time that hidden cells of a mel band get: the level of its quiet moments."""
_BATCH = 8
Floats = npt.NDArray[np.float32]
Place = Mapping[str, Any]


@dataclass(frozen=True, kw_only=True)
class Regions:
    """Regions of one kind, and the scores without each of them.

    Attributes
    ----------
    places : (R,) position of each region: start_s and end_s, or low_hz and high_hz, or word, start and end (characters
        of the lyrics), or modality.
    reference : (C,) logits with nothing hidden.
    logits : (R, C) with one region hidden.
    """

    places: Sequence[Place]
    reference: Floats
    logits: Floats

    @property
    def effects(self) -> Floats:
        """Decreases of the log odds of each genre if a region is hidden, (R, C); positive if the region supports it."""
        return self.reference - self.logits


@dataclass(frozen=True, kw_only=True)
class Words:
    """Words of lyrics.

    Attributes
    ----------
    places : (W,) word, start and end of each.
    tokens : (W,) positions of the tokens of each word among the states of the lyrics.
    encoded : states (L, D) and their mean (D,) of the lyrics, and then of the lyrics without each word.
    """

    places: Sequence[Place]
    tokens: Sequence[Sequence[int]]
    encoded: Iterable[tuple[Floats, Floats]]


def track_batch(loaded: LoadedModel, store: FeatureStore, row: int, device: torch.device) -> Batch:
    """Return the batch of one track of a store that fits the model (:func:`store_for`), on `device`."""
    config = loaded.model.config
    labels = np.zeros((1, config.n_genres), dtype=np.bool_)
    examples = Examples.of(store, np.asarray([row], dtype=np.int64), labels, config.audio)
    placement = Placement(name="mapped", n_bytes=0, free_bytes=0)
    batches = FeatureBatches(store, examples, placement=placement, device=device, text_dim=config.text_dim)
    return batches.batch(np.zeros(1, dtype=np.int64))


def score_regions(
    loaded: LoadedModel, kind: str, places: Sequence[Place], batches: Iterable[Batch], on_progress: Progress = silent
) -> Regions:
    """Return regions with scores; `batches` hold the track with nothing hidden, and then without each region."""
    logits = list[Floats]()
    with torch.inference_mode(), evaluating(loaded.model, tf32=False):
        for batch in batches:
            logits.extend(loaded.model(batch).logits.float().cpu().numpy())
            on_progress(f"explain {kind}", len(logits), len(places) + 1)
    return Regions(places=places, reference=logits[0], logits=np.stack(logits[1:]))


def segments(n_steps: int, n_segments: int, start_s: float, step_s: float) -> tuple[list[Place], list[int]]:
    """Return equal segments of `n_steps` frames or samples of `step_s` from `start_s` on, and their R + 1 edges."""
    edges = _edges(n_steps, n_segments)
    ends = itertools.pairwise(start_s + edge * step_s for edge in edges)
    return [{"start_s": start, "end_s": end} for start, end in ends], edges


def bands(recipe: MelRecipe, n_bands: int) -> tuple[list[Place], list[int]]:
    """Return groups of neighbouring mel bands, which end between band centres, and their R + 1 edges."""
    edges = _edges(recipe.n_mels, n_bands)
    low, high = hz_to_mel(recipe.fmin_hz), hz_to_mel(recipe.fmax_hz)
    mels = low + (np.asarray(edges) + 0.5) * (high - low) / (recipe.n_mels + 1)
    mels[0], mels[-1] = low, high
    ends = itertools.pairwise(mel_to_hz(mels).tolist())
    return [{"low_hz": start, "high_hz": end} for start, end in ends], edges


def masks(edges: Sequence[int], size: int) -> Tensor:
    """Return (R, `size`) bool, true between two edges."""
    step, ends = torch.arange(size), torch.tensor(edges)[:, None]
    return (step >= ends[:-1]) & (step < ends[1:])


def without_cells(batch: Batch, hidden: Tensor) -> Iterator[Batch]:
    """Yield the batch of a track, and then copies without some cells of its spectrogram.

    Parameters
    ----------
    hidden : (R, M or 1, T or 1) bool, true for the cells to hide in copy r.
    """
    yield batch
    mel = batch.mel.float()
    valid = mel[:, :, : int(batch.mel_frames.clamp(min=1))]
    quiet = torch.quantile(valid, FILL_PERCENTILE / 100, dim=2, keepdim=True)
    for chunk in torch.split(hidden.to(mel.device), _BATCH):
        yield _copies(batch, len(chunk)).with_tensors(mel=torch.where(chunk, quiet, mel))


def hide_mel(
    loaded: LoadedModel,
    batch: Batch,
    recipe: MelRecipe,
    start_s: float,
    n_segments: int,
    n_bands: int,
    on_progress: Progress = silent,
) -> dict[str, Regions]:
    """Return time segments and groups of mel bands of a track whose clip starts at `start_s` of its file."""
    n_frames, frame_s = int(batch.mel_frames.clamp(min=1)), recipe.hop_length / recipe.sample_rate_hz
    seconds, edges = segments(n_frames, n_segments, start_s, frame_s)
    groups, group_edges = bands(recipe, n_bands)
    in_time = without_cells(batch, masks(edges, batch.mel.shape[-1])[:, None, :])
    in_bands = without_cells(batch, masks(group_edges, recipe.n_mels)[:, :, None])
    return {
        SECONDS: score_regions(loaded, SECONDS, seconds, in_time, on_progress),
        BANDS: score_regions(loaded, BANDS, groups, in_bands, on_progress),
    }


def without_words(batch: Batch, encoded: Iterable[tuple[Floats, Floats]]) -> Iterator[Batch]:
    """Yield copies of a track with other lyrics: states (L, D) and their mean (D,)."""
    remaining = iter(encoded)
    while chunk := list(itertools.islice(remaining, _BATCH)):
        tokens = torch.tensor([len(states) for states, _ in chunk], device=batch.mel.device)
        states = [torch.from_numpy(states).to(batch.lyrics) for states, _ in chunk]
        pooled = torch.stack([torch.from_numpy(pooled).to(batch.lyrics_pooled) for _, pooled in chunk])
        yield _copies(batch, len(chunk)).with_tensors(
            lyrics=torch.nn.utils.rnn.pad_sequence(states, batch_first=True), lyrics_tokens=tokens, lyrics_pooled=pooled
        )


def without_modalities(model: System, batch: Batch, names: Sequence[str]) -> Iterator[Batch]:
    """Yield the batch of a track, and then without each modality: with training means as audio, or without lyrics."""
    yield batch
    if "audio" in names:
        mel = torch.full_like(batch.mel, float(model.mel_mean))
        if model.config.mel_level.reference == "max":
            mel[:, 0, 0] = 0.0  # the level of the others is relative to it
        embeddings = dict(batch.embeddings)
        if isinstance(model, GenreModel):
            for encoder, (name, (values, steps)) in zip(model.embeddings, batch.embeddings.items(), strict=True):
                mean = torch.as_tensor(encoder.mean)[None, :, None]
                embeddings[name] = mean.to(values).expand_as(values), steps
        yield batch.with_tensors(mel=mel, embeddings=embeddings)
    if "lyrics" in names:
        yield batch.without_lyrics(torch.ones(1, dtype=torch.bool, device=batch.mel.device))


@dataclass(frozen=True, kw_only=True)
class Attention:
    """Cross-modal attention between the words and the frames of a track, as means over the heads.

    Attributes
    ----------
    starts_s : (K,) start of each frame.
    of_words : (W, K) attention of a word over the frames: the mean of its tokens; a row sums to 1.
    of_frames : (K, W) attention of a frame over the words: the sum of their tokens. Other tokens have the rest.
    """

    starts_s: npt.NDArray[np.float64]
    of_words: Floats
    of_frames: Floats


def word_attention(
    loaded: LoadedModel, batch: Batch, tokens: Sequence[Sequence[int]], start_s: float, end_s: float
) -> Attention | None:
    """Return the attention of a track between `start_s` and `end_s`; None if the model has no cross-modal attention."""
    if not isinstance(loaded.model, GenreModel) or len(loaded.model.config.audio) > 1:
        return None
    with torch.inference_mode(), evaluating(loaded.model, tf32=False):
        maps = loaded.model.attention_maps(batch)
    if maps is None:
        return None
    over_tokens, over_frames = (weights[0].float().mean(dim=0).cpu().numpy() for weights in maps)
    n_frames = over_frames.shape[1]
    return Attention(
        starts_s=start_s + (end_s - start_s) * np.arange(n_frames) / n_frames,
        of_words=np.stack([over_frames[list(own)].mean(axis=0) for own in tokens]),
        of_frames=np.stack([over_tokens[:, list(own)].sum(axis=1) for own in tokens], axis=1),
    )


def _copies(batch: Batch, n: int) -> Batch:
    return batch.map(lambda tensor: tensor.expand(n, *tensor.shape[1:]))


def _edges(size: int, n_regions: int) -> list[int]:
    n_regions = min(n_regions, size)
    return [size * i // n_regions for i in range(n_regions + 1)]


@dataclass(frozen=True, kw_only=True)
class Explanation:
    """Regions of one track that support the scores of some genres.

    Attributes
    ----------
    id, file, lyrics : of the track; None for a file or lyrics that are not available.
    start_s, end_s : the clip within the file.
    genres, thresholds : of all C outputs of the model.
    explained : (G,) positions of the genres to report, the highest score first.
    regions : ``modalities``, ``seconds``, ``bands`` and ``words`` -> regions; without those that cannot be hidden.
    methods : kind of region -> how it is hidden.
    """

    model: str
    id: str
    file: Path | None
    lyrics: str | None
    start_s: float
    end_s: float
    genres: Sequence[str]
    thresholds: npt.NDArray[np.float64]
    explained: Sequence[int]
    regions: Mapping[str, Regions]
    attention: Attention | None
    methods: Mapping[str, str]
    remarks: Sequence[str]

    @property
    def scores(self) -> Floats:
        """Scores (C,) in [0, 1] with nothing hidden."""
        return probabilities(self.regions[MODALITIES].reference)

    def to_dict(self) -> dict[str, Any]:
        """Return everything as JSON values; an ``effect`` is a decrease of the log odds, in nats."""
        found = self.attention
        return {
            "model": self.model,
            "id": self.id,
            "start_s": self.start_s,
            "end_s": self.end_s,
            "genres": [self._of_genre(column) for column in self.explained],
            "lyrics": self.lyrics,
            "attention": None if found is None else {name: json_value(value) for name, value in vars(found).items()},
            "methods": dict(self.methods),
            "remarks": list(self.remarks),
        }

    def _of_genre(self, column: int) -> dict[str, Any]:
        score, threshold = float(self.scores[column]), float(self.thresholds[column])
        named = {"genre": self.genres[column], "score": score, "threshold": threshold, "predicted": score >= threshold}
        for kind, regions in self.regions.items():
            columns = probabilities(regions.logits)[:, column].tolist(), regions.effects[:, column].tolist()
            named[kind] = [
                {**place, "score": hidden, "effect": effect}
                for place, hidden, effect in zip(regions.places, *columns, strict=True)
            ]
        return named
