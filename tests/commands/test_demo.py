"""`mgc demo`, smaller than by default: every stage, and again, continued, moved and forced."""

from __future__ import annotations

import shutil
from pathlib import Path

import pytest

from mgc import api
from mgc.cache.errors import ConfigError
from mgc.pipeline.synth import world
from mgc.pipeline.synth.world import GENRES


def test_demo_runs_every_step_and_repeats_none(mgc, mgc_json, tmp_path):
    first = mgc_json("demo", "-o", tmp_path / "demo", "--songs", 40, "--epochs", 3)
    assert (first["extraction"]["planned"], first["extraction"]["failed"]) == (40, 0)
    assert first["training"]["last_loss"] < first["training"]["first_loss"]
    assert first["metrics"]["metrics"]["n_tracks"] >= 4
    assert set(first["training"]["genres"]) <= set(GENRES)
    assert first["prediction"]["scores"].keys() == set(first["training"]["genres"])
    assert Path(first["new_song"]).is_file()
    predicted = mgc_json("predict", tmp_path / "demo" / "run", tmp_path / "demo" / "new")
    assert predicted["predictions"] == [first["prediction"]]  # with the lyrics next to the audio
    assert predicted["remarks"][1:] == first["prediction_remarks"]  # the first is about the lyrics in the folder
    assert not any("without lyrics" in remark for remark in predicted["remarks"])
    page = Path(first["report"]).read_text()
    jaccard = first["metrics"]["metrics"]["columns"]["fixed"]["jaccard"]["value"]
    assert f"{jaccard:.3f}" in page
    files = snapshot(tmp_path / "demo")
    again = mgc("demo", "-o", tmp_path / "demo", "--songs", 40, "--epochs", 3)
    assert snapshot(tmp_path / "demo") == files
    assert "nothing was computed" in again.stdout
    assert f"test Jaccard index {jaccard:.3f}" in again.stdout
    assert f"report: {first['report']}" in again.stdout
    best = max(first["prediction"]["scores"], key=first["prediction"]["scores"].get)
    assert best in again.stdout
    # Each threshold is next to the values that it decides: 0.5 to the metrics, the tuned one to the new song.
    lines = {line.split(" ")[0]: line for line in again.stdout.splitlines()}
    assert "threshold 0.5 (" in lines["test"]
    assert f"; threshold {first['training']['threshold']:.3f}, tuned on" in lines["new"]
    assert again.stdout.count("threshold") == 2
    others = mgc("demo", "-o", tmp_path / "demo", "--songs", 41, "--epochs", 3, code=2)
    assert "songs: 40 in the demo, 41 in this command" in others.stderr
    assert snapshot(tmp_path / "demo") == files

    # Without its run, and moved: the songs are not generated again, and the paths are those of the folder now.
    shutil.rmtree(tmp_path / "demo" / "run")
    shutil.rmtree(tmp_path / "demo" / "new")
    songs = snapshot(tmp_path / "demo" / "songs")
    shutil.move(tmp_path / "demo", tmp_path / "moved")
    continued = mgc_json("demo", "-o", tmp_path / "moved", "--songs", 40, "--epochs", 3)
    assert snapshot(tmp_path / "moved" / "songs") == songs
    assert continued["prediction"]["scores"] == first["prediction"]["scores"]
    shutil.move(tmp_path / "moved", tmp_path / "demo")
    assert mgc_json("demo", "-o", tmp_path / "demo", "--songs", 40, "--epochs", 3)["report"] == first["report"]


def test_force_deletes_what_a_demo_made_and_nothing_else(tmp_path, monkeypatch):
    class StartedError(Exception):
        pass

    def make_collection(*_, **__):
        raise StartedError

    monkeypatch.setattr(world, "make_collection", make_collection)
    for name in ("songs", "songs.zarr", "run", "new", "mine"):
        (tmp_path / name).mkdir()
    with pytest.raises(StartedError):
        api.demo(tmp_path, n_songs=40)
    assert (tmp_path / "run").exists()
    with pytest.raises(ConfigError, match="songs: 40 in the demo, 50 in this command"):
        api.demo(tmp_path, n_songs=50)
    with pytest.raises(StartedError):
        api.demo(tmp_path, n_songs=50, force=True)
    assert {path.name for path in tmp_path.iterdir()} == {"mine", "demo.json"}
    (tmp_path / "demo.json").write_text("{")
    with pytest.raises(ConfigError, match="--force"):
        api.demo(tmp_path, n_songs=50)


def snapshot(folder: Path) -> dict[str, tuple[int, int]]:
    """Return inode and time of change of every file."""
    files = (path for path in folder.rglob("*") if path.is_file())
    return {str(path.relative_to(folder)): (path.stat().st_ino, path.stat().st_mtime_ns) for path in files}
