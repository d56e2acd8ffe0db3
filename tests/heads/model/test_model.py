from __future__ import annotations

import dataclasses
import json

import numpy as np
import pytest
import torch
from torch import Tensor

from mgc.cache.errors import ConfigError
from mgc.heads.model.batch import Batch
from mgc.heads.model.config import ModelConfig
from mgc.heads.model.graph import build_adjacency
from mgc.heads.model.losses import gradient_norms, total_loss
from mgc.heads.model.model import GenreModel

C, D, FRAMES, TOKENS = 6, 24, 160, 9
QUERY = {"head": "query"}


def model(seed: int = 0, **options) -> GenreModel:
    torch.manual_seed(seed)
    rng = np.random.default_rng(seed)
    labels, names = rng.random((50, C)) < 0.3, rng.normal(size=(C, D))
    config = ModelConfig(**{"n_genres": C, "text_dim": D, "encoder": "tiny", **options})
    adjacency = build_adjacency(labels, names, config.graph_options).adjacency
    return GenreModel(config, adjacency=adjacency, genre_embedding=names, mel_mean=-40.0, mel_std=20.0)


def batch(seed: int = 0) -> Batch:
    """Return four tracks: full, short, without lyrics, very short with the lyrics of the first."""
    torch.manual_seed(seed)
    keys = torch.tensor([3, 4, -1, 3])
    return Batch(
        mel=20 * torch.randn(4, 128, FRAMES) - 40,
        mel_frames=torch.tensor([FRAMES, 90, FRAMES, 5]),
        lyrics=torch.randn(4, TOKENS, D),
        lyrics_tokens=torch.tensor([TOKENS, 4, 0, 1]),
        lyrics_pooled=torch.randn(4, D) * (keys >= 0)[:, None],
        labels=torch.randint(0, 2, (4, C)).float(),
        track_key=torch.arange(4),
        lyrics_key=keys,
        rows=torch.arange(4),
    )


def select_rows(tracks: Batch, rows: list[int]) -> Batch:
    fields = {name: value[rows] for name, value in vars(tracks).items() if isinstance(value, Tensor)}
    return Batch(**fields)


def test_default_model_has_the_documented_number_of_parameters():
    default = GenreModel(ModelConfig(n_genres=87, text_dim=768))
    assert sum(p.numel() for p in default.parameters()) == 4_063_457 + 768 + 87


@pytest.mark.parametrize(
    ("options", "missing"),
    [
        ({"head": "linear"}, 1_310_720 + 87 - (512 * 87 + 87)),
        ({"contrastive": False}, 328_193),
        ({"attention": False}, 526_336 + 1_024),
        ({"bias": False}, 87),
        ({"encoder": "lite"}, 1_568_992 - 392_816 + 256 * (256 + 256)),
    ],
)
def test_ablation_removes_the_documented_number_of_parameters(options, missing):
    ablated = GenreModel(ModelConfig(n_genres=87, text_dim=768, **options))
    assert sum(p.numel() for p in ablated.parameters()) == 4_063_457 + 768 + 87 - missing


@pytest.mark.parametrize(
    "options",
    [*({"attention": on, "lyrics_pooling": pooling} for on in (True, False) for pooling in ("mean", "cls")), QUERY],
)
def test_padding_changes_no_evaluation_output(options):
    """Neither content nor length of the padding matters, nor the other tracks of the batch."""
    net = model(**options, encoder="lite").eval()
    tracks = batch()
    expected = net(tracks)
    wide = dataclasses.replace(
        tracks,
        mel=torch.cat([tracks.mel, torch.full((4, 128, 64), -100.0)], dim=-1),
        lyrics=torch.cat([tracks.lyrics, torch.full((4, 5, D), float("nan"))], dim=1),
    )
    for i, (n_mel, n_tokens) in enumerate(zip(wide.mel_frames, wide.lyrics_tokens, strict=True)):
        wide.mel[i, :, n_mel:] = torch.randn(128, wide.mel.shape[-1] - n_mel) * 1e3
        wide.lyrics[i, n_tokens:] = 1e6 * torch.randn_like(wide.lyrics[i, n_tokens:])
    candidates = [net(wide), net(select_rows(tracks, [3, 1, 0, 2]))]
    rows = [[0, 1, 2, 3], [3, 1, 0, 2]]
    for i in range(4):
        candidates.append(net(select_rows(tracks, [i])))
        rows.append([i])
    for outputs, order in zip(candidates, rows, strict=True):
        torch.testing.assert_close(outputs.logits, expected.logits[order], atol=1e-5, rtol=1e-5)
        torch.testing.assert_close(outputs.audio_embedding, expected.audio_embedding[order], atol=1e-5, rtol=1e-5)


