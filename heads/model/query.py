"""Define the genre-query head, in which each genre has its own attention over a track.

Shapes: B batch, C genres, N audio frames and lyric tokens, W model width, H heads, D text width.
"""

from __future__ import annotations

import torch
from torch import Tensor, nn

from .fusion import CrossModalBlock


class QueryHead(nn.Module):
    """Score each genre by attention of its query over the frames and tokens of a track: (B, N, W) -> logits (B, C).

    The query of a genre is the sum of its projected name vector and a free vector. So is its output vector, which is
    multiplied with the attended features. An untrained genre therefore has both from its name only.

    Parameters
    ----------
    nodes : (C, D) name vectors, centred by the caller if they should be; a buffer, saved with the weights.
    width, heads, dropout, ffn, uniform : of the attention; see :class:`mgc.heads.model.fusion.CrossModalBlock`.
    bias : whether to add a bias per genre.

    Notes
    -----
    Query2Label (Liu et al. 2021, arXiv:2107.10834) with one layer, one attention, and queries from names.
    """

    nodes: Tensor

    def __init__(
        self, nodes: Tensor, *, width: int, heads: int, dropout: float, ffn: bool, uniform: bool, bias: bool
    ) -> None:
        super().__init__()
        n_genres, text_dim = nodes.shape
        self.register_buffer("nodes", nodes.float().clone())
        self.name_query = nn.Linear(text_dim, width, bias=False)
        self.name_output = nn.Linear(text_dim, width, bias=False)
        self.query = nn.Parameter(torch.empty(n_genres, width))
        self.output = nn.Parameter(torch.empty(n_genres, width))
        self.block = CrossModalBlock(width, heads, dropout, ffn=ffn, uniform=uniform)
        self.bias = nn.Parameter(torch.zeros(n_genres)) if bias else None
        nn.init.normal_(self.query, std=0.02)  # small compared with the attended features of the residual
        nn.init.normal_(self.output, std=width**-0.5)

    def forward(self, memory_BNW: Tensor, mask_BN: Tensor) -> Tensor:
        """Return logits (B, C) float32; `mask_BN` is true for valid frames and tokens."""
        attended_BCW = self.block(self._queries(len(memory_BNW)), memory_BNW, mask_BN)
        with torch.autocast(memory_BNW.device.type, enabled=False):
            logits: Tensor = (attended_BCW.to(self.output.dtype) * self._outputs()).sum(dim=-1)
            return logits if self.bias is None else logits + self.bias

    def attention_maps(self, memory_BNW: Tensor, mask_BN: Tensor) -> Tensor:
        """Return the attention weights per genre (B, H, C, N): rows sum to 1, and are 0 where `mask_BN` is false."""
        maps: Tensor = self.block.attention.weights(self._queries(len(memory_BNW)), memory_BNW, mask_BN)
        return maps

    def _queries(self, n_batch: int) -> Tensor:
        queries: Tensor = self.name_query(self.nodes) + self.query
        return queries.expand(n_batch, -1, -1)

    def _outputs(self) -> Tensor:
        outputs: Tensor = self.name_output(self.nodes) + self.output
        return outputs
