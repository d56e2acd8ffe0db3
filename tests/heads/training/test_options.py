"""Test every option of ``--set``: each is accepted, and each has an effect."""

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
ML_GCN_SETTINGS = ["graph_threshold=0.05", "graph_reweight=0.6"]
ONLY_IN_TRAINING = ["tau_scale=log"]

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


def test_this_file_covers_every_model_option() -> None:
    named = {setting.partition("=")[0] for setting in (*MODEL_SETTINGS, *ML_GCN_SETTINGS, *ONLY_IN_TRAINING)}
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
        values: Outputs = net(batch)
    return [value for value in vars(values).values() if value is not None]


def same(first: list[torch.Tensor], second: list[torch.Tensor]) -> bool:
    return all(a.shape == b.shape and torch.allclose(a, b) for a, b in zip(first, second, strict=True))


@pytest.mark.parametrize("setting", MODEL_SETTINGS)
def test_each_model_option_changes_the_output(setting: str) -> None:
    # In training mode, for dropout. Both models have the same random draws, and the same weights if shapes agree.
    assert same(outputs(system()), outputs(system()))
    assert not same(outputs(system()), outputs(system(setting)))


@pytest.mark.parametrize("setting", ML_GCN_SETTINGS)
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


@pytest.mark.parametrize("setting", [*TRAINING_SETTINGS, *ONLY_IN_TRAINING])
def test_each_training_option_changes_the_weights(
    small_store: FeatureStore, plain: Path, tmp_path: Path, setting: str
) -> None:
    fitted(small_store, tmp_path / "run", setting)
    weights = [next((run / "last").glob("weights-*")).read_bytes() for run in (plain, tmp_path / "run")]
    assert weights[0] != weights[1]


def test_adamw_differs_from_adam_with_weight_decay(small_store: FeatureStore, tmp_path: Path) -> None:
    for name in ("adam", "adamw"):
        fitted(small_store, tmp_path / name, f"optimizer={name}", "weight_decay=0.1", epochs=1)
    weights = [next((tmp_path / name / "last").glob("weights-*")).read_bytes() for name in ("adam", "adamw")]
    assert weights[0] != weights[1]


def test_prior_bias_equals_the_log_odds_of_the_training_split(small_store: FeatureStore, tmp_path: Path) -> None:
    result = fitted(small_store, tmp_path / "run", "prior_bias=true", "lr=0", epochs=1)
    counts, n = result.task.train_labels.sum(axis=0), result.task.n_train
    bias = load_run(tmp_path / "run").model.output_bias
    assert bias is not None
    share = (counts + 1) / (n + 2)
    np.testing.assert_allclose(torch.sigmoid(bias).detach(), share, rtol=1e-5)
    with pytest.raises(ConfigError, match="the model has no bias"):
        fitted(small_store, tmp_path / "none", "prior_bias=true", "bias=false")


def test_lambda_1_gives_a_warning(small_store: FeatureStore, tmp_path: Path) -> None:
    settings_of = {"1": ["lambda=1"], ".9": ["lambda=0.9"], "off": ["lambda=1", "contrastive=false"]}
    runs = [fitted(small_store, tmp_path / name, *settings, epochs=1) for name, settings in settings_of.items()]
    warned = [any("scores are meaningless" in line for line in run.warnings) for run in runs]
    assert warned == [True, False, False]


def test_summed_loss_equals_the_mean_times_the_number_of_genres(small_store: FeatureStore, tmp_path: Path) -> None:
    mean, total = (
        fitted(
            small_store,
            tmp_path / reduction,
            f"bce_reduction={reduction}",
            "lr=0",
            "dropout=0",
            "contrastive=false",
            epochs=1,
        )
        for reduction in ("mean", "sum")
    )
    assert total.history[0].loss == pytest.approx(5 * mean.history[0].loss, rel=1e-5)


def test_settings_are_parsed_as_yaml_and_unknown_ones_refused() -> None:
    assert read_settings(["lr=1e-4", "heads=2", "mel_top_db=null", "lambda=0", "genres=[rock, jazz]"]) == {
        "lr": 1e-4,
        "lambda_": 0,
        "genres": ["rock", "jazz"],
        "model_options": {"heads": 2, "mel_top_db": None},
    }
    assert read_settings([]) == {}
    for setting, message in [
        ("widht=1", "did you mean 'width'"),
        ("heads", "Write key=value"),
        ("heads=[", "YAML"),
        ("preset=plus", "unknown option 'preset'"),
        ("n_genres=4", "unknown option 'n_genres'"),
    ]:
        with pytest.raises(ConfigError, match=message):
            read_settings([setting])


@pytest.mark.parametrize(
    ("settings", "message"),
    [
        (["heads=two"], "heads is 'two'"),
        (["ffn=1"], "true or false"),
        (["dropout=x"], "expected a number"),
        (["graph_similarity=rwa"], "rwa"),
        (["mel_top_db=loud"], "mel_top_db"),
        (["loss=mse"], "loss='mse'"),
        (["warmup_epochs=100"], "Use fewer than the 100 epochs"),
        (["model=santana", "modalities=lyrics"], "santana"),
        (["modality_dropout=2"], "modality_dropout"),
        (["spec_augment=1"], "spec_augment"),
    ],
)
def test_invalid_values_are_refused_by_the_config(settings: list[str], message: str) -> None:
    with pytest.raises(ConfigError, match=message):
        TrainConfig.from_dict(read_settings(settings))


def test_components_that_a_system_lacks_are_switched_off() -> None:
    assert dataclasses.asdict(TrainConfig(model="santana")) | {
        "model": "ru2023",
        "head": "graph",
    } == dataclasses.asdict(TrainConfig(modalities="audio"))
    pandeya = TrainConfig(model="pandeya")
    assert (pandeya.modalities, pandeya.attention, pandeya.head, pandeya.contrastive) == (
        "both",
        False,
        "linear",
        False,
    )
