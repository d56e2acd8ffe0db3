"""Define the audio encoder, five convolutional blocks over a log-mel spectrogram, and set the level of its input.

Shapes: B batch, M mel bands, T mel frames, K frames after the encoder, E channels after the encoder.
"""

from __future__ import annotations

from typing import Any

import torch
from torch import Tensor, nn

from ...cache.errors import ConfigError
from .config import EncoderName, MelLevel

CHANNELS: dict[str, tuple[int, ...]] = {
    "base": (32, 64, 128, 256, 512),
    "lite": (16, 32, 64, 128, 256),
    "tiny": (8, 16, 32, 64, 128),
}
POOLS = ((2, 2), (2, 2), (2, 2), (4, 2), (4, 2))
"""Max-pooling per block, (frequency, time)."""

TIME_STRIDE = 32
"""Mel frames per encoder frame (0.743 s at 22 050 Hz and hop 512)."""

_IN_PLACE = True
"""Whether to overwrite padding in place on a CPU, which uses less memory bandwidth than a mask. Tests switch it off."""

MIN_MELS = 128
"""Number of mel bands that the pools reduce to one row."""


class AudioEncoder(nn.Module):
    """(B, M, T) normalised log-mel -> (B, K, E) frames, K = T // 32.

    Parameters
    ----------
    name : size of the encoder; E is 512 (``base``), 256 (``lite``) or 128 (``tiny``).
    n_mels : number of mel bands, at least 128; the frequency axis after the pools is averaged.

    Raises
    ------
    ConfigError
        If `name` is unknown, or there are fewer than 128 mel bands.

    Notes
    -----
    Ru et al. 2023 describe "five convolutional blocks". A block here is Conv3x3 (no bias), batch normalisation,
    max-pooling, ReLU. Pooling before ReLU gives the same result with a quarter of the work, since max and ReLU commute.

    Padding frames have no effect. In every block, frames at or beyond ``ceil(mel_frames / 2^k)`` are left out of the
    batch statistics and of max-pooling. Their output is 0, which equals the border padding of the next convolution. The
    frames of a clip are therefore independent of content and length of its padding.
    """

    def __init__(self, name: EncoderName = "base", *, n_mels: int = MIN_MELS) -> None:
        super().__init__()
        if name not in CHANNELS:
            raise ConfigError(f"encoder={name!r}: unknown. Choose one of {', '.join(CHANNELS)}.")
        if n_mels < MIN_MELS:
            raise ConfigError(f"{n_mels} mel bands: too few for the encoder. Extract at least {MIN_MELS} mel bands.")
        widths = CHANNELS[name]
        self.blocks = nn.ModuleList(
            ConvBlock(n_in, n_out, pool) for n_in, n_out, pool in zip((1, *widths), widths, POOLS, strict=False)
        )
        self.out_channels = widths[-1]

    def forward(self, mel_BMT: Tensor, valid_BT: Tensor | None = None) -> Tensor:
        """Encode spectrograms; `valid_BT` is true for the audio frames, which come first, or None without padding."""
        n_frames = mel_BMT.shape[-1]
        if n_frames < TIME_STRIDE:
            raise ValueError(f"the encoder needs at least {TIME_STRIDE} mel frames, the batch has {n_frames}")
        # Channels last in memory: on a CPU, normalisation and pooling of many pixels with few channels dominate a step.
        x = mel_BMT.contiguous().unsqueeze(-1).permute(0, 3, 1, 2)
        for block in self.blocks:
            x = block(x, valid_BT)
            valid_BT = None if valid_BT is None else valid_BT[:, ::2][:, : x.shape[-1]]
        frames_BKE: Tensor = x.mean(dim=2).transpose(1, 2)
        return frames_BKE

    def encode(self, mel_BMT: Tensor, valid_BT: Tensor, *, padded: bool) -> tuple[Tensor, Tensor]:
        """Return the frames (B, K, E) and their mask (B, K), true for ``ceil(mel_frames / 32)``, at least 1."""
        frames_BKE = self(mel_BMT, valid_BT if padded else None)
        return frames_BKE, valid_BT[:, ::TIME_STRIDE][:, : frames_BKE.shape[1]]


class ConvBlock(nn.Module):
    """Conv3x3 - BN - MaxPool - ReLU on (B, C, M, T), ignoring frames that are not valid."""

    def __init__(self, n_in: int, n_out: int, pool: tuple[int, int]) -> None:
        super().__init__()
        self.conv = nn.Conv2d(n_in, n_out, 3, padding=1, bias=False)
        self.norm = nn.BatchNorm2d(n_out)
        self.pool = nn.MaxPool2d(pool)

    def forward(self, x: Tensor, valid_BT: Tensor | None) -> Tensor:
        """Transform `x`; the output of padding is 0. `valid_BT` is None if all frames are valid."""
        return torch.relu(self.pool(normalise_valid(self.norm, self.conv(x), valid_BT)))


