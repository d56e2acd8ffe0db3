"""Training options: checked when made, the same after a round trip, refused where misspelt."""

from __future__ import annotations

from typing import Any

import pytest
import torch
import yaml

from mgc.cache.errors import ConfigError
from mgc.heads.config import SWITCHES, TrainConfig, switched_on


def test_defaults_are_the_papers_but_for_the_split() -> None:
    config = TrainConfig()
    assert (config.lr, config.batch_size, config.epochs, config.lambda_) == (1e-4, 16, 100, 0.3)
    assert (config.weight_decay, config.grad_clip, config.patience) == (0.0, 1.0, None)
    assert [config.lr_at(epoch) for epoch in (0, 49, 50, 99, 100)] == [1e-4, 1e-4, 5e-5, 5e-5, 2.5e-5]
    assert (config.optimizer, config.loss, config.bce_reduction, config.schedule) == ("adam", "bce", "mean", "halving")
    assert (config.prior_bias, config.spec_augment, config.modality_dropout) == (False, False, 0.0)
    assert config.warmup_epochs == 0
    assert config.split == "auto"


def test_the_paper_named_on_purpose_means_its_random_split_unless_told_otherwise() -> None:
    assert TrainConfig.from_preset("paper").split == "random"
    assert TrainConfig.from_preset("paper", split="artist").split == "artist"
    with pytest.raises(ConfigError, match="paper"):
        TrainConfig.from_preset("papre")


def test_plus_is_what_paid_and_can_be_taken_back() -> None:
    plus = TrainConfig.from_preset("plus")
    assert (plus.optimizer, plus.schedule, plus.warmup_epochs, plus.weight_decay) == ("adamw", "cosine", 2, 0.01)
    assert (plus.loss, plus.prior_bias, plus.modality_dropout, plus.spec_augment) == ("bce", False, 0.0, False)
    off = {name: value for name, value in TrainConfig().to_dict().items() if name in SWITCHES["adamw_cosine"]}
    assert len(TrainConfig.from_preset("plus", **off).differences(plus)) == len(off)


def test_each_switch_beyond_the_paper_changes_options_of_its_own() -> None:
    assert len(switched_on(*SWITCHES)) == sum(map(len, SWITCHES.values()))
    for switch in SWITCHES.values():
        assert len(TrainConfig().differences(TrainConfig(**switch))) == len(switch)


def test_cosine_rises_in_equal_steps_and_falls_to_nothing() -> None:
    config = TrainConfig(schedule="cosine", warmup_epochs=3, epochs=13, lr=1.0)
    rates = [config.lr_at(epoch) for epoch in range(14)]
    assert rates[:4] == [0.25, 0.5, 0.75, 1.0]
    # torch's own schedule, from where the warm-up ends
    optimizer = torch.optim.SGD([torch.nn.Parameter(torch.zeros(1))], lr=1.0)
    theirs = torch.optim.lr_scheduler.CosineAnnealingLR(optimizer, T_max=10)
    for rate in rates[3:]:
        assert rate == pytest.approx(optimizer.param_groups[0]["lr"], abs=1e-12)
        optimizer.step()
        theirs.step()
    halved = TrainConfig(warmup_epochs=1, lr_halve_every=2, lr=1.0)
    assert [halved.lr_at(epoch) for epoch in range(5)] == [0.5, 1.0, 0.5, 0.5, 0.25]


def test_yaml_gives_the_config_back() -> None:
    config = TrainConfig(genres=("drum & bass", "rock"), model_options={"heads": 1, "ffn": True}, top_genres=2, lr=3e-4)
    assert TrainConfig.from_dict(yaml.safe_load(config.to_yaml())) == config


def test_an_unknown_option_is_refused_with_the_nearest_name() -> None:
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
def test_senseless_values_are_refused_by_name(options: dict[str, Any]) -> None:
    with pytest.raises(ConfigError, match=next(iter(options))):
        TrainConfig(**options)


def test_only_the_number_of_epochs_may_differ_when_a_run_goes_on() -> None:
    assert TrainConfig(epochs=5).differences(TrainConfig(epochs=9)) == []
    # ... except where the learning rate is a function of their number.
    assert TrainConfig(epochs=5, schedule="cosine").differences(TrainConfig(epochs=9, schedule="cosine"))
    assert TrainConfig(lr=1e-3).differences(TrainConfig()) == ["lr: 0.001 here, 0.0001 there"]
