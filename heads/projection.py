"""Projections of both modalities into the space where audio meets its lyrics, and the temperature there."""

from __future__ import annotations

import torch
from torch import Tensor, nn

TAU_MIN, TAU_MAX = 0.001, 0.5


class ContrastiveProjection(nn.Module):
    """``g_a`` and ``g_l``: linear maps to a common space, and the learned temperature tau.

    Parameters
    ----------
    normalise : scale each projection to unit length (a named deviation from the paper, which shows a bare product).

    Notes
    -----
    Ru et al. 2023, section 2.4: ``s(A, L) = g_a(E_a) . g_l(E_l)``, with ``E_a`` the mean over time of the audio
    frames and ``E_l`` the pooled lyrics, both before fusion. All in float32, also under autocast: s / tau reaches 1000.
    """

    def __init__(
        self, audio_dim: int, text_dim: int, dim: int = 256, *, normalise: bool = True, tau_init: float = 0.07
    ) -> None:
        super().__init__()
        self.audio = nn.Linear(audio_dim, dim)
        self.lyrics = nn.Linear(text_dim, dim)
        self.tau = nn.Parameter(torch.tensor(float(tau_init)))
        self.normalise = normalise

    def forward(self, audio_BE: Tensor, lyrics_BD: Tensor) -> tuple[Tensor, Tensor]:
        """(B, E), (B, D) -> two (B, dim) embeddings."""
        with torch.autocast(audio_BE.device.type, enabled=False):
            audio = self.audio(audio_BE.to(self.tau.dtype))
            lyrics = self.lyrics(lyrics_BD.to(self.tau.dtype))
            if self.normalise:
                audio, lyrics = nn.functional.normalize(audio, dim=-1), nn.functional.normalize(lyrics, dim=-1)
        return audio, lyrics

    @torch.no_grad()
    def clamp_temperature(self) -> None:
        """Bring tau back into [0.001, 0.5]; call after each optimizer step (a clamp in forward has no gradient)."""
        self.tau.clamp_(TAU_MIN, TAU_MAX)
