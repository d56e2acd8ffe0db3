"""Test the encoder of added feature sets, alone and in the model, next to the audio CNN and in its place."""

from __future__ import annotations

import dataclasses
import json
from typing import Any

import numpy as np
import pytest
import torch

from mgc.cache.errors import ConfigError
from mgc.heads.model.batch import Batch
from mgc.heads.model.config import EmbeddingShape, ModelConfig, audio_names
from mgc.heads.model.embeddings import EmbeddingEncoder
from mgc.heads.model.graph import build_adjacency
from mgc.heads.model.losses import total_loss
from mgc.heads.model.model import GenreModel

C, D, FRAMES, TOKENS, STEPS = 6, 24, 96, 9, 8
SHAPES = {"pooled": EmbeddingShape(dim=7), "states": EmbeddingShape(dim=5, layers=3)}
INPUTS = [("pooled",), ("states",), ("mel", "pooled"), ("mel", "pooled", "states")]
HEADS = ("graph", "linear", "query")


def statistics(name: str) -> tuple[Any, Any]:
    rng = np.random.default_rng(4)
    size = (SHAPES[name].layers, SHAPES[name].dim)
    return rng.normal(size=size), 0.5 + rng.random(size)


def model(audio: tuple[str, ...], seed: int = 0, **options: Any) -> GenreModel:
    torch.manual_seed(seed)
    rng = np.random.default_rng(seed)
    labels, names = rng.random((50, C)) < 0.3, rng.normal(size=(C, D))
    shapes = {name: SHAPES[name] for name in audio if name != "mel"}
    widths: dict[str, Any] = {"n_genres": C, "text_dim": D, "encoder": "tiny", "width": 32, "graph_hidden": 32}
    config = ModelConfig(**{**widths, "audio": audio, "embeddings": shapes, **options})
    return GenreModel(
        config,
        adjacency=build_adjacency(labels, names, config.graph_options).adjacency,
        genre_embedding=names,
        mel_mean=-40.0,
        mel_std=20.0,
        embedding_statistics={name: statistics(name) for name in shapes},
    )


def batch() -> Batch:
    """Return four tracks with features of all kinds; their sequences have 8, 3, 1 and 5 steps."""
    torch.manual_seed(1)
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
        embeddings={
            "pooled": (torch.randn(4, 1, 1, 7), torch.ones(4, dtype=torch.int64)),
            "states": (torch.randn(4, 3, STEPS, 5), torch.tensor([STEPS, 3, 1, 5])),
        },
    )


def select_rows(tracks: Batch, rows: list[int]) -> Batch:
    return tracks.map(lambda tensor: tensor[rows])


def test_encoder_equals_its_definition_in_numpy() -> None:
    torch.manual_seed(0)
    encoder = EmbeddingEncoder(SHAPES["states"], 11, statistics=statistics("states"))
    values, steps = batch().embeddings["states"]
    with torch.no_grad():
        assert encoder.layers is not None
        encoder.layers.copy_(torch.tensor([0.5, -1.0, 2.0]))
    frames, mask = encoder(values, steps)
    mean, std = statistics("states")
    weights = np.exp([0.5, -1.0, 2.0]) / np.exp([0.5, -1.0, 2.0]).sum()
    mixed = np.einsum("blnd,l->bnd", (values.numpy() - mean[:, None]) / std[:, None], weights)
    kernel, bias = (tensor.detach().numpy() for tensor in (encoder.projection.weight, encoder.projection.bias))
    expected = np.maximum(mixed @ kernel.T + bias, 0)
    for i, n in enumerate(steps.tolist()):
        np.testing.assert_allclose(frames[i, :n].detach(), expected[i, :n], atol=1e-5)
        assert mask[i].tolist() == [step < n for step in range(STEPS)]


def test_layers_have_equal_weights_at_first_and_a_single_layer_has_none() -> None:
    assert EmbeddingEncoder(SHAPES["pooled"], 4).layer_weights is None
    weights = EmbeddingEncoder(SHAPES["states"], 4).layer_weights
    assert weights is not None
    assert weights.tolist() == pytest.approx([1 / 3] * 3)


def test_invalid_statistics_raise() -> None:
    mean, std = statistics("pooled")
    for wrong in ((mean, 0 * std), (mean[:, 1:], std), (np.full_like(mean, np.nan), std)):
        with pytest.raises(ValueError, match=r"expected|not finite"):
            EmbeddingEncoder(SHAPES["pooled"], 4, statistics=wrong)


@pytest.mark.parametrize("head", HEADS)
@pytest.mark.parametrize("audio", INPUTS)
def test_all_parameters_have_gradients_with_every_head_and_input(audio: tuple[str, ...], head: str) -> None:
    net = model(audio, head=head)
    total_loss(net(batch()), batch()).total.backward()  # type: ignore[no-untyped-call]
    without = {n for n, p in net.named_parameters() if p.grad is None or p.grad.abs().max() < 1e-8}
    if audio == ("pooled",):  # attention over a single frame has weight 1 for any query and key
        without = {name for name in without if not name.startswith("fusion.lyrics_block.attention.")}
    assert {name for name in without if not name.endswith("attention.key.bias")} == set()


