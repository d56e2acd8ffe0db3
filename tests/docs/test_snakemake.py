"""The Snakemake workflow of examples/ extracts, trains and reports, and then has nothing left to do."""

from __future__ import annotations

import json
import os
import shutil
import subprocess
import sys
from pathlib import Path

import pytest

from benchmarks.tables.paper import world_of
from benchmarks.worlds.songs import make_benchmark

SNAKEMAKE = shutil.which("snakemake")
WORKFLOW = Path(__file__).parents[2] / "examples" / "snakemake" / "Snakefile"


@pytest.mark.skipif(SNAKEMAKE is None, reason="needs snakemake (pip install snakemake)")
def test_workflow_extracts_trains_and_ends(tmp_path: Path) -> None:
    songs = make_benchmark(tmp_path / "songs", world_of("plain"), 120, clip_s=1.0, workers=1)
    settings = {
        "source": songs,
        "store": "songs.zarr",
        "run": "run",
        "tasks": 2,
        "extract": "--clip-s 1 --text-model minilm",
        "train": "--encoder tiny --epochs 1 --set split=manifest",
    }
    command = [str(SNAKEMAKE), "-s", str(WORKFLOW), "--cores", "2", "--config"]
    command += [f"{name}={value}" for name, value in settings.items()]
    path = os.pathsep.join([str(Path(sys.executable).parent), os.environ["PATH"]])

    def run() -> str:
        environment = {**os.environ, "PATH": path}
        done = subprocess.run(
            command, cwd=tmp_path, capture_output=True, text=True, timeout=900, check=False, env=environment
        )
        assert done.returncode == 0, done.stderr
        return done.stderr

    run()
    summary = json.loads((tmp_path / "songs.zarr.jobs" / "summary.json").read_text())
    assert (summary["planned"], summary["ok"]) == (120, 120)
    assert (tmp_path / "run" / "report.html").exists()
    assert "Nothing to be done" in run()
