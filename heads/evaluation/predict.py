"""Score batches of examples, tracks of a feature store, and whole catalogues with a model."""

from __future__ import annotations

import contextlib
import sys
from collections.abc import Iterator
from dataclasses import dataclass

import numpy as np
import numpy.typing as npt
import pyarrow as pa
import pyarrow.compute as pc
import torch

from ...cache.errors import ConfigError, RecipeMismatchError
from ...cache.format.recipe import feature_set_differences
from ...cache.format.schema import ABSENT, OK, Flag
from ...cache.reading.store import FeatureStore
from ...cache.steps import Progress, silent, within
from ..data.batches import Examples, FeatureBatches, Placement, in_batches
from ..device import free_bytes, resolve_device, reused_memory
from ..model.config import MEL
from ..model.system import System
from ..runs.published_model import LoadedModel
from .predict_options import PredictOptions
from .prediction_files import PredictedBlock

BLOCK_TRACKS = 1024
"""Number of tracks in memory at once when a whole catalogue is predicted."""

BATCH_ON_CUDA = 512
"""Number of tracks per batch on CUDA, if the memory is sufficient."""
_TRACK_BYTES = 128 * 2**20
"""Free memory required per track of a batch: twice the largest activations of the base encoder for a clip of 30 s."""

_HARMLESS = ("lyrics.model:", "lyrics.precision:", "genre_names.")
"""Differences that prediction accepts. Hashes identify a text model, so its name may differ. States in fp32 and bf16
agree within cosine 0.999 per token. The weights of the model include the genre name prompts."""


@dataclass(frozen=True, kw_only=True)
class OutputArrays:
    """Outputs for n examples, float32: logits (n, C), vectors (n, F), and (n, P) embeddings with projections."""

    logits: npt.NDArray[np.float32]
    fused: npt.NDArray[np.float32] | None = None
    audio_embedding: npt.NDArray[np.float32] | None = None
    lyrics_embedding: npt.NDArray[np.float32] | None = None


