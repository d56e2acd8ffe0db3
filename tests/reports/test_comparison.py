"""Runs side by side: values, settings that differ, and differences only where they can be told."""

from __future__ import annotations

import json
import re
import shutil
from pathlib import Path
from typing import Any

import pytest
from chromium import Chromium

from mgc.cache.reading.store import FeatureStore
from mgc.heads.config import TrainConfig
from mgc.heads.evaluation.compare import compare_runs
from mgc.heads.evaluation.evaluate import evaluate
from mgc.heads.training.train import train
from mgc.reports.comparison import run_names, write_comparison


@pytest.fixture(scope="module")
def runs(evaluated_run: Path, small_store: FeatureStore, tmp_path_factory: pytest.TempPathFactory) -> list[Path]:
    """Sound and words; sound alone, on the same split; and one that is not evaluated yet."""
    folder = tmp_path_factory.mktemp("runs")
    shutil.copytree(evaluated_run, folder / "both")
    config = TrainConfig(encoder="tiny", epochs=1, lr=1e-3, device="cpu", batch_size=32, modalities="audio")
    train(small_store, folder / "sound", config)
    evaluate(folder / "sound", small_store, n_replicates=50)
    shutil.copytree(folder / "sound", folder / "young", ignore=shutil.ignore_patterns("metrics.json"))
    return [folder / name for name in ("both", "sound", "young")]


def test_runs_stand_side_by_side(runs: list[Path], browser: Chromium) -> None:
    out = write_comparison(runs)
    assert out == runs[0].parent / "compare.html"
    source = out.read_text(encoding="utf-8")
    plain = " ".join(re.sub(r"<[^>]*>", " ", source[source.index("<main>") :]).split())
    told = [json.loads((run / "metrics.json").read_text())["test"]["metrics"] for run in runs[:2]]
    values = [one["mean_average_precision"] for one in told]
    shown = " ".join(f"{one['value']:.3f} {one['low']:.3f} to {one['high']:.3f}" for one in values)
    assert f"mAP the ranking {shown} –" in plain
    found = compare_runs(runs[0], runs[1]).to_dict()
    difference = next(row for row in found["differences"] if row["column"] is None)["difference"]
    assert f"mAP the ranking {difference['value']:+.3f} {difference['low']:+.3f} to {difference['high']:+.3f}" in plain
    assert f"young less both Not told: {runs[2]}: not evaluated on its test split" in plain
    assert "modalities both audio audio" in plain
    assert source.count("<td>undecided</td>") == len(found["differences"])  # four artists are too few to tell
    assert not re.search(r"\bbatch_size\b", plain)  # the same in all
    jazz = [{row["genre"]: row for row in one["genres"]}["jazz"]["average_precision"] for one in told]
    assert f"{' '.join(f'{value:.3f}' for value in jazz)} – {max(jazz) - min(jazz):.3f}" in plain
    tab = browser.open(out, width=360, height=740)
    assert tab.run("document.documentElement.scrollWidth - document.documentElement.clientWidth") == 0
    assert tab.run("document.querySelectorAll('figure svg').length") == 2
    assert tab.errors == []


def test_names_are_as_long_as_they_must_be() -> None:
    assert run_names([Path("/a/x/run"), Path("/b/x/last")]) == ["run", "last"]
    assert run_names([Path("/a/x/run"), Path("/b/x/run")]) == ["a/x/run", "b/x/run"]


def test_a_user_writes_pages_and_is_told_what_cannot_stand_side_by_side(
    runs: list[Path], small_store: FeatureStore, tmp_path: Path, call: Any
) -> None:
    page = tmp_path / "deep/page.html"
    done = call("report", runs[0], runs[1], "-o", page, "--json")
    assert (done.code, done.json) == (0, {"report": str(page)})
    assert "2 runs side by side" in page.read_text(encoding="utf-8")
    for arguments, why in (
        ((runs[0], runs[0]), "two or more different runs"),
        ((runs[0], small_store.path), "is a feature store"),
        ((runs[0], runs[1], "--audio-root", tmp_path), "--audio-root is for the page of one run"),
        ((runs[0], "--audio-root", tmp_path / "nowhere"), "nowhere: no such folder"),
    ):
        refused = call("report", *arguments)
        assert refused.code == 2
        assert why in " ".join(refused.err.split())
