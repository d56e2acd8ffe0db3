"""Fuse audio and lyrics by symmetric cross-modal attention (SCMA); with its ablation, and for single modalities.

Shapes: B batch, K audio frames, L lyrics tokens, W model width, H heads, D text width, E encoder channels.
"""

from __future__ import annotations

import functools
import math
from collections.abc import Callable, Sequence
from dataclasses import dataclass

import torch
from torch import Tensor, nn

from ...cache.errors import ConfigError
from .config import LyricsPooling


def attend(query: Tensor, key: Tensor, value: Tensor, key_mask: Tensor | None = None, dropout: float = 0.0) -> Tensor:
    """Compute scaled dot-product attention.

    Parameters
    ----------
    query, key, value : (..., Q, d), (..., N, d), (..., N, v).
    key_mask : bool, broadcastable to (..., Q, N); keys are ignored where it is false.
    dropout : probability of dropping an attention weight.

    Notes
    -----
    Ru et al. 2023, Eq. 1: ``softmax(Q K^T / sqrt(d)) V``.
    """
    return nn.functional.scaled_dot_product_attention(query, key, value, attn_mask=key_mask, dropout_p=dropout)


class CrossAttention(nn.Module):
    """Multi-head attention of one sequence over another: (B, Q, W) over (B, N, W) -> (B, Q, W).

    Parameters
    ----------
    uniform : all valid keys have the same weight for any query; a control for the effect of attention.
    """

    def __init__(self, width: int, heads: int, dropout: float, *, uniform: bool = False) -> None:
        super().__init__()
        self.query = nn.Linear(width, width)
        self.key = nn.Linear(width, width)
        self.value = nn.Linear(width, width)
        self.out = nn.Linear(width, width)
        self.heads = heads
        self.dropout = dropout
        self.uniform = uniform
        for layer in (self.query, self.key, self.value):
            nn.init.xavier_uniform_(layer.weight)
        for layer in (self.query, self.key, self.value, self.out):
            nn.init.zeros_(layer.bias)

    def forward(
        self, x_BQW: Tensor, other_BNW: Tensor, other_mask_BN: Tensor, projected: Sequence[Tensor] | None = None
    ) -> Tensor:
        """Attend; `x_BQW` may be (1, Q, W) for all tracks. `projected`: query, key and value, if computed elsewhere."""
        if projected is None:
            projected = self.query(x_BQW), *linear_together(other_BNW, self.key, self.value)
        query, key, value = map(self._split, projected)
        query = query.expand(len(key), -1, -1, -1)
        if self.uniform:
            query = query * 0.0
        mixed_BHQd = attend(query, key, value, other_mask_BN[:, None, None, :], self.dropout if self.training else 0.0)
        mixed: Tensor = self.out(mixed_BHQd.transpose(1, 2).flatten(2))
        return mixed

    def weights(self, x_BQW: Tensor, other_BNW: Tensor, other_mask_BN: Tensor) -> Tensor:
        """Return the attention weights (B, H, Q, N): rows sum to 1, masked keys have 0."""
        query, key = self._split(self.query(x_BQW)), self._split(self.key(other_BNW))
        scores = (query * (0.0 if self.uniform else 1.0)) @ key.transpose(-1, -2) / math.sqrt(query.shape[-1])
        return scores.masked_fill(~other_mask_BN[:, None, None, :], -torch.inf).softmax(dim=-1)

    def _split(self, x_BNW: Tensor) -> Tensor:
        n_batch, length, width = x_BNW.shape
        return x_BNW.reshape(n_batch, length, self.heads, width // self.heads).transpose(1, 2)


class CrossModalBlock(nn.Module):
    """``LN(U + MHA(U, V, V))``, optionally followed by ``LN(Z + FFN(Z))`` with four times the width inside."""

    def __init__(self, width: int, heads: int, dropout: float, *, ffn: bool, uniform: bool) -> None:
        super().__init__()
        self.attention = CrossAttention(width, heads, dropout, uniform=uniform)
        self.norm = nn.LayerNorm(width)
        self.ffn = (
            nn.Sequential(nn.Linear(width, 4 * width), nn.ReLU(), nn.Dropout(dropout), nn.Linear(4 * width, width))
            if ffn
            else None
        )
        self.ffn_norm = nn.LayerNorm(width) if ffn else None

    def forward(
        self, x: Tensor, other: Tensor, other_mask: Tensor, projected: Sequence[Tensor] | None = None
    ) -> Tensor:
        z: Tensor = self.norm(x + self.attention(x, other, other_mask, projected))
        if self.ffn is not None and self.ffn_norm is not None:
            z = self.ffn_norm(z + self.ffn(z))
        return z


class Fusion(nn.Module):
    """Project both modalities to one width, let them attend to each other, and average each over time.

    Parameters
    ----------
    audio_dim, text_dim : width of the audio frames and of the token states; None for an unused modality.
    width, heads, dropout : of the attention; dropout applies to attention weights (and inside the FFN).
    attention : False is the ablation without SCMA, ``f = [mean U_a ; mean U_l]``. With one modality ``f = mean U``.
    lyrics_pooling : ``mean`` over the non-special tokens, or ``cls`` for the first token ([CLS] or <s>).

    Attributes
    ----------
    out_width : width of ``f``: two model widths with both modalities, one with a single modality.

    Raises
    ------
    ConfigError
        If `width` is not a multiple of `heads`, or attention has a single modality.

    Notes
    -----
    Ru et al. 2023, section 2.2: ``Z_a = LN(U_a + MHA(U_a, U_l, U_l))``, ``Z_l = LN(U_l + MHA(U_l, U_a, U_a))``, each
    direction with its own weights. Masked frames and tokens are neither keys nor part of a mean. Special tokens are
    keys, but not part of the mean, like in the stored pooled vector.
    """

    def __init__(
        self,
        *,
        audio_dim: int | None,
        text_dim: int | None,
        width: int = 256,
        heads: int = 4,
        dropout: float = 0.1,
        attention: bool = True,
        ffn: bool = False,
        uniform: bool = False,
        lyrics_pooling: LyricsPooling = "mean",
    ) -> None:
        super().__init__()
        if width % heads:
            raise ConfigError(f"width={width}: not a multiple of heads={heads}. Change one of them.")
        if attention and (audio_dim is None or text_dim is None):
            raise ConfigError("attention=True: needs both modalities. Set attention=False for a single modality.")
        self.audio_projection = nn.Linear(audio_dim, width) if audio_dim is not None else None
        self.lyrics_projection = nn.Linear(text_dim, width) if text_dim is not None else None
        self.lyrics_pooling = lyrics_pooling
        self.out_width = width * ((audio_dim is not None) + (text_dim is not None))
        self.audio_block: CrossModalBlock | None = None
        self.lyrics_block: CrossModalBlock | None = None
        if attention:
            self.audio_block = CrossModalBlock(width, heads, dropout, ffn=ffn, uniform=uniform)
            self.lyrics_block = CrossModalBlock(width, heads, dropout, ffn=ffn, uniform=uniform)

    def forward(self, audio: tuple[Tensor, Tensor] | None, lyrics: tuple[Tensor, Tensor] | None) -> Fused:
        """Fuse audio frames and token states.

        Parameters
        ----------
        audio : frames (B, K, E), also finite in padding, and their mask (B, K), or their weights in the mean, 0 in
            padding; None for an unused modality.
        lyrics : token states (B, L, D), also finite in padding, and their mask (B, L); None for an unused modality.
        """
        z_a = z_l = None
        if self.audio_projection is not None and audio is not None:
            frames, weights_a = audio
            mask_a = weights_a.bool()
            z_a = u_a = self.audio_projection(frames)
        if self.lyrics_projection is not None and lyrics is not None:
            tokens, mask_l = lyrics
            z_l = u_l = self.lyrics_projection(tokens)
        if self.audio_block is not None and self.lyrics_block is not None:
            audio_attention, lyrics_attention = self.audio_block.attention, self.lyrics_block.attention
            query_a, *from_a = linear_together(u_a, audio_attention.query, lyrics_attention.key, lyrics_attention.value)
            query_l, *from_l = linear_together(u_l, lyrics_attention.query, audio_attention.key, audio_attention.value)
            z_a = self.audio_block(u_a, u_l, mask_l, (query_a, *from_l))
            z_l = self.lyrics_block(u_l, u_a, mask_a, (query_l, *from_a))
        sequences, masks = [], []
        pools: list[Callable[[], Tensor]] = []
        if z_a is not None:
            sequences.append(z_a)
            masks.append(mask_a)
            pools.append(functools.partial(masked_mean, z_a, weights_a))
        if z_l is not None:
            sequences.append(z_l)
            masks.append(mask_l)
            pools.append(functools.partial(self._pool_lyrics, z_l, mask_l))
        return Fused(sequences=tuple(sequences), masks=tuple(masks), pools=tuple(pools))

    def attention_maps(
        self, audio: tuple[Tensor, Tensor], lyrics: tuple[Tensor, Tensor]
    ) -> tuple[Tensor, Tensor] | None:
        """Return the attention weights of frames over tokens (B, H, K, L) and of tokens over frames (B, H, L, K).

        Parameters are those of :meth:`forward`. The result is None without cross-modal attention.
        """
        if self.audio_block is None or self.lyrics_block is None:
            return None
        assert self.audio_projection is not None
        assert self.lyrics_projection is not None
        u_a, u_l = self.audio_projection(audio[0]), self.lyrics_projection(lyrics[0])
        return (
            self.audio_block.attention.weights(u_a, u_l, lyrics[1]),
            self.lyrics_block.attention.weights(u_l, u_a, audio[1].bool()),
        )

    def _pool_lyrics(self, z_BLW: Tensor, mask_BL: Tensor) -> Tensor:
        if self.lyrics_pooling == "cls":
            return at_least_float32(z_BLW[:, 0])
        return masked_mean(z_BLW, non_special_mask(mask_BL))


@dataclass(frozen=True, kw_only=True)
class Fused:
    """Result of the fusion, per modality.

    Attributes
    ----------
    sequences : Z_a (B, K, W) and Z_l (B, L, W).
    masks : (B, K) and (B, L) bool, true for valid frames and tokens.
    pools : functions that return the means (B, W) float32 of the sequences, which not every head needs.
    """

    sequences: tuple[Tensor, ...]
    masks: tuple[Tensor, ...]
    pools: tuple[Callable[[], Tensor], ...]

    @property
    def vector(self) -> Tensor:
        """Fused vector f, (B, out_width) float32."""
        return torch.cat([pool() for pool in self.pools], dim=-1)

    @property
    def memory(self) -> tuple[Tensor, Tensor]:
        """Sequence (B, K + L, W) of frames and tokens, and its mask (B, K + L)."""
        return torch.cat(self.sequences, dim=1), torch.cat(self.masks, dim=1)


def masked_mean(x_BNW: Tensor, weights_BN: Tensor) -> Tensor:
    """Return the (B, W) mean over axis 1 of (B, N, W) with a (B, N) mask or weights, at least in float32.

    `x_BNW` is finite everywhere, and each row has a weight that is not 0.
    """
    weights = weights_BN / weights_BN.sum(dim=1, keepdim=True)
    return (x_BNW * weights[..., None]).sum(dim=1)


def at_least_float32(x: Tensor) -> Tensor:
    """Convert half precision to float32, for accurate sums and exponentials; keep float64."""
    return x.to(torch.promote_types(x.dtype, torch.float32))


def non_special_mask(mask_BL: Tensor) -> Tensor:
    """Return (B, L) float, 1 for tokens except the first and last, which are special, or for all of two or fewer."""
    valid = mask_BL.float()
    inner = nn.functional.pad(valid[:, 2:], (1, 1))[:, : mask_BL.shape[1]]
    return torch.where(inner.any(dim=1, keepdim=True), inner, valid)


def linear_together(x: Tensor, *layers: nn.Linear) -> tuple[Tensor, ...]:
    """Apply linear layers of one width to the same input, as one matrix product."""
    weight, bias = (torch.cat([getattr(layer, name) for layer in layers]) for name in ("weight", "bias"))
    return nn.functional.linear(x, weight, bias).chunk(len(layers), dim=-1)
