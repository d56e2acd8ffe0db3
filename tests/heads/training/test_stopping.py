"""`mgc train` told to end: it saves where it is, says so by its exit code, and goes on from there exactly."""

from __future__ import annotations

import os
import signal
import subprocess
import sys
import time
from pathlib import Path

import pytest
import torch

from mgc.cache.reading.store import FeatureStore
from mgc.heads.config import TrainConfig
from mgc.heads.runs.checkpoint import find_state, state_file
from mgc.heads.training.train import train


@pytest.mark.parametrize(("asked", "code"), [(signal.SIGTERM, 143), (signal.SIGINT, 130)])
def test_a_signal_ends_it_within_ten_seconds_and_resume_goes_on_exactly(
    small_store: FeatureStore, tmp_path: Path, asked: signal.Signals, code: int
) -> None:
    run = tmp_path / "run"
    command = [
        sys.executable,
        "-m",
        "mgc",
        "train",
        str(small_store.path),
        "-o",
        str(run),
        "--encoder",
        "tiny",
        "--epochs",
        "100000",
        "--batch-size",
        "4",
        "--precision",
        "fp32",
    ]
    threads = {"OMP_NUM_THREADS": str(torch.get_num_threads())}
    process = subprocess.Popen(command, env={**os.environ, **threads}, stderr=subprocess.PIPE)
    deadline = time.monotonic() + 120
    while find_state(run)[0] is None:
        assert process.poll() is None
        assert time.monotonic() < deadline
        time.sleep(0.02)
    process.send_signal(asked)
    _, said = process.communicate(timeout=60)
    assert process.returncode == code
    assert b"go on with --resume" in said
    state, _ = find_state(run)
    assert state is not None
    config = TrainConfig.from_dict({**state.config, "epochs": state.epoch + 1})
    train(small_store, run, config, resume=True)
    train(small_store, tmp_path / "undisturbed", config)
    ends = []
    for folder in (run, tmp_path / "undisturbed"):
        state, _ = find_state(folder)
        assert state is not None
        ends.append([state_file(folder, state, role).read_bytes() for role in ("weights", "optimizer", "best")])
    assert ends[0] == ends[1]
