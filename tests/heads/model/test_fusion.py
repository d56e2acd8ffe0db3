from __future__ import annotations

import pytest
import torch
from torch import nn

from benchmarks.worlds.attention import accuracy, lookup_world, xor_world
from mgc.cache.errors import ConfigError
from mgc.heads.model.audio_cnn import valid_mask
from mgc.heads.model.fusion import CrossAttention, Fusion, attend, masked_mean, non_special_mask

K, L, E, D = 5, 7, 12, 10


def fusion(**options) -> Fusion:
    torch.manual_seed(0)
    options = {"audio_dim": E, "text_dim": D, "width": 8, "heads": 2, **options}
    return Fusion(**options).eval()


def inputs(n_batch: int = 3):
    torch.manual_seed(1)
    audio = torch.randn(n_batch, K, E), valid_mask(torch.tensor([5, 3, 1])[:n_batch], K)
    lyrics = torch.randn(n_batch, L, D), valid_mask(torch.tensor([7, 4, 1])[:n_batch], L)
    return audio, lyrics


def test_attention_has_the_values_computed_by_hand():
    q, k, v = torch.tensor([[1.0, 0.0]]), torch.eye(2), torch.tensor([[1.0, 2.0], [3.0, 4.0]])
    torch.testing.assert_close(attend(q, k, v), torch.tensor([[1.660477, 2.660477]]), atol=1e-6, rtol=0)
    torch.testing.assert_close(attend(q, k, torch.eye(2)), torch.tensor([[0.669762, 0.330238]]), atol=1e-6, rtol=0)


def test_attention_to_a_single_key_does_not_depend_on_the_query():
    q = torch.randn(4, 2)
    out = attend(q, torch.randn(1, 2), torch.tensor([[3.0, 4.0]]))
    torch.testing.assert_close(out, torch.tensor([[3.0, 4.0]]).expand(4, 2))


def test_values_of_masked_keys_do_not_change_the_output():
    module = fusion()
    audio, lyrics = inputs()
    clean = module(audio, lyrics).vector
    frames, tokens = audio[0].clone(), lyrics[0].clone()
    frames[1, 3:], frames[2, 1:], tokens[1, 4:], tokens[2, 1:] = 1e6, 1e6, 1e6, 1e6
    torch.testing.assert_close(module((frames, audio[1]), (tokens, lyrics[1])).vector, clean)


@pytest.mark.parametrize("heads", [1, 4])
def test_cross_attention_equals_torch_multihead_attention(heads):
    torch.manual_seed(0)
    module = CrossAttention(16, heads, 0.1).eval()
    reference = nn.MultiheadAttention(16, heads, batch_first=True).eval()
    with torch.no_grad():
        reference.in_proj_weight.copy_(torch.cat([module.query.weight, module.key.weight, module.value.weight]))
        reference.in_proj_bias.copy_(torch.randn(48))
        for layer, bias in zip((module.query, module.key, module.value), reference.in_proj_bias.chunk(3), strict=True):
            layer.bias.copy_(bias)
        reference.out_proj.load_state_dict(module.out.state_dict())
    x, other = torch.randn(2, 3, 16), torch.randn(2, 6, 16)
    mask = torch.arange(6) < torch.tensor([[6], [2]])
    expected, _ = reference(x, other, other, key_padding_mask=~mask)
    torch.testing.assert_close(module(x, other, mask), expected, atol=1e-6, rtol=1e-5)


def test_single_head_computes_equation_1_of_the_paper():
    torch.manual_seed(0)
    module = CrossAttention(4, 1, 0.0).eval()
    x, other = torch.randn(1, 3, 4), torch.randn(1, 5, 4)
    weights = torch.softmax(module.query(x) @ module.key(other).transpose(1, 2) / 4**0.5, dim=-1)
    expected = module.out(weights @ module.value(other))
    torch.testing.assert_close(module(x, other, torch.ones(1, 5, dtype=torch.bool)), expected)


def test_uniform_attention_is_the_mean_of_the_valid_values():
    torch.manual_seed(0)
    module = CrossAttention(8, 2, 0.0, uniform=True).eval()
    x, other = torch.randn(1, 3, 8), torch.randn(1, 5, 8)
    expected = module.out(module.value(other[:, :2]).mean(dim=1)).expand(1, 3, 8)
    torch.testing.assert_close(module(x, other, torch.tensor([[True, True, False, False, False]])), expected)


