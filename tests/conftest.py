"""Fixtures of all tests: real data where it is available, and the mgc command as users run it."""

from __future__ import annotations

import json
import logging
import os
import signal
import subprocess
import sys
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import pytest
from hypothesis import HealthCheck, settings

from mgc import cli

pytest_plugins = ["small_world"]

# The duration of an example depends on the load of the machine, so it is no criterion.
settings.register_profile("mgc", deadline=None, suppress_health_check=[HealthCheck.too_slow])
settings.load_profile("mgc")

if "PYTEST_XDIST_WORKER" in os.environ:  # as many processes as cores: one thread each, in what they start too
    os.environ.setdefault("OMP_NUM_THREADS", "1")

LONGEST = ("test_real_songs.py", "test_campaigns.py", "test_demo.py", "test_documentation.py")

Mgc = Callable[..., "subprocess.CompletedProcess[str]"]


def pytest_collection_modifyitems(items: list[pytest.Item]) -> None:
    """Run the files that take minutes first, so that the processes end at about the same time."""
    items.sort(key=lambda item: item.path.name not in LONGEST)


@pytest.fixture(scope="session")
def real_data() -> Path:
    """Folder with real songs and odd files; tests that need it are skipped without MGC_REAL_DATA."""
    folder = os.environ.get("MGC_REAL_DATA")
    if not folder:
        pytest.skip("MGC_REAL_DATA is not set")
    return Path(folder).resolve()


@pytest.fixture(scope="session")
def mgc() -> Mgc:
    """Run ``mgc ARGS`` in a separate process; `code` is the expected exit status."""

    def run(*args: object, code: int = 0, timeout_s: float = 500) -> subprocess.CompletedProcess[str]:
        command = [sys.executable, "-m", "mgc", *map(str, args)]
        done = subprocess.run(command, capture_output=True, text=True, timeout=timeout_s)
        assert done.returncode == code, f"{command}: exit {done.returncode}\n{done.stdout}\n{done.stderr}"
        return done

    return run


@pytest.fixture(scope="session")
def mgc_json(mgc: Mgc) -> Callable[..., Any]:
    """Run ``mgc ARGS --json`` and parse its output."""

    def run(*args: object, code: int = 0) -> Any:
        return json.loads(mgc(*args, "--json", code=code).stdout)

    return run


@dataclass(frozen=True)
class Done:
    """Exit status and output of a command that ran in this process."""

    code: int
    out: str
    err: str

    @property
    def json(self) -> Any:
        return json.loads(self.out)


@pytest.fixture
def call(monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]) -> Iterator[Callable[..., Done]]:
    """Run `mgc ARGS` in this process, through the real entry point."""
    handlers = {number: signal.getsignal(number) for number in (signal.SIGTERM, signal.SIGINT, signal.SIGHUP)}

    def run(*args: object) -> Done:
        monkeypatch.setattr(sys, "argv", ["mgc", *map(str, args)])
        capsys.readouterr()
        with pytest.raises(SystemExit) as exit_:
            cli.main()
        out, err = capsys.readouterr()
        code = exit_.value.code
        return Done(code if isinstance(code, int) else 0 if code is None else 1, out, err)

    yield run
    signal.set_wakeup_fd(-1)
    for number, handler in handlers.items():
        signal.signal(number, handler)
    logging.getLogger("mgc").handlers = []


@pytest.fixture(scope="session")
def songs_store(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A small finished store for documentation and examples, with planted genres, artists and languages."""
    from benchmarks.worlds.songs_store import write_songs_store

    return write_songs_store(tmp_path_factory.mktemp("songs") / "songs.zarr")