def normalise_valid(norm: nn.BatchNorm2d, x: Tensor, valid_BT: Tensor | None) -> Tensor:
    """Batch-normalise (B, C, M, T) with the statistics of the valid frames. The output of other frames is -inf.

    The other frames of `x` may be overwritten.

    Notes
    -----
    In training, padding is filled with each channel's mean over its n valid of N values. The fill keeps the mean and
    makes the variance exactly n / N of that of valid values. A scale of ``sqrt(n / N)`` corrects for it, so that the
    fused kernel of the library can be used. The effective epsilon is N / n times as large. In the backward pass,
    padding is filled with the mean of the valid gradients, which the kernel subtracts. Valid frames therefore have the
    gradient of their statistics, and padding has none.
    """
    if valid_BT is None:
        plain: Tensor = norm(x)
        return plain
    if not norm.training:
        return _fill_padding(norm(x), valid_BT, -torch.inf)
    assert norm.running_var is not None
    assert norm.momentum is not None
    share = valid_BT.mean(dtype=norm.weight.dtype)
    filled = _MeanInPadding.apply(x, valid_BT, share)  # type: ignore[no-untyped-call]
    running_var = norm.running_var * share
    out = nn.functional.batch_norm(
        filled,
        norm.running_mean,
        running_var,
        norm.weight * share.sqrt(),
        torch.lerp(norm.bias.detach(), norm.bias, share),  # corrects the gradient, which counts padding
        training=True,
        momentum=norm.momentum,
        eps=norm.eps,
    )
    torch.div(running_var, share, out=norm.running_var)
    hidden: Tensor = _NothingInPadding.apply(out, valid_BT, share)  # type: ignore[no-untyped-call]
    return hidden


class _MeanInPadding(torch.autograd.Function):
    """Fill padding with each channel's mean over the valid frames; no gradient reaches it (`_NothingInPadding`)."""

    @staticmethod
    def forward(ctx: Any, x: Tensor, valid_BT: Tensor, share: Tensor) -> Tensor:
        out = _fill_with_mean(_fill_padding(x, valid_BT, 0.0), valid_BT, share)
        if out is x:
            ctx.mark_dirty(x)
        return out

    @staticmethod
    def backward(ctx: Any, *grads: Tensor) -> tuple[Tensor, None, None]:
        return grads[0], None, None


class _NothingInPadding(torch.autograd.Function):
    """Fill padding with -inf, and its gradient, which is 0, with the mean of the valid gradients."""

    @staticmethod
    def forward(ctx: Any, x: Tensor, valid_BT: Tensor, share: Tensor) -> Tensor:
        ctx.save_for_backward(valid_BT, share)
        out = _fill_padding(x, valid_BT, -torch.inf)
        if out is x:
            ctx.mark_dirty(x)
        return out

    @staticmethod
    def backward(ctx: Any, *grads: Tensor) -> tuple[Tensor, None, None]:
        return _fill_with_mean(grads[0], *ctx.saved_tensors), None, None


def _fill_with_mean(x: Tensor, valid_BT: Tensor, share: Tensor) -> Tensor:
    """Fill padding, which is 0, with each channel's mean over the valid frames."""
    return _fill_padding(x, valid_BT, x.mean(dim=(0, 2, 3)) / share)


def _fill_padding(x: Tensor, valid_BT: Tensor, value: Tensor | float) -> Tensor:
    """Fill the frames of (B, C, M, T) that are not valid with a number, or one per channel; in place on a CPU."""
    values = value[:, None, None] if isinstance(value, Tensor) else value
    if not (x.is_cpu and _IN_PLACE) or torch.compiler.is_compiling():
        return torch.where(valid_BT[:, None, None, :], x, values)
    for track, n_valid in enumerate(valid_BT.sum(dim=1).tolist()):
        x[track, :, :, n_valid:] = values
    return x


def valid_mask(lengths: Tensor, size: int) -> Tensor:
    """Return (B, size) bool, true below each length."""
    return torch.arange(size, device=lengths.device) < lengths[:, None]


def at_level(level: MelLevel, mel_BMT: Tensor, mel_frames: Tensor) -> Tensor:
    """Return spectrograms at this level; frames at or beyond `mel_frames` do not affect the maximum.

    Notes
    -----
    ``reference="max", top_db=80`` converts the stored ``power_to_db(S, ref=1.0, top_db=None)`` to
    ``librosa.power_to_db(S, ref=np.max, top_db=80)`` of the power S.
    """
    if level.reference == "one" and level.top_db is None:
        return mel_BMT
    valid = valid_mask(mel_frames.clamp(min=1), mel_BMT.shape[-1])[:, None, :]
    loudest = mel_BMT.masked_fill(~valid, -torch.inf).amax(dim=(1, 2), keepdim=True)
    if level.top_db is not None:
        mel_BMT = torch.maximum(mel_BMT, loudest - level.top_db)
    return mel_BMT - loudest if level.reference == "max" else mel_BMT
