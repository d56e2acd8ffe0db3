"""Define the audio encoder, five convolutional blocks over a log-mel spectrogram, and set the level of its input.

Shapes: B batch, M mel bands, T mel frames, K frames after the encoder, E channels after the encoder.
"""

from __future__ import annotations

import functools
from collections.abc import Callable, Sequence
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
        norms = BatchNorms([block.norm for block in self.blocks if isinstance(block, ConvBlock)], valid_BT)
        for level, block in enumerate(self.blocks):
            x = block(x, functools.partial(norms, level))
        norms.finish()
        x = x.permute(0, 3, 2, 1)
        return x.squeeze(2) if x.shape[2] == 1 else x.mean(dim=2)

    def encode(self, mel_BMT: Tensor, valid_BT: Tensor, *, padded: bool) -> tuple[Tensor, Tensor]:
        """Return the frames (B, K, E) and their mask (B, K), true for ``ceil(mel_frames / 32)``, at least 1."""
        frames_BKE = self(mel_BMT, valid_BT if padded else None)
        return frames_BKE, valid_BT[:, ::TIME_STRIDE][:, : frames_BKE.shape[1]]


class ConvBlock(nn.Module):
    """Conv3x3 - BN - MaxPool - ReLU on (B, C, M, T)."""

    def __init__(self, n_in: int, n_out: int, pool: tuple[int, int]) -> None:
        super().__init__()
        self.conv = nn.Conv2d(n_in, n_out, 3, padding=1, bias=False)
        self.norm = nn.BatchNorm2d(n_out)
        self.pool = nn.MaxPool2d(pool)

    def forward(self, x: Tensor, normalise: Callable[[Tensor], Tensor]) -> Tensor:
        """Transform `x`; `normalise` applies the batch normalisation, and returns 0 in padding."""
        # A maximum with the 0 of padding is the maximum of valid values after ReLU.
        return torch.relu(self.pool(normalise(self.conv(x))))


class BatchNorms:
    """Batch normalisations of one forward pass, with the statistics of the valid frames. The output of others is 0.

    Parameters
    ----------
    norms : the normalisations, all in the same mode. The input of the k-th has one of 2^k frames.
    valid_BT : (B, T) bool, true for the valid frames at the input of the first, which come first. None without padding.

    Notes
    -----
    In training, padding is filled with each channel's mean over its n valid of N values. The fill keeps the mean and
    makes the variance exactly n / N of that of valid values. A scale of ``sqrt(n / N)`` corrects for it, so that the
    fused kernel of the library can be used. The effective epsilon is N / n times as large. In the backward pass,
    padding is filled with the mean of the valid gradients, which the kernel subtracts. Valid frames therefore have the
    gradient of their statistics, and padding has none. What depends on n / N only is computed for all norms at once,
    since many small operations would otherwise limit the speed of a GPU.
    """

    def __init__(self, norms: Sequence[nn.BatchNorm2d], valid_BT: Tensor | None) -> None:
        self._norms = norms
        self._valid = None if valid_BT is None else valid_BT[:, None, None]  # (B, 1, 1, T)
        self._fills = valid_BT is not None and norms[0].training
        self._weights, self._biases = tuple(norm.weight for norm in norms), tuple(norm.bias for norm in norms)
        self._variances = _running_variances(norms)
        if valid_BT is None or not self._fills:
            return
        shares = [_level(valid_BT, level).mean(dtype=self._weights[0].dtype) for level in range(len(norms))]
        inverse_K111 = torch.stack(shares).reciprocal()[:, None, None, None]
        self._fill_BK11T = torch.where(valid_BT[:, None, None, None], 0.0, inverse_K111)
        widths = [len(weight) for weight in self._weights]
        share_C = torch.cat([share.expand(width) for share, width in zip(shares, widths, strict=True)])
        self._shares, roots = torch.split(share_C, widths), torch.split(share_C.sqrt(), widths)
        scaled = _Rescale.apply(roots, self._shares, *self._weights, *self._biases)  # type: ignore[no-untyped-call]
        self._weights, self._biases = scaled[: len(norms)], scaled[len(norms) :]
        self._variances = list(torch._foreach_mul(self._variances, self._shares))

    def __call__(self, level: int, x: Tensor) -> Tensor:
        """Normalise the input (B, C, M, T // 2^level) of a norm, which may be overwritten."""
        norm = self._norms[level]
        mask = None if self._valid is None else _level(self._valid, level)
        if self._fills:
            assert mask is not None
            if self._fill_BK11T.dtype != x.dtype:  # under autocast
                self._fill_BK11T = self._fill_BK11T.to(x.dtype)
            fill = _level(self._fill_BK11T[:, level], level)
            x = _MeanInPadding.apply(x, mask, fill)  # type: ignore[no-untyped-call]
        assert norm.momentum is not None
        variance, weight, bias = self._variances[level], self._weights[level], self._biases[level]
        # Without a count of batches, which a fixed momentum does not need.
        out = nn.functional.batch_norm(
            x, norm.running_mean, variance, weight, bias, norm.training, norm.momentum, norm.eps
        )
        if self._fills:
            return _ZeroInPadding.apply(out, mask, fill)  # type: ignore[no-any-return, no-untyped-call]
        return out if mask is None else _fill_padding(out, mask, 0.0)

    def finish(self) -> None:
        """Correct the running variances, once all norms are applied."""
        if self._fills:
            torch._foreach_copy_(_running_variances(self._norms), torch._foreach_div(self._variances, self._shares))


