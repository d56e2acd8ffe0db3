"""Projections of both modalities into the space where audio meets its lyrics, and the temperature there."""

from __future__ import annotations

import math

import torch
from torch import Tensor, nn
from torch.nn.functional import cross_entropy

from .config import TAU_MAX, TAU_MIN, TemperatureScale
from .fusion import at_least_float32

LOG_TAU_MIN = 0.01


class ContrastiveProjection(nn.Module):
    """``g_a`` and ``g_l``: linear maps to a common space, and the learned temperature tau.

    Parameters
    ----------
    normalise : scale each projection to unit length (a named deviation from the paper, which shows a bare product).
    tau_scale : what is learnt: tau itself, from 0.001 to 0.5, or its logarithm, with tau from 0.01 to 0.5. A step of
        Adam then changes tau by the same share of itself wherever it is, and never makes it vanish.

    Notes
    -----
    Ru et al. 2023, section 2.4: ``s(A, L) = g_a(E_a) . g_l(E_l)``, with ``E_a`` the mean over time of the audio
    frames and ``E_l`` the pooled lyrics, both before fusion. All in float32, also under autocast: s / tau reaches 1000.
    """

    def __init__(
        self,
        audio_dim: int,
        text_dim: int,
        dim: int = 256,
        *,
        normalise: bool = True,
        tau_init: float = 0.07,
        tau_scale: TemperatureScale = "linear",
    ) -> None:
        super().__init__()
        self.audio = nn.Linear(audio_dim, dim)
        self.lyrics = nn.Linear(text_dim, dim)
        self.tau = nn.Parameter(torch.tensor(float(tau_init))) if tau_scale == "linear" else None
        self.log_tau = nn.Parameter(torch.tensor(math.log(tau_init))) if tau_scale == "log" else None
        self.normalise = normalise

    @property
    def temperature(self) -> Tensor:
        """tau, ()."""
        if self.log_tau is not None:
            return self.log_tau.exp()
        assert self.tau is not None
        return self.tau

    def forward(self, audio_BE: Tensor, lyrics_BD: Tensor) -> tuple[Tensor, Tensor]:
        """(B, E), (B, D) -> two (B, dim) embeddings."""
        with torch.autocast(audio_BE.device.type, enabled=False):
            audio = self.audio(audio_BE.to(self.audio.weight.dtype))
            lyrics = self.lyrics(lyrics_BD.to(self.lyrics.weight.dtype))
            if self.normalise:
                audio, lyrics = nn.functional.normalize(torch.stack([audio, lyrics]), dim=-1)
        return audio, lyrics

    @torch.no_grad()
    def clamp_temperature(self) -> None:
        """Bring tau back into its range; call after each optimizer step (a clamp in forward has no gradient)."""
        if self.log_tau is not None:
            self.log_tau.clamp_(math.log(LOG_TAU_MIN), math.log(TAU_MAX))
        elif self.tau is not None:
            self.tau.clamp_(TAU_MIN, TAU_MAX)


def symmetric_cross_entropy(scores: Tensor, pairs: Tensor | None = None, members: Tensor | None = None) -> Tensor:
    """Mean of the cross-entropies that find each row's column and each column's row on the diagonal.

    Parameters
    ----------
    scores : (B, B), audio down, lyrics across, divided by tau already.
    pairs : (B, B) bool, off-diagonal pairs that count as negatives; default all.
    members : (B,) bool, rows that take part at all; default all.

    Returns
    -------
    () of the dtype of `scores`; 0, with a zero gradient, where fewer than two rows take part.

    Notes
    -----
    Ru et al. 2023, Eq. 5 and 6. No data-dependent shapes, so nothing waits for a GPU.
    """
    own = torch.arange(len(scores), device=scores.device)
    visible = torch.ones_like(scores, dtype=torch.bool) if pairs is None else pairs
    n_members: Tensor | int = len(scores)
    if members is not None:
        visible = visible & members[:, None] & members
        n_members = members.sum().clamp(min=1)
    # A row that sees itself alone, as one that takes no part does, has a loss and a gradient of exactly 0.
    scores = torch.where(visible | (own[:, None] == own), scores, -torch.inf)
    both = cross_entropy(scores, own, reduction="sum") + cross_entropy(scores.T, own, reduction="sum")
    return both / (2 * n_members)


def contrastive_loss(audio: Tensor, lyrics: Tensor, tau: Tensor, track_key: Tensor, lyrics_key: Tensor) -> Tensor:
    """Audio-lyrics contrastive loss L_AL, in float32.

    Parameters
    ----------
    audio, lyrics : (B, P) embeddings of :class:`mgc.heads.model.contrastive.ContrastiveProjection`.
    tau : () temperature.
    track_key, lyrics_key : (B,) int64. Two rows of one track, or with the same lyrics, are no negatives of each other;
        rows with ``lyrics_key`` -1 (no lyrics) take no part.
    """
    with torch.autocast(audio.device.type, enabled=False):
        scores = at_least_float32(audio) @ at_least_float32(lyrics).T / tau
        same = (track_key[:, None] == track_key[None, :]) | (lyrics_key[:, None] == lyrics_key[None, :])
        return symmetric_cross_entropy(scores, pairs=~same, members=lyrics_key >= 0)
