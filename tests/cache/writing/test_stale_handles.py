"""Another node of a network file system removes a folder that this one has in its cache: ESTALE instead of ENOENT."""

from __future__ import annotations

import errno
import os
from pathlib import Path
from typing import Any

import pytest

from benchmarks.worlds.small_store import create, part_content, tree
from mgc.cache.claims import hold
from mgc.cache.durable import names_in, stale_as_missing
from mgc.cache.format.plan import read_plan
from mgc.cache.writing.commits import commit_part, roll_forward


def fill(path: Path) -> dict[str, bytes | None]:
    plan = read_plan(path)
    for part in range(plan.n_parts):
        commit_part(path, part, *part_content(plan.part_range(part)))
    roll_forward(path)
    return tree(path)


class Stale:
    """Replace a function of os: it fails with ESTALE at every third call on a path in ``staging/``."""

    def __init__(self, monkeypatch: pytest.MonkeyPatch, name: str) -> None:
        self.calls, self.failures, self._real = 0, 0, getattr(os, name)
        monkeypatch.setattr(os, name, self)

    def __call__(self, path: Any, *arguments: Any, **options: Any) -> Any:
        if "staging" in os.fspath(path):
            self.calls += 1
            if self.calls % 3 == 2:
                self.failures += 1
                raise OSError(errno.ESTALE, os.strerror(errno.ESTALE), os.fspath(path))
        return self._real(path, *arguments, **options)


def test_staging_that_another_node_has_removed_is_made_again(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    expected = fill(create(tmp_path / "a.zarr"))
    path = create(tmp_path / "b.zarr")
    stale = Stale(monkeypatch, "mkdir")
    real = stale._real

    def mkdir(target: Any, *arguments: Any, **options: Any) -> Any:
        """Only the folder of a part is stale; folders below it are this node's own."""
        is_part = Path(os.fspath(target)).parent.name == "staging"
        return (stale if is_part else real)(target, *arguments, **options)

    monkeypatch.setattr(os, "mkdir", mkdir)
    assert fill(path) == expected
    assert stale.failures > 0


def test_stale_folder_has_no_names(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    def listdir(_: Any) -> list[str]:
        raise OSError(errno.ESTALE, os.strerror(errno.ESTALE))

    monkeypatch.setattr(os, "listdir", listdir)
    assert names_in(tmp_path) == []


def test_claim_in_a_stale_folder_is_not_taken(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """The folder is gone, so the work is done."""

    def write_text(path: Path, *_: Any, **__: Any) -> int:
        raise OSError(errno.ESTALE, os.strerror(errno.ESTALE), str(path))

    monkeypatch.setattr(Path, "write_text", write_text)
    with hold(tmp_path / "staging" / "claim") as held:
        assert not held


def test_other_errors_stay_what_they_are() -> None:
    with pytest.raises(OSError, match="disk") as found, stale_as_missing():
        raise OSError(errno.EIO, "disk")
    assert found.value.errno == errno.EIO
    with pytest.raises(FileNotFoundError), stale_as_missing():
        raise OSError(errno.ESTALE, "stale")
