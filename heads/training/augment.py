"""What training does to a batch so that a model cannot lean on one thing: masks in the spectrogram, lyrics left out.

All on the batch's device. Random numbers come from torch's generators, seeded by the training loop with (seed, epoch).
Shapes: B batch, M mel bands, T mel frames.
"""

from __future__ import annotations

import torch
from torch import Tensor

from ..config import TrainConfig
from ..model.audio_cnn import valid_mask
from ..model.batch import Batch

N_MASKS = 2
"""Masks of each kind a track, as in SpecAugment's LibriSpeech double policy."""
MAX_BANDS = 27
"""Mel bands a frequency mask hides at most (SpecAugment's F)."""
MAX_FRAMES, MAX_SHARE = 100, 0.2
"""Frames a time mask hides at most (SpecAugment's T), and at most this share of a clip's own frames (its p)."""


def augment_batch(batch: Batch, config: TrainConfig) -> Batch:
    """Return `batch` with the augmentations of `config`; itself, and no random number drawn, if there are none."""
    if config.spec_augment:
        batch = batch.with_tensors(mel=spec_augment(batch.mel, batch.mel_frames))
    if config.modality_dropout > 0:
        batch = drop_lyrics(batch, config.modality_dropout)
    return batch


def spec_augment(mel_BMT: Tensor, mel_frames: Tensor) -> Tensor:
    """Hide bands and stretches of each track: they become the track's mean over its valid frames.

    Parameters
    ----------
    mel_BMT : dB, as stored; not changed.
    mel_frames : (B,) int64, frames that hold sound; time masks fall among these.

    Notes
    -----
    Park et al., Interspeech 2019, without time warping: each mask is as wide as drawn uniformly from 0 to its maximum
    and lies anywhere it fits. The mean in the place of the masked values is theirs too (zero after normalisation).
    """
    n_mels, n_frames = mel_BMT.shape[1:]
    frames = mel_frames.clamp(1, n_frames)
    most_frames = torch.clamp(frames * MAX_SHARE, max=MAX_FRAMES)
    bands_BM = _stretches(torch.full_like(frames, n_mels), torch.full_like(most_frames, min(MAX_BANDS, n_mels)), n_mels)
    frames_BT = _stretches(frames, most_frames, n_frames)
    valid = valid_mask(frames, n_frames)[:, None, :]
    total = mel_BMT.float().masked_fill(~valid, 0.0).sum(dim=(1, 2))
    mean = (total / (frames * n_mels)).to(mel_BMT.dtype)[:, None, None]
    return torch.where(bands_BM[:, :, None] | frames_BT[:, None, :], mean, mel_BMT)


def drop_lyrics(batch: Batch, probability: float) -> Batch:
    """Drop the lyrics of each track that has them with `probability`; it is then like any track without."""
    dropped = torch.rand(len(batch), device=batch.lyrics_tokens.device) < probability
    return batch.with_tensors(
        lyrics=batch.lyrics.masked_fill(dropped[:, None, None], 0.0),
        lyrics_tokens=batch.lyrics_tokens.masked_fill(dropped, 0),
        lyrics_pooled=batch.lyrics_pooled.masked_fill(dropped[:, None], 0.0),
        lyrics_key=batch.lyrics_key.masked_fill(dropped, -1),
    )


def _stretches(lengths: Tensor, widest: Tensor, size: int) -> Tensor:
    """(B, size) bool: the union of `N_MASKS` stretches a row, each below its row's length."""
    width, place = torch.rand(2, len(lengths), N_MASKS, device=lengths.device)
    width = (width * (widest[:, None] + 1)).floor().clamp(max=lengths[:, None])
    start = (place * (lengths[:, None] - width + 1)).floor()
    step = torch.arange(size, device=lengths.device)
    inside: Tensor = (step >= start[..., None]) & (step < (start + width)[..., None])
    return inside.any(dim=1)
