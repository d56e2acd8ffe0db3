"""A killed worker of an ablation fails one run."""

from __future__ import annotations

import multiprocessing
from collections import deque
from types import SimpleNamespace

from mgc.heads.ablation import workers
from mgc.heads.ablation.runs import Failure


class Killed:
    """A worker process that reports one run as done and is killed before it receives the next."""

    exitcode = -9

    def __init__(self, *, target, args, daemon):
        self._pipe = args[1]

    def start(self):
        self._pipe.send("done")

    def join(self):
        pass


def test_worker_killed_between_two_runs_fails_only_the_next_run(monkeypatch):
    context = SimpleNamespace(Pipe=multiprocessing.get_context("spawn").Pipe, Process=Killed)
    monkeypatch.setattr(multiprocessing, "get_context", lambda _: context)
    monkeypatch.setattr(workers, "finished", lambda *_: None)
    runs = [SimpleNamespace(key=name, title=name, serves=()) for name in "abcd"]
    work = SimpleNamespace(folder=None)
    outcomes = list(workers._perform_in_workers(work, deque(runs), 1, lambda: False, lambda *_: None))
    assert [run.key for run, _ in outcomes] == ["a", "b", "c", "d"]
    assert [outcome for _, outcome in outcomes[::2]] == ["done", "done"]
    for _, failure in outcomes[1::2]:
        assert isinstance(failure, Failure)
        assert "killed by signal 9" in failure.reason
