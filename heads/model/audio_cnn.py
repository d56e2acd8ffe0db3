"""Audio encoder: five convolutional blocks over a log-mel spectrogram, time kept; and the level it is read at.

Shapes: B batch, M mel bands, T mel frames, K frames after the encoder, E channels after the encoder.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import torch
from torch import Tensor, nn

from ...cache.errors import ConfigError
from .batch import to_device
from .config import EncoderName, MelLevel

CHANNELS: dict[str, tuple[int, ...]] = {
    "base": (32, 64, 128, 256, 512),
    "lite": (16, 32, 64, 128, 256),
    "tiny": (8, 16, 32, 64, 128),
}
POOLS = ((2, 2), (2, 2), (2, 2), (4, 2), (4, 2))
"""Max-pooling of each block, (frequency, time)."""

TIME_STRIDE = 32
"""Mel frames per encoder frame (0.743 s at 22 050 Hz and hop 512)."""

MIN_MELS = 128
"""Mel bands that the pools reduce to one row."""


class AudioEncoder(nn.Module):
    """(B, M, T) normalised log-mel -> (B, K, E) frames, K = ceil(longest clip of the batch / 32), at most T // 32.

    Parameters
    ----------
    name : size of the encoder; E is 512 (``base``), 256 (``lite``) or 128 (``tiny``).
    n_mels : mel bands, at least 128; what is left of the frequency axis after the pools is averaged.

    Notes
    -----
    Ru et al. 2023 name "five convolutional blocks"; a block here is Conv3x3 (no bias), batch normalisation,
    max-pooling, ReLU. Pooling before ReLU gives the same numbers, since max and ReLU commute, from a quarter of the
    work.

    Frames of zero-padding take part in nothing. In every block, frames at or beyond ``ceil(mel_frames / 2^k)`` are
    left out of the batch statistics and come out as zero, which max-pooling over ReLU's output reads as "nothing here"
    and the next convolution as its own border padding. A clip therefore gives the same frames whatever its padding
    holds and however long it is, and what lies beyond the longest clip of a batch is not computed.
    """

    def __init__(self, name: EncoderName = "base", *, n_mels: int = MIN_MELS) -> None:
        super().__init__()
        if name not in CHANNELS:
            raise ConfigError(f"encoder {name!r} is unknown; choose one of {', '.join(CHANNELS)}")
        if n_mels < MIN_MELS:
            raise ConfigError(f"the encoder's pools need at least {MIN_MELS} mel bands, the store has {n_mels}")
        widths = CHANNELS[name]
        self.blocks = nn.ModuleList(
            ConvBlock(n_in, n_out, pool) for n_in, n_out, pool in zip((1, *widths), widths, POOLS, strict=False)
        )
        self.out_channels = widths[-1]

    def forward(self, mel_BMT: Tensor, mel_frames: Sequence[int]) -> Tensor:
        """Encode; `mel_frames` is the number of audio frames of each track. Padding frames are 0 in the output."""
        n_frames = mel_BMT.shape[-1]
        if n_frames < TIME_STRIDE:
            raise ValueError(f"the encoder needs at least {TIME_STRIDE} mel frames, the batch has {n_frames}")
        lengths = [min(max(n, 1), n_frames) for n in mel_frames]
        longest = min(-(-max(lengths, default=1) // TIME_STRIDE) * TIME_STRIDE, n_frames)
        # Channels last in memory: normalising and pooling many pixels of few channels is what a step on a CPU costs.
        x = mel_BMT[..., :longest].contiguous().unsqueeze(-1).permute(0, 3, 1, 2)
        for block in self.blocks:
            # Rounded up at every pool, tracks a few frames short of the longest catch up with it.
            padded = min(lengths, default=x.shape[-1]) < x.shape[-1]
            x = block(x, lengths if padded else None)
            lengths = [min((n + 1) // 2, x.shape[-1]) for n in lengths]
        frames_BKE: Tensor = x.mean(dim=2).transpose(1, 2)
        return frames_BKE


class ConvBlock(nn.Module):
    """Conv3x3 - BN - MaxPool - ReLU on (B, C, M, T), blind to frames at or beyond each track's length."""

    def __init__(self, n_in: int, n_out: int, pool: tuple[int, int]) -> None:
        super().__init__()
        self.conv = nn.Conv2d(n_in, n_out, 3, padding=1, bias=False)
        self.norm = nn.BatchNorm2d(n_out)
        self.pool = nn.MaxPool2d(pool)

    def forward(self, x: Tensor, lengths: list[int] | None) -> Tensor:
        """`lengths` None: every track is as long as the batch."""
        x = self.conv(x)
        if lengths is None:
            whole: Tensor = self.pool(self.norm(x))
            return torch.relu(whole)
        x = normalise_valid(self.norm, x, lengths)
        # The last pooled frame of an odd length also covers one frame of padding, into which the convolution spills.
        spilt = [(i, n) for i, n in enumerate(lengths) if n % 2 and n < x.shape[-1]]
        if spilt:
            track, frame = to_device(torch.tensor(spilt), x.device).T
            x[track, :, :, frame] = 0.0
        pooled = torch.relu(self.pool(x))
        halved = to_device(torch.tensor([(n + 1) // 2 for n in lengths]), x.device)
        return pooled.masked_fill(~valid_mask(halved, pooled.shape[-1])[:, None, None, :], 0.0)


def normalise_valid(norm: nn.BatchNorm2d, x: Tensor, lengths: list[int]) -> Tensor:
    """Batch-normalise (B, C, M, T) with the statistics of the first ``lengths[i]`` frames of each track.

    What comes out beyond a track's length means nothing. In training `x` itself is overwritten there.

    Notes
    -----
    In training, padding is filled with each channel's mean over the n valid of N values. That leaves the mean as it is
    and makes the variance exactly n / N of the valid one, which a scale of ``sqrt(n / N)`` and the same share of
    epsilon undo, so the library's fused kernel does the work; the fill carries its part of the gradient.
    """
    if not norm.training or min(lengths) >= x.shape[-1]:  # running statistics, or no padding to leave out
        plain: Tensor = norm(x)
        return plain
    n_mels, n_frames = x.shape[2:]
    n_valid, n_all = sum(lengths) * n_mels, len(lengths) * n_frames * n_mels
    share = n_valid / n_all
    filled: Tensor = _PaddingToMean.apply(x, lengths)  # type: ignore[no-untyped-call]
    assert norm.running_mean is not None
    assert norm.running_var is not None
    assert norm.momentum is not None
    batch_mean, batch_var = torch.zeros_like(norm.running_mean), torch.zeros_like(norm.running_var)
    out = nn.functional.batch_norm(
        filled, batch_mean, batch_var, norm.weight * share**0.5, norm.bias, True, 1.0, norm.eps * share
    )
    with torch.no_grad():
        norm.running_mean.lerp_(batch_mean, norm.momentum)
        norm.running_var.lerp_(batch_var * ((n_all - 1) / max(n_valid - 1, 1)), norm.momentum)
        if norm.num_batches_tracked is not None:
            norm.num_batches_tracked.add_(1)
    return out


class _PaddingToMean(torch.autograd.Function):
    """Overwrite padding with each channel's mean over the valid frames, in place; touches no more than it must."""

    @staticmethod
    def forward(ctx: Any, x: Tensor, lengths: list[int]) -> Tensor:
        ctx.lengths = lengths
        ctx.mark_dirty(x)
        padding = _padding(x, lengths)
        total = x.sum((0, 2, 3)) - torch.stack([part.sum((1, 2)) for part in padding]).sum(0)
        mean = total / (sum(lengths) * x.shape[2])
        for part in padding:
            part.copy_(mean[:, None, None])
        return x

    @staticmethod
    def backward(ctx: Any, *grads: Tensor) -> tuple[Tensor, None]:
        padding = _padding(grads[0], ctx.lengths)
        of_mean = torch.stack([part.sum((1, 2)) for part in padding]).sum(0)
        grad = grads[0] + (of_mean / (sum(ctx.lengths) * grads[0].shape[2]))[:, None, None]
        for part in _padding(grad, ctx.lengths):
            part.zero_()
        return grad, None


def _padding(x: Tensor, lengths: list[int]) -> list[Tensor]:
    """Views (C, M, frames beyond the end) of the tracks that have any."""
    return [x[i, :, :, n:] for i, n in enumerate(lengths) if n < x.shape[-1]]


def encoder_frames(mel_frames: Tensor, n_frames: int) -> Tensor:
    """Valid encoder frames of each track: ``ceil(mel_frames / 32)``, at least 1 and at most ``n_frames // 32``."""
    return (mel_frames.add(TIME_STRIDE - 1) // TIME_STRIDE).clamp(1, n_frames // TIME_STRIDE)


def valid_mask(lengths: Tensor, size: int) -> Tensor:
    """(B, size) bool, true below each length."""
    return torch.arange(size, device=lengths.device) < lengths[:, None]


def at_level(level: MelLevel, mel_BMT: Tensor, mel_frames: Tensor) -> Tensor:
    """Return spectrograms at this level; frames at or beyond `mel_frames` do not affect the maximum.

    Notes
    -----
    ``librosa.power_to_db(S, ref=np.max, top_db=80)`` of the power S is ``reference="max", top_db=80`` of the stored
    ``power_to_db(S, ref=1.0, top_db=None)``.
    """
    if level.reference == "one" and level.top_db is None:
        return mel_BMT
    valid = valid_mask(mel_frames.clamp(min=1), mel_BMT.shape[-1])[:, None, :]
    loudest = mel_BMT.masked_fill(~valid, -torch.inf).amax(dim=(1, 2), keepdim=True)
    if level.top_db is not None:
        mel_BMT = torch.maximum(mel_BMT, loudest - level.top_db)
    return mel_BMT - loudest if level.reference == "max" else mel_BMT
