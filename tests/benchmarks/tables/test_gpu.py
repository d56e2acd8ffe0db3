"""Table 2 on the larger world, in a tiny size on the CPU: its code runs, stops, resumes and claims nothing."""

from __future__ import annotations

from pathlib import Path

import pytest
import torch

from benchmarks.gpu.device import NO_DEVICE
from benchmarks.tables.gpu import GO_ON, main
from mgc.cache.upkeep.verify import verify


def test_a_dry_run_goes_on_where_time_was_up_and_says_that_it_shows_nothing(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    asked = ["dry", "--keep", str(tmp_path / "kept"), "--folder"]
    assert main([*asked, str(tmp_path / "one"), "--minutes", "0"]) == GO_ON
    stopped = capsys.readouterr()
    assert (stopped.out, "0 of 3 parts are drawn" in stopped.err) == ("", True)
    assert main([*asked, str(tmp_path / "one")]) == 0
    page = capsys.readouterr().out
    assert page.startswith(
        "# A dry run of benchmarks/tables/gpu.py on the CPU: it shows that the code runs, and nothing"
    )
    rows = [line.split("|")[1].strip() for line in page.splitlines() if line.startswith("| ")]
    assert {"none", "A-L + SCMA", "all", "fp32", "bf16"} <= set(rows)
    assert "8 of 8 runs finished" in page
    assert "Trained on cpu in bf16, fp32" in page
    assert verify(tmp_path / "one" / "features.zarr", full=True) == []
    assert main([*asked, str(tmp_path / "another")]) == 0  # where nothing but what was kept is at hand
    again = capsys.readouterr()
    assert "9 finished runs taken" in again.err
    assert again.out == page


@pytest.mark.skipif(torch.cuda.is_available(), reason="there is a device")
def test_without_a_device_nothing_is_done(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    assert main(["make", "--folder", str(tmp_path / "f")]) == NO_DEVICE
    assert "nothing was done" in capsys.readouterr().err
    assert not (tmp_path / "f").exists()
