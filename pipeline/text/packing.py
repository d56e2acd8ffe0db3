"""Pack several texts into one sequence without padding or attention between them, for larger matrix products.

transformers runs an unchanged pretrained model with an attention function registered under a name. Position ids start
again with each text; everything else in the model works token by token.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    import torch

NAME = "mgc_packed"
MODEL_TYPES = frozenset({"bert"})
"""Tested model types; other models may separate positions or texts by other means."""


def use_packed_attention(model: Any) -> bool:
    """Enable packed texts, ``model(input_ids, position_ids, lengths)``; return False for an untested model type."""
    if model.config.model_type not in MODEL_TYPES:
        return False
    from transformers import AttentionInterface, AttentionMaskInterface

    AttentionInterface.register(NAME, _attend_by_text)
    AttentionMaskInterface.register(NAME, _no_mask)
    model.set_attn_implementation(NAME)
    return True


def in_packs(lengths: Sequence[int], max_tokens: int) -> Iterator[range]:
    """Yield packs of successive texts with at most `max_tokens` tokens; a longer text gets its own pack."""
    first, n_tokens = 0, 0
    for i, length in enumerate(lengths):
        if i > first and n_tokens + length > max_tokens:
            yield range(first, i)
            first, n_tokens = i, 0
        n_tokens += length
    if lengths:
        yield range(first, len(lengths))


def _attend_by_text(
    module: torch.nn.Module,
    query: torch.Tensor,
    key: torch.Tensor,
    value: torch.Tensor,
    attention_mask: torch.Tensor | None,
    *,
    lengths: list[int],  # no default: without it, texts would attend to each other
    scaling: float | None = None,
    **_: Any,
) -> tuple[torch.Tensor, None]:
    """(1, heads, tokens, width) thrice -> (1, tokens, heads, width)."""
    import torch

    texts = zip(*(torch.split(tensor, lengths, 2) for tensor in (query, key, value)), strict=True)
    attended = [torch.nn.functional.scaled_dot_product_attention(q, k, v, scale=scaling) for q, k, v in texts]
    return torch.cat(attended, 2).transpose(1, 2), None


def _no_mask(*_: Any, **__: Any) -> None:
    return None
