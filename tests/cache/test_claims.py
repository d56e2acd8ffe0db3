"""Damaged and foreign claims do not block an extraction."""

from __future__ import annotations

import json
import os
import socket
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
