"""Test `mgc train` under SIGTERM and SIGINT: checkpoint, exit code, exact resume."""

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


@pytest.mark.parametrize(("signal_number", "code"), [(signal.SIGTERM, 143), (signal.SIGINT, 130)])
def test_resume_after_a_signal_gives_identical_bytes(
    small_store: FeatureStore, tmp_path: Path, signal_number: signal.Signals, code: int
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
    process.send_signal(signal_number)
    _, stderr = process.communicate(timeout=60)
    assert process.returncode == code
    assert b"Continue with --resume" in stderr
    state, _ = find_state(run)
    assert state is not None
    config = TrainConfig.from_dict({**state.config, "epochs": state.epoch + 1})
    train(small_store, run, config, resume=True)
    train(small_store, tmp_path / "uninterrupted", config)
    ends = []
    for folder in (run, tmp_path / "uninterrupted"):
        state, _ = find_state(folder)
        assert state is not None
        ends.append([state_file(folder, state, role).read_bytes() for role in ("weights", "optimizer", "best")])
    assert ends[0] == ends[1]
