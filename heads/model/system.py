"""Define the base class of all systems: normalisation of spectrograms, output bias, temperature.

Shapes: B batch, M mel bands, T mel frames, C genres.
"""

from __future__ import annotations

import math

import numpy as np
import numpy.typing as npt
import torch
from torch import Tensor, nn

from ...cache.errors import ConfigError
from .audio_cnn import at_level, valid_mask
from .batch import Batch, Outputs
from .config import ModelConfig


class System(nn.Module):
    """Base class of the systems; :func:`mgc.heads.model.model.build_system` builds the system of a config.

    Parameters
    ----------
    config : shape and options.
    mel_mean, mel_std : in dB, over the valid frames of the training split at the level of `config`. Buffers, saved with
        the weights.

    Raises
    ------
    ValueError
        If `mel_mean` and `mel_std` are not finite, or `mel_std` is not positive.
    """

    mel_mean: Tensor
    mel_std: Tensor

    def __init__(self, config: ModelConfig, *, mel_mean: float = 0.0, mel_std: float = 1.0) -> None:
        super().__init__()
        if not (math.isfinite(mel_mean) and math.isfinite(mel_std) and mel_std > 0):
            raise ValueError(f"mel_mean {mel_mean}, mel_std {mel_std}: not finite, or standard deviation not positive")
        self.config = config
        self.register_buffer("mel_mean", torch.tensor(float(mel_mean)))
        self.register_buffer("mel_std", torch.tensor(float(mel_std)))

    def forward(self, batch: Batch) -> Outputs:
        """Score every genre for each track of `batch`, on the system's device."""
        raise NotImplementedError

    @property
    def output_bias(self) -> Tensor | None:
        """Bias of the logits, (C,); None for a system without."""
        raise NotImplementedError

    @property
    def n_parameters(self) -> int:
        return sum(parameter.numel() for parameter in self.parameters())

    @property
    def tau(self) -> Tensor | None:
        """Learned temperature, (); None without the audio-lyrics loss."""
        return None

    def clamp_temperature(self) -> None:
        """Clamp the temperature to its range; call after each optimizer step."""

    def start_warnings(self) -> list[str]:
        """Return warnings about the initial weights."""
        return []

    @torch.no_grad()
    def start_at_prior(self, n_positive: npt.NDArray[np.int64], n_tracks: int) -> None:
        """Set the biases to the log odds of genres in the training split, so that training need not learn them.

        Parameters
        ----------
        n_positive : (C,) training tracks with each genre, of `n_tracks`. One more positive and one more negative track
            are counted per genre, so that the odds stay finite.

        Raises
        ------
        ConfigError
            If the system has no bias.
        """
        if self.output_bias is None:
            raise ConfigError(
                "--set prior_bias=true: the model has no bias. Remove --set bias=false, or use --set prior_bias=false."
            )
        with_genre = torch.as_tensor(n_positive, dtype=torch.float64) + 1.0
        self.output_bias.copy_(torch.log(with_genre / (n_tracks + 2.0 - with_genre)))

    def normalise_mel(self, batch: Batch) -> tuple[Tensor, Tensor]:
        """Return ``(mel - mean) / std`` at the configured level, and the mask of valid frames.

        Returns
        -------
        mel_BMT : 0 in padding.
        valid_BT : bool, true below `mel_frames`, and for the first frame of every clip.
        """
        levelled = at_level(self.config.mel_level, batch.mel.to(self.mel_mean.dtype), batch.mel_frames)
        normalised = (levelled - self.mel_mean) / self.mel_std
        valid = valid_mask(batch.mel_frames.clamp(min=1), normalised.shape[-1])
        return torch.where(valid[:, None, :], normalised, 0.0) if batch.padded else normalised, valid
