"""What every system has, whatever is inside: spectrograms on its own scale, a bias, a temperature or none.

Shapes: B batch, M mel bands, T mel frames, C genres.
"""

from __future__ import annotations

import math

import numpy as np
import numpy.typing as npt
import torch
from torch import Tensor, nn

from ...cache.errors import ConfigError
from .audio_cnn import valid_mask
from .batch import Batch, Outputs
from .config import ModelConfig


class System(nn.Module):
    """Base of the systems; :func:`mgc.heads.model.model.build_system` makes the one that a configuration names.

    Parameters
    ----------
    config : shape and options.
    mel_mean, mel_std : dB, over the valid frames of the training split at the configuration's level. Buffers, saved
        with the weights.
    """

    mel_mean: Tensor
    mel_std: Tensor

    def __init__(self, config: ModelConfig, *, mel_mean: float = 0.0, mel_std: float = 1.0) -> None:
        super().__init__()
        if not (math.isfinite(mel_mean) and math.isfinite(mel_std) and mel_std > 0):
            raise ValueError(f"mel mean {mel_mean} and standard deviation {mel_std} cannot normalise a spectrogram")
        self.config = config
        self.register_buffer("mel_mean", torch.tensor(float(mel_mean)))
        self.register_buffer("mel_std", torch.tensor(float(mel_std)))

    def forward(self, batch: Batch) -> Outputs:
        """Score every genre for each track of `batch`, on the system's device."""
        raise NotImplementedError

    @property
    def output_bias(self) -> Tensor | None:
        """(C,) what is added to the logits; None where nothing is."""
        raise NotImplementedError

    @property
    def n_parameters(self) -> int:
        return sum(parameter.numel() for parameter in self.parameters())

    @property
    def tau(self) -> Tensor | None:
        """The learned temperature, (); None without a contrastive part."""
        return None

    def clamp_temperature(self) -> None:
        """Bring the temperature back into its range; call after each optimizer step."""

    def start_warnings(self) -> list[str]:
        """What is wrong before the first step."""
        return []

    @torch.no_grad()
    def start_at_prior(self, n_positive: npt.NDArray[np.int64], n_tracks: int) -> None:
        """Set the biases to the training split's log odds, so that learning does not begin with finding them.

        Parameters
        ----------
        n_positive : (C,) training tracks with each genre, of `n_tracks`. One track more with and one without each genre
            are counted, so that the odds of a genre that none or all have stay finite.

        Raises
        ------
        ConfigError
            If the system has no bias.
        """
        if self.output_bias is None:
            raise ConfigError("prior_bias=true needs a bias to set; leave model option bias=false out")
        with_genre = torch.as_tensor(n_positive, dtype=torch.float64) + 1.0
        self.output_bias.copy_(torch.log(with_genre / (n_tracks + 2.0 - with_genre)))

    def normalise_mel(self, mel_BMT: Tensor, mel_frames: Tensor) -> Tensor:
        """The spectrogram at the configured level, ``(mel - mean) / std``; 0 in frames at or beyond `mel_frames`."""
        levelled = self.config.mel_level.apply(mel_BMT.to(self.mel_mean.dtype), mel_frames)
        normalised = (levelled - self.mel_mean) / self.mel_std
        valid = valid_mask(mel_frames.clamp(min=1), mel_BMT.shape[-1])
        return normalised.masked_fill(~valid[:, None, :], 0.0)
