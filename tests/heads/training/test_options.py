"""Every option that ``--set`` takes: reachable by name, and each changes what it is about."""

from __future__ import annotations

import dataclasses
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch

from mgc.cache.errors import ConfigError
from mgc.cache.reading.store import FeatureStore
from mgc.heads.config import MODEL_OPTIONS, TrainConfig, read_settings
from mgc.heads.model.batch import Batch, Outputs
from mgc.heads.model.graph import build_adjacency
from mgc.heads.model.model import build_system
from mgc.heads.model.system import System
from mgc.heads.runs.published_model import load_run
from mgc.heads.training.train import TrainingResult, train

C, D = 6, 24

MODEL_SETTINGS = [
    "width=64",
    "heads=1",
    "dropout=0.5",
    "ffn=true",
    "uniform_attention=true",
    "lyrics_pooling=cls",
    "graph_conditional=lhs",
    "graph_similarity=raw",
    "graph_normalisation=row",
    "graph_hidden=32",
    "logit_scale=true",
    "bias=false",
    "projection_dim=16",
    "normalise=false",
    "tau_init=0.2",
    "mel_reference=max",
    "mel_top_db=20",
]
OF_ML_GCN = ["graph_threshold=0.05", "graph_reweight=0.6"]
SEEN_IN_TRAINING = ["tau_scale=log"]

TRAINING_SETTINGS = [
    "loss=asymmetric",
    "bce_reduction=sum",
    "prior_bias=true",
    "modality_dropout=0.5",
    "spec_augment=true",
    "schedule=cosine",
    "lr_halve_every=1",
    "warmup_epochs=1",
    "weight_decay=0.1",
    "grad_clip=0.01",
    "lambda=0.9",
    "lambda_warmup_epochs=1",
]


def test_no_option_of_the_model_is_left_out_here() -> None:
    named = {setting.partition("=")[0] for setting in (*MODEL_SETTINGS, *OF_ML_GCN, *SEEN_IN_TRAINING)}
    assert named == set(MODEL_OPTIONS)


def system(*settings: str) -> System:
    config = TrainConfig.from_dict({"encoder": "tiny", **read_settings(settings)})
    model = config.model_config(n_genres=C, text_dim=D, n_mels=128)
    random = np.random.default_rng(0)
    labels, names = random.random((60, C)) < 0.3, random.normal(size=(C, D)) + 0.5
    adjacency = build_adjacency(labels, names, model.graph_options).adjacency
    torch.manual_seed(0)
    return build_system(model, adjacency=adjacency, genre_embedding=names, mel_mean=-40.0, mel_std=20.0)


def outputs(net: System) -> list[torch.Tensor]:
    torch.manual_seed(1)
    batch = Batch(
        mel=20 * torch.randn(3, 128, 96) - 40,
        mel_frames=torch.tensor([96, 60, 33]),
        lyrics=torch.randn(3, 9, D),
        lyrics_tokens=torch.tensor([9, 4, 0]),
        lyrics_pooled=torch.randn(3, D),
        labels=torch.zeros(3, C),
        track_key=torch.arange(3),
        lyrics_key=torch.tensor([0, 1, -1]),
        rows=torch.arange(3),
    )
    with torch.no_grad():
        if net.output_bias is not None:
            net.output_bias.fill_(0.5)
        found: Outputs = net(batch)
    return [value for value in vars(found).values() if value is not None]


def same(first: list[torch.Tensor], second: list[torch.Tensor]) -> bool:
    return all(a.shape == b.shape and torch.allclose(a, b) for a, b in zip(first, second, strict=True))


@pytest.mark.parametrize("setting", MODEL_SETTINGS)
def test_each_option_of_the_model_changes_what_it_computes(setting: str) -> None:
    # In training mode, so that dropout takes part; both have the same weights where shapes agree, and the same draws.
    assert same(outputs(system()), outputs(system()))
    assert not same(outputs(system()), outputs(system(setting)))


@pytest.mark.parametrize("setting", OF_ML_GCN)
def test_each_option_of_ml_gcn_changes_its_graph(setting: str) -> None:
    mode = "graph_normalisation=ml-gcn"
    assert not same(outputs(system(mode)), outputs(system()))
    assert not same(outputs(system(mode)), outputs(system(mode, setting)))
    assert same(outputs(system()), outputs(system(setting)))


def fitted(store: FeatureStore, run: Path, *settings: str, **options: Any) -> TrainingResult:
    chosen = read_settings(["width=32", "graph_hidden=32", "precision=fp32", "lr=1e-3", *settings])
    return train(store, run, TrainConfig.from_dict({"encoder": "tiny", "epochs": 2, **chosen, **options}))


