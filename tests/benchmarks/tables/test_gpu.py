"""Test Table 2 on the larger synthetic benchmark in a tiny size on the CPU: it runs, stops, resumes and is marked."""

from __future__ import annotations

from pathlib import Path

import pytest
import torch

from benchmarks.gpu.device import NO_DEVICE
from benchmarks.tables.gpu import UNFINISHED, main
from mgc.cache.upkeep.verify import verify


def test_dry_run_resumes_and_a_new_folder_reuses_kept_runs(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    arguments = ["dry", "--keep", str(tmp_path / "kept"), "--folder"]
    assert main([*arguments, str(tmp_path / "first"), "--minutes", "0"]) == UNFINISHED
    stopped = capsys.readouterr()
    assert (stopped.out, "0 of 3 parts are written" in stopped.err) == ("", True)
    assert main([*arguments, str(tmp_path / "first")]) == 0
    page = capsys.readouterr().out
    assert page.startswith("# Dry run of benchmarks/tables/gpu.py on the CPU")
    rows = [line.split("|")[1].strip() for line in page.splitlines() if line.startswith("| ")]
    assert {"none", "A-L + SCMA", "all", "fp32", "bf16"} <= set(rows)
    assert "8 of 8 runs finished" in page
    assert "Device cpu, precision bf16, fp32" in page
    assert verify(tmp_path / "first" / "features.zarr", full=True) == []
    assert main([*arguments, str(tmp_path / "another")]) == 0
    again = capsys.readouterr()
    assert "9 finished runs copied from" in again.err
    assert again.out == page


@pytest.mark.skipif(torch.cuda.is_available(), reason="this machine has a CUDA device")
def test_make_without_a_device_exits_with_3(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    assert main(["make", "--folder", str(tmp_path / "f")]) == NO_DEVICE
    assert "nothing was done" in capsys.readouterr().err
    assert not (tmp_path / "f").exists()
