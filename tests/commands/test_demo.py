"""`mgc demo`, smaller than a user runs it: every step, and again without doing anything twice."""

from __future__ import annotations

from pathlib import Path

from mgc.pipeline.synth.world import GENRES


def test_demo_runs_every_step_and_repeats_none(mgc, mgc_json, tmp_path):
    first = mgc_json("demo", "-o", tmp_path / "demo", "--songs", 40, "--epochs", 3)
    assert (first["extraction"]["planned"], first["extraction"]["failed"]) == (40, 0)
    assert first["training"]["last_loss"] < first["training"]["first_loss"]
    assert first["metrics"]["metrics"]["n_tracks"] >= 4
    assert set(first["training"]["genres"]) <= set(GENRES)
    assert first["prediction"]["scores"].keys() == set(first["training"]["genres"])
    assert Path(first["new_song"]).is_file()
    page = Path(first["report"]).read_text()
    jaccard = first["metrics"]["metrics"]["columns"]["fixed"]["jaccard"]["value"]
    assert f"{jaccard:.3f}" in page
    again = mgc("demo", "-o", tmp_path / "demo", "--songs", 40, "--epochs", 3)
    assert f"test Jaccard {jaccard:.3f}" in again.stdout
    assert f"report: {first['report']}" in again.stdout
    best = max(first["prediction"]["scores"], key=first["prediction"]["scores"].get)
    assert best in again.stdout
