"""Training options: checked when made, the same after a round trip, refused where misspelt."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest

from mgc.cache.errors import ConfigError
from mgc.heads.config import TrainConfig


def test_defaults_are_the_papers_but_for_the_split() -> None:
    config = TrainConfig()
    assert (config.lr, config.batch_size, config.epochs, config.lambda_) == (1e-4, 16, 100, 0.3)
    assert (config.weight_decay, config.grad_clip, config.patience) == (0.0, 1.0, None)
    assert [config.lr_at(epoch) for epoch in (0, 49, 50, 99, 100)] == [1e-4, 1e-4, 5e-5, 5e-5, 2.5e-5]
    assert config.split == "auto"


def test_the_paper_named_on_purpose_means_its_random_split_unless_told_otherwise() -> None:
    assert TrainConfig.from_preset("paper").split == "random"
    assert TrainConfig.from_preset("paper", split="artist").split == "artist"
    with pytest.raises(ConfigError, match="paper"):
        TrainConfig.from_preset("papre")


def test_yaml_gives_the_config_back(tmp_path: Path) -> None:
    config = TrainConfig(genres=("drum & bass", "rock"), model_options={"heads": 1, "ffn": True}, top_genres=2, lr=3e-4)
    (tmp_path / "config.yaml").write_text(config.to_yaml())
    assert TrainConfig.from_yaml(tmp_path / "config.yaml") == config


def test_an_unknown_option_is_refused_with_the_nearest_name(tmp_path: Path) -> None:
    (tmp_path / "config.yaml").write_text("batchsize: 8\n")
    with pytest.raises(ConfigError, match="did you mean 'batch_size'"):
        TrainConfig.from_yaml(tmp_path / "config.yaml")
    (tmp_path / "config.yaml").write_text("- 8\n")
    with pytest.raises(ConfigError, match="option: value"):
        TrainConfig.from_yaml(tmp_path / "config.yaml")


@pytest.mark.parametrize(
    "options",
    [
        {"epochs": 0}, {"batch_size": 1}, {"lr": -1.0}, {"lr": float("nan")}, {"lambda_": 1.5}, {"seed": -1},
        {"split": "fold"}, {"encoder": "huge"}, {"top_genres": 0}, {"patience": 0}, {"genres": ()},
        {"genres": ("a", "a")}, {"attention": 1}, {"epochs": 2.5}, {"precision": "fp16"}, {"min_labels": 0},
    ],
)  # fmt: skip
def test_senseless_values_are_refused_by_name(options: dict[str, Any]) -> None:
    with pytest.raises(ConfigError, match=next(iter(options))):
        TrainConfig(**options)


def test_only_the_number_of_epochs_may_differ_when_a_run_goes_on() -> None:
    assert TrainConfig(epochs=5).differences(TrainConfig(epochs=9)) == []
    assert TrainConfig(lr=1e-3).differences(TrainConfig()) == ["lr: 0.001 here, 0.0001 there"]
