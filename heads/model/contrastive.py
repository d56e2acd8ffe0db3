"""Define the audio-lyrics contrastive loss, its projections of both modalities, and its temperature."""

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
    audio_dim, text_dim, dim : widths of audio frames, token states and projections.
    normalise : scale projections to unit length, a deviation from the paper, which has a plain product.
    tau_init : initial temperature.
    tau_scale : learned parameter: tau, from 0.001 to 0.5, or its logarithm, with tau from 0.01 to 0.5. On a log scale,
        a step of Adam changes tau by a relative amount, and tau cannot vanish.

    Notes
    -----
    Ru et al. 2023, section 2.4: ``s(A, L) = g_a(E_a) . g_l(E_l)``, with ``E_a`` the mean over time of the audio
    frames and ``E_l`` the pooled lyrics, both before fusion. In float32 even under autocast, since s / tau reaches
    1000.
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
        """Temperature tau, ()."""
        if self.log_tau is not None:
            return self.log_tau.exp()
        assert self.tau is not None
        return self.tau

    def forward(self, audio_BE: Tensor, lyrics_BD: Tensor) -> tuple[Tensor, Tensor]:
        """Return the (B, dim) embeddings of (B, E) audio and (B, D) lyrics."""
        with torch.autocast(audio_BE.device.type, enabled=False):
            audio = self.audio(audio_BE.to(self.audio.weight.dtype))
            lyrics = self.lyrics(lyrics_BD.to(self.lyrics.weight.dtype))
            if self.normalise:
                both = torch.stack([audio, lyrics])
                audio, lyrics = both / (torch.linalg.vector_norm(both, dim=-1, keepdim=True) + 1e-12)
        return audio, lyrics

    @torch.no_grad()
    def clamp_temperature(self) -> None:
        """Clamp tau to its range; call after each optimizer step, since a clamp in forward has no gradient."""
        if self.log_tau is not None:
            self.log_tau.clamp_(math.log(LOG_TAU_MIN), math.log(TAU_MAX))
        elif self.tau is not None:
            self.tau.clamp_(TAU_MIN, TAU_MAX)


def symmetric_cross_entropy(scores: Tensor, same: Tensor | None = None, members: Tensor | None = None) -> Tensor:
    """Return the mean of the cross-entropies over rows and over columns, with targets on the diagonal.

    Parameters
    ----------
    scores : (B, B), rows audio, columns lyrics, divided by tau.
    same : (B, B) bool, off-diagonal pairs that do not count as negatives; default: none.
    members : (B,) bool, rows and columns that count; default: all.

    Returns
    -------
    Tensor
        (), of the dtype of `scores`; 0 with a zero gradient if fewer than two rows count.

    Notes
    -----
    Ru et al. 2023, Eq. 5 and 6. Shapes do not depend on data, so the host does not wait for the GPU.
    """
    own = torch.arange(len(scores), device=scores.device)
    if members is None:
        members = torch.ones_like(own, dtype=torch.bool)
    visible = members[:, None] & members
    if same is not None:
        visible = visible > same
    # A row that sees itself alone, as one that takes no part does, has a loss and a gradient of exactly 0.
    scores = torch.where(visible.fill_diagonal_(True), scores, -torch.inf)
    both = torch.stack([scores.T, scores])  # of which the dimension after the first is normalised
    return cross_entropy(both, own.expand(2, -1), reduction="sum") / (2 * members.sum().clamp(min=1))


def contrastive_loss(audio: Tensor, lyrics: Tensor, tau: Tensor, track_key: Tensor, lyrics_key: Tensor) -> Tensor:
    """Return the audio-lyrics contrastive loss L_AL, () float32.

    Parameters
    ----------
    audio, lyrics : (B, P) embeddings of :class:`mgc.heads.model.contrastive.ContrastiveProjection`.
    tau : () temperature.
    track_key, lyrics_key : (B,) int64. Rows with the same track or the same lyrics are not negatives of each other.
        Rows with ``lyrics_key`` -1 (no lyrics) do not count.
    """
    with torch.autocast(audio.device.type, enabled=False):
        scores = at_least_float32(audio) @ at_least_float32(lyrics).T / tau
        same = (track_key[:, None] == track_key[None, :]) | (lyrics_key[:, None] == lyrics_key[None, :])
        return symmetric_cross_entropy(scores, same, members=lyrics_key >= 0)
