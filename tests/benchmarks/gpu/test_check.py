from __future__ import annotations


def test_check_without_a_device_exits_with_3(without_gpu):
    done = without_gpu("benchmarks.gpu.check", code=3)
    assert "no CUDA device: nothing was checked" in done.stderr
    assert done.stdout == ""


def test_dry_run_on_the_cpu_passes_and_is_marked(without_gpu):
    done = without_gpu("benchmarks.gpu.check", "--device", "cpu", code=0)
    assert done.stdout.count("| yes |") == 13
    assert "Dry run on the CPU" in done.stdout
