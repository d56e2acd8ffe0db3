"""Reference level and clipping of a stored log-mel, applied as it is read.

The store keeps dB re 1.0, unclipped, so that one store serves every reading; this is the reading.
Shapes: B batch, M mel bands, T mel frames.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Literal, get_args

import torch
from torch import Tensor

from ...cache.errors import ConfigError
from .audio_cnn import valid_mask

Reference = Literal["one", "max"]


@dataclass(frozen=True, kw_only=True)
class MelLevel:
    """What 0 dB is, and how far below the loudest value a spectrogram may go.

    Attributes
    ----------
    reference : ``one`` is power 1.0, as stored; ``max`` the loudest value of each track.
    top_db : dB; values further below the loudest are raised to that level; None clips nothing.
    """

    reference: Reference = "one"
    top_db: float | None = None

    def __post_init__(self) -> None:
        if self.reference not in get_args(Reference):
            raise ConfigError(
                f"mel_reference {self.reference!r} is unknown; choose one of {', '.join(get_args(Reference))}"
            )
        if self.top_db is not None and not self.top_db > 0:
            raise ConfigError(f"mel_top_db is {self.top_db}; it must be above 0 dB, or none")

    def apply(self, mel_BMT: Tensor, mel_frames: Tensor) -> Tensor:
        """Spectrograms at this level; frames at or beyond `mel_frames` have no say in what is loudest.

        Notes
        -----
        ``librosa.power_to_db(S, ref=np.max, top_db=80)`` of the power S is ``reference="max", top_db=80`` of the stored
        ``power_to_db(S, ref=1.0, top_db=None)``.
        """
        if self.reference == "one" and self.top_db is None:
            return mel_BMT
        valid = valid_mask(mel_frames.clamp(min=1), mel_BMT.shape[-1])[:, None, :]
        loudest = mel_BMT.masked_fill(~valid, -torch.inf).amax(dim=(1, 2), keepdim=True)
        if self.top_db is not None:
            mel_BMT = torch.maximum(mel_BMT, loudest - self.top_db)
        return mel_BMT - loudest if self.reference == "max" else mel_BMT
