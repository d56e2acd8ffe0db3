"""Damaged and foreign claims do not block an extraction."""

from __future__ import annotations

import json
import os
import socket
import subprocess
import sys
from pathlib import Path

import pytest

from mgc.cache.claims import hold

HOST = socket.gethostname()


@pytest.mark.parametrize("owner", ["", [], {}, {"host": HOST}, {"host": HOST, "pid": []}, {"host": HOST, "pid": 2**70}])
def test_a_claim_without_an_owner_is_taken_over(tmp_path: Path, owner: object) -> None:
    file = tmp_path / "claim"
    file.write_text(json.dumps(owner))
    with hold(file) as held:
        assert held
    assert list(tmp_path.iterdir()) == []


def test_a_pipe_in_place_of_a_claim_is_not_waited_for(tmp_path: Path) -> None:
    os.mkfifo(tmp_path / "claim")
    with hold(tmp_path / "claim") as held:
        assert held


def test_the_claim_of_a_live_process_is_kept(tmp_path: Path) -> None:
    with hold(tmp_path / "claim") as held, hold(tmp_path / "claim") as second:
        assert (held, second) == (True, False)


def test_the_claim_of_a_container_with_the_same_host_name_is_kept(tmp_path: Path) -> None:
    """Its process id means nothing here, so that only the age of the claim counts."""
    file = tmp_path / "claim"
    owner = {"host": HOST, "space": "another boot pid:[1]", "pid": 2**22 + 1}
    file.write_text(json.dumps(owner))
    with hold(file) as held:
        assert not held
    os.utime(file, (0, 0))
    with hold(file) as held:
        assert held


def test_a_claim_is_kept_in_another_namespace_of_processes(tmp_path: Path) -> None:
    """The same with a real namespace, as containers have: the owner is alive, but invisible there."""
    code = "import sys; from pathlib import Path; from mgc.cache.claims import hold\n"
    code += "with hold(Path(sys.argv[1])) as held: print(held)"
    inside = ["unshare", "--pid", "--fork", "--mount-proc"]
    try:
        subprocess.run([*inside, "true"], check=True, capture_output=True)
    except (OSError, subprocess.CalledProcessError):
        pytest.skip("this process may not make a namespace")
    with hold(tmp_path / "claim") as held:
        assert held
        done = subprocess.run(
            [*inside, sys.executable, "-c", code, tmp_path / "claim"], capture_output=True, text=True, check=True
        )
    assert done.stdout == "False\n"
