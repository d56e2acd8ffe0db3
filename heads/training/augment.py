"""Augment training batches: SpecAugment masks in spectrograms, and modality dropout of lyrics.

Everything runs on the device of the batch. Random numbers come from torch's generators, which the training loop seeds
with (seed, epoch). Shapes: B batch, M mel bands, T mel frames.
"""

from __future__ import annotations

import torch
from torch import Tensor

from ..config import TrainConfig
from ..model.audio_cnn import valid_mask
from ..model.batch import Batch

N_MASKS = 2
"""Number of masks of each kind per track, as in the LibriSpeech double policy of SpecAugment."""
MAX_BANDS = 27
"""Maximum width of a frequency mask in mel bands (F in SpecAugment)."""
MAX_FRAMES, MAX_SHARE = 100, 0.2
"""Maximum width of a time mask in frames (T in SpecAugment), and as a share of the valid frames (p)."""


def augment_batch(batch: Batch, config: TrainConfig) -> Batch:
    """Return `batch` with the augmentations of `config`; unchanged, without drawing random numbers, if it has none."""
    if config.spec_augment:
        batch = batch.with_tensors(mel=spec_augment(batch.mel, batch.mel_frames))
    if config.modality_dropout > 0:
        batch = drop_lyrics(batch, config.modality_dropout)
    return batch


def spec_augment(mel_BMT: Tensor, mel_frames: Tensor) -> Tensor:
    """Replace random frequency bands and time spans of each track by the mean over its valid frames.

    Parameters
    ----------
    mel_BMT : in dB, as stored; not modified.
    mel_frames : (B,) int64, number of valid frames; time masks lie within them.

    Notes
    -----
    Park et al., Interspeech 2019, without time warping. The width of each mask is uniform between 0 and its maximum,
    and so is its position. As in the paper, masked values become the mean (0 after normalisation).
    """
    n_mels, n_frames = mel_BMT.shape[1:]
    frames = mel_frames.clamp(1, n_frames)
    most_frames = torch.clamp(frames * MAX_SHARE, max=MAX_FRAMES)
    bands_BM = _random_spans(
        torch.full_like(frames, n_mels), torch.full_like(most_frames, min(MAX_BANDS, n_mels)), n_mels
    )
    frames_BT = _random_spans(frames, most_frames, n_frames)
    valid = valid_mask(frames, n_frames)[:, None, :]
    total = mel_BMT.float().masked_fill(~valid, 0.0).sum(dim=(1, 2))
    mean = (total / (frames * n_mels)).to(mel_BMT.dtype)[:, None, None]
    return torch.where(bands_BM[:, :, None] | frames_BT[:, None, :], mean, mel_BMT)


def drop_lyrics(batch: Batch, probability: float) -> Batch:
    """Remove the lyrics of each track with `probability`, so that it equals a track without lyrics."""
    return batch.without_lyrics(torch.rand(len(batch), device=batch.lyrics_tokens.device) < probability)


def _random_spans(lengths: Tensor, max_width: Tensor, size: int) -> Tensor:
    """Return (B, size) bool: the union of `N_MASKS` random spans per row, each within the length of its row."""
    width, offset = torch.rand(2, len(lengths), N_MASKS, device=lengths.device)
    width = (width * (max_width[:, None] + 1)).floor().clamp(max=lengths[:, None])
    start = (offset * (lengths[:, None] - width + 1)).floor()
    step = torch.arange(size, device=lengths.device)
    inside: Tensor = (step >= start[..., None]) & (step < (start + width)[..., None])
    return inside.any(dim=1)
