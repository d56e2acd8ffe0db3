"""Test every system: number of parameters, independence from padding, training, evaluation and prediction."""

from __future__ import annotations

import dataclasses
from pathlib import Path
from typing import Any

import pytest
import torch
from torch import Tensor, nn
from torch._subclasses.fake_tensor import DataDependentOutputException, FakeTensorMode

from mgc.cache.reading.store import FeatureStore
from mgc.heads.config import TrainConfig
from mgc.heads.evaluation.evaluate import evaluate
from mgc.heads.evaluation.predict import score_store
from mgc.heads.model import audio_cnn
from mgc.heads.model.batch import Batch
from mgc.heads.model.config import ModelConfig
from mgc.heads.model.losses import total_loss
from mgc.heads.model.model import build_system
from mgc.heads.model.system import System
from mgc.heads.runs.published_model import load_run
from mgc.heads.training.augment import augment_batch
from mgc.heads.training.train import train

C, D = 5, 12
OFF = {"attention": False, "contrastive": False, "head": "linear"}
SANTANA, PANDEYA = {"model": "santana", "modalities": "audio", **OFF}, {"model": "pandeya", **OFF}


def n_parameters(system: System) -> int:
    return sum(parameter.numel() for parameter in system.parameters())


def batch(n_frames: int = 96) -> Batch:
    """Return three tracks: full length, an odd length, and shorter without lyrics."""
    torch.manual_seed(0)
    return Batch(
        mel=20 * torch.randn(3, 128, n_frames) - 40,
        mel_frames=torch.tensor([n_frames, 37, n_frames - 31]),
        lyrics=torch.randn(3, 9, D),
        lyrics_tokens=torch.tensor([9, 4, 0]),
        lyrics_pooled=torch.randn(3, D) * torch.tensor([1.0, 1.0, 0.0])[:, None],
        labels=torch.randint(0, 2, (3, C)).float(),
        track_key=torch.arange(3),
        lyrics_key=torch.tensor([0, 1, -1]),
        rows=torch.arange(3),
    )


def rows_of(whole: Batch, rows: list[int]) -> Batch:
    fields = {name: value[rows] for name, value in vars(whole).items() if isinstance(value, Tensor)}
    return Batch(**fields)


def build(**options: Any) -> System:
    torch.manual_seed(1)
    return build_system(
        ModelConfig(**{"n_genres": C, "text_dim": D, "encoder": "tiny", **options}), mel_mean=-40.0, mel_std=20.0
    ).eval()


@pytest.mark.parametrize("options", [SANTANA, PANDEYA])
def test_outputs_do_not_depend_on_padding_or_other_tracks(options: dict[str, Any]) -> None:
    net, whole = build(**options), batch()
    expected = net(whole).logits
    wide = dataclasses.replace(whole, mel=torch.cat([whole.mel, torch.full((3, 128, 40), 1e3)], dim=-1))
    for i, n in enumerate(wide.mel_frames.tolist()):
        wide.mel[i, :, n:] = 1e3 * torch.randn(128, wide.mel.shape[-1] - n)
    torch.testing.assert_close(net(wide).logits, expected, atol=1e-5, rtol=1e-5)
    for i in range(3):
        torch.testing.assert_close(net(rows_of(whole, [i])).logits, expected[[i]], atol=1e-5, rtol=1e-5)


def test_santana_ignores_lyrics_and_pandeya_uses_their_mean() -> None:
    whole = batch()
    other_lyrics = dataclasses.replace(whole, lyrics_pooled=whole.lyrics_pooled + 1.0)
    santana, pandeya = build(**SANTANA), build(**PANDEYA)
    assert torch.equal(santana(other_lyrics).logits, santana(whole).logits)
    same = (pandeya(other_lyrics).logits == pandeya(whole).logits).all(dim=1)
    assert same.tolist() == [False, False, True]  # the third track has no lyrics, so its values are ignored


def test_number_of_parameters_of_santana() -> None:
    net = build_system(ModelConfig(n_genres=87, text_dim=768, **SANTANA))
    assert n_parameters(net) == 1_568_992 + 512 * 87 + 87


