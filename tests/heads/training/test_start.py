"""Test the lock of a run folder."""

from __future__ import annotations

import os
from contextlib import contextmanager

import pytest

from benchmarks.campaigns.faults import faults
from mgc.cache.errors import RunError, SaveError
from mgc.heads.training.start import exclusive


def test_second_training_in_a_folder_is_refused_with_the_owner(tmp_path):
    run = tmp_path / "deep" / "run"
    with (
        exclusive(run),
        pytest.raises(RunError, match=rf"run: process {os.getpid()} on .+ trains in this folder. Wait for it"),
        exclusive(run),
    ):
        pytest.fail("the second training was admitted")
    assert not run.exists(), "an empty run folder must be removed"


def test_lock_file_of_a_killed_training_is_ignored(tmp_path):
    (tmp_path / ".training").write_text("process 1 on another")
    with exclusive(tmp_path):
        pass
    assert tmp_path.exists()
    assert not (tmp_path / ".training").exists()


def test_refusal_does_not_need_the_lock_file_of_the_other_training(tmp_path, monkeypatch):
    @contextmanager
    def lock_of_exiting_owner(path):
        path.unlink()
        yield False

    monkeypatch.setattr("mgc.heads.training.start.lock", lock_of_exiting_owner)
    with pytest.raises(RunError, match="another process trains in this folder"), exclusive(tmp_path):
        pytest.fail("the second training was admitted")


@pytest.mark.parametrize("kind", ["EIO", "ENOSPC"])
@pytest.mark.parametrize("at", range(6))
def test_failing_disk_is_an_error_with_advice_or_does_not_matter(tmp_path, kind, at):
    run = tmp_path / "run"
    with faults(run, kind, at) as watch:
        if at < 4:
            with pytest.raises(SaveError, match=r"could not write the lock .* with --resume"), exclusive(run):
                pytest.fail("the training started without its lock")
        else:
            with exclusive(run):
                pass
    assert watch.fired
    with exclusive(run):
        pass
