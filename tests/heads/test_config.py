"""Test training options: checks, round trips, presets, schedules."""

from __future__ import annotations

from typing import Any

import pytest
import torch
import yaml

from mgc.cache.errors import ConfigError
from mgc.heads.config import SWITCHES, TrainConfig, read_settings, switched_on


def test_defaults_follow_the_paper_except_for_the_split() -> None:
    config = TrainConfig()
    assert (config.lr, config.batch_size, config.epochs, config.lambda_) == (1e-4, 16, 100, 0.3)
    assert (config.weight_decay, config.grad_clip, config.patience) == (0.0, 1.0, None)
    assert [config.lr_at(epoch) for epoch in (0, 49, 50, 99, 100)] == [1e-4, 1e-4, 5e-5, 5e-5, 2.5e-5]
    assert (config.optimizer, config.loss, config.bce_reduction, config.schedule) == ("adam", "bce", "mean", "halving")
    assert (config.prior_bias, config.spec_augment, config.modality_dropout) == (False, False, 0.0)
    assert config.warmup_epochs == 0
    assert config.split == "auto"


def test_preset_paper_uses_the_random_split_unless_overridden() -> None:
    assert TrainConfig.from_preset("paper").split == "random"
    assert TrainConfig.from_preset("paper", split="artist").split == "artist"
    for unknown in ("papre", "plus"):  # plus is a preset of mgc 0.1
        with pytest.raises(ConfigError, match=f"preset='{unknown}'.*paper-tuned"):
            TrainConfig.from_preset(unknown)
    assert TrainConfig.from_dict({"preset": "plus"}).preset == "plus"  # as in runs of mgc 0.1


def test_model_options_are_merged_with_those_of_a_preset() -> None:
    tuned = TrainConfig.from_preset("paper-tuned", model_options={"width": 8, "tau_scale": "linear"})
    assert tuned.model_options == {"graph_normalisation": "reweighted", "tau_scale": "linear", "width": 8}
    assert tuned.prior_bias
    assert tuned.head == "graph"


@pytest.mark.parametrize(
    ("n_train", "epochs", "lr"),
    [(64, 100, 1e-3), (1792, 90, 1 / 1008), (16_000, 10, 1e-3), (30_555, 10, 1e-2 / 19.1), (2_000_000, 10, 1e-4)],
)
def test_epochs_and_rate_depend_on_the_number_of_steps(n_train: int, epochs: int, lr: float) -> None:
    config = TrainConfig.from_preset("default").settled(n_train)
    assert (config.epochs, config.lr) == (epochs, pytest.approx(lr))
    assert config.settled(7) == config
    assert TrainConfig.from_preset("default", lr=3e-4, epochs=7).settled(n_train).lr == 3e-4
    assert TrainConfig.from_preset("default", epochs=100).settled(30_560).lr == 1e-4  # the paper's
    assert TrainConfig.from_preset("paper").settled(n_train) == TrainConfig.from_preset("paper")


def test_each_switch_changes_its_options_and_switches_merge() -> None:
    for switch in SWITCHES.values():
        assert len(TrainConfig().differences(TrainConfig.from_dict(switch))) == len(switch)
    assert switched_on("tau on a log scale", "graph reweighted")["model_options"] == {
        "tau_scale": "log",
        "graph_normalisation": "reweighted",
    }


def test_cosine_schedule_equals_that_of_torch_after_warmup() -> None:
    config = TrainConfig(schedule="cosine", warmup_epochs=3, epochs=13, lr=1.0)
    rates = [config.lr_at(epoch) for epoch in range(14)]
    assert rates[:4] == [0.25, 0.5, 0.75, 1.0]
    optimizer = torch.optim.SGD([torch.nn.Parameter(torch.zeros(1))], lr=1.0)
    scheduler = torch.optim.lr_scheduler.CosineAnnealingLR(optimizer, T_max=10)
    for rate in rates[3:]:
        assert rate == pytest.approx(optimizer.param_groups[0]["lr"], abs=1e-12)
        optimizer.step()
        scheduler.step()
    halved = TrainConfig(warmup_epochs=1, lr_halve_every=2, lr=1.0)
    assert [halved.lr_at(epoch) for epoch in range(5)] == [0.5, 1.0, 0.5, 0.5, 0.25]


def test_yaml_round_trip_keeps_the_config() -> None:
    config = TrainConfig(genres=("drum & bass", "rock"), model_options={"heads": 1, "ffn": True}, top_genres=2, lr=3e-4)
    assert TrainConfig.from_dict(yaml.safe_load(config.to_yaml())) == config


def test_home_of_mgc_0_1_is_read_as_placement() -> None:
    assert read_settings(["home=host"]) == {"placement": "host"}
    assert TrainConfig.from_dict({"placement": "device", "home": "mapped"}).placement == "mapped"


def test_unknown_option_is_refused_with_the_nearest_name() -> None:
    with pytest.raises(ConfigError, match="did you mean 'batch_size'"):
        TrainConfig.from_dict({"batchsize": 8})


@pytest.mark.parametrize(
    "options",
    [
        {"epochs": 0},
        {"batch_size": 1},
        {"lr": -1.0},
        {"lr": float("nan")},
        {"lambda_": 1.5},
        {"seed": -1},
        {"split": "fold"},
        {"encoder": "huge"},
        {"top_genres": 0},
        {"patience": 0},
        {"genres": ()},
        {"genres": ("a", "a")},
        {"attention": 1},
        {"epochs": 2.5},
        {"precision": "fp16"},
        {"min_labels": 0},
    ],
)
def test_invalid_values_are_refused_with_the_option(options: dict[str, Any]) -> None:
    with pytest.raises(ConfigError, match=next(iter(options))):
        TrainConfig(**options)


def test_only_the_number_of_epochs_may_change_on_resume() -> None:
    assert TrainConfig(epochs=5).differences(TrainConfig(epochs=9)) == []
    # A cosine schedule depends on the number of epochs.
    assert TrainConfig(epochs=5, schedule="cosine").differences(TrainConfig(epochs=9, schedule="cosine"))
    assert TrainConfig(lr=1e-3).differences(TrainConfig()) == ["lr: 0.001, was 0.0001"]
