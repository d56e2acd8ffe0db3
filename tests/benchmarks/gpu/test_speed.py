"""Test the GPU benchmark without a GPU: its code runs, and its output is marked as a dry run."""

from __future__ import annotations

import re


def test_speed_without_a_device_exits_with_3(without_gpu):
    done = without_gpu("benchmarks.gpu.speed", code=3)
    assert "no CUDA device: nothing was measured" in done.stderr
    assert done.stdout == ""


def test_dry_run_prints_every_table_and_is_marked(without_gpu):
    page = without_gpu("benchmarks.gpu.speed", "--device", "cpu", code=0).stdout
    assert "Dry run on the CPU" in page
    assert re.findall("^## (.*)", page, re.MULTILINE) == [
        "Training",
        "Roofline",
        "The paper's training: 30555 tracks, 100 epochs, 4365 validation tracks",
    ]
    roofline = page.split("## Roofline")[1].split("##")[0]
    small, large = (float(row.split("|")[2]) for row in roofline.splitlines() if row[2:3].isdigit())
    assert 1.8 < large / small < 2.2  # operations of batches of 4 and 8 tracks