def test_number_of_parameters_of_pandeya() -> None:
    """Counted kernel by kernel from the description."""
    expected, n_in = 0, 1
    for block, f in enumerate((16, 32, 64, 128, 256)):
        reach, ratio = (5, 5, 5, 3, 3)[block], (4, 8, 8, 16, 16)[block]
        expected += n_in * f * reach + f  # 1 x reach on the input
        expected += (n_in + f) * reach + 1  # reach x 1 on the input and that output, to one channel
        expected += (n_in + 1) * f * 3 + f  # 1 x 3 on the input and that output
        expected += n_in * f * 3 + f  # 3 x 1 of the parallel branch
        expected += (n_in + f) * 2 * f * 9 + 2 * f  # Conv3x3 over the sum
        expected += 2 * 2 * f  # batch normalisation
        expected += 2 * (2 * f) * (2 * f // ratio) + 2 * f  # channel and spatial excitation
        n_in = 2 * f
    expected += (512 + 768) * 256 + 256 + 256 * 87 + 87
    assert n_parameters(build_system(ModelConfig(n_genres=87, text_dim=768, **PANDEYA))) == expected


@pytest.mark.parametrize(
    "options",
    [{"model": "santana"}, {"model": "pandeya"}, {"modalities": "audio"}, {"modalities": "lyrics"}],
    ids=["santana", "pandeya", "audio", "lyrics"],
)
def test_every_system_trains_evaluates_and_predicts_from_its_published_model(
    small_store: FeatureStore, tmp_path: Path, options: dict[str, Any]
) -> None:
    config = TrainConfig(
        encoder="tiny", lr=1e-3, epochs=3, precision="fp32", model_options={"width": 32, "graph_hidden": 32}, **options
    )
    result = train(small_store, tmp_path / "run", config)
    assert result.history[-1].classification < result.history[0].classification
    assert evaluate(tmp_path / "run", small_store, n_replicates=0).metrics.n_tracks == 8
    (tmp_path / "run" / "best").rename(tmp_path / "model")
    loaded = load_run(tmp_path / "model")
    assert loaded.training == config
    scored = score_store(loaded, small_store)
    ids, scores = scored.examples.ids, scored.scores
    assert scores.shape == (len(ids), C)
    assert scores.std(axis=0).min() > 0


def without_values(tensor: Tensor) -> Tensor:
    return torch.empty(tensor.shape, dtype=tensor.dtype, device=tensor.device)


def without_parameter_values(system: System) -> System:
    for module in system.modules():
        for name, parameter in module.named_parameters(recurse=False):
            setattr(module, name, nn.Parameter(without_values(parameter)))
        for name, buffer in module.named_buffers(recurse=False):
            setattr(module, name, without_values(buffer))
    return system


@pytest.mark.parametrize("lengths", ["various", "equal"])
@pytest.mark.parametrize("options", [{}, SANTANA, PANDEYA], ids=["ru2023", "santana", "pandeya"])
def test_training_step_does_not_synchronise_with_the_gpu(
    options: dict[str, Any], lengths: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    """PyTorch's fake tensors have shapes but no values, so that reading a value raises."""
    system, given = build(**options), batch()
    if lengths == "equal":
        given = dataclasses.replace(given, mel_frames=torch.full_like(given.mel_frames, given.mel.shape[-1]))
    assert given.padded == (lengths != "equal")
    monkeypatch.setattr(audio_cnn, "_IN_PLACE", False)
    with FakeTensorMode():
        system, fake = without_parameter_values(system).train(), given.map(without_values)
        augmented = augment_batch(fake, TrainConfig(spec_augment=True, modality_dropout=0.5))
        with torch.autocast("cpu", dtype=torch.bfloat16):
            outputs = system(augmented)
        loss = total_loss(outputs, augmented).total
        loss.backward()
        nn.utils.clip_grad_norm_(system.parameters(), 1.0)
        system.clamp_temperature()
        with pytest.raises(DataDependentOutputException):  # shows that reading a value does raise
            loss.item()
