"""Provide a fixture that runs GPU scripts without a GPU."""

from __future__ import annotations

import os
import subprocess
import sys
from collections.abc import Callable

import pytest

from benchmarks.machine import ROOT

RunScript = Callable[..., "subprocess.CompletedProcess[str]"]


@pytest.fixture
def without_gpu() -> RunScript:
    """Return a function that runs ``python -m MODULE ARGS`` without CUDA devices and checks the exit status `code`."""

    def run(module: str, *args: str, code: int) -> subprocess.CompletedProcess[str]:
        environment = {**os.environ, "CUDA_VISIBLE_DEVICES": "", "OMP_NUM_THREADS": "1"}
        command = [sys.executable, "-m", module, *args]
        done = subprocess.run(command, cwd=ROOT, capture_output=True, text=True, timeout=550, env=environment)
        assert done.returncode == code, done.stdout + done.stderr
        return done

    return run
