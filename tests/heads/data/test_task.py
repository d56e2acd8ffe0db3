"""Test that the preparation of a run computes each result once."""

from __future__ import annotations

from collections import Counter
from pathlib import Path
from types import ModuleType
from typing import Any

import pytest

from mgc.cache.reading.store import FeatureStore
from mgc.heads.config import TrainConfig
from mgc.heads.data import splits, task
from mgc.heads.training.train import train


def test_grouping_and_graph_summary_run_once_per_training(
    small_store: FeatureStore, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    calls = Counter[str]()

    def count(module: ModuleType, name: str) -> None:
        function = getattr(module, name)

        def counting(*args: Any, **options: Any) -> Any:
            calls[name] += 1
            return function(*args, **options)

        monkeypatch.setattr(module, name, counting)

    count(splits, "group_tracks")
    count(task, "bootstrap_groups")
    count(task, "graph_summary")
    options: dict[str, Any] = {"encoder": "tiny", "model_options": {"width": 32, "graph_hidden": 32}}
    result = train(small_store, tmp_path / "run", TrainConfig(epochs=1, **options))
    assert result.task.split.policy == "artist"
    assert calls == {"group_tracks": 1, "bootstrap_groups": 1, "graph_summary": 1}
    train(small_store, tmp_path / "run", TrainConfig(epochs=2, **options), resume=True)  # reuses the split of the run
    assert calls == {"group_tracks": 1, "bootstrap_groups": 2, "graph_summary": 2}