@pytest.mark.parametrize("head", HEADS)
@pytest.mark.parametrize("audio", INPUTS)
def test_gradients_equal_finite_differences(audio: tuple[str, ...], head: str) -> None:
    """Random directions through all parameters are compared in float64."""
    net, tracks = model(audio, dropout=0.0, head=head).double(), batch().map(_double)
    parameters = list(net.parameters())

    def loss() -> torch.Tensor:
        return total_loss(net(tracks), tracks).total

    loss().backward()  # type: ignore[no-untyped-call]
    torch.manual_seed(2)
    for _ in range(2):
        steps = [1e-8 * torch.randn_like(p) for p in parameters]
        expected = sum((p.grad * step).sum() for p, step in zip(parameters, steps, strict=True) if p.grad is not None)
        values = []
        with torch.no_grad():
            for sign in (1, -2, 1):
                for p, step in zip(parameters, steps, strict=True):
                    p.add_(step, alpha=sign)
                values.append(loss())
        assert ((values[0] - values[1]) / 2).item() == pytest.approx(float(expected), rel=1e-4)


def _double(tensor: torch.Tensor) -> torch.Tensor:
    return tensor.double() if tensor.is_floating_point() else tensor


@pytest.mark.parametrize("head", HEADS)
@pytest.mark.parametrize("audio", [("states",), ("mel", "pooled", "states")])
def test_content_and_length_of_padding_and_other_tracks_have_no_effect(audio: tuple[str, ...], head: str) -> None:
    net, tracks = model(audio, head=head).eval(), batch()
    expected = net(tracks)
    values, steps = tracks.embeddings["states"]
    wide = torch.cat([values, torch.randn(4, 3, 5, 5)], dim=2)
    for i, n in enumerate(steps.tolist()):
        wide[i, :, n:] = float("nan")
    padded = dataclasses.replace(tracks, embeddings={**tracks.embeddings, "states": (wide, steps)})
    for outputs, rows in [(net(padded), [0, 1, 2, 3]), (net(select_rows(padded, [3, 1])), [3, 1])]:
        torch.testing.assert_close(outputs.logits, expected.logits[rows], atol=1e-5, rtol=1e-5)
        torch.testing.assert_close(outputs.audio_embedding, expected.audio_embedding[rows], atol=1e-5, rtol=1e-5)
    losses = total_loss(net(padded), padded)
    losses.total.backward()  # type: ignore[no-untyped-call]
    assert all(torch.isfinite(p.grad).all() for p in net.parameters() if p.grad is not None)


def test_each_input_has_the_same_share_of_the_mean_whatever_its_number_of_frames() -> None:
    net, tracks = model(("mel", "pooled", "states"), attention=False).eval(), batch()
    frames, weights = net._encode_audio(tracks)
    assert frames.shape[:2] == weights.shape == (4, FRAMES // 32 + 1 + STEPS)
    parts = torch.split(weights, [FRAMES // 32, 1, STEPS], dim=1)
    torch.testing.assert_close(torch.stack([part.sum(dim=1) for part in parts]), torch.ones(3, 4))
    u = net.fusion.audio_projection(frames)
    means = [
        (each * (part > 0)[..., None]).sum(dim=1) / (part > 0).sum(dim=1, keepdim=True)
        for each, part in zip(torch.split(u, [FRAMES // 32, 1, STEPS], dim=1), parts, strict=True)
    ]
    fused = net.fusion((frames, weights), net._lyrics(tracks))
    torch.testing.assert_close(fused.pools[0](), torch.stack(means).mean(dim=0), atol=1e-5, rtol=1e-5)
    assert fused.masks[0].dtype == torch.bool


def test_stored_half_precision_and_bf16_stay_close_to_float32() -> None:
    net, tracks = model(("mel", "pooled", "states")).eval(), batch()
    half = tracks.map(lambda tensor: tensor.half() if tensor.ndim > 2 else tensor)
    torch.testing.assert_close(net(half).logits, net(tracks).logits, atol=5e-3, rtol=5e-3)
    with torch.autocast("cpu", dtype=torch.bfloat16):
        outputs = net(half)
    assert outputs.logits.dtype == torch.float32
    torch.testing.assert_close(outputs.logits, net(tracks).logits, atol=0.1, rtol=0.1)


def test_config_is_restored_from_json_and_loaded_weights_give_the_same_outputs() -> None:
    net = model(("mel", "states")).eval()
    document = json.loads(json.dumps(dataclasses.asdict(net.config)))
    assert ModelConfig.from_dict(document) == net.config
    loaded = GenreModel(ModelConfig.from_dict(document))
    loaded.load_state_dict(net.state_dict())
    assert torch.equal(loaded.eval()(batch()).logits, net(batch()).logits)
    old = {name: value for name, value in document.items() if name not in ("audio", "embeddings")}
    assert ModelConfig.from_dict(old).audio == ("mel",)


def test_names_of_inputs_are_sorted_and_invalid_ones_raise() -> None:
    assert audio_names("states, mel,pooled") == ("mel", "pooled", "states")
    for wrong in ("", "mel,,states", ("mel", "mel"), ()):
        with pytest.raises(ConfigError, match="audio="):
            audio_names(wrong)
    with pytest.raises(ConfigError, match="embeddings"):
        ModelConfig(n_genres=C, text_dim=D, audio=("states",))
    off: dict[str, Any] = {"attention": False, "contrastive": False, "head": "linear"}
    for name, modalities in (("santana", "audio"), ("pandeya", "both")):
        with pytest.raises(ConfigError, match="needs audio='mel', not 'pooled'"):
            ModelConfig(
                n_genres=C,
                text_dim=D,
                model=name,  # type: ignore[arg-type]
                modalities=modalities,  # type: ignore[arg-type]
                audio=("pooled",),
                embeddings={"pooled": SHAPES["pooled"]},
                **off,
            )