def test_fusion_equals_both_directions_computed_by_hand():
    module = fusion()
    (frames, mask_a), (tokens, mask_l) = inputs(1)
    u_a, u_l = module.audio_projection(frames), module.lyrics_projection(tokens)
    all_valid = torch.ones(1, L, dtype=torch.bool)
    z_a = module.audio_block.norm(u_a + module.audio_block.attention(u_a, u_l, all_valid))
    z_l = module.lyrics_block.norm(u_l + module.lyrics_block.attention(u_l, u_a, all_valid[:, :K]))
    expected = torch.cat([z_a.mean(1), z_l[:, 1:-1].mean(1)], dim=-1)
    torch.testing.assert_close(module((frames, mask_a), (tokens, mask_l)).vector, expected)


def test_fusion_without_attention_concatenates_projected_means():
    module = fusion(attention=False)
    (frames, mask_a), (tokens, mask_l) = inputs(2)
    f = module((frames, mask_a), (tokens, mask_l)).vector
    pooled = torch.stack([tokens[0, 1:6].mean(0), tokens[1, 1:3].mean(0)])
    mean_frames = torch.stack([frames[0].mean(0), frames[1, :3].mean(0)])
    torch.testing.assert_close(f[:, :8], module.audio_projection(mean_frames))
    torch.testing.assert_close(f[:, 8:], module.lyrics_projection(pooled))


def test_cls_pooling_uses_the_first_token():
    module = fusion(attention=False, lyrics_pooling="cls")
    audio, (tokens, mask_l) = inputs()
    torch.testing.assert_close(module(audio, (tokens, mask_l)).vector[:, 8:], module.lyrics_projection(tokens[:, 0]))


@pytest.mark.parametrize("modality", ["audio", "lyrics"])
def test_fusion_of_one_modality_has_half_the_width(modality):
    audio, lyrics = inputs()
    module = fusion(attention=False, **{"text_dim" if modality == "audio" else "audio_dim": None})
    f = module(audio if modality == "audio" else None, lyrics if modality == "lyrics" else None).vector
    assert f.shape == (3, 8)
    assert module.out_width == 8


def test_option_ffn_adds_a_feed_forward_layer_per_direction():
    audio, lyrics = inputs()
    plain, deep = fusion(), fusion(ffn=True)
    extra = sum(p.numel() for p in deep.parameters()) - sum(p.numel() for p in plain.parameters())
    assert extra == 2 * ((8 * 32 + 32) + (32 * 8 + 8) + 2 * 8)
    assert deep(audio, lyrics).vector.shape == plain(audio, lyrics).vector.shape


def test_default_fusion_has_the_documented_number_of_parameters():
    module = Fusion(audio_dim=512, text_dim=768)
    assert sum(p.numel() for p in module.parameters()) == 855_552
    assert module.out_width == 512


def test_mask_excludes_special_tokens_unless_there_are_no_others():
    mask = non_special_mask(valid_mask(torch.tensor([1, 2, 3, 5]), 5))
    assert non_special_mask(mask[:1, :1]).tolist() == [[True]]
    assert mask.int().tolist() == [[1, 0, 0, 0, 0], [1, 1, 0, 0, 0], [0, 1, 0, 0, 0], [0, 1, 1, 1, 0]]


def test_masked_mean_is_computed_in_float32():
    x = torch.full((1, 600, 1), 3.0, dtype=torch.bfloat16)
    mean = masked_mean(x, torch.ones(1, 600, dtype=torch.bool))
    assert mean.dtype == torch.float32
    assert mean.item() == 3.0


def test_conflicting_options_raise_config_errors():
    with pytest.raises(ConfigError, match="multiple"):
        fusion(heads=3)
    with pytest.raises(ConfigError, match="both modalities"):
        fusion(text_dim=None)


@pytest.mark.parametrize("seed", [0, 1, 2])
def test_attention_learns_xor_of_audio_and_lyrics_and_concatenation_does_not(seed):
    assert accuracy(xor_world, seed) >= 0.95
    assert accuracy(xor_world, seed, query=True) >= 0.95
    assert accuracy(xor_world, seed, attention=False) < 0.8


@pytest.mark.parametrize("seed", [0, 1, 2])
def test_attention_beats_uniform_weights_if_audio_selects_the_token(seed):
    assert accuracy(lookup_world, seed) >= 0.95
    assert accuracy(lookup_world, seed, query=True) >= 0.95
    assert accuracy(lookup_world, seed, query=True, attention=False) < 0.85
    assert accuracy(lookup_world, seed, uniform=True) < 0.85
