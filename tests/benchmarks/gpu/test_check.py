from __future__ import annotations


def test_without_a_device_nothing_is_claimed(without_gpu):
    done = without_gpu("benchmarks.gpu.check", code=3)
    assert "no CUDA device: nothing was checked" in done.stderr
    assert done.stdout == ""


def test_its_code_runs_on_the_cpu_and_says_that_this_shows_nothing(without_gpu):
    done = without_gpu("benchmarks.gpu.check", "--device", "cpu", code=0)
    assert done.stdout.count("| yes |") == 13
    assert "dry run" in done.stdout
