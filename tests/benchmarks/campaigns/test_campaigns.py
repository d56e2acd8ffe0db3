"""Run a short form of each fault campaign; `make campaign` runs the long form."""

from __future__ import annotations

import dataclasses
import json
import os
import shutil
import subprocess
import sys
from pathlib import Path

import pytest

from benchmarks.campaigns import hostile, inputs, kills, large, reliability, store, training
from benchmarks.campaigns.store_machine import run_sequences
from benchmarks.machine import ROOT


@pytest.mark.parametrize("trial", [kills.kill, kills.kill_dask])
def test_extraction_resumed_after_sigkill_gives_an_identical_store(tmp_path, trial):
    # The time of a kill depends on the duration of a clean run, so that under changing load it may come too late.
    assert any(trial(number, tmp_path / str(number))["kills"] for number in range(1, 6))


def test_extraction_with_killed_workers_gives_an_identical_store(tmp_path):
    assert kills.worker(0, tmp_path) == {"workers killed": 4}


@pytest.fixture
def may_mount(tmp_path):
    probe = tmp_path / "probe"
    probe.mkdir()
    if os.geteuid() != 0 or subprocess.run(["mount", "-t", "tmpfs", "tmpfs", probe], check=False).returncode != 0:
        pytest.skip("only root can mount a small file system")
    subprocess.run(["umount", probe], check=True)


@pytest.mark.usefixtures("may_mount")
def test_extraction_on_a_full_disk_fails_clearly_and_resumes(tmp_path):
    assert sum(kills.disk_full(number, tmp_path)["times full"] for number in (1, 2)) >= 1


def test_files_that_crash_hang_or_bloat_the_decoder_fail_with_their_reason(tmp_path):
    result = inputs.blame(0, tmp_path, n_clips=16, n_planted=1)
    assert result == {"files blamed": 3, "neighbours unharmed": 13}
    lines = [json.loads(line) for log in (tmp_path / "s.zarr/log").iterdir() for line in log.read_text().splitlines()]
    stderr = {name: text for line in lines for name, text in line.get("stderr", {}).items()}
    (crash,) = (text for name, text in stderr.items() if "crash" in name)
    assert "Segmentation fault" in crash, "the log has no stderr of the decoder"


def test_mutated_audio_is_ok_or_failed(tmp_path):
    result = inputs.mutants(0, tmp_path, n_files=500)
    assert result["files"] == 500
    assert result["failed"] > 20


def test_concurrent_reader_sees_complete_rows_only(tmp_path):
    assert store.reader(0, tmp_path)["reads"] > 1000


def test_flipped_bits_are_detected_located_and_repaired(tmp_path):
    result = store.flip(0, tmp_path, every=15)
    assert result["bits flipped"] >= 8
    assert result["bits of a sealed store"] >= 100


def test_random_sequences_of_commands_agree_with_the_model():
    assert run_sequences(15, seed=0) == 15


def test_cost_of_a_large_collection_is_linear(tmp_path):
    result = large.large(0, tmp_path, sizes=(2048, 4096))
    assert {"read the manifest", "plan", "resume", "open and count", "info", "failures", "verify"} < result.keys()


def test_training_resumed_after_sigkill_gives_identical_bytes(tmp_path):
    assert training.kill(1, tmp_path, n_kills=1)["kills"] == 1


@pytest.mark.usefixtures("may_mount")
def test_training_on_a_full_disk_fails_clearly_and_resumes_exactly(tmp_path):
    assert training.disk_full(1, tmp_path) == {"times full": 1}  # the disk is smaller than the run


@pytest.mark.parametrize("kind", training.KINDS)
def test_training_resumed_after_a_fault_at_any_operation_gives_identical_bytes(tmp_path, kind):
    assert training.fault(5, tmp_path, step=23, kinds=(kind,))["operations"] >= 3


def test_training_resumed_with_a_damaged_file_gives_identical_bytes(tmp_path):
    assert training.damage(1, tmp_path, every=3)["files"] >= 5


