"""Test dry runs: they agree with the training that follows, and write no files."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

from mgc.cache.reading.store import FeatureStore
from mgc.heads.config import TrainConfig
from mgc.heads.training.dry_run import dry_run
from mgc.heads.training.train import train

SMALL = {"encoder": "tiny", "model_options": {"width": 32, "graph_hidden": 32, "projection_dim": 16}}


@pytest.mark.parametrize("placement", ["host", "mapped"])
def test_dry_run_agrees_with_training(small_store: FeatureStore, tmp_path: Path, placement: str) -> None:
    config = TrainConfig(epochs=1, batch_size=4, placement=placement, precision="fp32", **SMALL)
    forecast = dry_run(small_store, config)
    result = train(small_store, tmp_path / "run", config)
    assert (forecast.n_parameters, forecast.precision, forecast.device) == (
        result.n_parameters,
        result.precision,
        "cpu",
    )
    assert result.placement is not None
    assert (forecast.placement.name, forecast.placement.n_bytes) == (placement, result.placement.n_bytes)
    assert forecast.task.filters == result.task.filters
    assert forecast.n_steps == result.history[0].step
    written = [(tmp_path / "run" / "last" / f"{name}-000001.safetensors") for name in ("weights", "optimizer")]
    assert forecast.checkpoint_bytes == pytest.approx(sum(path.stat().st_size for path in written), rel=0.2)
    assert forecast.timed_steps == forecast.n_steps - 1
    assert forecast.epoch_s >= forecast.n_steps * forecast.step_s > 0
    assert (forecast.read_s > 0) == (placement == "host")


def test_train_dry_run_writes_nothing(small_store: FeatureStore, tmp_path: Path, mgc_json: Callable[..., Any]) -> None:
    before = sorted(path.stat().st_mtime_ns for path in small_store.path.rglob("*"))
    forecast = mgc_json("train", small_store.path, "-o", tmp_path / "run", "--encoder", "tiny", "--dry-run")
    assert list(tmp_path.iterdir()) == []
    assert sorted(path.stat().st_mtime_ns for path in small_store.path.rglob("*")) == before
    assert (forecast["batch_size"], forecast["epochs"], forecast["run_exists"]) == (16, 100, False)
    assert forecast["train_tracks"] + forecast["validation_tracks"] + forecast["split"]["test"] == 40
    assert forecast["seconds_per_epoch"] > 0
