from __future__ import annotations

import os
import subprocess
import sys
from pathlib import Path

SCRIPT = Path(__file__).parents[2] / "benchmarks" / "gpu_check.py"


def run(*args: str, code: int) -> subprocess.CompletedProcess[str]:
    environment = {**os.environ, "CUDA_VISIBLE_DEVICES": "", "OMP_NUM_THREADS": "1"}
    command = [sys.executable, str(SCRIPT), *args]
    done = subprocess.run(command, capture_output=True, text=True, timeout=550, env=environment)
    assert done.returncode == code, done.stdout + done.stderr
    return done


def test_without_a_device_nothing_is_claimed():
    done = run(code=3)
    assert "no CUDA device: nothing was checked" in done.stderr
    assert done.stdout == ""


def test_its_code_runs_on_the_cpu_and_says_that_this_shows_nothing():
    done = run("--device", "cpu", code=0)
    assert done.stdout.count("| yes |") == 10
    assert "dry run" in done.stdout
