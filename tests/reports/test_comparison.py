"""Comparison pages: metrics, settings that differ, paired differences and their significance."""

from __future__ import annotations

import json
import re
import shutil
from pathlib import Path
from typing import Any

import pytest

from benchmarks.chromium import Chromium
from mgc.cache.messages import interval, number
from mgc.cache.reading.store import FeatureStore
from mgc.heads.config import TrainConfig
from mgc.heads.evaluation.compare import compare_runs
from mgc.heads.evaluation.evaluate import evaluate
from mgc.heads.training.train import train
from mgc.reports.comparison import run_names, write_comparison


@pytest.fixture(scope="module")
def runs(evaluated_run: Path, small_store: FeatureStore, tmp_path_factory: pytest.TempPathFactory) -> list[Path]:
    """Audio and lyrics; audio only, on the same split; and a run without an evaluation."""
    folder = tmp_path_factory.mktemp("runs")
    shutil.copytree(evaluated_run, folder / "both")
    config = TrainConfig(encoder="tiny", epochs=1, lr=1e-3, device="cpu", batch_size=32, modalities="audio")
    train(small_store, folder / "audio", config)
    evaluate(folder / "audio", small_store, n_replicates=50)
    shutil.copytree(folder / "audio", folder / "young", ignore=shutil.ignore_patterns("metrics.json"))
    return [folder / name for name in ("both", "audio", "young")]


def _estimate(estimate: dict[str, Any]) -> str:
    return f"{number(estimate['value'])} {interval(estimate)}".strip()


def test_comparison_shows_metrics_differences_and_settings(runs: list[Path], browser: Chromium) -> None:
    out = write_comparison(runs)
    assert out == runs[0].parent / "compare.html"
    source = out.read_text(encoding="utf-8")
    plain = " ".join(re.sub(r"<[^>]*>", " ", source[source.index("<main>") :]).split())
    scores = [json.loads((run / "metrics.json").read_text())["test"]["metrics"] for run in runs[:2]]
    shown = " ".join(_estimate(score["mean_average_precision"]) for score in scores)
    assert f"mAP none (ranking) {shown} –" in plain
    result = compare_runs(runs[0], runs[1]).to_dict()
    difference = next(row for row in result["differences"] if row["column"] is None)["difference"]
    assert difference["low"] is None  # too few artists
    assert f"mAP none (ranking) {number(difference['value'], sign=True)} – not tested" in plain
    assert f"young − both No comparison: {runs[2]}" in plain
    assert "modalities both audio audio" in plain
    assert source.count("<td>not tested</td>") == len(result["differences"])
    assert not re.search(r"\bbatch_size\b", plain)  # the same in all
    jazz = [{row["genre"]: row for row in one["genres"]}["jazz"]["average_precision"] for one in scores]
    assert f"{' '.join(f'{value:.3f}' for value in jazz)} – {max(jazz) - min(jazz):.3f}" in plain
    tab = browser.open(out, width=360, height=740)
    assert tab.run("document.documentElement.scrollWidth - document.documentElement.clientWidth") == 0
    assert tab.run("document.querySelectorAll('figure svg').length") == 2
    assert tab.errors == []


def test_run_names_are_the_shortest_distinct_path_endings() -> None:
    assert run_names([Path("/a/x/run"), Path("/b/x/last")]) == ["run", "last"]
    assert run_names([Path("/a/x/run"), Path("/b/x/run")]) == ["a/x/run", "b/x/run"]


def test_report_command_writes_a_comparison_and_refuses_invalid_arguments(
    runs: list[Path], small_store: FeatureStore, tmp_path: Path, call: Any
) -> None:
    page = tmp_path / "deep/page.html"
    done = call("report", runs[0], runs[1], "-o", page, "--json")
    assert (done.code, done.json) == (0, {"report": str(page)})
    assert "Comparison of 2 training runs" in page.read_text(encoding="utf-8")
    for arguments, why in (
        ((runs[0], runs[0]), "two or more different runs"),
        ((runs[0], small_store.path), "a feature store with other inputs"),
        ((runs[0], runs[1], "--audio-root", tmp_path), "--audio-root needs the report of a single run"),
        ((runs[0], "--audio-root", tmp_path / "nowhere"), "nowhere: no such folder"),
    ):
        refused = call("report", *arguments)
        assert refused.code == 2
        assert why in " ".join(refused.err.split())
