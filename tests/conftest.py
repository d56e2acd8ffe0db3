"""What all tests share: the real data where it is at hand, and the mgc command as a user runs it."""

from __future__ import annotations

import json
import os
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

Mgc = Callable[..., "subprocess.CompletedProcess[str]"]


@pytest.fixture(scope="session")
def real_data() -> Path:
    """Folder with real songs and odd files; tests that want it skip where MGC_REAL_DATA does not name it."""
    folder = os.environ.get("MGC_REAL_DATA")
    if not folder:
        pytest.skip("MGC_REAL_DATA is not set: real songs are not at hand")
    return Path(folder).resolve()


@pytest.fixture(scope="session")
def mgc() -> Mgc:
    """Run ``mgc ARGS`` in a process of its own; `code` is the exit status wanted."""

    def run(*args: object, code: int = 0, timeout_s: float = 500) -> subprocess.CompletedProcess[str]:
        command = [sys.executable, "-m", "mgc", *map(str, args)]
        done = subprocess.run(command, capture_output=True, text=True, timeout=timeout_s)
        assert done.returncode == code, f"{command}: exit {done.returncode}\n{done.stdout}\n{done.stderr}"
        return done

    return run


@pytest.fixture(scope="session")
def mgc_json(mgc: Mgc) -> Callable[..., Any]:
    """Run ``mgc ARGS --json`` and parse what it prints."""

    def run(*args: object, code: int = 0) -> Any:
        return json.loads(mgc(*args, "--json", code=code).stdout)

    return run
