"""Define the encoder of added feature sets, which turns stored embeddings into audio frames.

Shapes: B batch, L layers, N steps, D values per step, E channels of the audio frames.
"""

from __future__ import annotations

import numpy.typing as npt
import torch
from torch import Tensor, nn

from .audio_cnn import valid_mask
from .config import EmbeddingShape


class EmbeddingEncoder(nn.Module):
    """(B, L, N, D) stored embeddings -> (B, N, E) audio frames: standardise, average the layers, project, ReLU.

    Parameters
    ----------
    shape : L and D.
    out_channels : E.
    statistics : mean and standard deviation, (L, D) each, over the valid steps of the training split. Buffers, saved
        with the weights; the default is a placeholder for loaded weights.

    Raises
    ------
    ValueError
        If the statistics have another shape or are not finite, or a standard deviation is not positive.

    Notes
    -----
    The weights of the layers are the softmax of learned numbers, all equal at first. The bias of the projection
    distinguishes this input from others whose frames are in the same sequence.
    """

    mean: Tensor
    std: Tensor

    def __init__(
        self,
        shape: EmbeddingShape,
        out_channels: int,
        *,
        statistics: tuple[npt.ArrayLike, npt.ArrayLike] | None = None,
    ) -> None:
        super().__init__()
        size = (shape.layers, shape.dim)
        mean, std = torch.zeros(size), torch.ones(size)
        if statistics is not None:
            mean, std = (torch.as_tensor(array, dtype=torch.float32) for array in statistics)
            if mean.shape != size or std.shape != size or not (mean.isfinite() & std.isfinite() & (std > 0)).all():
                raise ValueError(
                    f"mean {tuple(mean.shape)}, std {tuple(std.shape)}: not finite, not {size}, or std <= 0"
                )
        self.register_buffer("mean", mean)
        self.register_buffer("std", std)
        self.layers = nn.Parameter(torch.zeros(shape.layers)) if shape.layers > 1 else None
        self.projection = nn.Linear(shape.dim, out_channels)

    @property
    def layer_weights(self) -> Tensor | None:
        """Weights of the layers (L,), which sum to 1; None for a single layer."""
        return None if self.layers is None else self.layers.softmax(dim=0)

    def forward(self, values_BLND: Tensor, steps_B: Tensor) -> tuple[Tensor, Tensor]:
        """Return the frames (B, N, E), finite also in padding, and their mask (B, N).

        Parameters
        ----------
        values_BLND : as stored; arbitrary from step `steps_B` on. At least one step is valid.
        """
        mask_BN = valid_mask(steps_B.clamp(min=1), values_BLND.shape[2])
        values = values_BLND.to(self.mean.dtype)
        if values.shape[2] > 1:
            values = values.masked_fill(~mask_BN[:, None, :, None], 0.0)
        standardised = (values - self.mean[:, None]) / self.std[:, None]
        weights = self.layer_weights
        mixed = standardised[:, 0] if weights is None else (standardised * weights[:, None, None]).sum(dim=1)
        return torch.relu(self.projection(mixed)), mask_BN
