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
        attended_BCW = self.block(self._queries(), memory_BNW, mask_BN)
        with torch.autocast(memory_BNW.device.type, enabled=False):
            attended_CBW = attended_BCW.to(self.output.dtype).transpose(0, 1)
            outputs = torch.addmm(self.output, self.nodes, self.name_output.weight.T)
            bias = self.output.new_zeros(len(outputs)) if self.bias is None else self.bias
            return torch.baddbmm(bias[:, None, None], attended_CBW, outputs[..., None]).squeeze(-1).T

    def attention_maps(self, memory_BNW: Tensor, mask_BN: Tensor) -> Tensor:
        """Return the attention weights per genre (B, H, C, N): rows sum to 1, and are 0 where `mask_BN` is false."""
        maps: Tensor = self.block.attention.weights(self._queries(), memory_BNW, mask_BN)
        return maps

    @torch.no_grad()
    def add_untrained(self, nodes: Tensor) -> None:
        """Append genres with (Z, D) name vectors; their free vectors and biases are the means of the trained ones."""
        self.nodes = torch.cat([self.nodes, nodes])
        for name in ("query", "output", "bias"):
            if (trained := getattr(self, name)) is not None:
                mean = trained.mean(dim=0, keepdim=True)
                new = nn.Parameter(torch.cat([trained, mean.expand(len(nodes), *trained.shape[1:])]))
                setattr(self, name, new)

    def _queries(self) -> Tensor:
        """Return the queries for any track, (1, C, W)."""
        return torch.addmm(self.query, self.nodes, self.name_query.weight.T)[None]