def test_figures_add_up_over_trials_and_failures_are_kept(tmp_path, monkeypatch, capsys):
    def trial(number: int, folder: Path) -> dict[str, int]:
        if number == 1:
            raise AssertionError("it broke")
        return {"kills": 3, "more": 1}

    campaign = reliability.Campaign(trial, "kills", 7, "something holds")
    monkeypatch.setattr(reliability, "CAMPAIGNS", {"kill": campaign})
    assert not reliability.run(tmp_path, ["kill"], minutes=1)
    assert reliability.run(tmp_path, ["kill"], minutes=1), "the target is reached"
    reliability.report(tmp_path)
    out = capsys.readouterr().out
    assert "| kill | something holds | 9 kills | 7 | 4 | 1, 1 not passed since | 3 more |" in out
    assert reliability.run(tmp_path, ["kill"], minutes=1, more=4), "further trials after the target"
    monkeypatch.setitem(reliability.CAMPAIGNS, "kill", dataclasses.replace(campaign, trial=lambda *_: {"kills": 3}))
    assert reliability.run(tmp_path, ["kill"], minutes=1, again=True)
    reliability.report(tmp_path)
    assert "| kill | something holds | 18 kills | 7 | 7 | 1, all passed since | 5 more |" in capsys.readouterr().out


def test_trials_without_a_commit_are_ignored(tmp_path):
    lines = [{"trial": i, "passed": True, "result": {"kills": 2}, "date": "2026-11-25", "code": "a"} for i in range(3)]
    lines[1]["code"], lines[2]["passed"] = "b", False
    without = {"trial": 3, "passed": True, "result": {"kills": 100}, "date": "2026-11-24"}
    (tmp_path / "kill.jsonl").write_text("".join(json.dumps(line) + "\n" for line in [without, *lines]))
    row = reliability.row("kill", reliability.read_lines(tmp_path, "kill"))
    assert "| 4 kills | 450 | 3 |" in row
    assert row.endswith("| b: 2 kills, a: 2 kills |")
    assert reliability.row("power", []).endswith("| not run yet |")


def test_campaign_that_this_machine_cannot_run_is_reported(tmp_path, monkeypatch, capsys):
    campaign = reliability.Campaign(lambda *_: {"cuts": 1}, "cuts", 1, missing=lambda: "only root can mount")
    monkeypatch.setattr(reliability, "CAMPAIGNS", {"power": campaign})
    reliability.run(tmp_path, ["power"], minutes=1)
    assert "power: not run, because only root can mount\n" in capsys.readouterr().err
    assert reliability.read_lines(tmp_path, "power") == []


@pytest.mark.parametrize("name", ["faults", "train-faults"])
def test_exhaustive_campaign_covers_every_operation_once(name):
    campaign, lines = reliability.CAMPAIGNS[name], []
    for _ in range(campaign.exhaustive + 1):
        number = reliability.next_trial(campaign, lines)
        lines.append({"trial": number, "passed": len(lines) != 2, "result": {"operations": 1}})
    assert sorted(line["trial"] for line in reliability.last_passes(lines)) == list(range(campaign.exhaustive))
    assert reliability.next_trial(campaign, lines) < campaign.exhaustive, "further trials repeat earlier ones"
    assert reliability.figure(campaign, [*lines, lines[0]]) == campaign.exhaustive, "a repeated trial counts once"


@pytest.mark.skipif(shutil.which("strace") is None, reason="strace is not installed")
def test_order_of_system_calls_is_durable():
    done = subprocess.run(
        [sys.executable, "-m", "benchmarks.campaigns.fsync_order"],
        cwd=ROOT,
        capture_output=True,
        text=True,
        timeout=300,
    )
    if "PTRACE" in done.stderr or "ptrace" in done.stderr:
        pytest.skip("this machine does not allow strace")
    assert done.returncode == 0, done.stderr
    assert "the order holds for 5 records" in done.stdout


def test_hostile_stores_and_models_are_read_correctly_or_refused(tmp_path):
    result = hostile.hostile(0, tmp_path, n_mutants=60)
    assert result["mutants"] == result["read"] + result["refused"] == 60
    assert result["refused"] > 20
    assert hostile.KINDS.keys() <= result.keys()
    assert "% of" in result["lines of cache/ that they ran"]


def test_other_exceptions_fail_the_trial_of_hostile_mutants(tmp_path, monkeypatch):
    def broken(folder: Path, rng: object) -> bool:
        raise KeyError("first_row")

    monkeypatch.setattr(hostile, "KINDS", {"records": broken})
    with pytest.raises(AssertionError, match=r"mutant 0 of trial 3 \(records\): KeyError"):
        hostile.hostile(3, tmp_path, n_mutants=1)
