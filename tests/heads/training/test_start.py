"""A run's folder has one training at a time."""

from __future__ import annotations

import os
from contextlib import contextmanager

import pytest

from mgc.cache.errors import RunError
from mgc.heads.training.start import only_training


def test_a_second_training_in_a_folder_is_refused_and_told_who_has_it(tmp_path):
    run = tmp_path / "deep" / "run"
    with (
        only_training(run),
        pytest.raises(RunError, match=rf"run: process {os.getpid()} on .+ trains in this folder; wait for it"),
        only_training(run),
    ):
        pytest.fail("it was let in")
    assert not run.exists(), "nothing was trained, so nothing is left"


def test_the_mark_of_a_training_that_was_killed_hinders_nobody(tmp_path):
    (tmp_path / ".training").write_text("process 1 on another")
    with only_training(tmp_path):
        pass
    assert tmp_path.exists()
    assert not (tmp_path / ".training").exists()


def test_a_training_that_ends_while_it_refuses_another_is_named_as_one(tmp_path, monkeypatch):
    @contextmanager
    def removed(mark):
        mark.unlink()
        yield False

    monkeypatch.setattr("mgc.heads.training.start.lock", removed)
    with pytest.raises(RunError, match="another process trains in this folder"), only_training(tmp_path):
        pytest.fail("it was let in")
