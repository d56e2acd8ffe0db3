"""The benchmark for a GPU, without one: its code runs, and it claims nothing."""

from __future__ import annotations

import re


def test_without_a_device_nothing_is_measured(without_gpu):
    done = without_gpu("benchmarks.gpu.speed", code=3)
    assert "no CUDA device: nothing was measured" in done.stderr
    assert done.stdout == ""


def test_a_dry_run_prints_every_table_and_says_that_it_shows_nothing(without_gpu):
    said = without_gpu("benchmarks.gpu.speed", "--device", "cpu", code=0).stdout
    assert "nothing was learnt about CUDA" in said
    assert re.findall("^## (.*)", said, re.MULTILINE) == [
        "Training",
        "Roofline",
        "The paper's training: 30555 tracks, 100 epochs, 4365 to validate on",
    ]
    roofline = said.split("## Roofline")[1].split("##")[0]
    small, large = (float(row.split("|")[2]) for row in roofline.splitlines() if row[2:3].isdigit())
    assert 1.8 < large / small < 2.2  # operations of a batch of 8 against one of 4
