"""Define the input and the output of a system.

Shapes: B batch, M mel bands, T mel frames, L lyrics tokens, D text width, C genres, P projection width.
Embeddings: V layers, N steps, W values per step.
"""

from __future__ import annotations

import copy
import dataclasses
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor


@dataclass(kw_only=True)
class Batch:
    """Cached features and labels of B tracks.

    Attributes
    ----------
    mel : (B, M, T) float, dB as stored; not normalised.
    mel_frames : (B,) int64, number of frames with audio; the others are padding.
    lyrics : (B, L, D) float, token states; arbitrary beyond the length.
    lyrics_tokens : (B,) int64, number of tokens with the special ones at both ends; 0 without lyrics.
    lyrics_pooled : (B, D) float, mean over non-special tokens; 0 without lyrics.
    labels : (B, C) float 0/1.
    track_key, lyrics_key : (B,) int64; equal for equal tracks, equal lyrics; ``lyrics_key`` is -1 without lyrics.
    rows : (B,) int64, rows of the store.
    embeddings : name of an added feature set -> (B, V, N, W) float, as stored, and (B,) int64, number of valid steps;
        values beyond them are arbitrary.
    padded : whether a clip is shorter than the batch, so that padding must be masked. Computed from `mel_frames` when
        the batch is built, on the host: reading a value from a GPU waits for all of its queued work.
    """

    mel: Tensor
    mel_frames: Tensor
    lyrics: Tensor
    lyrics_tokens: Tensor
    lyrics_pooled: Tensor
    labels: Tensor
    track_key: Tensor
    lyrics_key: Tensor
    rows: Tensor
    embeddings: Mapping[str, tuple[Tensor, Tensor]] = dataclasses.field(default_factory=dict)
    padded: bool = dataclasses.field(init=False)

    def __post_init__(self) -> None:
        self.padded = bool((self.mel_frames < self.mel.shape[-1]).any())

    def __len__(self) -> int:
        return len(self.rows)

    def to(self, device: torch.device | str) -> Batch:
        """Return the batch on another device."""
        return self.map(lambda tensor: tensor.to(device))

    def map(self, change: Callable[[Tensor], Tensor]) -> Batch:
        """Return the batch with `change` applied to each tensor; it must not change lengths."""
        return self.with_tensors(
            embeddings={name: (change(values), change(steps)) for name, (values, steps) in self.embeddings.items()},
            **{name: change(value) for name, value in vars(self).items() if isinstance(value, Tensor)},
        )

    def without_lyrics(self, dropped_B: Tensor) -> Batch:
        """Return the batch in which the tracks where `dropped_B` is true equal tracks without lyrics."""
        return self.with_tensors(
            lyrics=self.lyrics.masked_fill(dropped_B[:, None, None], 0.0),
            lyrics_tokens=self.lyrics_tokens.masked_fill(dropped_B, 0),
            lyrics_pooled=self.lyrics_pooled.masked_fill(dropped_B[:, None], 0.0),
            lyrics_key=self.lyrics_key.masked_fill(dropped_B, -1),
        )

    def with_tensors(self, **tensors: Any) -> Batch:
        """Return the batch with some fields replaced, with the same numbers of frames."""
        other = copy.copy(self)
        vars(other).update(tensors)
        return other


@dataclass(kw_only=True)
class Outputs:
    """Output of a system.

    Attributes
    ----------
    logits : (B, C) float32.
    fused : (B, F) float32, vector of the track before the classifier; for the query head, the mean over time of what
        it attends to, and None in training.
    audio_embedding, lyrics_embedding, tau : (B, P), (B, P) and (); None without projections.
    frames : (B, K, E) output frames of the audio encoder, on which both losses depend; None without projections.
    """

    logits: Tensor
    fused: Tensor | None = None
    audio_embedding: Tensor | None = None
    lyrics_embedding: Tensor | None = None
    tau: Tensor | None = None
    frames: Tensor | None = None


def to_device(tensor: torch.Tensor, device: torch.device) -> torch.Tensor:
    """Return `tensor` on `device`; a copy to a GPU is asynchronous."""
    if device.type != "cuda" or tensor.device.type == "cuda":
        return tensor.to(device)
    return tensor.pin_memory().to(device, non_blocking=True)