def score(
    model: System,
    batches: FeatureBatches,
    index: npt.NDArray[np.int64],
    *,
    batch_size: int = 16,
    tf32: bool = False,
    on_progress: Progress = silent,
) -> OutputArrays:
    """Compute the outputs for the examples at positions `index`, in that order, in float32 and without dropout.

    Parameters
    ----------
    batch_size : tracks per batch; on CUDA up to `BATCH_ON_CUDA` if the free memory is sufficient.
    tf32 : multiply with 10 bits of mantissa on CUDA; for validation, which only compares epochs.
    on_progress : receives the number of examples scored so far.
    """
    device = next(model.parameters()).device
    if device.type == "cuda":
        batch_size = max(batch_size, min(BATCH_ON_CUDA, free_bytes(device) // _TRACK_BYTES))
    # Sorted by the length of lyrics, for less padding.
    positions = in_batches(np.argsort(batches.examples.lyrics_tokens[index], kind="stable"), batch_size)
    tensors: dict[str, list[torch.Tensor]] = {}
    done = 0
    with torch.inference_mode(), evaluating(model, tf32=tf32):
        for position, batch in zip(positions, batches(index[position] for position in positions), strict=True):
            outputs = model(batch)
            for name in ("logits", "fused", "audio_embedding", "lyrics_embedding"):
                if (value := getattr(outputs, name)) is not None:
                    tensors.setdefault(name, []).append(value.float())  # on the device, copied once at the end
            done += len(position)
            on_progress("predict", done, len(index))
        if not positions:
            return OutputArrays(logits=np.zeros((0, model.config.n_genres), dtype=np.float32))
        back = np.argsort(np.concatenate(positions))
        return OutputArrays(**{name: torch.cat(values).cpu().numpy()[back] for name, values in tensors.items()})


def probabilities(logits: npt.NDArray[np.float32]) -> npt.NDArray[np.float32]:
    """Return scores in [0, 1], float32: the logistic function of the logits."""
    values: npt.NDArray[np.float32] = torch.from_numpy(logits).sigmoid().numpy()
    return values


@contextlib.contextmanager
def evaluating(model: System, *, tf32: bool) -> Iterator[None]:
    """Set evaluation mode without compilation; on CUDA with deterministic algorithms, in float32 or `tf32`."""
    was_training, matmul = model.training, torch.backends.cuda.matmul
    model.eval()
    try:
        with contextlib.ExitStack() as stack:
            if "torch._dynamo" in sys.modules:  # without the compiler imported, nothing is compiled
                stack.enter_context(torch.compiler.set_stance("force_eager"))  # scores do not depend on the training
            if next(model.parameters()).is_cuda:
                stack.callback(setattr, matmul, "allow_tf32", matmul.allow_tf32)
                matmul.allow_tf32 = tf32
                stack.enter_context(
                    torch.backends.cudnn.flags(enabled=True, benchmark=False, deterministic=True, allow_tf32=tf32)
                )
            yield
    finally:
        model.train(was_training)


@dataclass(frozen=True, kw_only=True)
class ScoredStore:
    """Tracks of a store, in the order of the given rows, with the outputs of a model."""

    examples: Examples
    outputs: OutputArrays

    @property
    def scores(self) -> npt.NDArray[np.float32]:
        """Scores (n, C) in [0, 1], with columns as ``LoadedModel.genres``."""
        return probabilities(self.outputs.logits)


def score_store(
    loaded: LoadedModel,
    store: FeatureStore,
    rows: npt.NDArray[np.int64] | None = None,
    *,
    batch_size: int = 16,
    device: str = "auto",
    on_progress: Progress = silent,
) -> ScoredStore:
    """Score tracks; the scores of a track do not depend on other rows.

    Parameters
    ----------
    rows : array rows with status ok; default: all.
    on_progress : receives the number of scored tracks, and their total.

    Raises
    ------
    RecipeMismatchError
        If the store's features have another recipe than the model's. The message lists the differences.
    TrackUnavailableError
        If a row has no features.
    """
    store = store_for(loaded, store)
    rows = store.ok_rows if rows is None else np.asarray(rows, dtype=np.int64)
    labels = np.zeros((len(rows), len(loaded.genres)), dtype=np.bool_)
    examples = Examples.of(store, rows, labels, loaded.model.config.audio)
    torch_device = resolve_device(device)
    model = loaded.model.to(torch_device)
    # Each track is read once, so caching would be useless.
    placement = Placement(name="mapped", n_bytes=0, free_bytes=0)
    batches = FeatureBatches(store, examples, placement=placement, device=torch_device, text_dim=model.config.text_dim)
    index = np.arange(len(rows), dtype=np.int64)
    with reused_memory(torch_device):
        outputs = score(model, batches, index, batch_size=batch_size, on_progress=on_progress)
    return ScoredStore(examples=examples, outputs=outputs)


def predict_blocks(
    loaded: LoadedModel,
    store: FeatureStore,
    options: PredictOptions,
    *,
    block_tracks: int = BLOCK_TRACKS,
    on_progress: Progress = silent,
) -> Iterator[PredictedBlock]:
    """Predict every track of a store in blocks, in row order; a retried track is predicted once, from its newest row.

    Parameters
    ----------
    options : threshold, batch size and device are used.
    on_progress : receives the number of scored tracks, and the total with features.

    Raises
    ------
    RecipeMismatchError
        As :func:`score_store`.
    """
    store = store_for(loaded, store)
    cuts = loaded.cuts(options.threshold)
    tracks = store.newest_tracks(["row", "id", "flags", "reason", "detail"])
    rows = np.asarray(tracks.column("row"), dtype=np.int64)
    has_scores = store.status[rows] == OK
    n_scored, done = int(has_scores.sum()), 0
    for start in range(0, max(1, len(rows)), block_tracks):
        block, scored = slice(start, start + block_tracks), has_scores[start : start + block_tracks]
        scores = np.full((len(scored), len(loaded.genres)), np.nan, dtype=np.float32)
        if scored.any():
            scores[scored] = score_store(
                loaded,
                store,
                rows[block][scored],
                batch_size=options.batch_size,
                device=options.device,
                on_progress=within(on_progress, before=done, total=n_scored),
            ).scores
        done += int(scored.sum())
        yield PredictedBlock(
            tracks=_with_pending(tracks.slice(start, block_tracks), store.status[rows[block]]),
            genres=loaded.genres,
            has_scores=scored,
            scores=scores,
            predicted=scored[:, None] & (scores >= cuts),
            n_zero_shot=loaded.n_zero_shot,
        )


def _with_pending(tracks: pa.Table, status: npt.NDArray[np.uint8]) -> pa.Table:
    """Return the tracks with reason ``PENDING`` where they have no outcome."""
    absent = pa.array(status == ABSENT)
    for name, value in (("reason", "PENDING"), ("detail", "not extracted yet")):
        column = pc.if_else(absent, pa.scalar(value), tracks.column(name))
        tracks = tracks.set_column(tracks.schema.get_field_index(name), name, column)
    return tracks


def store_for(loaded: LoadedModel, store: FeatureStore) -> FeatureStore:
    """Return the reader of a store for a model: tracks need the added feature sets of its audio input.

    Only features that the model uses count. A store without text features is accepted: its tracks have no lyrics.

    Raises
    ------
    RecipeMismatchError
        If the features of the store do not fit the model, with the differences.
    """
    config = loaded.model.config
    unused: tuple[str, ...] = ("lyrics.",) if config.modalities == "audio" else ()
    if config.modalities == "lyrics" or MEL not in config.audio:
        unused += ("mel.",)
    if store.recipe.lyrics is None and config.modalities == "both":
        unused += ("lyrics.",)
    sides = ("the model", "the store")
    lines = loaded.recipe.differences(store.recipe, sides)
    differences = [line for line in lines if not line.startswith((*_HARMLESS, *unused))]
    for name, recipe in loaded.added.items():
        if name not in store.extractors:
            raise RecipeMismatchError(
                f"{store.path}: no feature set {name!r}, on which the model in {loaded.folder} was trained. Add it "
                f"with `mgc extract SOURCE -o {store.path} --add {name}`."
            )
        differences += feature_set_differences(recipe, store.extractors[name], sides)
    if differences:
        raise RecipeMismatchError(
            f"the features have another recipe than the model in {loaded.folder} was trained on: {store.path}: "
            f"{'; '.join(differences)}. Extract the features with the model's recipe."
        )
    return store.requiring(loaded.added)


def project_lyrics(
    loaded: LoadedModel, pooled: npt.NDArray[np.float32], first: npt.NDArray[np.float32]
) -> npt.NDArray[np.float32]:
    """Return the lyrics embedding of one text, (P,), from the mean and the first of its token states, (D,) each.

    Raises
    ------
    ConfigError
        If the model was trained without the audio-lyrics loss.
    """
    projection = getattr(loaded.model, "projection", None)
    if projection is None:
        raise ConfigError(
            f"{loaded.folder}: trained without the audio-lyrics loss, so it cannot compare lyrics with audio."
        )
    state = pooled if loaded.model.config.lyrics_pooling == "mean" else first
    with torch.inference_mode():
        audio = torch.zeros(1, projection.audio.in_features)
        embedding: npt.NDArray[np.float32] = projection(audio, torch.from_numpy(state)[None])[1][0].numpy()
    return embedding


def lyrics_warnings(loaded: LoadedModel, has_lyrics: npt.NDArray[np.bool_]) -> list[str]:
    """Return a warning if tracks have no lyrics and the model was not trained on such tracks; else an empty list.

    Parameters
    ----------
    has_lyrics : (n,) bool, from :func:`tracks_with_lyrics`.
    """
    seen_without = loaded.n_without_lyrics > 0 or loaded.training.modality_dropout > 0
    without = int((~has_lyrics).sum())
    if loaded.model.config.modalities == "audio" or seen_without or not without:
        return []
    return [
        f"{without} of {len(has_lyrics)} tracks have no lyrics, but the model was trained on tracks with lyrics only: "
        "their scores are unreliable."
    ]


_NO_TEXT = {
    Flag.INSTRUMENTAL: "marked as instrumental",
    Flag.EMPTY_LYRICS: "with empty lyrics",
    Flag.LYRICS_FAILED: "with unreadable lyrics",
}


def explain_missing_lyrics(flags: npt.NDArray[np.uint32]) -> str:
    """Return how many tracks without lyrics have a text that is none, in parentheses; empty if no track has one.

    Parameters
    ----------
    flags : (n,) uint32, of the tracks without lyrics.
    """
    counts = {text: int((flags & flag.value > 0).sum()) for flag, text in _NO_TEXT.items()}
    texts = [f"{count} {text}" for text, count in counts.items() if count]
    return f" ({', '.join(texts)})" if texts else ""


def tracks_with_lyrics(store: FeatureStore, rows: npt.NDArray[np.int64]) -> npt.NDArray[np.bool_]:
    """Return (n,) bool, true for tracks with lyrics; all false for a store without text features."""
    if store.recipe.lyrics is None or not len(rows):
        return np.zeros(len(rows), dtype=np.bool_)
    return np.asarray(store.read("lyrics_tokens", rows) > 0)