def test_cls_pooling_contrasts_the_first_token_and_mean_pooling_the_stored_mean():
    tracks = batch()
    for pooling, pooled in (("cls", tracks.lyrics[:, 0]), ("mean", tracks.lyrics_pooled)):
        net = model(lyrics_pooling=pooling).eval()
        _, expected = net.projection(torch.zeros(4, 128), pooled)
        has_lyrics = tracks.lyrics_tokens > 0
        torch.testing.assert_close(net(tracks).lyrics_embedding[has_lyrics], expected[has_lyrics])


def test_learned_token_replaces_missing_lyrics():
    net, tracks = model(), batch()
    no_lyrics = select_rows(tracks, [2])
    before = net.eval()(no_lyrics).logits
    with torch.no_grad():
        net.no_lyrics.add_(1.0)
    assert not torch.allclose(net(no_lyrics).logits, before)
    torch.testing.assert_close(net(select_rows(tracks, [0])).logits, model().eval()(select_rows(tracks, [0])).logits)
    total_loss(net(no_lyrics), no_lyrics).total.backward()
    assert net.no_lyrics.grad.abs().sum() > 0


def test_batch_without_tokens_is_scored_like_tracks_without_lyrics():
    net = model().eval()
    no_lyrics = select_rows(batch(), [2])
    empty = dataclasses.replace(no_lyrics, lyrics=no_lyrics.lyrics[:, :0])
    torch.testing.assert_close(net(empty).logits, net(no_lyrics).logits)


@pytest.mark.parametrize("head", ["graph", "query"])
def test_permuting_genres_permutes_logits(head):
    order = [3, 0, 5, 1, 4, 2]
    net = model(head=head).eval()
    permuted, state = GenreModel(net.config), net.state_dict()
    for name in ("bias", "graph.nodes", "query.nodes", "query.query", "query.output", "query.bias"):
        if name in state:
            state[name] = state[name][order]
    if head == "graph":
        state["graph.adjacency"] = state["graph.adjacency"][order][:, order]
    permuted.load_state_dict(state)
    torch.testing.assert_close(permuted.eval()(batch()).logits, net(batch()).logits[:, order])


def test_lambda_1_sends_no_gradient_to_fusion_graph_and_bias():
    net = model()
    total_loss(net(batch()), batch(), 1.0).total.backward()
    for name, parameter in net.named_parameters():
        has_gradient = parameter.grad is not None and bool(parameter.grad.any())
        assert has_gradient == name.startswith(("encoder.", "projection.")), name


@pytest.mark.parametrize("head", ["graph", "linear", "query"])
def test_all_parameters_have_gradients(head):
    net = model(head=head)
    total_loss(net(batch()), batch()).total.backward()
    # The bias of a key adds one value to all scores of a query, which cancels in the softmax.
    without = {n for n, p in net.named_parameters() if p.grad is None or p.grad.abs().max() < 1e-8}
    assert {name for name in without if not name.endswith("attention.key.bias")} == set()


