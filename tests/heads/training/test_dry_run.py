"""A dry run tells what training then does, and leaves no trace."""

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


@pytest.mark.parametrize("home", ["host", "mapped"])
def test_it_tells_what_training_then_does(small_store: FeatureStore, tmp_path: Path, home: str) -> None:
    config = TrainConfig(epochs=1, batch_size=4, home=home, precision="fp32", **SMALL)
    found = dry_run(small_store, config)
    result = train(small_store, tmp_path / "run", config)
    assert (found.n_parameters, found.precision, found.device) == (result.n_parameters, result.precision, "cpu")
    assert result.placement is not None
    assert (found.placement.name, found.placement.n_bytes) == (home, result.placement.n_bytes)
    assert found.task.kept == result.task.kept
    assert found.n_steps == result.history[0].step
    written = [(tmp_path / "run" / "last" / f"{name}-000001.safetensors") for name in ("weights", "optimizer")]
    assert found.checkpoint_bytes == pytest.approx(sum(path.stat().st_size for path in written), rel=0.2)
    assert found.timed_steps == found.n_steps - 1
    assert found.epoch_s >= found.n_steps * found.step_s > 0
    assert (found.read_s > 0) == (home == "host")


def test_the_command_writes_nothing(small_store: FeatureStore, tmp_path: Path, mgc_json: Callable[..., Any]) -> None:
    before = sorted(path.stat().st_mtime_ns for path in small_store.path.rglob("*"))
    found = mgc_json("train", small_store.path, "-o", tmp_path / "run", "--encoder", "tiny", "--dry-run")
    assert list(tmp_path.iterdir()) == []
    assert sorted(path.stat().st_mtime_ns for path in small_store.path.rglob("*")) == before
    assert (found["batch_size"], found["epochs"], found["run_exists"]) == (16, 100, False)
    assert found["train_tracks"] + found["validation_tracks"] + found["split"]["test"] == 40
    assert found["seconds_per_epoch"] > 0