@pytest.fixture(scope="module")
def plain(small_store: FeatureStore, tmp_path_factory: pytest.TempPathFactory) -> Path:
    run = tmp_path_factory.mktemp("plain") / "run"
    fitted(small_store, run)
    return run


@pytest.mark.parametrize("setting", [*TRAINING_SETTINGS, *SEEN_IN_TRAINING])
def test_each_option_of_training_leads_to_other_weights(
    small_store: FeatureStore, plain: Path, tmp_path: Path, setting: str
) -> None:
    fitted(small_store, tmp_path / "run", setting)
    weights = [next((run / "last").glob("weights-*")).read_bytes() for run in (plain, tmp_path / "run")]
    assert weights[0] != weights[1]


def test_decoupled_weight_decay_is_not_adams(small_store: FeatureStore, tmp_path: Path) -> None:
    for name in ("adam", "adamw"):
        fitted(small_store, tmp_path / name, f"optimizer={name}", "weight_decay=0.1", epochs=1)
    weights = [next((tmp_path / name / "last").glob("weights-*")).read_bytes() for name in ("adam", "adamw")]
    assert weights[0] != weights[1]


def test_biases_start_at_the_training_splits_log_odds(small_store: FeatureStore, tmp_path: Path) -> None:
    result = fitted(small_store, tmp_path / "run", "prior_bias=true", "lr=0", epochs=1)
    counts, n = result.task.train_labels.sum(axis=0), result.task.n_train
    bias = load_run(tmp_path / "run").model.output_bias
    assert bias is not None
    share = (counts + 1) / (n + 2)
    np.testing.assert_allclose(torch.sigmoid(bias).detach(), share, rtol=1e-5)
    with pytest.raises(ConfigError, match="needs a bias"):
        fitted(small_store, tmp_path / "none", "prior_bias=true", "bias=false")


def test_lambda_1_warns_that_nothing_but_the_audio_lyrics_part_learns(
    small_store: FeatureStore, tmp_path: Path
) -> None:
    asked = {"1": ["lambda=1"], ".9": ["lambda=0.9"], "off": ["lambda=1", "contrastive=false"]}
    runs = [fitted(small_store, tmp_path / name, *settings, epochs=1) for name, settings in asked.items()]
    warned = [any("learn nothing" in line for line in run.warnings) for run in runs]
    assert warned == [True, False, False]


def test_a_summed_loss_is_the_mean_times_the_genres(small_store: FeatureStore, tmp_path: Path) -> None:
    mean, total = (
        fitted(small_store, tmp_path / way, f"bce_reduction={way}", "lr=0", "dropout=0", "contrastive=false", epochs=1)
        for way in ("mean", "sum")
    )
    assert total.history[0].loss == pytest.approx(5 * mean.history[0].loss, rel=1e-5)


def test_settings_are_read_as_yaml_and_refused_with_the_nearest_name() -> None:
    assert read_settings(["lr=1e-4", "heads=2", "mel_top_db=null", "lambda=0", "genres=[rock, jazz]"]) == {
        "lr": 1e-4,
        "lambda_": 0,
        "genres": ["rock", "jazz"],
        "model_options": {"heads": 2, "mel_top_db": None},
    }
    assert read_settings([]) == {}
    for setting, says in [
        ("widht=1", "did you mean 'width'"),
        ("heads", "want key=value"),
        ("heads=[", "YAML"),
        ("preset=plus", "no option 'preset'"),
        ("n_genres=4", "no option 'n_genres'"),
    ]:
        with pytest.raises(ConfigError, match=says):
            read_settings([setting])


@pytest.mark.parametrize(
    ("settings", "says"),
    [
        (["heads=two"], "heads is 'two'"),
        (["ffn=1"], "true or false"),
        (["dropout=x"], "want a number"),
        (["graph_similarity=rwa"], "rwa"),
        (["mel_top_db=loud"], "mel_top_db"),
        (["loss=mse"], "loss='mse'"),
        (["warmup_epochs=100"], "fewer than the 100 epochs"),
        (["model=santana", "modalities=lyrics"], "santana"),
        (["modality_dropout=2"], "modality_dropout"),
        (["spec_augment=1"], "spec_augment"),
    ],
)
def test_values_without_meaning_are_refused_before_anything_is_read(settings: list[str], says: str) -> None:
    with pytest.raises(ConfigError, match=says):
        TrainConfig.from_dict(read_settings(settings))


def test_a_system_has_the_parts_it_has() -> None:
    assert dataclasses.asdict(TrainConfig(model="santana")) | {"model": "ours", "head": "graph"} == dataclasses.asdict(
        TrainConfig(modalities="audio")
    )
    pandeya = TrainConfig(model="pandeya")
    assert (pandeya.modalities, pandeya.attention, pandeya.head, pandeya.contrastive) == (
        "both",
        False,
        "linear",
        False,
    )