@pytest.mark.parametrize(
    ("options", "loss_options"),
    [
        ({}, {}),
        ({"head": "linear"}, {}),
        (QUERY, {"sum_over_genres": True}),
        ({**QUERY, "ffn": True, "attention": False}, {"loss": "asymmetric"}),
        ({"graph_normalisation": "reweighted", "tau_scale": "log"}, {"sum_over_genres": True}),
    ],
)
def test_gradients_equal_finite_differences(options, loss_options):
    """Random directions through all parameters are compared in float64.

    Steps are tiny because max-pooling has kinks: the share of windows whose maximum moves decreases with the step.
    """
    net, tracks = model(dropout=0.0, **options).double(), batch()
    parameters = list(net.parameters())

    def loss() -> torch.Tensor:
        return total_loss(net(tracks), tracks, **loss_options).total

    loss().backward()
    torch.manual_seed(2)
    for _ in range(3):
        steps = [1e-9 * torch.randn_like(p) for p in parameters]
        expected = sum((p.grad * step).sum() for p, step in zip(parameters, steps, strict=True))
        values = []
        with torch.no_grad():
            for sign in (1, -2, 1):
                for p, step in zip(parameters, steps, strict=True):
                    p.add_(step, alpha=sign)
                values.append(loss())
        assert ((values[0] - values[1]) / 2).item() == pytest.approx(expected.item(), rel=1e-4)


def test_nan_in_features_of_missing_lyrics_does_not_reach_gradients():
    net, tracks = model(), batch()
    tracks.lyrics_pooled[2] = float("nan")
    tracks.lyrics[2] = float("nan")
    losses = total_loss(net(tracks), tracks)
    losses.total.backward()
    assert torch.isfinite(losses.total)
    assert all(torch.isfinite(p.grad).all() for p in net.parameters() if p.grad is not None)


def test_logits_are_products_of_fused_vector_and_genre_classifiers():
    net = model().eval()
    scaled = model(logit_scale=True).eval()
    with torch.no_grad():
        net.bias.fill_(2.0)
    fused = net.fusion(net._encode_audio(batch()), net._lyrics(batch())).vector
    torch.testing.assert_close(net(batch()).logits, fused @ net.graph().T + 2.0)
    torch.testing.assert_close(scaled(batch()).logits * 512**0.5 + 2.0, net(batch()).logits)


@pytest.mark.parametrize("modality", ["audio", "lyrics"])
@pytest.mark.parametrize("head", ["graph", "linear", "query"])
def test_model_of_one_modality_ignores_the_other(modality, head):
    net = model(modalities=modality, attention=False, contrastive=False, head=head).eval()
    tracks = batch()
    other = {"lyrics": torch.randn(4, TOKENS, D)} if modality == "audio" else {"mel": torch.randn(4, 128, FRAMES)}
    outputs = net(tracks)
    assert outputs.logits.shape == (4, C)
    assert outputs.audio_embedding is None
    torch.testing.assert_close(net(dataclasses.replace(tracks, **other)).logits, outputs.logits)
    assert net.tau is None
    net.clamp_temperature()
    total_loss(outputs, tracks).total.backward()


def test_loaded_state_and_config_restore_the_model():
    net = model().eval()
    assert {"mel_mean", "mel_std", "graph.adjacency", "graph.nodes"} <= set(net.state_dict())
    config = ModelConfig.from_dict(json.loads(json.dumps(dataclasses.asdict(net.config))))
    assert config == net.config
    loaded = GenreModel(config)
    loaded.load_state_dict(net.state_dict())
    assert torch.equal(loaded.eval()(batch()).logits, net(batch()).logits)


def test_name_vectors_are_centred_unless_similarity_is_raw():
    names = np.random.default_rng(0).normal(size=(C, D)) + 3
    centred = GenreModel(ModelConfig(n_genres=C, text_dim=D, encoder="tiny"), genre_embedding=names)
    raw = GenreModel(ModelConfig(n_genres=C, text_dim=D, encoder="tiny", graph_similarity="raw"), genre_embedding=names)
    np.testing.assert_allclose(centred.graph.nodes, names - names.mean(axis=0), atol=1e-6)
    np.testing.assert_allclose(raw.graph.nodes, names, atol=1e-6)
    assert centred.start_warnings() == []
    crowded = model(graph_similarity="raw")
    crowded.graph.nodes.fill_(1.0)
    assert "mean cosine 1.0000" in crowded.start_warnings()[0]


