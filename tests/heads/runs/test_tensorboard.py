"""Test the TensorBoard log: the values of metrics.jsonl, each once, also after a kill."""

from __future__ import annotations

import json
import sys
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
from safetensors.torch import load_file

from mgc.cache.reading.store import FeatureStore
from mgc.heads.config import TrainConfig
from mgc.heads.runs.history import EVENTS
from mgc.heads.training.train import train

CONFIG = TrainConfig(
    lr=2e-3,
    epochs=3,
    precision="fp32",
    encoder="tiny",
    model_options={"width": 32, "graph_hidden": 32, "projection_dim": 16},
)


def test_resumed_run_logs_every_point_once_and_has_the_same_weights(small_store: FeatureStore, tmp_path: Path) -> None:
    pytest.importorskip("tensorboard", reason="the extra 'tensorboard' is not installed")
    from tensorboard.backend.event_processing.event_accumulator import EventAccumulator

    from mgc.heads.runs.tensorboard import EventLog

    run = tmp_path / "run"

    def die() -> bool:
        history = run / "metrics.jsonl"
        if history.exists() and len(history.read_text().splitlines()) == 2:
            raise KeyboardInterrupt
        return False

    with pytest.raises(KeyboardInterrupt):
        train(small_store, run, CONFIG, epoch_log=EventLog, stop=die)
    assert [point.step for point in EventAccumulator(str(run)).Reload().Scalars("epoch/loss/total")] == [1, 2]
    (cut,) = run.glob(EVENTS)
    cut.write_bytes(cut.read_bytes()[:-7])  # truncated as by a kill
    train(small_store, run, CONFIG, resume=True, epoch_log=EventLog)
    train(small_store, tmp_path / "plain", CONFIG)

    lines = [json.loads(line) for line in (run / "metrics.jsonl").read_text().splitlines()]
    read = EventAccumulator(str(run)).Reload()
    names = {
        "loss/total": "loss",
        "loss/contrastive": "contrastive",
        "loss/classification": "classification",
        "training/tau": "tau",
        "training/learning_rate": "lr",
        "validation/mAP": "val_map",
        "validation/jaccard": "val_jaccard",
        "validation/bce": "val_bce",
        "validation/empty_share": "val_empty_share",
    }
    for name, field in names.items():
        for axis in ("epoch", "step"):
            points = read.Scalars(f"{axis}/{name}")
            assert [point.step for point in points] == [line[axis] for line in lines]
            assert [point.value for point in points] == pytest.approx([line[field] for line in lines], rel=1e-6)
    times = [point.wall_time for point in read.Scalars("epoch/loss/total")]
    assert times == sorted(times)
    first, second = (load_file(folder / "best" / "model.safetensors") for folder in (run, tmp_path / "plain"))
    assert all(first[name].equal(second[name]) for name in first.keys() | second.keys())


def test_missing_extra_is_named_and_nothing_is_written(
    small_store: FeatureStore, tmp_path: Path, call: Callable[..., Any], monkeypatch: pytest.MonkeyPatch
) -> None:
    for name in [
        name for name in sys.modules if name == "mgc.heads.runs.tensorboard" or "tensorboard" in name.split(".")
    ]:
        monkeypatch.delitem(sys.modules, name)
    monkeypatch.setitem(sys.modules, "tensorboard", None)  # type: ignore[arg-type]
    done = call("train", small_store.path, "-o", tmp_path / "run", "--tensorboard")
    assert done.code == 2
    assert "pip install 'mgc-music[tensorboard]'" in done.err
    assert not (tmp_path / "run").exists()
