"""Pack several texts into one sequence without padding or attention between them, for larger matrix products.

transformers runs an unchanged pretrained model with an attention function registered under a name. Position ids start
again with each text; everything else in the model works token by token.

L is the number of tokens of one text.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from typing import TYPE_CHECKING, Any

from .models import first_position

if TYPE_CHECKING:
    import torch

NAME = "mgc_packed"
MODEL_TYPES = frozenset({"bert", "modernbert", "roberta", "xlm-roberta"})
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
    sliding_window: int | None = None,
    **_: Any,
) -> tuple[torch.Tensor, None]:
    """(1, heads, tokens, width) thrice -> (1, tokens, heads, width)."""
    import torch

    texts = zip(*(torch.split(tensor, lengths, 2) for tensor in (query, key, value)), strict=True)
    attended = [
        torch.nn.functional.scaled_dot_product_attention(q, k, v, _near(q, sliding_window), scale=scaling)
        for q, k, v in texts
    ]
    return torch.cat(attended, 2).transpose(1, 2), None


def _near(query: torch.Tensor, sliding_window: int | None) -> torch.Tensor | None:
    """Return (L, L) bool, whether two tokens are less than `sliding_window` apart; None if all tokens of a text are."""
    import torch

    n_tokens = query.shape[2]
    if sliding_window is None or n_tokens <= sliding_window:
        return None
    positions = torch.arange(n_tokens, device=query.device)
    return (positions[:, None] - positions).abs() < sliding_window


def position_ids(ids: Sequence[int], model: Any) -> torch.Tensor:
    """Return the position ids of one text, (L,) int64, as `model` gives them to a text that is alone.

    RoBERTa and related models count from behind the padding id, and skip tokens of that id.
    """
    import torch

    first = first_position(model.config.model_type, model.config.pad_token_id)
    if not first:
        return torch.arange(len(ids))
    is_token = torch.tensor(ids) != first - 1
    return is_token.cumsum(0) * is_token + first - 1


def _no_mask(*_: Any, **__: Any) -> None:
    return None