def normalise_valid(norm: nn.BatchNorm2d, x: Tensor, valid_BT: Tensor | None) -> Tensor:
    """Batch-normalise (B, C, M, T), which may be overwritten, as :class:`BatchNorms` does."""
    norms = BatchNorms([norm], valid_BT)
    out = norms(0, x)
    norms.finish()
    return out


def _running_variances(norms: Sequence[nn.BatchNorm2d]) -> list[Tensor]:
    return [norm.running_var for norm in norms if norm.running_var is not None]


def _level(x: Tensor, level: int) -> Tensor:
    """Return one of 2^level of T frames, which are the last axis; T // 2^level in all."""
    return x[..., :: 2**level][..., : x.shape[-1] // 2**level]


class _Rescale(torch.autograd.Function):
    """Scale the weights, and for the gradient, which counts padding, the weights and biases, of all channels."""

    @staticmethod
    def forward(
        ctx: Any, roots: tuple[Tensor, ...], shares: tuple[Tensor, ...], *parameters: Tensor
    ) -> tuple[Tensor, ...]:
        ctx.save_for_backward(*roots, *shares)
        weights, biases = parameters[: len(roots)], parameters[len(roots) :]
        return *torch._foreach_mul(weights, roots), *(bias.view_as(bias) for bias in biases)

    @staticmethod
    def backward(ctx: Any, *grads: Tensor) -> tuple[Tensor | None, ...]:
        return None, None, *torch._foreach_mul(grads, ctx.saved_tensors)


class _MeanInPadding(torch.autograd.Function):
    """Fill padding with each channel's mean over the valid frames; no gradient reaches it (`_ZeroInPadding`)."""

    @staticmethod
    def forward(ctx: Any, x: Tensor, valid: Tensor, fill: Tensor) -> Tensor:
        out = _fill_with_mean(_fill_padding(x, valid, 0.0), valid, fill)
        if out is x:
            ctx.mark_dirty(x)
        return out

    @staticmethod
    def backward(ctx: Any, *grads: Tensor) -> tuple[Tensor, None, None]:
        return grads[0], None, None


class _ZeroInPadding(torch.autograd.Function):
    """Fill padding with 0, and its gradient, which is 0, with the mean of the valid gradients."""

    @staticmethod
    def forward(ctx: Any, x: Tensor, valid: Tensor, fill: Tensor) -> Tensor:
        ctx.save_for_backward(valid, fill)
        out = _fill_padding(x, valid, 0.0)
        if out is x:
            ctx.mark_dirty(x)
        return out

    @staticmethod
    def backward(ctx: Any, *grads: Tensor) -> tuple[Tensor, None, None]:
        return _fill_with_mean(grads[0], *ctx.saved_tensors), None, None


def _fill_with_mean(x: Tensor, valid: Tensor, fill: Tensor) -> Tensor:
    """Fill padding, which is 0, with the mean over all frames times `fill` (B, 1, 1, T): N / n there, 0 elsewhere."""
    mean = x.mean(dim=(0, 2, 3), keepdim=True)
    return _fill_padding(x, valid, mean * fill.amax()) if _in_place(x) else torch.addcmul(x, fill, mean)


def _fill_padding(x: Tensor, valid: Tensor, value: Tensor | float) -> Tensor:
    """Fill (B, C, M, T) where `valid` (B, 1, 1, T) is false with a number or (1, C, 1, 1); in place on a CPU."""
    if not _in_place(x):
        return torch.where(valid, x, value)
    values = value[0] if isinstance(value, Tensor) else value
    for track, n_valid in enumerate(valid.sum(dim=-1).flatten().tolist()):
        x[track, ..., n_valid:] = values
    return x


def _in_place(x: Tensor) -> bool:
    return x.is_cpu and _IN_PLACE and not torch.compiler.is_compiling()


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
