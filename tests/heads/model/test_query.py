from __future__ import annotations

import pytest
import torch

from mgc.heads.model.query import QueryHead

B, C, N, W, D = 3, 5, 7, 16, 10


def head(n_genres: int = C, **options) -> QueryHead:
    torch.manual_seed(0)
    settings = {"width": W, "heads": 4, "dropout": 0.0, "ffn": False, "uniform": False, "bias": True, **options}
    return QueryHead(torch.randn(n_genres, D), **settings).eval()


def memory() -> tuple[torch.Tensor, torch.Tensor]:
    torch.manual_seed(1)
    return torch.randn(B, N, W), torch.arange(N) < torch.tensor([[N], [4], [1]])


def test_logits_equal_those_of_a_reference_with_torch_attention():
    """LN(q + attention) . w + b per genre, with the attention of torch.nn.MultiheadAttention."""
    net, (x, mask) = head(), memory()
    with torch.no_grad():
        net.bias.copy_(torch.arange(C))
    attention = net.block.attention
    reference = torch.nn.MultiheadAttention(W, 4, batch_first=True).eval()
    with torch.no_grad():
        weights = [attention.query.weight, attention.key.weight, attention.value.weight]
        reference.in_proj_weight.copy_(torch.cat(weights))
        reference.in_proj_bias.zero_()
        reference.out_proj.load_state_dict(attention.out.state_dict())
    logits, maps = net(x, mask), net.attention_maps(x, mask)
    for genre in range(C):
        query = (net.name_query.weight @ net.nodes[genre] + net.query[genre]).expand(B, 1, W)
        attended, expected_map = reference(query, x, x, key_padding_mask=~mask, average_attn_weights=False)
        output = net.name_output.weight @ net.nodes[genre] + net.output[genre]
        expected = net.block.norm(query + attended)[:, 0] @ output + genre
        torch.testing.assert_close(logits[:, genre], expected, atol=1e-5, rtol=1e-5)
        torch.testing.assert_close(maps[:, :, genre], expected_map[:, :, 0], atol=1e-6, rtol=1e-5)


def test_attention_maps_sum_to_one_over_valid_frames_and_tokens():
    net, (x, mask) = head(), memory()
    x[~mask] = float("nan")
    maps = net.attention_maps(x.nan_to_num(1e6), mask)
    assert maps.shape == (B, 4, C, N)
    torch.testing.assert_close(maps.sum(-1), torch.ones(B, 4, C))
    assert not maps.masked_select(~mask[:, None, None].expand_as(maps)).any()


@pytest.mark.parametrize("n_genres", [1, 853])
def test_head_accepts_any_number_of_genres(n_genres):
    x, mask = memory()
    assert head(n_genres)(x, mask).shape == (B, n_genres)


def test_genre_without_free_vectors_is_scored_by_its_name():
    """Two untrained genres with equal names have equal scores."""
    net, (x, mask) = head(), memory()
    with torch.no_grad():
        net.nodes[1] = net.nodes[0]
        net.query[:2], net.output[:2] = 0.0, 0.0
    logits = net(x, mask)
    torch.testing.assert_close(logits[:, 0], logits[:, 1])
    assert not torch.allclose(logits[:, 0], logits[:, 2])
