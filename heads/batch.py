"""What goes into a system and what comes out of it.

Shapes: B batch, M mel bands, T mel frames, L lyric tokens, D text width, C genres, P projection width.
"""

from __future__ import annotations

import dataclasses
from dataclasses import dataclass

import torch
from torch import Tensor


@dataclass(kw_only=True)
class Batch:
    """Cached features and labels of B tracks.

    Attributes
    ----------
    mel : (B, M, T) float, dB as stored; not normalised.
    mel_frames : (B,) int64, frames that hold sound.
    lyrics : (B, L, D) float, token states, anything beyond the length.
    lyrics_tokens : (B,) int64, tokens with [CLS] and [SEP]; 0 without lyrics.
    lyrics_pooled : (B, D) float, mean over non-special tokens; 0 without lyrics.
    labels : (B, C) float 0/1.
    track_key, lyrics_key : (B,) int64; equal keys mean the same track, the same lyrics; ``lyrics_key`` -1: none.
    rows : (B,) int64, rows of the store.
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

    def __len__(self) -> int:
        return len(self.rows)

    def to(self, device: torch.device | str, *, non_blocking: bool = False) -> Batch:
        """The same batch on another device."""
        return Batch(
            **{
                field.name: getattr(self, field.name).to(device, non_blocking=non_blocking)
                for field in dataclasses.fields(self)
            }
        )


@dataclass(kw_only=True)
class Outputs:
    """What the model gives: logits (B, C) float32 and, with the contrastive part, two (B, P) embeddings and tau ()."""

    logits: Tensor
    audio_embedding: Tensor | None = None
    lyrics_embedding: Tensor | None = None
    tau: Tensor | None = None