@pytest.mark.parametrize("head", ["graph", "query"])
def test_stored_half_precision_and_bf16_autocast_stay_close_to_float32(head):
    net = model(head=head).eval()
    tracks = batch()
    half = dataclasses.replace(tracks, mel=tracks.mel.half(), lyrics=tracks.lyrics.half())
    expected = net(tracks)
    torch.testing.assert_close(net(half).logits, expected.logits, atol=5e-3, rtol=5e-3)
    with torch.autocast("cpu", dtype=torch.bfloat16):
        outputs = net(half)
        losses = total_loss(outputs, half)
    assert outputs.logits.dtype == outputs.audio_embedding.dtype == losses.total.dtype == torch.float32
    torch.testing.assert_close(outputs.logits, expected.logits, atol=0.1, rtol=0.1)
    losses.total.backward()
    assert all(torch.isfinite(p.grad).all() for p in net.parameters())


def test_channels_last_gives_the_same_outputs():
    net = model().eval()
    expected = net(batch()).logits
    torch.testing.assert_close(
        net.to(memory_format=torch.channels_last)(batch()).logits, expected, atol=1e-5, rtol=1e-5
    )


def test_default_model_overfits_a_handful_of_tracks():
    net, few = model(dropout=0.0), batch()
    optimizer = torch.optim.Adam(net.parameters(), lr=1e-3)
    net.train()
    first = last = total_loss(net(few), few)
    for _ in range(60):
        optimizer.zero_grad()
        last.total.backward()
        optimizer.step()
        net.clamp_temperature()
        last = total_loss(net(few), few)
    assert last.classification < 0.05 < first.classification
    # Tracks 0 and 3 share lyrics and track 2 has none, so only two pairs remain.
    assert last.contrastive < first.contrastive / 4
    assert net.tau != 0.07


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"encoder": "huge"}, "encoder"),
        ({"dropout": 1.0}, "dropout"),
        ({"tau_init": 0.7}, "tau_init"),
        ({"n_genres": 0}, "n_genres"),
        ({"modalities": "audio"}, "attention=False"),
        ({"modalities": "video"}, "video"),
        ({"graph_normalisation": "column"}, "column"),
        ({"heads": 3}, "heads"),
    ],
)
def test_invalid_options_raise_config_errors(options, message):
    with pytest.raises(ConfigError, match=message):
        GenreModel(ModelConfig(**{"n_genres": C, "text_dim": D, **options}))


def test_inputs_with_unknown_keys_wrong_shapes_or_invalid_values_raise():
    with pytest.raises(ConfigError, match="unknown keys depth"):
        ModelConfig.from_dict({"n_genres": C, "text_dim": D, "depth": 3})
    config = ModelConfig(n_genres=C, text_dim=D, encoder="tiny")
    with pytest.raises(ValueError, match="adjacency has shape"):
        GenreModel(config, adjacency=np.eye(C + 1))
    with pytest.raises(ValueError, match="NaN"):
        GenreModel(config, genre_embedding=np.full((C, D), np.nan))
    with pytest.raises(ValueError, match="standard deviation not positive"):
        GenreModel(config, mel_std=0.0)


def test_gradient_norms_are_those_of_each_weighted_loss_at_the_frames():
    net, tracks = model(), batch()
    outputs = net(tracks)
    outputs.frames.retain_grad()
    losses = total_loss(outputs, tracks, 0.3)
    norms = gradient_norms(outputs, losses, 0.3)
    for norm, loss in zip(norms, (0.3 * losses.contrastive, 0.7 * losses.classification), strict=True):
        outputs.frames.grad = None
        loss.backward(retain_graph=True)
        torch.testing.assert_close(norm, outputs.frames.grad.norm())
    without = model(contrastive=False)(tracks)
    assert gradient_norms(without, total_loss(without, tracks), 0.3) is None
